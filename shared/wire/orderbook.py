"""The ``orderbook.*`` and ``density.*`` records: the measures of a book, and its walls."""

from typing import Annotated, Literal

from msgspec import Meta

from bybit_pipeline.shared.wire.common import (
    Balance,
    Bps,
    MarketMetric,
    MetricRecord,
    Millis,
    Notional,
    Price,
    PriceAndSize,
    PriceStep,
    Ratio,
    Share,
    SignedSize,
    Size,
)
from bybit_pipeline.shared.wire.gaps import BookGapReason

BookState = Literal["syncing", "live", "stale"]
BookReason = BookGapReason
SideName = Literal["bid", "ask"]
WallEventName = Literal["detected", "grown", "eaten", "pulled", "removed"]


class Depth(MetricRecord, frozen=True):
    """The visible part of a book within a distance of the mid price."""

    bid: Annotated[Size, Meta(description="Size of the bids.")]
    ask: Annotated[Size, Meta(description="Size of the asks.")]
    bid_notional: Annotated[
        Notional, Meta(description="Price times size of the bids; on inverse, their size.")
    ]
    ask_notional: Annotated[
        Notional, Meta(description="Price times size of the asks; on inverse, their size.")
    ]
    bid_complete: Annotated[
        bool,
        Meta(
            description="False if the distance reaches beyond the last visible bid: the numbers "
            "are then lower bounds."
        ),
    ]
    ask_complete: Annotated[
        bool,
        Meta(
            description="False if the distance reaches beyond the last visible ask: the numbers "
            "are then lower bounds."
        ),
    ]


class Impact(MetricRecord, frozen=True):
    """The cost of a market order for a notional, compared with the mid price."""

    buy_bps: Annotated[
        Bps | None,
        Meta(
            description="`(average price / mid - 1) * 10000`; null if the visible asks are not "
            "enough."
        ),
    ]
    sell_bps: Annotated[
        Bps | None,
        Meta(
            description="`(1 - average price / mid) * 10000`; null if the visible bids are not "
            "enough."
        ),
    ]


class Wall(MetricRecord, frozen=True):
    """
    A wall: a level, or a group of neighbouring levels, much larger than the others.

    ``traded_size + cancelled_size + size = peak_size + refilled_size``, exactly.
    """

    side: Annotated[SideName, Meta(description="Side of the book.")]
    price: Annotated[Price, Meta(description="Price of its largest level.")]
    size: Annotated[Size, Meta(description="Present size.")]
    initial_size: Annotated[Size, Meta(description="Size when it was first seen.")]
    peak_size: Annotated[Size, Meta(description="Largest size so far.")]
    strength: Annotated[
        Ratio,
        Meta(description="`size` divided by the baseline, the median level size of its side."),
    ]
    eaten_ratio: Annotated[
        Share, Meta(description="Part of the peak that trades took and that was not refilled.")
    ]
    pulled_ratio: Annotated[
        Share, Meta(description="Part of the peak that was cancelled and not refilled.")
    ]
    traded_size: Annotated[Size, Meta(description="Total size taken by trades.")]
    cancelled_size: Annotated[Size, Meta(description="Total size cancelled.")]
    refilled_size: Annotated[Size, Meta(description="Total size added while below the peak.")]
    distance_bps: Annotated[Bps, Meta(description="Distance from the mid price.")]
    first_seen_ms: Annotated[
        Millis,
        Meta(description="Exchange time when it was first seen, before `detected`."),
    ]
    age_ms: Annotated[Millis, Meta(description="Time since it was first seen.")]
    uncertain: Annotated[
        bool,
        Meta(
            description="True if trades may be missing, so that eaten and pulled size may be "
            "confused."
        ),
    ]


