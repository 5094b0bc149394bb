"""
Common part of the trades and the orderbook worker: market messages in, metrics out.

Owns the two sockets and handles the supervisor's commands. A subclass decides what a message
changes and which metrics follow; it returns metrics and touches no socket, so tests need none.
"""

import itertools
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import structlog

from bybit_pipeline.shared.bus.market import BUNDLE, MARKET_QUEUE, MarketSubscriber, Received
from bybit_pipeline.shared.bus.metrics import MetricPublisher
from bybit_pipeline.shared.freshness.frozen import frozen_histogram
from bybit_pipeline.shared.freshness.link import HEARTBEAT_LATE_S, LinkDoubt, LinkFreshness
from bybit_pipeline.shared.runtime.actor import Actor
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.runtime.scheduling import LATE_S, PublishScheduler, ReadCoalescer
from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.settings.specs import Assignment, ProcessSpec
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.shared.wire.common import MetricRecord
from bybit_pipeline.shared.wire.gaps import GapLedger
from bybit_pipeline.shared.wire.messages import HeartbeatMessage, LinkMessage
from bybit_pipeline.shared.wire.metrics import Metric
from bybit_pipeline.shared.wire.progress import Progress
from bybit_pipeline.shared.wire.topics import (
    heartbeat_topic,
    link_topic,
    market_topic,
    parse_topic,
)

log = structlog.get_logger()

PROGRESS_S = 0.1
"""Interval of the reports to the supervisor; the start of an outage is known this exactly."""
MANY_TOPICS = 200
"""With more topics, progress is reported half as often."""
RECEIVE_LIMIT = 1_000
"""Messages handled per turn of the loop, so that timers and commands run under load too."""
SILENT_S = 0.95
"""Maximum interval between two publications of a market."""
SCHEDULED_MAX_S = 0.45
"""Maximum publish interval of the scheduler: its ticks must be frequent enough for ``SILENT_S``."""
FRESHNESS_S = 0.1
"""Interval of the check that the numbers still follow the exchange."""
HEARTBEAT_S = 0.2
"""Interval of the heartbeats to the forwarder."""


