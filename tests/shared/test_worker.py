"""Markets share a publish interval, and wait longer for a worker that is late."""

import pytest

from shared.worker import LATE_S, STRETCH_MAX, TOGETHER, Turns

SECOND = 10
"""Publish intervals of 100 ms in one."""


def published(turns: Turns, markets: int, intervals: int, lag_s: float) -> int:
    """How many metrics may be published in so many intervals."""
    total = 0
    for _ in range(round(intervals * 0.1 / turns.tick_s)):
        turns.note_lag(lag_s)
        total += turns.share(markets)
    return total


@pytest.mark.parametrize("markets", [1, 10, 60, 300, 1000])
def test_on_time_every_market_has_its_turn_in_every_interval(markets: int) -> None:
    turns = Turns(0.1)
    assert published(turns, markets, SECOND, LATE_S / 2) >= SECOND * markets
    assert turns.stretch == 1.0


def test_who_is_late_publishes_several_times_less_within_a_second() -> None:
    turns = Turns(0.1)
    published(turns, 300, SECOND, 10 * LATE_S)
    assert turns.stretch == STRETCH_MAX
    assert published(turns, 300, SECOND, 10 * LATE_S) <= SECOND * 300 / (STRETCH_MAX - 1)


def test_however_late_something_is_published_in_every_turn() -> None:
    turns = Turns(0.1)
    published(turns, 1, SECOND, 3600.0)
    turns.note_lag(3600.0)
    assert 1 <= turns.share(1) <= TOGETHER


def test_one_late_message_changes_little_and_is_forgotten() -> None:
    turns = Turns(0.1)
    turns.note_lag(1.0)
    turns.share(300)
    assert 1.0 < turns.stretch < 1.5
    turns.share(300)  # no message since: not late
    assert published(turns, 300, SECOND, 0.0) >= SECOND * 300 * 0.9
    assert turns.stretch == 1.0


def test_who_is_on_time_again_publishes_as_before_after_some_seconds() -> None:
    turns = Turns(0.1)
    published(turns, 300, SECOND, 1.0)
    published(turns, 300, 10 * SECOND, 0.0)
    assert turns.stretch == 1.0
