"""A wall beyond the last visible level is out of sight: no event, and the same wall afterwards."""

import pytest

from bybit_pipeline.processes.orderbook.walls.tracker import HIDDEN_MAX
from tests.orderbook.walls.story import SMALL, STEP_MS, Story, names

BOTTOM = SMALL[-1][0]
"""The worst visible price of a book of ten levels."""
HIDE = [(100.0, 1.0), (BOTTOM, 0.0)]
"""A new best bid pushes the worst one out of the visible book."""


def show(size: float) -> list[tuple[float, float]]:
    """Return the changes by which the best bid leaves and the worst one is visible again."""
    return [(100.0, 0.0), (BOTTOM, size)]


def hidden_story(**config: float) -> Story:
    """Return a market with a wall of 20 that is out of sight."""
    story = Story(depth=10, **config)
    assert ["detected"] == names(story.step([(BOTTOM, 20.0)]))
    assert [] == story.step(HIDE)
    return story


def test_a_wall_out_of_sight_is_no_event_and_is_not_published() -> None:
    story = hidden_story()
    assert [] == story.tracker.records()
    assert [] == story.wait(10_000)


def test_a_wall_that_is_visible_again_is_the_same_wall() -> None:
    story = Story(depth=10)
    (event,) = story.step([(BOTTOM, 20.0)])
    for _ in range(14):
        assert [] == story.step(HIDE)
        assert [] == story.step(show(20.0))
    (wall,) = story.tracker.records()
    assert event.wall.first_seen_ms == wall.first_seen_ms
    assert 28 * STEP_MS == wall.age_ms
    assert (20.0, 20.0, 0.0, 0.0) == (
        wall.size,
        wall.peak_size,
        wall.cancelled_size,
        wall.refilled_size,
    )


def test_the_account_continues_where_the_wall_was_hidden() -> None:
    story = Story(depth=10)
    story.step([(BOTTOM, 20.0)])
    story.step([(BOTTOM, 16.0)], trades=[story.sold(4.0, BOTTOM)])
    story.step(HIDE)
    story.wait(60_000)
    assert [] == story.step(show(14.0))
    (wall,) = story.tracker.records()
    assert (14.0, 20.0, 4.0, 2.0) == (
        wall.size,
        wall.peak_size,
        wall.traded_size,
        wall.cancelled_size,
    )


def test_a_wall_that_grew_out_of_sight_has_grown_once_it_is_visible() -> None:
    story = hidden_story()
    (event,) = story.step(show(30.0))
    assert ("grown", 30.0, 20.0) == (event.event, event.wall.size, event.wall.initial_size)


@pytest.mark.parametrize("size", [0.0, 1.0])
def test_a_wall_that_was_cancelled_out_of_sight_is_pulled_once_its_price_is_visible(
    size: float,
) -> None:
    story = hidden_story()
    story.wait(5_000)
    events = [*story.step(show(size)), *story.wait(1_000)]
    assert [("pulled", size)] == [(event.event, event.wall.size) for event in events]
    assert [] == story.tracker.accounts()


def test_a_wall_that_is_hit_as_it_becomes_visible_is_eaten() -> None:
    story = hidden_story()
    story.wait(5_000)
    (event,) = story.step(show(4.0), trades=[story.sold(16.0, BOTTOM)])
    assert ("eaten", 16.0, 4.0) == (event.event, event.wall.traded_size, event.wall.size)


def test_a_wall_that_stays_out_of_sight_is_removed_after_the_look_back_as_last_seen() -> None:
    story = hidden_story(lookback_s=60)
    hidden_ms = story.now_ms
    assert hidden_ms + 60_001 == story.tracker.wake_ms
    assert [] == story.step(ms=60_000)
    story.tracker.update(story.book, story.now_ms + 1)
    (event,) = story.tracker.take_events()
    assert ("removed", 20.0) == (event.event, event.wall.size)
    assert (0, []) == (story.tracker.tracked, story.tracker.accounts())


def test_a_wall_out_of_sight_is_removed_when_it_leaves_the_range() -> None:
    story = hidden_story(range_bps=10.0)
    moved = [(round(100.01 + step / 100, 2), 0.0) for step in range(8)]
    (event,) = story.step([(100.08, 1.0), (99.92, 0.0)], moved)
    assert ("removed", 20.0) == (event.event, event.wall.size)


def test_a_wall_out_of_sight_is_removed_with_its_book() -> None:
    story = hidden_story()
    story.tracker.drop()
    assert ["removed"] == names(story.tracker.take_events())


def test_a_snapshot_shows_what_became_of_a_hidden_wall() -> None:
    for size, expected in ((20.0, []), (0.0, ["pulled"])):
        story = hidden_story()
        story.now_ms += STEP_MS
        story.update_id += 1
        bids = [*SMALL[:-1], *([(BOTTOM, size)] if size else [(99.8, 1.0)])]
        story.book.apply(story.message(bids, [(100.01, 1.0)], is_snapshot=True))
        story.tracker.on_book(story.book)
        story.tracker.update(story.book, story.now_ms)
        assert expected == names([*story.tracker.take_events(), *story.wait(1_000)])


def test_a_wall_of_several_levels_is_out_of_sight_as_soon_as_one_of_them_is() -> None:
    story = Story(depth=10, bucket_ticks=2)
    above = round(BOTTOM + 0.01, 2)
    assert ["detected"] == names(story.step([(above, 20.0), (BOTTOM, 10.0)]))
    assert [] == story.step(HIDE)
    assert [] == story.tracker.records()
    assert [] == story.step([(above, 19.0)])
    assert [] == story.step(show(10.0))
    assert [(29.0, 30.0)] == [(wall.size, wall.peak_size) for wall in story.tracker.records()]


def test_the_walls_hidden_longest_are_removed_when_there_are_too_many() -> None:
    """The market rises by a tick per step, and leaves a wall at every price."""
    story = Story(depth=10, lookback_s=600.0)
    removed = []
    for step in range(HIDDEN_MAX + 13):
        best = round(100.0 + step / 100, 2)
        asks = [(round(best + 0.01, 2), 0.0), (round(best + 0.11, 2), 1.0)]
        bids = [(round(best - 0.01, 2), 20.0), (best, 1.0), (round(best - 0.1, 2), 0.0)]
        removed += [wall.price for event, wall in story.step(bids, asks) if event == "removed"]
    prices = [round(99.99 + step / 100, 2) for step in range(len(removed))]
    assert 3 <= len(removed)
    assert prices == removed
    hidden = [wall for wall in story.tracker.accounts() if wall.hidden_since_ms is not None]
    assert HIDDEN_MAX == len(hidden)
