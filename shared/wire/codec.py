r"""
Conversion of records and payloads to msgpack bytes and back; only this file does it.

A market bus frame is ``topic + \x00 + msgpack array``, in one ZeroMQ frame because that costs half
of two. Workers receive many records in one frame, and the forwarder many metrics: a bundle.
msgspec unpacks records and checks every field. Metrics and control messages are msgpack maps with
named keys, because people read them. Unreadable bytes raise ``CodecError``; neither library
allocates more than the frame has bytes for.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import DecodeError
from msgspec.msgpack import Decoder, Encoder

from bybit_pipeline.shared.errors import CodecError
from bybit_pipeline.shared.wire.common import MetricRecord
from bybit_pipeline.shared.wire.messages import (
    BookMessage,
    HeartbeatMessage,
    LinkMessage,
    MarketMessage,
    TradesMessage,
)
from bybit_pipeline.shared.wire.progress import Progress

MAX_FRAME_BYTES = 32 * 1024 * 1024

_pack = Encoder().encode
"""Writes the same bytes as msgpack's packer, but faster."""

_DECODERS: dict[bytes, Callable[[bytes], MarketMessage]] = {
    b"b": Decoder(BookMessage).decode,
    b"t": Decoder(TradesMessage).decode,
    b"l": Decoder(LinkMessage).decode,
    b"h": Decoder(HeartbeatMessage).decode,
}

_unpack_parts = Decoder(list[bytes]).decode
_unpack_progress = Decoder(list[Progress]).decode
_unpack_map = Decoder(dict[str, Any]).decode


def encode_record(message: MarketMessage) -> bytes:
    """Pack a record as a msgpack array: the part of a market bus frame after the topic."""
    return _pack(message)


def decode_market(frame: bytes) -> tuple[bytes, MarketMessage]:
    """
    Return the topic (with its terminator) and the record of a market bus frame.

    The first letter of the topic selects the record.

    Raises:
        CodecError: If the frame is not a message of this schema version.
    """
    end = frame.find(b"\x00") + 1
    return frame[:end], decode_record(frame[:end], frame[end:])


UNREADABLE = (DecodeError, UnicodeDecodeError)
"""Errors that a decoder of records raises for unreadable bytes."""


def record_decoder(topic: bytes) -> Callable[[bytes], MarketMessage]:
    """Return the decoder for the records of a topic; the decoder raises ``UNREADABLE``."""
    return _DECODERS[topic[:1]]


def decode_record(topic: bytes, record: bytes) -> MarketMessage:
    """
    Unpack the record of a message with this topic.

    Raises:
        CodecError: If it is not a message of this schema version.
    """
    try:
        return record_decoder(topic)(record)
    except (*UNREADABLE, KeyError) as error:
        raise CodecError(f"unreadable market message: {type(error).__name__}: {error}") from error


def encode_bundle(parts: list[bytes]) -> bytes:
    """Pack several messages into one frame: a msgpack array of topic, content, topic, content, …"""
    return _pack(parts)


def decode_bundle(bundle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """
    Yield topic and content (a packed record or map) of the messages in a bundle, in order.

    Raises:
        CodecError: If the bytes are not a bundle.
    """
    try:
        parts = _unpack_parts(bundle)
    except DecodeError as error:
        raise CodecError(f"unreadable bundle: {error}") from error
    if not parts or len(parts) % 2:
        raise CodecError(f"bundle of {len(parts)} parts; must be pairs of topic and content")
    each = iter(parts)
    return zip(each, each, strict=True)


def encode_progress(topics: list[Progress]) -> bytes:
    """Pack the progress of a worker."""
    return _pack(topics)


def decode_progress(packed: bytes) -> list[Progress]:
    """
    Unpack the progress of a worker.

    Raises:
        CodecError: If the bytes are not the progress of a worker.
    """
    try:
        return _unpack_progress(packed)
    except (*UNREADABLE, TypeError) as error:
        raise CodecError(f"unreadable progress: {type(error).__name__}") from error


def encode_map(payload: MetricRecord | Mapping[str, Any]) -> bytes:
    """Pack a metric or a control message as a msgpack map."""
    return _pack(payload)


def decode_map(frame: bytes) -> dict[str, Any]:
    """
    Unpack the map of a metric or control message.

    Raises:
        CodecError: If the bytes are not a msgpack map with text keys.
    """
    if len(frame) > MAX_FRAME_BYTES:
        raise CodecError(f"frame of {len(frame)} bytes; at most {MAX_FRAME_BYTES} are allowed")
    try:
        return _unpack_map(frame)
    except (*UNREADABLE, RecursionError, TypeError) as error:
        raise CodecError(f"unreadable map: {type(error).__name__}") from error
