"""Trades, messages and link events for the tests, and metrics as subscribers read them."""

from collections.abc import Sequence
from itertools import count
from typing import Any

from bybit_pipeline.processes.trades.aggregator import TradesAggregator
from bybit_pipeline.processes.trades.tape import TradeTape
from bybit_pipeline.shared.wire.codec import decode_map, encode_map
from bybit_pipeline.shared.wire.messages import (
    LinkEvent,
    LinkMessage,
    Side,
    Source,
    Trade,
    TradesMessage,
)

T0 = 1_700_000_000_000
"""Exchange time at the start of the tests; our clock shows another time, as in a replay."""
OUR_T0 = 5_000_000_000_000
IDS = count()


def trade(
    at_ms: int = 0,
    side: Side = "Buy",
    price: float = 100.0,
    size: float = 1.0,
    trade_id: str = "",
    sequence: int | None = None,
) -> Trade:
    """A trade ``at_ms`` after the start, with a new id unless one is given."""
    identity = trade_id or f"trade-{next(IDS)}"
    return Trade(T0 + at_ms, side, price, size, identity, sequence, False, False)


def trades_message(
    at_ms: int,
    trades: Sequence[Trade],
    *,
    session: int = 1,
    source: Source = "sim",
    our_ms: int | None = None,
) -> TradesMessage:
    """A message pushed ``at_ms`` after the start, received then or at ``our_ms``."""
    our_ns = OUR_T0 + (at_ms if our_ms is None else our_ms) * 1_000_000
    return TradesMessage(1, source, session, 1, our_ns, T0 + at_ms, tuple(trades))


def link(
    event: LinkEvent,
    at_ms: int,
    topics: Sequence[str] = ("trade.linear.BTCUSDT",),
    *,
    session: int = 1,
    source: Source = "sim",
) -> LinkMessage:
    return LinkMessage(1, source, session, 1, OUR_T0 + at_ms * 1_000_000, event, "", tuple(topics))


def our_ns(at_ms: int) -> int:
    return OUR_T0 + at_ms * 1_000_000


def metrics(aggregator: TradesAggregator, at_ms: int, symbol: str = "BTCUSDT") -> dict[str, Any]:
    """The ``trades.*`` fields ``at_ms`` after the start, as a subscriber reads them."""
    tape = aggregator.tape(symbol)
    assert tape is not None
    return metrics_of(aggregator, tape, our_ns(at_ms))


def metrics_of(aggregator: TradesAggregator, tape: TradeTape, now_ns: int) -> dict[str, Any]:
    """The ``trades.*`` fields at a time of our clock, as a subscriber reads them."""
    record = aggregator.metric(
        tape,
        now_ns,
        source=tape.source or "sim",
        process="trades-0",
        epoch="epoch",
        seq=1,
        publish_ts_ns=now_ns,
    )
    return decode_map(encode_map(record))