class Orderbook(MarketMetric, frozen=True, kw_only=True):
    """
    ``orderbook.CATEGORY.SYMBOL``: the measures of a book.

    Published 100 ms after a change (``orderbook.publish_interval_ms``), and at once when ``state``
    changes. Unless ``state`` is ``live``, every number is null and every list is empty. In a live
    book with an empty side, the fields of that side are null, and so is everything that needs both
    sides.
    """

    kind: Literal["orderbook"] = "orderbook"
    state: Annotated[
        BookState,
        Meta(
            description="`live`: trusted. `syncing`: no snapshot yet. `stale`: no longer trusted; "
            "a new snapshot was requested."
        ),
    ]
    reason: Annotated[
        BookReason | None,
        Meta(description="Reason why the state is not `live`; null when it is."),
    ] = None
    update_id: Annotated[int | None, Meta(description="Bybit's `u` of the newest input.")] = None
    sequence: Annotated[
        int | None,
        Meta(
            description="Bybit's cross sequence `seq` of the newest input; null if Bybit sent none."
        ),
    ] = None
    best_bid: Annotated[Price | None, Meta(description="Highest bid price.")] = None
    best_bid_size: Annotated[Size | None, Meta(description="Size at the highest bid.")] = None
    best_ask: Annotated[Price | None, Meta(description="Lowest ask price.")] = None
    best_ask_size: Annotated[Size | None, Meta(description="Size at the lowest ask.")] = None
    mid_price: Annotated[Price | None, Meta(description="`(best_bid + best_ask) / 2`.")] = None
    spread: Annotated[PriceStep | None, Meta(description="`best_ask - best_bid`.")] = None
    spread_bps: Annotated[Bps | None, Meta(description="`spread / mid_price * 10000`.")] = None
    weighted_mid: Annotated[
        Price | None,
        Meta(
            description="Mid price weighted by the size of the opposite side: `(best_bid * "
            "best_ask_size + best_ask * best_bid_size) / (best_bid_size + best_ask_size)`, rounded "
            "to a thousandth of the last decimal place of prices."
        ),
    ] = None
    imbalance: Annotated[
        dict[str, Balance | None] | None,
        Meta(
            description="`(bid - ask) / (bid + ask)` of the sizes of the best levels, by number of "
            "levels, such as `10`. Positive if the bids are larger. Null for more levels than the "
            "stream has."
        ),
    ] = None
    depth: Annotated[
        dict[str, Depth] | None,
        Meta(
            description="Visible size by distance from the mid price in basis points, such as `25`."
        ),
    ] = None
    impact: Annotated[
        dict[str, Impact] | None,
        Meta(description="Cost of a market order by notional in quote currency, such as `100000`."),
    ] = None
    ofi: Annotated[
        SignedSize | None,
        Meta(
            description="Order flow imbalance of the best levels since the previous message (Cont, "
            "Kukanov and Stoikov 2014). Null if `orderbook.ofi` is off."
        ),
    ] = None
    bids: Annotated[
        tuple[PriceAndSize, ...],
        Meta(description="Best bids first, at most `orderbook.publish_levels`."),
    ] = ()
    asks: Annotated[
        tuple[PriceAndSize, ...],
        Meta(description="Best asks first, at most `orderbook.publish_levels`."),
    ] = ()
    densities: Annotated[
        tuple[Wall, ...],
        Meta(description="Walls in sight, nearest to the mid price first."),
    ] = ()


class Density(MarketMetric, frozen=True, kw_only=True):
    """
    ``density.CATEGORY.SYMBOL``: one event in the life of a wall, which the fields show at that
    moment.
    """

    kind: Literal["density"] = "density"
    state: Annotated[
        BookState,
        Meta(
            description="State of the book. Unless it is `live`, the event is `removed`, because "
            "the book was dropped."
        ),
    ]
    event: Annotated[WallEventName, Meta(description="The event.")]
    # The fields of Wall, where they are described: a record can have only one base. To build one:
    # Density(..., **msgspec.structs.asdict(wall)).
    side: SideName
    price: Price
    size: Size
    initial_size: Size
    peak_size: Size
    strength: Ratio
    eaten_ratio: Share
    pulled_ratio: Share
    traded_size: Size
    cancelled_size: Size
    refilled_size: Size
    distance_bps: Bps
    first_seen_ms: Millis
    age_ms: Millis
    uncertain: bool
