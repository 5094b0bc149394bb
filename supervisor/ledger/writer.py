"""
The writer: a thread that alone writes to the ledger, so that no disk ever blocks the supervisor.

The supervisor hands over rows and goes on. Rows that cannot be written, because the disk is full or
another pipeline holds the lock, wait in memory, of each gap only the newest values. Beyond
``ROWS_MAX`` the oldest are dropped and counted. Nothing here raises into the supervisor.
"""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from bybit_pipeline.shared.errors import PipelineError
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.settings.config import LedgerConfig
from bybit_pipeline.supervisor.ledger.rows import Followed, GapRow
from bybit_pipeline.supervisor.ledger.store import LedgerState, LedgerStore, set_aside

log = structlog.get_logger()

ROWS_MAX = 100_000
BATCH_S = 0.1
"""Time in which changes are collected for one transaction: rows are durable within a second."""
FOLLOWED_S = 1.0
"""Interval at which the ends of followed intervals are written."""
RETRY_S = 1.0
PRUNE_S = 60.0
NUMBERS = 32
"""Numbers reserved for the processes of a run at a time."""
RECENT = 200
"""Gaps of earlier runs that the page shows."""
GIGABYTE = 1e9
UNREADABLE = ("file is not a database", "database disk image is malformed")


class LedgerWriter:
    """
    Writes the rows of one pipeline.

    Args:
        state_dir: Directory of the ledger.
        pipeline: The pipeline.
        settings: Retention.
        clock: Our clock.
        open_store: Opens the ledger; called on the thread.

    Attributes:
        rows_written, rows_lost, errors: Counts since the start.
        error: Why the ledger cannot be written; empty while it can.
    """

    def __init__(
        self,
        state_dir: str | Path,
        pipeline: str,
        settings: LedgerConfig,
        clock: Clock,
        *,
        open_store: Callable[[str | Path], LedgerStore] = LedgerStore,
    ) -> None:
        self.rows_written = 0
        self.rows_lost = 0
        self.errors = 0
        self.error = ""
        self._state_dir = state_dir
        self._pipeline = pipeline
        self._settings = settings
        self._clock = clock
        self._open_store = open_store
        self._store: LedgerStore | None = None
        self._state: LedgerState | None = None
        self._is_loaded = threading.Event()
        self._changed = threading.Condition()
        self._gaps: dict[int, GapRow] = {}
        self._followed: dict[tuple[str, ...], Followed] = {}
        self._jobs: dict[str, Callable[[LedgerStore], None]] = {}
        self._is_closing = False
        self._followed_at = self._pruned_at = clock.monotonic()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def start(self, *, wait_s: float) -> LedgerState | None:
        """Start the thread; return the state to continue, None if it is not known in time."""
        self._thread.start()
        self._is_loaded.wait(wait_s)
        return self._state

    @property
    def rows_waiting(self) -> int:
        """Gaps that are not written yet."""
        return len(self._gaps)

    def waiting(self) -> list[GapRow]:
        """Return the gaps that are not written yet."""
        with self._changed:
            return list(self._gaps.values())

    def put_gap(self, gap: GapRow) -> None:
        """Write a gap soon."""
        with self._changed:
            known = self._gaps.pop(gap.gap_id, None)
            self._gaps[gap.gap_id] = known if known and gap.is_open and not known.is_open else gap
            if len(self._gaps) > ROWS_MAX:
                del self._gaps[next(iter(self._gaps))]
                self.rows_lost += 1
            self._changed.notify()

    def put_followed(self, interval: Followed) -> None:
        """Write a followed interval, with the next ones of this second."""
        with self._changed:
            key = (interval.source, *interval.key, str(interval.start_ms))
            self._followed[key] = interval

    def run_soon(self, name: str, job: Callable[[LedgerStore], None]) -> None:
        """Run a job on the thread, instead of the last one of that name if that still waits."""
        with self._changed:
            self._jobs[name] = job
            self._changed.notify()

    def close(self, *, within_s: float) -> bool:
        """Write what is waiting and stop; return False if some could not be written in time."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(within_s)
        if self._gaps:
            self.rows_lost += len(self._gaps)
            log.error("gaps not recorded", rows=len(self._gaps), error=self.error)
        return not self._gaps and not self._followed

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                if not (self._gaps or self._jobs or self._is_closing):
                    self._changed.wait(FOLLOWED_S)
                is_last = self._is_closing
            is_done = self._attempt()
            if is_last:
                break
            with self._changed:
                if not self._is_closing:
                    self._changed.wait_for(
                        lambda: self._is_closing, timeout=BATCH_S if is_done else RETRY_S
                    )
        if self._store is not None:
            self._store.close()

    def _attempt(self) -> bool:
        """Do what is due; return False if the ledger cannot be used now."""
        try:
            store = self._opened()
            self._flush(store)
            self._prune(store)
            with self._changed:
                jobs, self._jobs = self._jobs, {}
            for job in jobs.values():
                job(store)
        except (sqlite3.Error, OSError, PipelineError) as error:
            self._on_error(error)
            return False
        if self.error:
            log.info("gap ledger written again", rows_waiting=len(self._gaps))
            self.error = ""
        return True

    def _opened(self) -> LedgerStore:
        if self._store is not None and self._store.is_gone():
            log.error("gap ledger removed, creating a new one", path=str(self._store.path))
            self._store.close()
            self._store = None
        if self._store is None:
            store = self._open_store(self._state_dir)
            try:
                state = store.load(self._pipeline, numbers=NUMBERS, recent=RECENT)
            except BaseException:
                store.close()
                raise
            self._store = store
            if self._state is None:
                self._state = state
            self._is_loaded.set()
        return self._store

    def _flush(self, store: LedgerStore) -> None:
        now = self._clock.monotonic()
        with self._changed:
            gaps, followed = list(self._gaps.values()), list[Followed]()
            if gaps or self._is_closing or now - self._followed_at >= FOLLOWED_S:
                followed = list(self._followed.values())
        if not gaps and not followed and now - self._followed_at < FOLLOWED_S:
            return
        store.write(self._pipeline, gaps, followed, self._clock.time_ns() // 1_000_000)
        self._followed_at = now
        self.rows_written += len(gaps)
        with self._changed:
            for gap in gaps:
                if self._gaps.get(gap.gap_id) is gap:
                    del self._gaps[gap.gap_id]
            for interval in followed:
                key = (interval.source, *interval.key, str(interval.start_ms))
                if self._followed.get(key) is interval:
                    del self._followed[key]

    def _prune(self, store: LedgerStore) -> None:
        now = self._clock.monotonic()
        if now - self._pruned_at < PRUNE_S:
            return
        deleted = store.prune(
            self._clock.time_ns() // 1_000_000,
            keep_days=self._settings.keep_days,
            bytes_max=self._settings.max_gb * GIGABYTE,
        )
        if not deleted:  # else there may be more
            self._pruned_at = now

    def _on_error(self, error: Exception) -> None:
        self.errors += 1
        text = str(error)
        if any(fault in text for fault in UNREADABLE):
            if self._store is not None:
                self._store.close()
                self._store = None
            try:
                log.error("gap ledger damaged, set aside", path=str(set_aside(self._state_dir)))
            except OSError as failure:
                text = str(failure)
        if text != self.error:
            log.error(
                "gap ledger not written, retrying",
                state_dir=str(self._state_dir),
                error=text,
                rows_waiting=len(self._gaps),
            )
            self.error = text
