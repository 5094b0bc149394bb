"""
The trades worker: its part of the trade topics in, ``trades.*`` and ``gap.*`` metrics out.

Moves messages between the market bus, the aggregator and the forwarder, and decides when a metric
is due: one publish interval after the previous one if the market traded, at once when its state
changed, and always within a second. ``aggregator`` decides the numbers.
"""

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, ClassVar

import structlog

from bybit_pipeline.processes.trades.aggregator import TradesAggregator
from bybit_pipeline.processes.trades.market import TradesMarket
from bybit_pipeline.processes.trades.tape import GapNote, TradeTape
from bybit_pipeline.shared.bus.market import Received
from bybit_pipeline.shared.freshness.link import LinkDoubt
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.runtime.telemetry import Samples, Telemetry
from bybit_pipeline.shared.runtime.worker import SILENT_S, Worker
from bybit_pipeline.shared.settings.specs import Assignment, TradesSpec
from bybit_pipeline.shared.wire.gaps import GapLedger, TradesGap, TradesGapEvent, event_fields
from bybit_pipeline.shared.wire.messages import LinkMessage, TradesMessage
from bybit_pipeline.shared.wire.metrics import Metric
from bybit_pipeline.shared.wire.progress import Progress
from bybit_pipeline.shared.wire.topics import market_topic, topic_text
from bybit_pipeline.shared.wire.trades import Trades, unobserved_window

log = structlog.get_logger()

SILENCE_TICK_S = 0.25
RESYNC_TICK_S = 0.25
"""Interval between two looks for markets to request."""
RESYNC_MAX_S = 30.0
"""Delay of the requests for a market about which nothing is known; it doubles to the maximum."""
WAITED_MAX_S = 5.0
WAITED_MAX_NS = int(WAITED_MAX_S * 1e9)
"""
Maximum plausible time between websocket and worker. If a message seems to have waited longer, or a
negative time, our clock was set; the message then counts as received now. This may leave the
exchange's time a little behind, never ahead.
"""


