"""Each measure equals its formula, computed slowly with exact fractions."""

from fractions import Fraction
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bybit_pipeline.processes.orderbook.book import OrderBook
from bybit_pipeline.processes.orderbook.measures import (
    BookMeasures,
    OrderFlow,
    imbalance,
    key_of,
    mid,
    spread_bps,
)
from bybit_pipeline.processes.orderbook.rounding import BookRounding
from bybit_pipeline.shared.settings.config import OrderbookConfig
from bybit_pipeline.shared.wire.messages import Category, Level
from tests.naive import read_capture
from tests.orderbook.build import MEASURES, delta, measured, recorded_book, snapshot

CONFIG = OrderbookConfig(impact_notionals=(50.0, 500.0, 10_000.0))


def live(bids: Any, asks: Any, depth: int = 50) -> OrderBook:
    book = OrderBook(depth)
    book.apply(snapshot(10, bids, asks, depth=depth))
    return book


def close(value: Any) -> Any:
    """Return a value that equals this one up to rounding; maps are compared by key."""
    if isinstance(value, dict):
        return {key: close(inner) for key, inner in value.items()}
    return None if value is None else pytest.approx(value, rel=1e-9, abs=1e-9)


# -- slow formulas ---------------------------------------------------------------------------------


def slow_imbalance(bids: list[Level], asks: list[Level], levels: int) -> float | None:
    bid = sum(Fraction(size) for _, size in bids[:levels])
    ask = sum(Fraction(size) for _, size in asks[:levels])
    return float((bid - ask) / (bid + ask)) if bid + ask else None


def exact(number: float) -> Fraction:
    return Fraction(repr(number))


def slow_notional(price: float, size: float, category: Category) -> Fraction:
    return exact(size) if category == "inverse" else exact(price) * exact(size)


def slow_depth(
    bids: list[Level], asks: list[Level], bps: float, category: Category, depth: int
) -> Any:
    centre = (exact(bids[0][0]) + exact(asks[0][0])) / 2
    result = {}
    for name, levels in (("bid", bids), ("ask", asks)):
        held = [
            (price, size)
            for price, size in levels
            if abs(exact(price) - centre) / centre * 10_000 <= exact(bps)
        ]
        result[name] = float(sum(exact(size) for _, size in held))
        result[f"{name}_notional"] = float(
            sum(slow_notional(price, size, category) for price, size in held)
        )
        result[f"{name}_complete"] = len(held) < len(levels) or len(levels) < depth
    return result


def slow_average(levels: list[Level], notional: float, category: Category) -> Fraction | None:
    left, base = exact(notional), Fraction(0)
    for price, size in levels:
        taken = min(left, slow_notional(price, size, category))
        base += taken / exact(price)
        left -= taken
        if not left:
            return exact(notional) / base
    return None


def slow_impact(bids: list[Level], asks: list[Level], notional: float, category: Category) -> Any:
    centre = (exact(bids[0][0]) + exact(asks[0][0])) / 2
    buy, sell = (slow_average(side, notional, category) for side in (asks, bids))
    return {
        "buy_bps": None if buy is None else float((buy / centre - 1) * 10_000),
        "sell_bps": None if sell is None else float((1 - sell / centre) * 10_000),
    }


# -- the formulas ----------------------------------------------------------------------------------


def test_mid_spread_and_spread_in_basis_points() -> None:
    assert 100.0 == mid(99.0, 101.0)
    assert (2.0, 100.0) == BookRounding().spread_and_mid(99.0, 101.0)
    assert 200.0 == spread_bps(99.0, 101.0)


def test_the_weighted_mid_leans_towards_the_thinner_side() -> None:
    assert 100.5 == BookRounding().weighted_mid((99.0, 3.0), (101.0, 1.0))
    assert 100.0 == BookRounding().weighted_mid((99.0, 1.0), (101.0, 1.0))


