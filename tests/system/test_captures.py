"""The whole pipeline plays every real capture, and every published number is checked."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.naive import books_by_update, read_capture, trades_by_symbol, window
from tests.system.conftest import Start
from tests.system.pipeline import Pipeline, until

LEVELS = 1000
CONFIG = f"""
[orderbook]
publish_levels = {LEVELS}
publish_interval_ms = 10
[trades]
publish_interval_ms = 10
"""
CAPTURES = [
    "linear_20260809_ob200_BTC_SOL.jsonl",
    "spot_20260809_ob200_ETH.jsonl",
    "linear_20241201_ob500_XRP.data",
    "linear_20250613_ob1_4symbols.jsonl",
]


@pytest.mark.parametrize("name", CAPTURES)
def test_every_published_number_of_a_capture_equals_the_slow_model(
    name: str, captures: Path, start: Start
) -> None:
    path = captures / name
    books, trades = books_by_update(path, LEVELS), trades_by_symbol(path)
    pipeline = start("--capture", str(path), "--speed", "50", config=CONFIG)
    last_books: dict[str, int] = {}
    last_trades: dict[str, int] = {}
    live_books = windows = 0

    def finished() -> bool:
        return all(last_books.get(s) == max(history) for s, history in books.items()) and all(
            last_trades.get(s) == len(rows) for s, rows in trades.items()
        )

    for message in pipeline.messages():
        assert message.get("source", "replay") == "replay"
        symbol = message.get("symbol", "")
        if message["kind"] == "orderbook" and message["state"] == "live":
            live_books += 1
            last_books[symbol] = message["update_id"]
            expected_bids, expected_asks = books[symbol][message["update_id"]]
            assert message["bids"] == expected_bids
            assert message["asks"] == expected_asks
        if message["kind"] == "trades" and message["trades_total"]:
            windows += 1
            last_trades[symbol] = message["trades_total"]
            check_windows(message, trades[symbol][: message["trades_total"]])
        if finished():
            break
    assert finished(), pipeline.log_tail()
    assert live_books > 0
    assert windows > 0 or not trades
    check_counters(pipeline, path)
    pipeline.stop()


def check_windows(message: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Every window equals brute force over the trades that had arrived."""
    assert message["last_trade_id"] == rows[-1]["i"]
    for name, measures in message["windows"].items():
        expected = window(rows, message["as_of_ms"], int(name.removesuffix("s")))
        assert {key: measures[key] for key in expected} == expected


def check_counters(pipeline: Pipeline, path: Path) -> None:
    """Sent by the exchange, published by the connector and handled by the workers are equal."""
    [connector] = pipeline.endpoints()["market"]
    for kind, stream, worker in (
        ("publicTrade.", "trade", "trades-0"),
        ("orderbook.", "book", "orderbook-0"),
    ):
        sent = sum(message["topic"].startswith(kind) for message in read_capture(path))
        label = f'stream="{stream}"'
        until(partial(has_published, pipeline, connector, label, sent), f"{sent} published")
        until(partial(has_handled, pipeline, worker, label, sent), f"{worker} handled {sent}")
        assert pipeline.total(worker, "bus_messages_lost_total") == 0
        assert pipeline.total(worker, "bus_latency_seconds_count") >= sent


def has_handled(pipeline: Pipeline, worker: str, label: str, count: int) -> bool:
    """True once a worker has handled this many messages."""
    return pipeline.total(worker, "worker_messages_total", label) == count


def has_published(pipeline: Pipeline, connector: str, label: str, count: int) -> bool:
    """True once the connector has published this many messages; level 1 ends with repeats."""
    return pipeline.total(connector, "connector_messages_total", label) == count
