r"""
Records and payloads to msgpack bytes and back; the only file that imports msgpack.

A market bus frame is ``topic + \x00 + msgpack array``: one ZeroMQ frame costs half of two. A
metric payload and a control message are msgpack maps with named keys, because people read those.
Whatever cannot be read raises ``CodecError``; sizes and nesting are bounded before allocation by
msgpack's own limits, which ``max_buffer_size`` of the whole frame implies.
"""

from collections.abc import Mapping
from typing import Any, cast

import msgpack

from shared.errors import CodecError
from shared.messages import (
    SCHEMA_VERSION,
    BookMessage,
    LinkMessage,
    MarketMessage,
    Trade,
    TradesMessage,
)

MAX_FRAME_BYTES = 32 * 1024 * 1024

_pack = msgpack.Packer(autoreset=True).pack
_new = tuple.__new__

_RECORDS: dict[bytes, tuple[type[Any], int]] = {
    b"b": (BookMessage, len(BookMessage._fields)),
    b"t": (TradesMessage, len(TradesMessage._fields)),
    b"l": (LinkMessage, len(LinkMessage._fields)),
}


def encode_market(topic: bytes, message: MarketMessage) -> bytes:
    """One frame of the market bus; ``topic`` ends with its terminator."""
    return topic + cast(bytes, _pack(message))


def decode_market(frame: bytes) -> tuple[bytes, MarketMessage]:
    """
    The topic (terminator included) and the record of one market bus frame.

    The kind of record follows from the first letter of the topic. Trades are ``Trade`` tuples,
    levels plain ``(price, size)`` pairs.

    Raises:
        CodecError: If the frame is not a message of this schema version.
    """
    try:
        end = frame.index(b"\x00") + 1
        record, length = _RECORDS[frame[:1]]
        fields = msgpack.unpackb(memoryview(frame)[end:], use_list=False)
        if len(fields) != length or fields[0] != SCHEMA_VERSION:
            raise CodecError(f"not a {record.__name__} of schema version {SCHEMA_VERSION}")
        if record is TradesMessage:
            fields = (*fields[:-1], tuple([_new(Trade, trade) for trade in fields[-1]]))
    except (ValueError, KeyError, TypeError, IndexError, msgpack.UnpackException) as error:
        if isinstance(error, CodecError):
            raise
        raise CodecError(f"unreadable market frame: {type(error).__name__}: {error}") from error
    return frame[:end], _new(record, fields)


def encode_map(payload: Mapping[str, Any]) -> bytes:
    """A metric payload or control message as a msgpack map."""
    return cast(bytes, _pack(payload))


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
