"""The ``trades.*`` record: the last trade, totals and sliding windows of one market."""

from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import UNSET, Meta

from bybit_pipeline.shared.wire.common import (
    Count,
    MarketMetric,
    MetricRecord,
    Millis,
    Notional,
    OrAbsent,
    Price,
    Rate,
    Ratio,
    Seconds,
    Share,
    SignedSize,
    Size,
)
from bybit_pipeline.shared.wire.gaps import TradesGapReason
from bybit_pipeline.shared.wire.messages import Side

TradesState = Literal["live", "warming", "stale"]
TradesReason = Literal[TradesGapReason, "starting", "source_change", "overflow"]


class Window(MetricRecord, frozen=True, kw_only=True):
    """
    The trades of the last W seconds, where W is the length of the window.

    If no part of the window was observed, every number except ``coverage_s`` is null.
    """

    trades: Annotated[Count | None, Meta(description="Number of trades.")] = None
    tpm: Annotated[Rate | None, Meta(description="Trades per minute: `trades * 60 / W`.")] = None
    tps: Annotated[Rate | None, Meta(description="Trades per second: `trades / W`.")] = None
    volume: Annotated[Size | None, Meta(description="Traded size.")] = None
    buy_volume: Annotated[Size | None, Meta(description="Size bought by takers.")] = None
    sell_volume: Annotated[Size | None, Meta(description="Size sold by takers.")] = None
    vol_delta: Annotated[
        SignedSize | None, Meta(description="Volume delta: `buy_volume - sell_volume`.")
    ] = None
    buy_sell_ratio: Annotated[
        Ratio | None, Meta(description="`buy_volume / sell_volume`; null without sells.")
    ] = None
    buy_share: Annotated[
        Share | None, Meta(description="`buy_volume / volume`; null without trades.")
    ] = None
    turnover: Annotated[
        Notional | None,
        Meta(description="Sum of price times size; on inverse, the sum of sizes."),
    ] = None
    vwap: Annotated[
        Price | None,
        Meta(
            description="Volume-weighted average price: `turnover / volume`; on inverse, "
            "`sum(size) / sum(size / price)`. Null without trades."
        ),
    ] = None
    high: Annotated[Price | None, Meta(description="Highest price; null without trades.")] = None
    low: Annotated[Price | None, Meta(description="Lowest price; null without trades.")] = None
    coverage_s: Annotated[
        Seconds,
        Meta(description="Observed part of the window. Below W, the counts are lower bounds."),
    ] = 0.0
    realised_volatility: Annotated[
        OrAbsent[Ratio | None],
        Meta(
            description="Square root of the sum of squared log returns between prices sampled "
            "every second; a fraction, not annualised. Null with fewer than two samples. Present "
            "if `trades.volatility` is on."
        ),
    ] = UNSET
    size_quantiles: Annotated[
        OrAbsent[dict[str, Size | None]],
        Meta(
            description="Quantiles of the trade size, by probability. Each is the size of a trade "
            "in the window; null without trades. Present if `trades.quantiles` is not empty."
        ),
    ] = UNSET


class Trades(MarketMetric, frozen=True, kw_only=True):
    """
    ``trades.CATEGORY.SYMBOL``: the measures of the trades of a market.

    Published four times a second while the market trades (``trades.publish_interval_ms``), at once
    when ``state`` changes, and at least once a second.
    """

    kind: Literal["trades"] = "trades"
    state: Annotated[
        TradesState,
        Meta(
            description="`live`: the longest window is completely observed. `warming`: not yet; "
            "see `coverage_s`. `stale`: trades are being missed now."
        ),
    ]
    reason: Annotated[
        TradesReason | None,
        Meta(description="Reason why the state is not `live`; null when it is."),
    ] = None
    as_of_ms: Annotated[
        Millis | None,
        Meta(description="Exchange time at which every window ends; null until it is known."),
    ] = None
    last_price: Annotated[
        Price | None, Meta(description="Price of the last trade; null before the first one.")
    ] = None
    last_size: Annotated[
        Size | None, Meta(description="Size of the last trade; null before the first one.")
    ] = None
    last_side: Annotated[
        Side | None,
        Meta(description="Taker's side of the last trade; null before the first one."),
    ] = None
    last_trade_id: Annotated[
        str | None, Meta(description="Bybit's id of the last trade; null before the first one.")
    ] = None
    trades_total: Annotated[
        Count | None,
        Meta(
            description="Number of trades since the epoch began; null when no worker follows the "
            "market."
        ),
    ] = None
    cvd: Annotated[
        SignedSize | None,
        Meta(
            description="Cumulative volume delta: size bought minus size sold since the epoch "
            "began; null when no worker follows the market."
        ),
    ] = None
    untrusted_s: Annotated[
        Seconds | None,
        Meta(
            description="Time since the epoch began in which trades may have been missed. "
            "`trades_total` and `cvd` do not contain those. Null when no worker follows the market."
        ),
    ] = None
    tps: Annotated[
        Rate | None,
        Meta(description="Trades per second over 10 s; null if no part of the 10 s was observed."),
    ] = None
    windows: Annotated[
        dict[str, Window], Meta(description="Windows by their configured name, such as `60s`.")
    ]


def unobserved_window(*, quantiles: Iterable[float] = (), with_volatility: bool = False) -> Window:
    """
    A window without numbers.

    Args:
        quantiles: The configured probabilities, such as 0.5.
        with_volatility: Whether windows have a ``realised_volatility``.
    """
    names = [str(quantile) for quantile in quantiles]
    return Window(
        realised_volatility=None if with_volatility else UNSET,
        size_quantiles=dict.fromkeys(names) if names else UNSET,
    )
