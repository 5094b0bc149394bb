"""What the clients return: messages, books and walls. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

from bybit_pipeline.shared.wire.messages import Category, Level, Source

BookSide = Literal["bid", "ask"]


class Metric(NamedTuple):
    """One message of the metrics socket."""

    topic: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    A book as last published; numbers are None and levels empty unless ``state`` is ``live``.

    ``bids`` and ``asks`` are ``(price, size)`` pairs, best first.
    """

    category: Category
    symbol: str
    source: Source
    state: str
    reason: str | None
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    best_bid: float | None
    best_ask: float | None
    mid_price: float | None
    spread_bps: float | None
    update_id: int | None
    match_ts_ms: int | None


@dataclass(frozen=True, slots=True)
class Wall:
    """A wall in a book as last published; the fields of ``densities`` in the wire format."""

    side: BookSide
    price: float
    size: float
    initial_size: float
    peak_size: float
    strength: float
    eaten_ratio: float
    pulled_ratio: float
    traded_size: float
    distance_bps: float
    first_seen_ms: int
    age_ms: int
    uncertain: bool = False


_WALL_FIELDS = frozenset(field.name for field in fields(Wall))


def snapshot_of(book: Mapping[str, Any], symbol: str, category: Category) -> Snapshot:
    """The snapshot in an ``orderbook.*`` message."""
    return Snapshot(
        category=category,
        symbol=symbol,
        source=book["source"],
        state=book["state"],
        reason=book.get("reason"),
        bids=tuple((price, size) for price, size in book.get("bids") or ()),
        asks=tuple((price, size) for price, size in book.get("asks") or ()),
        best_bid=book.get("best_bid"),
        best_ask=book.get("best_ask"),
        mid_price=book.get("mid_price"),
        spread_bps=book.get("spread_bps"),
        update_id=book.get("update_id"),
        match_ts_ms=book.get("match_ts_ms"),
    )


def walls_of(book: Mapping[str, Any]) -> list[Wall]:
    """
    The walls in an ``orderbook.*`` message, nearest to the mid price first.

    Fields that a newer pipeline has added are ignored.
    """
    walls = [
        Wall(**{name: value for name, value in wall.items() if name in _WALL_FIELDS})
        for wall in book.get("densities") or ()
    ]
    return sorted(walls, key=lambda wall: wall.distance_bps)
