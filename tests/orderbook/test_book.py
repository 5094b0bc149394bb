"""The book follows Bybit's rules, and rejects every message that invalidates it."""

from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bybit_pipeline.processes.orderbook.book import (
    BadLevels,
    BookError,
    CrossedBook,
    Desync,
    DuplicateUpdate,
    NoSnapshot,
    OrderBook,
    SequenceGap,
    TooDeep,
    WrongDepth,
)
from bybit_pipeline.shared.wire.messages import BookMessage
from tests.naive import NaiveBook, read_capture
from tests.orderbook.build import ASKS, BIDS, delta, recorded_book, snapshot


def live_book(depth: int = 50, **fields: Any) -> OrderBook:
    book = OrderBook(depth)
    book.apply(snapshot(10, depth=depth, **fields))
    return book


def test_a_new_book_is_not_live_and_reads_as_empty() -> None:
    book = OrderBook(50)
    assert not book.is_live
    assert ([], [], None, None) == (book.bids(), book.asks(), book.best_bid, book.best_ask)


def test_a_snapshot_makes_the_book_live_best_levels_first() -> None:
    book = live_book()
    assert book.is_live
    assert 10 == book.update_id
    assert list(BIDS) == book.bids()
    assert list(ASKS) == book.asks()
    assert (100.0, 1.0) == book.best_bid
    assert (100.5, 3.0) == book.best_ask


def test_a_delta_inserts_replaces_and_deletes_levels() -> None:
    book = live_book()
    book.apply(delta(11, bids=[(99.5, 9.0), (99.7, 1.5), (99.0, 0.0)], asks=[(100.5, 0.0)]))
    assert [(100.0, 1.0), (99.7, 1.5), (99.5, 9.0)] == book.bids()
    assert [(101.0, 5.0), (102.0, 7.0)] == book.asks()
    assert (101.0, 5.0) == book.best_ask
    assert 11 == book.update_id


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (2, 2), (3, 3), (99, 3)])
def test_up_to_count_levels_are_read(count: int, expected: int) -> None:
    book = live_book()
    assert book.bids(count) == list(BIDS[:expected])
    assert book.asks(count) == list(ASKS[:expected])


def test_a_deletion_of_an_absent_price_is_tolerated_and_counted() -> None:
    book = live_book()
    book.apply(delta(11, bids=[(98.0, 0.0)], asks=[(103.0, 0.0)]))
    assert list(BIDS) == book.bids()
    assert 2 == book.absent_deletes


def test_an_empty_delta_only_advances_the_update_id() -> None:
    book = live_book()
    book.apply(delta(11))
    assert (list(BIDS), list(ASKS), 11) == (book.bids(), book.asks(), book.update_id)


@pytest.mark.parametrize("update_id", [1, 2, 10, 999])
def test_a_snapshot_replaces_the_book_at_any_time_whatever_its_number(update_id: int) -> None:
    book = live_book()
    book.apply(snapshot(update_id, bids=[(50.0, 1.0)], asks=[(51.0, 1.0)]))
    book.apply(delta(update_id + 1, bids=[(50.0, 2.0)]))
    assert [(50.0, 2.0)] == book.bids()
    assert [(51.0, 1.0)] == book.asks()


@pytest.mark.parametrize(("bids", "asks"), [([], []), ([(100.0, 1.0)], []), ([], [(100.0, 1.0)])])
def test_empty_sides_are_books_too(bids: Any, asks: Any) -> None:
    book = OrderBook(25)
    book.apply(snapshot(0, bids, asks, depth=25))
    assert (book.is_live, book.bids(), book.asks()) == (True, bids, asks)


def test_a_missing_update_is_a_gap_that_names_both_numbers() -> None:
    book = live_book()
    with pytest.raises(SequenceGap, match="expected update 11, received 13") as caught:
        book.apply(delta(13))
    assert (11, 13) == (caught.value.expected, caught.value.received)


@pytest.mark.parametrize("update_id", [10, 9, 2])
def test_an_update_that_is_not_newer_is_a_duplicate(update_id: int) -> None:
    with pytest.raises(DuplicateUpdate) as caught:
        live_book().apply(delta(update_id))
    assert (caught.value.last, caught.value.received) == (10, update_id)


def test_a_delta_with_update_id_one_is_a_desync() -> None:
    with pytest.raises(Desync):
        live_book().apply(delta(1))


def test_a_delta_with_update_id_one_is_a_desync_even_after_zero() -> None:
    book = OrderBook(50)
    book.apply(snapshot(0))
    with pytest.raises(Desync):
        book.apply(delta(1))


def test_a_delta_before_any_snapshot_is_rejected() -> None:
    with pytest.raises(NoSnapshot):
        OrderBook(50).apply(delta(11))


@pytest.mark.parametrize("price", [100.5, 100.6])
def test_a_locked_or_crossed_book_is_rejected(price: float) -> None:
    with pytest.raises(CrossedBook) as caught:
        live_book().apply(delta(11, bids=[(price, 1.0)]))
    assert (caught.value.bid, caught.value.ask) == (price, 100.5)


