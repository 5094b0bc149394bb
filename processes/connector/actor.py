"""
The connector as a process: publish on the market bus what the client receives, act on commands.

It has two threads. The client's socket thread owns the publisher: it reads, decodes and publishes
without a queue in between. It announces events of the websocket and its topics on
``link.CONNECTOR``, and proves on ``heartbeat.CONNECTOR`` that all of this still works. The main
thread runs the loop of every actor: commands, the control plane and the client's timers. It does
not touch the publisher while the socket thread lives.

Reasons of link events:

    disconnected    one of ``connection.FAILURE_REASONS``
    unsubscribed    ``asked`` or ``resync``
    rejected        ``refused``, ``no_ack``, ``no_data`` or ``full``; see ``subscriptions.Event``
    missed          one of ``protocol.INVALID_REASONS``
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import structlog

from bybit_pipeline.processes.connector.client import CHECK_S, BybitWebSocketClient
from bybit_pipeline.processes.connector.connect_limiter import (
    ConnectLimiter,
    read_attempts,
    write_attempts,
)
from bybit_pipeline.processes.connector.keepalive import Heartbeat
from bybit_pipeline.processes.connector.protocol import BookUpdate, TradeBatch
from bybit_pipeline.processes.connector.topics.streams import StreamKey
from bybit_pipeline.processes.connector.topics.subscriptions import TOPIC_STATES
from bybit_pipeline.shared.bus.market import MarketPublisher
from bybit_pipeline.shared.bybit import StreamKind
from bybit_pipeline.shared.runtime.actor import Actor
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.runtime.telemetry import Samples, Telemetry
from bybit_pipeline.shared.runtime.wakeup import Wakeup
from bybit_pipeline.shared.settings.specs import ConnectorSpec, Stream
from bybit_pipeline.shared.wire.messages import (
    SCHEMA_VERSION,
    HeartbeatMessage,
    LinkEvent,
    LinkMessage,
)
from bybit_pipeline.shared.wire.topics import (
    heartbeat_topic,
    link_topic,
    market_topic,
    parse_topic,
)

log = structlog.get_logger()

WORKERS_S = 2.0
"""How long to wait for the workers before connecting, so that they receive the first snapshots."""
WAIT_STEP_S = 0.1
"""How often that wait checks whether the process is to stop."""


class ConnectorActor(Actor):
    """Publish the trades and books of one websocket."""

    role: ClassVar[str] = "connector"

    def __init__(
        self,
        spec: ConnectorSpec,
        *,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
        client: Callable[..., BybitWebSocketClient] = BybitWebSocketClient,
    ) -> None:
        super().__init__(spec, clock=clock, telemetry=telemetry)
        self.spec = spec
        self._attempts_path = Path(spec.run_dir) / f"{spec.process}.attempts"
        self._limiter = ConnectLimiter(
            spec.connect_quota, read_attempts(self._attempts_path), now=self.clock.monotonic()
        )
        self.client = client(
            self._publish_trades,
            self._publish_book,
            category=spec.category,
            url=spec.url,
            source=spec.source,
            settings=spec.settings,
            silence_matters=spec.silence_matters,
            on_link=self._publish_link,
            on_ping=self._observe_ping,
            on_heartbeat=self._publish_heartbeat,
            before_connecting=self._wait_for_workers,
            after_batch=self._flush,
            limiter=self._limiter,
            on_attempt=self._save_attempts,
            on_bug=self._on_bug,
            clock=self.clock,
        )
        self._publisher: MarketPublisher | None = None
        self._link_topic = link_topic(spec.process)
        self._heartbeat_topic = heartbeat_topic(spec.process)
        self._topics: dict[StreamKind, dict[str, bytes]] = {"trade": {}, "book": {}}
        """Topics of the market bus by kind and symbol, built once."""
        self._bug: BaseException | None = None
        self._crash_wakeup = Wakeup()
        self._declare_counters()
        self._subscribe(spec.streams)

    # -- the main thread -------------------------------------------------------------------------

    def on_start(self) -> None:
        """Bind the bus and start the socket thread; that thread waits for the workers."""
        spec = self.spec
        self._publisher = MarketPublisher(
            self.context,
            spec.market_endpoint,
            spec.feed_endpoint,
            monotonic=self.clock.monotonic,
        )
        self.endpoints["market"] = self._publisher.endpoint
        self.watch(self._crash_wakeup.fileno(), self._raise_bug)
        self.every(CHECK_S, self.client.check)
        self.client.start(own_timers=False)

    def on_stop(self) -> None:
        """Disconnect, then close the bus."""
        has_ended = self.client.stop()
        if not has_ended:
            log.error("socket thread did not end in time")
        elif self._publisher is not None:
            self._publisher.close()
        self._crash_wakeup.close()

    def on_command(self, command: dict[str, Any]) -> None:
        """Subscribe or unsubscribe streams, resync a book, change the source or the quota."""
        match command["type"]:
            case "subscribe":
                self._subscribe(msgspec.convert(command["streams"], list[Stream]))
            case "unsubscribe":
                self._unsubscribe(msgspec.convert(command["streams"], list[Stream]))
            case "resync":
                self._resync(command["topic"], command.get("reason", ""))
            case "source":
                self.client.change_source(command["url"], command["source"])
                log.info("source changed", url=command["url"], source=command["source"])
            case "connect_quota":
                self.client.set_connect_quota(command["quota"])
            case kind:
                log.warning("unknown command ignored", command=kind)

    def status(self) -> Mapping[str, Any]:
        """The entry of this connector in ``status``."""
        client, counts = self.client, self.client.counts
        rtt, last, failure = client.ping_rtt_s, client.last_message_ts_ns, counts.failure
        return {
            "url": client.url,
            "source": client.source,
            "connected": client.connected,
            "simulated": client.is_simulated,
            "failure": failure and failure.name,
            "failure_detail": failure and failure.detail,
            "next_attempt_ts_ms": failure and failure.next_attempt_ts_ms,
            "session": client.session or None,
            "reconnects": sum(counts.reconnects.values()),
            "topics": client.topics(),
            "rejected": client.rejected(),
            "refused_topics": client.refused(),
            "ping_rtt_ms": None if rtt is None else round(rtt * 1000, 3),
            "live_since_ts_ms": counts.live_since_ts_ms,
            "last_message_ts_ms": None if last is None else last // 1_000_000,
            "trade_messages": counts.trade_messages,
            "book_messages": counts.book_messages,
            "invalid": sum(counts.invalid.values()),
            "late": client.unexpected_frames,
            "lost_acks": client.lost_acks,
            "attempts_held": counts.held,
        }

    def _subscribe(self, streams: Sequence[Stream]) -> None:
        try:
            self.client.subscribe_orderbooks(
                [(stream.symbol, stream.depth) for stream in streams if stream.kind == "book"]
            )
            self.client.subscribe_trades(
                *(stream.symbol for stream in streams if stream.kind == "trade")
            )
        except ValueError as error:
            log.error("streams not subscribed", error=str(error))

    def _unsubscribe(self, streams: Sequence[Stream]) -> None:
        self.client.unsubscribe_orderbook(*(s.symbol for s in streams if s.kind == "book"))
        self.client.unsubscribe_trades(*(s.symbol for s in streams if s.kind == "trade"))

    def _resync(self, topic: str, reason: str) -> None:
        kind, _, symbol = parse_topic(topic)
        if kind == "book":
            is_known = self.client.resync_orderbook(symbol)
            log.info("resync requested", topic=topic, reason=reason, known=is_known)
        elif kind == "trade":  # no snapshot exists; the worker only needs to know that they flow
            self.client.announce_trades(symbol)

    def _raise_bug(self) -> None:
        assert self._bug is not None
        raise self._bug

    # -- the socket thread -----------------------------------------------------------------------

    def _wait_for_workers(self) -> None:
        """Wait until every topic has a worker; workers that start later request a resync."""
        assert self._publisher is not None
        wanted = {self._link_topic, *(stream.topic_bytes for stream in self.spec.streams)}
        deadline = time.monotonic() + WORKERS_S
        missing = wanted
        while missing and not self.client.is_stopping and time.monotonic() < deadline:
            missing = self._publisher.wait_for_workers(wanted, WAIT_STEP_S)
        if missing and not self.client.is_stopping:
            log.warning("workers not ready, connecting", topics_without_worker=len(missing))

    def _save_attempts(self) -> None:
        """Save the attempts to a file, so that they count after a restart of this process."""
        try:
            write_attempts(self._attempts_path, self._limiter.made)
        except OSError as error:
            self._attempts_unsaved.value += 1
            log.warning("connection attempt not saved", error=str(error))

    def _publish_book(self, symbol: str, update: BookUpdate) -> None:
        publisher, client = self._publisher, self.client
        assert publisher is not None
        source = client.source
        topic = self._topics["book"].get(symbol) or self._topic("book", symbol)
        sequence = publisher.next_sequence(topic)
        publisher.collect(topic, update.record(source, client.session, sequence))
        # The times of a snapshot say when the book last changed, which may be long ago.
        if not update.is_snapshot and source != "replay":
            self._book_latency.observe(_latency_s(update.recv_ts_ns, update.exchange_ts_ms))

    def _publish_trades(self, symbol: str, batch: TradeBatch) -> None:
        publisher, client = self._publisher, self.client
        assert publisher is not None
        source = client.source
        topic = self._topics["trade"].get(symbol) or self._topic("trade", symbol)
        sequence = publisher.next_sequence(topic)
        publisher.collect(topic, batch.record(source, client.session, sequence))
        if source != "replay":
            self._trade_latency.observe(_latency_s(batch.recv_ts_ns, batch.exchange_ts_ms))

    def _flush(self) -> None:
        assert self._publisher is not None
        self._publisher.flush()

    def _publish_link(self, event: LinkEvent, reason: str, streams: Sequence[StreamKey]) -> None:
        publisher = self._publisher
        assert publisher is not None
        if event == "connected":
            publisher.start_session()
        category = self.spec.category
        publisher.publish(
            self._link_topic,
            LinkMessage(
                SCHEMA_VERSION,
                self.client.source,
                self.client.session,
                publisher.next_sequence(self._link_topic),
                self.clock.time_ns(),
                event,
                reason,
                tuple(f"{kind}.{category}.{symbol}" for kind, symbol in streams),
            ),
        )

    def _publish_heartbeat(self, heartbeat: Heartbeat) -> None:
        publisher, client, topic = self._publisher, self.client, self._heartbeat_topic
        assert publisher is not None
        publisher.publish(
            topic,
            HeartbeatMessage(
                SCHEMA_VERSION,
                client.source,
                client.session,
                publisher.next_sequence(topic),
                heartbeat.heard_ts_ns or 0,
                heartbeat.read_s,
                heartbeat.read_s - heartbeat.heard_s,
            ),
        )

    def _topic(self, kind: StreamKind, symbol: str) -> bytes:
        topic = market_topic(kind, self.spec.category, symbol)
        self._topics[kind][symbol] = topic
        return topic

    def _observe_ping(self, rtt_s: float) -> None:
        self._ping_rtt.observe(rtt_s)

    def _on_bug(self, bug: BaseException) -> None:
        """Let the main thread raise the error: it logs it once and closes everything."""
        self._bug = bug
        self._crash_wakeup.set()

    # -- counters --------------------------------------------------------------------------------

    def _declare_counters(self) -> None:
        name, counts, telemetry = self.spec.process, self.client.counts, self.telemetry
        self._ping_rtt = telemetry.histogram(
            "connector_ping_rtt_seconds", "Round-trip time of Bybit's ping.", connector=name
        )
        latency = "Time from the exchange's push to our socket, by two clocks; without snapshots."
        self._trade_latency = telemetry.histogram(
            "exchange_latency_seconds", latency, connector=name, stream="trade"
        )
        self._book_latency = telemetry.histogram(
            "exchange_latency_seconds", latency, connector=name, stream="book"
        )
        self.client.coalescer.expose(telemetry, name)
        telemetry.gauges(
            "connector_connected",
            "Whether the websocket is open.",
            ("connector",),
            lambda: [((name,), float(self.client.connected))],
        )
        telemetry.gauges(
            "connector_last_message_timestamp_seconds",
            "When the last data message was received.",
            ("connector",),
            self._last_message,
        )
        telemetry.gauges(
            "connector_topics",
            "Subscribed topics by state.",
            ("connector", "state"),
            self._topic_states,
        )
        telemetry.counters(
            "connector_connects_total",
            "Connection attempts.",
            ("connector", "result"),
            lambda: [((name, "ok"), counts.connects), ((name, "error"), counts.failed_connects)],
        )
        telemetry.counters(
            "connector_reconnects_total",
            "Failed connections and connection attempts.",
            ("connector", "reason"),
            lambda: [((name, reason), n) for reason, n in counts.reconnects.items()],
        )
        telemetry.counters(
            "connector_messages_total",
            "Data messages received.",
            ("connector", "stream"),
            lambda: [
                ((name, "trade"), counts.trade_messages),
                ((name, "book"), counts.book_messages),
            ],
        )
        telemetry.counters(
            "connector_frames_invalid_total",
            "Invalid frames, skipped or used in part.",
            ("connector", "reason"),
            lambda: [((name, reason), n) for reason, n in counts.invalid.items()],
        )
        telemetry.counters(
            "connector_topics_extended_total",
            "Books whose levels have additional elements.",
            ("connector",),
            lambda: [((name,), counts.extended_topics)],
        )
        telemetry.counters(
            "connector_attempts_held_total",
            "Connection attempts held back by the connect limiter.",
            ("connector",),
            lambda: [((name,), counts.held)],
        )
        self._attempts_unsaved = telemetry.counter(
            "connector_attempts_unsaved_total",
            "Connection attempts that could not be saved for a restart.",
            connector=name,
        )
        telemetry.counters(
            "connector_frames_late_total",
            "Data frames dropped because their topic waits for a snapshot or was unsubscribed.",
            ("connector",),
            lambda: [((name,), self.client.unexpected_frames)],
        )
        telemetry.counters(
            "connector_acks_lost_total",
            "Requests without an ack in time.",
            ("connector",),
            lambda: [((name,), self.client.lost_acks)],
        )

    def _last_message(self) -> Samples:
        last = self.client.last_message_ts_ns
        return [] if last is None else [((self.spec.process,), last / 1e9)]

    def _topic_states(self) -> Iterator[tuple[tuple[str, str], float]]:
        states = Counter(self.client.topics().values())
        for state in TOPIC_STATES:
            yield (self.spec.process, state), states[state]


def _latency_s(recv_ts_ns: int, exchange_ts_ms: int) -> float:
    """Seconds from the exchange's clock to ours; 0 if ours is behind."""
    latency_ns = recv_ts_ns - exchange_ts_ms * 1_000_000
    return latency_ns / 1e9 if latency_ns > 0 else 0.0
