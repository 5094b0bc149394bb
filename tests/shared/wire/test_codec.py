"""Records and payloads are the same after the wire; all other bytes raise ``CodecError``."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bybit_pipeline.shared.errors import CodecError
from bybit_pipeline.shared.wire.codec import decode_map, decode_market, encode_map, encode_record
from bybit_pipeline.shared.wire.messages import BookMessage, LinkMessage, Trade, TradesMessage
from bybit_pipeline.shared.wire.topics import link_topic, market_topic

numbers = st.floats(min_value=0, max_value=1e15, allow_nan=False)
integers = st.integers(min_value=0, max_value=2**62)
levels = st.lists(st.tuples(numbers, numbers), max_size=20).map(tuple)
trades = st.lists(
    st.builds(
        Trade,
        match_ts_ms=integers,
        side=st.sampled_from(["Buy", "Sell"]),
        price=numbers,
        size=numbers,
        trade_id=st.text(max_size=40),
        sequence=st.none() | integers,
        is_block=st.booleans(),
        is_rpi=st.booleans(),
    ),
    max_size=5,
).map(tuple)
header = {
    "schema_version": st.just(1),
    "source": st.sampled_from(["live", "sim", "replay"]),
    "session": integers,
    "bus_sequence": integers,
    "recv_ts_ns": integers,
}


@given(st.builds(TradesMessage, **header, exchange_ts_ms=integers, trades=trades))
def test_trades_are_the_same_after_the_wire(message: TradesMessage) -> None:
    topic = market_topic("trade", "linear", "BTCUSDT")
    received_topic, received = decode_market(topic + encode_record(message))
    assert (topic, message) == (received_topic, received)
    assert isinstance(received, TradesMessage)
    assert all(isinstance(trade, Trade) for trade in received.trades)


@given(
    st.builds(
        BookMessage,
        **header,
        exchange_ts_ms=integers,
        match_ts_ms=st.none() | integers,
        is_snapshot=st.booleans(),
        depth=st.sampled_from([1, 50, 200, 1000]),
        update_id=integers,
        sequence=st.none() | integers,
        bids=levels,
        asks=levels,
    )
)
def test_a_book_is_the_same_after_the_wire(message: BookMessage) -> None:
    topic = market_topic("book", "option", "BTC-30OCT26-0.4-P-USDT")
    assert (topic, message) == decode_market(topic + encode_record(message))


def test_a_link_message_is_the_same_after_the_wire() -> None:
    message = LinkMessage(1, "sim", 7, 1, 5, "subscribed", "", ("trade.linear.BTCUSDT",))
    topic = link_topic("connector-linear-0")
    assert (topic, message) == decode_market(topic + encode_record(message))


def test_an_unknown_schema_version_is_rejected() -> None:
    fields = [2, "sim", 7, 1, 5, "connected", "", []]
    with pytest.raises(CodecError, match=r"Invalid enum value 2 - at `\$\[0\]`"):
        decode_market(b"link.c\x00" + msgpack.packb(fields))


@pytest.mark.parametrize(
    ("field", "value"), [(1, "test"), (2, "7"), (3, 1.5), (4, None), (5, "broken"), (7, [1])]
)
def test_a_field_of_another_type_is_rejected(field: int, value: object) -> None:
    fields: list[object] = [1, "sim", 7, 1, 5, "connected", "", ["trade.linear.BTCUSDT"]]
    decode_market(b"link.c\x00" + msgpack.packb(fields))
    fields[field] = value
    with pytest.raises(CodecError):
        decode_market(b"link.c\x00" + msgpack.packb(fields))


def test_a_record_with_an_additional_field_is_rejected() -> None:
    fields = [1, "sim", 7, 1, 5, "connected", "", [], 0]
    with pytest.raises(CodecError):
        decode_market(b"link.c\x00" + msgpack.packb(fields))


def test_any_msgpack_reader_reads_the_market_bus() -> None:
    """A subscriber needs no library of ours."""
    message = BookMessage(1, "live", 7, 1, 5, 6, None, False, 50, 9, 8, ((1.5, 2.0),), ())
    frame = b"book.linear.X\x00" + encode_record(message)
    fields = [1, "live", 7, 1, 5, 6, None, False, 50, 9, 8, [[1.5, 2.0]], []]
    assert fields == msgpack.unpackb(frame.partition(b"\x00")[2])


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x00",
        b"book.linear.BTCUSDT",
        b"book.linear.BTCUSDT\x00",
        b"book.linear.BTCUSDT\x00\xc1",
        b"book.linear.BTCUSDT\x00\x91\x01",
        b"book.linear.BTCUSDT\x00\x01",
        b"book.linear.BTCUSDT\x00\xdd\xff\xff\xff\xff",
        b"quote.linear.BTCUSDT\x00\x90",
        b"trade.linear.BTCUSDT\x00\x97\x01\xa3sim\x01\x01\x01\x01\x05",
        b"trade.linear.BTCUSDT\x00\x97\x01\xa3sim\x01\x01\x01\x01\x91\x05",
    ],
)
def test_a_damaged_market_frame_is_rejected(frame: bytes) -> None:
    with pytest.raises(CodecError):
        decode_market(frame)


@given(st.binary(max_size=200))
def test_random_bytes_are_rejected_or_read_but_never_crash(frame: bytes) -> None:
    for decode in (decode_market, decode_map):
        try:
            decode(frame)
        except CodecError:
            continue


def test_unknown_numbers_stay_none_in_a_map() -> None:
    payload = {"mid_price": None, "imbalance": {"1": 0.5}, "bids": [[1.0, 2.0]]}
    assert payload == decode_map(encode_map(payload))


@pytest.mark.parametrize(
    "frame",
    [b"\x90", b"\x81\x01\x02", b"\xc0", b"\x81\xa1a", b"", b"\x80\x80", b"\x81\xa1a\xa1\xff"],
)
def test_only_a_map_with_text_keys_is_a_payload(frame: bytes) -> None:
    with pytest.raises(CodecError):
        decode_map(frame)


@pytest.mark.parametrize("nested", [b"\x91", b"\x81\xa1a"])
def test_a_map_nested_too_deeply_is_refused(nested: bytes) -> None:
    with pytest.raises(CodecError):
        decode_map(b"\x81\xa1a" + nested * 100_000 + b"\xc0")


def test_floats_keep_every_digit() -> None:
    assert {"x": 0.1 + 0.2} == decode_map(encode_map({"x": 0.1 + 0.2}))
