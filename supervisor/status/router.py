"""
The supervisor's end of the control plane: one ROUTER for all children and command lines.

Checks that a frame is a control message and that a child speaks for itself. Every other frame is
counted and dropped, so that no sender can bring the supervisor down. The meaning of the messages is
in ``bybit_pipeline.shared.bus.control``.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args

import zmq

from bybit_pipeline.shared.bus.control import CONTROL_QUEUE
from bybit_pipeline.shared.bus.sockets import LINGER_MS, bind
from bybit_pipeline.shared.errors import CodecError
from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.wire import codec

InvalidReason = Literal["frames", "unreadable", "type", "sender", "content"]
INVALID_REASONS: tuple[InvalidReason, ...] = get_args(InvalidReason)
MESSAGE_BYTES_MAX = 8 * 1024 * 1024
RECEIVE_LIMIT = 10_000
"""Messages per turn of the loop, so that a flood cannot delay its timers for long."""


class Envelope(NamedTuple):
    """One control message and its sender."""

    sender: bytes
    message: dict[str, Any]


class ControlRouter:
    """
    Receives from all peers, sends to any of them.

    Args:
        context: The ZeroMQ context of the process.
        endpoint: Where to bind.
        telemetry: Registry of the counter.

    Attributes:
        invalid: Dropped messages by reason: not two frames, not a msgpack map, without a known
            ``type``, with a ``process`` other than the sender, or with unusable fields.
    """

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, telemetry: Telemetry
    ) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, LINGER_MS)
        self.socket.setsockopt(zmq.SNDHWM, CONTROL_QUEUE)
        self.socket.setsockopt(zmq.RCVHWM, CONTROL_QUEUE)
        self.socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
        self.endpoint = bind(self.socket, endpoint)
        self.invalid: Counter[InvalidReason] = Counter(dict.fromkeys(INVALID_REASONS, 0))
        telemetry.counters(
            "control_frames_invalid_total",
            "Control frames dropped.",
            ("reason",),
            lambda: [((reason,), self.invalid[reason]) for reason in INVALID_REASONS],
        )

    def receive(self) -> Iterator[Envelope]:
        """The waiting messages, at most ``RECEIVE_LIMIT``; never blocks."""
        for _ in range(RECEIVE_LIMIT):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            envelope = _read(frames)
            if isinstance(envelope, Envelope):
                yield envelope
            else:
                self.invalid[envelope] += 1

    def send(self, receiver: str | bytes, message: Mapping[str, Any]) -> None:
        """Send to a process or reply to a sender; lost if that peer is not connected."""
        identity = receiver.encode() if isinstance(receiver, str) else receiver
        self.socket.send_multipart([identity, codec.encode_map(message)], zmq.NOBLOCK)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def _read(frames: list[bytes]) -> Envelope | InvalidReason:
    if len(frames) != 2:
        return "frames"
    sender, body = frames
    try:
        message = codec.decode_map(body)
    except CodecError:
        return "unreadable"
    kind, process = message.get("type"), message.get("process")
    if not isinstance(kind, str):
        return "type"
    if kind != "request" and (not isinstance(process, str) or process.encode() != sender):
        return "sender"
    return Envelope(sender, message)
