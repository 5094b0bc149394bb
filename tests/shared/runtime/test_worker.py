"""Markets share a publish interval, and wait longer for a worker that stays late."""

import pytest

from bybit_pipeline.shared.runtime.worker import LATE_S, STRETCH_MAX, TOGETHER, Turns

INTERVALS_S = (0.1, 0.25, 0.45, 10.0)


def published(turns: Turns, markets: int, seconds: float, lag_s: float) -> int:
    """How many metrics may be published in so many seconds, with messages so late."""
    total = 0
    for _ in range(round(seconds / turns.tick_s)):
        turns.note_lag(lag_s)
        total += turns.take_share(markets)
    return total


@pytest.mark.parametrize("interval_s", INTERVALS_S)
@pytest.mark.parametrize("markets", [1, 10, 50, 60, 300, 1000])
def test_on_time_every_market_has_its_turn_in_every_interval(
    markets: int, interval_s: float
) -> None:
    turns = Turns(interval_s)
    assert published(turns, markets, 10 * interval_s, LATE_S / 2) >= 10 * markets
    assert turns.stretch == 1.0


@pytest.mark.parametrize("interval_s", INTERVALS_S)
@pytest.mark.parametrize("markets", [60, 300])
def test_who_stays_late_publishes_several_times_less(markets: int, interval_s: float) -> None:
    turns = Turns(interval_s)
    published(turns, markets, interval_s, 10 * LATE_S)
    assert turns.stretch == STRETCH_MAX
    late = published(turns, markets, 10 * interval_s, 10 * LATE_S)
    on_time = published(Turns(interval_s), markets, 10 * interval_s, 0.0)
    assert late == pytest.approx(on_time / STRETCH_MAX, abs=1)


def test_however_late_something_is_published() -> None:
    turns = Turns(0.1)
    published(turns, 1, 1.0, 3600.0)
    shares = []
    for _ in range(2 * int(STRETCH_MAX)):
        turns.note_lag(3600.0)
        shares.append(turns.take_share(1))
    assert sum(shares) == 2 * TOGETHER


@pytest.mark.parametrize("interval_s", INTERVALS_S)
@pytest.mark.parametrize("markets", [10, 50, 59, 300])
def test_a_late_read_now_and_then_changes_nothing(markets: int, interval_s: float) -> None:
    turns = Turns(interval_s)
    total = 0
    for turn in range(1, 6_001):
        turns.note_lag(1.0 if turn % 20 == 0 else LATE_S / 10)
        total += turns.take_share(markets)
    assert turns.stretch == 1.0
    assert total >= 6_000 / 20 * markets


def test_lateness_is_forgotten_when_nothing_more_comes() -> None:
    turns = Turns(0.1)
    turns.note_lag(1.0)
    for _ in range(100):
        turns.take_share(300)
    assert turns.stretch == 1.0


@pytest.mark.parametrize("interval_s", INTERVALS_S[:3])
def test_who_is_on_time_again_publishes_as_before_after_some_seconds(interval_s: float) -> None:
    turns = Turns(interval_s)
    published(turns, 300, 2.0, 1.0)
    assert turns.stretch == STRETCH_MAX
    published(turns, 300, 3.0, 0.0)
    assert turns.stretch > 2.0
    published(turns, 300, 3.0, 0.0)
    assert turns.stretch == 1.0
