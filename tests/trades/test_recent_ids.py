"""Trade ids are remembered long enough, and not for ever."""

from processes.trades.recent_ids import RecentIds


def test_an_id_counts_once() -> None:
    ids = RecentIds(horizon_ms=1_000, max_ids=100)
    assert ids.add("a", 0)
    assert ids.add("b", 0)
    assert not ids.add("a", 999)


def test_an_id_is_remembered_for_the_horizon_whenever_it_came() -> None:
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
    assert len(slow) <= 2_000
    fast = RecentIds(horizon_ms=1_000, max_ids=100)
    for number in range(100_000):
        fast.add(str(number), 0)
    assert len(fast) <= 200
