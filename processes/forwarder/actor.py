"""
The forwarder: metrics of all workers in on one socket, out on another, plus their last values.

Workers push to a PULL socket, and subscribers connect to an XPUB socket. Topic and msgpack map pass
through in order, one frame each towards subscribers; the map is not decoded. The last message of
every topic is kept, and sent again when somebody subscribes to the topic.

ZeroMQ cannot send to a single subscriber: the repeated message reaches every subscriber of the
topic. It has the same ``epoch`` and ``seq`` as before, by which receivers recognize and skip it. A
slow subscriber whose queue overflows loses messages and sees a jump in ``seq``; other subscribers
are unaffected.

The last message of a hung worker may say ``live``. When the heartbeats of a worker stop, the
forwarder publishes its last will for every topic of the worker. What the worker then sends is old
until a heartbeat proves the opposite: messages that say ``live`` are withheld, and counted.

With keys the XPUB socket is encrypted, and admits only clients whose key is allowed (see
``authenticator``). When a key is revoked all connections are dropped, because ZeroMQ cannot drop a
single one. The other clients reconnect at once, and see by ``seq`` if they missed messages.
"""

import time
from pathlib import Path
from typing import ClassVar

import structlog
import zmq

from bybit_pipeline.processes.forwarder.authenticator import REFUSALS, Authenticator, Refusal
from bybit_pipeline.processes.forwarder.last_value_cache import (
    LastValueCache,
    Message,
    parse_message,
)
from bybit_pipeline.processes.forwarder.silent_workers import SilentWorkers
from bybit_pipeline.shared.bus.metrics import HEARTBEAT_PREFIX, METRIC_QUEUE, MetricInbox
from bybit_pipeline.shared.bus.sockets import LINGER_MS, bind, plain_send
from bybit_pipeline.shared.errors import CodecError, TakenError
from bybit_pipeline.shared.freshness.frozen import frozen_histogram
from bybit_pipeline.shared.runtime.actor import Actor
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.runtime.scheduling import ReadCoalescer
from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.settings.specs import ForwarderSpec
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.shared.wire.last_will import process_and_state, will_after

log = structlog.get_logger()

RECEIVE_LIMIT = 1_000
"""Metrics handled per turn of the loop, so that subscriptions are served under load."""
SUBSCRIPTION_LIMIT = 100
"""Subscriptions handled per turn of the loop, so that metrics pass under load."""
LOG_INVALID_S = 10.0
"""Shortest interval between two log lines about invalid messages or refused clients."""
SILENCE_S = 0.1
"""Interval of the check for silent workers."""
MARKET_PREFIXES = (b"orderbook.", b"trades.")
"""Topics whose messages say whether their numbers are live, and that have a last will."""
REFRESH_KEYS_S = 1.0
"""Interval of the check for added and revoked keys."""
REOPEN_S = 2.0
"""Time limit for the operating system to release the address of a closed socket."""


