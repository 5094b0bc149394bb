"""A wall is published once it has lasted; its size is judged against the whole side too."""

from typing import Any

import pytest

from bybit_pipeline.processes.orderbook.book import OrderBook
from bybit_pipeline.processes.orderbook.walls.baseline import Baseline
from bybit_pipeline.shared.settings.config import DensityConfig
from tests.orderbook.build import snapshot
from tests.orderbook.walls.story import STEP_MS, WALL, Story, exactly, names

# -- minimum age -----------------------------------------------------------------------------------


def test_a_wall_is_detected_once_it_has_lasted_with_the_time_it_was_first_seen() -> None:
    story = Story(min_age_s=0.5)
    assert [] == story.step([(WALL, 20.0)])
    first_seen_ms = story.now_ms
    assert [] == story.tracker.records()
    assert first_seen_ms + 500 == story.tracker.wake_ms
    assert [] == story.wait(400)
    (event,) = story.step()
    wall = event.wall
    assert ("detected", first_seen_ms, 500) == (event.event, wall.first_seen_ms, wall.age_ms)
    assert [wall] == story.tracker.records()


def test_a_wall_that_does_not_last_leaves_no_trace() -> None:
    story = Story(min_age_s=0.5)
    for size in (20.0, 1.0) * 5:
        assert [] == story.step([(WALL, size)])
    assert [] == story.wait(1_000)
    assert ([], 0) == (story.tracker.accounts(), story.tracker.tracked)


def test_a_wall_that_leaves_before_it_is_detected_is_forgotten() -> None:
    story = Story(min_age_s=0.5)
    story.step([(WALL, 20.0)])
    story.tracker.drop()
    assert ([], []) == (story.tracker.take_events(), story.tracker.accounts())


def test_the_account_begins_when_the_wall_is_first_seen() -> None:
    story = Story(min_age_s=0.5)
    story.step([(WALL, 20.0)])
    story.step([(WALL, 15.0)], trades=[story.sold(5.0)])
    story.step([(WALL, 30.0)])
    (event,) = story.wait(500)
    wall = event.wall
    assert ("detected", 20.0, 30.0, 5.0) == (
        event.event,
        wall.initial_size,
        wall.size,
        wall.traded_size,
    )
    assert [] == story.step([(WALL, 37.0)])
    assert ["grown"] == names(story.step([(WALL, 37.5)]))


# -- share of the side -----------------------------------------------------------------------------


def levels(count: int, size: float) -> list[tuple[float, float]]:
    return [(round(99.99 - step / 1_000, 3), size) for step in range(count)]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (50, 0.2 * 50),
        (200, 0.1 * 200),
        (8, 0.5 * 8),
    ],
)
def test_a_wall_holds_a_share_of_its_side_that_falls_with_the_number_of_levels(
    count: int, expected: float
) -> None:
    book = OrderBook(200)
    book.apply(snapshot(10, levels(count, 1.0), [(100.0, 1.0)], depth=200))
    baseline = Baseline(DensityConfig(k=1.0, min_share=0.2))
    assert baseline.observe(book.bid_side, 100.0, 1_000)
    assert exactly(expected) == baseline.threshold


def test_only_levels_within_range_count_for_the_share() -> None:
    book = OrderBook(50)
    book.apply(snapshot(10, [(99.9, 1.0), (99.4, 50.0)], [(100.1, 1.0), (100.6, 50.0)]))
    for side in (book.bid_side, book.ask_side):
        baseline = Baseline(DensityConfig(k=1e-9 + 1, min_share=0.01, range_bps=50.0))
        baseline.observe(side, 100.0, 1_000)
        assert exactly(25.5 * (1 + 1e-9)) == baseline.threshold, "the median level decides"
        baseline = Baseline(DensityConfig(k=1.0, min_share=1.0, range_bps=70.0))
        baseline.observe(side, 100.0, 1_000)
        assert exactly(51.0 * 5) == baseline.threshold


@pytest.mark.parametrize(("size", "expected"), [(68.3, []), (68.5, ["detected"])])
def test_a_level_far_above_the_median_is_no_wall_if_its_side_holds_much_more(
    size: float, expected: Any
) -> None:
    story = Story(min_share=0.15)
    for number in range(4):
        story.step([(round(99.93 - number / 100, 2), 49.5)])
    story.wait(300_000)
    assert expected == names(story.step([(WALL, size)]))


def test_the_age_counts_from_the_moment_the_size_is_reached() -> None:
    story = Story(min_age_s=0.5)
    story.step([(WALL, 6.9)])
    story.wait(5_000)
    story.step([(WALL, 7.0)])
    reached_ms = story.now_ms
    (event,) = story.wait(500)
    assert (reached_ms, reached_ms + 500) == (event.wall.first_seen_ms, story.now_ms)
    assert 0 == story.now_ms % STEP_MS
