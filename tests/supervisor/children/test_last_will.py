"""What is published about the markets of a worker that is gone."""

from typing import Any

import pytest

from bybit_pipeline.processes.trades.aggregator import TradesAggregator
from bybit_pipeline.processes.trades.window import WindowMeasures
from bybit_pipeline.shared.settings.config import make_config
from bybit_pipeline.shared.wire.shapes import WINDOW_MEASURES, no_trades
from bybit_pipeline.supervisor.children.last_will import AGAIN_S, SECOND_S, LastWill, Metric
from bybit_pipeline.supervisor.plan.plan import Plan, make_plan

SYMBOLS = ["BTCUSDT", "ETHUSDT"]


@pytest.fixture
def plan() -> Plan:
    """Two symbols on one trades and two orderbook workers."""
    tables: dict[str, Any] = {"source": "live", "workers": {"orderbook": 2}}
    return make_plan(make_config(tables), run_dir="/tmp/nowhere")


def said(obituaries: LastWill, plan: Plan, down: list[str], now: float) -> list[Metric]:
    """What is due at a time."""
    return list(obituaries.due(plan, down, now, int(now * 1e9)))


def test_the_markets_of_a_dead_worker_are_stale_at_once_and_no_others(plan: Plan) -> None:
    obituaries = LastWill("a")

    metrics = said(obituaries, plan, ["trades-0"], 10.0)

    assert {f"trades.linear.{symbol}".encode() for symbol in SYMBOLS} == {m.topic for m in metrics}
    for metric in metrics:
        assert "stale" == metric.payload["state"]
        assert "process_down" == metric.payload["reason"]
        assert "trades-0" == metric.payload["process"]
        assert 1 == metric.payload["seq"]
        assert "live" == metric.payload["source"]
    [book] = said(LastWill("b"), plan, ["orderbook-1"], 10.0)
    assert b"orderbook.linear.ETHUSDT" == book.topic


def test_it_is_repeated_while_the_worker_is_away_and_numbered(plan: Plan) -> None:
    obituaries = LastWill("a")
    times = [10.0, 10.1, 10.0 + SECOND_S, 10.5, 10.0 + SECOND_S + AGAIN_S]

    numbers = [
        [metric.payload["seq"] for metric in said(obituaries, plan, ["orderbook-0"], now)]
        for now in times
    ]

    assert [[1], [], [2], [], [3]] == numbers


def test_every_absence_has_an_epoch_of_its_own(plan: Plan) -> None:
    obituaries = LastWill("a")
    [first] = said(obituaries, plan, ["orderbook-0"], 10.0)
    assert [] == said(obituaries, plan, [], 11.0)

    [second] = said(obituaries, plan, ["orderbook-0"], 12.0)

    assert first.payload["epoch"] != second.payload["epoch"]
    assert 1 == second.payload["seq"]


def test_a_new_forwarder_is_told_without_delay(plan: Plan) -> None:
    obituaries = LastWill("a")
    said(obituaries, plan, ["orderbook-0"], 10.0)

    obituaries.repeat()

    assert [2] == [m.payload["seq"] for m in said(obituaries, plan, ["orderbook-0"], 10.1)]


def test_a_window_without_numbers_has_the_fields_of_the_workers_own() -> None:
    assert WindowMeasures._fields == tuple(WINDOW_MEASURES)
    aggregator = TradesAggregator(["60s"], quantiles=(0.5, 0.9), volatility=True)
    aggregator.subscribe("BTCUSDT")
    tape = aggregator.tape("BTCUSDT")
    assert tape is not None
    own = aggregator.metrics(tape, 1)

    ours = no_trades("process_down", windows=["60s"], quantiles=(0.5, 0.9), with_volatility=True)

    assert own["windows"] == ours["windows"]
    head = {"source", "state", "match_ts_ms", "exchange_ts_ms", "recv_ts_ns"}
    assert own.keys() - head == ours.keys()