class TradesWorker(Worker):
    """Keeps one tape per symbol and publishes its windows, also while nobody trades."""

    role: ClassVar[str] = "trades"

    def __init__(
        self, spec: TradesSpec, *, clock: Clock | None = None, telemetry: Telemetry | None = None
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
        self.aggregator = TradesAggregator(
            spec.settings.windows,
            quantiles=spec.settings.quantiles,
            volatility=spec.settings.volatility,
            last_gap_id=spec.last_gap_id,
        )
        self._markets: dict[bytes, TradesMarket] = {}
        """By market bus topic."""
        self._source_changes = 0
        """Source changes of the aggregator that are published already."""
        self._declare_counters()
        for assignment in spec.assignments:
            self.assign(assignment)

    # -- sockets ---------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Connect to the connectors and the forwarder; start the timers."""
        super().on_start()
        self.every(self.scheduler.tick_s, self._on_timer)
        self.every(SILENCE_TICK_S, self._on_silence_timer)
        self.every(RESYNC_TICK_S, self._request_resyncs)

    def status(self) -> dict[str, Any]:
        """Return counts since the start, and the number of markets by state."""
        states = dict.fromkeys(("live", "warming", "stale"), 0)
        for tape in self.aggregator.tapes():
            states[tape.state(self._steady_ns())] += 1
        counts = self.aggregator.counts
        return {
            "markets": len(self._markets),
            "states": states,
            "messages": int(self._messages.value),
            "trades": counts.taken,
            "duplicates": counts.duplicates,
            "invalid": counts.invalid,
            "gaps": len(self.aggregator.ledger),
            "metrics": int(self._published.value),
            **self.socket_status(),
        }

    def _request_resyncs(self) -> None:
        """
        Request a resync of the topics about which nothing is known.

        A worker that starts late missed their confirmations by the exchange, and a quiet market
        would show its source only with its next trade.
        """
        for topic in self.due_resyncs(self.clock.monotonic()):
            self.send_control("resync", topic=topic, reason="starting")

    def due_resyncs(self, now_s: float) -> Iterator[str]:
        """Yield the market bus topics for which a resync is due."""
        for topic, market in self._markets.items():
            if self._tape(market).source is not None:
                continue
            if market.resync_due is None:
                market.resync_due = now_s + market.resync_wait_s
            elif market.resync_due <= now_s:
                market.resync_wait_s = min(2 * market.resync_wait_s, RESYNC_MAX_S)
                market.resync_due = now_s + market.resync_wait_s
                yield topic_text(topic)

    def _on_timer(self) -> None:
        self.begin_turn()
        self._publish(self.publish_due())

    def _on_silence_timer(self) -> None:
        self.begin_turn()
        now_ns = self._steady_ns()
        silent_s, notes = self.aggregator.check_silence(now_ns)
        for seconds in silent_s:
            self.observe_frozen(seconds)
        if silent_s:
            self._publish(self._changes(notes))

    # -- subscriptions ---------------------------------------------------------------------------

    def assign(self, assignment: Assignment) -> None:
        """Follow one more symbol; repeating it changes nothing."""
        stream, connector = assignment.stream, assignment.connector
        topic = stream.topic_bytes
        if topic in self._markets:
            return
        self.follow_connector(connector)
        self.aggregator.subscribe(
            stream.symbol,
            stream.category,
            connector=connector,
            stale_after_s=stream.stale_after_s,
            gap=assignment.gap if isinstance(assignment.gap, TradesGap) else None,
        )
        tape = self.aggregator.tape(stream.symbol, stream.category)
        assert tape is not None, "just subscribed"
        self._markets[topic] = TradesMarket(tape, connector, self.next_epoch())

    def final_metrics(self, topic: bytes) -> Iterator[Metric]:
        """Yield the last metrics of a symbol: no numbers, and the end of its open gap."""
        market = self._markets.get(topic)
        if market is None:
            return
        source, settings = self._tape(market).source, self.spec.settings
        if source is None:
            return
        market.sequence += 1
        window = unobserved_window(
            quantiles=settings.quantiles, with_volatility=settings.volatility
        )
        yield Metric(
            market.topic,
            Trades(
                category=market.category,
                symbol=market.symbol,
                source=source,
                process=self.process,
                epoch=market.epoch,
                seq=market.sequence,
                publish_ts_ns=self.clock.time_ns(),
                state="stale",
                reason="unsubscribed",
                windows=dict.fromkeys(settings.windows, window),
            ),
        )
        notes = self.aggregator.end(market.symbol, market.category, our_ns=self._steady_ns())
        for note in notes:
            yield self._gap_metric(market, note, self.clock.time_ns())

    def unassign(self, topic: bytes) -> list[bytes]:
        """Stop following a symbol; return its metric topics, if it was followed."""
        market = self._markets.pop(topic, None)
        if market is None:
            return []
        self.aggregator.unsubscribe(market.symbol, market.category)
        for window in self.spec.settings.windows:
            self._gauges.pop((market.category, market.symbol, window), None)
        return [market.topic, market.gap_topic]

    # -- messages in, metrics out ----------------------------------------------------------------

    def on_message(self, received: Received) -> Iterable[Metric]:
        """
        Apply one message of the market bus; return the metrics to publish at once.

        These are rare: a market that only traded is published later, by ``publish_due``.
        """
        message = received.message
        if isinstance(message, TradesMessage):
            market = self._markets.get(received.topic)
            if market is not None:
                return self._on_trades(market, message, received.lost)
        elif isinstance(message, LinkMessage):
            connector = self.connector_of(received.topic)
            if connector is not None:
                return self._on_link(connector, message)
        return ()

    def _on_trades(
        self, market: TradesMarket, message: TradesMessage, lost: int
    ) -> Iterable[Metric]:
        self._messages.value += 1
        waited_ns = self.clock.time_ns() - message.recv_ts_ns
        our_ns = self._steady_ns() - (waited_ns if 0 < waited_ns < WAITED_MAX_NS else 0)
        notes = self.aggregator.apply(
            message, market.symbol, category=market.category, lost=lost, our_ns=our_ns
        )
        market.has_traded = True
        if notes or self.aggregator.source_changes != self._source_changes:
            self._source_changes = self.aggregator.source_changes
            return self._changes(notes)
        return ()

    def _on_link(self, connector: str, message: LinkMessage) -> Iterable[Metric]:
        notes = self.aggregator.apply_link(connector, message, our_ns=self._steady_ns())
        return self._changes(notes)

    def on_connector_gone(self, connector: str) -> Iterator[Metric]:
        """Stop observing the markets of a connector; return the metrics to publish at once."""
        return self._changes(self.aggregator.interrupt(connector, "process_down"))

    def on_doubt(self, connector: str, doubt: LinkDoubt | None) -> Iterator[Metric]:
        """Doubt the trades of a connector, or trust them again."""
        return self._changes(self.aggregator.doubt_link(connector, doubt))

    @property
    def gap_ledger(self) -> GapLedger[TradesGap]:
        """The gaps of all symbols."""
        return self.aggregator.ledger

    def progress(self) -> Iterator[Progress]:
        """Yield the last message of the connection of every observed tape."""
        for tape in self.aggregator.tapes():
            seen_ms = tape.seen_ms
            if seen_ms is not None and tape.source is not None:
                last = tape.last_trade
                yield Progress(
                    "trades",
                    tape.category,
                    tape.symbol,
                    tape.source,
                    seen_ms,
                    None,
                    last.sequence if last else None,
                    last.trade_id if last else None,
                )

    def _changes(self, notes: Sequence[GapNote]) -> Iterator[Metric]:
        """
        Yield the metrics of markets whose state changed, then the changes of their gaps.

        Gaps of replaced tapes come first, because they belong to the old epoch.
        """
        now_ns = self.clock.time_ns()
        present: list[tuple[TradesMarket, GapNote]] = []
        for note in notes:
            gap = note.gap
            market = self._markets[market_topic("trade", gap.category, gap.symbol)]
            if note.generation == self._tape(market).generation:
                present.append((market, note))
            else:
                yield self._gap_metric(market, note, now_ns)
        for market in self._markets.values():
            tape = self._tape(market)
            if market.tape is not tape or market.published_state != _state(tape):
                yield from self._market_metric(market, now_ns)
        for market, note in present:
            yield self._gap_metric(market, note, now_ns)
        _log_gaps(notes)

    def publish_due(self) -> Iterator[Metric]:
        """Yield the metrics of markets that traded, or were not published for almost a second."""
        now_s, now_ns = self.clock.monotonic(), self.clock.time_ns()
        last_chance = now_s + self.scheduler.tick_s - SILENT_S
        traded_due = max(now_s - self.interval_s + self.scheduler.tick_s / 2, last_chance)
        due = [
            market
            for market in self._markets.values()
            if market.published_at <= (traded_due if market.has_traded else last_chance)
        ]
        due.sort(key=attrgetter("published_at"))
        quota = self.scheduler.take_quota(len(self._markets))
        for place, market in enumerate(due):
            if place < quota or market.published_at <= last_chance:
                yield from self._market_metric(market, now_ns)

    def publish_all(self) -> Iterator[Metric]:
        """Yield the metrics of every market."""
        now_ns = self.clock.time_ns()
        for market in self._markets.values():
            yield from self._market_metric(market, now_ns)

    def _market_metric(self, market: TradesMarket, now_ns: int) -> Iterator[Metric]:
        """Yield the metric of one market; nothing before its source is known."""
        tape = self._tape(market)
        market.published_at = self.clock.monotonic()
        if tape.source is None:
            return
        if tape is not market.tape:
            self._start_generation(market, tape)
        market.sequence += 1
        trades = self.aggregator.metric(
            tape,
            self._handled_ns(),
            source=tape.source,
            process=self.process,
            epoch=market.epoch,
            seq=market.sequence,
            alive_ts_ns=self.alive_ts_ns(market.connector),
            publish_ts_ns=now_ns,
        )
        market.published_state = _state(tape)
        if market.has_traded:
            market.has_traded = False
            if tape.recv_ts_ns is not None:
                self._metric_latency.observe((now_ns - tape.recv_ts_ns) / 1e9)
        self._set_gauges(market, trades)
        self._published.value += 1
        yield Metric(market.topic, trades)
        for note in tape.take_due_notes():
            yield self._gap_metric(market, note, now_ns)

    def _gap_metric(self, market: TradesMarket, note: GapNote, now_ns: int) -> Metric:
        tape = market.tape
        assert tape.source is not None, "a gap opens after the first message"
        market.gap_sequence += 1
        self._gaps_published.value += 1
        event = TradesGapEvent(
            source=tape.source,
            process=self.process,
            epoch=market.epoch,
            seq=market.gap_sequence,
            match_ts_ms=tape.last_trade.match_ts_ms if tape.last_trade else None,
            exchange_ts_ms=tape.exchange_ts_ms,
            recv_ts_ns=tape.recv_ts_ns,
            publish_ts_ns=now_ns,
            state=tape.state(self._steady_ns()),
            event=note.event,
            category=market.category,
            symbol=market.symbol,
            **event_fields(note.gap),
        )
        return Metric(market.gap_topic, event)

    def _start_generation(self, market: TradesMarket, tape: TradeTape) -> None:
        """Start an epoch, because the tape was replaced."""
        market.tape = tape
        market.start_epoch(self.next_epoch())
        log.info(
            "trades restarted",
            reason=tape.reason,
            category=market.category,
            symbol=market.symbol,
            source=tape.source,
            epoch=market.epoch,
        )

    def _steady_ns(self) -> int:
        """Return our time for windows and coverage. Unlike the wall clock, it never steps."""
        return int(self.clock.monotonic() * 1e9)

    def _handled_ns(self) -> int:
        """Return the time up to which all messages are applied: earlier than now while late."""
        return self._steady_ns() - (int(self.late_s * 1e9) if self.late_s < WAITED_MAX_S else 0)

    def _tape(self, market: TradesMarket) -> TradeTape:
        tape = self.aggregator.tape(market.symbol, market.category)
        assert tape is not None, "every market has a tape"
        return tape

    # -- counters --------------------------------------------------------------------------------

    def _declare_counters(self) -> None:
        telemetry, process, counts = self.telemetry, self.process, self.aggregator.counts
        self._messages = telemetry.counter(
            "worker_messages_total", "Market messages processed.", process=process, stream="trade"
        )
        self._published = telemetry.counter(
            "metrics_published_total", "Metrics published.", process=process, kind="trades"
        )
        self._gaps_published = telemetry.counter(
            "metrics_published_total", "Metrics published.", process=process, kind="gap"
        )
        telemetry.counters(
            "trades_total",
            "Trades counted, without duplicates.",
            ("process",),
            lambda: [((process,), counts.taken)],
        )
        telemetry.counters(
            "trade_duplicates_total",
            "Trades ignored because their id was seen before.",
            ("process",),
            lambda: [((process,), counts.duplicates)],
        )
        telemetry.counters(
            "trades_invalid_total",
            "Trades ignored because price, size or time was implausible.",
            ("process",),
            lambda: [((process,), counts.invalid)],
        )
        self._gauges: dict[tuple[str, ...], tuple[float | None, float | None, float]] = {}
        if self.spec.per_symbol:
            labels = ("category", "symbol", "window")
            telemetry.gauges(
                "trades_per_minute", "Trades per minute.", labels, lambda: self._gauge_samples(0)
            )
            telemetry.gauges(
                "volume_delta",
                "Size bought minus size sold.",
                labels,
                lambda: self._gauge_samples(1),
            )
            telemetry.gauges(
                "window_coverage_seconds",
                "Observed part of the window.",
                labels,
                lambda: self._gauge_samples(2),
            )

    def _set_gauges(self, market: TradesMarket, trades: Trades) -> None:
        if self.spec.per_symbol:
            for name, window in trades.windows.items():
                key = (market.category, market.symbol, name)
                self._gauges[key] = (window.tpm, window.vol_delta, window.coverage_s)

    def _gauge_samples(self, index: int) -> Samples:
        """Yield one gauge of every window that has numbers; called by the exporter's thread."""
        for labels, values in list(self._gauges.items()):
            value = values[index]
            if value is not None:
                yield labels, value


def _state(tape: TradeTape) -> tuple[str, str | None]:
    """Return the state that is published at once when it changes; coverage grows without that."""
    is_stale = tape.is_stale or tape.link_doubt is not None
    return ("stale" if is_stale else "observed", tape.source)


def _log_gaps(notes: Sequence[GapNote]) -> None:
    """Log one line for all markets of a link; missed bus messages are only counted."""
    for event in ("opened", "closed"):
        gaps = [note.gap for note in notes if note.event == event and note.gap.reason != "bus_gap"]
        if gaps:
            log.info(
                f"trades gap {event}",
                reason=gaps[0].reason,
                markets=len(gaps),
                symbol=gaps[0].symbol if len(gaps) == 1 else None,
            )
