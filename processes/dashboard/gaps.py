"""
The gaps on the page: intervals in which a topic could not be trusted, newest last. Pure.

They come from ``gap.*`` as it happens, and from the gap ledger, also those of earlier runs and of
workers that have died.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

GAPS_MAX = 200

FIELDS = (
    "stream",
    "category",
    "symbol",
    "source",
    "gap_id",
    "reason",
    "opened_ts_ns",
    "closed_ts_ns",
    "start_ms",
    "end_ms",
    "duration_s",
    "update_id_before",
    "update_id_after",
)


class PageGaps:
    """
    The last ``GAPS_MAX`` gaps.

    A topic has at most one open gap. When another one opens, the earlier one was left open by a
    worker that ended: it is marked as superseded.
    """

    def __init__(self, limit: int = GAPS_MAX) -> None:
        self._gaps: deque[dict[str, Any]] = deque(maxlen=limit)
        self._last_id = 0

    def take(self, payload: Mapping[str, Any], *, version: int, now_ms: int) -> None:
        """Take in a ``gap.*`` message, or a gap of the ledger."""
        gap = {key: payload.get(key) for key in FIELDS}
        gap |= {"version": version, "is_superseded": False, "noted_ms": now_ms}
        gap["is_open"] = payload.get("event", "opened") == "opened" and _end(gap) == (None, None)
        for known in self._gaps:
            if known["gap_id"] == gap["gap_id"]:
                if gap["is_open"] and not known["is_open"]:
                    return  # the ledger had not heard of the end
                changes = {
                    key: gap[key]
                    for key in (*FIELDS, "is_open")
                    if gap[key] not in (None, known[key])
                }
                if changes:
                    known |= changes | {"version": version}
                return
        if gap["is_open"]:
            for known in self._gaps:
                if _topic(known) == _topic(gap) and known["is_open"]:
                    known.update(is_open=False, is_superseded=True, version=version)
        self._last_id += 1
        self._gaps.append({"id": self._last_id, **gap})

    def since(self, version: int) -> list[dict[str, Any]]:
        """The gaps that are new or changed after a version of the page, oldest first."""
        return [dict(gap) for gap in self._gaps if gap["version"] > version]


def _topic(gap: Mapping[str, Any]) -> tuple[Any, ...]:
    return gap["stream"], gap["category"], gap["symbol"]


def _end(gap: Mapping[str, Any]) -> tuple[Any, Any]:
    """When a gap ended: a gap of trades has the exchange's time only."""
    return gap["closed_ts_ns"], gap["end_ms"]