def test_a_crossed_snapshot_is_rejected() -> None:
    with pytest.raises(CrossedBook):
        OrderBook(50).apply(snapshot(10, bids=[(101.0, 1.0)], asks=[(100.0, 1.0)]))


@pytest.mark.parametrize("is_bid", [True, False])
def test_more_levels_than_the_depth_are_rejected(is_bid: bool) -> None:
    book = live_book(depth=3)
    levels = [(98.0 if is_bid else 103.0, 1.0)]
    message = delta(11, levels, depth=3) if is_bid else delta(11, (), levels, depth=3)
    with pytest.raises(TooDeep) as caught:
        book.apply(message)
    assert (caught.value.side, caught.value.levels) == ("bid" if is_bid else "ask", 4)


def test_a_snapshot_deeper_than_the_stream_is_rejected() -> None:
    with pytest.raises(TooDeep):
        OrderBook(2).apply(snapshot(10, depth=2))


@pytest.mark.parametrize("message", [snapshot(10, depth=200), delta(11, depth=200)])
def test_a_message_of_another_depth_is_rejected(message: BookMessage) -> None:
    with pytest.raises(WrongDepth):
        live_book().apply(message)


BAD_SNAPSHOT_BIDS: dict[str, Any] = {
    "a price twice": [(100.0, 1.0), (100.0, 2.0)],
    "unsorted": [(99.0, 1.0), (100.0, 1.0)],
    "zero size": [(100.0, 0.0)],
    "negative size": [(100.0, -1.0)],
    "size not a number": [(100.0, nan)],
    "infinite size": [(100.0, inf)],
    "zero price": [(0.0, 1.0)],
    "negative price": [(-1.0, 1.0)],
    "price not a number": [(nan, 1.0)],
    "infinite price": [(inf, 1.0)],
    "text": [("100", "1")],
    "three numbers": [(100.0, 1.0, 1.0)],
    "no pair": [100.0],
}


@pytest.mark.parametrize("bids", BAD_SNAPSHOT_BIDS.values(), ids=BAD_SNAPSHOT_BIDS)
def test_malformed_levels_of_a_snapshot_are_rejected(bids: Any) -> None:
    book = OrderBook(50)
    with pytest.raises(BadLevels):
        book.apply(snapshot(10, bids=bids))
    assert not book.is_live


@pytest.mark.parametrize(
    "levels",
    [
        [(100.0, -1.0)],
        [(100.0, nan)],
        [(100.0, inf)],
        [(99.9, -1.0)],
        [(99.9, nan)],
        [(nan, 1.0)],
        [(inf, 1.0)],
        [(-1.0, 1.0)],
        [(0.0, 1.0)],
        [(nan, 0.0)],
        [("1", 1.0)],
        [(99.9, "1")],
        [(99.9,)],
        [99.9],
        [(99.9, None)],
    ],
)
def test_malformed_levels_of_a_delta_are_rejected(levels: Any) -> None:
    book = live_book()
    with pytest.raises(BadLevels):
        book.apply(delta(11, bids=levels))
    assert not book.is_live


@pytest.mark.parametrize(
    "message",
    [
        delta(13),
        delta(10),
        delta(1),
        delta(11, bids=[(200.0, 1.0)]),
        delta(11, bids=[(99.9, -1.0)]),
        snapshot(10, bids=[(100.0, -1.0)]),
        snapshot(10, depth=1),
    ],
)
def test_a_book_that_raised_stays_empty_until_the_next_snapshot(message: BookMessage) -> None:
    book = live_book()
    with pytest.raises(BookError):
        book.apply(message)
    assert not book.is_live
    assert ([], [], None, None) == (book.bids(), book.asks(), book.best_bid, book.best_ask)
    with pytest.raises(NoSnapshot):
        book.apply(delta(11))
    book.apply(snapshot(20))
    assert book.is_live
    assert list(BIDS) == book.bids()


def test_an_unexpected_error_leaves_the_book_not_live() -> None:
    book = live_book()
    with pytest.raises(AttributeError):
        book.apply(None)  # type: ignore[arg-type]
    assert not book.is_live


def test_the_last_good_message_is_kept_when_the_book_is_invalidated() -> None:
    book = live_book()
    with pytest.raises(SequenceGap):
        book.apply(delta(13))
    assert book.last is not None
    assert 10 == book.last.update_id


def test_depth_one_accepts_snapshots_in_any_order_of_numbers() -> None:
    book = OrderBook(1)
    for update_id, price in ((7, 100.0), (9, 100.1), (9, 100.1), (1, 100.2)):
        book.apply(snapshot(update_id, [(price, 1.0)], [(100.5, 1.0)], depth=1))
        assert book.best_bid == (price, 1.0)
        assert book.update_id == update_id


