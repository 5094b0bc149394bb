"""
Lines of text on stdout: coloured on a terminal, plain in a pipe or a file.

Also metric messages as one line each, which ``tail`` prints on a terminal.
"""

import sys
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from rich.console import Console
from rich.highlighter import RegexHighlighter
from rich.theme import Theme

from bybit_pipeline.shared.runtime.terminal import has_control_codes
from bybit_pipeline.supervisor.tui.formatting import (
    NONE,
    amount,
    clock_time,
    duration,
    number,
    rate,
)


class StateHighlighter(RegexHighlighter):
    """Colours for words that name a state."""

    highlights: ClassVar = [
        r"^(?P<head>[A-Z][A-Z (]+[A-Z)]+ {2}.*)$",
        r"\b(?P<good>live|up|connected|delivering|yes|confirmed)\b(?!:)",
        r"\b(?P<soon>warming|syncing|starting|restarting|pending|idle|open)\b",
        r"\b(?P<bad>stale|silent|flapping|failed|rejected|not ready|DOWN|no)\b",
        r"\b(?P<loud>(SIM|REPLAY)\b(: NOT live market data)?)",
    ]


THEME = Theme(
    {
        "head": "bold",
        "good": "green",
        "soon": "yellow",
        "bad": "bold red",
        "loud": "bold white on red",
    }
)


def show(lines: Iterable[str]) -> None:
    """Print lines; the terminal wraps long ones."""
    if not has_control_codes(sys.stdout):
        for line in lines:
            print(line)
        return
    console = Console(highlighter=StateHighlighter(), theme=THEME, markup=False, emoji=False)
    for line in lines:
        console.print(line, soft_wrap=True)


def message_line(topic: str, payload: Mapping[str, Any]) -> str:
    """One metric message as one line, with the main fields of its kind."""
    at_ns = payload.get("publish_ts_ns")
    at = clock_time(at_ns / 1e9, with_ms=True) if at_ns else NONE.ljust(12)
    source = str(payload.get("source") or "")
    loud = source if source in ("", "live") else source.upper()
    state = str(payload.get("state") or NONE)
    fields = _FIELDS.get(str(payload.get("kind")), lambda _: "")(payload)
    return f"{at}  {topic:<28}  {loud:<6}  {state:<8}  {fields}".rstrip()


def _trades(payload: Mapping[str, Any]) -> str:
    windows = payload.get("windows") or {}
    name = "60s" if "60s" in windows else next(iter(windows), "")
    window = windows.get(name) or {}
    return (
        f"{payload.get('last_side') or NONE:<4} {amount(payload.get('last_size')):>9}"
        f" @ {number(payload.get('last_price')):<10}  tps {rate(payload.get('tps')):>6}"
        f"  {name} tpm {number(window.get('tpm'), 0):>6}"
        f"  delta {amount(window.get('vol_delta'), is_signed=True):>10}"
    )


def _orderbook(payload: Mapping[str, Any]) -> str:
    if payload.get("state") != "live":
        return str(payload.get("reason") or "")
    imbalance = (payload.get("imbalance") or {}).get("10")
    return (
        f"{number(payload.get('best_bid')):>10} | {number(payload.get('best_ask')):<10}"
        f"  {number(payload.get('spread_bps'), 2):>6} bps"
        f"  imb {number(imbalance, 2, is_signed=True):>5}"
        f"  {len(payload.get('densities') or ())} walls"
    )


def _density(payload: Mapping[str, Any]) -> str:
    return (
        f"{payload.get('side')} wall {payload.get('event')}: {amount(payload.get('size'))}"
        f" of {amount(payload.get('peak_size'))} @ {number(payload.get('price'))}"
        f"  {number(payload.get('distance_bps'), 1)} bps away"
    )


def _gap(payload: Mapping[str, Any]) -> str:
    seconds = payload.get("duration_s")
    text = f"{payload.get('stream')} {payload.get('event')}: {payload.get('reason')}"
    return text if seconds is None else f"{text}  {seconds:.3f} s"


def _process(payload: Mapping[str, Any]) -> str:
    return f"restarts {payload.get('restarts')}  uptime {duration(payload.get('uptime_s'))}"


_FIELDS = {
    "trades": _trades,
    "orderbook": _orderbook,
    "density": _density,
    "gap": _gap,
    "process": _process,
}
