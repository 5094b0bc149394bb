"""Walls grow, are eaten, pulled or removed; each event is published once and in time."""

import pytest
from msgspec.structs import replace

from bybit_pipeline.processes.orderbook.walls.tracker import WallEvent
from bybit_pipeline.processes.orderbook.walls.verdict import FALL_MS
from tests.orderbook.walls.story import GRACE_MS, SMALL, SMALL_ASKS, STEP_MS, WALL, Story, names

# -- growth and hysteresis -------------------------------------------------------------------------


def test_a_large_step_back_of_exchange_time_removes_the_walls_and_restarts_the_baseline() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    assert [] == story.step(ms=-50_000) == story.step(ms=50_000)
    assert ["removed", "detected"] == names(story.step(ms=-61_000))
    assert "eaten" == story.step([(WALL, 4.0)], trades=[story.sold(16.0)])[0].event


def test_a_match_time_after_the_push_time_is_ignored() -> None:
    story = Story()
    story.now_ms += STEP_MS
    story.update_id += 1
    message = story.message([(WALL, 20.0)], ())
    story.book.apply(replace(message, match_ts_ms=story.now_ms + 10**9))
    story.tracker.update(story.book, story.now_ms)
    story.tracker.take_events()
    assert ["eaten"] == names(story.step([(WALL, 4.0)], trades=[story.sold(16.0)]))


def test_a_wall_with_added_size_has_grown() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    assert [] == story.step([(WALL, 24.0)])
    (event,) = story.step([(WALL, 25.0)])
    assert "grown" == event.event
    assert (25.0, 25.0) == (event.wall.size, event.wall.peak_size)
    assert 20.0 == event.wall.initial_size


def test_a_wall_that_hovers_at_the_threshold_does_not_flicker() -> None:
    story = Story()
    assert ["detected"] == names(story.step([(WALL, 7.0)]))
    assert [[]] * 25 == [
        names(story.step([(WALL, size)])) for size in (6.9, 7.0, 6.5, 7.1, 6.9) * 5
    ]


def test_a_wall_that_hovers_at_the_edge_of_the_range_does_not_flicker() -> None:
    story = Story(range_bps=5.0)
    assert ["detected"] == names(story.step([(WALL, 20.0)]))
    story.step([(99.99, 0.0), (100.0, 1.0)])
    for _ in range(5):
        assert [] == story.step([(100.0, 1.0)])
        assert [] == story.step([(100.0, 0.0)])


def test_a_partly_eaten_wall_that_is_refilled_grows_again() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    assert [] == story.step([(WALL, 12.0)], trades=[story.sold(8.0)])
    (event,) = story.step([(WALL, 20.0)])
    assert "grown" == event.event
    wall = event.wall
    assert (8.0, 8.0, 20.0) == (wall.traded_size, wall.refilled_size, wall.peak_size)
    assert (0.0, 0.0) == (wall.eaten_ratio, wall.pulled_ratio)


# -- eaten, pulled, removed ------------------------------------------------------------------------


@pytest.mark.parametrize("is_late", [False, True])
def test_a_wall_taken_by_trades_is_eaten_whichever_message_arrives_first(is_late: bool) -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    assert [] == story.step([(WALL, 12.0)], trades=[story.sold(8.0)], is_late=is_late)
    sold = [story.sold(7.0, trade_id="a"), story.sold(1.0, trade_id="b")]
    (event,) = story.step([(WALL, 4.0)], trades=sold, is_late=is_late)
    wall = event.wall
    assert "eaten" == event.event
    assert (4.0, 16.0, 0.0) == (wall.size, wall.traded_size, wall.cancelled_size)
    assert (0.8, 0.0) == (wall.eaten_ratio, wall.pulled_ratio)
    assert not wall.uncertain


def test_a_wall_can_be_eaten_above_its_threshold_and_is_reported_once() -> None:
    story = Story()
    story.step([(WALL, 100.0)])
    assert ["eaten"] == names(story.step([(WALL, 20.0)], trades=[story.sold(80.0)]))
    assert [20.0] == [wall.size for wall in story.tracker.records()]
    assert [] == story.step([(WALL, 10.0)], trades=[story.sold(10.0)])
    assert [] == story.step([(WALL, 0.0)], trades=[story.sold(10.0)])
    assert [] == story.tracker.records()