@pytest.mark.parametrize(
    ("bid", "ask"),
    [((99.0, 0.0), (101.0, 1.0)), ((99.0, 1.0), (101.0, -1.0)), ((101.0, 1.0), (101.0, 1.0))],
)
def test_the_weighted_mid_rejects_levels_of_no_valid_book(bid: Level, ask: Level) -> None:
    with pytest.raises(ValueError, match="not the best levels"):
        BookRounding().weighted_mid(bid, ask)


@pytest.mark.parametrize(
    ("bid", "ask", "expected"),
    [(1.0, 1.0, 0.0), (3.0, 1.0, 0.5), (0.0, 2.0, -1.0), (2.0, 0.0, 1.0), (0.0, 0.0, None)],
)
def test_imbalance_is_positive_with_more_bids(
    bid: float, ask: float, expected: float | None
) -> None:
    assert expected == imbalance(bid, ask)


@pytest.mark.parametrize(
    ("number", "text"), [(1, "1"), (10, "10"), (2.5, "2.5"), (10.0, "10"), (100_000.0, "100000")]
)
def test_map_keys_are_plain_numbers(number: float, text: str) -> None:
    assert text == key_of(number)


# -- the measures of a book ------------------------------------------------------------------------


def test_the_measures_of_a_small_book_are_those_computed_by_hand() -> None:
    book = live([(99.9, 1.0), (99.5, 2.0), (98.0, 10.0)], [(100.1, 2.0), (100.6, 4.0)])
    settings = OrderbookConfig(
        publish_levels=2, imbalance_levels=(1, 2), depth_bps=(10, 60), impact_notionals=(300.3,)
    )
    measures = measured(BookMeasures(settings, "linear"), book)
    assert (99.9, 1.0) == (measures["best_bid"], measures["best_bid_size"])
    assert (100.1, 2.0) == (measures["best_ask"], measures["best_ask_size"])
    assert 100.0 == measures["mid_price"]
    assert 0.2 == measures["spread"]
    assert close(20.0) == measures["spread_bps"]
    assert 99.9667 == measures["weighted_mid"], "a thousandth of a tick"
    assert {"1": close(-1 / 3), "2": close(-1 / 3)} == measures["imbalance"]
    assert [[99.9, 1.0], [99.5, 2.0]] == measures["bids"]
    assert [[100.1, 2.0], [100.6, 4.0]] == measures["asks"]
    # 99.9 and 100.1 lie exactly at 10 bps and are inside
    assert {
        "bid": 1.0,
        "ask": 2.0,
        "bid_notional": close(99.9),
        "ask_notional": close(200.2),
        "bid_complete": True,
        "ask_complete": True,
    } == measures["depth"]["10"]
    assert {
        "bid": 3.0,
        "ask": 6.0,
        "bid_notional": close(298.9),
        "ask_notional": close(602.6),
        "bid_complete": True,
        "ask_complete": True,
    } == measures["depth"]["60"]
    # buying takes 2 at 100.1 and the rest of 100.1 quote at 100.6
    base = 2 + (300.3 - 200.2) / 100.6
    assert close((300.3 / base / 100 - 1) * 10_000) == measures["impact"]["300.3"]["buy_bps"]
    assert measures["ofi"] is None


def test_an_empty_configuration_computes_no_maps_and_no_levels() -> None:
    settings = OrderbookConfig(
        publish_levels=0, imbalance_levels=(), depth_bps=(), impact_notionals=()
    )
    measures = measured(BookMeasures(settings, "linear"), live([(99.0, 1.0)], [(101.0, 1.0)]))
    assert ({}, {}, {}) == (measures["imbalance"], measures["depth"], measures["impact"])
    assert ([], []) == (measures["bids"], measures["asks"])
    assert 99.0 == measures["best_bid"]


@pytest.mark.parametrize("is_bid", [True, False])
def test_a_one_sided_book_has_no_mid_and_nothing_that_needs_one(is_bid: bool) -> None:
    levels = [(100.0, 1.0)]
    book = live(levels, []) if is_bid else live([], levels)
    measures = measured(BookMeasures(CONFIG, "option"), book)
    for name in ("mid_price", "spread", "spread_bps", "weighted_mid", "depth", "impact"):
        assert measures[name] is None
    assert 100.0 == measures["best_bid" if is_bid else "best_ask"]
    assert measures["best_ask" if is_bid else "best_bid"] is None
    assert (1.0 if is_bid else -1.0) == measures["imbalance"]["1"]