class Worker(Actor):
    """
    An actor that follows markets.

    Args:
        spec: The settings that the supervisor passed to this process.
        assignments: Topics to follow from the start.
        metrics_in: Endpoint of the forwarder's inbox.
        publish_interval_s: Least time between two messages of a market that changes.
        last_gap_id: Number below the ids of its gaps; identifies this process in its reports.
        clock: Wall and monotonic clock.
        telemetry: The counters.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        assignments: Sequence[Assignment],
        metrics_in: str,
        publish_interval_s: float,
        *,
        last_gap_id: int = 0,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        super().__init__(spec, clock=clock, telemetry=telemetry)
        self.interval_s = publish_interval_s
        self.scheduler = PublishScheduler(min(publish_interval_s, SCHEDULED_MAX_S))
        self._assignments = assignments
        self._metrics_in = metrics_in
        self.lag_s: float | None = None
        """Time from the websocket to here, of the last message."""
        self.late_s = 0.0
        """Age of the last message if it was late, else 0: younger ones may wait behind it."""
        self._subscriber: MarketSubscriber | None = None
        self._publisher: MetricPublisher | None = None
        self._coalescer = ReadCoalescer()
        self._freshness: dict[str, LinkFreshness] = {}
        """By connector."""
        self._connectors: dict[bytes, str] = {}
        """Connector by the topics of its link events and of its heartbeats."""
        self._checked_at = self.clock.monotonic()
        self._gap_base = last_gap_id
        self._progress_due = float("-inf")
        self._reported: list[Progress] = []
        self._epochs = itertools.count(1)
        self._epoch_base = f"{self.process}-{self.clock.time_ns() // 1_000_000:x}"
        self.telemetry.counters(
            "bus_messages_lost_total",
            "Messages of the market bus that did not arrive.",
            ("process", "connector"),
            lambda: [((self.process, name), lost) for name, lost in self._lost().items()],
        )
        self.telemetry.gauges(
            "publish_stretch",
            "Slowdown of publishing under overload; 1: none.",
            ("process",),
            lambda: [((self.process,), self.scheduler.slowdown)],
        )
        self._coalescer.expose(self.telemetry, self.process)
        self._bus_latency = self.telemetry.histogram(
            "bus_latency_seconds",
            "Time from the websocket to the applied message.",
            process=self.process,
        )
        self._metric_latency = self.telemetry.histogram(
            "metric_latency_seconds",
            "Time from the websocket to the published metric.",
            process=self.process,
        )
        self._frozen = frozen_histogram(self.telemetry, self.process)

    # -- for subclasses to implement -------------------------------------------------------------

    @abstractmethod
    def on_message(self, received: Received) -> Iterable[Metric]:
        """Apply one message of the market bus; return the metrics to publish at once."""

    @abstractmethod
    def on_connector_gone(self, connector: str) -> Iterable[Metric]:
        """Handle the end of a connector's process; return the metrics to publish at once."""

    @abstractmethod
    def on_doubt(self, connector: str, doubt: LinkDoubt | None) -> Iterable[Metric]:
        """Doubt the numbers of a connector, or trust them again; return what to publish at once."""

    @abstractmethod
    def publish_all(self) -> Iterable[Metric]:
        """Return the metrics of every market."""

    @abstractmethod
    def assign(self, assignment: Assignment) -> None:
        """Follow one more topic and its connector; repeating it changes nothing."""

    @abstractmethod
    def final_metrics(self, topic: bytes) -> Iterable[Metric]:
        """Return the last metrics of a topic that is about to be dropped: nothing is known."""

    @abstractmethod
    def unassign(self, topic: bytes) -> Iterable[bytes]:
        """Drop a topic; return the metric topics that end with it."""

    @property
    @abstractmethod
    def gap_ledger(self) -> GapLedger[Any]:
        """The gaps of this worker."""

    @abstractmethod
    def progress(self) -> Iterable[Progress]:
        """Yield the last message applied of every topic that can be trusted."""

    def on_turn(self) -> None:
        """Record the time before a batch of messages, a command or a timer is handled."""

    # -- freshness -------------------------------------------------------------------------------

    def begin_turn(self) -> None:
        """
        Start a turn; every callback begins with this.

        Nothing may be published as live after a pause before the links have been checked.
        """
        self.on_turn()
        now = self.clock.monotonic()
        paused_s, self._checked_at = now - self._checked_at, now
        for connector, link in self._freshness.items():
            doubt = link.doubt(now)
            if doubt == link.announced:
                continue
            link.announced = doubt
            if doubt is None:
                log.info("connector proven current", connector=connector)
            else:
                unproven_s = link.unproven_s(now) or 0.0
                if paused_s < HEARTBEAT_LATE_S:  # else the forwarder has noticed it before
                    self.observe_frozen(unproven_s)
                log.warning(
                    "connector doubted",
                    connector=connector,
                    reason=doubt,
                    unproven_s=round(unproven_s, 2),
                )
            self._publish(self.on_doubt(connector, doubt))

    def follow_connector(self, connector: str) -> None:
        """Follow the link events and heartbeats of a connector; repeating it changes nothing."""
        if connector not in self._freshness:
            self._freshness[connector] = LinkFreshness()
            for topic in (link_topic(connector), heartbeat_topic(connector)):
                self._connectors[topic] = connector

    def connector_of(self, topic: bytes) -> str | None:
        """Return the connector of a topic of link events; None for any other topic."""
        return self._connectors.get(topic)

    def alive_ts_ns(self, connector: str) -> int | None:
        """Return the time when the exchange was last heard on a connection, wall clock."""
        return self._freshness[connector].heard_ts_ns

    def _on_link_message(self, connector: str, received: Received) -> None:
        message = received.message
        assert isinstance(message, LinkMessage)
        if message.event in ("connected", "subscribed"):
            if message.event == "connected":
                self._end_link(connector)
            self._freshness[connector].hear(message.recv_ts_ns)
        self._publish(self.on_message(received))
        if message.event == "disconnected":
            self._end_link(connector)

    def _end_link(self, connector: str) -> None:
        """Note that a connection has ended."""
        link = self._freshness[connector]
        unproven_s = link.unproven_s(self.clock.monotonic())
        if unproven_s is not None and link.announced is None:
            self.observe_frozen(unproven_s)
        link.forget()

    def observe_frozen(self, seconds: float) -> None:
        """Record for how long numbers that had stopped following the exchange were said live."""
        self._frozen.observe(seconds)

    def _send_heartbeat(self) -> None:
        self.begin_turn()
        assert self._publisher is not None
        self._publisher.heartbeat(self.process, self.clock.monotonic())

    # -- sockets ---------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Connect to the connectors and the forwarder."""
        self._publisher = MetricPublisher(self.context, self._metrics_in)
        self._subscriber = MarketSubscriber(self.context, self.process)
        for assignment in self._assignments:
            self._listen(assignment)
        self.watch(self._subscriber.socket, self._on_readable)
        self.watch(self._subscriber.monitor, self._on_hang_up)
        self.every(FRESHNESS_S, self.begin_turn)
        self.every(HEARTBEAT_S, self._send_heartbeat)
        self._send_heartbeat()
        if self.control is not None:
            self.every(PROGRESS_S, self._report)

    def on_stop(self) -> None:
        """Close both sockets."""
        if self._subscriber is not None:
            self._subscriber.close()
        if self._publisher is not None:
            self._publisher.close()

    def on_command(self, command: dict[str, Any]) -> None:
        """Handle a command of the supervisor (``bus.control``)."""
        self.begin_turn()
        match command["type"]:
            case "assign":
                assignment = msgspec.convert(command["assignment"], Assignment)
                self.assign(assignment)
                self._listen(assignment)
                connector = assignment.connector
                if (doubt := self._freshness[connector].announced) is not None:
                    self._publish(self.on_doubt(connector, doubt))
            case "unassign":
                self._unassign(market_topic(*parse_topic(command["topic"])))
            case "republish":
                self._send_heartbeat()  # a new forwarder trusts nothing before it
                self._publish(self.publish_all())
            case "gaps":
                self._report_gaps(self.gap_ledger.gaps())
            case kind:
                log.warning("unknown command", command=kind)

    def _listen(self, assignment: Assignment) -> None:
        assert self._subscriber is not None
        connector = assignment.connector
        self._subscriber.connect(connector, assignment.endpoint)
        for topic, name in self._connectors.items():
            if name == connector:
                self._subscriber.subscribe(topic, connector)
        self._subscriber.subscribe(assignment.stream.topic_bytes, connector)

    def _unassign(self, topic: bytes) -> None:
        assert self._subscriber is not None
        assert self._publisher is not None
        self._subscriber.unsubscribe(topic)
        self._publish(self.final_metrics(topic))
        for metric_topic in self.unassign(topic):
            self._publisher.tombstone(metric_topic)

    def _on_readable(self, limit: int = RECEIVE_LIMIT) -> None:
        assert self._subscriber is not None
        self.begin_turn()
        time_ns, lags_s = self.clock.time_ns, list[float]()
        for received in self._subscriber.receive(limit):
            message = received.message
            if type(message) is HeartbeatMessage:
                self._freshness[self._connectors[received.topic]].note(message)
                continue
            if type(message) is LinkMessage:
                self._on_link_message(self._connectors[received.topic], received)
                continue
            metrics = self.on_message(received)
            if metrics:
                self._publish(metrics)
            lags_s.append((time_ns() - message.recv_ts_ns) / 1e9)
        if lags_s:
            self.lag_s = lags_s[-1]
            self._bus_latency.observe_all(lags_s)
            self.late_s = self.lag_s if self.lag_s > LATE_S else 0.0
            self.scheduler.note_lag(self.lag_s)
        self._report_gaps(self.gap_ledger.take_changes())
        self._coalescer.delay(len(lags_s), self.clock.monotonic())

    def _on_hang_up(self) -> None:
        """Handle the end of a connector, after everything it had sent."""
        assert self._subscriber is not None
        for connector in self._subscriber.hang_ups():
            self._on_readable(MARKET_QUEUE * BUNDLE)
            log.info("connector gone", connector=connector)
            self._publish(self.on_connector_gone(connector))
            self._end_link(connector)

    # -- reports to the supervisor ---------------------------------------------------------------

    def _report(self) -> None:
        """Report changed gaps, then the progress since the last report."""
        self._report_gaps(self.gap_ledger.take_changes())
        now = self.clock.monotonic()
        if now < self._progress_due:
            return
        progress = list(self.progress())
        if len(progress) > MANY_TOPICS:
            self._progress_due = now + PROGRESS_S * 1.5  # every other time
        if progress != self._reported:
            self._reported = progress
            self.send_control(
                "progress", base=self._gap_base, topics=codec.encode_progress(progress)
            )

    def _report_gaps(self, gaps: Sequence[MetricRecord]) -> None:
        if gaps:
            rows = [msgspec.to_builtins(gap) for gap in gaps]
            self.send_control("gaps", base=self._gap_base, gaps=rows)

    def _publish(self, metrics: Iterable[Metric]) -> None:
        assert self._publisher is not None
        self._publisher.publish_all(metrics)

    # -- services for subclasses -----------------------------------------------------------------

    def next_epoch(self) -> str:
        """Return a new epoch name, unique among all processes: process, start time and a count."""
        return f"{self._epoch_base}-{next(self._epochs)}"

    def socket_status(self) -> dict[str, Any]:
        """Return what was late or lost on the way in and out, for the status."""
        subscriber, publisher = self._subscriber, self._publisher
        return {
            "lag_s": self.lag_s,
            "publish_stretch": round(self.scheduler.slowdown, 2),
            "lost": sum(self._lost().values()),
            "frames_invalid": subscriber.invalid if subscriber else 0,
            "metrics_dropped": publisher.dropped if publisher else 0,
        }

    def _lost(self) -> dict[str, int]:
        return dict(self._subscriber.lost) if self._subscriber else {}
