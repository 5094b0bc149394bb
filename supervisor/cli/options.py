"""
From a configuration file and command line options to a valid configuration.

Decides which of the two wins (the option), what an option leaves open, and what a capture to be
played implies. What a configuration may hold is decided in ``settings.config``.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bybit_pipeline.shared.bybit import BOOK_PREFIX, DEPTHS, TRADES_PREFIX
from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.settings.captures import CaptureError, CaptureInfo, describe_capture
from bybit_pipeline.shared.settings.config import (
    DEFAULT_SYMBOLS,
    Config,
    make_config,
    read_config,
)
from bybit_pipeline.shared.settings.curve_keys import (
    read_allowed,
    read_client_keys,
    read_server_keys,
)
from bybit_pipeline.shared.settings.locations import (
    RUN_DIR_BYTES_MAX,
    default_keys_dir,
    default_run_dir,
)
from bybit_pipeline.shared.settings.patterns import is_pattern, parse_pattern

DEFAULT_DEPTH = 50
INVERSE_SYMBOLS = ("BTCUSD", "ETHUSD")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of ``up`` and ``check``; None was not given."""

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


def resolve(options: Options) -> tuple[Config, str]:
    """
    The configuration to run and the absolute run directory.

    Relative paths are relative to the current directory, also those in the file.

    Raises:
        ConfigError: If the file, an option or the capture cannot be used.
    """
    tables = read_config(options.config) if options.config else {}
    _override(tables, options)
    _override_market(tables, options)
    if _section(tables, "replay").get("capture"):
        tables = _for_capture(tables)
    config = _with_keys(make_config(tables))
    return config, absolute_run_dir(config.run_dir or None)


def absolute_run_dir(run_dir: str | os.PathLike[str] | None) -> str:
    """
    The run directory as an absolute path; the default when None is given.

    Raises:
        ConfigError: If it is too long to hold sockets.
    """
    path = os.path.abspath(run_dir or default_run_dir())
    if len(os.fsencode(path)) > RUN_DIR_BYTES_MAX:
        raise ConfigError(
            "run_dir", f"{path} is too long for sockets", f"at most {RUN_DIR_BYTES_MAX} bytes"
        )
    return path


def _with_keys(config: Config) -> Config:
    """The configuration with the absolute directory of keys that can be used, if it wants any."""
    if not config.security.curve:
        return config
    directory = os.path.abspath(config.security.keys or default_keys_dir())
    read_server_keys(Path(directory))
    read_client_keys(Path(directory))
    read_allowed(Path(directory))
    security = msgspec.structs.replace(config.security, keys=directory)
    return msgspec.structs.replace(config, security=security)


def _override(tables: dict[str, Any], options: Options) -> None:
    """Put the options that have one key each over the file's."""
    top = {"source": options.source, "network": options.network, "url": options.url}
    tables.update({key: value for key, value in top.items() if value is not None})
    if options.run_dir is not None:
        tables["run_dir"] = os.path.abspath(options.run_dir)
    for section, key, value in (
        ("replay", "capture", None if options.capture is None else str(options.capture)),
        ("replay", "speed", options.speed),
        ("metrics", "endpoint", options.metrics),
        ("prometheus", "port", options.port),
        # Who lets the operating system choose means every port, or two pipelines would meet here.
        ("dashboard", "port", 0 if options.port == 0 else None),
        ("dashboard", "enabled", options.dashboard),
    ):
        if value is not None:
            tables[section] = {**_section(tables, section), key: value}


def _override_market(tables: dict[str, Any], options: Options) -> None:
    """Replace the file's market tables by one, if an option names a market."""
    named = None if options.symbols is None else options.symbols.split(",")
    symbols = None if named is None else [symbol.strip() for symbol in named]
    given = {"category": options.category, "symbols": symbols, "depth": options.depth}
    given = {key: value for key, value in given.items() if value is not None}
    if not given:
        return
    markets = tables.get("market")
    first = markets[0] if isinstance(markets, list) and markets else {}
    if not isinstance(first, dict):
        return
    table = {**first, **given}
    if not _section(tables, "replay").get("capture"):
        _fill_in_defaults(table)
    tables["market"] = [table]


def _fill_in_defaults(table: dict[str, Any]) -> None:
    """Defaults that suit the category, where neither an option nor the file says."""
    category = table.get("category", "linear")
    if "depth" not in table and category in DEPTHS:
        depths = DEPTHS[category]
        table["depth"] = DEFAULT_DEPTH if DEFAULT_DEPTH in depths else depths[0]
    if "symbols" not in table and category == "option":
        raise ConfigError("market[0].symbols", "missing", "option contracts, which have no default")
    if "symbols" not in table:
        table["symbols"] = list(INVERSE_SYMBOLS if category == "inverse" else DEFAULT_SYMBOLS)


def _section(tables: dict[str, Any], name: str) -> dict[str, Any]:
    section = tables.get(name)
    return section if isinstance(section, dict) else {}


# -- captures ----------------------------------------------------------------------------------


def _for_capture(tables: dict[str, Any]) -> dict[str, Any]:
    """The tables with the source and the markets that playing ``replay.capture`` means."""
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
    The market tables of a capture: everything recorded, or what the wanted tables leave of it.

    A key that a wanted table lacks restricts nothing. Of several recorded depths of a symbol the
    deepest is taken, unless one is wanted.

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
    """The table with the recorded symbols in the place of patterns; a capture ranks nothing."""
    symbols: dict[str, None] = {}
    for position, word in enumerate(table.get("symbols", ())):
        if not is_pattern(word):
            symbols[word] = None
            continue
        # Of the table's category, which it was checked for: no list of the capture's is asked for.
        pattern = parse_pattern(word, table.get("category", "linear"))
        found = [symbol for symbol in recorded.symbols if pattern.fits(symbol)]
        if pattern.top or not found:
            what = "needs turnover, which is not" if pattern.top else "stands for nothing"
            raise ConfigError(
                f"{where}.symbols[{position}]",
                f"{word} {what} in the capture",
                ", ".join(recorded.symbols),
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
                ", ".join(recorded.symbols),
            )
    depths = sorted({depth for found in recorded.depths.values() for depth in found})
    if "depth" in table and table["depth"] not in depths:
        raise ConfigError(
            f"{where}.depth",
            f"{table['depth']} is not in the capture",
            ", ".join(map(str, depths)) or "none, it holds no book",
        )


def _contents(recorded: CaptureInfo) -> str:
    used = [topic for topic in recorded.topics if topic.startswith((TRADES_PREFIX, BOOK_PREFIX))]
    return ", ".join(used) or "a capture of trades or order books"
