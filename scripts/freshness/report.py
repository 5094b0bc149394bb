"""The table of a run: faults and views, the worst and the median, the limits. Pure."""

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from scripts.freshness.bench import Sample
from scripts.freshness.faults import FAULTS, RETURN_S

BUSY_S = 0.05
"""Delay of the measuring program from which on its figures say more about the machine."""


@dataclass(frozen=True)
class Row:
    """One fault as seen by one view, over all repetitions."""

    fault: str
    view: str
    repetitions: int
    worst_s: float
    median_s: float
    limit_s: float
    unnoticed: int
    """Repetitions that the view had not noticed when their observation ended."""
    returned_s: float
    """Greatest age of live data after the fault was lifted."""
    late_s: float
    """Longest delay of the measuring program."""

    @property
    def is_good(self) -> bool:
        """True if the limits are met."""
        return not self.unnoticed and self.worst_s <= self.limit_s and self.is_return_good

    @property
    def is_return_good(self) -> bool:
        """True if live data were current after the fault."""
        return self.returned_s <= RETURN_S


def summarize(samples: Iterable[Sample]) -> list[Row]:
    """Return one row per fault and view, in the order of the table of faults."""
    found: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        found.setdefault((sample.fault, sample.view), []).append(sample)
    return [
        Row(
            name,
            view,
            len(group),
            max(sample.frozen_s for sample in group),
            statistics.median(sample.frozen_s for sample in group),
            fault.limit_of(view),
            sum(sample.is_open for sample in group),
            max(sample.returned_s for sample in group),
            max(sample.late_s for sample in group),
        )
        for name, fault in FAULTS.items()
        for view in fault.views
        if (group := found.get((name, view)))
    ]


def table(rows: Iterable[Row]) -> str:
    """Return the table as text, and a warning if the machine was too busy to measure."""
    rows = list(rows)
    head = f"{'fault':<18}{'view':<12}{'n':>4}{'median':>9}{'worst':>9}{'limit':>8}{'return':>9}"
    lines = [f"{head}  verdict"]
    for row in rows:
        verdict = "good" if row.is_good else "MISSED"
        if row.unnoticed:
            verdict += f", {row.unnoticed} not noticed"
        if not row.is_return_good:
            verdict += f", old data live again (limit {RETURN_S:g} s)"
        lines.append(
            f"{row.fault:<18}{row.view:<12}{row.repetitions:>4}{row.median_s:>9.3f}"
            f"{row.worst_s:>9.3f}{row.limit_s:>8.1f}{row.returned_s:>9.3f}  {verdict}"
        )
    late_s = max((row.late_s for row in rows), default=0.0)
    if late_s > BUSY_S:
        lines.append(
            f"the machine was busy: this program was late by up to {late_s:.2f} s, and the "
            "figures include such delays"
        )
    return "\n".join(lines)


def as_json(rows: Iterable[Row]) -> list[dict[str, object]]:
    """Return the rows as plain objects."""
    return [{**asdict(row), "is_good": row.is_good} for row in rows]
