"""
From a configuration file and command line options to the configuration to run.

Decides that an option overrides the file, fills in defaults that depend on an option, and derives
the markets of a capture that is to be played. Which configurations are valid is decided in
``settings.validation``.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bybit_pipeline.shared.bybit import BOOK_PREFIX, DEPTHS, TRADES_PREFIX
from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.settings.captures import CaptureError, CaptureInfo, describe_capture
from bybit_pipeline.shared.settings.config import DEFAULT_SYMBOLS, Config
from bybit_pipeline.shared.settings.curve_keys import (
    read_allowed,
    read_client_keys,
    read_server_keys,
)
from bybit_pipeline.shared.settings.locations import absolute_run_dir, default_keys_dir
from bybit_pipeline.shared.settings.patterns import is_pattern, parse_pattern
from bybit_pipeline.shared.settings.records import listed
from bybit_pipeline.shared.settings.toml_file import TomlFile, read_toml
from bybit_pipeline.shared.settings.validation import make_config

DEFAULT_DEPTH = 50
INVERSE_SYMBOLS = ("BTCUSD", "ETHUSD")

OPTION_KEYS = {
    "category": "market[0].category",
    "symbols": "market[0].symbols",
    "depth": "market[0].depth",
    "source": "source",
    "network": "network",
    "url": "url",
    "capture": "replay.capture",
    "speed": "replay.speed",
    "run_dir": "run_dir",
    "metrics": "metrics.endpoint",
    "port": "prometheus.port",
    "dashboard": "dashboard.enabled",
}
"""The configuration key that each option sets."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``up`` and ``check``; None if not given."""

    config: Path | None = None
    category: str | None = None
    symbols: str | None = None
    """Separated by commas."""
    depth: int | None = None
    source: str | None = None
    network: str | None = None
    url: str | None = None
    capture: Path | None = None
    speed: float | None = None
    run_dir: Path | None = None
    metrics: str | None = None
    port: int | None = None
    dashboard: bool | None = None


