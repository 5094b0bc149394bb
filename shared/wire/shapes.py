"""
Metrics without numbers: every field of ``trades.*`` and ``orderbook.*``, none of it known.

Two processes must agree on these: the worker that publishes a market, and the supervisor, which
says that nothing is known of it when that worker has died (contract section 3).
"""

from collections.abc import Iterable
from typing import Any

from bybit_pipeline.shared.wire.messages import SCHEMA_VERSION, Category, Source

BOOK_MEASURES: dict[str, Any] = {
    "best_bid": None,
    "best_bid_size": None,
    "best_ask": None,
    "best_ask_size": None,
    "mid_price": None,
    "spread": None,
    "spread_bps": None,
    "weighted_mid": None,
    "imbalance": None,
    "depth": None,
    "impact": None,
    "ofi": None,
    "bids": [],
    "asks": [],
}
"""The measures of a book that is not live: every field, no number."""

WINDOW_MEASURES: dict[str, None] = dict.fromkeys(
    (
        "trades",
        "tpm",
        "tps",
        "volume",
        "buy_volume",
        "sell_volume",
        "vol_delta",
        "buy_sell_ratio",
        "buy_share",
        "turnover",
        "vwap",
        "high",
        "low",
    )
)
"""The measures of a window of which nothing was observed."""


def stale_head(
    kind: str,
    category: Category,
    symbol: str,
    *,
    source: Source,
    process: str,
    epoch: str,
    seq: int,
    publish_ts_ns: int,
) -> dict[str, Any]:
    """The common fields of a metric that rests on no input at all; ``state`` is ``stale``."""
    return {
        "v": SCHEMA_VERSION,
        "kind": kind,
        "category": category,
        "symbol": symbol,
        "source": source,
        "process": process,
        "epoch": epoch,
        "seq": seq,
        "state": "stale",
        "match_ts_ms": None,
        "exchange_ts_ms": None,
        "recv_ts_ns": None,
        "publish_ts_ns": publish_ts_ns,
    }


def no_book(reason: str) -> dict[str, Any]:
    """The own fields of an ``orderbook.*`` message that knows nothing."""
    return {
        "reason": reason,
        "update_id": None,
        "sequence": None,
        **BOOK_MEASURES,
        "densities": [],
    }


def no_trades(
    reason: str,
    *,
    windows: Iterable[str],
    quantiles: Iterable[float] = (),
    with_volatility: bool = False,
) -> dict[str, Any]:
    """
    The own fields of a ``trades.*`` message that knows nothing.

    Args:
        reason: Why.
        windows: Names of the configured windows, such as ``60s``.
        quantiles: Those configured, such as 0.5.
        with_volatility: Whether windows have a ``realised_volatility``.
    """
    window: dict[str, Any] = {**WINDOW_MEASURES, "coverage_s": 0.0}
    if with_volatility:
        window["realised_volatility"] = None
    asked = [str(quantile) for quantile in quantiles]
    if asked:
        window["size_quantiles"] = dict.fromkeys(asked)
    return {
        "reason": reason,
        "as_of_ms": None,
        "last_price": None,
        "last_size": None,
        "last_side": None,
        "last_trade_id": None,
        "trades_total": None,
        "cvd": None,
        "untrusted_s": None,
        "tps": None,
        "windows": {name: dict(window) for name in windows},
    }