def test_an_empty_book_has_no_numbers_at_all() -> None:
    measures = measured(BookMeasures(CONFIG, "option"), live([], []))
    assert dict.fromkeys(("1", "5", "10", "50")) == measures["imbalance"]
    empty = MEASURES - {"imbalance", "update_id", "sequence"}
    assert not [name for name in empty if measures[name] not in (None, [])]


def test_on_inverse_the_size_is_the_notional() -> None:
    book = live([(99.9, 1000.0)], [(100.1, 500.0), (100.2, 500.0)])
    settings = OrderbookConfig(depth_bps=(100,), impact_notionals=(600,))
    measures = measured(BookMeasures(settings, "inverse"), book)
    assert {
        "bid": 1000.0,
        "ask": 1000.0,
        "bid_notional": 1000.0,
        "ask_notional": 1000.0,
        "bid_complete": True,
        "ask_complete": True,
    } == measures["depth"]["100"]
    average = 600 / (500 / 100.1 + 100 / 100.2)
    assert close((average / 100 - 1) * 10_000) == measures["impact"]["600"]["buy_bps"]


def test_impact_beyond_the_visible_book_is_none_and_at_its_end_is_not() -> None:
    book = live([(100.0, 1.0)], [(101.0, 1.0)])
    settings = OrderbookConfig(impact_notionals=(100.0, 101.0, 101.5))
    measures = measured(BookMeasures(settings, "linear"), book)["impact"]
    assert measures["100"]["sell_bps"] is not None
    assert measures["101"]["sell_bps"] is None
    assert close((101 / 100.5 - 1) * 10_000) == measures["101"]["buy_bps"]
    assert {"buy_bps": None, "sell_bps": None} == measures["101.5"]


def test_a_band_beyond_the_visible_book_is_flagged_as_not_complete() -> None:
    book = live([(99.9, 1.0), (99.8, 1.0)], [(100.1, 1.0)], depth=2)
    settings = OrderbookConfig(depth_bps=(15, 20, 100))
    depth = measured(BookMeasures(settings, "linear"), book)["depth"]
    assert [True, False, False] == [depth[bps]["bid_complete"] for bps in ("15", "20", "100")]
    assert all(band["ask_complete"] for band in depth.values()), "every ask is visible"


def test_there_is_no_imbalance_of_more_levels_than_the_stream_has() -> None:
    book = live([(99.9, 1.0)], [(100.1, 3.0)], depth=1)
    measures = measured(BookMeasures(OrderbookConfig(imbalance_levels=(1, 5)), "linear"), book)
    assert {"1": -0.5, "5": None} == measures["imbalance"]


TICKS = st.integers(1, 400)
SIZES = st.integers(1, 10**6).map(lambda lots: lots / 1000)


@st.composite
def books(draw: st.DrawFn) -> tuple[list[Level], list[Level]]:
    best = draw(st.integers(500, 100_000))
    steps = st.dictionaries(TICKS, SIZES, min_size=1, max_size=40)
    bids = {round((best - step) / 100, 2): size for step, size in draw(steps).items()}
    asks = {round((best + step) / 100, 2): size for step, size in draw(steps).items()}
    return sorted(bids.items(), reverse=True), sorted(asks.items())


@given(books(), st.sampled_from(["linear", "inverse"]))
@settings(max_examples=150, deadline=None)
def test_the_measures_of_any_book_equal_the_slow_formulas(
    sides: tuple[list[Level], list[Level]], category: Category
) -> None:
    bids, asks = sides
    measures = measured(BookMeasures(CONFIG, category), live(bids, asks))
    check_against_slow(measures, bids, asks, category, depth=50)


