"""Messages published on behalf of a worker that died."""

from typing import Any

import pytest

from bybit_pipeline.processes.trades.aggregator import TradesAggregator
from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.shared.wire.codec import decode_map, encode_map
from bybit_pipeline.supervisor.children.last_will import FIRST_REPEAT_S, REPEAT_S, LastWill
from bybit_pipeline.supervisor.plan.plan import Plan, make_plan

SYMBOLS = ["BTCUSDT", "ETHUSDT"]


def make(**tables: Any) -> Plan:
    """Two symbols on one trades and two orderbook workers."""
    tables = {"source": "live", "workers": {"orderbook": 2}, **tables}
    return make_plan(make_config(tables), run_dir="/tmp/nowhere")


@pytest.fixture
def plan() -> Plan:
    """Two symbols on one trades and two orderbook workers."""
    return make()


def due(
    last_will: LastWill, plan: Plan, down: list[str], now: float
) -> list[tuple[bytes, dict[str, Any]]]:
    """The metrics that are due at a time, as subscribers read them."""
    metrics = last_will.due(plan, down, now, int(now * 1e9))
    return [(metric.topic, decode_map(encode_map(metric.payload))) for metric in metrics]


def test_all_markets_of_a_dead_worker_and_no_others_are_stale_at_once(plan: Plan) -> None:
    metrics = due(LastWill("a"), plan, ["trades-0"], 10.0)

    assert {f"trades.linear.{symbol}".encode() for symbol in SYMBOLS} == {
        topic for topic, _ in metrics
    }
    for _, payload in metrics:
        assert "stale" == payload["state"]
        assert "process_down" == payload["reason"]
        assert "trades-0" == payload["process"]
        assert 1 == payload["seq"]
        assert "live" == payload["source"]
    [(topic, _)] = due(LastWill("b"), plan, ["orderbook-1"], 10.0)
    assert b"orderbook.linear.ETHUSDT" == topic


def test_metrics_are_repeated_and_numbered_while_the_worker_is_down(plan: Plan) -> None:
    last_will = LastWill("a")
    times = [10.0, 10.1, 10.0 + FIRST_REPEAT_S, 10.5, 10.0 + FIRST_REPEAT_S + REPEAT_S]

    numbers = [
        [payload["seq"] for _, payload in due(last_will, plan, ["orderbook-0"], now)]
        for now in times
    ]

    assert [[1], [], [2], [], [3]] == numbers


def test_every_absence_has_its_own_epoch(plan: Plan) -> None:
    last_will = LastWill("a")
    [(_, first)] = due(last_will, plan, ["orderbook-0"], 10.0)
    assert [] == due(last_will, plan, [], 11.0)

    [(_, second)] = due(last_will, plan, ["orderbook-0"], 12.0)

    assert first["epoch"] != second["epoch"]
    assert 1 == second["seq"]


def test_a_restarted_forwarder_gets_the_metrics_without_delay(plan: Plan) -> None:
    last_will = LastWill("a")
    due(last_will, plan, ["orderbook-0"], 10.0)

    last_will.repeat()

    assert [2] == [payload["seq"] for _, payload in due(last_will, plan, ["orderbook-0"], 10.1)]


@pytest.mark.parametrize(
    "settings",
    [
        {"windows": ["60s"], "quantiles": [0.5, 0.9], "volatility": True},
        {"windows": ["10s", "60s"], "quantiles": [], "volatility": False},
    ],
)
def test_windows_have_the_same_fields_as_those_of_the_worker(settings: dict[str, Any]) -> None:
    aggregator = TradesAggregator(
        settings["windows"], quantiles=settings["quantiles"], volatility=settings["volatility"]
    )
    aggregator.subscribe("BTCUSDT")
    tape = aggregator.tape("BTCUSDT")
    assert tape is not None
    trades = aggregator.metric(
        tape, 1, source="live", process="trades-0", epoch="a", seq=1, publish_ts_ns=1
    )

    (_, ours), _ = due(LastWill("a"), make(trades=settings), ["trades-0"], 10.0)

    theirs = decode_map(encode_map(trades))
    assert theirs.keys() == ours.keys()
    assert theirs["windows"] == ours["windows"]
