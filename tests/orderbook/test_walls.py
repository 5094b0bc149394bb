"""Walls are found, followed and told about as they were; the accounts balance to the digit."""

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bybit_pipeline.processes.orderbook.book import OrderBook
from bybit_pipeline.processes.orderbook.walls.account import WallAccount
from bybit_pipeline.processes.orderbook.walls.baseline import Baseline
from bybit_pipeline.processes.orderbook.walls.search import TickGrid
from bybit_pipeline.processes.orderbook.walls.tracker import ARRIVAL_MS, WallEvent, WallTracker
from bybit_pipeline.processes.orderbook.walls.trades import RECENT_MESSAGES
from bybit_pipeline.processes.orderbook.walls.verdict import FALL_MS, REFILL_MS
from bybit_pipeline.shared.bybit import PUSH_PERIOD_MS
from bybit_pipeline.shared.settings.config import DensityConfig
from bybit_pipeline.shared.wire.messages import Level, Trade
from tests.naive import read_capture
from tests.orderbook.build import delta, recorded_book, recorded_trades, snapshot, trade
from tests.orderbook.naive_walls import NaiveWalls

STEP_MS = 100
GRACE_MS = PUSH_PERIOD_MS[50] + ARRIVAL_MS
SMALL = [(round(99.99 - step / 100, 2), 1.0) for step in range(10)]
SMALL_ASKS = [(round(100.01 + step / 100, 2), 1.0) for step in range(10)]
WALL = 99.95


def exactly(size: Any) -> Any:
    return pytest.approx(size, rel=1e-12, abs=1e-12)