def check_against_slow(
    measures: dict[str, Any],
    bids: list[Level],
    asks: list[Level],
    category: Category,
    *,
    depth: int,
) -> None:
    for levels in CONFIG.imbalance_levels:
        expected = slow_imbalance(bids, asks, levels)
        assert close(expected) == measures["imbalance"][str(levels)]
    for bps in CONFIG.depth_bps:
        expected_depth = slow_depth(bids, asks, bps, category, depth)
        assert close(expected_depth) == measures["depth"][key_of(bps)]
    for notional in CONFIG.impact_notionals:
        expected_impact = slow_impact(bids, asks, notional, category)
        assert close(expected_impact) == measures["impact"][key_of(notional)]
    assert [list(level) for level in bids[:10]] == measures["bids"]
    assert [list(level) for level in asks[:10]] == measures["asks"]


@pytest.mark.parametrize(
    "name", ["linear_20260809_ob200_BTC_SOL.jsonl", "spot_20260809_ob200_ETH.jsonl"]
)
def test_the_measures_of_captured_books_equal_the_slow_formulas(captures: Path, name: str) -> None:
    books: dict[str, OrderBook] = {}
    measures = BookMeasures(CONFIG, "linear")
    checked = 0
    for number, raw in enumerate(read_capture(captures / name)):
        if raw["topic"].startswith("orderbook."):
            book = books.setdefault(raw["data"]["s"], OrderBook(200))
            book.apply(recorded_book(raw))
            if number % 40 == 0:
                check_against_slow(
                    measured(measures, book), book.bids(), book.asks(), "linear", depth=200
                )
                checked += 1
    assert checked > 3


# -- order flow imbalance --------------------------------------------------------------------------

State = tuple[float, float, float, float]


def flow_of(*states: State) -> float | None:
    flow = OrderFlow()
    for state in states:
        flow.add(*state)
    return flow.take()


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ((100.0, 5.0, 101.0, 7.0), 0.0),
        ((100.0, 8.0, 101.0, 7.0), 3.0),  # more at the bid
        ((100.0, 1.0, 101.0, 7.0), -4.0),  # less at the bid
        ((100.0, 5.0, 101.0, 9.0), -2.0),  # more at the ask
        ((100.5, 2.0, 101.0, 7.0), 2.0),  # a better bid
        ((99.5, 2.0, 101.0, 7.0), -5.0),  # the bid is gone
        ((100.0, 5.0, 100.5, 3.0), -3.0),  # a better ask
        ((100.0, 5.0, 101.5, 3.0), 7.0),  # the ask is gone
        ((0.0, 0.0, 101.0, 7.0), -5.0),  # no bid left
        ((100.0, 5.0, inf, 0.0), 7.0),  # no ask left
    ],
)
def test_order_flow_counts_each_kind_of_change_of_the_best_levels(
    after: State, expected: float
) -> None:
    assert expected == flow_of((100.0, 5.0, 101.0, 7.0), after)


def test_order_flow_adds_up_over_an_interval_and_restarts_with_the_next() -> None:
    flow = OrderFlow()
    assert flow.take() is None
    for bid_size in (5.0, 6.0, 8.0):
        flow.add(100.0, bid_size, 101.0, 7.0)
    assert 3.0 == flow.take()
    assert 0.0 == flow.take()
    flow.add(100.0, 10.0, 101.0, 7.0)
    assert 2.0 == flow.take()


def test_order_flow_never_spans_an_invalid_book() -> None:
    flow = OrderFlow()
    flow.add(100.0, 5.0, 101.0, 7.0)
    flow.reset()
    assert flow.take() is None
    flow.add(200.0, 5.0, 201.0, 7.0)
    assert 0.0 == flow.take()


def test_the_measures_read_the_book_after_a_delta() -> None:
    book = live([(99.0, 1.0)], [(101.0, 1.0)])
    book.apply(delta(11, bids=[(100.0, 3.0)], asks=[(101.0, 0.0), (102.0, 1.0)]))
    measures = measured(BookMeasures(CONFIG, "linear"), book)
    assert (101.0, 0.5) == (measures["mid_price"], measures["imbalance"]["1"])
