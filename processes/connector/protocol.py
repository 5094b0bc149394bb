"""
Messages of Bybit's public websocket, both ways. Pure.

Decides how the text of one message becomes a ``BookUpdate``, ``TradeBatch``es, an ``Ack`` or a
``Pong``, which messages are rejected, and how a request is written. Must not know sockets, clocks,
subscriptions or buses. One-letter names and numbers as text stop here: everything that leaves this
file is validated, and in the units of ``bybit_pipeline.shared.wire.messages``.

    {"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1790134716101,"data":{"s":"BTCUSDT",
     "b":[["86723.40","0"]],"a":[],"u":29443257,"seq":301632783305},"cts":1790134716094}
    {"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1791365008335,"data":[{"T":1791365008334,
     "s":"BTCUSDT","S":"Buy","v":"0.001","p":"83766.30","i":"68bc1c35-…","BT":false}]}

https://bybit-exchange.github.io/docs/v5/websocket/public/orderbook and …/public/trade.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, get_args

import msgspec
from msgspec import Meta, Struct

from bybit_pipeline.shared.bybit import base_coin, parse_exchange_topic
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
"""About 100 times the largest message that Bybit sends (1,024 option trades)."""
MAX_ROWS = 10_000
"""Levels a side, or trades, in one message. Bybit sends up to 2,000 levels and 1,024 trades."""

InvalidReason = Literal[
    "size", "utf8", "json", "nesting", "schema", "number", "topic", "symbol", "control", "binary"
]
INVALID_REASONS: tuple[InvalidReason, ...] = get_args(InvalidReason)
"""
Why a frame was rejected: ``size`` too large; ``utf8`` not UTF-8; ``json`` not JSON; ``nesting`` too
deep; ``schema`` not the documented shape; ``number`` not a number, or out of bounds; ``topic`` not
subscribed, or neither trades nor a book; ``symbol`` rows of another symbol; ``control`` an unknown
control message; ``binary`` not text.
"""


class InvalidFrame(ValueError):  # noqa: N818 - style.md names errors after the event
    """A frame that must not be used; ``reason`` is one of ``INVALID_REASONS``."""

    def __init__(self, reason: InvalidReason, detail: str) -> None:
        self.reason: InvalidReason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


# -- results -------------------------------------------------------------------------------------


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
    """The trades of one symbol in one message, oldest first."""

    recv_ts_ns: int
    exchange_ts_ms: int
    trades: tuple[Trade, ...]
    symbol: str
    topic: str
    """The Bybit topic. On options it has the base coin, not the symbol."""

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
    The response to a subscribe or unsubscribe request.

    On options a response lists the topics (``succeeded``, ``failed``) but has neither the id of the
    request nor its ``op``. In the other categories there is one response for the whole request, and
    both lists are empty.
    """

    success: bool
    op: Op | None
    req_id: str
    text: str
    succeeded: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class Pong(NamedTuple):
    """The response to a ping."""

    req_id: str


Decoded = BookUpdate | list[TradeBatch] | Ack | Pong
TradeParts = list[list[TradeBatch]]
"""The usable trades of a message, divided where a row is unusable; a part may be empty."""


# -- the wire shapes -----------------------------------------------------------------------------

# Bybit sends prices and sizes as text. ``strict=False`` parses them while decoding, faster than a
# decode hook, and the bounds reject "nan", "inf", signs and zero prices in the same pass. msgspec's
# number grammar rejects leading zeros, plus signs, spaces, hexadecimal and empty text.
_Price = Annotated[float, Meta(ge=1e-15, le=1e15)]
_Size = Annotated[float, Meta(ge=0, le=1e18)]
_TradeSize = Annotated[float, Meta(gt=0, le=1e18)]
# From 2001 to 2286: rejects times in seconds, microseconds or nanoseconds.
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
    ret_msg: str | None = None
    retMsg: str | None = None  # noqa: N815 - as REST names it
    ret_code: int | str | None = None
    retCode: int | str | None = None  # noqa: N815 - as REST names it
    req_id: str | int | None = None
    op: str | None = None
    type: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def text(self) -> str:
        return self.ret_msg or self.retMsg or ""

    @property
    def outcome(self) -> bool | None:
        """Whether the request succeeded; without ``success`` the code says so, as over REST."""
        code = self.retCode if self.ret_code is None else self.ret_code
        return self.success if self.success is not None or code is None else str(code) == "0"


class _CommandResult(Struct, rename="camel"):
    success_topics: list[str] | None = None
    fail_topics: list[str] | None = None


_decode_frame = msgspec.json.Decoder(_Frame, strict=False).decode
_decode_control = msgspec.json.Decoder(_Control).decode
_decode_result = msgspec.json.Decoder(_CommandResult | None).decode


# -- decoding ------------------------------------------------------------------------------------


