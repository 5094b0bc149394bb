"""
The configuration of contract section 2: its shape, its defaults, and what is refused.

Decides what a valid configuration is; knows nothing of processes or endpoints (``supervisor.plan``
makes those). Every refusal is a ``ConfigError`` that names the key and what is allowed.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec

from bybit_pipeline.shared.bybit import DEPTHS, SYMBOL, Network
from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.settings.locations import RUN_DIR_BYTES_MAX
from bybit_pipeline.shared.settings.patterns import is_pattern, parse_pattern
from bybit_pipeline.shared.wire.messages import Category

SourceChoice = Literal["auto", "live", "sim", "replay"]
StreamChoice = Literal["trades", "orderbook"]

DEFAULT_SYMBOLS = ("BTCUSDT", "ETHUSDT")
WINDOW = re.compile(r"([1-9][0-9]{0,5})(s|m|h)")
WINDOW_UNITS_S = {"s": 1, "m": 60, "h": 3600}
WINDOW_MAX_S = 24 * 3600
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class _Section(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A table of the file; unknown keys are refused."""


class MarketConfig(_Section, frozen=True):
    """One table a category and depth."""

    category: Category = "linear"
    symbols: tuple[str, ...] = DEFAULT_SYMBOLS
    """Symbols, and patterns for symbols; see ``bybit_pipeline.shared.settings.patterns``."""
    depth: int = 50
    streams: tuple[StreamChoice, ...] = ("trades", "orderbook")


class ConnectorConfig(_Section, frozen=True):
    """The websocket's limits, in seconds."""

    topics_per_socket: int = 100
    ping_interval_s: float = 20.0
    pong_timeout_s: float = 10.0
    silence_timeout_s: float = 60.0
    ack_timeout_s: float = 10.0
    backoff_initial_s: float = 5.0
    backoff_max_s: float = 60.0
    fallback_after_s: float = 5.0


class InstrumentsConfig(_Section, frozen=True):
    """The exchange's list of instruments, which patterns for symbols need."""

    url: str = ""
    """REST address; empty: the one that belongs to the websocket."""
    refresh_s: float = 300.0
    """How often it is asked for; new listings join and delisted symbols leave so often."""
    symbols_max: int = 1000
    """One pattern that stands for more is not followed."""


class WorkersConfig(_Section, frozen=True):
    """How many processes of each kind share the topics."""

    trades: int = 1
    orderbook: int = 1


class TradesConfig(_Section, frozen=True):
    """Trade windows and how often they are published."""

    windows: tuple[str, ...] = ("10s", "60s", "300s")
    publish_interval_ms: int = 250
    quantiles: tuple[float, ...] = (0.5, 0.9, 0.99)
    """Trade-size quantiles per window; empty costs nothing."""
    volatility: bool = True
    """Realised volatility per window."""


class OrderbookConfig(_Section, frozen=True):
    """Measures of a book and how often they are published."""

    publish_interval_ms: int = 100
    publish_levels: int = 10
    imbalance_levels: tuple[int, ...] = (1, 5, 10, 50)
    depth_bps: tuple[float, ...] = (10, 25, 50, 100)
    impact_notionals: tuple[float, ...] = (10_000, 100_000)
    """Notionals in quote currency of the cost-to-trade curve; empty costs nothing."""
    ofi: bool = True
    """Order flow imbalance per publish interval."""


class DensityConfig(_Section, frozen=True):
    """What counts as a wall."""

    k: float = 7.0
    range_bps: float = 50.0
    lookback_s: float = 300.0
    eaten_ratio: float = 0.75
    bucket_ticks: int = 1


class MetricsConfig(_Section, frozen=True):
    """Where subscribers connect."""

    endpoint: str = "tcp://127.0.0.1:5556"


class SecurityConfig(_Section, frozen=True):
    """Keys of the metrics socket."""

    curve: bool = False
    """Encrypted, and only for clients whose key is allowed."""
    keys: str = ""
    """Directory of the key files; empty: ``curve_keys.default_keys_dir``."""


