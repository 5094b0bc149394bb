"""
The records of the market bus.

Decides field names, their order on the wire and their units. ``codec`` converts records to bytes,
``topics`` names topics.

Units of the whole project: prices are in quote currency. Sizes are as Bybit sends them: base
currency on spot, linear and option, contracts on inverse. The name of a time contains its unit and
its clock: ``match_ts_ms`` is the matching engine's (Bybit's ``T`` and ``cts``), ``exchange_ts_ms``
the push service's (``ts``). ``recv_ts_ns`` is ours at the websocket, ``publish_ts_ns`` ours when a
metric is published.

Every record of the market bus is a msgpack array that starts with the same five fields:

    schema_version, source, session, bus_sequence, recv_ts_ns

``session`` identifies one websocket connection of one connector and is never reused, also after a
restart. ``bus_sequence`` counts the messages of one bus topic within a session, from 1. A jump
means missed messages.

The records are msgspec structs: C code builds, packs and unpacks them and checks their types.
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
    """A msgpack array. One with a missing, additional or mistyped field is rejected."""


class Trade(Record, frozen=True):
    """One public trade as Bybit reported it."""

    match_ts_ms: int
    side: Side
    price: float
    size: float
    trade_id: str
    sequence: int | None
    """Bybit's cross sequence; several trades may have the same. None before 2025-08."""
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

    ``bids`` and ``asks`` are ``(price, size)`` pairs in Bybit's order. In a delta, sizes are
    absolute, and a size of zero deletes the level.
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
    ``link.CONNECTOR``: an event of a connector's websocket or of some of its topics.

    - ``connected`` and ``disconnected`` concern every topic of the connector; ``topics`` is empty.
    - All other events name bus topics such as ``trade.linear.BTCUSDT``. ``subscribed``: the
      exchange confirmed the topic, and all data arrives from now on. ``missed``: a message that may
      have held trades of the topic could not be read; ``subscribed`` follows when this is over.

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


class HeartbeatMessage(Record, frozen=True):
    """
    ``heartbeat.CONNECTOR``: sent several times a second while the websocket is open.

    It follows everything that the connector had sent before. A worker that has handled it has
    therefore handled all data up to ``sent_s``. ``recv_ts_ns`` is the time when the exchange was
    last heard: any message, also the answer to a ping.
    """

    schema_version: Literal[1]
    source: Source
    session: int
    bus_sequence: int
    recv_ts_ns: int
    sent_s: float
    """Monotonic clock of the machine, in seconds."""
    silent_s: float
    """Seconds from the exchange's last message to ``sent_s``."""


MarketMessage = TradesMessage | BookMessage | LinkMessage | HeartbeatMessage
