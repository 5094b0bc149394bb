r"""
Records and payloads to msgpack bytes and back; the only file that knows how.

A market bus frame is ``topic + \x00 + msgpack array``: one ZeroMQ frame costs half of two. Workers
get many records in a frame, and the forwarder many metrics: a bundle. Records are unpacked by
msgspec, which checks every field on the way. A metric payload and a control message are msgpack
maps with named keys, because people read those. Whatever cannot be read raises ``CodecError``;
neither library allocates more than the frame has bytes for.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgpack
from msgspec import DecodeError
from msgspec.msgpack import Decoder, Encoder

from bybit_pipeline.shared.errors import CodecError
from bybit_pipeline.shared.wire.common import MetricRecord
from bybit_pipeline.shared.wire.messages import (
    BookMessage,
    LinkMessage,
    MarketMessage,
    TradesMessage,
)

MAX_FRAME_BYTES = 32 * 1024 * 1024

_pack = Encoder().encode
"""The same bytes as msgpack's own packer, in a third of its time."""

_DECODERS: dict[bytes, Callable[[bytes], MarketMessage]] = {
    b"b": Decoder(BookMessage).decode,
    b"t": Decoder(TradesMessage).decode,
    b"l": Decoder(LinkMessage).decode,
}

_unpack_parts = Decoder(list[bytes]).decode


def encode_record(message: MarketMessage) -> bytes:
    """A record as a msgpack array: a frame of the market bus, once its topic stands before it."""
    return _pack(message)


def decode_market(frame: bytes) -> tuple[bytes, MarketMessage]:
    """
    The topic (terminator included) and the record of a market bus frame, as anybody may get it.

    The kind of record follows from the first letter of the topic. Levels are plain ``(price,
    size)`` pairs.

    Raises:
        CodecError: If the frame is not a message of this schema version.
    """
    end = frame.find(b"\x00") + 1
    return frame[:end], decode_record(frame[:end], frame[end:])


UNREADABLE = (DecodeError, UnicodeDecodeError)
"""What a decoder of records raises when it cannot read one."""


def record_decoder(topic: bytes) -> Callable[[bytes], MarketMessage]:
    """What decodes the records of a topic; it raises ``UNREADABLE``."""
    return _DECODERS[topic[:1]]


def decode_record(topic: bytes, record: bytes) -> MarketMessage:
    """
    The record of a message with this topic.

    Raises:
        CodecError: If it is no message of this schema version.
    """
    try:
        return record_decoder(topic)(record)
    except (*UNREADABLE, KeyError) as error:
        raise CodecError(f"unreadable market message: {type(error).__name__}: {error}") from error


def encode_bundle(parts: list[bytes]) -> bytes:
    """Several messages in one frame: a msgpack array of topic, content, topic, content, …"""
    return _pack(parts)


def decode_bundle(bundle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """
    Topic and content, a record or a packed map, of the messages in a bundle, in order.

    Raises:
        CodecError: If it is none.
    """
    try:
        parts = _unpack_parts(bundle)
    except DecodeError as error:
        raise CodecError(f"unreadable bundle: {error}") from error
    if not parts or len(parts) % 2:
        raise CodecError(f"a bundle of {len(parts)} parts")
    each = iter(parts)
    return zip(each, each, strict=True)


def encode_map(payload: MetricRecord | Mapping[str, Any]) -> bytes:
    """Pack a metric or a control message as a msgpack map."""
    return _pack(payload)


def decode_map(frame: bytes) -> dict[str, Any]:
    """
    The map of a metric payload or control message.

    Raises:
        CodecError: If the bytes are not a msgpack map with text keys.
    """
    if len(frame) > MAX_FRAME_BYTES:
        raise CodecError(f"frame of {len(frame)} bytes; at most {MAX_FRAME_BYTES}")
    try:
        payload = msgpack.unpackb(frame, use_list=True)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise CodecError(f"unreadable map: {type(error).__name__}") from error
    if not isinstance(payload, dict) or not all(isinstance(key, str) for key in payload):
        raise CodecError("not a map with text keys")
    return payload
