"""Published numbers are those that a person computes with decimals."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bybit_pipeline.processes.orderbook.book import OrderBook
from bybit_pipeline.processes.orderbook.manager import OrderBookManager
from bybit_pipeline.processes.orderbook.measures import BookMeasures
from bybit_pipeline.processes.orderbook.rounding import BookRounding
from bybit_pipeline.shared.settings.config import OrderbookConfig
from bybit_pipeline.shared.wire.messages import Category, Level
from tests.naive import read_capture
from tests.orderbook.build import delta, measured, recorded_book, snapshot

CONFIG = OrderbookConfig(depth_bps=(1.0, 10.0, 50.0, 1_000.0))
Decimals = list[tuple[Decimal, Decimal]]


def decimal(number: float) -> Decimal:
    return Decimal(repr(number))


def decimals(levels: list[Level]) -> Decimals:
    return [(decimal(price), decimal(size)) for price, size in levels]


def expected(book: OrderBook, tick: Decimal, category: Category) -> dict[str, Any]:
    """Return the rounded measures, computed with decimals."""
    bids, asks = decimals(book.bids()), decimals(book.asks())
    (bid, bid_size), (ask, ask_size) = bids[0], asks[0]
    mid = (bid + ask) / 2
    weighted = (bid * ask_size + ask * bid_size) / (bid_size + ask_size)
    depth: dict[str, dict[str, float]] = {}
    for bps in ("1", "10", "50", "1000"):
        reach = mid * Decimal(bps) / 10_000
        near = {
            "bid": [level for level in bids if level[0] >= mid - reach],
            "ask": [level for level in asks if level[0] <= mid + reach],
        }
        depth[bps] = {}
        for side, levels in near.items():
            notional = sum(
                (size if category == "inverse" else price * size for price, size in levels),
                Decimal(0),
            )
            depth[bps] |= {
                side: float(sum((size for _, size in levels), Decimal(0))),
                f"{side}_notional": float(notional),
            }
    return {
        "spread": float(ask - bid),
        "mid_price": float(mid),
        "weighted_mid": float(weighted.quantize(tick / 1_000)),
        "depth": depth,
    }


def published(measures: BookMeasures, book: OrderBook) -> dict[str, Any]:
    message = measured(measures, book)
    sums = ("bid", "ask", "bid_notional", "ask_notional")
    return {
        "spread": message["spread"],
        "mid_price": message["mid_price"],
        "weighted_mid": message["weighted_mid"],
        "depth": {
            key: {name: depth[name] for name in sums} for key, depth in message["depth"].items()
        },
    }


def test_the_spread_of_a_tick_is_a_tick() -> None:
    book = OrderBook(50)
    book.apply(snapshot(10, [(65104.0, 1.1), (65103.9, 2.2)], [(65104.1, 0.3)]))
    message = published(BookMeasures(CONFIG, "linear"), book)
    assert (0.1, 65104.05) == (message["spread"], message["mid_price"])
    assert 3.3 == message["depth"]["1"]["bid"]
    assert 1.1 + 2.2 != 3.3, "in floats"
    assert 65104.0 * 1.1 + 65103.9 * 2.2 != 214842.98
    assert 214842.98 == message["depth"]["1"]["bid_notional"]


PLACES = st.integers(0, 8)


@st.composite
def books(draw: st.DrawFn) -> tuple[Decimal, Decimal, list[Level], list[Level]]:
    """Draw a tick, a size step, and the levels of a book that use them."""
    tick = draw(st.sampled_from([1, 2, 5, 25])) * Decimal(10) ** -draw(PLACES)
    step = Decimal(10) ** -draw(PLACES)
    best = draw(st.integers(40, 2_000_000))
    sides: list[list[Level]] = []
    for direction in (-1, 1):
        distances = draw(st.lists(st.integers(0, 30), min_size=1, max_size=40, unique=True))
        lots = st.integers(1, draw(st.sampled_from([10, 10**4, 10**8])))
        sides.append(
            [
                (
                    float((best + direction * (distance + (direction > 0))) * tick),
                    float(draw(lots) * step),
                )
                for distance in sorted(distances)
            ]
        )
    bids, asks = sides
    return tick, step, bids, asks


@given(books(), st.sampled_from(["linear", "inverse", "option", "spot"]))
@settings(max_examples=300, deadline=None)
def test_measures_equal_decimals_for_any_tick_and_step(market: Any, category: Category) -> None:
    _, _, bids, asks = market
    book = OrderBook(50)
    book.apply(snapshot(10, bids, asks))
    prices = [decimal(price).normalize() for price, _ in [*bids, *asks]]
    place = Decimal(10) ** min(0, *(int(price.as_tuple().exponent) for price in prices))
    assert expected(book, place, category) == published(BookMeasures(CONFIG, category), book)


def test_a_weighted_mid_halfway_between_two_thousandths_is_rounded_to_even() -> None:
    """As a float, (42 * 0.131 + 122 * 0.125) / 0.256 = 81.0625 is a little more."""
    assert 81.062 == BookRounding().weighted_mid((42.0, 0.125), (122.0, 0.131))


@given(books(), st.integers(0, 4), st.integers(0, 4))
@settings(max_examples=200, deadline=None)
def test_more_decimals_may_appear_at_any_time(
    market: Any, price_places: int, size_places: int
) -> None:
    """A later message has more decimals of price and size than all before."""
    tick, step, bids, asks = market
    book, measures = OrderBook(50), BookMeasures(CONFIG, "linear")
    book.apply(snapshot(10, bids, asks))
    published(measures, book)
    finer = decimal(asks[0][0]) - tick * Decimal(10) ** -price_places / 2
    size = step * (1 + Decimal(10) ** -size_places)
    book.apply(delta(11, asks=[(float(finer), float(size))]))
    message = published(measures, book)
    assert float(finer - decimal(bids[0][0])) == message["spread"]
    exact = expected(book, tick, "linear")
    for name in ("spread", "mid_price", "depth"):
        assert exact[name] == message[name]


@pytest.mark.parametrize(
    ("name", "category", "ticks"),
    [
        ("linear_20260809_ob200_BTC_SOL.jsonl", "linear", {"BTCUSDT": "0.1", "SOLUSDT": "0.01"}),
        ("spot_20260809_ob200_ETH.jsonl", "spot", {"ETHUSDT": "0.01"}),
        ("linear_20241201_ob500_XRP.data", "linear", {"XRPUSDT": "0.0001"}),
    ],
)
def test_recorded_books_equal_decimals(
    captures: Path, name: str, category: Category, ticks: dict[str, str]
) -> None:
    books: dict[str, OrderBook] = {}
    measures = {symbol: BookMeasures(CONFIG, category) for symbol in ticks}
    compared = 0
    for raw in read_capture(captures / name):
        if raw["topic"].startswith("orderbook."):
            symbol, message = raw["data"]["s"], recorded_book(raw)
            book = books.setdefault(symbol, OrderBook(message.depth))
            book.apply(message)
            if message.update_id % 5 == 0:
                exact = expected(book, Decimal(ticks[symbol]), category)
                assert exact == published(measures[symbol], book)
                compared += 1
    assert compared >= 9


def test_sums_beyond_the_precision_of_floats_are_the_nearest_float() -> None:
    bids = [(round(65000 - step / 100, 2), 123.456789 + step / 10**6) for step in range(200)]
    bids = [(price, round(size, 6)) for price, size in bids]
    book = OrderBook(200)
    book.apply(snapshot(10, bids, [(65000.01, 1.0)], depth=200))
    exact = expected(book, Decimal("0.01"), "spot")
    assert exact == published(BookMeasures(CONFIG, "spot"), book)


def test_order_flow_has_no_noise() -> None:
    rounding = BookRounding()
    rounding.learn([(65000.1, 0.001)])
    assert 0.3 == rounding.flow(0.1 + 0.2)
    assert -0.301 == rounding.flow(-0.1 - 0.2 - 0.001)
    assert 0.0 == rounding.flow(0.1 + 0.2 - 0.3)
    assert 0.12345 == rounding.flow(0.12345), "more decimals than the book has now"
    assert 1 / 3 == rounding.flow(1 / 3), "no decimal of fewer than 16 digits"


def test_the_getters_return_the_same_numbers() -> None:
    manager = OrderBookManager()
    manager.subscribe("BTCUSDT")
    bids, asks = [(0.3, 0.1), (0.2, 0.2), (0.1, 0.3)], [(0.4, 0.1), (0.5, 0.7), (0.6, 0.1)]
    manager.apply("BTCUSDT", snapshot(10, bids, asks))
    book = manager.get_snapshot("BTCUSDT")
    assert book is not None
    assert 0.35 == book.mid_price
    assert 0.6 == manager.get_aggregated_depth("BTCUSDT", "bid", 10_000)
    assert 0.9 == manager.get_aggregated_depth("BTCUSDT", "ask", 10_000)
