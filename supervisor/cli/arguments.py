"""
Types of the options and arguments of the commands, and how their texts are read.

Decides what the help says about each option, and the words for a text that cannot be read.
"""

import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from bybit_pipeline.shared.bybit import CATEGORIES, SYMBOL
from bybit_pipeline.shared.errors import PipelineError
from bybit_pipeline.shared.settings.patterns import with_capitals
from bybit_pipeline.shared.settings.records import listed, number_text
from bybit_pipeline.shared.wire.topics import METRIC_KINDS

Number = TypeVar("Number", int, float)

LOG_FORMATS = ("auto", "console", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")


SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d|w)")
SPAN_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
PROCESS_START = re.compile(r"[a-z0-9-]*")


# -- reading texts -----------------------------------------------------------------------------


def whole_number(option: str, *, least: int | None = None) -> Callable[[str], int]:
    """Return a parser of whole numbers for an option."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise typer.BadParameter(f"{option}: {text!r} is not a whole number") from None
        return _not_less(option, number, least)

    return parse


def decimal_number(option: str, *, least: float | None = None) -> Callable[[str], float]:
    """Return a parser of numbers for an option."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise typer.BadParameter(f"{option}: {text!r} is not a number") from None
        return _not_less(option, number, least)

    return parse


def _not_less(option: str, number: Number, least: float | None) -> Number:
    if least is not None and not number >= least:
        allowed = number_text(least)
        raise typer.BadParameter(f"{option}: {number} is too small; use {allowed} or more")
    return number


def moment(option: str) -> Callable[[str], int]:
    """Return a parser of times: ISO 8601, UTC without a zone, or a span before now."""

    def parse(text: str) -> int:
        span = SPAN.fullmatch(text)
        if span:
            seconds = float(span[1]) * SPAN_UNITS_S[span[2]]
            return int((time.time() - seconds) * 1_000)
        try:
            time_given = datetime.fromisoformat(text)
            if time_given.tzinfo is None:
                time_given = time_given.replace(tzinfo=UTC)
            return int(time_given.timestamp() * 1_000)
        except (ValueError, OverflowError):
            raise typer.BadParameter(
                f"{option}: {text!r} is not a time; use 2026-01-31, 2026-01-31T09:00, 90m, 2h or 7d"
            ) from None

    return parse


def one_of(option: str, *words: str) -> Callable[[str], str]:
    """Return a parser that accepts only these words for an option."""

    def parse(text: str) -> str:
        if text not in words:
            raise typer.BadParameter(f"{option}: {text!r} is unknown; use {listed(words)}")
        return text

    return parse


def _offer(*words: str) -> Callable[[], list[str]]:
    """Return the completions that the shell offers for an option."""
    return lambda: list(words)


def _running_markets(context: typer.Context) -> list[str]:
    """Return ``CATEGORY:SYMBOL`` of everything that the running pipeline follows, if one runs."""
    from bybit_pipeline.supervisor.cli.control_client import ControlClient, chosen_run_dir

    try:
        with ControlClient(chosen_run_dir(context.params.get("run_dir"))) as pipeline:
            status = pipeline.ask("status")
    except (PipelineError, OSError):
        return []
    return sorted(
        {
            f"{connector['process'].split('-')[1]}:{topic.rpartition('.')[2]}"
            for connector in status["connectors"]
            for topic in connector["topics"]
        }
        | {entry["pattern"] for entry in status["patterns"]}
    )


def _symbol_list(text: str | None) -> str | None:
    """Put a comma-separated list of symbols and patterns in capitals."""
    return text and ",".join(_market_words(word.strip() for word in text.split(",")))


def _market_words(words: Iterable[str] | None) -> list[str]:
    """Put the symbols of ``[CATEGORY:]SYMBOL`` words in capitals."""
    return list(map(with_capitals, words or ()))


def is_metric_prefix(text: str) -> bool:
    """Return True if a topic of the metrics socket can start with this text."""
    kind, has_kind, rest = text.partition(".")
    if not has_kind:
        return any(each.startswith(kind) for each in METRIC_KINDS)
    if kind not in METRIC_KINDS:
        return False
    if kind == "process":
        return PROCESS_START.fullmatch(rest) is not None
    category, has_category, symbol = rest.partition(".")
    if not has_category:
        return any(each.startswith(category) for each in CATEGORIES)
    return category in CATEGORIES and (not symbol or SYMBOL.fullmatch(symbol) is not None)


