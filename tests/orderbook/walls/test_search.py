"""New walls are found: large levels, or groups of levels, near the mid price."""

from decimal import Decimal
from typing import Any

import pytest

from bybit_pipeline.processes.orderbook.book import OrderBook
from bybit_pipeline.processes.orderbook.walls.baseline import Baseline
from bybit_pipeline.processes.orderbook.walls.search import TickGrid
from bybit_pipeline.processes.orderbook.walls.tracker import WallTracker
from bybit_pipeline.processes.orderbook.walls.verdict import REFILL_MS
from bybit_pipeline.shared.settings.config import DensityConfig
from tests.orderbook.build import snapshot
from tests.orderbook.walls.story import SMALL, SMALL_ASKS, WALL, Story, exactly, names

# -- single levels ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "expected"), [(6.999, []), (7.0, ["detected"])])
def test_a_wall_holds_at_least_k_times_the_median_level(size: float, expected: Any) -> None:
    assert expected == names(Story().step([(WALL, size)]))


def test_every_field_of_a_new_wall() -> None:
    story = Story()
    (event,) = story.step([(WALL, 20.0)])
    wall = event.wall
    assert "detected" == event.event
    assert ("bid", WALL, 20.0) == (wall.side, wall.price, wall.size)
    assert (20.0, 20.0, 20.0) == (wall.initial_size, wall.peak_size, wall.strength)
    assert (0.0, 0.0, 0.0) == (wall.eaten_ratio, wall.pulled_ratio, wall.traded_size)
    assert exactly((100 - WALL) / 100 * 10_000) == wall.distance_bps
    assert (story.now_ms, 0, False) == (wall.first_seen_ms, wall.age_ms, wall.uncertain)
    assert [wall] == story.tracker.records()


def test_a_wall_in_the_first_snapshot_is_found_at_once() -> None:
    book = OrderBook(50)
    book.apply(snapshot(10, [*SMALL[:4], (99.95, 30.0), *SMALL[5:]], SMALL_ASKS))
    tracker = WallTracker(DensityConfig(min_age_s=0))
    tracker.update(book, 1_000_200)
    assert ["detected"] == names(tracker.take_events())


def test_a_large_level_out_of_range_is_no_wall() -> None:
    assert [] == names(Story(range_bps=4.0).step([(WALL, 20.0)]))
    assert ["detected"] == names(Story(range_bps=5.0).step([(WALL, 20.0)]))


def test_each_side_has_its_own_baseline() -> None:
    story = Story()
    for number in range(10):
        story.step(asks=[(round(100.01 + number / 100, 2), 5.0)], ms=2000)
    story.wait(300_000)
    assert ["detected"] == names(story.step([(WALL, 20.0)], [(100.05, 20.0)]))


def test_walls_hardly_move_the_baseline() -> None:
    story = Story()
    for number in range(4):
        story.step([(round(99.99 - number / 100, 2), 100.0)])
    story.wait(5_000)
    assert 4 == len(story.tracker.records())
    assert {100.0} == {wall.strength for wall in story.tracker.records()}


def test_the_baseline_is_the_median_of_one_sample_per_second_over_the_look_back() -> None:
    baseline = Baseline(DensityConfig(lookback_s=3))
    book = OrderBook(50)
    for second, size in enumerate([1.0, 9.0, 5.0, 7.0, 7.0]):
        book.apply(snapshot(10, [(99.0, size)], [(100.0, 1.0)]))
        baseline.observe(book.bid_side, 99.5, second * 1000)
        book.apply(snapshot(10, [(99.0, 1e9)], [(100.0, 1.0)]))
        baseline.observe(book.bid_side, 99.5, second * 1000 + 999)  # too early for a sample
        expected = [1.0, 5.0, 5.0, 7.0, 7.0]
        assert expected[second] == baseline.level


# -- neighbouring levels ---------------------------------------------------------------------------


def test_neighbouring_levels_are_one_wall_at_the_price_of_the_largest() -> None:
    story = Story(bucket_ticks=3)
    (event,) = story.step([(99.95, 2.0), (99.94, 5.0), (99.93, 3.0)])
    wall = event.wall
    assert (99.94, 10.0) == (wall.price, wall.size)
    assert [] == story.step([(99.95, 7.0), (99.94, 0.0)])
    (wall,) = story.tracker.records()
    assert (99.94, 10.0, 10.0) == (wall.price, wall.size, wall.initial_size)
    assert ["grown"] == names(story.step([(99.93, 6.0)]))


def test_each_level_of_a_wall_has_its_own_trades() -> None:
    story = Story(bucket_ticks=2)
    story.step([(99.95, 10.0), (99.94, 10.0)])
    sold = [story.sold(10.0, 99.95), story.sold(6.0, 99.94)]
    (event,) = story.step([(99.95, 0.0), (99.94, 4.0)], trades=sold)
    assert ("eaten", 0.8) == (event.event, event.wall.eaten_ratio)


def test_a_wall_next_to_a_spent_one_is_found_when_the_wait_for_its_refill_ends() -> None:
    story = Story(bucket_ticks=2)
    (event,) = story.step([(99.95, 20.0)])
    assert 99.95 == event.wall.price, "together with 99.94"
    sold = [story.sold(20.0, 99.95), story.sold(1.0, 99.94)]
    assert ["eaten"] == names(story.step([(99.95, 0.0), (99.94, 0.0)], trades=sold))
    over_ms = story.now_ms + REFILL_MS + 1
    assert [] == story.step([(99.94, 3.5), (99.93, 3.6)]), "99.94 belongs to the first wall"
    assert over_ms == story.tracker.wake_ms
    story.tracker.update(story.book, over_ms)
    assert ["detected"] == names(story.tracker.take_events())


def test_walls_never_share_a_level() -> None:
    story = Story(bucket_ticks=4)
    events = story.step([(round(99.99 - step / 100, 2), 20.0) for step in range(10)])
    prices = [level.price for wall in story.tracker.accounts() for level in wall.levels]
    assert len(events) >= 2
    assert len(prices) == len(set(prices)) == story.tracker.tracked


@pytest.mark.parametrize(
    ("prices", "tick"),
    [
        ([1.0], None),
        ([1.0, 1.5], "0.5"),
        ([100.1, 100.4, 100.6], "0.1"),
        ([1e-7, 3e-7, 9e-7], "2E-7"),
        ([65114.2, 65114.3, 65200.0], "0.1"),
        ([0.1, 0.15, 0.2], "0.05"),
    ],
)
def test_the_tick_is_the_common_divisor_of_the_steps_seen(prices: Any, tick: str | None) -> None:
    grid = TickGrid()
    grid.observe(prices)
    assert (None if tick is None else Decimal(tick)) == grid.tick


def test_the_tick_only_gets_finer_as_more_prices_are_seen() -> None:
    grid = TickGrid()
    ticks = []
    for prices in ([10.0, 10.4], [10.0, 10.4], [10.6], [10.5], [20.0]):
        grid.observe(prices)
        ticks.append(str(grid.tick))
    assert ["0.4", "0.4", "0.2", "0.1", "0.1"] == ticks
