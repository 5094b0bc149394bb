"""
From the tables of a configuration file to a valid ``Config``. Pure.

Decides which configurations are valid and reports all mistakes of one at once. Knows nothing about
processes or endpoints: those are made in ``supervisor.plan``.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from bybit_pipeline.shared.bybit import DEPTHS, SYMBOL
from bybit_pipeline.shared.errors import ConfigError, Mistake
from bybit_pipeline.shared.network.proxies import ALLOWED, DIRECT, ProxyInvalid, parse_proxy
from bybit_pipeline.shared.settings.config import (
    LOOPBACK,
    Config,
    MarketConfig,
    window_seconds,
)
from bybit_pipeline.shared.settings.locations import RUN_DIR_BYTES_MAX
from bybit_pipeline.shared.settings.patterns import is_pattern, parse_pattern
from bybit_pipeline.shared.settings.records import Conversion, listed, number_text
from bybit_pipeline.shared.wire.messages import Category

ENDPOINT = re.compile(r"tcp://[^\s:]+:(\*|\d{1,5})|ipc://\S+")
REST_URL = re.compile(r"https?://[^\s/?#]+/?")


def make_config(tables: Mapping[str, Any]) -> Config:
    """
    Return the configuration that the tables of a file describe, with defaults filled in.

    Raises:
        ConfigError: For all keys that are unknown, of a wrong type or impossible.
    """
    conversion = Conversion()
    config = conversion.record(tables, Config)
    mistakes = [*conversion.mistakes, *_impossible(config, conversion, tables)]
    if mistakes:
        raise ConfigError.of(mistakes)
    return config


def warnings(config: Config) -> Iterator[Mistake]:
    """Yield what is allowed in a configuration but rarely intended."""
    host = config.prometheus.host
    if not _is_loopback(host):
        yield Mistake(
            "prometheus.host",
            f"{host} can be reached from other machines, and its pages need no password",
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _impossible(
    config: Config, conversion: Conversion, tables: Mapping[str, Any]
) -> Iterator[Mistake]:
    """
    Yield the mistakes beyond types and ranges.

    A key with a mistake has its default in ``config``, so a check that compares keys asks
    ``conversion`` first whether both are good.
    """
    yield from _top_mistakes(config, conversion)
    yield from _market_mistakes(config, conversion)
    yield from _connector_mistakes(config, conversion)
    yield from _measure_mistakes(config)
    if "imbalance_levels" in _table(tables, "orderbook") and _has_known_depths(config, tables):
        yield from _imbalance_mistakes(config, conversion)
    yield from _socket_mistakes(config, conversion)


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = tables.get(name)
    return table if isinstance(table, dict) else {}


def _has_known_depths(config: Config, tables: Mapping[str, Any]) -> bool:
    """Return False in a replay that takes the depth of a book from its capture."""
    markets = tables.get("market", [{}])
    return config.source != "replay" or all("depth" in market for market in markets)


def _top_mistakes(config: Config, conversion: Conversion) -> Iterator[Mistake]:
    if config.url and not _is_websocket_url(config.url):
        yield Mistake(
            "url",
            f"{config.url!r} is not a websocket address",
            "ws://HOST[:PORT]/PATH or wss://HOST/PATH; {category} may stand in the path",
        )
    if config.instruments.url and not REST_URL.fullmatch(config.instruments.url):
        yield Mistake(
            "instruments.url",
            f"{config.instruments.url!r} is not an address",
            "https://HOST, without a path",
        )
    if len(config.run_dir.encode()) > RUN_DIR_BYTES_MAX:
        yield Mistake(
            "run_dir", "the path is too long for sockets", f"at most {RUN_DIR_BYTES_MAX} bytes"
        )
    has_input = config.replay.capture or config.url
    if config.source == "replay" and not has_input and conversion.is_good("replay.capture", "url"):
        yield Mistake("replay.capture", 'missing, but source is "replay"', "a capture file")


def _is_websocket_url(url: str) -> bool:
    plain = url.replace("{category}", "linear")
    try:
        parts = urlsplit(plain)
        has_place = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return has_place and parts.scheme in ("ws", "wss") and not re.search(r"[\s{}]", plain)


# -- markets -----------------------------------------------------------------------------------


def _market_mistakes(config: Config, conversion: Conversion) -> Iterator[Mistake]:
    seen: dict[tuple[str, str, str], str] = {}
    for index, market in enumerate(config.market):
        where = f"market[{index}]"
        if not conversion.is_good(f"{where}.category"):
            continue  # depth and symbols depend on it
        if conversion.is_good(f"{where}.depth"):
            yield from _depth_mistakes(config, market, where)
        if not conversion.is_good(f"{where}.symbols"):
            continue
        for position, symbol in enumerate(market.symbols):
            place = f"{where}.symbols[{position}]"
            yield from _symbol_mistakes(place, market.category, symbol)
            for stream in dict.fromkeys(market.streams):
                first = seen.setdefault((market.category, symbol, stream), place)
                if first != place:
                    yield Mistake(
                        place,
                        f"{symbol} {stream} is already in {first}",
                        "each symbol and stream once per category",
                    )
                    break


def _depth_mistakes(config: Config, market: MarketConfig, where: str) -> Iterator[Mistake]:
    depths = DEPTHS[market.category]
    if config.source == "replay":  # a recording may have any depth
        if market.depth < 1:
            yield Mistake(f"{where}.depth", f"{market.depth} is out of range", "1 or more")
    elif market.depth not in depths:
        yield Mistake(
            f"{where}.depth",
            f"{market.depth} is not offered for {market.category}",
            listed(map(str, depths)),
        )


def _symbol_mistakes(place: str, category: Category, symbol: str) -> Iterator[Mistake]:
    if is_pattern(symbol):
        try:
            parse_pattern(symbol, category)
        except ValueError as error:
            yield Mistake(place, str(error))
    elif not SYMBOL.fullmatch(symbol):
        yield Mistake(
            place,
            f"{symbol!r} is not a symbol",
            "capitals and digits, such as BTCUSDT, or a pattern such as *USDT",
        )


def _imbalance_mistakes(config: Config, conversion: Conversion) -> Iterator[Mistake]:
    """Yield counts of levels that no configured book has; nothing if a depth is in doubt."""
    depths = []
    for index, market in enumerate(config.market):
        where = f"market[{index}]"
        keys = [f"{where}.{key}" for key in ("category", "depth", "streams")]
        if not conversion.is_good(*keys) or any(_depth_mistakes(config, market, where)):
            return
        if "orderbook" in market.streams:
            depths.append(market.depth)
    if not depths or not conversion.is_good("orderbook.imbalance_levels"):
        return
    for index, levels in enumerate(config.orderbook.imbalance_levels):
        if levels > max(depths):
            yield Mistake(
                f"orderbook.imbalance_levels[{index}]",
                f"{levels} is deeper than every book",
                f"{max(depths)} or less, or a greater market.depth",
            )


# -- the other tables --------------------------------------------------------------------------


def _connector_mistakes(config: Config, conversion: Conversion) -> Iterator[Mistake]:
    section = config.connector
    if section.backoff_max_s < section.backoff_initial_s and conversion.is_good(
        "connector.backoff_initial_s", "connector.backoff_max_s"
    ):
        least = number_text(section.backoff_initial_s)
        yield Mistake(
            "connector.backoff_max_s",
            f"{number_text(section.backoff_max_s)} is less than backoff_initial_s",
            f"{least} or more",
        )
    if section.proxy not in ("", DIRECT) and conversion.is_good("connector.proxy"):
        try:
            parse_proxy(section.proxy, "connector.proxy")
        except ProxyInvalid as error:
            yield Mistake(error.origin, error.what, f'{ALLOWED}, or "{DIRECT}"')


def _measure_mistakes(config: Config) -> Iterator[Mistake]:
    for index, name in enumerate(config.trades.windows):
        try:
            window_seconds(name)
        except ValueError:
            yield Mistake(
                f"trades.windows[{index}]",
                f"{name!r} is not a window",
                "a form such as 10s, 5m or 1h, up to 24h",
            )
    lists: dict[str, tuple[object, ...]] = {
        "trades.windows": config.trades.windows,
        "trades.quantiles": config.trades.quantiles,
        "orderbook.imbalance_levels": config.orderbook.imbalance_levels,
        "orderbook.depth_bps": config.orderbook.depth_bps,
        "orderbook.impact_notionals": config.orderbook.impact_notionals,
    }
    for where, values in lists.items():
        if len(set(values)) != len(values):
            yield Mistake(where, "contains a value twice", "each value once")


def _socket_mistakes(config: Config, conversion: Conversion) -> Iterator[Mistake]:
    endpoint = config.metrics.endpoint
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not ENDPOINT.fullmatch(endpoint):
        yield Mistake(
            "metrics.endpoint",
            f"{endpoint!r} is not an endpoint",
            "tcp://127.0.0.1:PORT or ipc://PATH",
        )
    elif endpoint.startswith("tcp://"):
        if port.isdigit() and int(port) > 65_535:
            yield Mistake("metrics.endpoint", f"port {port} is out of range", "0 to 65535")
        is_local = host in ("127.0.0.1", "localhost")
        if not is_local and not config.security.curve and conversion.is_good("security.curve"):
            yield Mistake(
                "metrics.endpoint",
                f"{host} is beyond this machine",
                "127.0.0.1, or security.curve = true",
            )
    if not config.prometheus.host:
        yield Mistake(
            "prometheus.host", "is empty", "an address of this machine, such as 127.0.0.1"
        )
    if config.dashboard.host not in LOOPBACK:
        yield Mistake(
            "dashboard.host", f"{config.dashboard.host!r} is beyond this machine", listed(LOOPBACK)
        )
