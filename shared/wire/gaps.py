"""
Gaps: the intervals in which a stream of one symbol could not be trusted.

Decides the fields of a gap, of the ``gap.*`` messages, and how many gaps a worker remembers. The
events that open and close a gap are decided by the worker.
"""

from typing import Annotated, Generic, Literal, Protocol, TypeVar

import msgspec
from msgspec import Meta

from bybit_pipeline.shared.wire.common import (
    MarketMetric,
    MetricRecord,
    Millis,
    Nanos,
    Number,
    Seconds,
)
from bybit_pipeline.shared.wire.messages import Category

TradesGapReason = Literal[
    "disconnected",
    "bus_gap",
    "unsubscribed",
    "rejected",
    "bad_time",
    "process_down",
    "process_silent",
    "silent",
]
BookGapReason = Literal[
    "starting",
    "gap",
    "duplicate",
    "desync",
    "crossed",
    "too_deep",
    "bad_levels",
    "wrong_depth",
    "bad_time",
    "bus_gap",
    "disconnected",
    "source_change",
    "unsubscribed",
    "rejected",
    "process_down",
    "process_silent",
    "silent",
]
"""
Reasons why a book is not live. ``starting``: no snapshot yet. ``gap``: an update of the exchange is
missing. ``bus_gap``: a message between connector and worker is missing. ``bad_time``: the
exchange's time jumped. ``process_down``: its connector or worker died. ``process_silent``: its
connector or worker hangs or lags behind. ``silent``: nothing is heard from the exchange, on the
whole connection or on this stream.
"""

TradesGapEventName = Literal["opened", "closed", "completed"]
BookGapEventName = Literal["opened", "closed"]


class TradesGap(MetricRecord, frozen=True, kw_only=True, tag_field="stream", tag="trades"):
    """
    An interval of exchange time in which trades of a symbol may have been missed.

    All missed trades lie between the last trade before it and the first trade after it.
    """

    gap_id: int
    category: Category
    symbol: str
    reason: TradesGapReason
    start_ms: int
    end_ms: int | None = None
    sequence_before: int | None = None
    trade_id_before: str | None = None
    sequence_after: int | None = None
    trade_id_after: str | None = None
    duration_s: float | None = None

    @property
    def is_open(self) -> bool:
        """True until trades are observed again."""
        return self.end_ms is None


class BookGap(MetricRecord, frozen=True, kw_only=True, tag_field="stream", tag="book"):
    """
    An interval in which a book could not be trusted.

    It lasts from the last message applied before it to the snapshot after it. ``start_ms`` and
    ``end_ms`` are the push times of these two messages; ``opened_ts_ns`` and ``closed_ts_ns`` are
    times of our clock.
    """

    gap_id: int
    category: Category
    symbol: str
    reason: BookGapReason
    opened_ts_ns: int | None
    start_ms: int | None
    update_id_before: int | None
    sequence_before: int | None
    received_update_id: int | None
    closed_ts_ns: int | None = None
    end_ms: int | None = None
    update_id_after: int | None = None
    sequence_after: int | None = None
    duration_s: float | None = None
    """By the monotonic clock."""

    @property
    def is_open(self) -> bool:
        """True until the snapshot after it."""
        return self.duration_s is None


class _Gap(Protocol):
    @property
    def gap_id(self) -> int: ...

    @property
    def is_open(self) -> bool: ...


G = TypeVar("G", bound=_Gap)


class GapLedger(Generic[G]):
    """
    The open gaps of a worker, and the last ``limit`` closed ones.

    Closed gaps are kept packed, which takes half of the memory: they are rarely read.
    """

    def __init__(self, gap_type: type[G], limit: int = 10_000) -> None:
        self._limit = limit
        self._open: dict[int, G] = {}
        self._closed: dict[int, bytes] = {}
        self._last_id = 0
        self._pack = msgspec.msgpack.Encoder().encode
        self._unpack = msgspec.msgpack.Decoder(gap_type).decode

    def __len__(self) -> int:
        """Number of gaps kept."""
        return len(self._open) + len(self._closed)

    def new_id(self) -> int:
        """The number of the next gap, counting from 1."""
        self._last_id += 1
        return self._last_id

    def put(self, gap: G) -> None:
        """Record a gap, or its new values if it is there already."""
        if gap.is_open:
            self._open[gap.gap_id] = gap
            return
        self._open.pop(gap.gap_id, None)
        self._closed[gap.gap_id] = self._pack(gap)
        if len(self._closed) > self._limit:
            del self._closed[next(iter(self._closed))]

    def forget(self, gap: G) -> None:
        """Remove an open gap."""
        self._open.pop(gap.gap_id, None)

    def gaps(self) -> list[G]:
        """The gaps kept, in the order in which they opened."""
        gaps = [*map(self._unpack, self._closed.values()), *self._open.values()]
        return sorted(gaps, key=_by_id)


