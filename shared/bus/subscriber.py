"""
The receiving end of the metrics socket, shared by the client, the dashboard and the terminal.

Decides how such a socket is set up, which topics match, and when the connection is lost. The rule
for repeats and missed messages is in ``sequences``.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import zmq
from zmq.utils.monitor import recv_monitor_message

from bybit_pipeline.shared.bus.metrics import METRIC_QUEUE
from bybit_pipeline.shared.bus.sequences import SequenceTracker
from bybit_pipeline.shared.bus.sockets import RECONNECT_MS
from bybit_pipeline.shared.errors import CodecError, NoPipelineError
from bybit_pipeline.shared.settings.curve_keys import read_client_keys
from bybit_pipeline.shared.wire import codec

RECEIVE_LIMIT = 1_000
"""Messages per ``receive``, so that the caller's other work gets its turn under load."""
HEARTBEAT_MS = 2_000
"""Interval of ZeroMQ's heartbeats. Without them a connection that died silently looks open."""
HEARTBEAT_TIMEOUT_MS = 6_000
"""A connection on which nothing arrives for this long is closed and opened again."""
RETRY_REFUSED_S = 2.0
"""Delay before the next attempt after a refusal; ZeroMQ itself does not retry one."""

_LINK_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class ReceivedMetric(NamedTuple):
    """One message of the metrics socket."""

    topic: str
    payload: dict[str, Any]
    is_repeat: bool
    """True for a last value that was sent again because somebody subscribed."""
    missed: int
    """Messages of this topic missed just before this one; 0 for conflated topics."""


@dataclass
class SubscriberCounts:
    """Totals of a subscriber; pass the same object to several subscribers to add them up."""

    messages: int = 0
    invalid: int = 0
    """Messages that could not be decoded."""
    missed: int = 0
    """Jumps in ``seq``, without those of conflated topics."""
    refused: int = 0
    """Connections that the pipeline refused because it does not know our key."""


