"""The benchmark of growth measures workers that really work."""

from scripts.benchmarks import growth


def test_a_deeper_book_is_measured_as_a_live_one() -> None:
    spent = growth.books(symbols=2, depth=200, seconds=3.0)
    assert spent.messages == (3.0 - growth.WARM_S) * growth.MESSAGES_PER_S
    assert 18 <= spent.metrics <= 20, "two books, ten times a second"
    assert spent.events > 0
    row = spent.row("depth", 200)
    assert 0 < row["message_us"] < row["metric_us"]


def test_a_market_that_trades_is_published_all_the_time() -> None:
    spent = growth.trades(per_s=20, seconds=4.0, warm_s=2.0)
    assert (spent.messages, spent.events) == (40, 0)
    assert 7 <= spent.metrics <= 9, "four times a second"