class PrometheusConfig(_Section, frozen=True):
    """Where scrapers connect; the port is the supervisor's."""

    host: str = "127.0.0.1"
    port: int = 9400
    per_symbol: bool = True


class DashboardConfig(_Section, frozen=True):
    """The page in the browser, off by default."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = 9480


class ReplayConfig(_Section, frozen=True):
    """The recorded capture that ``source = "replay"`` plays."""

    capture: str = ""
    speed: float = 1.0


class Config(_Section, frozen=True):
    """The whole file."""

    source: SourceChoice = "auto"
    network: Network = "mainnet"
    url: str = ""
    run_dir: str = ""
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
    replay: ReplayConfig = ReplayConfig()


def read_config(path: str | Path) -> dict[str, Any]:
    """
    The tables of a TOML file, not yet validated.

    Raises:
        ConfigError: If the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(str(path), error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"not UTF-8 text: {error.reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), f"not TOML: {error}") from error


def make_config(tables: dict[str, Any]) -> Config:
    """
    A valid configuration from the tables of a file, defaults filled in.

    Raises:
        ConfigError: At the first key that is unknown, of a wrong type or impossible.
    """
    _refuse_unknown_keys(tables, Config, "")
    try:
        config = msgspec.convert(tables, Config)
    except msgspec.ValidationError as error:
        raise _conversion_error(error) from error
    for check in (_check_top, _check_markets, _check_connector, _check_measures, _check_sockets):
        check(config)
    return config


def window_seconds(name: str) -> int:
    """
    The length of a window named like ``10s``, ``5m`` or ``1h``, in seconds.

    Raises:
        ValueError: If the name is not of that form or longer than a day.
    """
    match = WINDOW.fullmatch(name)
    seconds = int(match[1]) * WINDOW_UNITS_S[match[2]] if match else 0
    if not 0 < seconds <= WINDOW_MAX_S:
        raise ValueError(f"not a window: {name!r}")
    return seconds


def _refuse_unknown_keys(value: Any, section: type[_Section], where: str) -> None:
    if not isinstance(value, dict):
        return
    fields = {field.name: field.type for field in msgspec.structs.fields(section)}
    for key, inner in value.items():
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ConfigError(f"{where}{key}", f"unknown key{hint}", ", ".join(fields))
        kind = fields[key]
        if isinstance(kind, type) and issubclass(kind, _Section):
            _refuse_unknown_keys(inner, kind, f"{where}{key}.")
        elif key == "market" and isinstance(inner, list):
            for index, table in enumerate(inner):
                _refuse_unknown_keys(table, MarketConfig, f"{where}{key}[{index}].")


def _conversion_error(error: msgspec.ValidationError) -> ConfigError:
    what, _, path = str(error).partition(" - at `$")
    where = path.rstrip("`").lstrip(".")
    choice = re.fullmatch(r"Invalid enum value (.*)", what)
    if choice:
        return ConfigError(where, f"{choice[1]} is not known", _choices(where))
    expected = re.fullmatch(r"Expected `(.*)`, got `(.*)`", what)
    if expected:
        names = {
            "str": "text",
            "int": "a whole number",
            "float": "a number",
            "array": "a list",
            "bool": "true or false",
            "object": "a table",
        }
        kinds = " or ".join(names.get(kind, kind) for kind in expected[1].split(" | "))
        return ConfigError(where, f"has the wrong type ({expected[2]})", kinds)
    return ConfigError(where, what)


def _choices(where: str) -> str:
    key = re.sub(r"\[[^]]*\]", "", where).split(".")[-1]
    choices = {
        "source": SourceChoice,
        "network": Network,
        "category": Category,
        "streams": StreamChoice,
    }
    return ", ".join(get_args(choices[key])) if key in choices else ""


def _check_top(config: Config) -> None:
    if config.url and not _is_websocket_url(config.url):
        raise ConfigError(
            "url",
            f"{config.url!r} is not a websocket address",
            "ws://HOST[:PORT]/… or wss://…, with {category} or without",
        )
    if config.instruments.url and not re.fullmatch(r"https?://[^\s/?#]+/?", config.instruments.url):
        raise ConfigError(
            "instruments.url",
            f"{config.instruments.url!r} is not an address",
            "https://HOST, without a path",
        )
    _check_range("instruments.refresh_s", config.instruments.refresh_s, 1, 86_400)
    _check_range("instruments.symbols_max", config.instruments.symbols_max, 1, 3000)
    if len(config.run_dir.encode()) > RUN_DIR_BYTES_MAX:
        raise ConfigError(
            "run_dir", "the path is too long for sockets", f"at most {RUN_DIR_BYTES_MAX} bytes"
        )
    if not 0 < config.replay.speed <= 10_000:
        raise ConfigError("replay.speed", f"{config.replay.speed:g}", "above 0, at most 10000")
    if config.source == "replay" and not (config.replay.capture or config.url):
        raise ConfigError("replay.capture", "missing", 'a capture file, as source is "replay"')


def _is_websocket_url(url: str) -> bool:
    plain = url.replace("{category}", "linear")
    try:
        parts = urlsplit(plain)
        has_place = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return has_place and parts.scheme in ("ws", "wss") and not re.search(r"[\s{}]", plain)


def _check_markets(config: Config) -> None:
    if not config.market:
        raise ConfigError("market", "is empty", "at least one [[market]] table")
    seen: dict[tuple[str, str, str], str] = {}
    for index, market in enumerate(config.market):
        where = f"market[{index}]"
        depths = DEPTHS[market.category]
        if config.source != "replay" and market.depth not in depths:
            allowed = ", ".join(map(str, depths))
            raise ConfigError(
                f"{where}.depth", f"{market.depth} is not served for {market.category}", allowed
            )
        if market.depth < 1:
            raise ConfigError(f"{where}.depth", f"{market.depth}", "1 or more")
        for key in ("symbols", "streams"):
            if not getattr(market, key):
                raise ConfigError(f"{where}.{key}", "is empty", "at least one")
        for position, symbol in enumerate(market.symbols):
            place = f"{where}.symbols[{position}]"
            _check_symbol(place, market.category, symbol)
            for stream in market.streams:
                key3 = (market.category, symbol, stream)
                if key3 in seen:
                    raise ConfigError(
                        place,
                        f"{symbol} {stream} is already in {seen[key3]}",
                        "each symbol and stream once a category",
                    )
                seen[key3] = place


def _check_symbol(place: str, category: Category, symbol: str) -> None:
    if is_pattern(symbol):
        try:
            parse_pattern(symbol, category)
        except ValueError as error:
            what, _, allowed = str(error).partition("; allowed: ")
            raise ConfigError(place, what, allowed) from None
    elif not SYMBOL.fullmatch(symbol):
        raise ConfigError(
            place,
            f"{symbol!r} is not a symbol",
            "capitals and digits, such as BTCUSDT, or a pattern such as *USDT",
        )


def _check_connector(config: Config) -> None:
    section = config.connector
    _check_range("connector.topics_per_socket", section.topics_per_socket, 1, 900)
    for name in (
        "ping_interval_s",
        "pong_timeout_s",
        "silence_timeout_s",
        "ack_timeout_s",
        "backoff_initial_s",
        "backoff_max_s",
    ):
        _check_range(f"connector.{name}", getattr(section, name), 0.05, 3600)
    _check_range("connector.fallback_after_s", section.fallback_after_s, 0, 3600)
    if section.backoff_max_s < section.backoff_initial_s:
        raise ConfigError(
            "connector.backoff_max_s",
            f"{section.backoff_max_s:g}",
            f"at least {section.backoff_initial_s:g}, the initial one",
        )


def _check_measures(config: Config) -> None:
    _check_range("workers.trades", config.workers.trades, 1, 64)
    _check_range("workers.orderbook", config.workers.orderbook, 1, 64)
    for index, name in enumerate(config.trades.windows):
        try:
            window_seconds(name)
        except ValueError:
            raise ConfigError(
                f"trades.windows[{index}]",
                f"{name!r} is not a window",
                "such as 10s, 5m or 1h, up to 24h",
            ) from None
    if not config.trades.windows:
        raise ConfigError("trades.windows", "is empty", "at least one, such as 60s")
    for where, values, low, high in _lists(config):
        if len(set(values)) != len(values):
            raise ConfigError(where, "holds a value twice", "each value once")
        for index, value in enumerate(values):
            if not isinstance(value, str):
                _check_range(f"{where}[{index}]", value, low, high)
    _check_range("trades.publish_interval_ms", config.trades.publish_interval_ms, 10, 60_000)
    _check_range("orderbook.publish_interval_ms", config.orderbook.publish_interval_ms, 10, 60_000)
    _check_range("orderbook.publish_levels", config.orderbook.publish_levels, 0, 1000)
    _check_range("density.k", config.density.k, 1, 1e6)
    _check_range("density.range_bps", config.density.range_bps, 0.1, 10_000)
    _check_range("density.lookback_s", config.density.lookback_s, 1, 86_400)
    _check_range("density.eaten_ratio", config.density.eaten_ratio, 0.01, 1)
    _check_range("density.bucket_ticks", config.density.bucket_ticks, 1, 10_000)


def _lists(config: Config) -> Iterator[tuple[str, tuple[Any, ...], float, float]]:
    yield "trades.windows", config.trades.windows, 0, 0
    yield "trades.quantiles", config.trades.quantiles, 0, 1
    yield "orderbook.imbalance_levels", config.orderbook.imbalance_levels, 1, 1000
    yield "orderbook.depth_bps", config.orderbook.depth_bps, 0.01, 10_000
    yield "orderbook.impact_notionals", config.orderbook.impact_notionals, 1e-9, 1e15


def _check_sockets(config: Config) -> None:
    if not re.fullmatch(r"tcp://[^\s:]+:(\*|\d{1,5})|ipc://\S+", config.metrics.endpoint):
        raise ConfigError(
            "metrics.endpoint",
            f"{config.metrics.endpoint!r} is not an endpoint",
            "tcp://127.0.0.1:PORT or ipc://PATH",
        )
    for where, host in (
        ("metrics.endpoint", _host(config.metrics.endpoint)),
        ("prometheus.host", config.prometheus.host),
    ):
        is_local = host in ("", "127.0.0.1", "localhost")
        if where == "metrics.endpoint" and not is_local and not config.security.curve:
            raise ConfigError(
                where,
                f"{host} is beyond this machine",
                "tcp on 127.0.0.1 only, or security.curve = true",
            )
        if not host and where == "prometheus.host":
            raise ConfigError(where, "is empty", "an address of this machine, such as 127.0.0.1")
    port = config.metrics.endpoint.rpartition(":")[2]
    if port.isdigit():
        _check_range("metrics.endpoint port", int(port), 0, 65_535)
    _check_range("prometheus.port", config.prometheus.port, 0, 65_535)
    if config.dashboard.host not in LOOPBACK:
        raise ConfigError(
            "dashboard.host", f"{config.dashboard.host} is beyond this machine", ", ".join(LOOPBACK)
        )
    _check_range("dashboard.port", config.dashboard.port, 0, 65_535)


def _host(endpoint: str) -> str:
    return endpoint.removeprefix("tcp://").rpartition(":")[0] if "tcp://" in endpoint else ""


def _check_range(where: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(where, f"{value:g}", f"from {low:g} to {high:g}")