def decode(raw: bytes, category: Category, recv_ts_ns: int) -> Decoded:
    """
    The content of one text message.

    Of a duplicate key the last one counts. Levels are passed on as Bybit sent them, also of a
    crossed book: that is for the order book to judge.

    Args:
        raw: The complete message.
        category: The category of the connection; messages do not contain it.
        recv_ts_ns: Receive time, for the result.

    Raises:
        InvalidFrame: If the message does not have a documented shape. Nothing else is raised.
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
            raise InvalidFrame("schema", f"a book without type, or under {topic[:100]}")
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
        raise InvalidFrame("schema", f"no data, or of the wrong kind, under {topic[:100]}")
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


# -- what is usable of a rejected message ----------------------------------------------------------

UNUSABLE_ROWS_MAX = 10
"""A message with more unusable trades than this is rejected as a whole."""

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_levels = msgspec.json.Decoder(list[list[msgspec.Raw]]).decode


def salvage(raw: bytes, category: Category, recv_ts_ns: int) -> BookUpdate | TradeParts | None:
    """
    The usable content of a message that ``decode`` rejected; None if there is none.

    - A book whose levels have additional elements: the book without them.
    - Trades with a few unusable rows: the other rows. Rows are unusable by the same rules as whole
      messages.

    The usable content is written as a message again and decoded, so that the rules stay in one
    place. That is slow, and rare.
    """
    try:
        fields = _decode_fields(raw)
        data = fields.get("data", msgspec.Raw(b""))
        if bytes(data).startswith(b"["):
            return _usable_trades(fields, _decode_rows(data), category, recv_ts_ns)
        book = _decode_fields(data)
        for side in ("b", "a"):
            levels = [level[:2] for level in _decode_levels(book[side])]
            book[side] = msgspec.Raw(msgspec.json.encode(levels))
        update = _decode_with(fields, book, category, recv_ts_ns)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, InvalidFrame):
        return None
    return update if isinstance(update, BookUpdate) else None


def _usable_trades(
    fields: dict[str, msgspec.Raw], rows: list[msgspec.Raw], category: Category, recv_ts_ns: int
) -> TradeParts | None:
    parts: TradeParts = []
    first = unusable = 0
    for place, row in enumerate(rows[:MAX_ROWS]):
        try:
            _decode_with(fields, [row], category, recv_ts_ns)
        except InvalidFrame:
            unusable += 1
            if unusable > UNUSABLE_ROWS_MAX:
                return None
            parts.append(_trades_with(fields, rows[first:place], category, recv_ts_ns))
            first = place + 1
    if len(rows) > MAX_ROWS or unusable == len(rows):
        return None
    return [*parts, _trades_with(fields, rows[first:], category, recv_ts_ns)]


def _trades_with(
    fields: dict[str, msgspec.Raw], rows: list[msgspec.Raw], category: Category, recv_ts_ns: int
) -> list[TradeBatch]:
    decoded = _decode_with(fields, rows, category, recv_ts_ns)
    assert isinstance(decoded, list), "a list of rows is trades"
    return decoded


def _decode_with(
    fields: dict[str, msgspec.Raw], data: object, category: Category, recv_ts_ns: int
) -> Decoded:
    return decode(msgspec.json.encode({**fields, "data": data}), category, recv_ts_ns)


# -- helpers ---------------------------------------------------------------------------------------


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
    """The rows by symbol, in order: on options one message has the trades of several symbols."""
    groups: dict[str, list[_Trade]] = {}
    for row in rows:
        groups.setdefault(row.symbol, []).append(row)
    for symbol in groups:
        if symbol != name and not (category == "option" and base_coin(symbol) == name):
            raise InvalidFrame("symbol", f"{symbol} under {topic[:100]}")
    return list(groups.items())


def _check_utf8(raw: bytes) -> None:
    """Check the whole message: msgspec validates only the text that it returns."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidFrame("utf8", f"byte {error.start}") from error


def _decode_other(raw: bytes, error: Exception | None) -> Ack | Pong:
    """A control message; for everything else, raise the reason why it was rejected."""
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
        raise _rejection(error)
    req_id = "" if control.req_id is None else str(control.req_id)
    if control.op == "pong" or control.text == "pong":
        return Pong(req_id)
    if control.type == "COMMAND_RESP":
        return _command_ack(control, req_id)
    outcome = control.outcome
    if control.op in ("subscribe", "unsubscribe") and outcome is not None:
        op: Op = "subscribe" if control.op == "subscribe" else "unsubscribe"
        return Ack(outcome, op, req_id, control.text)
    if outcome is False and req_id and not control.op:  # a failure before the request was read
        return Ack(False, None, req_id, control.text)
    raise InvalidFrame("control", control.text[:200] or (control.op or "")[:50])


def _command_ack(control: _Control, req_id: str) -> Ack:
    """The shape of options: ``{"success":…,"data":{"failTopics":[],"successTopics":[…]},…}``."""
    try:
        result = _decode_result(control.data) or _CommandResult()
    except msgspec.DecodeError as error:
        raise InvalidFrame("schema", str(error)) from error
    succeeded, failed = tuple(result.success_topics or ()), tuple(result.fail_topics or ())
    success = not failed if control.outcome is None else control.outcome
    return Ack(success, None, req_id, control.text, succeeded, failed)


_NOT_A_NUMBER = re.compile(r"Expected `(float|int)`|out of range")


def _rejection(error: Exception | None) -> InvalidFrame:
    """The reason for a message that has a valid topic but does not decode."""
    if isinstance(error, RecursionError):
        return InvalidFrame("nesting", str(error))
    text = str(error or "no data")
    return InvalidFrame("number" if _NOT_A_NUMBER.search(text) else "schema", text)


# -- requests ------------------------------------------------------------------------------------


def request_text(op: Op, req_id: str, topics: Sequence[str]) -> str:
    """The text of a subscribe or unsubscribe request."""
    return msgspec.json.encode({"req_id": req_id, "op": op, "args": list(topics)}).decode()


def ping_text(req_id: str) -> str:
    """The text of Bybit's own ping, which every category answers."""
    return msgspec.json.encode({"req_id": req_id, "op": "ping"}).decode()
