"""
Last will: the message about a market whose worker cannot speak for itself. Pure.

It replaces the last message of the worker, which may still say ``live``: the state is ``stale`` and
there are no numbers. The supervisor publishes it for a worker that died, the forwarder for one that
is silent.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from bybit_pipeline.shared.errors import CodecError
from bybit_pipeline.shared.wire.codec import UNREADABLE
from bybit_pipeline.shared.wire.messages import Category, Source
from bybit_pipeline.shared.wire.orderbook import Orderbook
from bybit_pipeline.shared.wire.trades import Trades, Window, unobserved_window

WillReason = Literal["process_down", "process_silent"]


class _Header(msgspec.Struct):
    process: str
    state: str


def orderbook_will(
    category: Category,
    symbol: str,
    *,
    source: Source,
    process: str,
    epoch: str,
    seq: int,
    publish_ts_ns: int,
    reason: WillReason,
) -> Orderbook:
    """Return the last will of a book."""
    return Orderbook(
        category=category,
        symbol=symbol,
        source=source,
        process=process,
        epoch=epoch,
        seq=seq,
        publish_ts_ns=publish_ts_ns,
        state="stale",
        reason=reason,
    )


def trades_will(
    category: Category,
    symbol: str,
    *,
    source: Source,
    process: str,
    epoch: str,
    seq: int,
    publish_ts_ns: int,
    reason: WillReason,
    windows: Mapping[str, Window],
) -> Trades:
    """Return the last will of the trades of a symbol; ``windows`` are those without numbers."""
    return Trades(
        category=category,
        symbol=symbol,
        source=source,
        process=process,
        epoch=epoch,
        seq=seq,
        publish_ts_ns=publish_ts_ns,
        state="stale",
        reason=reason,
        windows=dict(windows),
    )


def process_and_state(payload: bytes) -> tuple[str, str]:
    """
    Return the process and the state of a market message.

    Raises:
        CodecError: If it has none, or is unreadable.
    """
    try:
        header = msgspec.msgpack.decode(payload, type=_Header)
    except UNREADABLE as error:
        raise CodecError(f"unreadable metric: {error}") from error
    return header.process, header.state


def will_after(
    topic: bytes, payload: bytes, *, epoch: str, publish_ts_ns: int, reason: WillReason
) -> Orderbook | Trades | None:
    """
    Return the last will that follows the last message of a topic; None for other kinds.

    Raises:
        CodecError: If the message is unreadable.
    """
    kind = topic.partition(b".")[0]
    try:
        if kind == b"orderbook":
            book = msgspec.msgpack.decode(payload, type=Orderbook)
            return orderbook_will(
                book.category,
                book.symbol,
                source=book.source,
                process=book.process,
                epoch=epoch,
                seq=1,
                publish_ts_ns=publish_ts_ns,
                reason=reason,
            )
        if kind == b"trades":
            trades = msgspec.msgpack.decode(payload, type=Trades)
            return trades_will(
                trades.category,
                trades.symbol,
                source=trades.source,
                process=trades.process,
                epoch=epoch,
                seq=1,
                publish_ts_ns=publish_ts_ns,
                reason=reason,
                windows={name: _without_numbers(w) for name, w in trades.windows.items()},
            )
    except UNREADABLE as error:
        raise CodecError(f"unreadable metric: {error}") from error
    return None


def _without_numbers(window: Window) -> Window:
    quantiles = window.size_quantiles
    return unobserved_window(
        quantiles=() if quantiles is msgspec.UNSET else map(float, quantiles),
        with_volatility=window.realised_volatility is not msgspec.UNSET,
    )
