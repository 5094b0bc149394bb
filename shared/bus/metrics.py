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
"""Metrics a slow subscriber may fall behind before losses begin."""
BURST = 32
"""Metrics that go to the forwarder in one frame, at most; making them takes some 3 ms."""
BURST_QUEUE = 10_000
"""
Frames that may wait for the forwarder: 50 s of a worker whose every turn has something to publish.
One that does nothing is restarted after 5, one that crashes at every start is away for some 34.
"""


class MetricPublisher:
    """
    A worker's way to the forwarder: topic and msgpack map.

    A PUSH socket, so that nothing is lost while the forwarder starts or restarts: frames wait in a
    bounded queue. ``dropped`` counts the metrics that found it full.
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
        Send several in order, ``BURST`` in a frame, once they are made; never blocks.

        Sent one by one as they are made, some 0.1 ms apart, each wakes ZeroMQ's thread here and
        there and the forwarder.
        """
        parts: list[bytes] = []
        for topic, payload in metrics:
            parts += (topic, codec.encode_map(payload))
            if len(parts) == 2 * BURST:
                self._send(parts)
                parts.clear()
        if parts:
            self._send(parts)

    def tombstone(self, topic: bytes) -> None:
        """Tell the forwarder to forget a topic: an empty payload, which it does not pass on."""
        self._send([topic, b""])

    def _send(self, parts: list[bytes]) -> None:
        """Topic, payload, topic, payload, …"""
        try:
            self._plain_send(codec.encode_bundle(parts), zmq.NOBLOCK)
        except zmq.Again:
            self.dropped += len(parts) // 2

    def close(self) -> None:
        """Close the socket; pending messages get ``LINGER_MS``."""
        self._socket.close()


class MetricInbox:
    """The forwarder's inbound end: a bound PULL socket; no payload is decoded."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, *, queue: int = BURST_QUEUE
    ) -> None:
        self.socket = context.socket(zmq.PULL)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, queue)
        self.endpoint = bind(self.socket, endpoint)

    def receive(self, limit: int) -> Iterator[tuple[bytes, bytes]]:
        """
        Topic and payload of the metrics that are waiting, some ``limit`` at most; never blocks.

        Iterate it to its end. A frame that is none of ours comes with an empty topic.
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
