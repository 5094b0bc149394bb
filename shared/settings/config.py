"""
The configuration: every key with its type, default, range and meaning.

``pipeline.toml`` and ``docs/reference/configuration.md`` are generated from these records by
``scripts/make_reference``. ``settings.validation`` turns the tables of a file into a ``Config``.
"""

import re
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from bybit_pipeline.shared.bybit import Network
from bybit_pipeline.shared.wire.messages import Category

SourceChoice = Literal["auto", "live", "sim", "replay"]
StreamChoice = Literal["trades", "orderbook"]

DEFAULT_SYMBOLS: Final = ("BTCUSDT", "ETHUSDT")
WINDOW = re.compile(r"([1-9][0-9]{0,5})(s|m|h)")
WINDOW_UNITS_S = {"s": 1, "m": 60, "h": 3600}
WINDOW_MAX_S = 24 * 3600
LOOPBACK = ("127.0.0.1", "::1", "localhost")

Interval = Annotated[float, Meta(ge=0.05, le=3600)]
"""Seconds between two actions, or until a timeout."""
PublishInterval = Annotated[int, Meta(ge=10, le=60_000)]
"""Milliseconds."""
Port = Annotated[int, Meta(ge=0, le=65_535)]
Workers = Annotated[int, Meta(ge=1, le=64)]


class Section(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A table of the file. Its docstring is the comment of the table in ``pipeline.toml``."""


class MarketConfig(Section, frozen=True):
    """One table for each category and depth."""

    category: Annotated[
        Category, Meta(description="Product type; the same symbol may exist in several")
    ] = "linear"
    symbols: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description='Symbols, or patterns: "*USDT", "top:50:turnover", "top:9:turnover:*USDT"',
        ),
    ] = DEFAULT_SYMBOLS
    depth: Annotated[
        int, Meta(description="Book levels per side: 1, 50, 200 or 1000; option: 25 or 100")
    ] = 50
    streams: Annotated[
        tuple[StreamChoice, ...], Meta(min_length=1, description="Data to subscribe")
    ] = ("trades", "orderbook")
    stale_after_s: Annotated[
        float,
        Meta(
            ge=0,
            description="Longest plausible silence of a book or of trades in seconds, after which "
            "they are stale; 0: derived from the rate of each stream",
        ),
    ] = 0.0


class InstrumentsConfig(Section, frozen=True):
    """Bybit's list of instruments (REST), which only patterns need."""

    url: Annotated[
        str, Meta(description="REST address; default: the one that belongs to the websocket")
    ] = ""
    refresh_s: Annotated[
        float,
        Meta(
            ge=1,
            le=86_400,
            description="Seconds between refreshes: new listings join, delisted symbols leave, "
            "top:N is ranked again",
        ),
    ] = 300.0
    symbols_max: Annotated[
        int, Meta(ge=1, le=3000, description="A pattern that matches more symbols is not followed")
    ] = 1000


class ConnectorConfig(Section, frozen=True):
    """Websockets to the exchange; times in seconds."""

    topics_per_socket: Annotated[
        int,
        Meta(ge=1, le=900, description="Topics per websocket; more topics start more connectors"),
    ] = 100
    ping_interval_s: Annotated[Interval, Meta(description="Time between pings")] = 20.0
    pong_timeout_s: Annotated[
        Interval, Meta(description="Reconnect when a pong takes longer than this")
    ] = 10.0
    silence_timeout_s: Annotated[
        Interval, Meta(description="Reconnect after this time without data; pongs do not count")
    ] = 60.0
    ack_timeout_s: Annotated[
        Interval,
        Meta(description="Subscribe again when an acknowledgement or a snapshot takes longer"),
    ] = 10.0
    backoff_initial_s: Annotated[
        Interval,
        Meta(description="Delay before the first reconnect; doubles, with jitter, until data flow"),
    ] = 5.0
    backoff_max_s: Annotated[
        Interval, Meta(description="Longest delay before a reconnect; at least backoff_initial_s")
    ] = 60.0
    fallback_after_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description='With source = "auto": unreachable for this time at the start means '
            "simulated data",
        ),
    ] = 5.0
    proxy: Annotated[
        str,
        Meta(
            description="Proxy: http:// or socks5://[user:password@]host:port; default: the "
            'environment\'s HTTPS_PROXY, ALL_PROXY and NO_PROXY; "none": no proxy'
        ),
    ] = ""


