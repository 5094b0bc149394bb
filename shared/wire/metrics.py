"""
The messages of the metrics socket as typed records, for whoever reads them.

Decides nothing: the workers publish plain maps (contract section 3), and these records say what is
in them, with units, ranges and when a number is null. ``docs/schema`` and the tables of
``docs/reference/wire-format.md`` come from them (``scripts/make_schema``), and the tests hold every
message of a running pipeline against them. A Python subscriber may decode with them:

    book = msgspec.msgpack.decode(payload, type=Orderbook)

Fields that are added later are passed over, so a reader does not break with a newer pipeline.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from bybit_pipeline.shared.wire.messages import Category, Side, Source


def _unit(unit: str) -> dict[str, Any]:
    return {"unit": unit}


Price = Annotated[float, Meta(gt=0, extra_json_schema=_unit("quote currency"))]
PriceStep = Annotated[float, Meta(gt=0, extra_json_schema=_unit("quote currency"))]
Notional = Annotated[float, Meta(ge=0, extra_json_schema=_unit("quote currency"))]
Size = Annotated[float, Meta(ge=0, extra_json_schema=_unit("size"))]
SignedSize = Annotated[float, Meta(extra_json_schema=_unit("size"))]
Share = Annotated[float, Meta(ge=0, le=1)]
Balance = Annotated[float, Meta(ge=-1, le=1)]
Ratio = Annotated[float, Meta(ge=0)]
Rate = Annotated[float, Meta(ge=0)]
Bps = Annotated[float, Meta(ge=0, extra_json_schema=_unit("basis points"))]
Seconds = Annotated[float, Meta(ge=0, extra_json_schema=_unit("s"))]
Millis = Annotated[int, Meta(ge=0, extra_json_schema=_unit("ms"))]
Nanos = Annotated[int, Meta(ge=0, extra_json_schema=_unit("ns"))]
Bytes = Annotated[int, Meta(ge=0, extra_json_schema=_unit("bytes"))]
Count = Annotated[int, Meta(ge=0)]
Number = Annotated[int, Meta(ge=1)]

PriceAndSize = tuple[Price, Size]

BookGapReason = Literal[
    "starting",
    "gap",
    "duplicate",
    "desync",
    "crossed",
    "too_deep",
    "bad_levels",
    "wrong_depth",
    "bus_gap",
    "disconnected",
    "source_change",
    "unsubscribed",
    "rejected",
    "silent",
    "bad_time",
]
BookReason = Literal[BookGapReason, "process_down"]
TradesGapReason = Literal["disconnected", "bus_gap", "unsubscribed", "rejected", "bad_time"]
TradesReason = Literal[TradesGapReason, "starting", "source_change", "overflow", "process_down"]


class _Record(Struct, kw_only=True, frozen=True):
    """A map on the wire; unknown fields are passed over."""


class MarketMetric(_Record, frozen=True):
    """The fields of every message about a market."""

    v: Annotated[Literal[1], Meta(description="Schema version.")]
    category: Category
    symbol: Annotated[str, Meta(description="As Bybit writes it.")]
    source: Annotated[
        Source, Meta(description="`live`: Bybit. `sim` and `replay` are not live prices.")
    ]
    process: Annotated[str, Meta(description="Who said it.")]
    epoch: Annotated[
        str,
        Meta(description="New after a restart or a change of source: what you held is void."),
    ]
    seq: Annotated[
        Number,
        Meta(description="Plus 1 per message of this topic and epoch: a hole is a loss."),
    ]
    match_ts_ms: Annotated[
        Millis | None,
        Meta(description="Matching engine's time of the newest input; null without input."),
    ]
    exchange_ts_ms: Annotated[
        Millis | None,
        Meta(description="When Bybit pushed the newest input; null without input."),
    ]
    recv_ts_ns: Annotated[
        Nanos | None,
        Meta(description="When our websocket received it, our clock; null without input."),
    ]
    publish_ts_ns: Annotated[Nanos, Meta(description="When this was published, our clock.")]


class Window(_Record, frozen=True):
    """
    The trades of the last W seconds, W being the window's length.

    Of a window of which nothing was observed every number but ``coverage_s`` is null.
    """

    trades: Annotated[Count | None, Meta(description="Number of trades.")]
    tpm: Annotated[Rate | None, Meta(description="Trades a minute: `trades * 60 / W`.")]
    tps: Annotated[Rate | None, Meta(description="Trades a second: `trades / W`.")]
    volume: Annotated[Size | None, Meta(description="Size traded.")]
    buy_volume: Annotated[Size | None, Meta(description="Size that takers bought.")]
    sell_volume: Annotated[Size | None, Meta(description="Size that takers sold.")]
    vol_delta: Annotated[
        SignedSize | None, Meta(description="Volume delta: `buy_volume - sell_volume`.")
    ]
    buy_sell_ratio: Annotated[
        Ratio | None, Meta(description="`buy_volume / sell_volume`; null without sells.")
    ]
    buy_share: Annotated[
        Share | None, Meta(description="`buy_volume / volume`; null without trades.")
    ]
    turnover: Annotated[
        Notional | None, Meta(description="Sum of price times size; on inverse the sum of sizes.")
    ]
    vwap: Annotated[
        Price | None,
        Meta(
            description="Volume-weighted average price: `turnover / volume`, on inverse "
            "`sum(size) / sum(size / price)`; null without trades."
        ),
    ]
    high: Annotated[Price | None, Meta(description="Highest price; null without trades.")]
    low: Annotated[Price | None, Meta(description="Lowest price; null without trades.")]
    coverage_s: Annotated[
        Seconds,
        Meta(description="How much of W was observed. Below W the counts are lower bounds."),
    ]
    realised_volatility: (
        Annotated[
            Ratio | None,
            Meta(
                description="Square root of the sum of squared log returns of prices sampled each "
                "second; a fraction, not annualised. Null below two samples. Only if "
                "`trades.volatility` is on."
            ),
        ]
        | UnsetType
    ) = UNSET
    size_quantiles: (
        Annotated[
            dict[str, Size | None],
            Meta(
                description="Trade size by probability, each a size that was traded; null without "
                "trades. Only if `trades.quantiles` names any."
            ),
        ]
        | UnsetType
    ) = UNSET


class Trades(MarketMetric, frozen=True):
    """
    ``trades.CATEGORY.SYMBOL``: what its trades say.

    Four times a second while it trades (``trades.publish_interval_ms``), at once when ``state``
    changes, in any case once a second.
    """

    kind: Literal["trades"]
    state: Annotated[
        Literal["live", "warming", "stale"],
        Meta(
            description="`live`: the longest window is fully observed. `warming`: not yet; see "
            "`coverage_s`. `stale`: trades are being missed now."
        ),
    ]
    reason: Annotated[TradesReason | None, Meta(description="Why not live; null when live.")]
    as_of_ms: Annotated[
        Millis | None,
        Meta(
            description="The exchange's time at which every window ends; null before it is known."
        ),
    ]
    last_price: Annotated[Price | None, Meta(description="Of the last trade; null before one.")]
    last_size: Annotated[Size | None, Meta(description="Of the last trade; null before one.")]
    last_side: Annotated[Side | None, Meta(description="The taker's side; null before a trade.")]
    last_trade_id: Annotated[str | None, Meta(description="Bybit's; null before a trade.")]
    trades_total: Annotated[
        Count | None,
        Meta(description="Trades since the epoch began; null when the worker is gone."),
    ]
    cvd: Annotated[
        SignedSize | None,
        Meta(
            description="Cumulative volume delta: bought minus sold size since the epoch began; "
            "null when the worker is gone."
        ),
    ]
    untrusted_s: Annotated[
        Seconds | None,
        Meta(
            description="How long trades may have been missed since the epoch began: `trades_total`"
            " and `cvd` lack those; null when the worker is gone."
        ),
    ]
    tps: Annotated[
        Rate | None,
        Meta(description="Trades a second over 10 s; null if nothing of that was observed."),
    ]
    windows: Annotated[
        dict[str, Window], Meta(description="By the configured name, such as `60s`: see below.")
    ]


class Depth(_Record, frozen=True):
    """What the visible book holds within a distance of the mid price."""

    bid: Annotated[Size, Meta(description="Size of the bids.")]
    ask: Annotated[Size, Meta(description="Size of the asks.")]
    bid_notional: Annotated[
        Notional, Meta(description="Price times size of the bids; on inverse the size.")
    ]
    ask_notional: Annotated[
        Notional, Meta(description="Price times size of the asks; on inverse the size.")
    ]
    bid_complete: Annotated[
        bool,
        Meta(description="False if the band reaches beyond the visible bids: at least this much."),
    ]
    ask_complete: Annotated[
        bool,
        Meta(description="False if the band reaches beyond the visible asks: at least this much."),
    ]


class Impact(_Record, frozen=True):
    """Cost of trading a notional at once, against the mid price."""

    buy_bps: Annotated[
        Bps | None,
        Meta(description="`(average price / mid - 1) * 10000`; null beyond the visible book."),
    ]
    sell_bps: Annotated[
        Bps | None,
        Meta(description="`(1 - average price / mid) * 10000`; null beyond the visible book."),
    ]


class Wall(_Record, frozen=True):
    """
    A wall: a level, or neighbouring levels, much larger than the others.

    ``traded_size + cancelled_size + size = peak_size + refilled_size``, to the last digit.
    """

    side: Literal["bid", "ask"]
    price: Annotated[Price, Meta(description="Of its largest level.")]
    size: Annotated[Size, Meta(description="Now.")]
    initial_size: Annotated[Size, Meta(description="When it was found.")]
    peak_size: Annotated[Size, Meta(description="The largest it was.")]
    strength: Annotated[
        Ratio, Meta(description="`size` over the median level size of its side (the baseline).")
    ]
    eaten_ratio: Annotated[
        Share, Meta(description="Share of the peak that trades took and nobody put back.")
    ]
    pulled_ratio: Annotated[
        Share, Meta(description="Share of the peak that was cancelled and not put back.")
    ]
    traded_size: Annotated[Size, Meta(description="All that trades took.")]
    cancelled_size: Annotated[Size, Meta(description="All that was cancelled.")]
    refilled_size: Annotated[Size, Meta(description="All that was added below the peak.")]
    distance_bps: Annotated[Bps, Meta(description="From the mid price.")]
    first_seen_ms: Annotated[Millis, Meta(description="When it was found, the exchange's time.")]
    age_ms: Annotated[Millis, Meta(description="Time since.")]
    uncertain: Annotated[
        bool,
        Meta(description="Trades may be missing, so eaten and pulled may be confused."),
    ]


class Orderbook(MarketMetric, frozen=True):
    """
    ``orderbook.CATEGORY.SYMBOL``: what a book says.

    100 ms after a change (``orderbook.publish_interval_ms``), at once when ``state`` changes.
    Unless ``state`` is ``live`` every number below is null and every list empty. A live book with
    an empty side has null for that side and for whatever needs both.
    """

    kind: Literal["orderbook"]
    state: Annotated[
        Literal["syncing", "live", "stale"],
        Meta(
            description="`live`: trusted. `syncing`: no snapshot yet. `stale`: no longer trusted, "
            "a snapshot was asked for."
        ),
    ]
    reason: Annotated[BookReason | None, Meta(description="Why not live; null when live.")]
    update_id: Annotated[int | None, Meta(description="Bybit's `u` of the newest input.")]
    sequence: Annotated[
        int | None, Meta(description="Bybit's cross sequence `seq` of it; null if not given.")
    ]
    best_bid: Annotated[Price | None, Meta(description="Highest bid.")]
    best_bid_size: Annotated[Size | None, Meta(description="Size there.")]
    best_ask: Annotated[Price | None, Meta(description="Lowest ask.")]
    best_ask_size: Annotated[Size | None, Meta(description="Size there.")]
    mid_price: Annotated[Price | None, Meta(description="`(best_bid + best_ask) / 2`.")]
    spread: Annotated[PriceStep | None, Meta(description="`best_ask - best_bid`.")]
    spread_bps: Annotated[Bps | None, Meta(description="`spread / mid_price * 10000`.")]
    weighted_mid: Annotated[
        Price | None,
        Meta(
            description="Mid price weighted by the opposite side's size: `(best_bid * "
            "best_ask_size + best_ask * best_bid_size) / (best_bid_size + best_ask_size)`."
        ),
    ]
    imbalance: Annotated[
        dict[str, Balance | None] | None,
        Meta(
            description="By number of best levels, such as `10`: `(bid - ask) / (bid + ask)` of "
            "their sizes. Positive: bids outweigh asks. Null for more levels than the stream has."
        ),
    ]
    depth: Annotated[
        dict[str, Depth] | None,
        Meta(description="By distance from the mid price in basis points, such as `25`."),
    ]
    impact: Annotated[
        dict[str, Impact] | None,
        Meta(description="By notional in quote currency, such as `100000`."),
    ]
    ofi: Annotated[
        SignedSize | None,
        Meta(
            description="Order flow imbalance of the best levels since the previous message (Cont, "
            "Kukanov and Stoikov 2014). Null if `orderbook.ofi` is off."
        ),
    ]
    bids: Annotated[
        tuple[PriceAndSize, ...],
        Meta(description="Best first, at most `orderbook.publish_levels`."),
    ]
    asks: Annotated[
        tuple[PriceAndSize, ...],
        Meta(description="Best first, at most `orderbook.publish_levels`."),
    ]
    densities: Annotated[tuple[Wall, ...], Meta(description="The walls, nearest first: see below.")]


class Density(MarketMetric, frozen=True):
    """
    ``density.CATEGORY.SYMBOL``: something happened to a wall; one message an event.

    The fields of a wall are those at that moment.
    """

    kind: Literal["density"]
    state: Annotated[
        Literal["syncing", "live", "stale"],
        Meta(description="Of the book. Unless live the event is `removed`: the book was dropped."),
    ]
    event: Literal["detected", "grown", "eaten", "pulled", "removed"]
    # The fields of Wall: a record can have but one base.
    side: Literal["bid", "ask"]
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


class BookGap(MarketMetric, frozen=True, tag_field="stream", tag="book"):
    """
    ``gap.CATEGORY.SYMBOL`` of a book: it could not be trusted from the last message before to the
    snapshot after.
    """

    kind: Literal["gap"]
    state: Annotated[
        Literal["syncing", "live", "stale"], Meta(description="Of the book, after the event.")
    ]
    event: Annotated[
        Literal["opened", "closed"],
        Meta(description="`closed` repeats what `opened` said and adds the end."),
    ]
    gap_id: Annotated[Number, Meta(description="The same in both; counts up in each process.")]
    reason: BookGapReason
    opened_ts_ns: Annotated[
        Nanos | None, Meta(description="When the doubt arose, our clock; null for `starting`.")
    ]
    start_ms: Annotated[
        Millis | None,
        Meta(description="Push time of the last message before; null if there was none."),
    ]
    update_id_before: Annotated[int | None, Meta(description="Its `u`.")]
    sequence_before: Annotated[int | None, Meta(description="Its `seq`.")]
    received_update_id: Annotated[
        int | None,
        Meta(description="`u` of the message that raised the doubt; null if none did."),
    ]
    closed_ts_ns: Annotated[
        Nanos | None,
        Meta(
            description="When the snapshot came, our clock; null while open, and when "
            "the gap ended because the book is followed no longer."
        ),
    ]
    end_ms: Annotated[
        Millis | None,
        Meta(description="Push time of the snapshot after; null where `closed_ts_ns` is."),
    ]
    update_id_after: Annotated[int | None, Meta(description="Its `u`; null while open.")]
    sequence_after: Annotated[int | None, Meta(description="Its `seq`; null while open.")]
    duration_s: Annotated[
        Seconds | None, Meta(description="By our monotonic clock; null while open.")
    ]


class TradesGap(MarketMetric, frozen=True, tag_field="stream", tag="trades"):
    """
    ``gap.CATEGORY.SYMBOL`` of trades: some may be missing between the last trade before and the
    first one after.
    """

    kind: Literal["gap"]
    state: Annotated[
        Literal["live", "warming", "stale"], Meta(description="Of the trades, after the event.")
    ]
    event: Annotated[
        Literal["opened", "closed", "completed"],
        Meta(
            description="`closed`: observed again, or its epoch ended. `completed`: the first "
            "trade after it is known as well, if it was not at the close."
        ),
    ]
    gap_id: Annotated[Number, Meta(description="The same in all; counts up in each process.")]
    reason: TradesGapReason
    start_ms: Annotated[Millis, Meta(description="Exchange time up to which nothing is missing.")]
    end_ms: Annotated[
        Millis | None,
        Meta(
            description="Exchange time it is observed again, or its epoch ended; null while open."
        ),
    ]
    sequence_before: Annotated[int | None, Meta(description="Of the last trade before, if any.")]
    trade_id_before: Annotated[str | None, Meta(description="Of the last trade before, if any.")]
    sequence_after: Annotated[
        int | None, Meta(description="Of the first trade after; null until it is known.")
    ]
    trade_id_after: Annotated[
        str | None, Meta(description="Of the first trade after; null until it is known.")
    ]
    duration_s: Annotated[
        Seconds | None, Meta(description="`end_ms - start_ms` in seconds; null while open.")
    ]


class ProcessMetric(_Record, frozen=True):
    """
    ``process.NAME``: the status of a process, once a second, told by the supervisor.

    The fields of its role are missing until its first heartbeat.
    """

    v: Annotated[Literal[1], Meta(description="Schema version.")]
    kind: Literal["process"]
    process: Annotated[str, Meta(description="Its name, such as `trades-0`.")]
    source: Source
    epoch: Annotated[str, Meta(description="New with every start of the supervisor.")]
    seq: Annotated[Number, Meta(description="Plus 1 a second.")]
    publish_ts_ns: Nanos
    pid: Annotated[int | None, Meta(description="Null while it does not run.")]
    state: Annotated[
        Literal["starting", "up", "restarting", "flapping", "failed", "stopped"],
        Meta(description="`flapping`: fails faster than restarts help; `failed` is final."),
    ]
    restarts: Annotated[Count, Meta(description="Since the pipeline started.")]
    restarts_by_reason: Annotated[
        dict[Literal["exit", "signal", "hung"], Count], Meta(description="The same, by reason.")
    ]
    uptime_s: Annotated[Seconds | None, Meta(description="Null while it does not run.")]
    cpu_seconds: Annotated[
        Seconds | None, Meta(description="Used so far; null while it does not run.")
    ]
    rss_bytes: Annotated[Bytes | None, Meta(description="Memory; null while it does not run.")]
    prometheus: Annotated[str | None, Meta(description="`host:port` to scrape; null until up.")]
    exit_code: Annotated[
        int | None, Meta(description="Of its last end, minus the signal's number if one ended it.")
    ]


class SupervisorStatus(ProcessMetric, frozen=True, tag_field="role", tag="supervisor"):
    """The supervisor itself: how the pipeline is."""

    ready: Annotated[bool, Meta(description="As `/readyz` says.")] | UnsetType = UNSET
    reasons: Annotated[list[str], Meta(description="Why not ready, for people.")] | UnsetType = (
        UNSET
    )
    version: Annotated[str, Meta(description="Of the software.")] | UnsetType = UNSET
    network: (
        Annotated[Literal["mainnet", "testnet"], Meta(description="Of the exchange.")] | UnsetType
    ) = UNSET
    started_ts_ms: Annotated[Millis, Meta(description="Our clock.")] | UnsetType = UNSET


class ForwarderStatus(ProcessMetric, frozen=True, tag_field="role", tag="forwarder"):
    """The forwarder."""

    messages: Annotated[Count, Meta(description="Metrics passed on.")] | UnsetType = UNSET
    last_values: Annotated[Count, Meta(description="Topics remembered.")] | UnsetType = UNSET
    subscriptions: Annotated[Count, Meta(description="Served.")] | UnsetType = UNSET
    repeats: (
        Annotated[Count, Meta(description="Last values sent to new subscribers.")] | UnsetType
    ) = UNSET
    invalid: Annotated[Count, Meta(description="Frames that were no metrics.")] | UnsetType = UNSET
    refused: Annotated[Count, Meta(description="Not remembered: too many topics.")] | UnsetType = (
        UNSET
    )
    clients_refused: (
        Annotated[Count, Meta(description="Connections whose key is not allowed.")] | UnsetType
    ) = UNSET


class DashboardStatus(ProcessMetric, frozen=True, tag_field="role", tag="dashboard"):
    """The dashboard."""

    messages: Annotated[Count, Meta(description="Metrics received.")] | UnsetType = UNSET
    invalid: Annotated[Count, Meta(description="Frames that were no metrics.")] | UnsetType = UNSET
    lost: (
        Annotated[Count, Meta(description="Gap and wall events that did not arrive.")] | UnsetType
    ) = UNSET
    streams: Annotated[Count, Meta(description="Pages that are open.")] | UnsetType = UNSET
    updates: Annotated[Count, Meta(description="Sent to pages.")] | UnsetType = UNSET
    refused: (
        Annotated[Count, Meta(description="Requests refused, pages hung up on.")] | UnsetType
    ) = UNSET


class TradesStatus(ProcessMetric, frozen=True, tag_field="role", tag="trades"):
    """A trades worker."""

    markets: Annotated[Count, Meta(description="Symbols followed.")] | UnsetType = UNSET
    states: (
        Annotated[dict[Literal["live", "warming", "stale"], Count], Meta(description="By state.")]
        | UnsetType
    ) = UNSET
    messages: Annotated[Count, Meta(description="Market messages taken in.")] | UnsetType = UNSET
    trades: Annotated[Count, Meta(description="Trades counted.")] | UnsetType = UNSET
    duplicates: (
        Annotated[Count, Meta(description="Trades whose id was seen before.")] | UnsetType
    ) = UNSET
    invalid: (
        Annotated[Count, Meta(description="Trades without a believable price or size.")] | UnsetType
    ) = UNSET
    gaps: Annotated[Count, Meta(description="In the gap ledger.")] | UnsetType = UNSET
    lost: Annotated[Count, Meta(description="Market messages missed.")] | UnsetType = UNSET
    frames_invalid: (
        Annotated[Count, Meta(description="Unreadable, or one message of it.")] | UnsetType
    ) = UNSET
    lag_s: (
        Annotated[
            Annotated[float, Meta(extra_json_schema=_unit("s"))] | None,
            Meta(description="Websocket to worker, latest; null before a message."),
        ]
        | UnsetType
    ) = UNSET
    publish_stretch: (
        Annotated[
            float, Meta(ge=1, description="How many times fewer markets may publish; 1: not late.")
        ]
        | UnsetType
    ) = UNSET
    metrics: Annotated[Count, Meta(description="Messages published.")] | UnsetType = UNSET
    metrics_dropped: (
        Annotated[Count, Meta(description="Not published: the forwarder did not keep up.")]
        | UnsetType
    ) = UNSET


class OrderbookStatus(ProcessMetric, frozen=True, tag_field="role", tag="orderbook"):
    """An orderbook worker."""

    books: (
        Annotated[dict[Literal["syncing", "live", "stale"], Count], Meta(description="By state.")]
        | UnsetType
    ) = UNSET
    not_live: (
        Annotated[dict[str, Seconds], Meta(description="For how long, by bus topic; at most 100.")]
        | UnsetType
    ) = UNSET
    messages: Annotated[Count, Meta(description="Book messages taken in.")] | UnsetType = UNSET
    ignored: (
        Annotated[Count, Meta(description="Deltas without a snapshot to apply them to.")]
        | UnsetType
    ) = UNSET
    gaps: (
        Annotated[Count, Meta(description="Times that a live book was trusted no longer.")]
        | UnsetType
    ) = UNSET
    resyncs_requested: (
        Annotated[Count, Meta(description="Books that a snapshot was asked for.")] | UnsetType
    ) = UNSET
    resyncs_recovered: (
        Annotated[Count, Meta(description="Those that are live after that.")] | UnsetType
    ) = UNSET
    lost: Annotated[Count, Meta(description="Market messages missed.")] | UnsetType = UNSET
    frames_invalid: (
        Annotated[Count, Meta(description="Unreadable, or one message of it.")] | UnsetType
    ) = UNSET
    lag_s: (
        Annotated[
            Annotated[float, Meta(extra_json_schema=_unit("s"))] | None,
            Meta(description="Websocket to worker, latest; null before a message."),
        ]
        | UnsetType
    ) = UNSET
    publish_stretch: (
        Annotated[
            float, Meta(ge=1, description="How many times fewer markets may publish; 1: not late.")
        ]
        | UnsetType
    ) = UNSET
    metrics: Annotated[Count, Meta(description="Messages published.")] | UnsetType = UNSET
    metrics_dropped: (
        Annotated[Count, Meta(description="Not published: the forwarder did not keep up.")]
        | UnsetType
    ) = UNSET


class ConnectorStatus(ProcessMetric, frozen=True, tag_field="role", tag="connector"):
    """A connector; ``source`` is its own."""

    url: Annotated[str, Meta(description="Of the websocket.")] | UnsetType = UNSET
    connected: bool | UnsetType = UNSET
    session: (
        Annotated[int | None, Meta(description="Number of the connection; null before one.")]
        | UnsetType
    ) = UNSET
    reconnects: Annotated[Count, Meta(description="Connections that ended.")] | UnsetType = UNSET
    topics: (
        Annotated[
            dict[str, Literal["pending", "confirmed", "delivering", "rejected"]],
            Meta(description="State by the exchange's topic."),
        ]
        | UnsetType
    ) = UNSET
    rejected: (
        Annotated[dict[str, str], Meta(description="Why, by the exchange's topic.")] | UnsetType
    ) = UNSET
    refused_topics: (
        Annotated[list[str], Meta(description="Those of `rejected` that the exchange refused.")]
        | UnsetType
    ) = UNSET
    ping_rtt_ms: (
        Annotated[
            Annotated[float, Meta(ge=0, extra_json_schema=_unit("ms"))] | None,
            Meta(description="Round trip of the latest ping; null before one."),
        ]
        | UnsetType
    ) = UNSET
    last_message_ts_ms: (
        Annotated[Millis | None, Meta(description="Our clock; null before one.")] | UnsetType
    ) = UNSET
    trade_messages: Annotated[Count, Meta(description="Published.")] | UnsetType = UNSET
    book_messages: Annotated[Count, Meta(description="Published.")] | UnsetType = UNSET
    invalid: Annotated[Count, Meta(description="Frames skipped.")] | UnsetType = UNSET
    late: (
        Annotated[Count, Meta(description="Frames of topics that were left already.")] | UnsetType
    ) = UNSET
    lost_acks: (
        Annotated[Count, Meta(description="Requests that were never answered.")] | UnsetType
    ) = UNSET
    attempts_held: (
        Annotated[Count, Meta(description="Connections that waited for Bybit's connection limit.")]
        | UnsetType
    ) = UNSET


class SimulatorStatus(ProcessMetric, frozen=True, tag_field="role", tag="simulator"):
    """The simulated exchange."""

    connections: Annotated[Count, Meta(description="Open now.")] | UnsetType = UNSET
    connections_total: Count | UnsetType = UNSET
    requests: Count | UnsetType = UNSET
    rest_requests: Annotated[Count, Meta(description="Of lists, over REST.")] | UnsetType = UNSET
    frames: Annotated[dict[str, Count], Meta(description="Data frames, by stream.")] | UnsetType = (
        UNSET
    )
    overflows: Annotated[Count, Meta(description="Connections closed: too slow.")] | UnsetType = (
        UNSET
    )
    idle: Annotated[Count, Meta(description="Connections closed: idle.")] | UnsetType = UNSET
    faults: Annotated[dict[str, Count], Meta(description="Injected, by name.")] | UnsetType = UNSET


Gap = BookGap | TradesGap
Process = (
    SupervisorStatus
    | ForwarderStatus
    | DashboardStatus
    | TradesStatus
    | OrderbookStatus
    | ConnectorStatus
    | SimulatorStatus
)
KINDS: dict[str, Any] = {
    "trades": Trades,
    "orderbook": Orderbook,
    "density": Density,
    "gap": Gap,
    "process": Process,
}
"""What to decode by the first word of a topic; ``gap`` by ``stream``, ``process`` by ``role``."""
