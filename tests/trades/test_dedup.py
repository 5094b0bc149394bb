"""Trade ids are remembered long enough, in bounded memory."""

import tracemalloc

import pytest

from bybit_pipeline.processes.trades.dedup import SLICES, RecentIds


def test_an_id_counts_once() -> None:
    ids = RecentIds(horizon_ms=1_000, max_ids=100)
    assert ids.add("a", 0)
    assert ids.add("b", 0)
    assert not ids.add("a", 999)


def test_an_id_is_remembered_for_the_horizon_whenever_it_arrives() -> None:
    for came in range(0, 3_000, 100):
        ids = RecentIds(horizon_ms=1_000, max_ids=10_000)
        for now in range(0, 5_000, 50):
            ids.add(f"other {now}", now)
            if now == came:
                assert ids.add("mine", now)
            if now == came + 1_000:
                assert not ids.add("mine", now)


def test_memory_is_bounded_by_time_and_by_number() -> None:
    slow = RecentIds(horizon_ms=1_000, max_ids=10_000)
    for now in range(100_000):
        slow.add(str(now), now)
    assert 1_000 <= len(slow) <= 1_000 * (1 + 2 / SLICES)
    fast = RecentIds(horizon_ms=1_000, max_ids=100)
    for number in range(100_000):
        fast.add(str(number), 0)
    assert len(fast) <= 200


def test_ids_from_before_a_long_silence_are_removed_with_the_next_id() -> None:
    ids = RecentIds(horizon_ms=1_000, max_ids=10_000)
    for now in range(500):
        ids.add(str(now), now)
    assert ids.add("after the silence", 5_000)
    assert len(ids) <= 500 * 2 / SLICES


@pytest.mark.parametrize("a_horizon", [300, 1_500, 2_400, 4_900, 20_000])
def test_memory_stops_growing_after_the_first_horizons(a_horizon: int) -> None:
    """
    The set may double its table once more after the first horizon, for some numbers of ids.

    After that, memory stays level.
    """
    ids = RecentIds(horizon_ms=300_000, max_ids=100_000)
    peaks: list[int] = []
    tracemalloc.start()
    try:
        for number in range(12 * a_horizon):
            ids.add(f"{number:036}", number * 300_000 // a_horizon)
            if number % a_horizon == 0:
                peaks.append(0)
            if number % 20 == 0:
                peaks[-1] = max(peaks[-1], tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(peaks) <= 1.5 * max(peaks[:2])
    assert max(peaks[6:]) <= 1.03 * max(peaks[:6])
