"""
What the trades and the orderbook worker have in common: market messages in, metrics out.

Owns the two sockets and the commands of the supervisor. What a message changes and which metrics
follow is the subclass's; it answers with metrics and touches no socket, so that a test needs none.
"""

import itertools
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog

from bybit_pipeline.shared.bus.market import BUNDLE, MARKET_QUEUE, MarketSubscriber, Received
from bybit_pipeline.shared.bus.metrics import MetricPublisher
from bybit_pipeline.shared.runtime.actor import Actor
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.runtime.coalescing import ReadCoalescer
from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.settings.specs import Assignment, ProcessSpec
from bybit_pipeline.shared.wire.topics import link_topic, market_topic, parse_topic

log = structlog.get_logger()

RECEIVE_LIMIT = 1_000
"""Messages taken in one turn, so that timers and commands get theirs under load."""
TICKS_MAX = 20
TICK_MIN_S = 0.005
"""A publish interval has so many turns at most, and none follows the last one sooner."""
TOGETHER = 3
"""
So many may be published in one turn in any case. At 5,000 messages/s of 50 symbols 99 % of messages
are handled within 2 ms; with 8 turns an interval and 8 together it was 3 to 5, for a twentieth less
CPU.
"""
LATE_S = 0.01
"""
Messages that come later than this, turn after turn, tell that there is more to do than gets done:
here, in the connector, or on the whole machine.
"""
STRETCH_MAX = 8.0
STRETCH_UP = 1.2
"""With every turn that is late like the one before: to the most within some 15 turns."""
STRETCH_DOWN = 0.67
"""In a second: back to 1 within 5. In half a second it swings, and messages are late again."""


class Metric(NamedTuple):
    """One message for the metrics socket."""

    topic: bytes
    payload: dict[str, Any]


