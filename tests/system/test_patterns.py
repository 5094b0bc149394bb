"""Patterns for symbols: a running pipeline follows what the exchange lists."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bybit_pipeline.processes.simulator.market.instruments import instrument_named
from bybit_pipeline.processes.simulator.market.scenario import parse_scenario
from bybit_pipeline.processes.simulator.market.synthetic import SyntheticFeed
from bybit_pipeline.processes.simulator.server import ServerThread
from tests.simulator.client import running
from tests.simulator.test_instruments import TODAY
from tests.system.conftest import Start
from tests.system.pipeline import Pipeline, until
from tests.system.test_life import is_live
from tests.system.test_source import free_port

FAST = """
source = "live"
[instruments]
refresh_s = 1
[connector]
backoff_initial_s = 0.2
backoff_max_s = 1.0
fallback_after_s = 0.5
[trades]
publish_interval_ms = 50
[orderbook]
publish_interval_ms = 50
"""
NAMES = ("AUSDT", "BUSDT", "CUSDT", "NEWUSDT", "DUSDC")


@pytest.fixture
def exchange() -> Iterator[ServerThread]:
    """A simulated exchange of a few instruments; NEWUSDT is not listed yet."""
    instruments = [instrument_named("linear", name, TODAY) for name in NAMES]
    with running(SyntheticFeed(instruments, rate=300)) as server:
        change(server, "delist", "NEWUSDT")
        for place, name in enumerate(NAMES):
            if name != "NEWUSDT":
                change(server, "list", name, turnover=1000 - place)
        yield server


def change(server: ServerThread, what: str, symbol: str, **fields: float) -> None:
    """List or delist a symbol at once."""
    feed = server.server.feed
    assert isinstance(feed, SyntheticFeed)
    [action] = parse_scenario(json.dumps({"do": what, "symbol": symbol, **fields}))
    server.call(feed.perform, [action], 0)


def entry(pipeline: Pipeline, name: str) -> dict[str, Any]:
    """The status of a pattern."""
    patterns = {each["pattern"]: each for each in pipeline.status()["patterns"]}
    return dict(patterns.get(name, {"state": "", "symbols": []}))


def stands_for(pipeline: Pipeline, name: str, *symbols: str) -> Callable[[], bool]:
    """Whether a pattern is resolved to these symbols."""
    return lambda: (
        entry(pipeline, name)["state"] == "resolved"
        and set(entry(pipeline, name)["symbols"]) == set(symbols)
    )


def followed(pipeline: Pipeline, symbol: str) -> set[str]:
    """The exchange topics of symbols that end so."""
    topics = {topic for each in pipeline.status()["connectors"] for topic in each["topics"]}
    return {topic for topic in topics if topic.endswith(symbol)}


def test_new_listings_join_and_delisted_symbols_leave_without_touching_the_others(
    start: Start, exchange: ServerThread
) -> None:
    pipeline = start("--url", exchange.server.url, "--symbols", "*USDT", config=FAST)
    pipeline.endpoints()
    until(stands_for(pipeline, "linear:*USDT", "AUSDT", "BUSDT", "CUSDT"), "the list")
    pipeline.wait_ready()
    pids = {each["process"]: each["pid"] for each in pipeline.status()["processes"]}
    session = pipeline.status()["connectors"][0]["session"]

    change(exchange, "list", "NEWUSDT")
    change(exchange, "delist", "CUSDT")

    check_undisturbed(pipeline, ("AUSDT", "BUSDT"), until_live="NEWUSDT")
    until(stands_for(pipeline, "linear:*USDT", "AUSDT", "BUSDT", "NEWUSDT"), "the new list")
    pipeline.wait_ready()
    until(lambda: not followed(pipeline, "CUSDT"), "its topics are gone")
    status = pipeline.status()
    assert {each["process"]: each["pid"] for each in status["processes"]} == pids
    assert status["connectors"][0]["session"] == session
    assert pipeline.total("orderbook-0", "book_gaps_total", "gap") == 0
    pipeline.stop()


def check_undisturbed(pipeline: Pipeline, symbols: tuple[str, ...], *, until_live: str) -> None:
    """Books stay live in one epoch, without missed messages, until another one is live."""
    last: dict[str, dict[str, Any]] = {}
    for message in pipeline.messages():
        if message["kind"] != "orderbook":
            continue
        if is_live("orderbook", until_live)(message):
            break
        before = last.get(message["symbol"])
        if message["symbol"] in symbols and message["state"] == "live":
            if before is not None:
                assert (before["epoch"], before["seq"] + 1) == (message["epoch"], message["seq"])
            last[message["symbol"]] = message
        else:
            assert before is None or message["symbol"] not in symbols, message
    assert set(last) == set(symbols)


def test_without_rest_named_symbols_work_and_the_pattern_reports_the_reason(
    start: Start, exchange: ServerThread
) -> None:
    exchange.server.faults.set("rest", status=403)
    pipeline = start("--url", exchange.server.url, "--symbols", "AUSDT,*USDT", config=FAST)
    pipeline.first(is_live("orderbook", "AUSDT"))
    until(lambda: entry(pipeline, "linear:*USDT").get("reason"), "the reason")

    assert entry(pipeline, "linear:*USDT")["state"] == "unresolved"
    code, body = pipeline.http("/readyz")
    assert code == 503
    assert "linear:*USDT: http://127.0.0.1" in body
    assert "HTTP 403 Forbidden" in body
    assert pipeline.log.read_text().count("instrument list unavailable") == 1
    assert "403 Forbidden" in pipeline.command("status").stdout
    refused = pipeline.command("subscribe", "top:1:turnover")
    assert refused.returncode == 1
    assert "linear:top:1:turnover unresolved: " in refused.stderr

    exchange.server.faults.clear("rest")
    pipeline.wait_ready()
    assert stands_for(pipeline, "linear:*USDT", "AUSDT", "BUSDT", "CUSDT")()


def test_a_broken_list_unsubscribes_nothing(start: Start, exchange: ServerThread) -> None:
    feed = exchange.server.feed
    assert isinstance(feed, SyntheticFeed)
    for number in range(12):
        instrument = instrument_named("linear", f"S{number}USDT", TODAY)
        exchange.call(feed.list_instrument, instrument)
    pipeline = start("--url", exchange.server.url, "--symbols", "*USDT", config=FAST)
    pipeline.endpoints()
    until(lambda: entry(pipeline, "linear:*USDT")["state"] == "resolved", "the list")
    before = entry(pipeline, "linear:*USDT")["symbols"]
    assert len(before) == 15

    for how in ("empty", "loop", "part"):
        exchange.server.faults.set("rest", how=how)
        until(lambda: entry(pipeline, "linear:*USDT")["state"] == "outdated", f"{how} noticed")
        exchange.server.faults.clear("rest")
        assert entry(pipeline, "linear:*USDT")["symbols"] == before
        until(lambda: entry(pipeline, "linear:*USDT")["state"] == "resolved", "the list is back")

    assert entry(pipeline, "linear:*USDT")["symbols"] == before
    assert pipeline.total("supervisor", "symbol_changes_total", "left") == 0
    for result in ("empty", "endless", "implausible"):
        assert pipeline.total("supervisor", "instrument_lists_total", f'"{result}"') >= 1


def test_the_busiest_are_followed_as_the_ranks_change_and_leave_by_command(
    start: Start, exchange: ServerThread
) -> None:
    pipeline = start("--url", exchange.server.url, "--symbols", "DUSDC", config=FAST)
    pipeline.first(is_live("orderbook", "DUSDC"))

    subscribed = pipeline.command("subscribe", "top:2:turnover:*USDT")
    assert subscribed.returncode == 0, subscribed.stderr
    assert subscribed.stdout == "linear:top:2:turnover:*USDT resolved: 2 symbols\n"
    for symbol in ("AUSDT", "BUSDT"):
        pipeline.first(is_live("orderbook", symbol))

    change(exchange, "list", "CUSDT", turnover=5000)
    until(stands_for(pipeline, "linear:top:2:turnover:*USDT", "AUSDT", "CUSDT"), "the new ranks")
    pipeline.first(is_live("orderbook", "CUSDT"))
    until(lambda: not followed(pipeline, "BUSDT"), "its topics are gone")

    left = pipeline.command("unsubscribe", "top:2:turnover:*USDT")
    assert left.stdout == "linear:top:2:turnover:*USDT unsubscribed\n2 symbols no longer followed\n"
    until(lambda: not followed(pipeline, "USDT"), "their topics are gone")
    assert followed(pipeline, "DUSDC") == {"orderbook.50.DUSDC", "publicTrade.DUSDC"}


TWO_TABLES = """
[[market]]
symbols = ["top:1:turnover"]
depth = 200
[[market]]
symbols = ["*USDT"]
depth = 50
"""


def test_a_symbol_that_moves_to_the_pattern_of_another_table_gets_its_depth(
    start: Start, exchange: ServerThread
) -> None:
    pipeline = start("--url", exchange.server.url, config=FAST + TWO_TABLES)
    pipeline.endpoints()
    for leader, other in (("AUSDT", "BUSDT"), ("BUSDT", "AUSDT")):
        change(exchange, "list", leader, turnover=9000)
        change(exchange, "list", other, turnover=1000)

        until(stands_for(pipeline, "linear:top:1:turnover", leader), "the new rank")
        pipeline.wait_ready()
        assert followed(pipeline, leader) == {f"publicTrade.{leader}", f"orderbook.200.{leader}"}
        assert followed(pipeline, other) == {f"publicTrade.{other}", f"orderbook.50.{other}"}
        pipeline.first(is_live("orderbook", leader))
        pipeline.first(is_live("orderbook", other))
        pipeline.first(is_live("trades", leader))
    assert pipeline.total("orderbook-0", "book_gaps_total", 'reason="gap"') == 0
    pipeline.stop()


def test_with_patterns_alone_auto_falls_back_and_takes_what_the_simulator_lists(
    start: Start,
) -> None:
    url = f"ws://127.0.0.1:{free_port()}/v5/public/{{category}}"
    pipeline = start("--source", "auto", "--url", url, "--symbols", "top:3:turnover", config=FAST)

    message = pipeline.first(is_live("orderbook", "BTCUSDT"))

    assert message["source"] == "sim"
    assert set(entry(pipeline, "linear:top:3:turnover")["symbols"]) >= {"BTCUSDT", "ETHUSDT"}
    assert "SIMULATED" in pipeline.log.read_text()
    pipeline.stop()
