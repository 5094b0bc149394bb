"""
The screen of ``up``: the whole pipeline. Pure.

Decides what to omit when there is little room. The screen is never larger than the terminal, and
what is omitted is counted.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from bybit_pipeline.supervisor.tui.event_log import EventLog
from bybit_pipeline.supervisor.tui.formatting import (
    NONE,
    WARNINGS,
    Cell,
    Column,
    attempt_text,
    duration,
    feed_text,
    fitted,
    grid,
    number,
    progress,
    rate,
    styled,
)
from bybit_pipeline.supervisor.tui.market_table import ViewState, market_lines
from bybit_pipeline.supervisor.tui.rates import Rates
from bybit_pipeline.supervisor.tui.state import TableState

BAR = 30
REASONS_MAX = 3
MIN_LINES = (5, 4, 3)
"""Lines that processes, markets and events get before any of them gets more."""

Status = Mapping[str, Any]


def overview(
    status: Status,
    table: TableState,
    events: EventLog,
    rates: Rates,
    view: ViewState,
    *,
    now: float,
    wall_s: float,
    width: int,
    height: int,
    is_stopping: bool = False,
) -> list[Text]:
    """
    The lines of the screen.

    Args:
        status: The output of ``status --json``; empty before the first one.
        table: The markets.
        events: The event log.
        rates: Rates of the processes.
        view: How the markets are sorted.
        now: Monotonic seconds.
        wall_s: Seconds since 1970.
        width: Width of the terminal in cells.
        height: Height of the terminal in lines.
        is_stopping: True once the user has asked to stop.
    """
    if not status:
        return [fitted(Text("bybit-pipeline  starting …", style="yellow"), width)][:height]
    lines = _head(status, wall_s, width, is_stopping)
    free = height - len(lines)
    wants = (1 + len(status["processes"]), 1 + max(1, len(table)), 1 + max(1, len(events)))
    gaps = 3 if free >= sum(min(w, f) for w, f in zip(wants, MIN_LINES, strict=True)) + 3 else 0
    process_height, market_height, event_height = shares(free - gaps, wants, MIN_LINES)
    blank = [Text()] if gaps else []
    lines += blank + process_lines(status, rates, wall_s, width=width, height=process_height)
    lines += blank + _markets(table, view, now, width, market_height)
    lines += blank + events.lines(width=width, height=event_height)
    return [fitted(line, width) for line in lines[:height]]


def shares(free: int, wants: Sequence[int], minimums: Sequence[int]) -> list[int]:
    """Lines for each part: first its minimum, then one more for each in turn while any are free."""
    given = [0] * len(wants)
    for limits in (minimums, wants):
        while True:
            before = free
            for at, (limit, want) in enumerate(zip(limits, wants, strict=True)):
                if free > 0 and given[at] < min(limit, want):
                    given[at] += 1
                    free -= 1
            if free == before:
                break
    return given


def _markets(table: TableState, view: ViewState, now: float, width: int, height: int) -> list[Text]:
    if len(table):
        return market_lines(table, view, now, width=width, height=height)
    return [Text("markets", style="bold dim"), Text("no data yet", style="dim")][:height]


# -- head --------------------------------------------------------------------------------------


def _head(status: Status, wall_s: float, width: int, is_stopping: bool) -> list[Text]:
    feed = status["feed"]
    title = Text.assemble(
        ("bybit-pipeline ", "bold"), (status["version"], "dim"), "  ", feed_text(feed)
    )
    if feed["kind"] in WARNINGS:
        title.append(f" {WARNINGS[feed['kind']]}", style="bold red")
    state = "stopping" if is_stopping else "ready" if status["ready"] else "not ready"
    title.append("  ").append(
        Text(state, style="bold green" if state == "ready" else "bold yellow")
    )
    title.append(f"  {duration(wall_s - status['started_ts_ms'] / 1000)}", style="dim")
    keys = Text.assemble(("q", "bold"), " quit  ", ("1-9", "bold"), " sort")
    room = width - title.cell_len - keys.cell_len
    if room >= 2:
        title.append(" " * room).append(keys)
    where = Text(
        f"metrics {status['metrics']}  http://{status['http']}  {status['run_dir']}", style="dim"
    )
    lines = [title, where]
    if not status["ready"] and not is_stopping:
        lines.append(_progress(status))
        reasons = status["reasons"]
        lines += [Text(f"  {reason}", style="yellow") for reason in reasons[:REASONS_MAX]]
        if len(reasons) > REASONS_MAX:
            lines.append(Text(f"  … {len(reasons) - REASONS_MAX} more", style="yellow"))
    return [fitted(line, width) for line in lines]


def _progress(status: Status) -> Text:
    states = [state for c in status["connectors"] for state in c["topics"].values()]
    delivering = states.count("delivering")
    confirmed = delivering + states.count("confirmed")
    up = sum(process["state"] == "up" for process in status["processes"])
    text = Text("topics ").append(progress(confirmed, len(states), BAR))
    text.append(f" {confirmed} of {len(states)} confirmed, {delivering} delivering", style="bold")
    return text.append(f"  processes {up} of {len(status['processes'])} up")


# -- processes ---------------------------------------------------------------------------------

_PROCESS_COLUMNS = (
    Column("process"),
    Column("state", min_width=10),
    Column("msg/s", is_right=True, min_width=7),
    Column("lag ms", is_right=True, min_width=6, rank=1),
    Column("lost", is_right=True, rank=3),
    Column("restarts", is_right=True),
    Column("uptime", is_right=True, min_width=7, rank=4),
    Column("cpu %", is_right=True, min_width=5, rank=5),
    Column("MB", is_right=True, min_width=4, rank=6),
    Column(""),
)


def process_lines(
    status: Status, rates: Rates, wall_s: float, *, width: int, height: int
) -> list[Text]:
    """The processes in at most ``height`` lines; those that are not up are shown first."""
    if height < 2:
        return []
    connectors = {entry["process"]: entry for entry in status["connectors"]}
    processes = status["processes"]
    more = 0
    if len(processes) > height - 1:
        processes = sorted(processes, key=lambda p: p["state"] == "up")[: height - 2]
        more = len(status["processes"]) - len(processes)
    rows = [
        _process_row(process, _details(process, connectors, status, wall_s), rates)
        for process in processes
    ]
    lines = grid(_PROCESS_COLUMNS, rows, width)
    if more:
        lines.append(Text(f"… {more} more", style="dim"))
    return lines


def _process_row(process: Mapping[str, Any], details: Text, rates: Rates) -> list[Cell]:
    name, counts, rss = process["process"], process["counts"], process["rss_bytes"]
    lag_s, cpu, lost = counts.get("lag_s"), rates.cpu(name), counts.get("lost")
    restarts = process["restarts"]
    return [
        name,
        styled(process["state"]),
        rate(rates.messages(name)),
        number(None if lag_s is None else lag_s * 1000, 1),
        Text(NONE if lost is None else f"{lost:,}", style="bold red" if lost else ""),
        Text(str(restarts), style="bold red" if restarts else ""),
        duration(process["uptime_s"]),
        number(None if cpu is None else cpu * 100, 0),
        number(None if rss is None else rss / 2**20, 0),
        details,
    ]


def _details(
    process: Mapping[str, Any], connectors: Mapping[str, Any], status: Status, wall_s: float
) -> Text:
    """The last column: what the process works on, by its role."""
    connector = connectors.get(process["process"])
    if connector is not None:
        return _link(connector, wall_s)
    if process["role"] == "dashboard":
        return Text(status.get("dashboard") or "", style="dim")
    return _work(process["counts"])


def _link(connector: Mapping[str, Any], wall_s: float) -> Text:
    """A connector: its topics by state, and its connection."""
    states = list(connector["topics"].values())
    text = Text()
    if not connector["connected"]:
        text.append("NOT CONNECTED", style="bold red")
        why = attempt_text(connector, wall_s)
        text.append(f"  {why}" if why else "", style="bold red")
        return text.append(f"  {connector['url']}", style="dim")
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    text.append(
        ", ".join(f"{count} {state}" for state, count in counts.items()),
        style="yellow" if "pending" in counts else "",
    )
    if connector["reconnects"]:
        text.append(f"  reconnects {connector['reconnects']}", style="yellow")
    heard_ms = connector["last_message_ts_ms"]
    if heard_ms is not None and (silent_s := wall_s - heard_ms / 1000) >= 5.0:
        text.append(f"  silent for {silent_s:.0f} s", style="bold red")
    if connector["ping_rtt_ms"] is not None:
        text.append(f"  ping {connector['ping_rtt_ms']:.0f} ms", style="dim")
    return text.append(f"  {connector['url']}", style="dim")


def _work(counts: Mapping[str, Any]) -> Text:
    """A worker: its markets by state, and its gaps."""
    text = Text()
    for state, count in (counts.get("books") or counts.get("states") or {}).items():
        if count:
            text.append(" · " if text else "").append(f"{count} ").append(styled(state))
    if counts.get("gaps"):
        text.append(f"  gaps {counts['gaps']}", style="yellow")
    if counts.get("last_values") is not None:
        text.append(
            f"{counts['last_values']} topics, {counts['subscriptions']} subscriptions", style="dim"
        )
    return text
