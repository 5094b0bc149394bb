"""
One book as the worker publishes it: its epoch, the numbers of its messages, and the records.

Decides the fields of ``orderbook.*``, ``density.*`` and ``gap.*`` messages. The worker decides when
they are published.
"""

from typing import Literal, TypedDict

from msgspec.structs import asdict

from bybit_pipeline.processes.orderbook.local_book import GapNote, LocalBook
from bybit_pipeline.processes.orderbook.measures import BookMeasures
from bybit_pipeline.processes.orderbook.walls.tracker import WallEvent
from bybit_pipeline.shared.settings.config import OrderbookConfig
from bybit_pipeline.shared.wire.gaps import BookGapEvent, event_fields
from bybit_pipeline.shared.wire.messages import Category, Source
from bybit_pipeline.shared.wire.orderbook import BookState, Density, Orderbook
from bybit_pipeline.shared.wire.topics import metric_topic

MetricKind = Literal["orderbook", "density", "gap"]
METRIC_KINDS: tuple[MetricKind, ...] = ("orderbook", "density", "gap")


class _Common(TypedDict):
    """The common fields of a message without market data."""

    category: Category
    symbol: str
    source: Source
    process: str
    epoch: str
    seq: int
    alive_ts_ns: int | None
    publish_ts_ns: int
    state: BookState


class BookMarket:
    """
    The published side of one local book.

    Args:
        book: The book.
        settings: Measures to publish.
        process: Name of this worker.

    Attributes:
        topics: Metric topic by kind.
        generation: Generation of the book that is published; 0 before the first epoch. A book of a
            newer generation is not published until its epoch has started.
        published_at: Monotonic time of the last publication.
        visited_at: Monotonic time of the last publication, or of the last look at the walls alone.
        published_state: State, reason and generation of the last publication.
        mid_price, spread_bps, imbalance: Measures of the last publication, for Prometheus. Nothing
            else of it is kept: memory freed an interval later has left the caches by then.
    """

    __slots__ = (
        "_measures",
        "_process",
        "_sequences",
        "_source",
        "book",
        "epoch",
        "generation",
        "imbalance",
        "mid_price",
        "published_at",
        "published_state",
        "spread_bps",
        "topics",
        "visited_at",
    )

    def __init__(self, book: LocalBook, settings: OrderbookConfig, process: str) -> None:
        self.book = book
        self.topics = {
            kind: metric_topic(kind, book.category, book.symbol) for kind in METRIC_KINDS
        }
        self.generation = 0
        self.epoch = ""
        self.published_at = self.visited_at = float("-inf")
        self.published_state: tuple[str, str | None, int] | None = None
        self.mid_price: float | None = None
        self.spread_bps: float | None = None
        self.imbalance: dict[str, float | None] | None = None
        self._measures = BookMeasures(settings, book.category)
        self._process = process
        self._source: Source | None = None
        self._sequences = dict.fromkeys(METRIC_KINDS, 0)

    @property
    def state(self) -> tuple[str, str | None, int]:
        """State, reason and generation of the book, to compare with ``published_state``."""
        return self.book.state, self.book.reason, self.book.generation

    def start_epoch(self, epoch: str) -> None:
        """Publish the present generation of the book; messages count from 1 again."""
        self.generation = self.book.generation
        self.epoch = epoch
        self._source = self.book.source
        self._sequences = dict.fromkeys(METRIC_KINDS, 0)

    def orderbook(self, now_ns: int, now: float, alive_ts_ns: int | None) -> Orderbook:
        """
        Return the message about the book, and note its publication.

        Args:
            now_ns: Wall clock.
            now: Monotonic clock, in seconds.
            alive_ts_ns: When the exchange was last heard on the connection of the book.
        """
        book, source = self.book, self._source
        if book.state == "live":
            assert source is not None, "the first epoch has started"
            self._sequences["orderbook"] += 1
            record = self._measures.metric(
                book.book,
                symbol=book.symbol,
                source=source,
                process=self._process,
                epoch=self.epoch,
                seq=self._sequences["orderbook"],
                alive_ts_ns=alive_ts_ns,
                publish_ts_ns=now_ns,
                ofi=None if book.flow is None else book.flow.take(),
                walls=tuple(book.walls.records()),
            )
        else:
            record = Orderbook(**self._common("orderbook", now_ns, alive_ts_ns), reason=book.reason)
        book.is_changed = False
        self.published_at = self.visited_at = now
        self.mid_price = record.mid_price
        self.spread_bps = record.spread_bps
        self.imbalance = record.imbalance
        return record

    def wall_event(self, event: WallEvent, now_ns: int, alive_ts_ns: int | None) -> Density:
        """Return the message about an event of a wall."""
        match_ts_ms, exchange_ts_ms, recv_ts_ns = self._input_times()
        return Density(
            **self._common("density", now_ns, alive_ts_ns),
            match_ts_ms=match_ts_ms,
            exchange_ts_ms=exchange_ts_ms,
            recv_ts_ns=recv_ts_ns,
            event=event.event,
            **asdict(event.wall),
        )

    def gap_event(self, note: GapNote, now_ns: int, alive_ts_ns: int | None) -> BookGapEvent:
        """Return the message about the opening or the end of a gap."""
        match_ts_ms, exchange_ts_ms, recv_ts_ns = self._input_times()
        return BookGapEvent(
            **self._common("gap", now_ns, alive_ts_ns),
            match_ts_ms=match_ts_ms,
            exchange_ts_ms=exchange_ts_ms,
            recv_ts_ns=recv_ts_ns,
            event=note.event,
            **event_fields(note.gap),
        )

    def _common(self, kind: MetricKind, now_ns: int, alive_ts_ns: int | None) -> _Common:
        """
        Return the common fields, with the next number of this topic.

        Between a change of source and the new epoch they describe the old source: stale.
        """
        assert self._source is not None, "the first epoch has started"
        self._sequences[kind] += 1
        return {
            "category": self.book.category,
            "symbol": self.book.symbol,
            "source": self._source,
            "process": self._process,
            "epoch": self.epoch,
            "seq": self._sequences[kind],
            "alive_ts_ns": alive_ts_ns,
            "publish_ts_ns": now_ns,
            "state": self.book.state if self._is_current() else "stale",
        }

    def _input_times(self) -> tuple[int | None, int | None, int | None]:
        """Return the times of the newest input: match, push and receipt; None unless live."""
        last = self.book.book.last
        if last is None or self.book.state != "live" or not self._is_current():
            return None, None, None
        return last.match_ts_ms, last.exchange_ts_ms, last.recv_ts_ns

    def _is_current(self) -> bool:
        return self.generation == self.book.generation
