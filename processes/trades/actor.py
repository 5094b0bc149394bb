"""
The trades worker: its share of the trade topics in, ``trades.*`` and ``gap.*`` metrics out.

Moves messages between the market bus, the aggregator and the forwarder, and decides when a metric
is due: a publish interval after trades, at once when a market's state changed, and in any case
before a second has passed. What the numbers are is in ``aggregator``.
"""

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, ClassVar

import msgspec
import structlog

from bybit_pipeline.processes.trades.aggregator import TradesAggregator
from bybit_pipeline.processes.trades.tape import GapNote, Tape
from bybit_pipeline.shared.bus.market import Received
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.runtime.scheduling import PublishScheduler
from bybit_pipeline.shared.runtime.telemetry import Samples, Telemetry
from bybit_pipeline.shared.runtime.worker import Worker
from bybit_pipeline.shared.settings.specs import Assignment, TradesSpec
from bybit_pipeline.shared.wire.gaps import TradesGapEvent
from bybit_pipeline.shared.wire.messages import Category, LinkMessage, TradesMessage
from bybit_pipeline.shared.wire.metrics import Metric
from bybit_pipeline.shared.wire.topics import link_topic, market_topic, metric_topic, topic_text
from bybit_pipeline.shared.wire.trades import Trades, unobserved_window

log = structlog.get_logger()

SILENT_S = 0.95
"""A market is published before this has passed since the last time, whatever happens."""
MAX_TURNS_S = 0.45
"""Turns are no rarer than for this interval, so that none is silent for a second."""
ASK_TICK_S = 0.25
ASK_INITIAL_S = 0.5
ASK_MAX_S = 30.0
"""A market whose connector has said nothing yet is asked for, less and less often."""
WAITED_MAX_S = 5.0
WAITED_MAX_NS = int(WAITED_MAX_S * 1e9)
"""
A message that seems to have waited longer for us, or a negative time, tells of a step of the clock:
then it counts as received now, which may leave the exchange's time a little behind, never ahead.
"""


class Market:
    """What the worker knows of one symbol besides its tape: topics, numbers, when it is due."""

    __slots__ = (
        "ask_due",
        "ask_wait_s",
        "category",
        "epoch",
        "gap_sequence",
        "gap_topic",
        "is_dirty",
        "published_at",
        "published_state",
        "sequence",
        "symbol",
        "tape",
        "topic",
        "untrusted_before_s",
    )

    def __init__(self, tape: Tape, epoch: str) -> None:
        category, symbol = tape.category, tape.symbol
        self.category: Category = category
        self.symbol = symbol
        self.tape = tape
        """Of this epoch: the aggregator may have replaced it already."""
        self.topic = metric_topic("trades", category, symbol)
        self.gap_topic = metric_topic("gap", category, symbol)
        self.published_at = float("-inf")
        self.published_state: tuple[str, str | None] | None = None
        self.untrusted_before_s = 0.0
        """Untrusted seconds of the tapes before this one."""
        self.is_dirty = False
        self.ask_wait_s = ASK_INITIAL_S
        self.ask_due: float | None = None
        self.start_epoch(epoch)

    def start_epoch(self, epoch: str) -> None:
        """Number the messages of both topics from 1 again."""
        self.epoch = epoch
        self.sequence = 0
        self.gap_sequence = 0


