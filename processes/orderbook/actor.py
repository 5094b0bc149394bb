"""
The orderbook worker: its share of the books in, ``orderbook.*``, ``density.*``, ``gap.*`` out.

Moves messages between the market bus, the manager and the forwarder, and decides when a metric is
due: at once when a book's state changed, else a publish interval after the previous one of a book
that changed. It asks for the resyncs that the manager wants. What the numbers are is in
``measures`` and ``density``, what can be trusted in ``followed``.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any, ClassVar

import msgspec
import structlog

from bybit_pipeline.processes.orderbook.ledger import GapNote
from bybit_pipeline.processes.orderbook.local_book import STATES, BookState, LocalBook
from bybit_pipeline.processes.orderbook.manager import BookKey, OrderBookManager
from bybit_pipeline.processes.orderbook.measures import MEASURES, BookMeasures
from bybit_pipeline.processes.orderbook.walls.tracker import WallEvent
from bybit_pipeline.processes.orderbook.walls.verdict import EVENTS
from bybit_pipeline.shared.bus.market import Received
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.runtime.scheduling import PublishScheduler
from bybit_pipeline.shared.runtime.telemetry import Samples, Telemetry
from bybit_pipeline.shared.runtime.worker import Worker
from bybit_pipeline.shared.settings.specs import Assignment, OrderbookSpec
from bybit_pipeline.shared.wire.messages import (
    SCHEMA_VERSION,
    BookMessage,
    LinkMessage,
    TradesMessage,
)
from bybit_pipeline.shared.wire.metrics import Metric, Wall
from bybit_pipeline.shared.wire.topics import link_topic, market_topic, metric_topic

log = structlog.get_logger()

RESYNC_TICK_S = 0.1
SLOW_TICK_S = 1.0
NAMES_MAX = 100
"""Books that are not live and named in the status."""
GAUGES = ("mid_price", "spread_bps", "imbalance")
"""
The measures Prometheus is told. No others are kept: what is freed an interval later has left the
caches by then, which cost 7 us of a metric's 125 with hundreds of books.
"""


class BookMarket:
    """What the worker knows of one book besides its state: topics, numbers, what was published."""

    __slots__ = (
        "book",
        "bus_topic",
        "epoch",
        "gauges",
        "generation",
        "measures",
        "published_at",
        "published_state",
        "sequences",
        "source",
        "topics",
    )

    def __init__(self, book: LocalBook, measures: BookMeasures, bus_topic: bytes) -> None:
        self.book = book
        self.measures = measures
        self.bus_topic = bus_topic
        self.topics = {
            kind: metric_topic(kind, book.category, book.symbol)
            for kind in ("orderbook", "density", "gap")
        }
        self.generation = 0
        self.epoch = ""
        self.source = book.source
        self.sequences = dict.fromkeys(self.topics, 0)
        self.published_at = float("-inf")
        self.published_state: tuple[str, str | None, int] | None = None
        self.gauges: dict[str, Any] = dict.fromkeys(GAUGES)
        """Of the measures that were published last."""

    def start_epoch(self, epoch: str) -> None:
        """Number the messages of every topic from 1 again."""
        self.generation = self.book.generation
        self.epoch = epoch
        self.source = self.book.source
        self.sequences = dict.fromkeys(self.topics, 0)


class OrderbookWorker(Worker):
    """Keep one book per symbol; publish its metrics after every change."""

    role: ClassVar[str] = "orderbook"

    def __init__(
        self, spec: OrderbookSpec, *, clock: Clock | None = None, telemetry: Telemetry | None = None
    ) -> None:
        interval_s = spec.settings.publish_interval_ms / 1_000
        super().__init__(
            spec,
            spec.assignments,
            spec.metrics_in,
            PublishScheduler(interval_s),
            clock=clock,
            telemetry=telemetry,
        )
        self.spec = spec
        self.manager = OrderBookManager(spec.settings, spec.density)
        self._books: dict[bytes, BookMarket] = {}
        """By market bus topic of the book."""
        self._trades: dict[bytes, tuple[BookKey, str]] = {}
        """Book and connector by market bus topic of the trades."""
        self._links: dict[bytes, str] = {}
        """Connector by its link topic."""
        self._interval_s = interval_s
        self._news: Counter[str] = Counter()
        """State changes that were not logged yet, by reason."""
        self._declare_counters()
        self.manager.advance(self.clock.monotonic())
        for assignment in spec.assignments:
            self.assign(assignment)

    # -- sockets ---------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Connect to the connectors and the forwarder; begin to publish and to ask."""
        super().on_start()
        self.every(self.scheduler.tick_s, self._on_publish_timer)
        self.every(RESYNC_TICK_S, self._on_resync_timer)
        self.every(SLOW_TICK_S, self._on_slow_timer)

    def on_turn(self) -> None:
        """Bring the manager the time."""
        self.manager.advance(self.clock.monotonic())

    def status(self) -> dict[str, Any]:
        """Books by state, those that are not live by name, and counts since the start."""
        manager = self.manager
        now = self.clock.monotonic()
        not_live = {
            book.topic: round(seconds, 1)
            for book in manager.books.values()
            if (seconds := book.not_live_s(now)) is not None
        }
        return {
            "books": manager.states(),
            "not_live": dict(itertools.islice(not_live.items(), NAMES_MAX)),
            "messages": manager.counts.messages,
            "ignored": manager.counts.ignored,
            "gaps": sum(manager.counts.invalidated.values()),
            "resyncs_requested": manager.counts.requested,
            "resyncs_recovered": manager.counts.recovered,
            "metrics": int(sum(cell.value for cell in self._published.values())),
            **self.socket_status(),
        }

    def _on_publish_timer(self) -> None:
        self.manager.advance(self.clock.monotonic())
        self._publish(self.publish_due())

    def _on_resync_timer(self) -> None:
        self.manager.advance(self.clock.monotonic())
        for request in self.manager.due_resyncs():
            self.send_control("resync", topic=request.topic, reason=request.reason)

    def _on_slow_timer(self) -> None:
        self.manager.advance(self.clock.monotonic())
        if self.manager.check_silence():
            self._publish(self._tell(self._books.values()))
        self._log_news()

    # -- who is followed -------------------------------------------------------------------------

    def assign(self, assignment: Assignment) -> None:
        """Follow one more book, or the trades of one; a second time changes nothing."""
        stream, connector = assignment.stream, assignment.connector
        key, topic = (stream.category, stream.symbol), stream.topic_bytes
        self._links[link_topic(connector)] = connector
        if stream.kind == "trade":
            self._trades[topic] = (key, connector)
            if key in self.manager.books:
                self.manager.books[key].follow_trades(connector)
        elif topic not in self._books:
            trades = self._trades.get(market_topic("trade", *key))
            book = self.manager.subscribe(
                stream.symbol,
                stream.category,
                depth=stream.depth,
                connector=connector,
                trades_connector=trades[1] if trades else None,
            )
            measures = BookMeasures(self.spec.settings, stream.category)
            self._books[topic] = BookMarket(book, measures, topic)

    def final_metrics(self, topic: bytes) -> Iterator[Metric]:
        """The last word about a book: it is stale, its walls are gone, its gap has ended."""
        market = self._books.get(topic)
        if market is None:
            return
        book, now_ns = market.book, self.clock.time_ns()
        book.forget(self.manager.now)
        market.published_state = (book.state, book.reason, book.generation)  # no news: it was asked
        yield from self._market_metrics(market, now_ns)
        for note in self.manager.ledger.take_notes():
            yield from self._gap_metric(note, now_ns)

    def unassign(self, topic: bytes) -> list[bytes]:
        """Follow a topic no longer; the metric topics of the book, if it was one."""
        trades = self._trades.pop(topic, None)
        if trades is not None and trades[0] in self.manager.books:
            self.manager.books[trades[0]].follow_trades(None)
        market = self._books.pop(topic, None)
        if market is None:
            return []
        self.manager.unsubscribe(market.book.symbol, market.book.category)
        return list(market.topics.values())

    # -- messages in, metrics out ----------------------------------------------------------------

    def on_message(self, received: Received) -> Iterable[Metric]:
        """
        Take in one message of the market bus; what has to be said about it at once.

        Mostly nothing: metrics of a book that only changed are due later.
        """
        topic, message, lost = received.topic, received.message, received.lost
        manager = self.manager
        market = self._books.get(topic)
        if market is not None:
            assert isinstance(message, BookMessage), "the topic says so"
            manager.counts.messages += 1
            return self._tell([market]) if market.book.apply(message, manager.now, lost) else ()
        trades = self._trades.get(topic)
        if trades is not None:
            assert isinstance(message, TradesMessage), "the topic says so"
            self._trade_messages.value += 1
            book = manager.books.get(trades[0])
            if book is not None:
                book.on_trades(message, lost)
            return ()
        connector = self._links.get(topic)
        if connector is None:
            return ()
        assert isinstance(message, LinkMessage), "the topic says so"
        manager.on_link(connector, message)
        return self._tell(self._books.values())

    def on_connector_gone(self, connector: str) -> Iterator[Metric]:
        """Its books are not live any more."""
        self.manager.on_link_lost(connector, self.clock.time_ns())
        return self._tell(self._books.values())

    def gap_rows(self) -> list[dict[str, Any]]:
        """The gap ledger as it is listed for people."""
        return [{"stream": "book", **gap._asdict()} for gap in self.manager.ledger.gaps()]

    def _tell(self, markets: Iterable[BookMarket]) -> Iterator[Metric]:
        """What changed in the state of these books, then what became of gaps."""
        now_ns = self.clock.time_ns()
        for market in markets:
            book = market.book
            if market.published_state != (book.state, book.reason, book.generation):
                yield from self._market_metrics(market, now_ns)
        for note in self.manager.ledger.take_notes():
            yield from self._gap_metric(note, now_ns)

    def publish_due(self) -> Iterator[Metric]:
        """The metrics of the books that changed, a publish interval after their last ones."""
        now_ns, now = self.clock.time_ns(), self.manager.now
        latest = now - self._interval_s
        due = [
            market
            for market in self._books.values()
            if market.published_at <= latest
            and (market.book.is_changed or market.book.walls_due <= now)
            and market.book.source is not None
        ]
        due.sort(key=attrgetter("published_at"))
        for market in due[: self.scheduler.take_quota(len(self._books))]:
            book = market.book
            if book.is_changed:
                yield from self._market_metrics(market, now_ns)
            else:
                book.update_walls(now)
                market.published_at = now
                if book.walls.has_events:
                    yield from self._market_metrics(market, now_ns)

    def publish_all(self) -> Iterator[Metric]:
        """The metrics of every book."""
        now_ns = self.clock.time_ns()
        for market in self._books.values():
            yield from self._market_metrics(market, now_ns)

    # -- payloads --------------------------------------------------------------------------------

    def _market_metrics(self, market: BookMarket, now_ns: int) -> Iterator[Metric]:
        """The events and the metric of one book; nothing before the source is known."""
        book = market.book
        if book.source is None:
            return
        if book.generation != market.generation:
            if market.generation:
                log.info("source changed", topic=book.topic, source=book.source)
                yield from self._end_epoch(market, now_ns)
            market.start_epoch(self.next_epoch())
        densities: list[Wall] = []
        measures = MEASURES
        last = book.book.last if book.state == "live" else None
        if last is not None:
            book.update_walls(self.manager.now)
            measures = market.measures.of(book.book)
            if book.flow is not None:
                measures["ofi"] = book.flow.take()
            densities = book.walls.walls()
            if book.is_changed:
                self._metric_latency.observe((now_ns - last.recv_ts_ns) / 1e9)
        for event in book.walls.take_events():
            yield self._wall_metric(market, event, now_ns)
        state = (book.state, book.reason, book.generation)
        if market.published_state != state:
            market.published_state = state
            if book.reason != "starting":
                self._news[book.reason or book.state] += 1
        book.is_changed = False
        market.published_at = self.manager.now
        market.gauges = {name: measures[name] for name in GAUGES}
        yield self._metric(
            market,
            "orderbook",
            now_ns,
            {
                "reason": book.reason,
                "update_id": last.update_id if last else None,
                "sequence": last.sequence if last else None,
                **measures,
                "densities": densities,
            },
        )

    def _end_epoch(self, market: BookMarket, now_ns: int) -> Iterator[Metric]:
        """What the change of source did to the book of the old one."""
        book = market.book
        for event in book.walls.take_events():
            yield self._wall_metric(market, event, now_ns)
        for note in self.manager.ledger.take_opened(book.category, book.symbol):
            yield from self._gap_metric(note, now_ns)

    def _wall_metric(self, market: BookMarket, event: WallEvent, now_ns: int) -> Metric:
        self._wall_cells[event.event].value += 1
        fields = {"event": event.event, **msgspec.structs.asdict(event.wall)}
        return self._metric(market, "density", now_ns, fields)

    def _gap_metric(self, note: GapNote, now_ns: int) -> Iterator[Metric]:
        market = self._books.get(market_topic("book", note.gap.category, note.gap.symbol))
        if market is not None and market.generation:
            fields = {"stream": "book", "event": note.event, **note.gap._asdict()}
            yield self._metric(market, "gap", now_ns, fields)

    def _metric(self, market: BookMarket, kind: str, now_ns: int, fields: dict[str, Any]) -> Metric:
        """
        A message of one of the market's topics: the common fields, then its own.

        Until the epoch of a new source begins it is about the book of the old one.
        """
        book = market.book
        state = book.state if book.generation == market.generation else "stale"
        last = book.book.last if state == "live" else None
        market.sequences[kind] += 1
        self._published[kind].value += 1
        payload = {
            "v": SCHEMA_VERSION,
            "kind": kind,
            "category": book.category,
            "symbol": book.symbol,
            "source": market.source,
            "process": self.process,
            "epoch": market.epoch,
            "seq": market.sequences[kind],
            "state": state,
            "match_ts_ms": last.match_ts_ms if last else None,
            "exchange_ts_ms": last.exchange_ts_ms if last else None,
            "recv_ts_ns": last.recv_ts_ns if last else None,
            "publish_ts_ns": now_ns,
        }
        return Metric(market.topics[kind], payload | fields)

    # -- counters and log ------------------------------------------------------------------------

    def _log_news(self) -> None:
        """One line a second at most for whatever happened to the states of books."""
        if self._news:
            live = self._news.pop("live", 0)
            if self._news:
                names = [book.topic for book in self.manager.books.values() if book.reason]
                log.warning("books not live", **self._news, topics=names[:5])
                self._news.clear()
            if live:
                log.info("books live", books=live, **self.manager.states())

    def _declare_counters(self) -> None:
        telemetry, process, counts = self.telemetry, self.process, self.manager.counts
        self._trade_messages = telemetry.counter(
            "worker_messages_total",
            "Market messages taken in.",
            process=process,
            stream="trade",
        )
        telemetry.counters(
            "worker_messages_total",
            "Market messages taken in.",
            ("process", "stream"),
            lambda: [((process, "book"), counts.messages)],
        )
        telemetry.counters(
            "book_gaps_total",
            "Live books that were trusted no longer.",
            ("process", "reason"),
            lambda: [((process, reason), number) for reason, number in counts.invalidated.items()],
        )
        telemetry.counters(
            "book_resyncs_total",
            "Books that a snapshot was asked for, and live after that.",
            ("process", "result"),
            lambda: [
                ((process, "requested"), counts.requested),
                ((process, "recovered"), counts.recovered),
            ],
        )
        telemetry.counters(
            "book_deltas_ignored_total",
            "Deltas without a snapshot to apply them to.",
            ("process",),
            lambda: [((process,), counts.ignored)],
        )
        telemetry.gauges(
            "books",
            "Books by state.",
            ("process", "state"),
            lambda: [((process, state), self._in_state(state)) for state in STATES],
        )
        self._wall_cells = {
            event: telemetry.counter(
                "densities_total", "Events of walls.", process=process, event=event
            )
            for event in EVENTS
        }
        self._published = {
            kind: telemetry.counter(
                "metrics_published_total", "Metrics published.", process=process, kind=kind
            )
            for kind in ("orderbook", "density", "gap")
        }
        telemetry.counters(
            "untrusted_seconds_total",
            "Time in which a topic could not be trusted.",
            ("category", "symbol", "kind"),
            self._untrusted_samples,
        )
        if self.spec.per_symbol:
            labels = ("category", "symbol")
            telemetry.gauges(
                "mid_price",
                "Mid price, in quote currency.",
                labels,
                lambda: self._gauge_samples("mid_price"),
            )
            telemetry.gauges(
                "spread_bps",
                "Spread, in basis points of the mid price.",
                labels,
                lambda: self._gauge_samples("spread_bps"),
            )
            telemetry.gauges(
                "imbalance_ratio",
                "Imbalance of the best levels, in [-1, 1].",
                (*labels, "levels"),
                self._imbalance_samples,
            )

    # Read by the exporter's thread: each takes one copy of what the loop changes.

    def _in_state(self, state: BookState) -> int:
        return self.manager.states()[state]

    def _untrusted_samples(self) -> Samples:
        now = self.clock.monotonic()
        for book in list(self.manager.books.values()):
            yield (book.category, book.symbol, "book"), book.untrusted_s(now)

    def _gauge_samples(self, name: str) -> Samples:
        for market in list(self._books.values()):
            value = market.gauges[name]
            if value is not None:
                yield (market.book.category, market.book.symbol), value

    def _imbalance_samples(self) -> Samples:
        for market in list(self._books.values()):
            for levels, value in (market.gauges["imbalance"] or {}).items():
                if value is not None:
                    yield (market.book.category, market.book.symbol, levels), value
