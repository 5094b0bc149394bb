"""
Numbers, states and sources as text, and rows of them as tables. Pure.

Absent numbers are dashes, never zeros. A column that does not fit is omitted as a whole: a
truncated number is a wrong number.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.text import Text

NONE = "–"
GAP = 2
STATE_STYLES = {
    "live": "green",
    "up": "green",
    "ready": "bold green",
    "warming": "yellow",
    "starting": "yellow",
    "syncing": "yellow",
    "restarting": "bold red",
    "stale": "bold red",
    "silent": "bold red",
    "flapping": "bold white on red",
    "failed": "bold white on red",
    "stopped": "yellow",
    "stopping": "yellow",
}
BUY, SELL = "green", "red"
BLOCKS = " ▏▎▍▌▋▊▉█"

Cell = str | Text


class Column(NamedTuple):
    """
    One column of a table.

    ``rank`` decides which columns a narrow terminal shows: those of rank 0 always, the others in
    ascending order. ``min_width``, in cells, keeps columns in place while numbers change.
    """

    title: str
    is_right: bool = False
    rank: int = 0
    min_width: int = 0


def grid(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int) -> list[Text]:
    """The titles and one line per row, each at most ``width`` cells wide."""
    widths = [
        max(cell_len(column.title), column.min_width, *(len_of(row[at]) for row in rows), 0)
        for at, column in enumerate(columns)
    ]
    shown = _fitting(columns, widths, width)
    head: list[Cell] = [Text(column.title, style="bold dim") for column in columns]
    return [_line(row, columns, widths, shown, width) for row in (head, *rows)]


def _fitting(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """Indexes of the columns to show: those of rank 0, and by rank those that still fit."""
    shown: list[int] = []
    used = -GAP
    for at in sorted(range(len(columns)), key=lambda at: (columns[at].rank, at)):
        more = widths[at] + GAP
        if columns[at].rank == 0 or used + more <= width:
            shown.append(at)
            used += more
    return sorted(shown)


def _line(
    row: Sequence[Cell],
    columns: Sequence[Column],
    widths: Sequence[int],
    shown: Sequence[int],
    width: int,
) -> Text:
    line = Text(no_wrap=True, end="")
    for place, at in enumerate(shown):
        padding = " " * (widths[at] - len_of(row[at]))
        is_last = place == len(shown) - 1
        if columns[at].is_right:
            line.append(padding)
        line.append(row[at])
        if not columns[at].is_right and not is_last:
            line.append(padding)
        if not is_last:
            line.append(" " * GAP)
    line.truncate(width, overflow="ellipsis")
    return line


def len_of(cell: Cell) -> int:
    """Width in terminal cells."""
    return cell.cell_len if isinstance(cell, Text) else cell_len(cell)


def fitted(line: Text, width: int) -> Text:
    """Truncate a line to ``width`` cells and keep it from wrapping."""
    line.no_wrap, line.end = True, ""
    line.truncate(width, overflow="ellipsis")
    return line


# -- values ------------------------------------------------------------------------------------


def number(value: float | None, digits: int | None = None, *, is_signed: bool = False) -> str:
    """A number, with ``digits`` decimals if given; a dash for None."""
    if value is None:
        return NONE
    sign = "+" if is_signed else ""
    return f"{value:{sign},.{digits}f}" if digits is not None else f"{value:{sign}.10g}"


def amount(value: float | None, *, is_signed: bool = False) -> str:
    """A size or turnover with about five significant digits: ``0.505``, ``133.17``, ``1.29M``."""
    if value is None:
        return NONE
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if abs(value) >= limit:
            return number(value / (limit if unit != "k" else 1e3), 2, is_signed=is_signed) + unit
    digits = 3 if abs(value) < 100 else 2 if abs(value) < 1000 else 1
    if value and abs(value) < 0.001:
        return f"{value:{'+' if is_signed else ''}.2g}"
    return number(value, digits, is_signed=is_signed)


def delta(value: float | None) -> Text:
    """A signed size: green if buyers prevail, red if sellers do."""
    style = "" if not value else BUY if value > 0 else SELL
    return Text(amount(value, is_signed=True), style=style)


def at_least(text: str) -> Text:
    """A count that is a lower bound, because part of the window was not observed."""
    return Text(f"≥{text}", style="yellow")


def rate(value: float | None) -> str:
    """A rate per second."""
    return NONE if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """Seconds as ``45s``, ``1:02:03`` or ``3d 01:02``."""
    if seconds is None:
        return NONE
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}:{minute:02}"
    return f"{hour}:{minute:02}:{second:02}" if minutes else f"{second}s"


def clock_time(seconds: float, *, with_ms: bool = False) -> str:
    """Seconds since 1970 as local time of day."""
    text = datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S.%f")
    return text[:-3] if with_ms else text[:-7]


def styled(state: str) -> Text:
    """A state in the colour of its severity."""
    return Text(state, style=STATE_STYLES.get(state, ""))


def source_text(source: str) -> Text:
    """The source in capitals; white on red if the data are not live."""
    if source in ("sim", "replay"):
        return Text(f" {source.upper()} ", style="bold white on red")
    return Text(source.upper(), style="bold green" if source == "live" else "")


def feed_text(feed: Mapping[str, Any]) -> Text:
    """Where the data really come from: ``LIVE`` only while data of Bybit arrive."""
    match feed["kind"]:
        case "waiting":
            return Text("NO LIVE DATA YET", style="bold yellow")
        case "offline":
            return Text("NO CONNECTION", style="bold red")
        case "custom":
            return Text(str(feed["host"]), style="bold yellow")
        case kind:
            return source_text(str(kind))


def attempt_text(connector: Mapping[str, Any], wall_s: float) -> str:
    """Why a connector has no connection, and when it tries again; empty if that is unknown."""
    next_ms = connector.get("next_attempt_ts_ms")
    texts = [connector.get("failure") or ""]
    if next_ms is not None:
        texts.append(f"next attempt in {max(0.0, next_ms / 1000 - wall_s):.0f} s")
    return ", ".join(text for text in texts if text)


def age_text(seconds: float | None) -> str:
    """An age in seconds, with one decimal below ten."""
    if seconds is None:
        return NONE
    return f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}"


WARNINGS = {
    "sim": "simulated, not real prices",
    "replay": "recorded, not current prices",
}
"""Warnings for sources that are not live."""


# -- bars --------------------------------------------------------------------------------------


def bar(ratio: float, width: int) -> str:
    """A bar of ``ratio * width`` cells, drawn in eighths of a cell; ``ratio`` in [0, 1]."""
    eighths = round(max(0.0, min(1.0, ratio)) * width * 8)
    full, part = divmod(eighths, 8)
    return "█" * full + (BLOCKS[part] if part else "")


def balance(value: float | None, half: int = 4) -> Text:
    """A value in [-1, 1] as a bar from the middle: to the left if sellers prevail."""
    if value is None:
        return Text(NONE.rjust(half) + " " * (half + 1))
    cells = min(half, max(int(value != 0), round(abs(value) * half)))
    text = Text()
    text.append(" " * (half - cells) + "■" * cells if value < 0 else " " * half, style=SELL)
    text.append("│", style="dim")
    text.append("■" * cells + " " * (half - cells) if value > 0 else " " * half, style=BUY)
    return text


def progress(done: int, total: int, width: int) -> Text:
    """A progress bar; green when complete."""
    filled = bar(done / total if total else 0.0, width)
    text = Text(filled, style="green" if done == total else "yellow")
    return text.append("░" * (width - len(filled)), style="dim")
