"""Trades and decreases are matched by price, side and match time."""

from collections.abc import Iterable
from typing import Any

import pytest

from bybit_pipeline.processes.orderbook.walls.trades import RECENT_MESSAGES
from bybit_pipeline.shared.wire.messages import Trade
from tests.orderbook.build import trade
from tests.orderbook.walls.story import (
    STEP_MS,
    WALL,
    Story,
    names,
)


def test_a_trade_outside_the_time_of_the_decrease_does_not_explain_it() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    early = trade(story.now_ms - STEP_MS, "Sell", WALL, 16.0)
    story.step([(WALL, 4.0)], trades=[early])
    (event,) = story.wait()
    assert ("pulled", 0.0) == (event.event, event.wall.traded_size)


def test_a_trade_before_the_decrease_was_refilled_and_does_not_explain_it() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step(trades=[story.sold(16.0)])
    story.step([(WALL, 4.0)])
    (event,) = story.wait()
    wall = event.wall
    assert ("pulled", 16.0, 16.0) == (event.event, wall.traded_size, wall.refilled_size)
    assert (16.0, 0.0, 0.8) == (wall.cancelled_size, wall.eaten_ratio, wall.pulled_ratio)


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
    assert ("pulled", 0.0) == (event.event, event.wall.traded_size)
    assert not event.wall.uncertain


def test_the_same_trade_received_twice_counts_once() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    sold = story.sold(8.0)
    story.step([(WALL, 4.0)], trades=[sold, sold])
    (event,) = story.wait()
    assert ("pulled", 8.0) == (event.event, event.wall.traded_size)


def test_a_trade_that_the_book_never_showed_was_refilled_at_once() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step(trades=[story.sold(5.0)])
    story.wait()
    (wall,) = story.tracker.records()
    assert (5.0, 5.0, 20.0) == (wall.traded_size, wall.refilled_size, wall.size)


def test_trades_larger_than_the_decrease_mean_a_refill() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step([(WALL, 18.0)], trades=[story.sold(5.0)])
    story.wait()
    (wall,) = story.tracker.records()
    assert (5.0, 3.0, 0.0) == (wall.traded_size, wall.refilled_size, wall.cancelled_size)
    assert 0.1 == wall.eaten_ratio


def test_trades_before_the_book_that_first_shows_a_wall_do_not_count() -> None:
    story = Story()
    found_ms = story.now_ms + STEP_MS
    story.step([(WALL, 20.0)])
    early = [trade(found_ms - 1, "Sell", WALL, 5.0), trade(found_ms, "Sell", WALL, 5.0)]
    story.tracker.on_trades(early)
    story.wait()
    (wall,) = story.tracker.records()
    assert (0.0, 0.0) == (wall.traded_size, wall.refilled_size)


def found_after(trades: Iterable[Trade], *, is_lost: bool = False) -> Story:
    """Return a market whose book shows a wall of 20, which is found after these trades arrived."""
    story = Story()
    story.now_ms += STEP_MS
    story.update_id += 1
    story.book.apply(story.message([(WALL, 20.0)], ()))
    if is_lost:
        story.tracker.on_trades_lost(story.now_ms + 50)
    for one in trades:
        story.tracker.on_trades([one])
    story.tracker.update(story.book, story.now_ms + 60)
    assert ["detected"] == names(story.tracker.take_events())
    return story


FOUND_MS = 1_000_000 + STEP_MS
"""Match time of the book in ``found_after``."""


def test_a_trade_received_before_the_wall_was_found_counts() -> None:
    story = found_after([trade(FOUND_MS + 40, "Sell", WALL, 20.0)])
    (event,) = story.step([(WALL, 0.0)])
    assert ("eaten", 20.0) == (event.event, event.wall.traded_size)
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
def test_an_earlier_trade_that_cannot_have_hit_the_wall_does_not_count(sold: Any) -> None:
    fields = {"match_ms": FOUND_MS + 40, "price": WALL, "size": 20.0, "side": "Sell"} | sold
    story = found_after([trade(**fields)])
    events = [*story.step([(WALL, 0.0)]), *story.wait()]
    assert [("pulled", 0.0)] == [(event.event, event.wall.traded_size) for event in events]


def test_a_trade_received_before_and_after_the_search_counts_once() -> None:
    sold = trade(FOUND_MS + 40, "Sell", WALL, 8.0)
    story = found_after([sold, sold])
    (event,) = [*story.step([(WALL, 4.0)], trades=[sold]), *story.wait()]
    assert ("pulled", 8.0) == (event.event, event.wall.traded_size)


def test_an_earlier_trade_with_retail_price_improvement_makes_a_new_wall_uncertain() -> None:
    story = found_after([trade(FOUND_MS + 40, "Sell", WALL, 8.0, is_rpi=True)])
    assert [True] == [wall.uncertain for wall in story.tracker.records()]


def test_more_trades_than_can_be_kept_make_a_new_wall_uncertain() -> None:
    for number, expected in ((RECENT_MESSAGES - 1, False), (RECENT_MESSAGES, True)):
        story = found_after(trade(FOUND_MS + 40, "Buy", 100.01, 1.0, str(n)) for n in range(number))
        assert [expected] == [wall.uncertain for wall in story.tracker.records()]


def test_trades_lost_after_the_book_that_shows_a_wall_make_it_uncertain() -> None:
    story = found_after([], is_lost=True)
    assert [True] == [wall.uncertain for wall in story.tracker.records()]


def test_a_refilled_wall_keeps_the_trades_that_its_book_does_not_show_yet() -> None:
    story = Story()
    story.step([(WALL, 50.0)])
    assert ["eaten"] == names(story.step([(WALL, 5.0)], trades=[story.sold(45.0)]))
    after = trade(story.now_ms + STEP_MS + 50, "Sell", WALL, 60.0)
    assert ["grown"] == names(story.step([(WALL, 60.0)], trades=[after]))
    (event,) = story.step([(WALL, 0.0)])
    assert ("eaten", 60.0) == (event.event, event.wall.traded_size)


def test_a_trade_with_retail_price_improvement_makes_a_wall_uncertain() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.step([(WALL, 4.0)], trades=[story.sold(16.0, is_rpi=True)])
    (event,) = story.wait()
    assert ("pulled", True) == (event.event, event.wall.uncertain)


def test_lost_trades_make_known_walls_uncertain_and_not_later_ones() -> None:
    story = Story()
    story.step([(WALL, 20.0)])
    story.tracker.on_trades_lost()
    story.step([(99.94, 20.0)])
    assert {
        WALL: True,
        99.94: False,
    } == {wall.price: wall.uncertain for wall in story.tracker.records()}


def test_without_trades_every_wall_is_uncertain() -> None:
    story = Story()
    story.tracker.set_has_trades(False)
    assert [True] == [event.wall.uncertain for event in story.step([(WALL, 20.0)])]
    story.tracker.set_has_trades(True)
    assert [False] == [event.wall.uncertain for event in story.step([(99.94, 20.0)])]
