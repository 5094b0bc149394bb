"""
Bybit v5 public frames: what they say, and what is refused.

Decides how the text of one websocket message becomes a ``BookUpdate``, ``TradeBatch``es, an ``Ack``
or a ``Pong``, and how a request is written. Must not know sockets, clocks, subscriptions or buses.
One-letter wire names and numbers as text stop here: everything that leaves this file is validated,
in the units of ``bybit_pipeline.shared.wire.messages``.

    {"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1790134716101,"data":{"s":"BTCUSDT",
     "b":[["86723.40","0"]],"a":[],"u":29443257,"seq":301632783305},"cts":1790134716094}
    {"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1791365008335,"data":[{"T":1791365008334,
     "s":"BTCUSDT","S":"Buy","v":"0.001","p":"83766.30","i":"68bc1c35-…","BT":false}]}

https://bybit-exchange.github.io/docs/v5/websocket/public/orderbook and …/public/trade.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from bybit_pipeline.shared.bybit import BOOK_PREFIX, base_coin, parse_exchange_topic
from bybit_pipeline.shared.wire.messages import (
    SCHEMA_VERSION,
    BookMessage,
    Category,
    Level,
    Side,
    Source,
    Trade,
    TradesMessage,
)

Op = Literal["subscribe", "unsubscribe"]

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""Some 100 times the largest message Bybit sends (1,024 option trades)."""
MAX_ROWS = 10_000
"""Levels a side, or trades, in one message; Bybit's bounds are 2,000 changes and 1,024 trades."""

InvalidReason = Literal[
    "size", "utf8", "json", "nesting", "schema", "number", "topic", "symbol", "control", "binary"
]
INVALID_REASONS: tuple[InvalidReason, ...] = (
    "size",
    "utf8",
    "json",
    "nesting",
    "schema",
    "number",
    "topic",
    "symbol",
    "control",
    "binary",
)
"""
Why a frame was refused: too large, not UTF-8, not JSON, nested too deep, not the documented shape,
a number that is none or out of bounds, a topic that is not ours, rows of another symbol, a control
message nobody expected, a binary frame.
"""


class InvalidFrame(ValueError):  # noqa: N818 - style.md names errors after the event
    """A frame that must not be used; ``reason`` is one of ``INVALID_REASONS``."""

    def __init__(self, reason: InvalidReason, detail: str) -> None:
        self.reason: InvalidReason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


# -- what a frame becomes ------------------------------------------------------------------------


class BookUpdate(Struct, frozen=True, gc=False):
    """
    One snapshot or delta of one book.

    ``bids`` and ``asks`` are ``(price, size)`` pairs in Bybit's order; a size of zero deletes the
    level.
    """

    recv_ts_ns: int
    exchange_ts_ms: int
    match_ts_ms: int | None
    is_snapshot: bool
    depth: int
    update_id: int
    sequence: int | None
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    symbol: str
    topic: str
    """The Bybit topic, such as ``orderbook.50.BTCUSDT``."""

    def record(self, source: Source, session: int, bus_sequence: int) -> BookMessage:
        """The update as a record of the market bus."""
        return BookMessage(
            SCHEMA_VERSION,
            source,
            session,
            bus_sequence,
            self.recv_ts_ns,
            self.exchange_ts_ms,
            self.match_ts_ms,
            self.is_snapshot,
            self.depth,
            self.update_id,
            self.sequence,
            self.bids,
            self.asks,
        )


class TradeBatch(Struct, frozen=True, gc=False):
    """The trades of one symbol in one frame, oldest first."""

    recv_ts_ns: int
    exchange_ts_ms: int
    trades: tuple[Trade, ...]
    symbol: str
    topic: str
    """The Bybit topic; on options it names the base coin and not the symbol."""

    def record(self, source: Source, session: int, bus_sequence: int) -> TradesMessage:
        """The batch as a record of the market bus."""
        return TradesMessage(
            SCHEMA_VERSION,
            source,
            session,
            bus_sequence,
            self.recv_ts_ns,
            self.exchange_ts_ms,
            self.trades,
        )


class Ack(NamedTuple):
    """
    The answer to a subscribe or unsubscribe request.

    Options name every topic (``succeeded``, ``failed``) but neither the request nor ``op``; the
    other categories answer once for the whole request and leave both lists empty.
    """

    success: bool
    op: Op | None
    req_id: str
    text: str
    succeeded: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class Pong(NamedTuple):
    """The answer to a ping."""

    req_id: str


Decoded = BookUpdate | list[TradeBatch] | Ack | Pong


# -- the wire shapes -----------------------------------------------------------------------------

