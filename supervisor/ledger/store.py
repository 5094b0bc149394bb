"""
The file of the gap ledger: one SQLite database in the state directory, in WAL mode.

All pipelines of the directory share the file, so that ids are unique in it and one query reads
everything. Within a pipeline only the writer's thread writes; pipelines take turns through SQLite's
lock, each for the milliseconds of a transaction. A commit is on the disk when it returns.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bybit_pipeline.supervisor.ledger.rows import FIELDS, Followed, GapRow, TopicKey
from bybit_pipeline.supervisor.ledger.schema import migrate

FILE = "gaps.db"
BUSY_MS = 5_000
"""Wait for a transaction of another pipeline."""
LONG_MS = 3_600_000
"""Gaps longer than this have an index of their own; see ``schema``."""
WAL_BYTES_MAX = 64 * 1024 * 1024
PRUNE_ROWS = 5_000
"""Rows deleted in one transaction, so that no other writer waits for long."""
DAY_MS = 86_400_000

_COLUMNS = (*FIELDS, "from_ms", "to_ms", "is_long")
_UPSERT = (
    f"INSERT INTO gap ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
    f"ON CONFLICT (gap_id) DO UPDATE SET "
    f"{', '.join(f'{name} = excluded.{name}' for name in _COLUMNS if name != 'gap_id')} "
    # A late report of the opening does not open a closed gap again.
    "WHERE duration_s IS NULL OR excluded.duration_s IS NOT NULL"
)
_FOLLOW = (
    f"INSERT INTO followed ({', '.join(Followed.__struct_fields__)}) "
    f"VALUES ({', '.join('?' * len(Followed.__struct_fields__))}) "
    "ON CONFLICT DO UPDATE SET end_ms = excluded.end_ms, update_id = excluded.update_id, "
    "sequence = excluded.sequence, trade_id = excluded.trade_id, is_open = excluded.is_open"
)


class LedgerState(NamedTuple):
    """The part of the ledger that a starting pipeline continues."""

    first_number: int
    """First of the numbers reserved for the processes of this run."""
    open_gaps: list[GapRow]
    followed: list[Followed]
    untrusted_s: dict[TopicKey, float]
    recent: list[GapRow]
    """The newest gaps, oldest first."""


class LedgerStore:
    """
    One connection to the ledger, for one thread.

    Args:
        state_dir: Its directory, created if necessary.
        pages_max: Upper limit of the file in pages; None for SQLite's own.

    Raises:
        OSError: If the directory cannot be created.
        sqlite3.Error: If the file cannot be opened.
        NewerLedgerError: If the file is newer than this program.
    """

    def __init__(self, state_dir: str | Path, *, pages_max: int | None = None) -> None:
        directory = Path(state_dir)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = directory / FILE
        self._connection = _connect(self.path)
        self._inode = self.path.stat().st_ino
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
            if pages_max is not None:
                self._connection.execute(f"PRAGMA max_page_count = {pages_max}")
            migrate(self._connection)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def is_gone(self) -> bool:
        """True if somebody removed or replaced the file: nobody would ever read what we write."""
        try:
            return self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def reserve(self, count: int) -> int:
        """Reserve numbers that nobody else gets, also after a restart; return the first."""
        with self._transaction():
            (first,) = self._connection.execute("SELECT numbers FROM reserved").fetchone()
            self._connection.execute("UPDATE reserved SET numbers = ?", (first + count,))
        return int(first)

    def load(self, pipeline: str, *, numbers: int, recent: int) -> LedgerState:
        """Return what a starting pipeline continues, with newly reserved numbers."""
        first = self.reserve(numbers)
        execute = self._connection.execute
        fields = ", ".join(FIELDS)
        newest = execute(
            f"SELECT {fields} FROM (SELECT * FROM gap WHERE is_long = 0 ORDER BY from_ms DESC "
            f"LIMIT ?1) UNION ALL SELECT {fields} FROM (SELECT * FROM gap WHERE is_long = 1 "
            "ORDER BY from_ms DESC LIMIT ?1)",
            (recent,),
        )
        rows = sorted((to_row(v) for v in newest if v[1] == pipeline), key=_by_start)
        return LedgerState(
            first,
            [
                to_row(values)
                for values in execute(
                    f"SELECT {fields} FROM gap WHERE pipeline = ? AND duration_s IS NULL",
                    (pipeline,),
                )
            ],
            [
                to_followed(values)
                for values in execute(
                    f"SELECT {', '.join(Followed.__struct_fields__)} FROM followed "
                    "WHERE pipeline = ? AND is_open",
                    (pipeline,),
                )
            ],
            {
                TopicKey(*key): seconds
                for *key, seconds in execute(
                    "SELECT stream, category, symbol, seconds FROM untrusted WHERE pipeline = ?",
                    (pipeline,),
                )
            },
            rows[-recent:],
        )

    def write(
        self, pipeline: str, gaps: Iterable[GapRow], followed: Iterable[Followed], now_ms: int
    ) -> None:
        """
        Write gaps, by their ids, and followed intervals, by topic and start, in one transaction.

        Args:
            pipeline: The pipeline that writes.
            gaps: New gaps, or new values of known ones; repeating them changes nothing.
            followed: New intervals, or new ends of known ones.
            now_ms: Our clock, for gaps without times.
        """
        with self._transaction():
            for gap in gaps:
                self._put(gap, now_ms)
            self._connection.executemany(_FOLLOW, map(msgspec.structs.astuple, followed))
            self._connection.execute(
                "INSERT INTO pipeline VALUES (?, ?) "
                "ON CONFLICT DO UPDATE SET seen_ms = excluded.seen_ms",
                (pipeline, now_ms),
            )

    def _put(self, gap: GapRow, now_ms: int) -> None:
        execute = self._connection.execute
        known = execute(
            "SELECT from_ms, to_ms, duration_s FROM gap WHERE gap_id = ?", (gap.gap_id,)
        ).fetchone()
        if known is not None and gap.is_open and known[2] is not None:
            return
        from_ms = _first(gap.start_ms, _ms(gap.opened_ts_ns), known and known[0], now_ms)
        to_ms = None
        if not gap.is_open:
            to_ms = max(
                from_ms, _first(gap.end_ms, _ms(gap.closed_ts_ns), known and known[1], now_ms)
            )
        is_long = to_ms is None or to_ms - from_ms > LONG_MS
        execute(_UPSERT, (*msgspec.structs.astuple(gap), from_ms, to_ms, is_long))
        added_s = (gap.duration_s or 0.0) - ((known and known[2]) or 0.0)
        if added_s > 0:
            execute(
                "INSERT INTO untrusted VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET seconds = seconds + excluded.seconds",
                (gap.pipeline, gap.stream, gap.category, gap.symbol, added_s),
            )

    def prune(self, now_ms: int, *, keep_days: float, bytes_max: float) -> int:
        """
        Delete gaps that are too old, and the oldest ones of a ledger that is too large.

        Returns:
            The number of deleted gaps; call it again while that is not 0.
        """
        horizon_ms = now_ms - int(keep_days * DAY_MS)
        with self._transaction():
            self._connection.execute(
                "DELETE FROM followed WHERE NOT is_open AND end_ms < ?", (horizon_ms,)
            )
            deleted = self._delete("from_ms < ? AND to_ms < ?", (horizon_ms, horizon_ms))
            if not deleted and self.used_bytes() > bytes_max:
                deleted = self._delete("to_ms IS NOT NULL", ())
        return deleted

    def used_bytes(self) -> int:
        """Size of the content; the file itself does not shrink, its free pages are used again."""
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _delete(self, condition: str, values: Sequence[Any]) -> int:
        deleted = 0
        for is_long in (0, 1):
            deleted += self._connection.execute(
                f"DELETE FROM gap WHERE gap_id IN (SELECT gap_id FROM gap WHERE is_long = ? "
                f"AND {condition} ORDER BY from_ms LIMIT ?)",
                (is_long, *values, PRUNE_ROWS),
            ).rowcount
        return deleted

    @contextlib.contextmanager
    def _transaction(self) -> Any:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def set_aside(state_dir: str | Path) -> Path:
    """Rename a ledger that SQLite cannot read; return its new path."""
    path = Path(state_dir) / FILE
    damaged = path.with_name(f"{FILE}.damaged-{int(time.time())}")
    path.rename(damaged)
    path.with_name(f"{FILE}-shm").unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.with_name(f"{FILE}-wal").rename(damaged.with_name(f"{damaged.name}-wal"))
    return damaged


def to_row(values: Sequence[Any]) -> GapRow:
    """Return the row of the columns ``FIELDS``."""
    fields = dict(zip(FIELDS, values, strict=True))
    fields["complete"] = bool(fields["complete"])
    return GapRow(**fields)


def to_followed(values: Sequence[Any]) -> Followed:
    """Return the interval of the columns of ``Followed``."""
    fields = dict(zip(Followed.__struct_fields__, values, strict=True))
    fields["is_open"] = bool(fields["is_open"])
    return Followed(**fields)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_MS / 1_000, isolation_level=None, check_same_thread=False
    )
    with contextlib.suppress(OSError):
        path.chmod(0o600)
    return connection


def _ms(ns: int | None) -> int | None:
    return None if ns is None else ns // 1_000_000


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)


def _by_start(row: GapRow) -> tuple[int, int]:
    return _first(row.start_ms, _ms(row.opened_ts_ns), 0), row.gap_id
