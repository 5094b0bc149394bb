"""When lists are asked for, and which answers are believed."""

import dataclasses
from typing import Any

import pytest
import structlog.testing

from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.settings.config import ConnectorConfig, InstrumentsConfig, make_config
from bybit_pipeline.supervisor.plan.instruments import (
    Failure,
    InstrumentList,
    InstrumentListError,
    InstrumentQuery,
)
from bybit_pipeline.supervisor.plan.market_args import subscribe, unsubscribe
from bybit_pipeline.supervisor.plan.plan import Plan, make_plan
from bybit_pipeline.supervisor.source.discovery import Discovery
from bybit_pipeline.supervisor.source.instruments_client import (
    InstrumentsClient,
    ListRequest,
    ListResponse,
)

LINEAR = InstrumentQuery("linear")
SETTINGS = InstrumentsConfig(refresh_s=300.0, symbols_max=100)
RETRIES = ConnectorConfig(backoff_initial_s=5.0, backoff_max_s=60.0)
MANY = [f"S{number}USDT" for number in range(10)]


class FakeClient(InstrumentsClient):
    """Gives what the test says."""

    def __init__(self) -> None:
        self.is_busy = False
        self.requests: list[ListRequest] = []
        self.answer: ListResponse | None = None

    def ask(self, request: ListRequest) -> None:
        assert not self.is_busy
        self.is_busy = True
        self.requests.append(request)

    def take(self) -> ListResponse:
        assert self.answer is not None
        self.is_busy = False
        return self.answer


class Rig:
    """A discovery, a plan and a clock."""

    def __init__(self, *symbols: str, **tables: Any) -> None:
        config = make_config({"source": "live", "market": [{"symbols": symbols}], **tables})
        self.plan = make_plan(config, run_dir="/run/x")
        self.client = FakeClient()
        self.telemetry = Telemetry()
        self.discovery = Discovery(SETTINGS, RETRIES, self.telemetry, client=self.client)
        self.now = 1000.0

    @property
    def asked(self) -> int:
        """How many questions there were."""
        return len(self.client.requests)

    def look(self, after_s: float = 0.0, plan: Plan | None = None) -> int:
        """Look after a while; how many questions there were by then."""
        self.now += after_s
        self.plan = self.discovery.look(plan or self.plan, self.now, asks_exchange=False)
        return self.asked

    def take(self, *symbols: str, failure: Failure | None = None) -> set[str]:
        """Answer the question; the symbols that are followed then."""
        request = self.client.requests[-1]
        lists = {} if failure else {query: InstrumentList(symbols) for query in request.queries}
        errors = (
            {query: InstrumentListError(failure, "no") for query in request.queries}
            if failure
            else {}
        )
        self.client.answer = ListResponse(request=request, lists=lists, errors=errors)
        universe = self.discovery.take(self.plan, self.now, 1)
        self.plan = self.plan.with_universe(universe)
        return {placement.stream.symbol for placement in self.plan.placements}

    def count(self, name: str, **labels: str) -> float | None:
        """A counter."""
        return self.telemetry.registry.get_sample_value(f"bybit_pipeline_{name}", labels)


def test_without_patterns_nobody_is_asked() -> None:
    assert Rig("BTCUSDT").look(1e6) == 0


def test_the_list_of_the_network_is_asked_for_at_once_and_then_now_and_again() -> None:
    rig = Rig("*USDT")
    assert rig.look() == 1
    assert rig.client.requests[0].url == "https://api.bybit.com"
    assert rig.client.requests[0].queries == (LINEAR,)
    assert rig.look(1000) == 1, "one question at a time"
    assert rig.take("AUSDT") == {"AUSDT"}
    assert rig.look(299) == 1
    assert rig.look(2) == 2


@pytest.mark.parametrize(
    ("tables", "url"),
    [
        ({}, "https://api.bybit.com"),
        ({"network": "testnet"}, "https://api-testnet.bybit.com"),
        ({"url": "wss://stream.bybit.kz/v5/public/{category}"}, "https://api.bybit.kz"),
        ({"url": "ws://127.0.0.1:9000/v5/public/{category}"}, "http://127.0.0.1:9000"),
        ({"url": "ws://streams.example/x"}, "http://streams.example"),
        ({"instruments": {"url": "https://api.bytick.com/"}}, "https://api.bytick.com"),
    ],
)
def test_the_list_is_where_the_websocket_is_or_where_the_file_says(
    tables: dict[str, Any], url: str
) -> None:
    rig = Rig("*USDT", **tables)
    rig.look()

    assert rig.client.requests[0].url == url


