"""
Gaps: the intervals in which a stream of one symbol could not be trusted.

Decides the fields of a gap, of the ``gap.*`` messages, and how many gaps a worker remembers. The
events that open and close a gap are decided by the worker.
"""

from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar

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
from bybit_pipeline.shared.wire.messages import Category, Source

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
GapReason = Literal[TradesGapReason, BookGapReason, "stopped"]
"""``stopped``: the pipeline did not run."""

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
    reason: Literal[TradesGapReason, "stopped"]
    start_ms: int
    source: Source | None = None
    end_ms: int | None = None
    sequence_before: int | None = None
    trade_id_before: str | None = None
    sequence_after: int | None = None
    trade_id_after: str | None = None
    duration_s: float | None = None
    complete: bool = False
    """True if no trade is missing: those of the gap were only late."""

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
    reason: Literal[BookGapReason, "stopped"]
    opened_ts_ns: int | None
    start_ms: int | None
    update_id_before: int | None
    sequence_before: int | None
    received_update_id: int | None
    source: Source | None = None
    """None until the first message of the book."""
    closed_ts_ns: int | None = None
    end_ms: int | None = None
    update_id_after: int | None = None
    sequence_after: int | None = None
    duration_s: float | None = None
    """``end_ms - start_ms``, or the time for which it was not live by our clock, if longer."""
    complete: bool = False
    """True if no update is missing: those of the gap were only late."""

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
    The open gaps of a worker, the last ``limit`` closed ones, and those not reported yet.

    Closed gaps are kept packed, which takes half of the memory: they are rarely read.

    Args:
        gap_type: Type of the gaps.
        limit: Number of closed gaps kept.
        last_id: Number below all ids given out here.
    """

    def __init__(self, gap_type: type[G], limit: int = 10_000, *, last_id: int = 0) -> None:
        self._limit = limit
        self._open: dict[int, G] = {}
        self._closed: dict[int, bytes] = {}
        self._changed: dict[int, G] = {}
        self._last_id = last_id
        self._pack = msgspec.msgpack.Encoder().encode
        self._unpack = msgspec.msgpack.Decoder(gap_type).decode

    def __len__(self) -> int:
        """Number of gaps kept."""
        return len(self._open) + len(self._closed)

    def new_id(self) -> int:
        """The number of the next gap."""
        self._last_id += 1
        return self._last_id

    def put(self, gap: G) -> None:
        """Record a gap, or its new values if it is there already."""
        self._note_change(gap)
        if gap.is_open:
            self._open[gap.gap_id] = gap
            return
        self._open.pop(gap.gap_id, None)
        self._closed[gap.gap_id] = self._pack(gap)
        if len(self._closed) > self._limit:
            del self._closed[next(iter(self._closed))]

    def forget(self, gap: G) -> None:
        """Remove an open gap that ended with its topic; ``gap`` has the end."""
        self._note_change(gap)
        self._open.pop(gap.gap_id, None)

    def leave_open(self, gap: G) -> None:
        """Remove a gap of an earlier process that this one cannot close."""
        self._open.pop(gap.gap_id, None)
        self._changed.pop(gap.gap_id, None)

    def gaps(self) -> list[G]:
        """The gaps kept, in the order in which they opened."""
        gaps = [*map(self._unpack, self._closed.values()), *self._open.values()]
        return sorted(gaps, key=_by_id)

    def take_changes(self) -> list[G]:
        """Return the gaps that are new or changed since the last call, oldest first."""
        if not self._changed:
            return []
        changed, self._changed = self._changed, {}
        return list(changed.values())

    def _note_change(self, gap: G) -> None:
        """Nobody takes the changes of a ledger without a supervisor, so their number is limited."""
        self._changed.pop(gap.gap_id, None)
        self._changed[gap.gap_id] = gap
        if len(self._changed) > self._limit:
            del self._changed[next(iter(self._changed))]


def _by_id(gap: _Gap) -> int:
    return gap.gap_id


# -- messages --------------------------------------------------------------------------------------
#
# They have the fields of a gap again, because a record can have only one base. To build one:
# TradesGapEvent(..., event="opened", **event_fields(gap)).


def event_fields(gap: TradesGap | BookGap) -> dict[str, Any]:
    """Return the fields of a gap that are not among the common fields of a message."""
    fields = msgspec.structs.asdict(gap)
    for name in ("category", "symbol", "source"):
        del fields[name]
    return fields


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
        Meta(description="Number of the gap, the same in all its events and in the gap ledger."),
    ]
    reason: Annotated[Literal[TradesGapReason, "stopped"], Meta(description="Cause of the gap.")]
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
    complete: Annotated[
        bool,
        Meta(description="True if nothing of the gap is missing: its messages were only late."),
    ] = False


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
        Meta(description="Number of the gap, the same in its events and in the gap ledger."),
    ]
    reason: Annotated[Literal[BookGapReason, "stopped"], Meta(description="Cause of the gap.")]
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
        Meta(
            description="`end_ms - start_ms` in seconds, or the time for which the book was not "
            "`live` by our clock, if that is longer; null while open."
        ),
    ] = None
    complete: Annotated[
        bool,
        Meta(description="True if nothing of the gap is missing: its messages were only late."),
    ] = False