# Bybit sends prices and sizes as text; ``strict=False`` parses them while decoding, faster than a
# decode hook, and the bounds refuse "nan", "inf", signs and zero prices in the same pass. Leading
# zeros, plus signs, spaces, hexadecimal and empty text are refused by msgspec's number grammar.
_Price = Annotated[float, Meta(ge=1e-15, le=1e15)]
_Size = Annotated[float, Meta(ge=0, le=1e18)]
_TradeSize = Annotated[float, Meta(gt=0, le=1e18)]
# From 2001 to 2286: seconds, microseconds and nanoseconds do not pass for milliseconds.
_TimeMs = Annotated[int, Meta(ge=10**12, lt=10**13)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Symbol = Annotated[str, Meta(min_length=1, max_length=64)]
_TradeId = Annotated[str, Meta(min_length=1, max_length=128)]
_Side = Annotated[tuple[tuple[_Price, _Size], ...], Meta(max_length=MAX_ROWS)]


class _Book(Struct, gc=False, rename={"symbol": "s", "bids": "b", "asks": "a", "update_id": "u"}):
    symbol: str
    bids: _Side
    asks: _Side
    update_id: _Count
    seq: _Count | None = None


class _Trade(
    Struct,
    gc=False,
    rename={
        "match_ts_ms": "T",
        "symbol": "s",
        "side": "S",
        "size": "v",
        "price": "p",
        "trade_id": "i",
        "is_block": "BT",
        "is_rpi": "RPI",
    },
):
    match_ts_ms: _TimeMs
    symbol: _Symbol
    side: Side
    size: _TradeSize
    price: _Price
    trade_id: _TradeId
    is_block: bool = False
    is_rpi: bool = False
    seq: _Count | None = None


class _Frame(Struct, gc=False):
    topic: str | None = None
    data: _Book | Annotated[tuple[_Trade, ...], Meta(max_length=MAX_ROWS)] | None = None
    type: Literal["snapshot", "delta"] | None = None
    ts: _TimeMs | None = None
    cts: _Count | None = None


class _Control(Struct):
    topic: str | None = None
    success: bool | None = None
    ret_msg: str = ""
    req_id: str | int | None = None
    op: str = ""
    type: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _CommandResult(Struct, rename="camel"):
    success_topics: list[str] = []
    fail_topics: list[str] = []


_decode_frame = msgspec.json.Decoder(_Frame, strict=False).decode
_decode_control = msgspec.json.Decoder(_Control).decode
_decode_result = msgspec.json.Decoder(_CommandResult).decode


# -- decoding ------------------------------------------------------------------------------------


def decode(raw: bytes, category: Category, recv_ts_ns: int) -> Decoded:
    """
    The content of one websocket text message; about 2 us for a book delta of 10 levels.

    Of a key that is there twice the last one counts. A book comes out as Bybit sent it: whether
    it is crossed or too deep is the book's business.

    Args:
        raw: The message, complete.
        category: What the connection serves; no message says it.
        recv_ts_ns: When it was received; goes into the result.

    Raises:
        InvalidFrame: If the message is not exactly what Bybit documents; nothing else is raised.
    """
    if len(raw) > MAX_FRAME_BYTES:
        raise InvalidFrame("size", f"{len(raw)} bytes")
    if not raw.isascii():
        _check_utf8(raw)
    try:
        frame = _decode_frame(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        return _decode_other(raw, error)
    topic, data = frame.topic, frame.data
    if topic is None:
        return _decode_other(raw, None)
    try:
        kind, depth, name = parse_exchange_topic(topic)
    except ValueError as error:
        raise InvalidFrame("topic", topic[:100]) from error
    exchange_ts_ms = frame.ts
    if exchange_ts_ms is None:
        raise InvalidFrame("schema", "no ts")
    if isinstance(data, _Book):
        if kind != "book" or frame.type is None:
            raise InvalidFrame("schema", f"a book without type or under {topic[:100]}")
        if data.symbol != name:
            raise InvalidFrame("symbol", f"{data.symbol[:64]} under {topic[:100]}")
        return BookUpdate(
            recv_ts_ns,
            exchange_ts_ms,
            frame.cts or None,
            frame.type == "snapshot",
            depth,
            data.update_id,
            data.seq,
            data.bids,
            data.asks,
            name,
            topic,
        )
    if data is None or kind != "trade":
        raise InvalidFrame("schema", f"no fitting data under {topic[:100]}")
    for row in data:
        if row.symbol != name:
            groups = _by_symbol(data, name, topic, category)
            break
    else:
        groups = [(name, data)] if data else []
    return [
        TradeBatch(recv_ts_ns, exchange_ts_ms, tuple([_trade(row) for row in rows]), symbol, topic)
        for symbol, rows in groups
    ]


class _Outline(Struct):
    topic: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")


_decode_outline = msgspec.json.Decoder(_Outline).decode
_TOPIC = re.compile(rb'"topic"\s*:\s*"([^"\\\x00-\x1f]*"?)')
"""A topic with the quote at its end, or as much of it as can be read."""


def trades_in(raw: bytes, topics: list[str]) -> list[str]:
    """
    Of which of these topics a refused message may have held trades.

    Of that which can be seen in it. Where only its beginning can, of every one that begins so, and
    of all where nothing can, unless the message is whole: then it is of another topic or about an
    operation. A book says by its own numbers what it misses.
    """
    seen = [_readable(named[1]) for named in _TOPIC.finditer(raw)]
    if seen:
        named = [topic for topic in topics if any(f'{topic}"'.startswith(text) for text in seen)]
        if named:
            return named
    if any(text.startswith(BOOK_PREFIX) for text in seen) or _is_without_trades(raw):
        return []
    return topics


def _readable(text: bytes) -> str:
    """The beginning of a text that is UTF-8."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        return text[: error.start].decode()


def _is_without_trades(raw: bytes) -> bool:
    """Whether a message is whole and of a topic, or without one and without a list of data."""
    try:
        outline = _decode_outline(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return outline.topic is not None or not bytes(outline.data).startswith(b"[")


def _trade(row: _Trade) -> Trade:
    return Trade(
        row.match_ts_ms,
        row.side,
        row.price,
        row.size,
        row.trade_id,
        row.seq,
        row.is_block,
        row.is_rpi,
    )


def _by_symbol(
    rows: Sequence[_Trade], name: str, topic: str, category: Category
) -> list[tuple[str, Sequence[_Trade]]]:
    """The rows by symbol, in their order: an option message names a coin, not the symbol."""
    groups: dict[str, list[_Trade]] = {}
    for row in rows:
        groups.setdefault(row.symbol, []).append(row)
    for symbol in groups:
        if symbol != name and not (category == "option" and base_coin(symbol) == name):
            raise InvalidFrame("symbol", f"{symbol} under {topic[:100]}")
    return list(groups.items())


def _check_utf8(raw: bytes) -> None:
    """All of it: msgspec validates only the text it keeps."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidFrame("utf8", f"byte {error.start}") from error


def _decode_other(raw: bytes, error: Exception | None) -> Ack | Pong:
    """What is no data of ours: a control message, or the reason why the data was refused."""
    try:
        control = _decode_control(raw)
    except RecursionError as deep:
        raise InvalidFrame("nesting", str(deep)) from deep
    except msgspec.ValidationError as mismatch:
        raise InvalidFrame("schema", str(error or mismatch)) from mismatch
    except msgspec.DecodeError as broken:
        raise InvalidFrame("json", str(broken)) from broken
    if control.topic is not None:
        try:
            parse_exchange_topic(control.topic)
        except ValueError as unknown:
            raise InvalidFrame("topic", control.topic[:100]) from unknown
        raise _refusal(error)
    req_id = "" if control.req_id is None else str(control.req_id)
    if control.op == "pong" or control.ret_msg == "pong":
        return Pong(req_id)
    if control.type == "COMMAND_RESP":
        return _command_ack(control, req_id)
    if control.op in ("subscribe", "unsubscribe") and control.success is not None:
        op: Op = "subscribe" if control.op == "subscribe" else "unsubscribe"
        return Ack(control.success, op, req_id, control.ret_msg)
    raise InvalidFrame("control", control.ret_msg[:200] or control.op[:50])


def _command_ack(control: _Control, req_id: str) -> Ack:
    """The option shape, ``{"success":…,"data":{"failTopics":[],"successTopics":[…]},…}``."""
    try:
        result = _decode_result(control.data)
    except msgspec.DecodeError as error:
        raise InvalidFrame("schema", str(error)) from error
    failed = tuple(result.fail_topics)
    success = not failed if control.success is None else control.success
    return Ack(success, None, req_id, control.ret_msg, tuple(result.success_topics), failed)


_NOT_A_NUMBER = re.compile(r"Expected `(float|int)`|out of range")


def _refusal(error: Exception | None) -> InvalidFrame:
    """A message under a topic of ours that does not decode."""
    if isinstance(error, RecursionError):
        return InvalidFrame("nesting", str(error))
    text = str(error or "no data")
    return InvalidFrame("number" if _NOT_A_NUMBER.search(text) else "schema", text)


# -- requests ------------------------------------------------------------------------------------


def request_text(op: Op, req_id: str, topics: Sequence[str]) -> str:
    """The text of a subscribe or unsubscribe request."""
    return msgspec.json.encode({"req_id": req_id, "op": op, "args": list(topics)}).decode()


def ping_text(req_id: str) -> str:
    """The text of Bybit's own ping, which every category wants."""
    return msgspec.json.encode({"req_id": req_id, "op": "ping"}).decode()


_NAMED_TOPIC = re.compile(r"topic:\s*([^\s,\]]+)|:\s*\[([^\s,\]]+)\]")


def refused_topic(text: str) -> str | None:
    """
    The topic that a refusal names, if it names one.

    Futures: ``error:handler not found,topic:orderbook.50.NOPEUSDT``; spot:
    ``Invalid symbol :[publicTrade.NOPEUSDT]``.
    """
    match = _NAMED_TOPIC.search(text)
    return (match[1] or match[2]) if match else None


def is_already_subscribed(text: str) -> bool:
    """Whether a refusal says that the topic is already subscribed, which is what we want."""
    return "already subscribed" in text.lower()