class Origins:
    """Origins of the values of a configuration: a line of the file, or an option."""

    def __init__(self, options: Options) -> None:
        self.file: TomlFile | None = None
        self._options = {
            key: f"--{name.replace('_', '-')}"
            for name, key in OPTION_KEYS.items()
            if getattr(options, name) is not None
        }

    def place_of(self, where: str) -> str:
        """Return ``FILE:LINE`` or ``--OPTION`` of a key; empty for a default without a file."""
        for key, option in self._options.items():
            if where == key or where.startswith(f"{key}["):
                return option
        return self.file.place_of(where) if self.file else ""

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Add the origins to a ``ConfigError`` that the block raises."""
        try:
            yield
        except ConfigError as error:
            raise error.located(self.place_of) from error


def resolve(options: Options) -> tuple[Config, str, Origins]:
    """
    Return the configuration to run, the absolute run directory, and where the values come from.

    Relative paths are relative to the current directory, also those in the file.

    Raises:
        ConfigError: If the file, an option or the capture cannot be used.
    """
    origins = Origins(options)
    with origins.shown():
        if options.config:
            origins.file = read_toml(options.config)
        tables = dict(origins.file.tables) if origins.file else {}
        _override(tables, options)
        _override_market(tables, options)
        if _section(tables, "replay").get("capture"):
            tables = _for_capture(tables)
        config = _with_keys(make_config(tables))
        return config, absolute_run_dir(config.run_dir or None), origins


def read_config(path: Path) -> Config:
    """
    Return the configuration in a file.

    Raises:
        ConfigError: For all mistakes in the file, each with its line.
    """
    origins = Origins(Options())
    with origins.shown():
        origins.file = read_toml(path)
        return make_config(origins.file.tables)


def _with_keys(config: Config) -> Config:
    """Check the keys, if they are enabled, and return their absolute directory in the config."""
    if not config.security.curve:
        return config
    directory = os.path.abspath(config.security.keys or default_keys_dir())
    read_server_keys(Path(directory))
    read_client_keys(Path(directory))
    read_allowed(Path(directory))
    security = msgspec.structs.replace(config.security, keys=directory)
    return msgspec.structs.replace(config, security=security)


def _override(tables: dict[str, Any], options: Options) -> None:
    """Put the options that set one key over the file."""
    top = {"source": options.source, "network": options.network, "url": options.url}
    tables.update({key: value for key, value in top.items() if value is not None})
    if options.run_dir is not None:
        tables["run_dir"] = os.path.abspath(options.run_dir)
    for section, key, value in (
        ("replay", "capture", None if options.capture is None else str(options.capture)),
        ("replay", "speed", options.speed),
        ("metrics", "endpoint", options.metrics),
        ("prometheus", "port", options.port),
        # --port 0 applies to the dashboard too, or two pipelines would collide.
        ("dashboard", "port", 0 if options.port == 0 else None),
        ("dashboard", "enabled", options.dashboard),
    ):
        if value is not None:
            tables[section] = {**_section(tables, section), key: value}


def _override_market(tables: dict[str, Any], options: Options) -> None:
    """Replace all market tables by the first one with the options, if an option names a market."""
    named = None if options.symbols is None else options.symbols.split(",")
    symbols = None if named is None else [symbol.strip() for symbol in named]
    given = {"category": options.category, "symbols": symbols, "depth": options.depth}
    given = {key: value for key, value in given.items() if value is not None}
    if not given:
        return
    markets = tables.get("market", [])
    first = markets[0] if isinstance(markets, list) and markets else {}
    if not isinstance(markets, list) or not isinstance(first, dict):
        return  # validation reports it
    table = {**first, **given}
    if not _section(tables, "replay").get("capture"):
        _fill_in_defaults(table)
    tables["market"] = [table]


def _fill_in_defaults(table: dict[str, Any]) -> None:
    """Add defaults that suit the category, for keys that neither an option nor the file gives."""
    category = table.get("category", "linear")
    if "depth" not in table and category in DEPTHS:
        depths = DEPTHS[category]
        table["depth"] = DEFAULT_DEPTH if DEFAULT_DEPTH in depths else depths[0]
    if "symbols" not in table and category == "option":
        raise ConfigError(
            "market[0].symbols", "missing; options have no default", "contracts or BTC-*"
        )
    if "symbols" not in table:
        table["symbols"] = list(INVERSE_SYMBOLS if category == "inverse" else DEFAULT_SYMBOLS)


def _section(tables: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = tables.get(name)
    return section if isinstance(section, dict) else {}


# -- captures ----------------------------------------------------------------------------------


def _for_capture(tables: dict[str, Any]) -> dict[str, Any]:
    """Return the tables with the source and the markets that ``replay.capture`` implies."""
    source = tables.get("source", "replay")
    if source != "replay":
        raise ConfigError("source", f"{source!r} does not play a capture", "replay")
    tables = {**tables, "source": "replay"}
    make_config(tables)
    path = os.path.abspath(tables["replay"]["capture"])
    try:
        recorded = describe_capture(path)
    except CaptureError as error:
        raise ConfigError("replay.capture", str(error).removeprefix("capture ")) from error
    tables["replay"] = {**tables["replay"], "capture": path}
    tables["market"] = recorded_markets(recorded, tables.get("market"))
    return tables


def recorded_markets(
    recorded: CaptureInfo, wanted: Iterable[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """
    Return the market tables of a capture, restricted to the wanted tables if there are any.

    A key that a wanted table lacks restricts nothing. If a symbol was recorded at several depths,
    the deepest is taken unless one is wanted.

    Raises:
        ConfigError: If something is wanted that was not recorded.
    """
    tables: dict[tuple[int, tuple[str, ...]], dict[str, Any]] = {}
    for index, table in enumerate([{}] if wanted is None else wanted):
        table = _without_patterns(recorded, table, f"market[{index}]")
        _check_recorded(recorded, table, f"market[{index}]")
        for symbol in table.get("symbols", recorded.symbols):
            depths = recorded.depths.get(symbol, ())
            depth = table.get("depth", depths[-1] if depths else None)
            streams = tuple(
                name
                for name, is_recorded in (
                    ("trades", symbol in recorded.trade_symbols),
                    ("orderbook", depth in depths),
                )
                if is_recorded and name in table.get("streams", ("trades", "orderbook"))
            )
            if streams:
                depth = depth if "orderbook" in streams else DEFAULT_DEPTH
                made = {"category": recorded.category, "depth": depth, "streams": list(streams)}
                tables.setdefault((depth, streams), {**made, "symbols": []})
                tables[depth, streams]["symbols"].append(symbol)
    if not tables:
        raise ConfigError("market", "nothing of it is in the capture", _contents(recorded))
    return list(tables.values())


def _without_patterns(
    recorded: CaptureInfo, table: Mapping[str, Any], where: str
) -> Mapping[str, Any]:
    """Return the table with its patterns replaced by the recorded symbols that match."""
    symbols: dict[str, None] = {}
    for position, word in enumerate(table.get("symbols", ())):
        if not is_pattern(word):
            symbols[word] = None
            continue
        # Valid for the table's category; in the capture's, options would need a base coin.
        pattern = parse_pattern(word, table.get("category", "linear"))
        found = [symbol for symbol in recorded.symbols if pattern.fits(symbol)]
        if pattern.top or not found:
            what = "needs turnover, which is not" if pattern.top else "matches nothing"
            raise ConfigError(
                f"{where}.symbols[{position}]",
                f"{word} {what} in the capture",
                listed(recorded.symbols),
            )
        symbols |= dict.fromkeys(found)
    return {**table, "symbols": list(symbols)} if symbols else table


def _check_recorded(recorded: CaptureInfo, table: Mapping[str, Any], where: str) -> None:
    category = table.get("category", recorded.category)
    if category != recorded.category:
        raise ConfigError(
            f"{where}.category", f"{category} is not in the capture", recorded.category
        )
    for position, symbol in enumerate(table.get("symbols", ())):
        if symbol not in recorded.symbols:
            raise ConfigError(
                f"{where}.symbols[{position}]",
                f"{symbol} is not in the capture",
                listed(recorded.symbols),
            )
    depths = sorted({depth for found in recorded.depths.values() for depth in found})
    if "depth" in table and table["depth"] not in depths:
        raise ConfigError(
            f"{where}.depth",
            f"{table['depth']} is not in the capture",
            listed(map(str, depths)) if depths else "no depth; the capture has no book",
        )


def _contents(recorded: CaptureInfo) -> str:
    used = [topic for topic in recorded.topics if topic.startswith((TRADES_PREFIX, BOOK_PREFIX))]
    return listed(used) if used else "a capture of trades or order books"