def test_an_eaten_wall_that_is_refilled_is_the_same_wall_grown() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    first_seen_ms = story.now_ms
    assert ["eaten"] == names(story.step([(WALL, 0.0)], trades=[story.sold(20.0)]))
    assert [] == story.tracker.records()
    story.wait(5_000)
    (event,) = story.step([(WALL, 20.0)])
    assert "grown" == event.event
    assert first_seen_ms == event.wall.first_seen_ms
    assert (20.0, 20.0) == (event.wall.initial_size, event.wall.peak_size)
    assert (0.0, 0.0) == (event.wall.traded_size, event.wall.eaten_ratio)
    (event,) = story.step([(WALL, 4.0)], trades=[story.sold(16.0)])
    assert ("eaten", 0.8) == (event.event, event.wall.eaten_ratio)


def test_an_eaten_wall_that_is_partly_refilled_can_be_eaten_again_at_its_smaller_size() -> None:
    story = Story()
    story.step([(WALL, 100.0)])
    assert ["eaten"] == names(story.step([(WALL, 10.0)], trades=[story.sold(90.0)]))
    (event,) = story.step([(WALL, 15.0)])
    assert ("grown", 15.0) == (event.event, event.wall.peak_size)
    assert [] == story.wait()
    (event,) = story.step([(WALL, 3.0)], trades=[story.sold(12.0)])
    assert ("eaten", 0.8) == (event.event, event.wall.eaten_ratio)


def test_an_eaten_wall_that_is_refilled_much_later_is_a_new_wall() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step([(WALL, 0.0)], trades=[story.sold(20.0)])
    story.wait(11_000)
    assert [] == story.tracker.accounts()
    assert 0 == story.tracker.tracked
    assert ["detected"] == names(story.step([(WALL, 20.0)]))


def test_a_wall_that_leaves_without_trades_is_pulled_once_no_trade_can_explain_it() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    gone_ms = story.now_ms + STEP_MS
    assert [] == story.step([(WALL, 0.0)])
    (event,) = story.wait()
    assert GRACE_MS < story.now_ms - gone_ms <= GRACE_MS + 2 * STEP_MS
    wall = event.wall
    assert "pulled" == event.event
    assert (0.0, 0.0, 20.0) == (wall.size, wall.traded_size, wall.cancelled_size)
    assert (0.0, 1.0) == (wall.eaten_ratio, wall.pulled_ratio)
    assert [] == story.tracker.accounts()


def test_a_pulled_wall_is_reported_in_time_even_if_its_level_keeps_shrinking() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step([(WALL, 1.0)])
    fell_ms = story.now_ms
    events: list[WallEvent] = []
    while not events and story.now_ms < fell_ms + 2 * FALL_MS:
        events = story.step([(WALL, 1.0 + (story.update_id % 2) / 10)])
    assert ["pulled"] == names(events)
    assert events[0].wall.uncertain, "a trade may still explain the last decrease"
    assert FALL_MS < story.now_ms - fell_ms <= FALL_MS + STEP_MS


def test_the_verdict_waits_for_a_trade_that_could_change_it() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step([(WALL, 12.5)], trades=[story.sold(7.5)])
    size = 4.8
    story.step([(WALL, size)])
    fell_ms = story.now_ms
    while story.now_ms < fell_ms + FALL_MS:
        size -= 0.01
        assert [] == story.step([(WALL, round(size, 2))])
    rest = story.sold(round(size, 2))
    assert [] == story.step([(WALL, 0.0)]), "eaten or pulled: its trade has not arrived yet"
    story.tracker.on_trades([rest])
    (event,) = story.step()
    assert "eaten" == event.event
    assert event.wall.eaten_ratio > event.wall.pulled_ratio


def test_a_wall_partly_eaten_and_then_pulled_is_pulled_with_both_ratios() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step([(WALL, 15.0)], trades=[story.sold(5.0)])
    story.step([(WALL, 0.0)])
    (event,) = story.wait()
    assert "pulled" == event.event
    assert (0.25, 0.75) == (event.wall.eaten_ratio, event.wall.pulled_ratio)


