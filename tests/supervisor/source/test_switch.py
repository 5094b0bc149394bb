"""The switch from the exchange to the simulator and back, plan by plan."""

from collections.abc import Iterator

import pytest

from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.plan.plan import Plan, make_plan
from bybit_pipeline.supervisor.source.fallback import Link
from bybit_pipeline.supervisor.source.switch import SourceSwitch

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


def test_connectors_leave_the_simulator_before_it_stops(switch: SourceSwitch, plan: Plan) -> None:
    simulated = switch.use_simulator(fall_back(switch, plan), SIM)

    plans = list(switch.go_live(simulated))

    assert [("live", LIVE, True), ("live", LIVE, False)] == [
        (plan.source, plan.url, plan.has_simulator) for plan in plans
    ]


def test_an_exchange_that_answers_before_the_simulator_is_up_only_stops_it(
    switch: SourceSwitch, plan: Plan
) -> None:
    starting = fall_back(switch, plan)

    first, second = switch.go_live(starting)

    assert starting is first
    assert plan == second


def test_a_simulator_that_plays_a_capture_is_a_replay(switch: SourceSwitch) -> None:
    config = make_config({"source": "replay", "replay": {"capture": "/c.jsonl"}})
    plan = make_plan(config, run_dir="/run/x")

    assert "replay" == switch.use_simulator(plan, SIM).source