class Forwarder(Actor):
    """Pass metrics on; send the last value of each topic to new subscribers."""

    role: ClassVar[str] = "forwarder"

    def __init__(
        self,
        spec: ForwarderSpec,
        *,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
        queue: int = METRIC_QUEUE,
    ) -> None:
        super().__init__(spec, clock=clock, telemetry=telemetry)
        self.spec = spec
        self.last_values = LastValueCache()
        self._queue = queue
        self._coalescer = ReadCoalescer()
        self._inbox: MetricInbox | None = None
        self._out: zmq.Socket[bytes] | None = None
        self._authenticator: Authenticator | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._workers = SilentWorkers(self.clock.monotonic())
        self._silences = 0
        self._epoch_base = f"{self.process}-{self.clock.time_ns() // 1_000_000:x}"
        self._refused_logged = 0
        self._invalid_logged_at = 0.0
        self._declare_counters()

    def _declare_counters(self) -> None:
        self._coalescer.expose(self.telemetry, self.process)
        counter = self.telemetry.counter
        self._messages = counter(
            "forwarder_messages_total", "Metrics passed on.", process=self.process
        )
        self._repeats = counter(
            "forwarder_repeats_total", "Last values sent to new subscribers.", process=self.process
        )
        self._subscriptions = counter(
            "forwarder_subscriptions_total", "Subscriptions served.", process=self.process
        )
        self._invalid = counter(
            "forwarder_invalid_total", "Messages that are not metrics.", process=self.process
        )
        self._withheld = counter(
            "forwarder_withheld_total",
            "Messages of silent workers that said live, not passed on.",
            process=self.process,
        )
        self._frozen = frozen_histogram(self.telemetry, self.process)
        self.telemetry.counters(
            "forwarder_refused_total",
            "Messages whose last value is not kept: too many topics.",
            ("process",),
            lambda: [((self.process,), self.last_values.refused)],
        )
        self.telemetry.counters(
            "forwarder_clients_refused_total",
            "Refused connections, by reason.",
            ("process", "reason"),
            lambda: [((self.process, reason), self._refused(reason)) for reason in REFUSALS],
        )
        self.telemetry.gauges(
            "forwarder_topics",
            "Topics with a last value.",
            ("process",),
            lambda: [((self.process,), len(self.last_values))],
        )

    def on_start(self) -> None:
        """Bind both sockets; the subscribers' endpoint is reported as ``metrics``."""
        if self.spec.keys:
            self._authenticator = Authenticator(self.context, Path(self.spec.keys))
            self.watch(self._authenticator.socket, self._authenticator.answer)
            self.every(REFRESH_KEYS_S, self._refresh_keys)
            self.every(LOG_INVALID_S, self._log_refused)
        self.endpoints["metrics"] = self._open_out(self.spec.endpoint)
        self._inbox = MetricInbox(self.context, self.spec.metrics_in)
        self.watch(self._inbox.socket, self._on_metrics)
        self.every(SILENCE_S, self._check_workers)

    def on_stop(self) -> None:
        """Pass on the metrics that have arrived, then close both sockets."""
        if self._inbox is not None:
            self._on_metrics()
            self._inbox.close()
        if self._out is not None:
            self._close_out(LINGER_MS)
        if self._authenticator is not None:
            self.unwatch(self._authenticator.socket)
            self._authenticator.close()

    def status(self) -> dict[str, int]:
        """Return the counts since the start."""
        return {
            "messages": int(self._messages.value),
            "withheld": int(self._withheld.value),
            "last_values": len(self.last_values),
            "subscriptions": int(self._subscriptions.value),
            "repeats": int(self._repeats.value),
            "invalid": int(self._invalid.value),
            "refused": self.last_values.refused,
            "clients_refused": self._refused(*REFUSALS),
        }

    # -- the subscribers' socket -----------------------------------------------------------------

    def _open_out(self, endpoint: str) -> str:
        """Bind the subscribers' socket, with keys if there are any; return the exact endpoint."""
        out = self.context.socket(zmq.XPUB)
        out.setsockopt(zmq.SNDHWM, self._queue)
        # Report every subscription, also to a topic that another subscriber already has.
        out.setsockopt(zmq.XPUB_VERBOSE, 1)
        if self._authenticator is not None:
            monitor = self._monitor = self._authenticator.secure(out)
            self.watch(monitor, lambda: self._count_failures(monitor))
        self._out = out
        self.watch(out, self._on_subscriptions)
        try:
            return bind(out, endpoint)
        except TakenError:
            self._close_out(0)
            raise

    def _close_out(self, linger_ms: int) -> None:
        """Close the subscribers' socket and every connection to it."""
        assert self._out is not None
        if self._monitor is not None:
            self._count_failures(self._monitor)
            self.unwatch(self._monitor)
            self._out.disable_monitor()
            self._monitor = None
        self.unwatch(self._out)
        self._out.close(linger_ms)
        self._out = None

    def _reopen(self) -> None:
        """Drop every connection and bind the same address again as soon as it is released."""
        endpoint = self.endpoints["metrics"]
        self._close_out(0)
        deadline = time.monotonic() + REOPEN_S
        while True:
            try:
                self._open_out(endpoint)
                return
            except TakenError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(0.001)

    # -- keys ------------------------------------------------------------------------------------

    def _refresh_keys(self) -> None:
        assert self._authenticator is not None
        if self._authenticator.refresh():
            log.warning("key revoked, all clients must reconnect")
            self._reopen()

    def _count_failures(self, monitor: "zmq.Socket[bytes]") -> None:
        assert self._authenticator is not None
        self._authenticator.count_failures(monitor)

    def _refused(self, *reasons: Refusal) -> int:
        authenticator = self._authenticator
        return sum(authenticator.refused[reason] for reason in reasons) if authenticator else 0

    def _log_refused(self) -> None:
        refused = self._refused(*REFUSALS)
        if refused > self._refused_logged:
            log.warning(
                "clients refused",
                unknown_key=self._refused("unknown_key"),
                handshake=self._refused("handshake"),
            )
        self._refused_logged = refused

    # -- messages --------------------------------------------------------------------------------

    def _on_metrics(self) -> None:
        assert self._inbox is not None
        self._check_workers()  # first: after a pause of this process, what waits here is old
        metrics = 0
        may_withhold = self._workers.any_unproven(self.clock.monotonic())
        for topic, payload in self._inbox.receive(RECEIVE_LIMIT):
            if topic.startswith(HEARTBEAT_PREFIX):
                self._on_heartbeat(topic, payload)
                may_withhold = self._workers.any_unproven(self.clock.monotonic())
                continue
            metrics += 1
            message = parse_message(topic, payload)
            if message is None:
                self._on_invalid(topic, payload)
            elif not message.payload:
                self.last_values.forget(message.topic)
            elif may_withhold and self._is_withheld(message):
                self._withheld.value += 1
            else:
                self._pass_on(message)
        self._coalescer.delay(metrics, self.clock.monotonic())

    def _pass_on(self, message: Message) -> None:
        self.last_values.remember(message)
        self._send(message)
        self._messages.value += 1

    # -- silent workers --------------------------------------------------------------------------

    def _on_heartbeat(self, topic: bytes, payload: bytes) -> None:
        try:
            sent_s = codec.decode_map(payload)["sent_s"]
            name = topic.removeprefix(HEARTBEAT_PREFIX).decode()
        except (CodecError, KeyError, UnicodeDecodeError):
            self._on_invalid(topic, payload)
            return
        if not isinstance(sent_s, float):
            self._on_invalid(topic, payload)
        elif self._workers.note(name, sent_s, self.clock.monotonic()):
            log.info("worker publishes again", worker=name)
        else:
            self._check_workers()  # what follows an old heartbeat is old

    def _check_workers(self) -> None:
        """Publish the last will of the workers that have become silent."""
        for worker in self._workers.check(self.clock.monotonic()):
            self._silences += 1
            epoch = f"{worker.name}-silent-{self._epoch_base}-{self._silences}"
            topics = self._publish_wills(worker.name, epoch)
            if topics:
                self._frozen.observe(worker.silent_s)
            log.warning(
                "worker silent",
                worker=worker.name,
                silent_s=round(worker.silent_s, 2),
                stale=topics,
            )

    def _publish_wills(self, worker: str, epoch: str) -> int:
        """Publish the last will of every topic of a worker; return their number."""
        topics = 0
        for prefix in MARKET_PREFIXES:
            for message in self.last_values.matching(prefix):
                try:
                    process, state = process_and_state(message.payload)
                    if process != worker or state == "stale":
                        continue
                    will = will_after(
                        *message,
                        epoch=epoch,
                        publish_ts_ns=self.clock.time_ns(),
                        reason="process_silent",
                    )
                except CodecError:
                    self._on_invalid(*message)
                    continue
                if will is not None:
                    topics += 1
                    self._pass_on(Message(message.topic, codec.encode_map(will)))
        return topics

    def _is_withheld(self, message: Message) -> bool:
        """Return True for a message of a silent worker that says that its numbers are live."""
        if not message.topic.startswith(MARKET_PREFIXES):
            return False
        try:
            process, state = process_and_state(message.payload)
        except CodecError:
            return False
        return state != "stale" and self._workers.is_unproven(process)

    def _on_subscriptions(self) -> None:
        """Send the last values to new subscribers; a full queue drops these messages too."""
        assert self._out is not None
        for _ in range(SUBSCRIPTION_LIMIT):
            try:
                note = self._out.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            if note[:1] != b"\x01":
                continue
            self._subscriptions.value += 1
            for message in self.last_values.matching(note[1:]):
                self._send(message)
                self._repeats.value += 1

    def _send(self, message: Message) -> None:
        assert self._out is not None
        send = plain_send(self._out)
        send(message.topic, zmq.NOBLOCK | zmq.SNDMORE)
        send(message.payload, zmq.NOBLOCK)

    def _on_invalid(self, topic: bytes, payload: bytes) -> None:
        self._invalid.value += 1
        now = self.clock.monotonic()
        if now - self._invalid_logged_at >= LOG_INVALID_S:
            self._invalid_logged_at = now
            log.warning(
                "invalid metric dropped",
                topic=repr(topic[:64]),
                payload_start=repr(payload[:64]),
                total=int(self._invalid.value),
            )