class MetricSubscriber:
    """
    A SUB socket that receives decoded metrics; for one thread, and a context manager.

    Topics can be conflated: only the newest message of such a topic is kept, undecoded, until
    ``latest`` takes it. A view that is drawn four times per second skips the messages in between.

    Args:
        endpoint: The metrics socket.
        context: ZeroMQ context to use; by default a new one, which ``close`` destroys.
        keys: Directory with ``client.key`` and ``server.pub``, for a metrics socket with CURVE.
        conflated: Prefixes of the topics to conflate.
        counts: Where to count; by default a new object.

    Attributes:
        socket: Readable when messages wait; then call ``receive``.
        monitor: Readable when the connection has changed; then call ``follow_connection``.
        is_connected: True while connected to the pipeline, as of the last ``follow_connection``.

    Raises:
        NoPipelineError: If the endpoint is malformed.
        ConfigError: If the keys cannot be used.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        context: "zmq.Context[zmq.Socket[bytes]] | None" = None,
        keys: str | Path | None = None,
        conflated: Iterable[str] = (),
        counts: SubscriberCounts | None = None,
    ) -> None:
        client_keys = read_client_keys(Path(keys)) if keys else None
        self.counts = counts or SubscriberCounts()
        self.is_connected = False
        self._endpoint = endpoint
        used_context = context or zmq.Context()
        self._own_context = used_context if context is None else None
        self._topics: set[str] = set()
        self._prefixes: tuple[str, ...] = ()
        self._conflated = tuple(conflated)
        self._newest: dict[str, bytes] = {}
        self._sequences = SequenceTracker()
        self._retry_at: float | None = None
        self.socket = used_context.socket(zmq.SUB)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.RCVHWM, METRIC_QUEUE),
            # Subscriptions are messages too: ZeroMQ silently drops those above this mark.
            (zmq.SNDHWM, METRIC_QUEUE),
            (zmq.RECONNECT_IVL, RECONNECT_MS),
            (zmq.HEARTBEAT_IVL, HEARTBEAT_MS),
            (zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS),
            (zmq.MAXMSGSIZE, codec.MAX_FRAME_BYTES),
        ):
            self.socket.setsockopt(option, value)
        if client_keys is not None:
            client_keys.apply(self.socket)
        self.monitor = self.socket.get_monitor_socket(_LINK_EVENTS)
        try:
            self.socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            text = f"{endpoint!r} is not an endpoint; allowed: such as tcp://127.0.0.1:5556"
            raise NoPipelineError(text) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; messages that wait are dropped."""
        self.socket.disable_monitor()
        self.socket.close()
        if self._own_context is not None:
            self._own_context.destroy(linger=0)

    # -- subscriptions ---------------------------------------------------------------------------

    def subscribe(self, topic: str) -> None:
        """Receive exactly one topic: other topics that start with its name do not match."""
        if topic not in self._topics:
            self._topics.add(topic)
            self.socket.subscribe(topic)

    def unsubscribe(self, topic: str) -> None:
        """Undo ``subscribe``."""
        if topic in self._topics:
            self._topics.remove(topic)
            self.socket.unsubscribe(topic)
            self._forget_unsubscribed()

    def subscribe_prefix(self, prefix: str) -> None:
        """Receive every topic that starts with ``prefix``; an empty one matches all."""
        if prefix not in self._prefixes:
            self._prefixes += (prefix,)
            self.socket.subscribe(prefix)

    def unsubscribe_prefix(self, prefix: str) -> None:
        """Undo ``subscribe_prefix``."""
        if prefix in self._prefixes:
            self._prefixes = tuple(other for other in self._prefixes if other != prefix)
            self.socket.unsubscribe(prefix)
            self._forget_unsubscribed()

    def request_last_values(self) -> None:
        """Subscribe again, so that the pipeline repeats the last value of every topic."""
        for pattern in (*self._prefixes, *self._topics):
            self.socket.unsubscribe(pattern)
            self.socket.subscribe(pattern)

    def _matches(self, topic: str) -> bool:
        return topic in self._topics or topic.startswith(self._prefixes)

    def _forget_unsubscribed(self) -> None:
        self._sequences.forget(lambda topic: not self._matches(topic))
        self._newest = {topic: f for topic, f in self._newest.items() if self._matches(topic)}

    # -- messages --------------------------------------------------------------------------------

    def receive(self, limit: int = RECEIVE_LIMIT) -> Iterator[ReceivedMetric]:
        """
        Take up to ``limit`` waiting messages; never blocks.

        Iterate to the end. Repeats are included and marked. Messages of conflated topics are not
        returned: the newest of each is kept for ``latest``.
        """
        for _ in range(limit):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.counts.messages += 1
            topic = _topic_of(frames)
            if topic is None:
                self.counts.invalid += 1
            elif not self._matches(topic):
                pass  # a longer topic, or one that was unsubscribed while the message waited
            elif topic.startswith(self._conflated):
                self._newest[topic] = frames[1]
            elif (metric := self._decode(topic, frames[1])) is not None:
                self.counts.missed += metric.missed
                yield metric

    def wait(self, timeout_ms: int, *descriptors: int) -> None:
        """
        Wait for messages and follow the connection; for callers without a poll loop.

        Args:
            timeout_ms: How long to wait.
            descriptors: File descriptors that end the wait when they are readable.
        """
        self.maintain()
        poller = zmq.Poller()
        for source in (self.socket, self.monitor, *descriptors):
            poller.register(source, zmq.POLLIN)
        poller.poll(timeout_ms)

    def maintain(self) -> None:
        """Follow the connection, and connect again after a refusal; call it before every wait."""
        self.follow_connection()
        self.retry_refused()

    def latest(self) -> Iterator[ReceivedMetric]:
        """Take the newest message of each conflated topic that arrived since the last call."""
        newest, self._newest = self._newest, {}
        for topic, frame in newest.items():
            metric = self._decode(topic, frame)
            if metric is not None:
                yield metric._replace(missed=0)

    def _decode(self, topic: str, frame: bytes) -> ReceivedMetric | None:
        try:
            payload = codec.decode_map(frame)
        except CodecError:
            self.counts.invalid += 1
            return None
        arrival = self._sequences.classify(topic, payload.get("epoch"), payload.get("seq"))
        return ReceivedMetric(topic, payload, *arrival)

    # -- the connection --------------------------------------------------------------------------

    def follow_connection(self) -> bool:
        """
        Follow the connection to its present state; True if it was lost since the last call.

        Messages that were sent before the loss may still be waiting. After a loss, take them with
        ``receive`` and then drop all values: they are not current.
        """
        is_lost = False
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.is_connected = True
                continue
            is_lost = is_lost or self.is_connected
            self.is_connected = False
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self.counts.refused += 1
                self._retry_at = time.monotonic() + RETRY_REFUSED_S
        if is_lost and self.is_connected:
            self.request_last_values()  # the caller drops those that have arrived already
        return is_lost

    def retry_refused(self) -> None:
        """Connect again ``RETRY_REFUSED_S`` after a refusal; call it about that often."""
        if self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._retry_at = None
            self.socket.disconnect(self._endpoint)
            self.socket.connect(self._endpoint)


def _topic_of(frames: list[bytes]) -> str | None:
    """The topic of a message; None unless it has two frames and a topic in UTF-8."""
    if len(frames) != 2:
        return None
    try:
        return frames[0].decode()
    except UnicodeDecodeError:
        return None
