"""
The orderbook worker: book and trade topics in; ``orderbook.*``, ``density.*`` and ``gap.*`` out.

Moves messages between the market bus, the manager and the forwarder, requests the resyncs that the
manager calls for, and decides when a metric is due: at once when the state of a book changes, else
a publish interval after the last metric of a book that changed, and always within a second. The
numbers are computed in
``measures`` and ``walls``; ``local_book`` decides which books are trusted.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any, ClassVar

import structlog

from bybit_pipeline.processes.orderbook.counters import OrderbookCounters
from bybit_pipeline.processes.orderbook.local_book import GapNote
from bybit_pipeline.processes.orderbook.manager import BookKey, OrderBookManager
from bybit_pipeline.processes.orderbook.market import BookMarket
from bybit_pipeline.shared.bus.market import Received
from bybit_pipeline.shared.freshness.link import LinkDoubt
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.runtime.worker import SILENT_S, Worker
from bybit_pipeline.shared.settings.specs import Assignment, OrderbookSpec
from bybit_pipeline.shared.wire.gaps import BookGap, BookGapEvent, GapLedger
from bybit_pipeline.shared.wire.messages import BookMessage, LinkMessage, TradesMessage
from bybit_pipeline.shared.wire.metrics import Metric
from bybit_pipeline.shared.wire.orderbook import Density, Orderbook
from bybit_pipeline.shared.wire.progress import Progress
from bybit_pipeline.shared.wire.topics import market_topic

log = structlog.get_logger()

RESYNC_TICK_S = 0.1
IDLE_S = 0.7
"""Interval after which a book that did not change is published again."""
SILENCE_TICK_S = 0.25
LOG_TICK_S = 1.0
NOT_LIVE_MAX = 100
"""Upper limit of the books listed by name in the status."""
LOGGED_TOPICS = 5


class OrderbookWorker(Worker):
    """Keep one book per symbol; publish its metrics after every change."""

    role: ClassVar[str] = "orderbook"

    def __init__(
        self, spec: OrderbookSpec, *, clock: Clock | None = None, telemetry: Telemetry | None = None
    ) -> None:
        super().__init__(
            spec,
            spec.assignments,
            spec.metrics_in,
            spec.settings.publish_interval_ms / 1_000,
            last_gap_id=spec.last_gap_id,
            clock=clock,
            telemetry=telemetry,
        )
        self.spec = spec
        self.manager = OrderBookManager(spec.settings, spec.density, last_gap_id=spec.last_gap_id)
        self._books: dict[bytes, BookMarket] = {}
        """By market bus topic of the book."""
        self._trades: dict[bytes, tuple[BookKey, str]] = {}
        """Book and connector, by market bus topic of the trades."""
        self._state_changes: Counter[str] = Counter()
        """State changes not logged yet, by reason, or ``live``."""
        self._counters = OrderbookCounters(
            self.telemetry,
            self.process,
            self.manager,
            self._books,
            per_symbol=spec.per_symbol,
        )
        self._published = self._counters.published
        self.manager.advance(self.clock.monotonic())
        for assignment in spec.assignments:
            self.assign(assignment)

    # -- sockets and timers ----------------------------------------------------------------------

    def on_start(self) -> None:
        """Connect to the connectors and the forwarder; start the timers."""
        super().on_start()
        self.every(self.scheduler.tick_s, self._on_publish_timer)
        self.every(RESYNC_TICK_S, self._on_resync_timer)
        self.every(SILENCE_TICK_S, self._on_silence_timer)
        self.every(LOG_TICK_S, self._log_state_changes)

    def on_turn(self) -> None:
        """Pass the time to the manager."""
        self.manager.advance(self.clock.monotonic())

    def status(self) -> dict[str, Any]:
        """Return books by state, the names of those not live, and counts since the start."""
        manager = self.manager
        now = self.clock.monotonic()
        not_live = {
            book.topic: (round(seconds, 1), book.reason or book.state)
            for book in manager.books.values()
            if (seconds := book.not_live_s(now)) is not None
        }
        listed = dict(itertools.islice(not_live.items(), NOT_LIVE_MAX))
        return {
            "books": manager.states(),
            "not_live": {topic: seconds for topic, (seconds, _) in listed.items()},
            "not_live_reasons": {topic: reason for topic, (_, reason) in listed.items()},
            "messages": manager.counts.messages,
            "ignored": manager.counts.ignored,
            "gaps": sum(manager.counts.invalidated.values()),
            "resyncs_requested": manager.counts.requested,
            "resyncs_recovered": manager.counts.recovered,
            "metrics": int(sum(cell.value for cell in self._published.values())),
            **self.socket_status(),
        }

    def _on_publish_timer(self) -> None:
        self.begin_turn()
        self._publish(self.publish_due())

    def _on_resync_timer(self) -> None:
        self.begin_turn()
        for request in self.manager.due_resyncs():
            self.send_control("resync", topic=request.topic, reason=request.reason)

    def _on_silence_timer(self) -> None:
        self.begin_turn()
        silent = self.manager.check_silence()
        if silent:
            for book in silent:
                self.observe_frozen(self.manager.now - book.received_at)
            self._publish(self._publish_changes(self._books.values()))

    # -- assignments -----------------------------------------------------------------------------

    def assign(self, assignment: Assignment) -> None:
        """Follow one more book, or the trades of one; repeating it changes nothing."""
        stream, connector = assignment.stream, assignment.connector
        key, topic = (stream.category, stream.symbol), stream.topic_bytes
        self.follow_connector(connector)
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
                stale_after_s=stream.stale_after_s,
                gap=assignment.gap if isinstance(assignment.gap, BookGap) else None,
            )
            self._books[topic] = BookMarket(book, self.spec.settings, self.process)

    def final_metrics(self, topic: bytes) -> Iterator[Metric]:
        """Yield the last metrics of a book: it is stale, its walls are removed, its gap ends."""
        market = self._books.get(topic)
        if market is None:
            return
        market.book.forget(self.manager.now)
        market.published_state = market.state  # requested, so it is not logged as a change
        now_ns = self.clock.time_ns()
        yield from self._market_metrics(market, now_ns)
        yield from self._gap_metrics(market, now_ns)

    def unassign(self, topic: bytes) -> list[bytes]:
        """Drop a topic; return the metric topics of the book if it was one."""
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
        Apply one message of the market bus; return the metrics to publish at once.

        Usually there are none: the metrics of a book whose state did not change are due later.
        """
        topic, message, lost = received.topic, received.message, received.lost
        manager = self.manager
        market = self._books.get(topic)
        if market is not None:
            assert isinstance(message, BookMessage), "by its topic"
            manager.counts.messages += 1
            if market.book.apply(message, manager.now, lost):
                return self._publish_changes([market])
            return ()
        trades = self._trades.get(topic)
        if trades is not None:
            assert isinstance(message, TradesMessage), "by its topic"
            self._counters.trade_messages.value += 1
            book = manager.books.get(trades[0])
            if book is not None:
                book.on_trades(message, lost)
            return ()
        connector = self.connector_of(topic)
        if connector is None:
            return ()
        assert isinstance(message, LinkMessage), "by its topic"
        manager.on_link(connector, message)
        return self._publish_changes(self._books.values())

    def on_connector_gone(self, connector: str) -> Iterator[Metric]:
        """Invalidate the books of a connector whose process ended."""
        self.manager.on_link_lost(connector, self.clock.time_ns(), "process_down")
        return self._publish_changes(self._books.values())

    def on_doubt(self, connector: str, doubt: LinkDoubt | None) -> Iterator[Metric]:
        """Doubt the books of a connector, or trust them again."""
        self.manager.doubt_link(connector, doubt)
        return self._publish_changes(self._books.values())

    @property
    def gap_ledger(self) -> GapLedger[BookGap]:
        """The gaps of all books."""
        return self.manager.ledger

    def progress(self) -> Iterator[Progress]:
        """Yield the last message of every live book."""
        for book in self.manager.books.values():
            last = book.book.last
            if book.state == "live" and last is not None:
                yield Progress(
                    "book",
                    book.category,
                    book.symbol,
                    last.source,
                    last.exchange_ts_ms,
                    last.update_id,
                    last.sequence,
                )

    def publish_due(self) -> Iterator[Metric]:
        """
        Yield the metrics of changed books that were last published an interval ago.

        A book that did not change is due once a second, a little early so that many books do not
        come due in the same turn.
        """
        now_ns, now = self.clock.time_ns(), self.manager.now
        idle = now - IDLE_S
        latest = max(now - self.interval_s, idle)
        last_chance = now + self.scheduler.tick_s - SILENT_S
        due = [
            market
            for market in self._books.values()
            if market.visited_at <= latest
            and (
                market.book.is_changed
                or market.book.walls_due <= now
                or market.published_at <= idle
            )
            and market.book.source is not None
        ]
        due.sort(key=attrgetter("published_at"))
        quota = self.scheduler.take_quota(len(self._books))
        for place, market in enumerate(due):
            if place >= quota and market.published_at > last_chance:
                break  # the others were published later
            book = market.book
            if book.is_changed or market.published_at <= idle:
                yield from self._market_metrics(market, now_ns)
            else:
                book.update_walls(now)
                market.visited_at = now
                if book.walls.has_events:
                    yield from self._market_metrics(market, now_ns)

    def publish_all(self) -> Iterator[Metric]:
        """Yield the metrics of every book."""
        now_ns = self.clock.time_ns()
        for market in self._books.values():
            yield from self._market_metrics(market, now_ns)

    def _publish_changes(self, markets: Iterable[BookMarket]) -> Iterator[Metric]:
        """Yield the metrics of the books whose state changed, and the events of their gaps."""
        now_ns = self.clock.time_ns()
        for market in markets:
            if market.published_state != market.state:
                yield from self._market_metrics(market, now_ns)
            yield from self._gap_metrics(market, now_ns)

    def _market_metrics(self, market: BookMarket, now_ns: int) -> Iterator[Metric]:
        """Yield the wall events and the metric of one book, once its source is known."""
        book = market.book
        if book.source is None:
            return
        if book.generation != market.generation:
            if market.generation:
                log.info("source changed", topic=book.topic, source=book.source)
                yield from self._end_epoch(market, now_ns)
            market.start_epoch(self.next_epoch())
        book.update_walls(self.manager.now)
        if book.walls.has_events:
            yield from self._wall_metrics(market, now_ns)
        state = market.state
        if market.published_state != state:
            market.published_state = state
            self.report_soon()
            if book.reason != "starting":
                self._state_changes[book.reason or book.state] += 1
        is_changed = book.is_changed
        record = market.orderbook(now_ns, self.manager.now, self.alive_ts_ns(book.connector))
        if is_changed and record.recv_ts_ns is not None:
            self._metric_latency.observe((now_ns - record.recv_ts_ns) / 1e9)
        yield self._metric(market, record)

    def _end_epoch(self, market: BookMarket, now_ns: int) -> Iterator[Metric]:
        """Yield what a change of source did to the old book: walls removed, a gap opened."""
        yield from self._wall_metrics(market, now_ns)
        for note in market.book.take_gap_notes("opened"):
            yield self._gap_metric(market, note, now_ns)

    def _wall_metrics(self, market: BookMarket, now_ns: int) -> Iterator[Metric]:
        """Yield the events of a book's walls."""
        for event in market.book.walls.take_events():
            self._counters.wall_events[event.event].value += 1
            alive_ts_ns = self.alive_ts_ns(market.book.connector)
            yield self._metric(market, market.wall_event(event, now_ns, alive_ts_ns))

    def _gap_metrics(self, market: BookMarket, now_ns: int) -> Iterator[Metric]:
        """Yield the events of a book's gaps, once its first epoch has started."""
        if market.generation:
            for note in market.book.take_gap_notes():
                yield self._gap_metric(market, note, now_ns)

    def _gap_metric(self, market: BookMarket, note: GapNote, now_ns: int) -> Metric:
        alive_ts_ns = self.alive_ts_ns(market.book.connector)
        return self._metric(market, market.gap_event(note, now_ns, alive_ts_ns))

    def _metric(self, market: BookMarket, record: Orderbook | Density | BookGapEvent) -> Metric:
        kind = record.kind
        self._published[kind].value += 1
        return Metric(market.topics[kind], record)

    # -- log -------------------------------------------------------------------------------------

    def _log_state_changes(self) -> None:
        """Log the state changes of all books, in up to two lines per call."""
        changes = self._state_changes
        live = changes.pop("live", 0)
        if changes:
            names = [book.topic for book in self.manager.books.values() if book.reason]
            log.warning("books not live", **changes, topics=names[:LOGGED_TOPICS])
            changes.clear()
        if live:
            log.info("books live", books=live, **self.manager.states())