class TradesWorker(Worker):
    """Keep one tape per symbol; publish its windows while it trades and while it does not."""

    role: ClassVar[str] = "trades"

    def __init__(
        self, spec: TradesSpec, *, clock: Clock | None = None, telemetry: Telemetry | None = None
    ) -> None:
        interval_s = spec.settings.publish_interval_ms / 1_000
        scheduler = PublishScheduler(min(interval_s, MAX_TURNS_S))
        super().__init__(
            spec, spec.assignments, spec.metrics_in, scheduler, clock=clock, telemetry=telemetry
        )
        self.spec = spec
        self.aggregator = TradesAggregator(
            spec.settings.windows,
            quantiles=spec.settings.quantiles,
            volatility=spec.settings.volatility,
        )
        self._markets: dict[bytes, Market] = {}
        """By market bus topic."""
        self._connectors: dict[bytes, str] = {}
        """Connector by its link topic."""
        self._source_changes = 0
        """Of the aggregator, as far as they were told."""
        self._interval_s = interval_s
        self._declare_counters()
        for assignment in spec.assignments:
            self.assign(assignment)

    # -- sockets ---------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Connect to the connectors and the forwarder; begin to publish and to ask."""
        super().on_start()
        self.every(self.scheduler.tick_s, self._on_timer)
        self.every(ASK_TICK_S, self._ask_for_links)

    def status(self) -> dict[str, Any]:
        """Counts since the start, and markets by state."""
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
            "gaps": len(self.aggregator.gaps()),
            "metrics": int(self._published.value),
            **self.socket_status(),
        }

    def _ask_for_links(self) -> None:
        """
        Ask for the state of topics of which nothing is known, until it is.

        A worker that starts late has missed that the exchange confirmed them, and a quiet market
        would tell it only with its next trade.
        """
        for topic in self.unheard(self.clock.monotonic()):
            self.send_control("resync", topic=topic, reason="starting")

    def unheard(self, now_s: float) -> Iterator[str]:
        """The market bus topics to ask for now."""
        for topic, market in self._markets.items():
            if self._tape(market).source is not None:
                continue
            if market.ask_due is None:
                market.ask_due = now_s + market.ask_wait_s
            elif market.ask_due <= now_s:
                market.ask_wait_s = min(2 * market.ask_wait_s, ASK_MAX_S)
                market.ask_due = now_s + market.ask_wait_s
                yield topic_text(topic)

    def _on_timer(self) -> None:
        self._publish(self.publish_due())

    # -- who is followed -------------------------------------------------------------------------

    def assign(self, assignment: Assignment) -> None:
        """Follow one more symbol; a second time changes nothing."""
        stream, connector = assignment.stream, assignment.connector
        topic = stream.topic_bytes
        if topic in self._markets:
            return
        self._connectors[link_topic(connector)] = connector
        self.aggregator.subscribe(stream.symbol, stream.category, connector=connector)
        tape = self.aggregator.tape(stream.symbol, stream.category)
        assert tape is not None, "just subscribed"
        self._markets[topic] = Market(tape, self.next_epoch())

    def final_metrics(self, topic: bytes) -> Iterator[Metric]:
        """The last word: no numbers, or subscribers would go on showing theirs, and no open gap."""
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
        """Follow a symbol no longer; its metric topics, if it was followed."""
        market = self._markets.pop(topic, None)
        if market is None:
            return []
        self.aggregator.unsubscribe(market.symbol, market.category)
        for window in self.spec.settings.windows:
            self._gauges.pop((market.category, market.symbol, window), None)
        self._untrusted.pop((market.category, market.symbol, "trades"), None)
        return [market.topic, market.gap_topic]

    # -- messages in, metrics out ----------------------------------------------------------------

    def on_message(self, received: Received) -> Iterable[Metric]:
        """
        Take in one message of the market bus; what has to be said about it at once.

        Mostly nothing: metrics of a market that only traded are due later.
        """
        message = received.message
        if isinstance(message, TradesMessage):
            market = self._markets.get(received.topic)
            if market is not None:
                return self._on_trades(market, message, received.lost)
        elif isinstance(message, LinkMessage):
            connector = self._connectors.get(received.topic)
            if connector is not None:
                return self._on_link(connector, message)
        return ()

    def _on_trades(self, market: Market, message: TradesMessage, lost: int) -> Iterable[Metric]:
        self._messages.value += 1
        waited_ns = self.clock.time_ns() - message.recv_ts_ns
        our_ns = self._steady_ns() - (waited_ns if 0 < waited_ns < WAITED_MAX_NS else 0)
        notes = self.aggregator.apply(
            message, market.symbol, category=market.category, lost=lost, our_ns=our_ns
        )
        market.is_dirty = True
        if notes or self.aggregator.source_changes != self._source_changes:
            self._source_changes = self.aggregator.source_changes
            return self._tell(notes)
        return ()

    def _on_link(self, connector: str, message: LinkMessage) -> Iterable[Metric]:
        notes = self.aggregator.apply_link(connector, message, our_ns=self._steady_ns())
        return self._tell(notes)

    def on_connector_gone(self, connector: str) -> Iterator[Metric]:
        """Its markets are not observed any more."""
        return self._tell(self.aggregator.interrupt(connector))

    def gap_rows(self) -> list[dict[str, Any]]:
        """The gap ledger as it is listed for people."""
        return [msgspec.to_builtins(gap) for gap in self.aggregator.gaps()]

    def _tell(self, notes: Sequence[GapNote]) -> Iterator[Metric]:
        """
        What changed in the state of markets, then what became of gaps.

        What became of those of a tape that was replaced comes first, while its epoch lasts.
        """
        now_ns = self.clock.time_ns()
        of_now: list[tuple[Market, GapNote]] = []
        for note in notes:
            gap = note.gap
            market = self._markets[market_topic("trade", gap.category, gap.symbol)]
            if note.generation == self._tape(market).generation:
                of_now.append((market, note))
            else:
                yield self._gap_metric(market, note, now_ns)
        for market in self._markets.values():
            tape = self._tape(market)
            if market.tape is not tape or market.published_state != _state(tape):
                yield from self._market_metric(market, now_ns)
        for market, note in of_now:
            yield self._gap_metric(market, note, now_ns)
        _log_gaps(notes)

    def publish_due(self) -> Iterator[Metric]:
        """The metrics of markets that traded, or were silent for nearly a second."""
        now_s, now_ns = self.clock.monotonic(), self.clock.time_ns()
        last_chance = now_s + self.scheduler.tick_s - SILENT_S
        traded_due = max(now_s - self._interval_s + self.scheduler.tick_s / 2, last_chance)
        due = [
            market
            for market in self._markets.values()
            if market.published_at <= (traded_due if market.is_dirty else last_chance)
        ]
        due.sort(key=attrgetter("published_at"))
        share = self.scheduler.take_quota(len(self._markets))
        for place, market in enumerate(due):
            if place < share or market.published_at <= last_chance:
                yield from self._market_metric(market, now_ns)

    def publish_all(self) -> Iterator[Metric]:
        """The metrics of every market."""
        now_ns = self.clock.time_ns()
        for market in self._markets.values():
            yield from self._market_metric(market, now_ns)

    def _market_metric(self, market: Market, now_ns: int) -> Iterator[Metric]:
        """The metric of one market; nothing before its connector said what the source is."""
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
            publish_ts_ns=now_ns,
        )
        market.published_state = _state(tape)
        if market.is_dirty:
            market.is_dirty = False
            if tape.recv_ts_ns is not None:
                self._metric_latency.observe((now_ns - tape.recv_ts_ns) / 1e9)
        self._set_gauges(market, tape, trades)
        self._published.value += 1
        yield Metric(market.topic, trades)

    def _gap_metric(self, market: Market, note: GapNote, now_ns: int) -> Metric:
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
            **msgspec.structs.asdict(note.gap),
        )
        return Metric(market.gap_topic, event)

    def _start_generation(self, market: Market, tape: Tape) -> None:
        """The tape was replaced: nothing of what was published before goes on."""
        market.untrusted_before_s += market.tape.untrusted_s()
        market.tape = tape
        market.start_epoch(self.next_epoch())
        log.info(
            "market begins anew",
            reason=tape.reason,
            category=market.category,
            symbol=market.symbol,
            source=tape.source,
            epoch=market.epoch,
        )

    def _steady_ns(self) -> int:
        """
        Our own time for windows and coverage.

        Not the wall clock: when that steps by an hour, the exchange's time has not.
        """
        return int(self.clock.monotonic() * 1e9)

    def _handled_ns(self) -> int:
        """Up to when everything has been handled, by the same clock: not now while we are late."""
        return self._steady_ns() - (int(self.late_s * 1e9) if self.late_s < WAITED_MAX_S else 0)

    def _tape(self, market: Market) -> Tape:
        tape = self.aggregator.tape(market.symbol, market.category)
        assert tape is not None, "every market has a tape"
        return tape

    # -- counters --------------------------------------------------------------------------------

    def _declare_counters(self) -> None:
        telemetry, process, counts = self.telemetry, self.process, self.aggregator.counts
        self._messages = telemetry.counter(
            "worker_messages_total", "Market messages taken in.", process=process, stream="trade"
        )
        self._published = telemetry.counter(
            "metrics_published_total", "Metrics published.", process=process, kind="trades"
        )
        self._gaps_published = telemetry.counter(
            "metrics_published_total", "Metrics published.", process=process, kind="gap"
        )
        telemetry.counters(
            "trades_total",
            "Trades, duplicates left out.",
            ("process",),
            lambda: [((process,), counts.taken)],
        )
        telemetry.counters(
            "trade_duplicates_total",
            "Trades whose id was seen before.",
            ("process",),
            lambda: [((process,), counts.duplicates)],
        )
        telemetry.counters(
            "trades_invalid_total",
            "Trades without a believable price or time.",
            ("process",),
            lambda: [((process,), counts.invalid)],
        )
        self._untrusted: dict[tuple[str, ...], float] = {}
        telemetry.counters(
            "untrusted_seconds_total",
            "Exchange time in which messages may have been missed.",
            ("category", "symbol", "kind"),
            lambda: list(self._untrusted.items()),
        )
        self._gauges: dict[tuple[str, ...], tuple[float | None, float | None, float]] = {}
        if self.spec.per_symbol:
            labels = ("category", "symbol", "window")
            telemetry.gauges(
                "trades_per_minute", "Trades a minute.", labels, lambda: self._gauge_samples(0)
            )
            telemetry.gauges(
                "volume_delta", "Bought minus sold size.", labels, lambda: self._gauge_samples(1)
            )
            telemetry.gauges(
                "window_coverage_seconds",
                "How much of the window was observed.",
                labels,
                lambda: self._gauge_samples(2),
            )

    def _set_gauges(self, market: Market, tape: Tape, trades: Trades) -> None:
        untrusted_s = market.untrusted_before_s + tape.untrusted_s()
        self._untrusted[market.category, market.symbol, "trades"] = untrusted_s
        if self.spec.per_symbol:
            for name, window in trades.windows.items():
                key = (market.category, market.symbol, name)
                self._gauges[key] = (window.tpm, window.vol_delta, window.coverage_s)

    def _gauge_samples(self, index: int) -> Samples:
        """One of the gauges of every window that has numbers; read by the exporter."""
        for labels, values in list(self._gauges.items()):
            value = values[index]
            if value is not None:
                yield labels, value


def _state(tape: Tape) -> tuple[str, str | None]:
    """What a subscriber is told at once when it changes; coverage grows in between."""
    return ("stale" if tape.is_stale else "observed", tape.source)


def _log_gaps(notes: Sequence[GapNote]) -> None:
    """One line for all markets of a link; holes in the bus have a counter and no lines."""
    for event in ("opened", "closed"):
        gaps = [note.gap for note in notes if note.event == event and note.gap.reason != "bus_gap"]
        if gaps:
            log.info(
                f"trades gap {event}",
                reason=gaps[0].reason,
                markets=len(gaps),
                symbol=gaps[0].symbol if len(gaps) == 1 else None,
            )