class Story:
    """
    A book of ones around 100, told step by step; each step is 100 ms and ends with a publication.

    ``match_ms`` of a step's book is its end; trades happen in the middle of it.
    """

    def __init__(self, depth: int = 50, **config: Any) -> None:
        self.tracker = WallTracker(DensityConfig(**config), depth)
        self.book = OrderBook(depth)
        self.update_id = 10
        self.now_ms = 1_000_000
        self.book.apply(self.message(SMALL, SMALL_ASKS, is_snapshot=True))
        self.tracker.update(self.book, self.now_ms)

    def message(self, bids: Iterable[Level], asks: Iterable[Level], **fields: Any) -> Any:
        make = snapshot if fields.pop("is_snapshot", False) else delta
        return make(self.update_id, bids, asks, match_ms=self.now_ms, depth=self.book.depth)

    def step(
        self,
        bids: Iterable[Level] = (),
        asks: Iterable[Level] = (),
        trades: Iterable[Trade] = (),
        *,
        is_late: bool = False,
        ms: int = STEP_MS,
    ) -> list[WallEvent]:
        """One step; trades arrive before the book message or after it."""
        self.now_ms += ms
        self.update_id += 1
        if not is_late:
            self.tracker.on_trades(trades)
        self.book.apply(self.message(bids, asks))
        if self.tracker.tracked:
            self.tracker.on_book(self.book)
        if is_late:
            self.tracker.on_trades(trades)
        self.tracker.update(self.book, self.now_ms)
        for wall in self.tracker.accounts():
            check_balance(wall)
        return self.tracker.take_events()

    def sold(self, size: float, price: float = WALL, **fields: Any) -> Trade:
        """A trade that takes from the bids in the middle of the coming step."""
        return trade(self.now_ms + STEP_MS // 2, "Sell", price, size, **fields)

    def wait(self, ms: int = GRACE_MS + STEP_MS) -> list[WallEvent]:
        """Steps without news."""
        return [event for _ in range(-(-ms // STEP_MS)) for event in self.step()]


def check_balance(wall: WallAccount) -> None:
    assert wall.traded + wall.cancelled + wall.size == wall.peak + wall.refilled
    assert wall.eaten + wall.pulled + wall.size == wall.peak
    for amount in (wall.size, wall.traded, wall.cancelled, wall.refilled, wall.eaten, wall.pulled):
        assert amount >= 0


def names(events: Iterable[WallEvent]) -> list[str]:
    return [event.event for event in events]


# -- finding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "expected"), [(6.999, []), (7.0, ["detected"])])
def test_a_wall_holds_at_least_k_times_the_median_level(size: float, expected: Any) -> None:
    assert names(Story().step([(WALL, size)])) == expected


def test_what_is_told_about_a_new_wall() -> None:
    story = Story()
    (event,) = story.step([(WALL, 20.0)])
    wall = event.wall
    assert event.event == "detected"
    assert (wall.side, wall.price, wall.size) == ("bid", WALL, 20.0)
    assert (wall.initial_size, wall.peak_size, wall.strength) == (20.0, 20.0, 20.0)
    assert (wall.eaten_ratio, wall.pulled_ratio, wall.traded_size) == (0.0, 0.0, 0.0)
    assert wall.distance_bps == exactly((100 - WALL) / 100 * 10_000)
    assert (wall.first_seen_ms, wall.age_ms, wall.uncertain) == (story.now_ms, 0, False)
    assert story.tracker.walls() == [wall]


def test_a_wall_that_is_there_from_the_first_snapshot_is_found_at_once() -> None:
    book = OrderBook(50)
    book.apply(snapshot(10, [*SMALL[:4], (99.95, 30.0), *SMALL[5:]], SMALL_ASKS))
    tracker = WallTracker(DensityConfig())
    tracker.update(book, 1_000_200)
    assert names(tracker.take_events()) == ["detected"]


def test_a_large_level_beyond_the_range_is_no_wall() -> None:
    assert names(Story(range_bps=4.0).step([(WALL, 20.0)])) == []
    assert names(Story(range_bps=5.0).step([(WALL, 20.0)])) == ["detected"]


def test_each_side_has_its_own_baseline() -> None:
    story = Story()
    for number in range(10):
        story.step(asks=[(round(100.01 + number / 100, 2), 5.0)], ms=2000)
    story.wait(300_000)
    assert names(story.step([(WALL, 20.0)], [(100.05, 20.0)])) == ["detected"]


def test_walls_hardly_move_the_baseline() -> None:
    story = Story()
    for number in range(4):
        story.step([(round(99.99 - number / 100, 2), 100.0)])
    story.wait(5_000)
    assert len(story.tracker.walls()) == 4
    assert {wall.strength for wall in story.tracker.walls()} == {100.0}


def test_the_baseline_is_the_median_of_one_sample_a_second_over_the_look_back() -> None:
    baseline = Baseline(lookback_s=3)
    book = OrderBook(50)
    for second, size in enumerate([1.0, 9.0, 5.0, 7.0, 7.0]):
        book.apply(snapshot(10, [(99.0, size)], [(100.0, 1.0)]))
        baseline.observe(book.bid_side, second * 1000)
        book.apply(snapshot(10, [(99.0, 1e9)], [(100.0, 1.0)]))
        baseline.observe(book.bid_side, second * 1000 + 999)  # too early for a sample
        expected = [1.0, 5.0, 5.0, 7.0, 7.0]
        assert baseline.value == expected[second]


# -- growing, hysteresis ---------------------------------------------------------------------------


def test_time_that_goes_far_back_ends_the_walls_and_begins_the_baseline_anew() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    assert story.step(ms=-50_000) == story.step(ms=50_000) == []
    assert names(story.step(ms=-61_000)) == ["removed", "detected"]
    assert story.step([(WALL, 4.0)], trades=[story.sold(16.0)])[0].event == "eaten"


def test_a_book_is_never_matched_after_its_push() -> None:
    story = Story()
    story.now_ms += STEP_MS
    story.update_id += 1
    message = story.message([(WALL, 20.0)], ())
    story.book.apply(replace(message, match_ts_ms=story.now_ms + 10**9))
    story.tracker.update(story.book, story.now_ms)
    story.tracker.take_events()
    assert names(story.step([(WALL, 4.0)], trades=[story.sold(16.0)])) == ["eaten"]


def test_a_wall_that_is_fed_has_grown() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    assert story.step([(WALL, 24.0)]) == []
    (event,) = story.step([(WALL, 25.0)])
    assert event.event == "grown"
    assert (event.wall.size, event.wall.peak_size) == (25.0, 25.0)
    assert event.wall.initial_size == 20.0


def test_a_wall_that_hovers_at_the_threshold_does_not_flicker() -> None:
    story = Story()
    assert names(story.step([(WALL, 7.0)])) == ["detected"]
    assert [names(story.step([(WALL, size)])) for size in (6.9, 7.0, 6.5, 7.1, 6.9) * 5] == [
        []
    ] * 25


def test_a_wall_that_hovers_at_the_edge_of_the_range_does_not_flicker() -> None:
    story = Story(range_bps=5.0)
    assert names(story.step([(WALL, 20.0)])) == ["detected"]
    story.step([(99.99, 0.0), (100.0, 1.0)])
    for _ in range(5):
        assert story.step([(100.0, 1.0)]) == []
        assert story.step([(100.0, 0.0)]) == []


def test_refilling_after_being_partly_eaten_is_growing_again() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    assert story.step([(WALL, 12.0)], trades=[story.sold(8.0)]) == []
    (event,) = story.step([(WALL, 20.0)])
    assert event.event == "grown"
    wall = event.wall
    assert (wall.traded_size, wall.refilled_size, wall.peak_size) == (8.0, 8.0, 20.0)
    assert (wall.eaten_ratio, wall.pulled_ratio) == (0.0, 0.0)


# -- eaten, pulled, removed ------------------------------------------------------------------------


@pytest.mark.parametrize("is_late", [False, True])
def test_a_wall_that_trades_took_is_eaten_whichever_message_comes_first(is_late: bool) -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    assert story.step([(WALL, 12.0)], trades=[story.sold(8.0)], is_late=is_late) == []
    sold = [story.sold(7.0, trade_id="a"), story.sold(1.0, trade_id="b")]
    (event,) = story.step([(WALL, 4.0)], trades=sold, is_late=is_late)
    wall = event.wall
    assert event.event == "eaten"
    assert (wall.size, wall.traded_size, wall.cancelled_size) == (4.0, 16.0, 0.0)
    assert (wall.eaten_ratio, wall.pulled_ratio) == (0.8, 0.0)
    assert not wall.uncertain


def test_a_wall_may_be_eaten_above_its_threshold_and_is_told_once() -> None:
    story = Story()
    story.step([(WALL, 100.0)])
    assert names(story.step([(WALL, 20.0)], trades=[story.sold(80.0)])) == ["eaten"]
    assert [wall.size for wall in story.tracker.walls()] == [20.0]
    assert story.step([(WALL, 10.0)], trades=[story.sold(10.0)]) == []
    assert story.step([(WALL, 0.0)], trades=[story.sold(10.0)]) == []
    assert story.tracker.walls() == []


def test_an_eaten_wall_that_is_filled_up_again_is_the_same_wall_grown() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    first_seen_ms = story.now_ms
    assert names(story.step([(WALL, 0.0)], trades=[story.sold(20.0)])) == ["eaten"]
    assert story.tracker.walls() == []
    story.wait(5_000)
    (event,) = story.step([(WALL, 20.0)])
    assert event.event == "grown"
    assert event.wall.first_seen_ms == first_seen_ms
    assert (event.wall.initial_size, event.wall.peak_size) == (20.0, 20.0)
    assert (event.wall.traded_size, event.wall.eaten_ratio) == (0.0, 0.0)
    (event,) = story.step([(WALL, 4.0)], trades=[story.sold(16.0)])
    assert (event.event, event.wall.eaten_ratio) == ("eaten", 0.8)


def test_an_eaten_wall_that_is_filled_up_a_little_is_a_smaller_wall_that_can_be_eaten_again() -> (
    None
):
    story = Story()
    story.step([(WALL, 100.0)])
    assert names(story.step([(WALL, 10.0)], trades=[story.sold(90.0)])) == ["eaten"]
    (event,) = story.step([(WALL, 15.0)])
    assert (event.event, event.wall.peak_size) == ("grown", 15.0)
    assert story.wait() == []
    (event,) = story.step([(WALL, 3.0)], trades=[story.sold(12.0)])
    assert (event.event, event.wall.eaten_ratio) == ("eaten", 0.8)


def test_an_eaten_wall_that_is_filled_up_much_later_is_a_new_wall() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step([(WALL, 0.0)], trades=[story.sold(20.0)])
    story.wait(11_000)
    assert story.tracker.accounts() == []
    assert story.tracker.tracked == 0
    assert names(story.step([(WALL, 20.0)])) == ["detected"]


def test_a_wall_that_leaves_without_trades_is_pulled_once_no_trade_can_come_any_more() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    gone_ms = story.now_ms + STEP_MS
    assert story.step([(WALL, 0.0)]) == []
    (event,) = story.wait()
    assert GRACE_MS < story.now_ms - gone_ms <= GRACE_MS + 2 * STEP_MS
    wall = event.wall
    assert event.event == "pulled"
    assert (wall.size, wall.traded_size, wall.cancelled_size) == (0.0, 0.0, 20.0)
    assert (wall.eaten_ratio, wall.pulled_ratio) == (0.0, 1.0)
    assert story.tracker.accounts() == []


def test_a_wall_that_was_pulled_is_told_in_time_even_if_its_level_goes_on_shrinking() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step([(WALL, 1.0)])
    fell_ms = story.now_ms
    told: list[WallEvent] = []
    while not told and story.now_ms < fell_ms + 2 * FALL_MS:
        told = story.step([(WALL, 1.0 + (story.update_id % 2) / 10)])
    assert names(told) == ["pulled"]
    assert told[0].wall.uncertain, "the last decrease may yet turn out to be a trade"
    assert FALL_MS < story.now_ms - fell_ms <= FALL_MS + STEP_MS


def test_the_verdict_waits_for_a_trade_that_could_turn_it() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step([(WALL, 12.5)], trades=[story.sold(7.5)])
    size = 4.8
    story.step([(WALL, size)])
    fell_ms = story.now_ms
    while story.now_ms < fell_ms + FALL_MS:
        size -= 0.01
        assert story.step([(WALL, round(size, 2))]) == []
    rest = story.sold(round(size, 2))
    assert story.step([(WALL, 0.0)]) == [], "eaten or pulled: its trade has not come yet"
    story.tracker.on_trades([rest])
    (event,) = story.step()
    assert event.event == "eaten"
    assert event.wall.eaten_ratio > event.wall.pulled_ratio


def test_a_wall_that_was_nibbled_and_then_pulled_is_pulled_with_both_ratios() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step([(WALL, 15.0)], trades=[story.sold(5.0)])
    story.step([(WALL, 0.0)])
    (event,) = story.wait()
    assert event.event == "pulled"
    assert (event.wall.eaten_ratio, event.wall.pulled_ratio) == (0.25, 0.75)


def test_a_wall_that_left_mostly_by_trades_is_eaten_even_below_the_ratio() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step([(WALL, 0.0)], trades=[story.sold(12.0)])
    (event,) = story.wait()
    assert event.event == "eaten"
    assert (event.wall.eaten_ratio, event.wall.pulled_ratio) == (0.6, 0.4)


def test_a_wall_that_fell_by_trades_is_given_time_to_be_eaten_to_the_ratio() -> None:
    story = Story()
    story.step([(WALL, 10.0)])
    assert story.step([(WALL, 4.0)], trades=[story.sold(6.0)]) == []
    story.wait(1_000)
    (event,) = story.step([(WALL, 1.0)], trades=[story.sold(3.0)])
    assert (event.event, event.wall.eaten_ratio) == ("eaten", 0.9)


def test_a_wall_that_fell_by_trades_and_stays_there_is_eaten_in_the_end() -> None:
    story = Story()
    story.step([(WALL, 10.0)])
    story.step([(WALL, 4.0)], trades=[story.sold(6.0)])
    (event,) = story.wait(5_500)
    assert (event.event, event.wall.eaten_ratio, event.wall.size) == ("eaten", 0.6, 4.0)


def test_a_wall_that_fell_and_recovers_in_time_goes_on_living() -> None:
    story = Story()
    story.step([(WALL, 10.0)])
    assert story.step([(WALL, 0.0)]) == []
    assert names(story.step([(WALL, 10.0)])) == ["grown"]
    assert story.wait() == []
    assert [wall.size for wall in story.tracker.walls()] == [10.0]


def test_a_wall_out_of_range_is_removed() -> None:
    story = Story(range_bps=5.0)
    story.step([(WALL, 20.0)])
    moved = [(round(100.01 + step / 100, 2), 0.0) for step in range(6)]
    (event,) = story.step([(100.04, 1.0)], moved)
    assert event.event == "removed"
    assert (event.wall.size, event.wall.cancelled_size) == (20.0, 0.0)
    assert story.tracker.tracked == 0


def test_a_wall_that_slides_out_of_the_visible_book_is_removed_and_not_pulled() -> None:
    story = Story(depth=10)
    bottom = SMALL[-1][0]
    assert names(story.step([(bottom, 20.0)])) == ["detected"]
    (event,) = story.step([(100.0, 1.0), (bottom, 0.0)])
    assert event.event == "removed"
    assert (event.wall.size, event.wall.cancelled_size) == (20.0, 0.0)


def test_the_last_wall_of_a_book_that_is_not_full_can_be_pulled() -> None:
    story = Story(depth=50)
    bottom = SMALL[-1][0]
    story.step([(bottom, 20.0)])
    story.step([(100.0, 1.0), (bottom, 0.0)])
    assert names(story.wait()) == ["pulled"]


def test_the_walls_of_a_dropped_book_are_removed_as_they_were_last_seen() -> None:
    story = Story()
    story.step([(WALL, 20.0)], [(100.05, 30.0)])
    story.tracker.drop()
    events = story.tracker.take_events()
    assert [(event.event, event.wall.size) for event in events] == [
        ("removed", 20.0),
        ("removed", 30.0),
    ]
    assert story.tracker.tracked == 0
    assert story.tracker.walls() == []


def test_the_walls_of_a_book_that_loses_a_side_are_removed() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.wait(1_000)
    story.step(asks=[(price, 0.0) for price, _ in SMALL_ASKS[1:]])
    story.now_ms += STEP_MS
    story.update_id += 1
    story.book.apply(story.message((), [(SMALL_ASKS[0][0], 0.0)]))
    story.tracker.on_book(story.book)
    assert story.tracker.walls(story.book) == []
    story.tracker.update(story.book, story.now_ms)
    (event,) = story.tracker.take_events()
    assert (event.event, event.wall.size) == ("removed", 20.0)
    assert event.wall.age_ms == story.now_ms - event.wall.first_seen_ms
    assert (story.tracker.walls(), story.tracker.tracked) == ([], 0)


def test_an_eaten_wall_that_waits_to_be_filled_up_is_forgotten_silently_with_the_book() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step([(WALL, 0.0)], trades=[story.sold(20.0)])
    story.tracker.drop()
    assert story.tracker.take_events() == []
    assert story.tracker.tracked == 0


def test_a_wall_that_kept_its_size_while_the_baseline_rose_is_removed() -> None:
    story = Story(lookback_s=2.0)
    story.step([(WALL, 10.0)])
    for price, _ in SMALL:
        if price != WALL:
            story.step([(price, 3.0)])
    assert "removed" in names(story.wait(3_000))


# -- attribution -----------------------------------------------------------------------------------


def test_a_trade_outside_the_time_of_the_decrease_does_not_explain_it() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    early = trade(story.now_ms - STEP_MS, "Sell", WALL, 16.0)
    story.step([(WALL, 4.0)], trades=[early])
    (event,) = story.wait()
    assert (event.event, event.wall.traded_size) == ("pulled", 0.0)


def test_a_trade_before_the_decrease_was_made_good_and_does_not_explain_it() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step(trades=[story.sold(16.0)])
    story.step([(WALL, 4.0)])
    (event,) = story.wait()
    wall = event.wall
    assert (event.event, wall.traded_size, wall.refilled_size) == ("pulled", 16.0, 16.0)
    assert (wall.cancelled_size, wall.eaten_ratio, wall.pulled_ratio) == (16.0, 0.0, 0.8)


@pytest.mark.parametrize(
    "sold",
    [
        {"price": 99.94},
        {"is_block": True},
        {"side": "Buy"},
    ],
)
def test_a_trade_that_cannot_have_hit_the_wall_does_not_explain_its_decrease(sold: Any) -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    fields = {"price": WALL, "size": 16.0, "side": "Sell"} | sold
    story.step([(WALL, 4.0)], trades=[trade(story.now_ms + 50, **fields)])
    (event,) = story.wait()
    assert (event.event, event.wall.traded_size) == ("pulled", 0.0)
    assert not event.wall.uncertain


def test_the_same_trade_received_twice_counts_once() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    sold = story.sold(8.0)
    story.step([(WALL, 4.0)], trades=[sold, sold])
    (event,) = story.wait()
    assert (event.event, event.wall.traded_size) == ("pulled", 8.0)


def test_a_trade_that_the_book_never_showed_was_made_good_at_once() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step(trades=[story.sold(5.0)])
    story.wait()
    (wall,) = story.tracker.walls()
    assert (wall.traded_size, wall.refilled_size, wall.size) == (5.0, 5.0, 20.0)


def test_trades_larger_than_the_decrease_mean_a_refill() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step([(WALL, 18.0)], trades=[story.sold(5.0)])
    story.wait()
    (wall,) = story.tracker.walls()
    assert (wall.traded_size, wall.refilled_size, wall.cancelled_size) == (5.0, 3.0, 0.0)
    assert wall.eaten_ratio == 0.1


def test_trades_before_the_wall_was_found_are_not_its_own() -> None:
    story = Story()
    found_ms = story.now_ms + STEP_MS
    story.step([(WALL, 20.0)])
    early = [trade(found_ms - 1, "Sell", WALL, 5.0), trade(found_ms, "Sell", WALL, 5.0)]
    story.tracker.on_trades(early)
    story.wait()
    (wall,) = story.tracker.walls()
    assert (wall.traded_size, wall.refilled_size) == (0.0, 0.0)


def found_after(trades: Iterable[Trade], *, is_lost: bool = False) -> Story:
    """A wall of 20 that the book shows at once, and that is found when the trades have come."""
    story = Story()
    story.now_ms += STEP_MS
    story.update_id += 1
    story.book.apply(story.message([(WALL, 20.0)], ()))
    if is_lost:
        story.tracker.on_trades_lost(story.now_ms + 50)
    for one in trades:
        story.tracker.on_trades([one])
    story.tracker.update(story.book, story.now_ms + 60)
    assert names(story.tracker.take_events()) == ["detected"]
    return story


FOUND_MS = 1_000_000 + STEP_MS
"""Match time of the book in ``found_after``."""


def test_a_trade_that_came_before_the_wall_was_found_counts() -> None:
    story = found_after([trade(FOUND_MS + 40, "Sell", WALL, 20.0)])
    (event,) = story.step([(WALL, 0.0)])
    assert (event.event, event.wall.traded_size) == ("eaten", 20.0)
    assert not event.wall.uncertain
    assert "pulled" not in names(story.wait())


@pytest.mark.parametrize(
    "sold",
    [
        {"match_ms": FOUND_MS},
        {"price": 99.94},
        {"is_block": True},
        {"side": "Buy"},
    ],
)
def test_a_trade_before_the_finding_that_cannot_have_hit_the_wall_is_not_its_own(sold: Any) -> None:
    fields = {"match_ms": FOUND_MS + 40, "price": WALL, "size": 20.0, "side": "Sell"} | sold
    story = found_after([trade(**fields)])
    told = [*story.step([(WALL, 0.0)]), *story.wait()]
    assert [(event.event, event.wall.traded_size) for event in told] == [("pulled", 0.0)]


def test_a_trade_received_before_and_after_the_finding_counts_once() -> None:
    sold = trade(FOUND_MS + 40, "Sell", WALL, 8.0)
    story = found_after([sold, sold])
    (event,) = [*story.step([(WALL, 4.0)], trades=[sold]), *story.wait()]
    assert (event.event, event.wall.traded_size) == ("pulled", 8.0)


def test_retail_price_improvement_before_the_finding_makes_it_uncertain() -> None:
    story = found_after([trade(FOUND_MS + 40, "Sell", WALL, 8.0, is_rpi=True)])
    assert [wall.uncertain for wall in story.tracker.walls()] == [True]


def test_more_trades_than_are_kept_make_a_new_wall_uncertain() -> None:
    for number, expected in ((RECENT_MESSAGES - 1, False), (RECENT_MESSAGES, True)):
        story = found_after(trade(FOUND_MS + 40, "Buy", 100.01, 1.0, str(n)) for n in range(number))
        assert [wall.uncertain for wall in story.tracker.walls()] == [expected]


def test_trades_lost_after_the_book_that_shows_a_wall_make_it_uncertain() -> None:
    story = found_after([], is_lost=True)
    assert [wall.uncertain for wall in story.tracker.walls()] == [True]


def test_a_wall_that_is_filled_up_again_keeps_the_trades_that_its_book_does_not_show_yet() -> None:
    story = Story()
    story.step([(WALL, 50.0)])
    assert names(story.step([(WALL, 5.0)], trades=[story.sold(45.0)])) == ["eaten"]
    after = trade(story.now_ms + STEP_MS + 50, "Sell", WALL, 60.0)
    assert names(story.step([(WALL, 60.0)], trades=[after])) == ["grown"]
    (event,) = story.step([(WALL, 0.0)])
    assert (event.event, event.wall.traded_size) == ("eaten", 60.0)


def test_retail_price_improvement_at_the_walls_price_makes_it_uncertain() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step([(WALL, 4.0)], trades=[story.sold(16.0, is_rpi=True)])
    (event,) = story.wait()
    assert (event.event, event.wall.uncertain) == ("pulled", True)


def test_lost_trades_make_the_present_walls_uncertain_and_not_later_ones() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.tracker.on_trades_lost()
    story.step([(99.94, 20.0)])
    assert {wall.price: wall.uncertain for wall in story.tracker.walls()} == {
        WALL: True,
        99.94: False,
    }


def test_without_trades_every_wall_is_uncertain() -> None:
    story = Story()
    story.tracker.set_has_trades(False)
    assert [event.wall.uncertain for event in story.step([(WALL, 20.0)])] == [True]
    story.tracker.set_has_trades(True)
    assert [event.wall.uncertain for event in story.step([(99.94, 20.0)])] == [False]


# -- neighbouring levels ---------------------------------------------------------------------------


def test_neighbouring_levels_are_one_wall_known_by_the_largest() -> None:
    story = Story(bucket_ticks=3)
    (event,) = story.step([(99.95, 2.0), (99.94, 5.0), (99.93, 3.0)])
    wall = event.wall
    assert (wall.price, wall.size) == (99.94, 10.0)
    assert story.step([(99.95, 7.0), (99.94, 0.0)]) == []
    (wall,) = story.tracker.walls()
    assert (wall.price, wall.size, wall.initial_size) == (99.94, 10.0, 10.0)
    assert names(story.step([(99.93, 6.0)])) == ["grown"]


def test_each_level_of_a_wall_has_its_own_trades() -> None:
    story = Story(bucket_ticks=2)
    story.step([(99.95, 10.0), (99.94, 10.0)])
    sold = [story.sold(10.0, 99.95), story.sold(6.0, 99.94)]
    (event,) = story.step([(99.95, 0.0), (99.94, 4.0)], trades=sold)
    assert (event.event, event.wall.eaten_ratio) == ("eaten", 0.8)


def test_a_wall_beside_one_that_waits_to_be_filled_up_is_found_when_that_is_over() -> None:
    story = Story(bucket_ticks=2)
    (event,) = story.step([(99.95, 20.0)])
    assert event.wall.price == 99.95, "with 99.94"
    sold = [story.sold(20.0, 99.95), story.sold(1.0, 99.94)]
    assert names(story.step([(99.95, 0.0), (99.94, 0.0)], trades=sold)) == ["eaten"]
    over_ms = story.now_ms + REFILL_MS + 1
    assert story.step([(99.94, 3.5), (99.93, 3.6)]) == [], "99.94 belongs to the other"
    assert story.tracker.wake_ms == over_ms
    story.tracker.update(story.book, over_ms)
    assert names(story.tracker.take_events()) == ["detected"]


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
    assert grid.tick == (None if tick is None else Decimal(tick))


def test_the_tick_only_gets_finer_as_more_is_seen() -> None:
    grid = TickGrid()
    ticks = []
    for prices in ([10.0, 10.4], [10.0, 10.4], [10.6], [10.5], [20.0]):
        grid.observe(prices)
        ticks.append(str(grid.tick))
    assert ticks == ["0.4", "0.4", "0.2", "0.1", "0.1"]


# -- always ----------------------------------------------------------------------------------------

LOTS = st.integers(0, 300).map(lambda lots: lots / 10)
ACTION = st.tuples(
    st.lists(st.tuples(st.sampled_from([99.95, 99.94, 99.9]), LOTS), max_size=3),
    st.lists(
        st.tuples(st.sampled_from([99.95, 99.94]), LOTS.filter(bool), st.integers(-150, 60)),
        max_size=3,
    ),
    st.booleans(),
    st.sampled_from([20, 100, 400, 3000]),
)
ACTIONS = st.lists(ACTION, max_size=25)


@given(ACTIONS, st.sampled_from([1, 2, 5]))
@settings(max_examples=200, deadline=None)
def test_the_accounts_balance_exactly_whatever_happens(actions: Any, bucket_ticks: int) -> None:
    story = Story(bucket_ticks=bucket_ticks, k=3.0)
    alive: set[tuple[str, float]] = set()
    for number, (levels, sold, is_late, ms) in enumerate(actions):
        trades = [
            trade(story.now_ms + ms + offset, "Sell", price, size, f"{number}-{index}")
            for index, (price, size, offset) in enumerate(sold)
        ]
        for event, wall in story.step(levels, (), trades, is_late=is_late, ms=ms):
            key = (wall.side, wall.price)
            assert (key in alive) != (event == "detected")
            alive.add(key)
            if event in ("pulled", "removed"):
                alive.discard(key)
            assert 0 <= wall.eaten_ratio <= 1
            assert 0 <= wall.pulled_ratio <= 1
            assert wall.traded_size + wall.cancelled_size + wall.size == exactly(
                wall.peak_size + wall.refilled_size
            )
        alive &= {(wall.side, wall.price) for wall in story.tracker.accounts()}
        assert story.tracker.tracked == sum(len(wall.levels) for wall in story.tracker.accounts())


WAITS_MS = (0, 50, 300, 3_000, FALL_MS + 1_000, REFILL_MS + 1_000)
TICK_MS = 50


@given(
    st.lists(st.tuples(ACTION, st.sampled_from(WAITS_MS)), max_size=15),
    st.sampled_from([1, 2, 5]),
)
@settings(max_examples=150, deadline=None)
def test_nothing_is_told_later_when_walls_are_judged_only_when_they_ask_for_it(
    actions: Any, bucket_ticks: int
) -> None:
    always, asked = (Story(k=3.0, bucket_ticks=bucket_ticks) for _ in range(2))
    for number, ((levels, sold, is_late, _), wait_ms) in enumerate(actions):
        trades = [
            trade(always.now_ms + STEP_MS + offset, "Sell", price, size, f"{number}-{index}")
            for index, (price, size, offset) in enumerate(sold)
        ]
        assert asked.step(levels, (), trades, is_late=is_late) == always.step(
            levels, (), trades, is_late=is_late
        )
        late_trade = [always.sold(1.0, trade_id=f"{number}-late")]
        for tick in range(wait_ms // TICK_MS):
            has_hit = False
            for story in (always, asked):
                story.now_ms += TICK_MS
                if tick == 1:
                    has_hit = story.tracker.on_trades(late_trade)
            always.tracker.update(always.book, always.now_ms)
            if has_hit or asked.now_ms >= asked.tracker.wake_ms:
                asked.tracker.update(asked.book, asked.now_ms)
            assert asked.tracker.take_events() == always.tracker.take_events()
    for story in (always, asked):
        story.tracker.update(story.book, story.now_ms)
    assert asked.tracker.walls() == always.tracker.walls()


@given(ACTIONS)
@settings(max_examples=100, deadline=None)
def test_the_totals_do_not_depend_on_which_message_arrives_first(actions: Any) -> None:
    totals = []
    for is_late in (False, True):
        story = Story(k=3.0)
        story.step([(WALL, 30.0)])
        for number, (levels, sold, _, _) in enumerate(actions):
            levels = [(price, size + 10) for price, size in levels]  # it never falls
            trades = [
                trade(story.now_ms + 50, "Sell", price, size, f"{number}-{index}")
                for index, (price, size, _) in enumerate(sold)
            ]
            story.step(levels, (), trades, is_late=is_late)
        story.wait()
        walls = [wall for wall in story.tracker.accounts() if wall.price == WALL]
        totals.append([(wall.traded, wall.cancelled, wall.refilled) for wall in walls])
    assert totals[0] == totals[1]


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("linear_20260809_ob200_BTC_SOL.jsonl", 1000),
        ("spot_20260809_ob200_ETH.jsonl", 200),
    ],
)
def test_the_events_of_a_capture_are_those_of_a_brute_force_replay(
    captures: Path, name: str, least: int
) -> None:
    config = DensityConfig()
    books: dict[str, OrderBook] = {}
    trackers: dict[str, WallTracker] = {}
    models: dict[str, NaiveWalls] = {}
    events = 0
    for raw in read_capture(captures / name):
        kind, symbol = raw["topic"].split(".")[0], raw["topic"].rsplit(".", 1)[1]
        if kind == "orderbook":
            message = recorded_book(raw)
            book = books.setdefault(symbol, OrderBook(200))
            tracker = trackers.setdefault(symbol, WallTracker(config, 200))
            model = models.setdefault(
                symbol,
                NaiveWalls(
                    k=config.k,
                    range_bps=config.range_bps,
                    depth=200,
                    grace_ms=PUSH_PERIOD_MS[200] + ARRIVAL_MS,
                ),
            )
            book.apply(message)
            if tracker.tracked:
                tracker.on_book(book)
            model.on_book(raw)
            tracker.update(book, message.exchange_ts_ms)
            told = [
                (
                    event,
                    wall.side,
                    wall.price,
                    wall.size,
                    wall.peak_size,
                    wall.traded_size,
                    wall.cancelled_size,
                    wall.refilled_size,
                    wall.eaten_ratio,
                    wall.pulled_ratio,
                )
                for event, wall in tracker.take_events()
            ]
            assert told == model.update(message.exchange_ts_ms)
            events += len(told)
            for wall in tracker.accounts():
                check_balance(wall)
        elif kind == "publicTrade" and symbol in trackers:
            trades = recorded_trades(raw).trades
            trackers[symbol].on_trades(trades)
            for one in trades:
                models[symbol].on_trade(one)
    assert events > least
