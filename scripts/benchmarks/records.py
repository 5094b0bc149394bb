"""Frames of the load as records of the market bus, for what is measured without a connector."""

from bybit_pipeline.processes.connector.protocol import BookUpdate, TradeBatch, decode
from bybit_pipeline.shared.wire.messages import BookMessage, TradesMessage


def frame_payload(frame: bytes) -> bytes:
    """What a frame of ``frames.websocket_frame`` carries."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


def record_of(payload: bytes, recv_ts_ns: int, number: int = 1) -> BookMessage | TradesMessage:
    """The record of a linear message, with its ``bus_sequence``."""
    decoded = decode(payload, "linear", recv_ts_ns)
    if isinstance(decoded, BookUpdate):
        return decoded.record("live", 1, number)
    assert isinstance(decoded, list)
    assert isinstance(decoded[0], TradeBatch)
    return decoded[0].record("live", 1, number)
