"""
The records that travel on the market bus, and the vocabulary of the metrics.

Decides field names, their order on the wire and their units, and nothing else: how a record
becomes bytes is in ``codec``, how topics are named in ``topics``.

Units, said once for the whole project: prices are in quote currency; sizes are as Bybit gives
them, base currency on spot, linear and option, contracts on inverse. Times carry their unit and
their clock in the name: ``match_ts_ms`` is the matching engine's (Bybit ``T`` and ``cts``),
``exchange_ts_ms`` the push service's (``ts``), ``recv_ts_ns`` ours, taken at the websocket, and
``publish_ts_ns`` ours, taken when a metric is published.

Every record of the market bus is a msgpack array that starts with the same five fields:

    schema_version, source, session, bus_sequence, recv_ts_ns

``session`` names one websocket connection of one connector; it never repeats, also over restarts.
``bus_sequence`` counts the messages of one bus topic within one session, from 1, without a hole:
whoever sees a hole has lost messages.

The records are msgspec structs, which C code makes, packs and unpacks with their types checked: a
book message of 9 changed levels costs 0.13 us to make (a NamedTuple 0.32), 0.34 us to pack (msgpack
1.1) and 0.63 us to unpack (msgpack 0.8, unchecked).
"""

from typing import Final, Literal

from msgspec import Struct

SCHEMA_VERSION: Final = 1

Category = Literal["spot", "linear", "inverse", "option"]
Source = Literal["live", "sim", "replay"]
Side = Literal["Buy", "Sell"]
"""The taker's side of a trade."""

Level = tuple[float, float]
"""``(price, size)`` of one book level."""


class Record(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """An array on the wire; one with a field more or less, or of another type, is refused."""


class Trade(Record, frozen=True):
    """One public trade, as Bybit reported it."""

    match_ts_ms: int
    side: Side
    price: float
    size: float
    trade_id: str
    sequence: int | None
    """Bybit's cross sequence; several trades may share it. None before 2025-08."""
    is_block: bool
    is_rpi: bool


class TradesMessage(Record, frozen=True):
    """``trade.CATEGORY.SYMBOL``: the trades of one symbol in one websocket frame, oldest first."""

    schema_version: Literal[1]
    source: Source
    session: int
    bus_sequence: int
    recv_ts_ns: int
    exchange_ts_ms: int
    trades: tuple[Trade, ...]


class BookMessage(Record, frozen=True):
    """
    ``book.CATEGORY.SYMBOL``: one snapshot or delta of an order book.

    ``bids`` and ``asks`` are ``(price, size)`` pairs in Bybit's order; in a delta a size of zero
    deletes the level and sizes are absolute.
    """

    schema_version: Literal[1]
    source: Source
    session: int
    bus_sequence: int
    recv_ts_ns: int
    exchange_ts_ms: int
    match_ts_ms: int | None
    is_snapshot: bool
    depth: int
    update_id: int
    sequence: int | None
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


LinkEvent = Literal["connected", "disconnected", "subscribed", "unsubscribed", "rejected", "missed"]


class LinkMessage(Record, frozen=True):
    """
    ``link.CONNECTOR``: what happened to a connector's websocket, or to some of its topics.

    ``connected`` and ``disconnected`` concern every topic of the connector and leave ``topics``
    empty. ``subscribed`` (data flows from here on, as the exchange confirmed), ``unsubscribed``,
    ``rejected`` and ``missed`` (trades that came here may be among what could not be read;
    ``subscribed`` follows when that is over) name bus topics such as ``trade.linear.BTCUSDT``.
    ``reason`` is empty or a short word from a closed set of the connector.
    """

    schema_version: Literal[1]
    source: Source
    session: int
    bus_sequence: int
    recv_ts_ns: int
    event: LinkEvent
    reason: str
    topics: tuple[str, ...]


MarketMessage = TradesMessage | BookMessage | LinkMessage
