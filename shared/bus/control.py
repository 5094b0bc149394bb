"""
The control plane: one DEALER in every process, one ROUTER in the supervisor, msgpack maps.

Every message has ``type``. From a child up:

    ready       process, pid, role, prometheus ("host:port" or ""), endpoints (name -> endpoint)
    heartbeat   process; status (the map that ``Actor.status`` gives) in some of them
    resync      process, topic ("book.linear.BTCUSDT"), reason; for a trade topic, a late worker
                requests its announcement again

    gaps        process, base, gaps (list of maps)            from workers: changed gaps, or all
                when requested; ``base`` is ``last_gap_id`` of the spec
    progress    process, base, topics (see ``codec.encode_progress``)          from workers

From the supervisor down to a child:

    assign      assignment (see ``specs.Assignment``)         to workers
    unassign    topic                                         to workers
    republish   -                                             to workers: the forwarder restarted
    gaps        -                                             to workers: report all gaps again
    subscribe   streams (list of ``specs.Stream``)            to connectors
    unsubscribe streams                                       to connectors
    resync      topic, reason                                 to connectors
    source      source, url                                   to connectors: change the source
    share       share (connections in 5 minutes)              to connectors
    stop        -                                             to everyone

A command line is another DEALER: it sends ``request`` (id, command, arguments) and gets ``reply``
(id, ok, result or error).
"""

from collections.abc import Iterator
from typing import Any

import zmq

from bybit_pipeline.shared.bus.sockets import LINGER_MS, RECONNECT_MS
from bybit_pipeline.shared.errors import CodecError
from bybit_pipeline.shared.wire import codec

HEARTBEAT_S = 0.25
"""Interval of the heartbeats, in seconds. A process without one for 1.2 s counts as silent."""
STATUS_S = 1.0
"""
Interval of the heartbeats with a status, in seconds.

A status lists every topic, so it is too large for every heartbeat.
"""
CONTROL_QUEUE = 10_000


class ControlLink:
    """
    A child's end of the control plane.

    ``dropped`` counts messages that found the queue full, ``invalid`` counts frames that are not
    control messages.
    """

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, process: str
    ) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.ROUTING_ID, process.encode())
        self.socket.setsockopt(zmq.LINGER, LINGER_MS)
        self.socket.setsockopt(zmq.SNDHWM, CONTROL_QUEUE)
        self.socket.setsockopt(zmq.RCVHWM, CONTROL_QUEUE)
        self.socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        self.socket.connect(endpoint)
        self._process = process
        self.dropped = 0
        self.invalid = 0

    def send(self, kind: str, **fields: Any) -> None:
        """Send one message up; never blocks."""
        message = {"type": kind, "process": self._process, **fields}
        try:
            self.socket.send(codec.encode_map(message), zmq.NOBLOCK)
        except zmq.Again:
            self.dropped += 1

    def receive(self) -> Iterator[dict[str, Any]]:
        """Yield the waiting commands; never blocks."""
        while True:
            try:
                frame = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                command = codec.decode_map(frame)
            except CodecError:
                self.invalid += 1
                continue
            if isinstance(command.get("type"), str):
                yield command
            else:
                self.invalid += 1

    def close(self) -> None:
        """Close the socket; pending messages get ``LINGER_MS``."""
        self.socket.close()
