"""Metrics on their way: workers push batches to the forwarder, which publishes them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import zmq

from bybit_pipeline.shared.bus.sockets import LINGER_MS, RECONNECT_MS, bind, plain_send
from bybit_pipeline.shared.errors import CodecError
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.shared.wire.common import MetricRecord

Payload = MetricRecord | Mapping[str, Any]

METRIC_QUEUE = 50_000
"""Metrics queued for a slow subscriber before ZeroMQ drops them."""
HEARTBEAT_PREFIX = b"heartbeat."
"""Start of the topic of heartbeats to the forwarder, which are not passed on."""
BURST = 32
"""Upper limit of metrics in one frame to the forwarder."""
BURST_QUEUE = 10_000
"""
Frames queued for the forwarder: about 50 s of a busy worker, longer than any restart of the
forwarder takes.
"""


class MetricPublisher:
    """
    A worker's end of the way to the forwarder.

    A PUSH socket with a bounded queue, so that nothing is lost while the forwarder restarts.
    ``dropped`` counts the metrics that found the queue full.
    """

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, *, queue: int = BURST_QUEUE
    ) -> None:
        self._socket = context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.SNDHWM, queue)
        self._socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        self._socket.connect(endpoint)
        self._plain_send = plain_send(self._socket)
        self.dropped = 0

    def publish(self, topic: bytes, payload: Payload) -> None:
        """Send to the forwarder; never blocks."""
        self._send([topic, codec.encode_map(payload)])

    def publish_all(self, metrics: Iterable[tuple[bytes, Payload]]) -> None:
        """
        Send several metrics in order, up to ``BURST`` per frame; never blocks.

        Sent one by one, each metric would wake ZeroMQ's threads and the forwarder.
        """
        parts: list[bytes] = []
        for topic, payload in metrics:
            parts += (topic, codec.encode_map(payload))
            if len(parts) == 2 * BURST:
                self._send(parts)
                parts.clear()
        if parts:
            self._send(parts)

    def heartbeat(self, process: str, now: float) -> None:
        """
        Prove to the forwarder that this process still publishes.

        Args:
            process: Name of this process.
            now: Seconds of the monotonic clock, which all processes of a machine share.
        """
        self.publish(HEARTBEAT_PREFIX + process.encode(), {"sent_s": now})

    def tombstone(self, topic: bytes) -> None:
        """Make the forwarder forget a topic, by an empty payload that it does not pass on."""
        self._send([topic, b""])

    def _send(self, parts: list[bytes]) -> None:
        """Send topic, payload, topic, payload, … as one frame."""
        try:
            self._plain_send(codec.encode_bundle(parts), zmq.NOBLOCK)
        except zmq.Again:
            self.dropped += len(parts) // 2

    def close(self) -> None:
        """Close the socket; pending messages get ``LINGER_MS``."""
        self._socket.close()


class MetricInbox:
    """The forwarder's end: a bound PULL socket. Payloads are not decoded."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, *, queue: int = BURST_QUEUE
    ) -> None:
        self.socket = context.socket(zmq.PULL)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, queue)
        self.endpoint = bind(self.socket, endpoint)

    def receive(self, limit: int) -> Iterator[tuple[bytes, bytes]]:
        """
        Yield topic and payload of the waiting metrics, about ``limit`` at most; never blocks.

        Iterate to the end. An unreadable frame is yielded with an empty topic.
        """
        left = limit
        while left > 0:
            try:
                frame = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                metrics = list(codec.decode_bundle(frame))
            except CodecError:
                metrics = [(b"", frame)]
            left -= len(metrics)
            yield from metrics

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
