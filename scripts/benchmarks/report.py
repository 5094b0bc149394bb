"""The tables for people and the JSON for programs."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from scripts.benchmarks.contenders import OTHER, OURS, THIS, Contender
from scripts.benchmarks.run import Result

RATIOS = (("pybit", 0.25), ("cryptofeed+zmq", 0.35), ("floor+c-book", 1.7))
"""Upper limits of our CPU per message, relative to a rival's."""
GAINS = (("cryptofeed+zmq", 3.0), ("pybit+wsaccel", 4.0))
"""Lower limits of our rate, relative to a rival's."""
HIDDEN = "failures"
"""Columns whose names start like this are not printed."""


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as aligned columns, with numbers to three digits."""
    if not rows:
        return "(nothing)"
    columns = [key for key in rows[0] if not key.startswith(HIDDEN)]
    lines = [columns, *[[_cell(row.get(key)) for key in columns] for row in rows]]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    text = []
    for line in lines:
        cells = [
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def ratios(rows: Sequence[dict[str, Any]], key: str = "cpu_us") -> list[dict[str, Any]]:
    """Return our figure ``key`` relative to each rival's, with the limit if there is one."""
    by_name = {row["contender"]: row.get(key) for row in rows}
    ours = by_name.get(OURS)
    limits = dict(GAINS if "rate" in key else RATIOS)
    sign = ">=" if "rate" in key else "<="
    found = []
    for name, theirs in by_name.items():
        if name == OURS or not ours or not theirs:
            continue
        ratio, limit = ours / theirs, limits.get(name)
        kept = "-"
        if limit is not None:
            kept = "yes" if (ratio >= limit if sign == ">=" else ratio <= limit) else "NO"
        found.append(
            {
                "ours relative to": name,
                key: ratio,
                "limit": "-" if limit is None else f"{sign} {limit}",
                "kept": kept,
            }
        )
    return found


def compare_builds(runs: dict[str, dict[str, list[Result]]]) -> list[dict[str, Any]]:
    """
    Return one row per load: the CPU per message of two builds and its ratio.

    Args:
        runs: By load and build, the results in pairs. Pairs with a failed run are left out.
    """
    rows = []
    for load, by_build in runs.items():
        pairs = [
            (this.cpu_us, other.cpu_us)
            for this, other in zip(by_build[THIS], by_build[OTHER], strict=True)
            if this.ok and other.ok and this.cpu_us and other.cpu_us
        ]
        row: dict[str, Any] = {"load": load, "pairs": f"{len(pairs)}/{len(by_build[THIS])}"}
        if pairs:
            this_us, other_us = (median(side) for side in zip(*pairs, strict=True))
            each = [this / other for this, other in pairs]
            row |= {"this_us": this_us, "other_us": other_us, "ratio": this_us / other_us}
            row |= {"ratio_min": min(each), "ratio_max": max(each)}
        rows.append(row)
    return rows


def notes(contenders: Sequence[Contender]) -> str:
    """Return the notes on the contenders, one per line."""
    return "\n".join(f"{contender.name}: {contender.note}" for contender in contenders)


def write_json(report: dict[str, Any], path: Path) -> None:
    """Write the whole report, with every run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_plain(report), indent=1, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    """Return a value for JSON; a latency beyond the last bucket becomes the text ``inf``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return "inf" if value == math.inf else value


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
