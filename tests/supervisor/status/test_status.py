"""The entries of the status, and the meaning of ready."""

from typing import Any

import pytest

from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.plan.plan import Plan, make_plan
from bybit_pipeline.supervisor.status.status import (
    NOT_LIVE_S,
    ProcessView,
    book_counts,
    connector_entries,
    not_live_books,
    unready_reasons,
)

TOPICS = ["publicTrade.BTCUSDT", "orderbook.50.BTCUSDT"]


@pytest.fixture
def plan() -> Plan:
    """One symbol."""
    return make_plan(make_config({"market": [{"symbols": ["BTCUSDT"]}]}), run_dir="/run/x")


def view(process: str, status: dict[str, Any] | None = None, **more: Any) -> ProcessView:
    fields: dict[str, Any] = {
        "process": process,
        "role": process.split("-")[0],
        "pid": 7,
        "state": "up",
        "is_up": True,
        "is_silent": False,
        "is_flapping": False,
        "restarts": {},
        "uptime_s": 1.0,
        "cpu_seconds": 0.5,
        "rss_bytes": 1000,
        "prometheus": "127.0.0.1:1",
        "exit_code": None,
        "status": status or {},
        "status_age_s": 0.0,
    }
    return ProcessView(**(fields | more))


def connector(**topics: str) -> ProcessView:
    states = dict(zip(TOPICS, topics.values(), strict=True))
    return view("connector-linear-0", {"connected": True, "topics": states})


def reasons(plan: Plan, *views: ProcessView) -> list[str]:
    return unready_reasons(plan, views, connector_entries(plan, views), not_live_books(views))


def orderbook(not_live: dict[str, float], reason: str = "gap", **more: Any) -> ProcessView:
    status = {"not_live": not_live, "not_live_reasons": dict.fromkeys(not_live, reason)}
    return view("orderbook-0", status, **more)


def test_a_pipeline_is_ready_when_everything_is_up_and_delivers(plan: Plan) -> None:
    assert [] == reasons(plan, view("trades-0"), connector(trade="delivering", book="delivering"))


def test_a_market_without_trades_does_not_prevent_readiness(plan: Plan) -> None:
    assert [] == reasons(plan, connector(trade="confirmed", book="delivering"))


def test_a_book_that_does_not_deliver_prevents_readiness(plan: Plan) -> None:
    assert ["connector-linear-0: confirmed but not delivering: orderbook.50.BTCUSDT"] == reasons(
        plan, connector(trade="delivering", book="confirmed")
    )


@pytest.mark.parametrize("state", ["pending", "rejected"])
def test_a_topic_that_is_not_confirmed_prevents_readiness(plan: Plan, state: str) -> None:
    assert [f"connector-linear-0: {state}: publicTrade.BTCUSDT"] == reasons(
        plan, connector(trade=state, book="delivering")
    )


def test_a_connector_without_a_heartbeat_has_pending_topics_and_no_connection(plan: Plan) -> None:
    views = [view("connector-linear-0", state="starting", is_up=False)]
    [entry] = connector_entries(plan, views)

    assert dict.fromkeys(TOPICS, "pending") == entry["topics"]
    assert (False, None, None) == (entry["connected"], entry["session"], entry["ping_rtt_ms"])
    assert "wss://stream.bybit.com/v5/public/linear" == entry["url"]
    assert [
        "connector-linear-0: starting",
        "connector-linear-0: not connected to wss://stream.bybit.com/v5/public/linear",
    ] == reasons(plan, *views)


def test_a_topic_that_is_no_longer_planned_is_not_shown(plan: Plan) -> None:
    """The connector still reports it until its next heartbeat."""
    left = "publicTrade.NOPEUSDT"
    states = {**dict.fromkeys(TOPICS, "delivering"), left: "rejected"}
    status = {
        "connected": True,
        "topics": states,
        "rejected": {left: "no"},
        "refused_topics": [left],
    }
    gone = view("connector-linear-0", status)

    [entry] = connector_entries(plan, [gone])

    assert (TOPICS, {}, []) == (list(entry["topics"]), entry["rejected"], entry["refused_topics"])
    assert [] == reasons(plan, gone)


def test_processes_that_are_down_or_flapping_are_named(plan: Plan) -> None:
    views = [
        view("trades-0", state="restarting", is_up=False),
        view("orderbook-0", state="flapping", is_flapping=True),
    ]

    assert ["trades-0: restarting", "orderbook-0: flapping"] == reasons(plan, *views)


def test_a_book_out_of_live_for_too_long_prevents_readiness(plan: Plan) -> None:
    assert [] == reasons(plan, orderbook({"book.linear.BTCUSDT": NOT_LIVE_S - 0.1}))
    assert ["books not live for 12 s (gap): book.linear.BTCUSDT"] == reasons(
        plan, orderbook({"book.linear.BTCUSDT": 12.0})
    )


def test_the_time_since_the_worker_reported_counts_too(plan: Plan) -> None:
    assert ["books not live for 1 s (gap): book.linear.BTCUSDT"] == reasons(
        plan, orderbook({"book.linear.BTCUSDT": 0.7}, status_age_s=0.4)
    )


@pytest.mark.parametrize("reason", ["disconnected", "process_down", "process_silent", "silent"])
def test_an_outage_prevents_readiness_at_once(plan: Plan, reason: str) -> None:
    assert [f"books not live for 0 s ({reason}): book.linear.BTCUSDT"] == reasons(
        plan, orderbook({"book.linear.BTCUSDT": 0.0}, reason)
    )


def test_nothing_that_a_silent_process_said_counts_as_current(plan: Plan) -> None:
    links = view(
        "connector-linear-0",
        {"connected": True, "topics": dict.fromkeys(TOPICS, "delivering")},
        state="silent",
        is_silent=True,
    )
    books = view("orderbook-0", {"books": {"live": 3}}, state="silent", is_silent=True)

    assert ["connector-linear-0: silent", "orderbook-0: silent"] == reasons(plan, links, books)
    assert not connector_entries(plan, [links])[0]["connected"]
    assert {"syncing": 0, "live": 0, "stale": 3} == book_counts(plan, [books])


def test_further_names_are_only_counted(plan: Plan) -> None:
    late = {f"book.linear.{envelope}USDT": 11.0 for envelope in "ABCDEFGH"}

    [reason] = reasons(plan, orderbook(late))
    assert reason.endswith("book.linear.EUSDT and 3 more")


def test_books_are_counted_by_state_and_unknown_ones_are_syncing(plan: Plan) -> None:
    other = view("orderbook-1", {"books": {"live": 2, "stale": 1}})

    assert {"syncing": 1, "live": 2, "stale": 1} == book_counts(plan, [view("orderbook-0"), other])


def test_the_summary_of_a_process_has_the_documented_keys() -> None:
    summary = view("trades-0", restarts={"exit": 2, "hung": 1}).summary()

    assert {
        "process",
        "role",
        "pid",
        "state",
        "restarts",
        "uptime_s",
        "cpu_seconds",
        "rss_bytes",
    } <= summary.keys()
    assert 3 == summary["restarts"]
