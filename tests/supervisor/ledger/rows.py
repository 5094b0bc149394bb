"""Rows of a gap ledger, for tests."""

from typing import Any

from bybit_pipeline.supervisor.ledger.rows import Followed, GapRow

RUN = "/run/one"
MINUTE_MS = 60_000
DAY_MS = 86_400_000
NOON_MS = 20_000 * DAY_MS + DAY_MS // 2


def gap_row(gap_id: int = 1, start_ms: int | None = NOON_MS, **changes: Any) -> GapRow:
    """A closed gap of a second in the book of BTCUSDT."""
    fields: dict[str, Any] = {
        "gap_id": gap_id,
        "pipeline": RUN,
        "source": "live",
        "network": "mainnet",
        "stream": "book",
        "category": "linear",
        "symbol": "BTCUSDT",
        "reason": "gap",
        "start_ms": start_ms,
        "end_ms": None if start_ms is None else start_ms + 1_000,
        "duration_s": 1.0,
    }
    return GapRow(**fields | changes)


def open_row(gap_id: int = 1, start_ms: int = NOON_MS, **changes: Any) -> GapRow:
    """A gap that has not ended."""
    return gap_row(gap_id, start_ms, end_ms=None, duration_s=None, **changes)


def interval(start_ms: int, end_ms: int, **changes: Any) -> Followed:
    """An interval in which the book of BTCUSDT was followed."""
    fields: dict[str, Any] = {
        "pipeline": RUN,
        "source": "live",
        "network": "mainnet",
        "stream": "book",
        "category": "linear",
        "symbol": "BTCUSDT",
        "start_ms": start_ms,
        "end_ms": end_ms,
    }
    return Followed(**fields | changes)
