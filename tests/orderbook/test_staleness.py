"""A book that is silent for implausibly long is stale."""

from itertools import pairwise

import pytest

from bybit_pipeline.processes.orderbook.manager import OrderBookManager
from tests.orderbook.build import delta, snapshot
from tests.orderbook.managed import BTC, local_book, managed, state


def play(manager: OrderBookManager, interval_s: float, until: float) -> int:
    """Apply deltas at a steady pace and check once a second; return how often it was stale."""
    found, update_id, next_message = 0, 10, interval_s
    for second in range(1, round(until) + 1):
        while next_message <= second:
            update_id += 1
            manager.advance(next_message)
            manager.apply(BTC, delta(update_id))
            next_message += interval_s
        manager.advance(float(second))
        found += len(manager.check_silence())
    return found


@pytest.mark.parametrize("interval_s", [0.02, 1.0, 5.0, 30.0])
def test_a_steady_book_is_never_stale_however_quiet(interval_s: float) -> None:
    assert 0 == play(managed(BTC), interval_s, 3000)


@pytest.mark.parametrize(("interval_s", "limit_s"), [(0.05, 10), (1.0, 20), (5.0, 100)])
def test_a_book_is_stale_after_a_silence_that_is_implausible_for_it(
    interval_s: float, limit_s: float
) -> None:
    manager = managed(BTC)
    assert 0 == play(manager, interval_s, 600)
    silent_at = None
    for second in range(601, 1000):
        manager.advance(float(second))
        if manager.check_silence():
            silent_at = second - 600
            break
    assert silent_at is not None
    assert limit_s <= silent_at <= limit_s * 1.2 + 1
    assert ("stale", "silent") == state(manager)


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
    assert len(suspected) <= 6
    waits = [after - before for before, after in pairwise(suspected)]
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
