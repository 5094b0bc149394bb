"""Requests for instrument lists, and the responses that are accepted."""

import dataclasses
from typing import Any

import pytest
import structlog.testing

from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.settings.config import ConnectorConfig, InstrumentsConfig
from bybit_pipeline.shared.settings.validation import make_config
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
    """A client whose responses come from the test."""

    def __init__(self) -> None:
        self.is_busy = False
        self.requests: list[ListRequest] = []
        self.response: ListResponse | None = None

    def request(self, request: ListRequest) -> None:
        assert not self.is_busy
        self.is_busy = True
        self.requests.append(request)

    def take(self) -> ListResponse:
        assert self.response is not None
        self.is_busy = False
        return self.response


class World:
    """A discovery, a plan and a clock."""

    def __init__(self, *symbols: str, **tables: Any) -> None:
        config = make_config({"source": "live", "market": [{"symbols": symbols}], **tables})
        self.plan = make_plan(config, run_dir="/run/x")
        self.client = FakeClient()
        self.telemetry = Telemetry()
        self.discovery = Discovery(SETTINGS, RETRIES, self.telemetry, client=self.client)
        self.now = 1000.0

    @property
    def requests(self) -> int:
        """Number of requests so far."""
        return len(self.client.requests)

    def request(self, after_s: float = 0.0, plan: Plan | None = None) -> int:
        """Request lists after a while, if they are due; the number of requests so far."""
        self.now += after_s
        self.plan = self.discovery.request_if_due(
            plan or self.plan, self.now, probes_exchange=False
        )
        return self.requests

    def take(self, *symbols: str, failure: Failure | None = None) -> set[str]:
        """Respond to the last request; the followed symbols after that."""
        request = self.client.requests[-1]
        lists = {} if failure else {query: InstrumentList(symbols) for query in request.queries}
        errors = (
            {query: InstrumentListError(failure, "no") for query in request.queries}
            if failure
            else {}
        )
        self.client.response = ListResponse(request=request, lists=lists, errors=errors)
        universe = self.discovery.take(self.plan, self.now, 1)
        self.plan = self.plan.with_universe(universe)
        return {placement.stream.symbol for placement in self.plan.placements}

    def count(self, name: str, **labels: str) -> float | None:
        """A counter."""
        return self.telemetry.registry.get_sample_value(f"bybit_pipeline_{name}", labels)


def test_without_patterns_there_are_no_requests() -> None:
    assert 0 == World("BTCUSDT").request(1e6)


def test_a_list_is_requested_at_once_and_then_at_the_refresh_interval() -> None:
    world = World("*USDT")
    assert 1 == world.request()
    assert "https://api.bybit.com" == world.client.requests[0].url
    assert (LINEAR,) == world.client.requests[0].queries
    assert 1 == world.request(1000), "one request at a time"
    assert {"AUSDT"} == world.take("AUSDT")
    assert 1 == world.request(299)
    assert 2 == world.request(2)


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
def test_the_list_is_on_the_host_of_the_websocket_or_on_the_configured_one(
    tables: dict[str, Any], url: str
) -> None:
    world = World("*USDT", **tables)
    world.request()

    assert url == world.client.requests[0].url


def test_a_failure_keeps_the_symbols_is_logged_once_and_retried_with_growing_pauses() -> None:
    world = World("NAMEDUSDT", "*USDT")
    world.request()
    world.take("AUSDT")
    world.request(301)
    pauses = []
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            assert {"NAMEDUSDT", "AUSDT"} == world.take(failure="timeout")
            before, requests = world.now, world.requests
            while world.request(1) == requests:
                pass
            pauses.append(world.now - before)
        world.take("BUSDT")

    assert [5, 10, 20, 40, 60] == pauses
    assert [
        ("instrument list unavailable, symbols unchanged", "timeout"),
        ("instrument list available again", None),
        ("symbols changed", None),
    ] == [(entry["event"], entry.get("reason")) for entry in logs]
    assert 5 == world.count("instrument_lists_total", result="timeout")
    assert 2 == world.count("instrument_lists_total", result="ok")
    assert world.requests == world.request(299)


@pytest.mark.parametrize("failure", ["forbidden", "rate_limited"])
def test_a_refusing_server_is_retried_after_the_longest_pause(failure: Failure) -> None:
    world = World("*USDT")
    world.request()
    world.take(failure=failure)

    assert 1 == world.request(59)
    assert 2 == world.request(2)


def test_a_list_that_lost_most_symbols_is_accepted_once_the_next_one_agrees() -> None:
    world = World("*USDT")
    world.request()
    assert set(MANY) == world.take(*MANY)

    world.request(301)
    assert set(MANY) == world.take(*MANY[:3])
    assert "lacks 7 instruments" in world.plan.universe.patterns[0].problem
    assert 1 == world.count("instrument_lists_total", result="implausible")
    world.request(301)
    assert set(MANY) == world.take(*MANY)

    for expected in (MANY, MANY[:3]):
        world.request(301)
        assert set(expected) == world.take(*MANY[:3])


def test_a_new_pattern_is_resolved_at_once_even_if_it_was_there_before() -> None:
    world = World("*USDT")
    world.request()
    world.take("AUSDT")
    with_pattern, without = (
        world.plan,
        world.plan.with_universe(world.plan.universe.without_pattern("linear:*USDT")),
    )
    assert 1 == world.request(1, plan=without)
    assert 2 == world.request(1, plan=with_pattern)


def test_a_new_source_is_asked_at_once_and_a_response_of_the_old_one_is_dropped() -> None:
    world = World("*USDT")
    world.request()
    world.take("AUSDT")
    world.request(301)
    world.plan = dataclasses.replace(
        world.plan, url="ws://127.0.0.1:5/v5/public/{category}", source="sim", has_simulator=True
    )
    assert 2 == world.request(), "still busy"
    assert "unresolved" == world.plan.universe.patterns[0].state
    assert {"AUSDT"} == world.take("OLDUSDT")
    assert 3 == world.request()
    assert "http://127.0.0.1:5" == world.client.requests[-1].url
    assert {"SIMUSDT"} == world.take("SIMUSDT")


def test_symbols_that_join_and_leave_are_counted_and_logged() -> None:
    world = World("*USDT")
    world.request()
    world.take("AUSDT", "BUSDT")
    world.request(301)
    with structlog.testing.capture_logs() as logs:
        world.take("BUSDT", "CUSDT")

    [entry] = logs
    assert ("CUSDT", "AUSDT") == (entry["joined"], entry["left"])
    assert 3 == world.count("symbol_changes_total", change="joined")
    assert 1 == world.count("symbol_changes_total", change="left")
    assert 2 == world.count("pattern_symbols", pattern="linear:*USDT")
    assert 1 == world.count("pattern_resolved", pattern="linear:*USDT")


def test_the_list_of_a_pattern_that_comes_back_is_not_compared_with_an_old_one() -> None:
    """Options expire: hardly one of last week's list is left."""
    world = World("*USDT")
    world.request()
    world.take(*MANY)
    world.request(plan=unsubscribe(world.plan, ["linear:*USDT"]))
    world.request(1e6, plan=subscribe(world.plan, ["linear:*USDT"]))

    assert {"NEWUSDT"} == world.take("NEWUSDT")