class WorkersConfig(Section, frozen=True):
    """Processes that share the symbols."""

    trades: Annotated[Workers, Meta(description="Processes for trades")] = 1
    orderbook: Annotated[Workers, Meta(description="Processes for order books")] = 1


class TradesConfig(Section, frozen=True):
    """Measures of trades."""

    windows: Annotated[
        tuple[str, ...],
        Meta(min_length=1, description="Sliding windows, such as 10s, 5m or 1h; up to 24h"),
    ] = ("10s", "60s", "300s")
    publish_interval_ms: Annotated[
        PublishInterval,
        Meta(
            description="Least time between two messages of a market, which come at least once "
            "a second"
        ),
    ] = 250
    quantiles: Annotated[
        tuple[Annotated[float, Meta(ge=0, le=1)], ...],
        Meta(description="Quantiles of trade sizes per window; empty: not computed"),
    ] = (0.5, 0.9, 0.99)
    volatility: Annotated[bool, Meta(description="Realised volatility per window")] = True


class OrderbookConfig(Section, frozen=True):
    """Measures of order books."""

    publish_interval_ms: Annotated[
        PublishInterval,
        Meta(
            description="Least time between two messages of a book, which come at least once a "
            "second; state changes are sent at once"
        ),
    ] = 100
    publish_levels: Annotated[
        int, Meta(ge=0, le=1000, description="Best levels per side in each message")
    ] = 10
    imbalance_levels: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=1000)], ...],
        Meta(description="Imbalance over the best N levels; not deeper than the book"),
    ] = (1, 5, 10, 50)
    depth_bps: Annotated[
        tuple[Annotated[float, Meta(ge=0.01, le=10_000)], ...],
        Meta(description="Depth within this distance of the mid price, in basis points"),
    ] = (10, 25, 50, 100)
    impact_notionals: Annotated[
        tuple[Annotated[float, Meta(ge=1e-9, le=1e15)], ...],
        Meta(
            description="Notionals of the cost-to-trade curve, in quote currency; empty: not "
            "computed"
        ),
    ] = (10_000, 100_000)
    ofi: Annotated[bool, Meta(description="Order flow imbalance per publish interval")] = True


class DensityConfig(Section, frozen=True):
    """Walls: levels much larger than their neighbours."""

    k: Annotated[
        float, Meta(ge=1, le=1e6, description="A wall is at least k times the median level size")
    ] = 7.0
    min_share: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="A wall is at least this part of the size of its side within `range_bps`, "
            "if that side has 50 levels there; with n levels `sqrt(50 / n)` times this part",
        ),
    ] = 0.15
    min_age_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3_600,
            description="Seconds that a wall must last before it is published; 0: at once",
        ),
    ] = 0.5
    range_bps: Annotated[
        float,
        Meta(
            ge=0.1,
            le=10_000,
            description="Distance from the mid price that is searched, in basis points",
        ),
    ] = 50.0
    lookback_s: Annotated[
        float,
        Meta(
            ge=1,
            le=86_400,
            description="Seconds over which medians are taken, and that a wall may be out of sight",
        ),
    ] = 300.0
    eaten_ratio: Annotated[
        float,
        Meta(ge=0.01, le=1, description="A wall is eaten when trades took this part of its peak"),
    ] = 0.75
    bucket_ticks: Annotated[
        int, Meta(ge=1, le=10_000, description="Levels within this many ticks are one wall")
    ] = 1


class MetricsConfig(Section, frozen=True):
    """The metrics socket."""

    endpoint: Annotated[
        str,
        Meta(
            description="Address for subscribers: tcp://HOST:PORT or ipc://PATH; beyond 127.0.0.1 "
            "only with security.curve"
        ),
    ] = "tcp://127.0.0.1:5556"


class SecurityConfig(Section, frozen=True):
    """Keys of the metrics socket; see docs/howto/secure.md."""

    curve: Annotated[
        bool, Meta(description="Encrypt, and admit only clients with an allowed key")
    ] = False
    keys: Annotated[
        str,
        Meta(
            description="Directory of the keys that `bybit-pipeline keys` created; default "
            "$XDG_CONFIG_HOME/bybit-pipeline/keys"
        ),
    ] = ""


