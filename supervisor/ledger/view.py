"""The ledger as a command line shows it: the file, and rows that are not in it yet. Read-only."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from bybit_pipeline.supervisor.ledger.reader import EVER_MS, LedgerReader
from bybit_pipeline.supervisor.ledger.rows import GapRow
from bybit_pipeline.supervisor.ledger.store import DAY_MS
from bybit_pipeline.supervisor.ledger.summary import DayRow, summarize

SUMMARY_DAYS = 7
"""Days of a summary, if none are given: today and those before."""


class LedgerView:
    """
    The ledger of a state directory; a context manager.

    Args:
        state_dir: The state directory.
        waiting: Rows that a running pipeline has not written yet.
        pipeline: Only the rows of this pipeline; None for all.
    """

    def __init__(
        self, state_dir: str | Path, waiting: Iterable[Any] = (), pipeline: str | None = None
    ) -> None:
        self._pipeline = pipeline
        rows = msgspec.convert(list(waiting), list[GapRow])
        self._waiting = {row.gap_id: row for row in rows}
        self._reader = LedgerReader(state_dir)

    def __enter__(self) -> "LedgerView":
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def gaps(
        self,
        since_ms: int | None = None,
        until_ms: int | None = None,
        *,
        symbol: str | None = None,
        newest: int | None = None,
    ) -> Iterator[GapRow]:
        """Yield the gaps that overlap an interval, oldest first: all, or the newest ones."""
        since_ms, until_ms = since_ms or 0, EVER_MS if until_ms is None else until_ms
        rows = self._reader.gaps(
            since_ms, until_ms, symbol=symbol, pipeline=self._pipeline, newest=newest
        )
        if not self._waiting:
            yield from rows
            return
        found = {row.gap_id: row for row in rows}
        for row in self._waiting.values():
            end_ms = EVER_MS if row.is_open or row.end_ms is None else row.end_ms
            if symbol in (None, row.symbol) and _from_ms(row) < until_ms and end_ms > since_ms:
                found[row.gap_id] = row
        yield from sorted(found.values(), key=lambda row: (_from_ms(row), row.gap_id))

    def summary(
        self,
        now_ms: int,
        since_ms: int | None = None,
        until_ms: int | None = None,
        *,
        symbol: str | None = None,
    ) -> list[DayRow]:
        """Return the completeness of every symbol and day of an interval, oldest first."""
        until_ms = now_ms if until_ms is None else until_ms
        if since_ms is None:
            since_ms = now_ms // DAY_MS * DAY_MS - (SUMMARY_DAYS - 1) * DAY_MS
        return summarize(
            self._reader.followed(since_ms, until_ms, pipeline=self._pipeline),
            self.gaps(since_ms, until_ms, symbol=symbol),
            seen_ms=self._reader.seen_ms(),
            since_ms=since_ms,
            until_ms=until_ms,
            symbol=symbol,
        )


def _from_ms(row: GapRow) -> int:
    if row.start_ms is not None:
        return row.start_ms
    return (row.opened_ts_ns or row.closed_ts_ns or 0) // 1_000_000
