"""Trades are stale while their link is doubted or their stream is silent, and return."""

import pytest

from bybit_pipeline.processes.trades.aggregator import TradesAggregator
from tests.trades.build import link, metrics, our_ns, trade, trades_message

SYMBOL = "BTCUSDT"


@pytest.fixture
def busy() -> TradesAggregator:
    """An aggregator with ten messages a second for a minute."""
    aggregator = TradesAggregator(["60s"])
    aggregator.subscribe(SYMBOL, connector="connector-linear-0")
    aggregator.apply_link("connector-linear-0", link("subscribed", 0))
    feed(aggregator, 100, 60_100)
    return aggregator


def feed(aggregator: TradesAggregator, start_ms: int, end_ms: int) -> None:
    for at_ms in range(start_ms, end_ms, 100):
        message = trades_message(at_ms, [trade(at_ms)])
        aggregator.apply(message, SYMBOL, our_ns=our_ns(at_ms))
        assert ([], []) == aggregator.check_silence(our_ns(at_ms))


def state(aggregator: TradesAggregator, at_ms: int) -> tuple[str, str | None]:
    shown = metrics(aggregator, at_ms)
    return shown["state"], shown["reason"]


def test_a_doubted_link_makes_trades_stale_and_misses_none(busy: TradesAggregator) -> None:
    [opened] = busy.doubt_link("connector-linear-0", "process_silent")
    assert ("opened", "process_silent") == (opened.event, opened.gap.reason)
    assert ("stale", "process_silent") == state(busy, 61_000)
    feed(busy, 60_100, 63_000)  # late, but complete
    [closed] = busy.doubt_link("connector-linear-0", None)
    assert (opened.gap.gap_id, "closed", True) == (
        closed.gap.gap_id,
        closed.event,
        closed.gap.complete,
    )
    shown = metrics(busy, 63_000)
    assert ("live", 60.0) == (shown["state"], shown["windows"]["60s"]["coverage_s"])


def test_a_doubted_link_that_breaks_is_one_gap_since_the_last_message(
    busy: TradesAggregator,
) -> None:
    [opened] = busy.doubt_link("connector-linear-0", "silent")
    [gap] = busy.interrupt("connector-linear-0", "disconnected")
    assert (opened.gap.gap_id, opened.gap.start_ms) == (gap.gap.gap_id, gap.gap.start_ms)
    assert [] == busy.doubt_link("connector-linear-0", None)
    assert 1 == len(busy.gaps())


def test_a_busy_stream_that_is_silent_is_stale_within_three_seconds(
    busy: TradesAggregator,
) -> None:
    assert ([], []) == busy.check_silence(our_ns(62_500))
    [seconds], [opened] = busy.check_silence(our_ns(62_900))
    assert 2.9 == pytest.approx(seconds, abs=0.01)
    assert ("opened", "silent") == (opened.event, opened.gap.reason)
    assert ("stale", "silent") == state(busy, 63_000)


def test_trades_of_a_silent_stream_end_the_gap(busy: TradesAggregator) -> None:
    busy.check_silence(our_ns(62_900))
    [closed] = busy.apply(trades_message(64_000, [trade(64_000)]), SYMBOL, our_ns=our_ns(64_000))
    assert "closed" == closed.event
    assert "stale" != state(busy, 64_000)[0]
    assert busy.check_silence(our_ns(64_100)) == ([], [])


def test_a_configured_limit_overrides_the_rate() -> None:
    aggregator = TradesAggregator(["60s"])
    aggregator.subscribe(SYMBOL, connector="connector-linear-0", stale_after_s=9.0)
    aggregator.apply_link("connector-linear-0", link("subscribed", 0))
    aggregator.apply(trades_message(100, [trade(100)]), SYMBOL, our_ns=our_ns(100))
    assert ([], []) == aggregator.check_silence(our_ns(9_000))
    assert 1 == len(aggregator.check_silence(our_ns(9_200))[0])


def test_a_quiet_market_is_not_silent() -> None:
    aggregator = TradesAggregator(["60s"])
    aggregator.subscribe(SYMBOL, connector="connector-linear-0")
    aggregator.apply_link("connector-linear-0", link("subscribed", 0))
    for minute in range(1, 120):
        at_ms = minute * 60_000
        aggregator.apply(trades_message(at_ms, [trade(at_ms)]), SYMBOL, our_ns=our_ns(at_ms))
        for second in range(0, 60, 5):
            assert ([], []) == aggregator.check_silence(our_ns(at_ms + second * 1_000))


def test_a_pause_of_the_whole_link_is_not_a_silence_of_the_stream(busy: TradesAggregator) -> None:
    """A worker that was stopped is doubted; afterwards the limit is as before."""
    busy.doubt_link("connector-linear-0", "process_silent")
    assert ([], []) == busy.check_silence(our_ns(64_000))
    busy.apply(trades_message(60_200, [trade(60_200)]), SYMBOL, our_ns=our_ns(64_000))
    busy.doubt_link("connector-linear-0", None)

    assert ([], []) == busy.check_silence(our_ns(64_100))
    assert 1 == len(busy.check_silence(our_ns(66_900))[0])