def _by_id(gap: _Gap) -> int:
    return gap.gap_id


# -- messages --------------------------------------------------------------------------------------
#
# They have the fields of a gap again, because a record can have only one base. To build one:
# TradesGapEvent(..., event="opened", **msgspec.structs.asdict(gap)).


class TradesGapEvent(MarketMetric, frozen=True, kw_only=True, tag_field="stream", tag="trades"):
    """
    ``gap.CATEGORY.SYMBOL`` of the trades: the opening, the end or the completion of a gap.

    Trades may be missing between the last trade before the gap and the first trade after it.
    """

    kind: Literal["gap"] = "gap"
    state: Annotated[
        Literal["live", "warming", "stale"],
        Meta(description="State of the trades after the event."),
    ]
    event: Annotated[
        TradesGapEventName,
        Meta(
            description="`opened`: trades are being missed. `closed`: trades are observed again, "
            "or the epoch ended. `completed`: the first trade after the gap arrived, if it was not "
            "known when the gap closed."
        ),
    ]
    gap_id: Annotated[
        Number,
        Meta(description="Number of the gap, the same in all its events; unique per process."),
    ]
    reason: Annotated[TradesGapReason, Meta(description="Cause of the gap.")]
    start_ms: Annotated[Millis, Meta(description="Exchange time up to which no trade is missing.")]
    end_ms: Annotated[
        Millis | None,
        Meta(
            description="Exchange time from which trades are observed again, or at which the epoch "
            "ended; null while open."
        ),
    ] = None
    sequence_before: Annotated[
        int | None, Meta(description="`sequence` of the last trade before; null if there was none.")
    ] = None
    trade_id_before: Annotated[
        str | None, Meta(description="Id of the last trade before; null if there was none.")
    ] = None
    sequence_after: Annotated[
        int | None, Meta(description="`sequence` of the first trade after; null until it is known.")
    ] = None
    trade_id_after: Annotated[
        str | None, Meta(description="Id of the first trade after; null until it is known.")
    ] = None
    duration_s: Annotated[
        Seconds | None, Meta(description="`end_ms - start_ms` in seconds; null while open.")
    ] = None


class BookGapEvent(MarketMetric, frozen=True, kw_only=True, tag_field="stream", tag="book"):
    """
    ``gap.CATEGORY.SYMBOL`` of a book: the opening or the end of a gap.

    The book is not trusted from the last message before the gap to the snapshot after it.
    """

    kind: Literal["gap"] = "gap"
    state: Annotated[
        Literal["syncing", "live", "stale"],
        Meta(description="State of the book after the event."),
    ]
    event: Annotated[
        BookGapEventName,
        Meta(description="`closed` repeats the fields of `opened` and adds the end."),
    ]
    gap_id: Annotated[
        Number,
        Meta(description="Number of the gap, the same in both events; unique per process."),
    ]
    reason: Annotated[BookGapReason, Meta(description="Cause of the gap.")]
    opened_ts_ns: Annotated[
        Nanos | None,
        Meta(description="Time when the book was invalidated, our clock; null for `starting`."),
    ] = None
    start_ms: Annotated[
        Millis | None,
        Meta(description="Push time of the last message before; null if there was none."),
    ] = None
    update_id_before: Annotated[
        int | None, Meta(description="`u` of the last message before; null if there was none.")
    ] = None
    sequence_before: Annotated[
        int | None, Meta(description="`seq` of the last message before; null if there was none.")
    ] = None
    received_update_id: Annotated[
        int | None,
        Meta(description="`u` of the message that invalidated the book; null if none did."),
    ] = None
    closed_ts_ns: Annotated[
        Nanos | None,
        Meta(
            description="Time when the snapshot arrived, our clock; null while open, and if the "
            "gap ended because the book was unsubscribed."
        ),
    ] = None
    end_ms: Annotated[
        Millis | None,
        Meta(description="Push time of the snapshot after; null if `closed_ts_ns` is null."),
    ] = None
    update_id_after: Annotated[
        int | None, Meta(description="`u` of the snapshot after; null if `closed_ts_ns` is null.")
    ] = None
    sequence_after: Annotated[
        int | None, Meta(description="`seq` of the snapshot after; null if `closed_ts_ns` is null.")
    ] = None
    duration_s: Annotated[
        Seconds | None,
        Meta(description="Duration by our monotonic clock; null while open."),
    ] = None