def test_depth_one_applies_contiguous_deltas_of_older_captures() -> None:
    book = OrderBook(1)
    book.apply(snapshot(7, [(100.0, 1.0)], [(100.5, 1.0)], depth=1))
    book.apply(delta(8, [(100.0, 0.0), (99.5, 2.0)], depth=1))  # one price replaces another
    assert ((99.5, 2.0), (100.5, 1.0)) == (book.best_bid, book.best_ask)
    book.apply(delta(9, asks=[(100.5, 4.0)], depth=1))
    assert (100.5, 4.0) == book.best_ask
    book.apply(delta(10, asks=[(100.5, 0.0)], depth=1))  # nobody offers any more
    assert book.best_ask is None
    assert book.is_live


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (delta(9, [(100.0, 2.0)], depth=1), SequenceGap),
        (delta(7, [(100.0, 2.0)], depth=1), DuplicateUpdate),
        (delta(1, [(100.0, 2.0)], depth=1), Desync),
        (delta(8, [(99.5, 2.0)], depth=1), TooDeep),
        (delta(8, [(100.0, 0.0), (100.6, 2.0)], depth=1), CrossedBook),
    ],
)
def test_depth_one_rejects_other_deltas(message: BookMessage, error: type[BookError]) -> None:
    book = OrderBook(1)
    book.apply(snapshot(7, [(100.0, 1.0)], [(100.5, 1.0)], depth=1))
    with pytest.raises(error):
        book.apply(message)
    assert not book.is_live


CAPTURED_BOOKS = {
    "linear_20260809_ob200_BTC_SOL.jsonl": 797,
    "spot_20260809_ob200_ETH.jsonl": 250,
    "linear_20241201_ob500_XRP.data": 50,
    "linear_20250613_ob1_4symbols.jsonl": 198,
}


@pytest.mark.parametrize("name", CAPTURED_BOOKS)
def test_the_book_equals_the_naive_model_after_every_captured_message(
    captures: Path, name: str
) -> None:
    books: dict[str, OrderBook] = {}
    models: dict[str, NaiveBook] = {}
    messages = 0
    for raw in read_capture(captures / name):
        if not raw["topic"].startswith("orderbook."):
            continue
        message, symbol = recorded_book(raw), raw["data"]["s"]
        book = books.setdefault(symbol, OrderBook(message.depth))
        model = models.setdefault(symbol, NaiveBook())
        book.apply(message)
        model.apply(raw)
        bids, asks = model.best(message.depth)
        assert [list(level) for level in book.bids()] == bids
        assert [list(level) for level in book.asks()] == asks
        assert 0 == book.absent_deletes
        messages += 1
    assert CAPTURED_BOOKS[name] == messages


# -- against the model -----------------------------------------------------------------------------

BID_PRICES = st.integers(90, 100).map(float)
ASK_PRICES = st.integers(100, 110).map(float)
SIZES = st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.5, 1e-8, 1e9])


def side(prices: st.SearchStrategy[float], descending: bool) -> st.SearchStrategy[Any]:
    sizes = SIZES.filter(bool)
    levels = st.dictionaries(prices, sizes, max_size=8)
    return levels.map(lambda found: sorted(found.items(), reverse=descending))


def changes(prices: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    return st.lists(st.tuples(prices, SIZES), max_size=6)


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("snapshot"),
            side(BID_PRICES, True),
            side(ASK_PRICES, False),
            st.integers(1, 1000),
        ),
        st.tuples(
            st.sampled_from(["delta"] * 12 + ["skip", "repeat"]),
            changes(BID_PRICES),
            changes(ASK_PRICES),
            st.just(0),
        ),
    ),
    min_size=1,
    max_size=40,
)


@given(STEPS)
@settings(max_examples=300, deadline=None)
def test_any_run_of_messages_leaves_the_book_equal_to_the_model_or_not_live(steps: Any) -> None:
    depth = 8
    book, model = OrderBook(depth), NaiveBook()
    update_id = 100
    for kind, bids, asks, number in steps:
        was_live = book.is_live
        if kind == "snapshot":
            update_id = number
        else:
            update_id += {"delta": 1, "skip": 3, "repeat": 0}[kind]
        is_snapshot = kind == "snapshot"
        fields = {"depth": depth}
        message = (
            snapshot(update_id, bids, asks, **fields)
            if is_snapshot
            else delta(update_id, bids, asks, **fields)
        )
        raw = {"type": kind, "data": {"b": bids, "a": asks, "u": update_id}}
        model.apply(raw)
        is_crossed = bool(model.bids and model.asks) and max(model.bids) >= min(model.asks)
        is_too_deep = max(len(model.bids), len(model.asks)) > depth
        is_next = is_snapshot or (was_live and kind == "delta" and update_id != 1)
        try:
            book.apply(message)
        except BookError:
            assert is_crossed or is_too_deep or not is_next
            assert not book.is_live
            assert [] == book.bids()
            continue
        assert is_next
        assert not is_crossed
        assert not is_too_deep
        expected_bids, expected_asks = model.best(depth)
        assert expected_bids == [list(level) for level in book.bids()]
        assert expected_asks == [list(level) for level in book.asks()]
        best_bid = (max(model.bids), model.bids[max(model.bids)]) if model.bids else None
        best_ask = (min(model.asks), model.asks[min(model.asks)]) if model.asks else None
        assert (book.best_bid, book.best_ask) == (best_bid, best_ask)