def test_a_wall_taken_mostly_by_trades_is_eaten_even_below_the_ratio() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step([(WALL, 0.0)], trades=[story.sold(12.0)])
    (event,) = story.wait()
    assert "eaten" == event.event
    assert (0.6, 0.4) == (event.wall.eaten_ratio, event.wall.pulled_ratio)


def test_a_wall_that_fell_by_trades_has_time_to_be_eaten_to_the_ratio() -> None:
    story = Story()
    story.step([(WALL, 10.0)])
    assert [] == story.step([(WALL, 4.0)], trades=[story.sold(6.0)])
    story.wait(1_000)
    (event,) = story.step([(WALL, 1.0)], trades=[story.sold(3.0)])
    assert ("eaten", 0.9) == (event.event, event.wall.eaten_ratio)


def test_a_wall_that_fell_by_trades_and_stays_low_is_eaten_in_the_end() -> None:
    story = Story()
    story.step([(WALL, 10.0)])
    story.step([(WALL, 4.0)], trades=[story.sold(6.0)])
    (event,) = story.wait(5_500)
    assert ("eaten", 0.6, 4.0) == (event.event, event.wall.eaten_ratio, event.wall.size)


def test_a_wall_that_fell_and_recovers_in_time_continues() -> None:
    story = Story()
    story.step([(WALL, 10.0)])
    assert [] == story.step([(WALL, 0.0)])
    assert ["grown"] == names(story.step([(WALL, 10.0)]))
    assert [] == story.wait()
    assert [10.0] == [wall.size for wall in story.tracker.records()]


def test_a_wall_out_of_range_is_removed() -> None:
    story = Story(range_bps=5.0)
    story.step([(WALL, 20.0)])
    moved = [(round(100.01 + step / 100, 2), 0.0) for step in range(6)]
    (event,) = story.step([(100.04, 1.0)], moved)
    assert "removed" == event.event
    assert (20.0, 0.0) == (event.wall.size, event.wall.cancelled_size)
    assert 0 == story.tracker.tracked


def test_the_last_wall_of_a_book_that_is_not_full_can_be_pulled() -> None:
    story = Story(depth=50)
    bottom = SMALL[-1][0]
    story.step([(bottom, 20.0)])
    story.step([(100.0, 1.0), (bottom, 0.0)])
    assert ["pulled"] == names(story.wait())


def test_the_walls_of_a_dropped_book_are_removed_as_they_were_last_seen() -> None:
    story = Story()
    story.step([(WALL, 20.0)], [(100.05, 30.0)])
    story.tracker.drop()
    events = story.tracker.take_events()
    assert [
        ("removed", 20.0),
        ("removed", 30.0),
    ] == [(event.event, event.wall.size) for event in events]
    assert 0 == story.tracker.tracked
    assert [] == story.tracker.records()


def test_the_walls_of_a_book_that_loses_a_side_are_removed() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.wait(1_000)
    story.step(asks=[(price, 0.0) for price, _ in SMALL_ASKS[1:]])
    story.now_ms += STEP_MS
    story.update_id += 1
    story.book.apply(story.message((), [(SMALL_ASKS[0][0], 0.0)]))
    story.tracker.on_book(story.book)
    assert [] == story.tracker.records(story.book)
    story.tracker.update(story.book, story.now_ms)
    (event,) = story.tracker.take_events()
    assert ("removed", 20.0) == (event.event, event.wall.size)
    assert story.now_ms - event.wall.first_seen_ms == event.wall.age_ms
    assert ([], 0) == (story.tracker.records(), story.tracker.tracked)


def test_an_eaten_wall_that_may_be_refilled_is_dropped_without_an_event() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step([(WALL, 0.0)], trades=[story.sold(20.0)])
    story.tracker.drop()
    assert [] == story.tracker.take_events()
    assert 0 == story.tracker.tracked


def test_a_wall_that_kept_its_size_while_the_baseline_rose_is_removed() -> None:
    story = Story(lookback_s=2.0)
    story.step([(WALL, 10.0)])
    for price, _ in SMALL:
        if price != WALL:
            story.step([(price, 3.0)])
    assert "removed" in names(story.wait(3_000))
