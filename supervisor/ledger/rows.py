"""
Rows of the gap ledger: gaps, and the intervals in which topics were followed. Pure.

A row names its pipeline by the absolute path of its run directory. Two pipelines cannot share that
directory, and a restarted pipeline finds its own rows again by it.
"""

from typing import Any, Literal, NamedTuple

import msgspec

from bybit_pipeline.shared.settings.specs import Stream
from bybit_pipeline.shared.wire.gaps import BookGap, GapReason, TradesGap
from bybit_pipeline.shared.wire.messages import Category, Source

GapStream = Literal["book", "trades"]
RepairedBy = Literal["line", "rest"]


class TopicKey(NamedTuple):
    """One stream of one symbol."""

    stream: GapStream
    category: Category
    symbol: str


def topic_key(stream: Stream) -> TopicKey:
    """Return the key of a stream of the plan."""
    return TopicKey("book" if stream.kind == "book" else "trades", stream.category, stream.symbol)


class GapRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One gap, as ``gaps --json`` prints it."""

    gap_id: int
    """Unique in the ledger; below 2**53, so that every JSON reader keeps it exactly."""
    pipeline: str
    source: Source | None
    """None until the first data of the topic."""
    network: str
    stream: GapStream
    category: Category
    symbol: str
    reason: GapReason
    start_ms: int | None = None
    end_ms: int | None = None
    duration_s: float | None = None
    """None while the gap is open."""
    opened_ts_ns: int | None = None
    closed_ts_ns: int | None = None
    update_id_before: int | None = None
    update_id_after: int | None = None
    received_update_id: int | None = None
    sequence_before: int | None = None
    sequence_after: int | None = None
    trade_id_before: str | None = None
    trade_id_after: str | None = None
    repaired_by: RepairedBy | None = None
    complete: bool = False
    """True if nothing of the gap is missing any more."""

    @property
    def is_open(self) -> bool:
        """True until the stream can be trusted again."""
        return self.duration_s is None

    @property
    def key(self) -> TopicKey:
        """The stream that could not be trusted."""
        return TopicKey(self.stream, self.category, self.symbol)

    def gap(self) -> BookGap | TradesGap:
        """Return the gap as its worker knows it."""
        if self.stream == "book":
            return msgspec.convert(self, BookGap, from_attributes=True)
        return msgspec.convert(self, TradesGap, from_attributes=True)


FIELDS = GapRow.__struct_fields__


def make_row(gap: BookGap | TradesGap, *, pipeline: str, network: str) -> GapRow:
    """Return the row of a gap that a worker reported."""
    fields: dict[str, Any] = msgspec.structs.asdict(gap)
    stream: GapStream = "book" if isinstance(gap, BookGap) else "trades"
    return GapRow(pipeline=pipeline, network=network, stream=stream, **fields)


class Followed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    An interval in which a topic was followed, gaps included, in exchange time.

    It goes on over restarts of the pipeline: the time between two runs is a gap in it. It ends when
    the topic is unsubscribed or no longer configured. ``end_ms`` and the numbers are those of the
    last message applied.
    """

    pipeline: str
    source: Source
    network: str
    stream: GapStream
    category: Category
    symbol: str
    start_ms: int
    end_ms: int
    update_id: int | None = None
    sequence: int | None = None
    trade_id: str | None = None
    is_open: bool = True

    @property
    def key(self) -> TopicKey:
        """The stream that is followed."""
        return TopicKey(self.stream, self.category, self.symbol)
