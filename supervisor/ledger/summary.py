"""
Completeness: the share of the followed time in which a stream could be trusted. Pure.

Per pipeline, source, network, symbol and UTC day, separately for trades and books. Overlapping gaps
count once, and gaps count only as far as the topic was followed.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from bybit_pipeline.shared.wire.messages import Category, Source
from bybit_pipeline.supervisor.ledger.rows import Followed, GapRow, GapStream
from bybit_pipeline.supervisor.ledger.store import DAY_MS

Interval = tuple[int, int]


class _Stream(NamedTuple):
    pipeline: str
    source: Source
    network: str
    stream: GapStream
    category: Category
    symbol: str


class DayRow(msgspec.Struct, frozen=True, kw_only=True):
    """Completeness of one symbol on one UTC day, as ``gaps --summary --json`` prints it."""

    day: str
    category: Category
    symbol: str
    trades_percent: float | None
    """None if the stream was not followed on that day."""
    book_percent: float | None
    trades_followed_s: float
    book_followed_s: float
    trades_missing_s: float
    book_missing_s: float
    source: Source
    network: str
    pipeline: str


def percent(missing_ms: int, followed_ms: int) -> float | None:
    """Return the share that is not missing in per cent, rounded down: 100 means complete."""
    if followed_ms <= 0:
        return None
    return (followed_ms - missing_ms) * 1_000_000 // followed_ms / 10_000


def summarize(
    followed: Iterable[Followed],
    gaps: Iterable[GapRow],
    *,
    seen_ms: Mapping[str, int],
    since_ms: int,
    until_ms: int,
    symbol: str | None = None,
) -> list[DayRow]:
    """
    Return the completeness of every symbol and day, oldest first.

    Args:
        followed, gaps: Everything that overlaps the interval.
        seen_ms: When each pipeline last wrote: its open gaps last until then.
        since_ms, until_ms: The interval.
        symbol: Only this symbol.
    """
    intervals: dict[_Stream, list[Interval]] = {}
    for each in followed:
        if symbol is None or each.symbol == symbol:
            stream = _stream(each)
            intervals.setdefault(stream, []).append((each.start_ms, each.end_ms))
    missing: dict[_Stream, list[Interval]] = {}
    for gap in gaps:
        if gap.source is not None and gap.start_ms is not None and not gap.complete:
            end_ms = seen_ms.get(gap.pipeline, 0) if gap.is_open else gap.end_ms or _end_ms(gap)
            missing.setdefault(_stream(gap), []).append((gap.start_ms, end_ms))
            if gap.is_open and _stream(gap) in intervals:
                # Nothing was applied since the gap opened, but the topic was to be followed.
                intervals[_stream(gap)].append((gap.start_ms, end_ms))
    days: dict[tuple[int, _Stream], dict[GapStream, tuple[int, int]]] = {}
    for stream, spans in intervals.items():
        spans = _clip(_union(spans), since_ms, until_ms)
        holes = _union(missing.get(stream, ()))
        for first_ms, last_ms in _days(spans):
            part = _clip(spans, first_ms, last_ms)
            lost_ms = sum(_length(_clip(holes, *span)) for span in part)
            row = days.setdefault((first_ms, stream._replace(stream="book")), {})
            row[stream.stream] = (_length(part), lost_ms)
    return [_row(day_ms, stream, row) for (day_ms, stream), row in sorted(days.items())]


def _row(day_ms: int, stream: _Stream, row: dict[GapStream, tuple[int, int]]) -> DayRow:
    figures: dict[str, Any] = {}
    for name in ("trades", "book"):
        followed_ms, missing_ms = row.get(name, (0, 0))
        figures[f"{name}_percent"] = percent(missing_ms, followed_ms)
        figures[f"{name}_followed_s"] = followed_ms / 1_000
        figures[f"{name}_missing_s"] = missing_ms / 1_000
    return DayRow(
        day=datetime.fromtimestamp(day_ms / 1_000, UTC).strftime("%Y-%m-%d"),
        category=stream.category,
        symbol=stream.symbol,
        source=stream.source,
        network=stream.network,
        pipeline=stream.pipeline,
        **figures,
    )


def _stream(row: Followed | GapRow) -> _Stream:
    assert row.source is not None, "checked by the caller"
    return _Stream(row.pipeline, row.source, row.network, row.stream, row.category, row.symbol)


def _end_ms(gap: GapRow) -> int:
    assert gap.start_ms is not None, "checked by the caller"
    return gap.start_ms + int((gap.duration_s or 0.0) * 1_000)


def _union(spans: Iterable[Interval]) -> list[Interval]:
    """Return the intervals without overlaps, in their order."""
    found: list[Interval] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif end > start:
            found.append((start, end))
    return found


def _clip(spans: Iterable[Interval], least: int, most: int) -> list[Interval]:
    return [(max(a, least), min(b, most)) for a, b in spans if a < most and b > least]


def _length(spans: Iterable[Interval]) -> int:
    return sum(end - start for start, end in spans)


def _days(spans: Iterable[Interval]) -> Iterator[Interval]:
    """Yield the UTC days that some intervals without overlaps touch, each once."""
    last = None
    for start, end in spans:
        for day in range(start // DAY_MS, (end - 1) // DAY_MS + 1):
            if day != last:
                last = day
                yield day * DAY_MS, (day + 1) * DAY_MS
