"""
The trades worker: its share of the trade topics in, ``trades.*`` and ``gap.*`` metrics out.

Moves messages between the market bus, the aggregator and the forwarder, and decides when a metric
is due: a publish interval after trades, at once when a market's state changed, and in any case
before a second has passed. What the numbers are is in ``aggregator``.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import msgspec
import structlog

from processes.trades.aggregator import TradesAggregator
from processes.trades.ledger import Gap, GapNote
from processes.trades.tape import Tape
from shared.actor import Actor
from shared.bus import MARKET_QUEUE, MarketSubscriber, MetricPublisher, Received
from shared.clock import Clock
from shared.messages import SCHEMA_VERSION, Category, LinkMessage, TradesMessage
from shared.specs import Assignment, TradesSpec
from shared.telemetry import Samples, Telemetry
from shared.topics import link_topic, market_topic, metric_topic, parse_topic, topic_text

log = structlog.get_logger()

SILENT_S = 0.95
"""A market is published before this has passed since the last time, whatever happens."""
MAX_TICK_S = 0.45
ASK_TICK_S = 0.25
ASK_INITIAL_S = 0.5
ASK_MAX_S = 30.0
"""A market whose connector has said nothing yet is asked for, less and less often."""
WAITED_MAX_NS = 5_000_000_000
"""
A message that seems to have waited longer for us, or a negative time, tells of a step of the clock:
then it counts as received now, which may leave the exchange's time a little behind, never ahead.
"""
RECEIVE_LIMIT = 1_000
"""Messages taken in one turn, so that timers and commands get theirs under load."""


class Metric(NamedTuple):
    """One message for the metrics socket."""

    topic: bytes
    payload: dict[str, Any]


class Market:
    """What the worker knows of one symbol besides its tape: topics, numbers, when it is due."""

    __slots__ = (
        "ask_due", "ask_wait_s", "category", "epoch", "gap_sequence", "gap_topic", "generation",
        "is_dirty", "published_at", "published_state", "sequence", "symbol", "topic",
        "untrusted_before_s",
    )  # fmt: skip

    def __init__(self, category: Category, symbol: str, epoch: str) -> None:
        self.category: Category = category
        self.symbol = symbol
        self.topic = metric_topic("trades", category, symbol)
        self.gap_topic = metric_topic("gap", category, symbol)
        self.generation = 0
        self.published_at = float("-inf")
        self.published_state: tuple[str, str | None] | None = None
        self.untrusted_before_s = 0.0
        """Untrusted seconds of the tapes before this generation."""
        self.is_dirty = False
        self.ask_wait_s = ASK_INITIAL_S
        self.ask_due: float | None = None
        self.start_epoch(epoch)

    def start_epoch(self, epoch: str) -> None:
        """Number the messages of both topics from 1 again."""
        self.epoch = epoch
        self.sequence = 0
        self.gap_sequence = 0


class TradesWorker(Actor):
    """Keep one tape per symbol; publish its windows while it trades and while it does not."""

    role: ClassVar[str] = "trades"

    def __init__(
        self, spec: TradesSpec, *, clock: Clock | None = None, telemetry: Telemetry | None = None
    ) -> None:
        super().__init__(spec, clock=clock, telemetry=telemetry)
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
        self._subscriber: MarketSubscriber | None = None
        self._publisher: MetricPublisher | None = None
        self._source_changes = 0
        """Of the aggregator, as far as they were told."""
        self._epochs = itertools.count(1)
        self._epoch_base = f"{self.clock.time_ns() // 1_000_000:x}"
        self._interval_s = spec.settings.publish_interval_ms / 1_000
        self._tick_s = min(self._interval_s, MAX_TICK_S)
        self._declare_counters()
        for assignment in spec.assignments:
            self.assign(assignment)

    # -- sockets ---------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Connect to the connectors and the forwarder; begin to publish."""
        self._publisher = MetricPublisher(self.context, self.spec.metrics_in)
        self._subscriber = MarketSubscriber(self.context)
        for assignment in self.spec.assignments:
            self._listen(assignment)
        self.watch(self._subscriber.socket, self._on_readable)
        self.watch(self._subscriber.monitor, self._on_hang_up)
        self.every(self._tick_s, self._on_timer)
        self.every(ASK_TICK_S, self._ask_for_links)

    def on_stop(self) -> None:
        """Close both sockets."""
        if self._subscriber is not None:
            self._subscriber.close()
        if self._publisher is not None:
            self._publisher.close()

    def on_command(self, command: dict[str, Any]) -> None:
        """Take on a symbol, give one up, or say everything again to a new forwarder."""
        match command["type"]:
            case "assign":
                assignment = msgspec.convert(command["assignment"], Assignment)
                self.assign(assignment)
                self._listen(assignment)
            case "unassign":
                self._unassign(command["topic"])
            case "republish":
                self._publish(self.publish_all())
            case "gaps":
                gaps = [_gap_fields(gap) for gap in self.aggregator.gaps()]
                self.send_control("gaps", id=command["id"], gaps=gaps)
            case kind:
                log.warning("unknown command", command=kind)

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
            "lost": sum(self._lost().values()),
            "frames_invalid": self._subscriber.invalid if self._subscriber else 0,
            "metrics": int(self._published.value),
            "metrics_dropped": self._publisher.dropped if self._publisher else 0,
        }

    def _listen(self, assignment: Assignment) -> None:
        assert self._subscriber is not None
        connector = assignment.connector
        self._subscriber.connect(connector, assignment.endpoint)
        self._subscriber.subscribe(link_topic(connector), connector)
        self._subscriber.subscribe(assignment.stream.topic_bytes, connector)

    def _on_readable(self) -> None:
        assert self._subscriber is not None
        for received in self._subscriber.receive(RECEIVE_LIMIT):
            metrics = self.on_message(received)
            if metrics:
                self._publish(metrics)

    def _on_hang_up(self) -> None:
        """A connector's process ended, perhaps without a word: what it sent still counts."""
        assert self._subscriber is not None
        for connector in self._subscriber.hang_ups():
            for received in self._subscriber.receive(MARKET_QUEUE):
                self._publish(self.on_message(received))
            log.info("connector gone", connector=connector)
            self._publish(self._tell(self.aggregator.interrupt(connector)))

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

    def _publish(self, metrics: Iterable[Metric]) -> None:
        assert self._publisher is not None
        for metric in metrics:
            self._publisher.publish(metric.topic, metric.payload)

    # -- who is followed -------------------------------------------------------------------------

    def assign(self, assignment: Assignment) -> None:
        """Follow one more symbol; a second time changes nothing."""
        stream, connector = assignment.stream, assignment.connector
        topic = stream.topic_bytes
        if topic in self._markets:
            return
        self._markets[topic] = Market(stream.category, stream.symbol, self._next_epoch())
        self._connectors[link_topic(connector)] = connector
        self.aggregator.subscribe(stream.symbol, stream.category, connector=connector)

    def unassign(self, topic: bytes) -> Market | None:
        """Follow a symbol no longer; what was known of it, if it was followed."""
        market = self._markets.pop(topic, None)
        if market is not None:
            self.aggregator.unsubscribe(market.symbol, market.category)
            for window in self.spec.settings.windows:
                self._gauges.pop((market.category, market.symbol, window), None)
            self._untrusted.pop((market.category, market.symbol, "trades"), None)
        return market

    def _unassign(self, text: str) -> None:
        parts = parse_topic(text)
        topic = market_topic(parts.kind, parts.category, parts.symbol)
        market = self.unassign(topic)
        if market is not None and self._subscriber is not None and self._publisher is not None:
            self._subscriber.unsubscribe(topic)
            self._publisher.retire(market.topic)
            self._publisher.retire(market.gap_topic)

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
        self._bus_latency.observe(waited_ns / 1e9)
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

    def _tell(self, notes: Sequence[GapNote]) -> Iterator[Metric]:
        """What changed in the state of markets, then what became of gaps."""
        now_ns = self.clock.time_ns()
        for market in self._markets.values():
            tape = self._tape(market)
            if market.generation != tape.generation or market.published_state != _state(tape):
                yield from self._market_metric(market, now_ns)
        for note in notes:
            yield self._gap_metric(note, now_ns)
        _log_gaps(notes)

    def publish_due(self) -> Iterator[Metric]:
        """The metrics of markets that traded, or were silent for nearly a second."""
        now_s, now_ns = self.clock.monotonic(), self.clock.time_ns()
        for market in self._markets.values():
            elapsed_s = now_s - market.published_at
            is_last_chance = elapsed_s + self._tick_s > SILENT_S
            if is_last_chance or (market.is_dirty and elapsed_s > self._interval_s / 2):
                yield from self._market_metric(market, now_ns)

    def publish_all(self) -> Iterator[Metric]:
        """The metrics of every market."""
        now_ns = self.clock.time_ns()
        for market in self._markets.values():
            yield from self._market_metric(market, now_ns)

    def _market_metric(self, market: Market, now_ns: int) -> Iterator[Metric]:
        """The metric of one market; nothing before its connector said what the source is."""
        tape = self._tape(market)
        if tape.source is None:
            return
        if tape.generation != market.generation:
            self._start_generation(market, tape)
        fields = self.aggregator.metrics(tape, self._steady_ns())
        market.sequence += 1
        market.published_at = self.clock.monotonic()
        market.published_state = _state(tape)
        if market.is_dirty:
            market.is_dirty = False
            if tape.recv_ts_ns is not None:
                self._metric_latency.observe((now_ns - tape.recv_ts_ns) / 1e9)
        self._set_gauges(market, tape, fields)
        self._published.value += 1
        head = self._head(market, "trades", market.sequence, now_ns)
        yield Metric(market.topic, head | fields)

    def _gap_metric(self, note: GapNote, now_ns: int) -> Metric:
        gap = note.gap
        market = self._markets[market_topic("trade", gap.category, gap.symbol)]
        tape = self._tape(market)
        market.gap_sequence += 1
        self._gaps_published.value += 1
        payload = self._head(market, "gap", market.gap_sequence, now_ns) | {
            "source": tape.source,
            "state": tape.state(self._steady_ns()),
            "match_ts_ms": tape.last_trade.match_ts_ms if tape.last_trade else None,
            "exchange_ts_ms": tape.exchange_ts_ms,
            "recv_ts_ns": tape.recv_ts_ns,
            "event": note.event,
            **_gap_fields(gap),
        }
        return Metric(market.gap_topic, payload)

    def _head(self, market: Market, kind: str, sequence: int, now_ns: int) -> dict[str, Any]:
        return {
            "v": SCHEMA_VERSION,
            "kind": kind,
            "category": market.category,
            "symbol": market.symbol,
            "process": self.process,
            "epoch": market.epoch,
            "seq": sequence,
            "publish_ts_ns": now_ns,
        }

    def _start_generation(self, market: Market, tape: Tape) -> None:
        """The source changed: nothing of what was published before goes on."""
        key = (market.category, market.symbol, "trades")
        market.untrusted_before_s = self._untrusted.get(key, 0.0)
        market.generation = tape.generation
        market.start_epoch(self._next_epoch())
        log.info("source changed", category=market.category, symbol=market.symbol,
                 source=tape.source, epoch=market.epoch)  # fmt: skip

    def _next_epoch(self) -> str:
        """A name that no other epoch of any process has: the start time and a count."""
        return f"{self.process}-{self._epoch_base}-{next(self._epochs)}"

    def _steady_ns(self) -> int:
        """
        Our own time for windows and coverage.

        Not the wall clock: when that steps by an hour, the exchange's time has not.
        """
        return int(self.clock.monotonic() * 1e9)

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
        self._bus_latency = telemetry.histogram(
            "bus_latency_seconds", "From the websocket to this worker.", process=process
        )
        self._metric_latency = telemetry.histogram(
            "metric_latency_seconds", "From the websocket to the metric.", process=process
        )
        telemetry.counters(
            "trades_total", "Trades, duplicates left out.", ("process",),
            lambda: [((process,), counts.taken)],
        )  # fmt: skip
        telemetry.counters(
            "trade_duplicates_total", "Trades whose id was seen before.", ("process",),
            lambda: [((process,), counts.duplicates)],
        )  # fmt: skip
        telemetry.counters(
            "trades_invalid_total", "Trades without a believable price or time.", ("process",),
            lambda: [((process,), counts.invalid)],
        )  # fmt: skip
        telemetry.counters(
            "bus_messages_lost_total", "Holes in the market bus.", ("process", "connector"),
            lambda: [((process, name), lost) for name, lost in self._lost().items()],
        )  # fmt: skip
        self._untrusted: dict[tuple[str, ...], float] = {}
        telemetry.counters(
            "untrusted_seconds_total", "Exchange time in which messages may have been missed.",
            ("category", "symbol", "kind"), lambda: list(self._untrusted.items()),
        )  # fmt: skip
        self._gauges: dict[tuple[str, ...], tuple[float | None, float | None]] = {}
        if self.spec.per_symbol:
            labels = ("category", "symbol", "window")
            telemetry.gauges(
                "trades_per_minute", "Trades a minute.", labels, lambda: self._gauge_samples(0)
            )
            telemetry.gauges(
                "volume_delta", "Bought minus sold size.", labels, lambda: self._gauge_samples(1)
            )

    def _set_gauges(self, market: Market, tape: Tape, fields: dict[str, Any]) -> None:
        untrusted_s = market.untrusted_before_s + tape.untrusted_s()
        self._untrusted[market.category, market.symbol, "trades"] = untrusted_s
        if self.spec.per_symbol:
            for name, window in fields["windows"].items():
                key = (market.category, market.symbol, name)
                self._gauges[key] = (window["tpm"], window["vol_delta"])

    def _gauge_samples(self, index: int) -> Samples:
        """One of the two gauges of every window that has numbers; read by the exporter."""
        for labels, values in list(self._gauges.items()):
            value = values[index]
            if value is not None:
                yield labels, value

    def _lost(self) -> dict[str, int]:
        return dict(self._subscriber.lost) if self._subscriber else {}


def _state(tape: Tape) -> tuple[str, str | None]:
    """What a subscriber is told at once when it changes; coverage grows in between."""
    return ("stale" if tape.is_stale else "observed", tape.source)


def _gap_fields(gap: Gap) -> dict[str, Any]:
    """A gap as it is published and listed."""
    duration_s = None if gap.end_ms is None else (gap.end_ms - gap.start_ms) / 1_000
    return {"stream": "trades", **gap._asdict(), "duration_s": duration_s}


def _log_gaps(notes: Sequence[GapNote]) -> None:
    """One line for all markets of a link; holes in the bus have a counter and no lines."""
    for event in ("opened", "closed"):
        gaps = [note.gap for note in notes if note.event == event and note.gap.reason != "bus_gap"]
        if gaps:
            log.info(f"trades gap {event}", reason=gaps[0].reason, markets=len(gaps),
                     symbol=gaps[0].symbol if len(gaps) == 1 else None)  # fmt: skip
