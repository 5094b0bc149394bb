"""
Numbers, states and sources as text for people, and rows of them as columns. Pure.

Decides how a value looks. Absent numbers are dashes, never zeros. A column that does not fit is
left out whole: a number that is cut off is a wrong number.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

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
    One column.

    ``rank`` orders who gets room when the terminal is narrow: the lowest first, 0 always.
    ``least`` is a width in cells that keeps the picture still while numbers change.
    """

    title: str
    is_right: bool = False
    rank: int = 0
    least: int = 0


def grid(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int) -> list[Text]:
    """The head and one line a row, at most ``width`` cells each."""
    widths = [
        max(cell_len(column.title), column.least, *(len_of(row[at]) for row in rows), 0)
        for at, column in enumerate(columns)
    ]
    shown = _fitting(columns, widths, width)
    head: list[Cell] = [Text(column.title, style="bold dim") for column in columns]
    return [_line(row, columns, widths, shown, width) for row in (head, *rows)]


def _fitting(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """Columns of rank 0, and of the others by rank those for which there is room."""
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
    """Width in cells of the terminal."""
    return cell.cell_len if isinstance(cell, Text) else cell_len(cell)


def fitted(line: Text, width: int) -> Text:
    """A line that is at most ``width`` wide and never breaks."""
    line.no_wrap, line.end = True, ""
    line.truncate(width, overflow="ellipsis")
    return line


# -- values ------------------------------------------------------------------------------------


def number(value: float | None, digits: int | None = None, *, is_signed: bool = False) -> str:
    """A number for people, a dash if there is none."""
    if value is None:
        return NONE
    sign = "+" if is_signed else ""
    return f"{value:{sign},.{digits}f}" if digits is not None else f"{value:{sign}.10g}"


def amount(value: float | None, *, is_signed: bool = False) -> str:
    """A size or turnover in five significant digits or so: ``0.505``, ``133.17``, ``1.29M``."""
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
    """A signed size in the colour of the side that it favours."""
    style = "" if not value else BUY if value > 0 else SELL
    return Text(amount(value, is_signed=True), style=style)


def at_least(text: str) -> Text:
    """A count of which a part was not observed."""
    return Text(f"≥{text}", style="yellow")


def rate(value: float | None) -> str:
    """Something a second."""
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
    """A state in its colour."""
    return Text(state, style=STATE_STYLES.get(state, ""))


def source_text(source: str) -> Text:
    """The source; loud when the data are not live."""
    if source in ("sim", "replay"):
        return Text(f" {source.upper()} ", style="bold white on red")
    return Text(source.upper(), style="bold green" if source == "live" else "")


WARNINGS = {
    "sim": "made-up numbers, not the market",
    "replay": "a recording, not the market now",
}
"""What a source that is not live means, in a few words."""


# -- bars --------------------------------------------------------------------------------------


def bar(share: float, width: int) -> str:
    """A bar from the left, ``width`` cells when ``share`` is 1, in eighths of a cell."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, part = divmod(eighths, 8)
    return "█" * full + (BLOCKS[part] if part else "")


def balance(value: float | None, half: int = 4) -> Text:
    """A value in [-1, 1] as a bar from the middle: sellers to the left, buyers to the right."""
    if value is None:
        return Text(NONE.rjust(half) + " " * (half + 1))
    cells = min(half, max(int(value != 0), round(abs(value) * half)))
    text = Text()
    text.append(" " * (half - cells) + "■" * cells if value < 0 else " " * half, style=SELL)
    text.append("│", style="dim")
    text.append("■" * cells + " " * (half - cells) if value > 0 else " " * half, style=BUY)
    return text


def progress(done: int, of: int, width: int) -> Text:
    """How much of something is there."""
    filled = bar(done / of if of else 0.0, width)
    text = Text(filled, style="green" if done == of else "yellow")
    return text.append("░" * (width - len(filled)), style="dim")
