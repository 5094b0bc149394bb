"""Completeness per symbol and day."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bybit_pipeline.supervisor.ledger.rows import Followed, GapRow
from bybit_pipeline.supervisor.ledger.summary import DayRow, percent, summarize
from tests.supervisor.ledger.rows import (
    DAY_MS,
    MINUTE_MS,
    NOON_MS,
    RUN,
    gap_row,
    interval,
    open_row,
)

MIDNIGHT_MS = NOON_MS - DAY_MS // 2


def days(followed: list[Followed], gaps: list[GapRow], seen_ms: int = NOON_MS) -> list[DayRow]:
    return summarize(
        followed,
        gaps,
        seen_ms={RUN: seen_ms},
        since_ms=MIDNIGHT_MS,
        until_ms=MIDNIGHT_MS + 2 * DAY_MS,
    )


def hole(start_ms: int, end_ms: int, **changes: object) -> GapRow:
    return gap_row(1, start_ms, end_ms=end_ms, duration_s=(end_ms - start_ms) / 1_000, **changes)


def test_a_day_without_gaps_is_complete() -> None:
    (day,) = days([interval(NOON_MS, NOON_MS + 10 * MINUTE_MS)], [])

    assert ("linear", "BTCUSDT", 100.0, None) == (
        day.category,
        day.symbol,
        day.book_percent,
        day.trades_percent,
    )
    assert (600.0, 0.0) == (day.book_followed_s, day.book_missing_s)


def test_trades_and_books_have_figures_of_their_own() -> None:
    followed = [
        interval(NOON_MS, NOON_MS + 100_000, stream=stream) for stream in ("book", "trades")
    ]
    gaps = [
        hole(NOON_MS, NOON_MS + 25_000, stream="trades"),
        hole(NOON_MS, NOON_MS + 10_000, stream="book"),
    ]

    (day,) = days(followed, gaps)

    assert (75.0, 90.0) == (day.trades_percent, day.book_percent)


def test_overlapping_gaps_count_once_and_only_while_followed() -> None:
    followed = [interval(NOON_MS, NOON_MS + 100_000)]
    gaps = [
        hole(NOON_MS - 50_000, NOON_MS + 10_000),
        hole(NOON_MS + 5_000, NOON_MS + 20_000),
        hole(NOON_MS + 99_000, NOON_MS + 200_000),
    ]

    (day,) = days(followed, gaps)

    assert 21.0 == day.book_missing_s


def test_a_gap_over_midnight_counts_for_both_days() -> None:
    midnight_ms = MIDNIGHT_MS + DAY_MS
    followed = [interval(midnight_ms - 100_000, midnight_ms + 200_000)]

    first, second = days(followed, [hole(midnight_ms - 10_000, midnight_ms + 20_000)])

    assert (90.0, 90.0) == (first.book_percent, second.book_percent)
    assert first.day < second.day


def test_an_open_gap_lasts_until_its_pipeline_was_last_seen() -> None:
    followed = [interval(NOON_MS, NOON_MS + 60_000)]
    gaps = [open_row(1, NOON_MS + 60_000)]

    (day,) = days(followed, gaps, seen_ms=NOON_MS + 80_000)

    assert (80.0, 75.0) == (day.book_followed_s, day.book_percent)


def test_a_repaired_gap_is_not_missing() -> None:
    followed = [interval(NOON_MS, NOON_MS + 60_000)]

    (day,) = days(followed, [hole(NOON_MS, NOON_MS + 9_000, complete=True)])

    assert 100.0 == day.book_percent


def test_sources_do_not_mix() -> None:
    followed = [interval(NOON_MS, NOON_MS + 60_000, source=source) for source in ("live", "sim")]

    rows = days(followed, [hole(NOON_MS, NOON_MS + 30_000, source="sim")])

    assert {"live": 100.0, "sim": 50.0} == {row.source: row.book_percent for row in rows}


@pytest.mark.parametrize(
    ("missing_ms", "followed_ms", "expected"),
    [(0, 0, None), (0, DAY_MS, 100.0), (1, DAY_MS, 99.9999), (DAY_MS, DAY_MS, 0.0)],
)
def test_only_what_is_complete_has_a_hundred_per_cent(
    missing_ms: int, followed_ms: int, expected: float | None
) -> None:
    assert expected == percent(missing_ms, followed_ms)


SPANS = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 80)), max_size=6)


@given(SPANS, SPANS)
def test_missing_time_is_that_of_a_naive_count(
    followed: list[tuple[int, int]], gaps: list[tuple[int, int]]
) -> None:
    rows = days(
        [interval(MIDNIGHT_MS + a, MIDNIGHT_MS + a + n) for a, n in followed],
        [hole(MIDNIGHT_MS + a, MIDNIGHT_MS + a + n) for a, n in gaps],
    )
    wanted = {ms for a, n in followed for ms in range(a, a + n)}
    lost = wanted & {ms for a, n in gaps for ms in range(a, a + n)}

    assert len(wanted) / 1_000 == sum(row.book_followed_s for row in rows)
    assert len(lost) / 1_000 == sum(row.book_missing_s for row in rows)
