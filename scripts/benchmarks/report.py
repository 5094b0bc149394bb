"""The table for people and the JSON for machines."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.benchmarks.contestants import CONTESTANTS, OURS

RATIOS = (("pybit", 0.25), ("cryptofeed+zmq", 0.35), ("floor+c-book", 1.7))
"""Our CPU a message over a rival's: what it must not exceed."""
GAINS = (("cryptofeed+zmq", 3.0), ("pybit+wsaccel", 4.0))
"""Our rate over a rival's: what it must reach."""
HIDDEN = ("failures",)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as aligned columns; numbers to three digits."""
    if not rows:
        return "(nothing)"
    columns = [key for key in rows[0] if key not in HIDDEN and not key.startswith("failures_")]
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
    """Ours over each rival's in ``key``, with the limit where there is one."""
    by_name = {row["contestant"]: row.get(key) for row in rows}
    mine = by_name.get(OURS)
    limits = dict(GAINS if "rate" in key else RATIOS)
    sign = ">=" if "rate" in key else "<="
    found = []
    for name, theirs in by_name.items():
        if name == OURS or not mine or not theirs:
            continue
        limit = limits.get(name)
        kept = (
            None
            if limit is None
            else (mine / theirs >= limit if sign == ">=" else mine / theirs <= limit)
        )
        found.append(
            {
                "ours over": name,
                key: mine / theirs,
                "limit": "-" if limit is None else f"{sign} {limit}",
                "kept": {None: "-", True: "yes", False: "NO"}[kept],
            }
        )
    return found


def notes(names: Sequence[str]) -> str:
    """The fairness notes of those who took part."""
    return "\n".join(f"{c.name}: {c.note}" for c in CONTESTANTS if c.name in names)


def write_json(report: dict[str, Any], path: Path) -> None:
    """The whole report, every run included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_plain(report), indent=1, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    """What JSON can hold; a latency beyond the last bucket becomes the text ``inf``."""
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
