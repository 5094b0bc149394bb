"""Messages that count as handled by the pipeline."""

import pytest

from scripts.benchmarks.pipeline import Samples, handled_by_all


def samples_of(process: str, **streams: float) -> Samples:
    return {
        ("worker_messages_total", (("process", process), ("stream", stream))): count
        for stream, count in streams.items()
    }


@pytest.mark.parametrize(
    ("by_trades_worker", "by_orderbook_worker", "handled"),
    [(30, 30, 100), (10, 30, 80), (30, 10, 80), (0, 30, 70)],
)
def test_a_trade_counts_as_handled_when_both_kinds_of_worker_have_handled_it(
    by_trades_worker: int, by_orderbook_worker: int, handled: int
) -> None:
    trades = samples_of("trades-0", trade=by_trades_worker)
    books = samples_of("orderbook-0", book=30, trade=by_orderbook_worker)
    books |= samples_of("orderbook-1", book=40, trade=0)
    assert handled_by_all(trades, books) == handled
