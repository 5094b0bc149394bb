"""The load: every frame decodes, no book has a gap, and rounds join."""

from collections.abc import Iterator

import pytest

from bybit_pipeline.processes.connector.protocol import BookUpdate, TradeBatch, decode
from bybit_pipeline.processes.orderbook.book import OrderBook
from bybit_pipeline.shared.wire.messages import BookMessage
from scripts.benchmarks.load import DEPTH, Frame, Load, LoadSpec, make_load
from scripts.benchmarks.load_server import FrameBuffer, load_spec

NOW_MS = b"1791365008335"


def payload(frame: bytes) -> bytes:
    """Return the payload of a websocket frame, and check the length in its header."""
    short = frame[1]
    assert frame[0] == 0x81
    size, start = (short, 2) if short < 126 else (int.from_bytes(frame[2:4], "big"), 4)
    assert len(frame) == start + size
    return frame[start:]


def books(load: Load) -> dict[str, OrderBook]:
    """Return the books of a load after their snapshots."""
    held = {symbol: OrderBook(DEPTH) for symbol in load.symbols}
    for symbol, frame in load.snapshots.items():
        held[symbol].apply(message(payload(frame)))
    return held


def message(text: bytes) -> BookMessage:
    """Return a book message as the orderbook worker receives it."""
    update = decode(text, "linear", 0)
    assert isinstance(update, BookUpdate)
    return update.record("live", 1, 1)


def sent(load: Load, turn: int) -> Iterator[tuple[Frame, bytes]]:
    """Yield the frames of one round as the load server sends them."""
    laid = FrameBuffer.of(list(enumerate(load.frames)))
    laid.write_round(turn, 0, len(load.frames))
    laid.write_time(0, len(load.frames), NOW_MS)
    for frame, start, end in zip(load.frames, laid.starts, laid.ends, strict=True):
        yield frame, payload(bytes(laid.buffer[start:end]))


def test_seven_of_ten_messages_are_book_deltas_and_frames_have_about_370_bytes() -> None:
    load = make_load(LoadSpec(symbols=10, messages=5_000))
    assert 0.67 < load.books / len(load.frames) < 0.73
    assert 330 < load.mean_bytes < 410


def test_every_book_is_without_a_gap_and_ends_at_the_expected_touch() -> None:
    load = make_load(LoadSpec(symbols=10, messages=5_000))
    held = books(load)
    for frame, text in sent(load, 0):
        if frame.is_book:
            held[frame.symbol].apply(message(text))
    for symbol, book in held.items():
        assert book.best_bid is not None
        assert book.best_ask is not None
        assert load.touches[symbol] == (book.best_bid[0], book.best_ask[0])
        assert (DEPTH, DEPTH) == (len(book.bids()), len(book.asks()))
        assert book.absent_deletes == 0


def test_deltas_insert_update_and_delete_levels_and_move_the_touch() -> None:
    load = make_load(LoadSpec(symbols=1, messages=2_000))
    book = books(load)[load.symbols[0]]
    seen, touches = set(), set()
    for frame, text in sent(load, 0):
        if frame.is_book:
            update = message(text)
            for price, size in update.bids:
                known = price in book.bid_side.sizes
                seen.add("delete" if not size else "update" if known else "insert")
            book.apply(update)
            touches.add(book.best_bid)
    assert {"insert", "update", "delete"} == seen
    assert len({touch[0] for touch in touches if touch}) > 5


def test_rounds_join_without_a_gap() -> None:
    load = make_load(LoadSpec(symbols=3, messages=600, is_round=True))
    held = books(load)
    for turn in range(3):
        for frame, text in sent(load, turn):
            if frame.is_book:
                held[frame.symbol].apply(message(text))
    assert all(book.is_live for book in held.values())


def test_trade_ids_are_unique_and_sequences_grow() -> None:
    load = make_load(LoadSpec(symbols=2, messages=400, is_round=True))
    ids: list[str] = []
    last = dict.fromkeys(load.symbols, 0)
    for turn in range(3):
        for frame, text in sent(load, turn):
            if frame.is_book:
                continue
            decoded = decode(text, "linear", 0)
            assert isinstance(decoded, list)
            assert isinstance(decoded[0], TradeBatch)
            for trade in decoded[0].trades:
                assert trade.sequence is not None
                assert trade.sequence > last[frame.symbol]
                last[frame.symbol] = trade.sequence
                ids.append(trade.trade_id)
    assert len(set(ids)) == len(ids) == load.trades * 3


def test_all_times_of_a_frame_are_its_sending_time() -> None:
    load = make_load(LoadSpec(symbols=2, messages=200))
    for frame, text in sent(load, 0):
        decoded = decode(text, "linear", 0)
        if frame.is_book:
            assert isinstance(decoded, BookUpdate)
            assert {int(NOW_MS)} == {decoded.exchange_ts_ms, decoded.match_ts_ms}
        else:
            assert isinstance(decoded, list)
            assert isinstance(decoded[0], TradeBatch)
            assert {int(NOW_MS)} == {trade.match_ts_ms for trade in decoded[0].trades}


def test_the_same_specification_gives_the_same_bytes() -> None:
    spec = LoadSpec(symbols=4, messages=100, seed=7)
    one, other = make_load(spec), make_load(spec)
    assert [frame.data for frame in one.frames] == [frame.data for frame in other.frames]


def test_a_round_needs_a_message_for_every_book() -> None:
    with pytest.raises(ValueError, match="cannot restore"):
        make_load(LoadSpec(symbols=10, messages=10, is_round=True))


@pytest.mark.parametrize(
    ("messages", "spec"),
    [
        (300, LoadSpec(symbols=3, messages=300, seed=7)),
        (900, LoadSpec(symbols=3, messages=400, seed=7, is_round=True)),
    ],
)
def test_a_load_longer_than_a_round_repeats_rounds(messages: int, spec: LoadSpec) -> None:
    assert load_spec(3, messages, 400, 7) == spec