def _topic_prefix(text: str) -> str:
    """Put the symbol of a topic prefix in capitals; reject one that no topic can have."""
    parts = text.split(".", 2)
    prefix = ".".join([*parts[:2], *map(str.upper, parts[2:])])
    if not is_metric_prefix(prefix):
        kinds = listed(f"{kind}." for kind in METRIC_KINDS if kind != "process")
        raise typer.BadParameter(
            f"no topic starts with {text!r}; use {kinds} with CATEGORY.SYMBOL, "
            "or process. with the name of a process"
        )
    return prefix


# -- options -----------------------------------------------------------------------------------

Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Configuration file (TOML); options override it"),
]
ShownConfig = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Show the values of this configuration file"),
]
Category = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"{listed(CATEGORIES)} (default linear)",
        autocompletion=_offer(*CATEGORIES),
    ),
]
Symbols = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="Symbols or patterns: BTCUSDT, *USDT, top:50:turnover (default BTCUSDT,ETHUSDT)",
        callback=_symbol_list,
    ),
]
Depth = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Book levels per side: 1, 50, 200 or 1000 (default 50); option: 25 or 100 "
        "(default 25)",
        parser=whole_number("--depth"),
    ),
]
Source = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="auto, live, sim or replay (default auto: Bybit, or simulated data until it can be "
        "reached)",
        autocompletion=_offer("auto", "live", "sim", "replay"),
    ),
]
Network = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="mainnet or testnet (default mainnet)",
        autocompletion=_offer("mainnet", "testnet"),
    ),
]
Url = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Websocket instead of Bybit's; {category} is filled in"),
]
Capture = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Replay recorded messages from this file")
]
Speed = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Replay speed; 1 is real time (default 1)",
        parser=decimal_number("--speed"),
    ),
]
RunDirectory = Annotated[
    Path | None,
    typer.Option(
        "--run-dir",
        metavar="DIR",
        help="Directory of the running pipeline (default in $XDG_RUNTIME_DIR, else in /tmp)",
    ),
]
Metrics = Annotated[
    str | None,
    typer.Option(
        metavar="ENDPOINT",
        help="Address of the metrics socket (default tcp://127.0.0.1:5556)",
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="HTTP port of the supervisor (default 9400); 0: any free port",
        parser=whole_number("--port"),
    ),
]
Dashboard = Annotated[bool | None, typer.Option(help="Serve a page for the browser (default: no)")]
LogFormat = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto, console or json (default auto: console on a terminal, else json)",
        show_default=False,
        parser=one_of("--log-format", *LOG_FORMATS),
        autocompletion=_offer(*LOG_FORMATS),
    ),
]
LogLevel = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="debug, info, warning or error (default info); debug shows tracebacks",
        show_default=False,
        parser=one_of("--log-level", *LOG_LEVELS),
        autocompletion=_offer(*LOG_LEVELS),
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]
Count = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Stop after N messages", parser=whole_number("--count", least=1)
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="S", help="Stop after S seconds", parser=decimal_number("--timeout", least=0)
    ),
]
LedgerConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Configuration file that names run_dir and state_dir"
    ),
]
Since = Annotated[
    int | None,
    typer.Option(
        metavar="TIME",
        help="Only what lasted after this time: ISO 8601 (UTC), or a span before now such as 24h",
        parser=moment("--since"),
    ),
]
Until = Annotated[
    int | None,
    typer.Option(metavar="TIME", help="Only what began before this time", parser=moment("--until")),
]
GapSymbol = Annotated[
    str | None,
    typer.Option("--symbol", metavar="SYMBOL", help="Only this symbol, in every category"),
]
Summary = Annotated[
    bool,
    typer.Option(
        "--summary", help="Completeness per symbol and UTC day in per cent (default: 7 days)"
    ),
]
KeysDirectory = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        metavar="DIR",
        help="Directory of the keys (default ~/.config/bybit-pipeline/keys)",
    ),
]
Client = Annotated[str | None, typer.Option(metavar="NAME", help="Create keys for one more client")]

# -- arguments ---------------------------------------------------------------------------------

# Hidden: the text of each command describes its arguments. The parser's own list would show types
# such as <list[str]>.

TopicPrefix = Annotated[
    str,
    typer.Argument(metavar="TOPIC_PREFIX", hidden=True, show_default=False, callback=_topic_prefix),
]
Markets = Annotated[
    list[str],
    typer.Argument(metavar="MARKET...", hidden=True, show_default=False, callback=_market_words),
]
RunningMarkets = Annotated[
    list[str],
    typer.Argument(
        metavar="MARKET...",
        hidden=True,
        show_default=False,
        autocompletion=_running_markets,
        callback=_market_words,
    ),
]
WatchedMarkets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MARKET...",
        hidden=True,
        show_default=False,
        autocompletion=_running_markets,
        callback=_market_words,
    ),
]
