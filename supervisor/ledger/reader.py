"""
Queries of the gap ledger, with or without a running pipeline.

Readers share the file with the writers of running pipelines; neither waits for the other.
"""

import contextlib
import heapq
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bybit_pipeline.shared.errors import EX_UNAVAILABLE, PipelineError
from bybit_pipeline.supervisor.ledger.rows import FIELDS, Followed, GapRow
from bybit_pipeline.supervisor.ledger.schema import MIGRATIONS, NewerLedgerError
from bybit_pipeline.supervisor.ledger.store import BUSY_MS, FILE, LONG_MS, to_followed, to_row

EVER_MS = 2**53
"""Later than every time."""


class LedgerError(PipelineError):
    """The ledger cannot be read."""

    exit_code = EX_UNAVAILABLE


class LedgerReader:
    """
    A read-only connection to the ledger of a state directory; a context manager.

    Args:
        state_dir: The state directory; a missing ledger is empty.

    Raises:
        LedgerError: If the file is no ledger or cannot be opened.
        NewerLedgerError: If the file is newer than this program.
    """

    def __init__(self, state_dir: str | Path) -> None:
        self.path = Path(state_dir) / FILE
        self._connection: sqlite3.Connection | None = None
        with self._explained():
            if self.path.exists():
                self._connection = _connect(self.path)
                (version,) = self._connection.execute("PRAGMA user_version").fetchone()
                if version > len(MIGRATIONS):
                    raise NewerLedgerError(f"gap ledger {self.path}: written by a newer version")
                if version == 0:  # no pipeline has finished creating it
                    self.close()

    def __enter__(self) -> "LedgerReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def gaps(
        self,
        since_ms: int = 0,
        until_ms: int = EVER_MS,
        *,
        symbol: str | None = None,
        pipeline: str | None = None,
        newest: int | None = None,
    ) -> Iterator[GapRow]:
        """
        Yield the gaps that overlap an interval, oldest first.

        Args:
            since_ms, until_ms: The interval; open gaps last until now.
            symbol: Only gaps of this symbol, in every category.
            pipeline: Only gaps of this pipeline.
            newest: Only this number of gaps, the newest ones.
        """
        wanted: dict[str, Any] = {
            "since": since_ms,
            "until": until_ms,
            "symbol": symbol,
            "pipeline": pipeline,
            "limit": -1 if newest is None else newest,
            # A short gap that overlaps the interval cannot begin long before it.
            "earliest": since_ms - LONG_MS,
        }
        order = "ASC" if newest is None else "DESC"
        parts = [
            self._select(
                f"SELECT from_ms, {', '.join(FIELDS)} FROM gap WHERE is_long = {is_long}"
                f"{' AND from_ms >= :earliest' if not is_long else ''} AND from_ms < :until "
                f"AND (to_ms IS NULL OR to_ms > :since)"
                f"{'' if symbol is None else ' AND symbol = :symbol'}"
                f"{'' if pipeline is None else ' AND pipeline = :pipeline'} "
                f"ORDER BY from_ms {order} LIMIT :limit",
                wanted,
            )
            for is_long in (0, 1)
        ]
        if newest is None:
            for _, *values in heapq.merge(*parts, key=lambda values: (values[0], values[1])):
                yield to_row(values)
        else:
            found = sorted((values for part in parts for values in part), key=lambda v: v[:2])
            yield from (to_row(values[1:]) for values in found[-newest:])

    def followed(
        self, since_ms: int = 0, until_ms: int = EVER_MS, *, pipeline: str | None = None
    ) -> list[Followed]:
        """Return the intervals in which topics were followed that overlap an interval."""
        return [
            to_followed(values)
            for values in self._select(
                f"SELECT {', '.join(Followed.__struct_fields__)} FROM followed "
                "WHERE end_ms > :since AND start_ms < :until "
                f"{'' if pipeline is None else 'AND pipeline = :pipeline '}ORDER BY start_ms",
                {"since": since_ms, "until": until_ms, "pipeline": pipeline},
            )
        ]

    def seen_ms(self) -> dict[str, int]:
        """Return when each pipeline last wrote, by our clock."""
        return dict(self._select("SELECT pipeline, seen_ms FROM pipeline", {}))

    def _select(self, statement: str, values: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        with self._explained():
            if self._connection is not None:
                yield from self._connection.execute(statement, values)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(f"gap ledger {self.path}: cannot be read: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    """Open a file for reading, also in a directory in which we cannot write."""
    try:
        connection = sqlite3.connect(path, timeout=BUSY_MS / 1_000, isolation_level=None)
        connection.execute("PRAGMA query_only = 1")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        # Without write access a reader needs the files that a running writer has created; when none
        # runs, nothing changes, and the file can be read as it is.
        connection = sqlite3.connect(
            f"file:{path}?mode=ro&immutable=1", uri=True, isolation_level=None
        )
    return connection
