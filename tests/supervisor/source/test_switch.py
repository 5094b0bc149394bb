"""The switch from the exchange to the simulator and back, plan by plan."""

from collections.abc import Iterator

import pytest

from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.plan.plan import Plan, make_plan
from bybit_pipeline.supervisor.source.fallback import Link
from bybit_pipeline.supervisor.source.switch import TRIAL_S, SourceSwitch

LIVE, SIM = "ws://127.0.0.1:1/{category}", "ws://127.0.0.1:2/{category}"
CONFIG = make_config(
    {
        "source": "auto",
        "url": LIVE,
        "connector": {"fallback_after_s": 5.0, "backoff_initial_s": 60, "backoff_max_s": 60},
    }
)


@pytest.fixture
def plan() -> Plan:
    """The plan at the start: live."""
    return make_plan(CONFIG, run_dir="/run/x")


@pytest.fixture
def switch() -> Iterator[SourceSwitch]:
    """A switch whose probe never comes to an attempt."""
    switch = SourceSwitch(CONFIG, Telemetry())
    yield switch
    switch.close()


def fall_back(switch: SourceSwitch, plan: Plan) -> Plan:
    """The plan after the exchange was unreachable for too long."""
    assert plan is switch.fall_back_if_due(plan, 100.0, [Link(100.0, False)])
    return switch.fall_back_if_due(plan, 106.0, [Link(106.0, False)])


def test_connectors_keep_the_live_address_until_the_simulator_announces_its_own(
    switch: SourceSwitch, plan: Plan
) -> None:
    assert switch.may_fall_back
    starting = fall_back(switch, plan)
    assert ("live", LIVE, True) == (starting.source, starting.url, starting.has_simulator)
    assert not switch.may_fall_back

    simulated = switch.use_simulator(starting, SIM)
    assert ("sim", SIM, True) == (simulated.source, simulated.url, simulated.has_simulator)
    assert simulated is switch.use_simulator(simulated, SIM), "it was restarted"
    assert simulated is switch.use_simulator(simulated, "")


def shape(plan: Plan) -> tuple[str, str, bool]:
    return plan.source, plan.url, plan.has_simulator


def test_the_simulator_stops_once_a_connector_has_live_data(
    switch: SourceSwitch, plan: Plan
) -> None:
    simulated = switch.use_simulator(fall_back(switch, plan), SIM)

    trial = switch.try_live(simulated, 200.0)
    assert ("live", LIVE, True) == shape(trial)
    assert trial is switch.settle_if_due(trial, 201.0, [Link(201.0, False)])

    settled = switch.settle_if_due(trial, 202.0, [Link(202.0, False), Link(202.0, True)])
    assert ("live", LIVE, False) == shape(settled)
    assert settled is switch.settle_if_due(settled, 999.0, [Link(999.0, False)]), "for good"


def test_without_live_data_the_connectors_return_to_the_simulator(
    switch: SourceSwitch, plan: Plan
) -> None:
    simulated = switch.use_simulator(fall_back(switch, plan), SIM)
    trial = switch.try_live(simulated, 200.0)
    end = 200.0 + TRIAL_S

    assert trial is switch.settle_if_due(trial, end + 0.1, [Link(end - 0.1, False)]), "not heard of"
    assert trial is switch.use_simulator(trial, SIM), "a restart does not end the trial"
    back = switch.settle_if_due(trial, end + 0.2, [Link(end + 0.1, False)])
    assert ("sim", SIM, True) == shape(back)

    again = switch.try_live(back, 300.0)
    assert ("live", LIVE, True) == shape(again)
    assert ("live", LIVE, False) == shape(switch.settle_if_due(again, 301.0, [Link(301.0, True)]))


def test_a_trial_without_connectors_ends_as_well(switch: SourceSwitch, plan: Plan) -> None:
    """Their symbols come from a list that the exchange does not deliver."""
    trial = switch.try_live(switch.use_simulator(fall_back(switch, plan), SIM), 200.0)
    assert ("sim", SIM, True) == shape(switch.settle_if_due(trial, 200.1 + TRIAL_S, []))


def test_an_exchange_that_answers_before_the_simulator_is_up_only_stops_it(
    switch: SourceSwitch, plan: Plan
) -> None:
    starting = fall_back(switch, plan)

    trial = switch.try_live(starting, 200.0)

    assert starting is trial
    assert plan == switch.settle_if_due(trial, 201.0, [Link(201.0, True)])


def test_a_simulator_that_plays_a_capture_is_a_replay(switch: SourceSwitch) -> None:
    config = make_config({"source": "replay", "replay": {"capture": "/c.jsonl"}})
    plan = make_plan(config, run_dir="/run/x")

    assert "replay" == switch.use_simulator(plan, SIM).source