class PrometheusConfig(Section, frozen=True):
    """HTTP of the supervisor: /metrics, /targets, /status, /healthz, /readyz."""

    host: Annotated[str, Meta(description="Address of this machine to listen on")] = "127.0.0.1"
    port: Annotated[
        Port,
        Meta(
            description="HTTP port of the supervisor; 0: any free port. The other processes use "
            "free ports; see /targets"
        ),
    ] = 9400
    per_symbol: Annotated[bool, Meta(description="Export market gauges for every symbol")] = True


class DashboardConfig(Section, frozen=True):
    """The page in the browser. Every user of this machine may read it, also without keys."""

    enabled: Annotated[bool, Meta(description="Serve the page")] = False
    host: Annotated[str, Meta(description="127.0.0.1, ::1 or localhost: this machine only")] = (
        "127.0.0.1"
    )
    port: Annotated[Port, Meta(description="Port of the page; 0: any free port, see the log")] = (
        9480
    )


class LedgerConfig(Section, frozen=True):
    """The gap ledger in state_dir. Gaps are deleted once they are too old or too many."""

    keep_days: Annotated[
        float, Meta(ge=1, le=36_500, description="Days for which gaps are kept")
    ] = 400.0
    max_gb: Annotated[
        float, Meta(ge=0.001, le=10_000, description="Size in gigabytes; the oldest gaps go first")
    ] = 4.0


class ReplayConfig(Section, frozen=True):
    """Recorded messages to play; sets source to "replay"."""

    capture: Annotated[
        str, Meta(description="Capture file; markets that are not configured are taken from it")
    ] = ""
    speed: Annotated[float, Meta(gt=0, le=10_000, description="Replay speed; 1 is real time")] = 1.0


class Config(Section, frozen=True):
    """The whole configuration. Relative paths are relative to the current directory."""

    source: Annotated[
        SourceChoice,
        Meta(description="Source of data; auto: Bybit, or simulated data until it can be reached"),
    ] = "auto"
    network: Annotated[Network, Meta(description="Bybit's production or test network")] = "mainnet"
    url: Annotated[
        str,
        Meta(
            description="Replaces Bybit's websocket, such as "
            '"ws://127.0.0.1:9000/v5/public/{category}"'
        ),
    ] = ""
    run_dir: Annotated[
        str,
        Meta(
            description="Directory of the running pipeline; default "
            "$XDG_RUNTIME_DIR/bybit-pipeline, else /tmp/bybit-pipeline-UID"
        ),
    ] = ""
    state_dir: Annotated[
        str,
        Meta(
            description="Directory of what outlives the pipeline, the gap ledger; pipelines may "
            "share it; default $XDG_STATE_HOME/bybit-pipeline, else ~/.local/state/bybit-pipeline"
        ),
    ] = ""
    market: tuple[MarketConfig, ...] = (MarketConfig(),)
    instruments: InstrumentsConfig = InstrumentsConfig()
    connector: ConnectorConfig = ConnectorConfig()
    workers: WorkersConfig = WorkersConfig()
    trades: TradesConfig = TradesConfig()
    orderbook: OrderbookConfig = OrderbookConfig()
    density: DensityConfig = DensityConfig()
    metrics: MetricsConfig = MetricsConfig()
    security: SecurityConfig = SecurityConfig()
    prometheus: PrometheusConfig = PrometheusConfig()
    dashboard: DashboardConfig = DashboardConfig()
    ledger: LedgerConfig = LedgerConfig()
    replay: ReplayConfig = ReplayConfig()


def window_seconds(name: str) -> int:
    """
    Return the length of a window named like ``10s``, ``5m`` or ``1h``, in seconds.

    Raises:
        ValueError: If the name has another form, or is longer than a day.
    """
    match = WINDOW.fullmatch(name)
    seconds = int(match[1]) * WINDOW_UNITS_S[match[2]] if match else 0
    if not 0 < seconds <= WINDOW_MAX_S:
        raise ValueError(f"not a window: {name!r}")
    return seconds
