"""A book that is silent for implausibly long is stale until its stream is heard again."""

from itertools import pairwise

import pytest

from bybit_pipeline.processes.orderbook.manager import OrderBookManager
from tests.orderbook.build import delta, snapshot
from tests.orderbook.managed import BTC, CONNECTOR, local_book, managed, state

CHECK_S = 0.25


def play(manager: OrderBookManager, interval_s: float, until: float) -> int:
    """Apply deltas at a steady pace and check as the worker does; return how often it was stale."""
    found, number = 0, 0
    update_id = local_book(manager).book.update_id
    for tick in range(1, round(until / CHECK_S) + 1):
        now = tick * CHECK_S
        while (number + 1) * interval_s <= now:
            number += 1
            update_id += 1
            manager.advance(number * interval_s)
            manager.apply(BTC, delta(update_id))
        manager.advance(now)
        found += len(manager.check_silence())
    return found


def silent_after(manager: OrderBookManager, start: float) -> float:
    """Check until the book is silent; return the seconds since ``start``."""
    for tick in range(1, 10_000):
        now = start + tick * CHECK_S
        manager.advance(now)
        if manager.check_silence():
            return now - start
    raise AssertionError("the book was never stale")


@pytest.mark.parametrize("interval_s", [0.02, 1.0, 5.0, 30.0])
def test_a_steady_book_is_never_stale_however_quiet(interval_s: float) -> None:
    assert 0 == play(managed(BTC), interval_s, 3000)


@pytest.mark.parametrize(
    ("interval_s", "least_s", "most_s"), [(0.05, 2.5, 3.0), (0.1, 2.5, 3.0), (1.0, 20, 21)]
)
def test_a_book_is_stale_after_a_silence_that_is_implausible_for_it(
    interval_s: float, least_s: float, most_s: float
) -> None:
    manager = managed(BTC)
    assert 0 == play(manager, interval_s, 600)
    assert least_s <= silent_after(manager, 600.0) <= most_s
    assert ("stale", "silent") == state(manager)


def test_a_configured_limit_overrides_the_rate() -> None:
    manager = OrderBookManager()
    manager.subscribe(BTC, connector=CONNECTOR, stale_after_s=7.0)
    manager.apply(BTC, snapshot(10))
    assert 7.0 < silent_after(manager, 0.0) <= 7.25


def test_the_next_message_makes_a_silent_book_live_if_nothing_was_missed() -> None:
    manager = managed(BTC)
    play(manager, 0.1, 60)
    silent_after(manager, 60.0)
    assert manager.apply(BTC, delta(local_book(manager).book.update_id + 1))
    assert ("live", None) == state(manager)
    [_, closed] = manager.ledger.gaps()
    assert ("silent", closed.update_id_before) == (closed.reason, (closed.update_id_after or 0) - 1)


def test_a_message_after_missed_ones_keeps_a_silent_book_stale() -> None:
    manager = managed(BTC)
    play(manager, 0.1, 60)
    silent_after(manager, 60.0)
    manager.apply(BTC, delta(local_book(manager).book.update_id + 2))
    assert ("stale", "gap") == state(manager)


def test_a_silent_book_is_requested_again_soon() -> None:
    manager = managed(BTC)
    play(manager, 0.1, 60)
    manager.advance(60.0 + silent_after(manager, 60.0) + 2.1)
    assert [("book.linear.BTCUSDT", "silent")] == manager.due_resyncs()


def test_a_silence_with_missed_messages_does_not_raise_the_limit() -> None:
    manager = managed(BTC)
    play(manager, 0.1, 60)
    silent_after(manager, 60.0)
    manager.apply(BTC, snapshot(local_book(manager).book.update_id + 50))
    start = manager.now
    for tick in range(1, 600):
        manager.advance(start + tick * 0.1)
        manager.apply(BTC, delta(local_book(manager).book.update_id + 1))
        assert [] == manager.check_silence()
    assert silent_after(manager, manager.now) <= 3.0


def test_a_symbol_that_turns_quiet_is_suspected_less_and_less_often() -> None:
    manager = managed(BTC)
    play(manager, 0.1, 300)
    last = local_book(manager).book.update_id
    suspected = []
    for second in range(301, 3000):
        manager.advance(float(second))
        if manager.check_silence():
            suspected.append(second)
            manager.apply(BTC, snapshot(last))  # the resync shows that nothing was missed
    assert len(suspected) <= 8
    waits = [after - before for before, after in pairwise(suspected)][:4]
    assert sorted(waits) == waits


def test_a_replay_that_ended_is_not_stale() -> None:
    manager = OrderBookManager()
    manager.subscribe(BTC)
    manager.apply(BTC, snapshot(10, source="replay"))
    for update_id in range(11, 200):
        manager.advance(update_id / 10)
        manager.apply(BTC, delta(update_id, source="replay"))
        manager.check_silence()
    manager.advance(10_000.0)
    assert [] == manager.check_silence()


def test_a_pause_of_the_whole_link_is_not_a_silence_of_the_stream() -> None:
    """A worker that was stopped is doubted; afterwards the limit is as before."""
    manager = managed(BTC)
    play(manager, 0.1, 60)
    manager.doubt_link(CONNECTOR, "process_silent")
    manager.advance(64.0)
    assert [] == manager.check_silence()

    assert not manager.apply(BTC, delta(local_book(manager).book.update_id + 1))
    manager.doubt_link(CONNECTOR, None)

    assert ("live", None) == state(manager)
    assert silent_after(manager, 64.0) <= 3.0
