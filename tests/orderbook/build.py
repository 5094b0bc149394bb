"""Messages of the market bus for tests: written by hand, or parsed from recorded frames."""

from collections.abc import Iterable
from typing import Any

from bybit_pipeline.processes.orderbook.book import OrderBook
from bybit_pipeline.processes.orderbook.measures import BookMeasures
from bybit_pipeline.shared.wire.codec import decode_map, encode_map
from bybit_pipeline.shared.wire.common import MarketMetric
from bybit_pipeline.shared.wire.messages import (
    BookMessage,
    Level,
    LinkEvent,
    LinkMessage,
    Side,
    Source,
    Trade,
    TradesMessage,
)
from bybit_pipeline.shared.wire.orderbook import Orderbook

MEASURES = (
    set(Orderbook.__struct_fields__) - set(MarketMetric.__struct_fields__) - {"state", "reason"}
)
"""The fields of a book's message that are null or empty unless the book is live."""

BIDS = ((100.0, 1.0), (99.5, 2.0), (99.0, 4.0))
ASKS = ((100.5, 3.0), (101.0, 5.0), (102.0, 7.0))


def book_message(
    update_id: int,
    bids: Iterable[Level] = (),
    asks: Iterable[Level] = (),
    *,
    is_snapshot: bool = False,
    depth: int = 50,
    session: int = 1,
    source: Source = "sim",
    match_ms: int | None = None,
) -> BookMessage:
    """Return a message timed by its number: 20 ms per update, received 5 ms after its push."""
    match_ms = 1_000_000 + update_id * 20 if match_ms is None else match_ms
    return BookMessage(
        schema_version=1,
        source=source,
        session=session,
        bus_sequence=update_id,
        recv_ts_ns=(match_ms + 7) * 1_000_000,
        exchange_ts_ms=match_ms + 2,
        match_ts_ms=match_ms,
        is_snapshot=is_snapshot,
        depth=depth,
        update_id=update_id,
        sequence=update_id * 10,
        bids=tuple(bids),
        asks=tuple(asks),
    )


def snapshot(
    update_id: int, bids: Iterable[Level] = BIDS, asks: Iterable[Level] = ASKS, **fields: Any
) -> BookMessage:
    """Return a snapshot; by default with three levels per side, the best at 100 and 100.5."""
    return book_message(update_id, bids, asks, is_snapshot=True, **fields)


def delta(
    update_id: int, bids: Iterable[Level] = (), asks: Iterable[Level] = (), **fields: Any
) -> BookMessage:
    """Return a delta; by default without changes."""
    return book_message(update_id, bids, asks, **fields)


def trade(
    match_ms: int, side: Side, price: float, size: float, trade_id: str = "", **fields: Any
) -> Trade:
    """Return a trade; by default its id is derived from the other fields."""
    trade_id = trade_id or f"{match_ms}-{side}-{price}-{size}"
    flags = {"is_block": False, "is_rpi": False} | fields
    return Trade(match_ms, side, price, size, trade_id, None, **flags)


def trades_message(*trades: Trade, source: Source = "sim", session: int = 1) -> TradesMessage:
    """Return a message with these trades."""
    last_ms = trades[-1].match_ts_ms if trades else 0
    return TradesMessage(
        1, source, session, 1, (last_ms + 3) * 1_000_000, last_ms + 1, tuple(trades)
    )


def link(
    event: LinkEvent, *topics: str, source: Source = "sim", session: int = 1, ts_ms: int = 0
) -> LinkMessage:
    """Return a link event of a connector."""
    return LinkMessage(1, source, session, 1, ts_ms * 1_000_000, event, "", topics)


def recorded_book(raw: dict[str, Any]) -> BookMessage:
    """Return a recorded order book message of Bybit as published by the connector."""
    data = raw["data"]
    return BookMessage(
        schema_version=1,
        source="replay",
        session=1,
        bus_sequence=data["u"],
        recv_ts_ns=(raw["ts"] + 5) * 1_000_000,
        exchange_ts_ms=raw["ts"],
        match_ts_ms=raw.get("cts"),
        is_snapshot=raw["type"] == "snapshot",
        depth=int(raw["topic"].split(".", 2)[1]),
        update_id=data["u"],
        sequence=data.get("seq"),
        bids=tuple((float(price), float(size)) for price, size in data["b"]),
        asks=tuple((float(price), float(size)) for price, size in data["a"]),
    )


def recorded_trades(raw: dict[str, Any]) -> TradesMessage:
    """Return a recorded trades message of Bybit as published by the connector."""
    rows = [
        Trade(
            row["T"],
            row["S"],
            float(row["p"]),
            float(row["v"]),
            row["i"],
            row.get("seq"),
            bool(row.get("BT")),
            bool(row.get("RPI")),
        )
        for row in raw["data"]
    ]
    return TradesMessage(1, "replay", 1, 1, (raw["ts"] + 5) * 1_000_000, raw["ts"], tuple(rows))


def measured(measures: BookMeasures, book: OrderBook) -> dict[str, Any]:
    """Return the message about a live book as a subscriber decodes it."""
    record = measures.metric(
        book,
        symbol="BTCUSDT",
        source="sim",
        process="orderbook-0",
        epoch="epoch",
        seq=1,
        publish_ts_ns=1,
    )
    return decode_map(encode_map(record))
