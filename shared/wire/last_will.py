"""
Last will: the message about a market whose worker cannot speak for itself. Pure.

It replaces the last message of the worker, which may still say ``live``: the state is ``stale`` and
there are no numbers. The supervisor publishes it for a worker that died, the forwarder for one that
is silent.
"""

from collections.abc import Mapping
from typing import Literal, TypedDict, TypeVar, Unpack

import msgspec

from bybit_pipeline.shared.errors import CodecError
from bybit_pipeline.shared.wire.codec import UNREADABLE
from bybit_pipeline.shared.wire.messages import Category, Source
from bybit_pipeline.shared.wire.orderbook import Orderbook
from bybit_pipeline.shared.wire.trades import Trades, Window, unobserved_window

WillReason = Literal["process_down", "process_silent"]
T = TypeVar("T")


class WillHeader(TypedDict):
    """The fields of a last will, besides its state."""

    category: Category
    symbol: str
    source: Source
    process: str
    epoch: str
    seq: int
    publish_ts_ns: int
    reason: WillReason


class _Header(msgspec.Struct):
    process: str
    state: str


def orderbook_will(**header: Unpack[WillHeader]) -> Orderbook:
    """Return the last will of a book."""
    return Orderbook(state="stale", **header)


def trades_will(windows: Mapping[str, Window], **header: Unpack[WillHeader]) -> Trades:
    """Return the last will of the trades of a symbol; ``windows`` are those without numbers."""
    return Trades(state="stale", windows=dict(windows), **header)


def process_and_state(payload: bytes) -> tuple[str, str]:
    """
    Return the process and the state of a market message.

    Raises:
        CodecError: If it has none, or is unreadable.
    """
    header = _decode(payload, _Header)
    return header.process, header.state


def will_after(
    topic: bytes, payload: bytes, *, epoch: str, publish_ts_ns: int, reason: WillReason
) -> Orderbook | Trades | None:
    """
    Return the last will that follows the last message of a topic; None for other kinds.

    Raises:
        CodecError: If the message is unreadable.
    """
    last: Orderbook | Trades
    if topic.startswith(b"orderbook."):
        last = _decode(payload, Orderbook)
    elif topic.startswith(b"trades."):
        last = _decode(payload, Trades)
    else:
        return None
    header: WillHeader = {
        "category": last.category,
        "symbol": last.symbol,
        "source": last.source,
        "process": last.process,
        "epoch": epoch,
        "seq": 1,
        "publish_ts_ns": publish_ts_ns,
        "reason": reason,
    }
    if isinstance(last, Orderbook):
        return orderbook_will(**header)
    return trades_will({name: _without_numbers(w) for name, w in last.windows.items()}, **header)


def _decode(payload: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except UNREADABLE as error:
        raise CodecError(f"unreadable metric: {error}") from error


def _without_numbers(window: Window) -> Window:
    quantiles = window.size_quantiles
    return unobserved_window(
        quantiles=() if quantiles is msgspec.UNSET else map(float, quantiles),
        with_volatility=window.realised_volatility is not msgspec.UNSET,
    )