def test_a_failure_changes_nothing_is_said_once_and_tried_again_with_growing_pauses() -> None:
    rig = Rig("NAMEDUSDT", "*USDT")
    rig.look()
    rig.take("AUSDT")
    rig.look(301)
    pauses = []
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            assert rig.take(failure="timeout") == {"NAMEDUSDT", "AUSDT"}
            before, asked = rig.now, rig.asked
            while rig.look(1) == asked:
                pass
            pauses.append(rig.now - before)
        rig.take("BUSDT")

    assert pauses == [5, 10, 20, 40, 60]
    events = [(entry["event"], entry.get("reason")) for entry in logs]
    assert events == [
        ("no list of instruments, symbols stay as they are", "timeout"),
        ("list of instruments is back", None),
        ("symbols changed", None),
    ]
    assert rig.count("instrument_lists_total", result="timeout") == 5
    assert rig.count("instrument_lists_total", result="ok") == 2
    assert rig.look(299) == rig.asked


@pytest.mark.parametrize("failure", ["forbidden", "rate_limited"])
def test_who_is_not_welcome_waits_long_at_once(failure: Failure) -> None:
    rig = Rig("*USDT")
    rig.look()
    rig.take(failure=failure)

    assert rig.look(59) == 1
    assert rig.look(2) == 2


def test_a_list_that_lost_most_is_believed_only_when_the_next_one_agrees() -> None:
    rig = Rig("*USDT")
    rig.look()
    assert rig.take(*MANY) == set(MANY)

    rig.look(301)
    assert rig.take(*MANY[:3]) == set(MANY)
    assert "instruments are missing" in rig.plan.universe.patterns[0].problem
    assert rig.count("instrument_lists_total", result="implausible") == 1
    rig.look(301)
    assert rig.take(*MANY) == set(MANY)

    for expected in (MANY, MANY[:3]):
        rig.look(301)
        assert rig.take(*MANY[:3]) == set(expected)


def test_a_new_pattern_is_resolved_at_once_also_when_it_comes_back() -> None:
    rig = Rig("*USDT")
    rig.look()
    rig.take("AUSDT")
    with_pattern, without = (
        rig.plan,
        rig.plan.with_universe(rig.plan.universe.without_pattern("linear:*USDT")),
    )
    assert rig.look(1, plan=without) == 1
    assert rig.look(1, plan=with_pattern) == 2


def test_another_source_is_asked_at_once_and_an_answer_of_the_old_one_is_dropped() -> None:
    rig = Rig("*USDT")
    rig.look()
    rig.take("AUSDT")
    rig.look(301)
    rig.plan = dataclasses.replace(
        rig.plan, url="ws://127.0.0.1:5/v5/public/{category}", source="sim", has_simulator=True
    )
    assert rig.look() == 2, "still busy"
    assert rig.plan.universe.patterns[0].state == "unresolved"
    assert rig.take("OLDUSDT") == {"AUSDT"}
    assert rig.look() == 3
    assert rig.client.requests[-1].url == "http://127.0.0.1:5"
    assert rig.take("SIMUSDT") == {"SIMUSDT"}


def test_what_comes_and_goes_is_counted_and_said() -> None:
    rig = Rig("*USDT")
    rig.look()
    rig.take("AUSDT", "BUSDT")
    rig.look(301)
    with structlog.testing.capture_logs() as logs:
        rig.take("BUSDT", "CUSDT")

    [entry] = logs
    assert (entry["joined"], entry["left"]) == ("CUSDT", "AUSDT")
    assert rig.count("symbol_changes_total", change="joined") == 3
    assert rig.count("symbol_changes_total", change="left") == 1
    assert rig.count("pattern_symbols", pattern="linear:*USDT") == 2
    assert rig.count("pattern_resolved", pattern="linear:*USDT") == 1


def test_a_pattern_that_comes_back_is_not_compared_with_the_list_of_long_ago() -> None:
    """As of options, which expire: of last week's list hardly any is left."""
    rig = Rig("*USDT")
    rig.look()
    rig.take(*MANY)
    rig.look(plan=unsubscribe(rig.plan, ["linear:*USDT"]))
    rig.look(1e6, plan=subscribe(rig.plan, ["linear:*USDT"]))

    assert rig.take("NEWUSDT") == {"NEWUSDT"}