class Turns:
    """
    How the markets of a worker share a publish interval.

    Due markets are looked for every ``tick_s``, and each time at most a turn's share is published,
    those that wait longest first. Markets that came together would otherwise publish together for
    ever, and every message behind them would wait: with 50 books 6 ms, ten times a second.

    A metric costs as much as ten or twenty messages. So a worker that stays late publishes less
    often rather than later and later. One late read, as a busy machine brings now and then, changes
    nothing.

    Attributes:
        tick_s: How often to look for markets that are due.
        stretch: Between 1 and ``STRETCH_MAX``: so many times fewer markets may have their turn. Few
            markets need less than they may have, and come hardly later.
    """

    def __init__(self, interval_s: float) -> None:
        self._ticks = max(1, min(TICKS_MAX, round(interval_s / TICK_MIN_S)))
        self._lag_s = 0.0
        self._was_late = False
        self._owed = 0.0
        """What is left of a share that was no whole number."""
        self.tick_s = interval_s / self._ticks
        self.stretch = 1.0

    def note_lag(self, lag_s: float) -> None:
        """How late the last message of a read was; counts for the next turn."""
        self._lag_s = lag_s

    def take_share(self, markets: int) -> int:
        """How many of so many markets may be published in this turn; to be called once a turn."""
        is_late, self._lag_s = self._lag_s > LATE_S, 0.0
        if not is_late:
            self.stretch = max(1.0, self.stretch * STRETCH_DOWN**self.tick_s)
        elif self._was_late:
            self.stretch = min(STRETCH_MAX, self.stretch * STRETCH_UP)
        self._was_late = is_late
        self._owed += max(TOGETHER, markets // self._ticks + 1) / self.stretch
        share = int(self._owed)
        self._owed -= share
        return share


class Worker(Actor):
    """
    An actor that follows markets.

    Args:
        spec: What the supervisor told this process.
        assignments: What to follow from the start.
        metrics_in: Where metrics go.
        turns: When they are published.
        clock: Wall and monotonic clock.
        telemetry: The counters.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        assignments: Sequence[Assignment],
        metrics_in: str,
        turns: Turns,
        *,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        super().__init__(spec, clock=clock, telemetry=telemetry)
        self.turns = turns
        self._assignments = assignments
        self._metrics_in = metrics_in
        self.lag_s: float | None = None
        """From the websocket to here, of the last message."""
        self.late_s = 0.0
        """How old the last message was if it was late: younger ones may wait behind it."""
        self._subscriber: MarketSubscriber | None = None
        self._publisher: MetricPublisher | None = None
        self._pace = ReadCoalescer()
        self._epochs = itertools.count(1)
        self._epoch_base = f"{self.process}-{self.clock.time_ns() // 1_000_000:x}"
        self.telemetry.counters(
            "bus_messages_lost_total",
            "Holes in the market bus.",
            ("process", "connector"),
            lambda: [((self.process, name), lost) for name, lost in self._lost().items()],
        )
        self.telemetry.gauges(
            "publish_stretch",
            "How many times fewer markets may publish, late; 1: not late.",
            ("process",),
            lambda: [((self.process,), self.turns.stretch)],
        )
        self._pace.expose(self.telemetry, self.process)
        self._bus_latency = self.telemetry.histogram(
            "bus_latency_seconds",
            "From the websocket to the message applied.",
            process=self.process,
        )
        self._metric_latency = self.telemetry.histogram(
            "metric_latency_seconds", "From the websocket to the metric.", process=self.process
        )

    # -- of the subclass -------------------------------------------------------------------------

    @abstractmethod
    def on_message(self, received: Received) -> Iterable[Metric]:
        """Take in one message of the market bus; what has to be said about it at once."""

    @abstractmethod
    def on_connector_gone(self, connector: str) -> Iterable[Metric]:
        """A connector's process ended, perhaps without a word; what has to be said about it."""

    @abstractmethod
    def publish_all(self) -> Iterable[Metric]:
        """The metrics of every market."""

    @abstractmethod
    def assign(self, assignment: Assignment) -> None:
        """Follow one more topic; a second time changes nothing."""

    @abstractmethod
    def farewell(self, topic: bytes) -> Iterable[Metric]:
        """What subscribers are told before a topic is followed no longer: that nothing is known."""

    @abstractmethod
    def unassign(self, topic: bytes) -> Iterable[bytes]:
        """Follow a topic no longer; the metric topics that end with it."""

    @abstractmethod
    def gap_rows(self) -> list[dict[str, Any]]:
        """The gap ledger as it is listed for people."""

    def on_turn(self) -> None:
        """Note the time before a batch of messages or a command is handled."""

    # -- sockets ---------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Connect to the connectors and the forwarder."""
        self._publisher = MetricPublisher(self.context, self._metrics_in)
        self._subscriber = MarketSubscriber(self.context, self.process)
        for assignment in self._assignments:
            self._listen(assignment)
        self.watch(self._subscriber.socket, self._on_readable)
        self.watch(self._subscriber.monitor, self._on_hang_up)

    def on_stop(self) -> None:
        """Close both sockets."""
        if self._subscriber is not None:
            self._subscriber.close()
        if self._publisher is not None:
            self._publisher.close()

    def on_command(self, command: dict[str, Any]) -> None:
        """Take on a topic, give one up, tell the gaps, or say everything to a new forwarder."""
        self.on_turn()
        match command["type"]:
            case "assign":
                assignment = msgspec.convert(command["assignment"], Assignment)
                self.assign(assignment)
                self._listen(assignment)
            case "unassign":
                self._unassign(market_topic(*parse_topic(command["topic"])))
            case "republish":
                self._publish(self.publish_all())
            case "gaps":
                self.send_control("gaps", id=command["id"], gaps=self.gap_rows())
            case kind:
                log.warning("unknown command", command=kind)

    def _listen(self, assignment: Assignment) -> None:
        assert self._subscriber is not None
        connector = assignment.connector
        self._subscriber.connect(connector, assignment.endpoint)
        self._subscriber.subscribe(link_topic(connector), connector)
        self._subscriber.subscribe(assignment.stream.topic_bytes, connector)

    def _unassign(self, topic: bytes) -> None:
        assert self._subscriber is not None
        assert self._publisher is not None
        self._subscriber.unsubscribe(topic)
        self._publish(self.farewell(topic))
        for metric_topic in self.unassign(topic):
            self._publisher.retire(metric_topic)

    def _on_readable(self, limit: int = RECEIVE_LIMIT) -> None:
        assert self._subscriber is not None
        self.on_turn()
        time_ns, lags_s = self.clock.time_ns, list[float]()
        for received in self._subscriber.receive(limit):
            metrics = self.on_message(received)
            if metrics:
                self._publish(metrics)
            lags_s.append((time_ns() - received.message.recv_ts_ns) / 1e9)
        if lags_s:
            self.lag_s = lags_s[-1]
            self._bus_latency.observe_all(lags_s)
            self.late_s = self.lag_s if self.lag_s > LATE_S else 0.0
            self.turns.note_lag(self.lag_s)
        self._pace.rest(len(lags_s), self.clock.monotonic())

    def _on_hang_up(self) -> None:
        """What a connector had sent before it ended still counts."""
        assert self._subscriber is not None
        for connector in self._subscriber.hang_ups():
            self._on_readable(MARKET_QUEUE * BUNDLE)
            log.info("connector gone", connector=connector)
            self._publish(self.on_connector_gone(connector))

    def _publish(self, metrics: Iterable[Metric]) -> None:
        assert self._publisher is not None
        self._publisher.publish_all(metrics)

    # -- services for subclasses -----------------------------------------------------------------

    def next_epoch(self) -> str:
        """A name that no other epoch of any process has: process, start time and a count."""
        return f"{self._epoch_base}-{next(self._epochs)}"

    def socket_status(self) -> dict[str, Any]:
        """What was late or lost on the way in and out, for the status."""
        subscriber, publisher = self._subscriber, self._publisher
        return {
            "lag_s": self.lag_s,
            "publish_stretch": round(self.turns.stretch, 2),
            "lost": sum(self._lost().values()),
            "frames_invalid": subscriber.invalid if subscriber else 0,
            "metrics_dropped": publisher.dropped if publisher else 0,
        }

    def _lost(self) -> dict[str, int]:
        return dict(self._subscriber.lost) if self._subscriber else {}
