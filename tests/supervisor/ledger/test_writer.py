"""The writer: nothing that happens to the disk blocks or loses what it was given."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bybit_pipeline.shared.runtime.clock import SystemClock
from bybit_pipeline.shared.settings.config import LedgerConfig
from bybit_pipeline.supervisor.ledger import writer as module
from bybit_pipeline.supervisor.ledger.ids import COUNT_BITS, RESERVED_MAX, GapNumbers
from bybit_pipeline.supervisor.ledger.reader import LedgerReader
from bybit_pipeline.supervisor.ledger.store import FILE, LedgerStore
from bybit_pipeline.supervisor.ledger.writer import LedgerWriter
from tests.supervisor.ledger.rows import NOON_MS, RUN, gap_row, interval, open_row

Start = Callable[..., LedgerWriter]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts writers; they stop with the test."""
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    monkeypatch.setattr(module, "FOLLOWED_S", 0.1)
    started: list[LedgerWriter] = []

    def start(**options: Any) -> LedgerWriter:
        writer = LedgerWriter(tmp_path, RUN, LedgerConfig(), SystemClock(), **options)
        started.append(writer)
        return writer

    yield start
    for writer in started:
        writer.close(within_s=5)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "timeout"
        threading.Event().wait(0.01)


def ids(directory: Path) -> list[int]:
    with LedgerReader(directory) as reader:
        return [row.gap_id for row in reader.gaps()]


def test_rows_are_durable_within_a_second(start: Start, tmp_path: Path) -> None:
    writer = start()
    assert writer.start(wait_s=5) is not None
    writer.put_gap(gap_row(1))
    began = time.monotonic()
    until(lambda: ids(tmp_path) == [1])

    assert time.monotonic() - began < 1


def test_everything_is_written_at_the_end(start: Start, tmp_path: Path) -> None:
    writer = start()
    writer.start(wait_s=5)
    writer.put_gap(gap_row(1))
    writer.put_followed(interval(NOON_MS, NOON_MS + 7))

    writer.close(within_s=5)

    assert [1] == ids(tmp_path)
    with LedgerReader(tmp_path) as reader:
        assert [NOON_MS + 7] == [each.end_ms for each in reader.followed()]


class FullDisk(LedgerStore):
    """A store whose disk is full until ``has_room`` is set."""

    has_room = False

    def write(
        self, pipeline: str, gaps: Iterable[Any], followed: Iterable[Any], now_ms: int
    ) -> None:
        if not self.has_room:
            raise sqlite3.OperationalError("database or disk is full")
        super().write(pipeline, gaps, followed, now_ms)


def test_on_a_full_disk_rows_wait_and_are_written_later(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = start(open_store=FullDisk)
    writer.start(wait_s=5)
    writer.put_gap(open_row(1))
    writer.put_gap(gap_row(1))
    writer.put_gap(open_row(1))  # a late report
    writer.put_gap(gap_row(2))
    until(lambda: writer.errors >= 2)
    assert 2 == writer.rows_waiting
    assert [gap_row(1), gap_row(2)] == sorted(writer.waiting(), key=lambda row: row.gap_id)
    assert [] == ids(tmp_path)
    assert "database or disk is full" == writer.error

    monkeypatch.setattr(FullDisk, "has_room", True)

    until(lambda: writer.rows_waiting == 0)
    assert [1, 2] == ids(tmp_path)
    assert ("", 0) == (writer.error, writer.rows_lost)


def test_rows_beyond_the_limit_are_dropped_and_counted(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_MAX", 10)
    writer = start(open_store=FullDisk)
    writer.start(wait_s=5)
    for number in range(1, 31):
        writer.put_gap(gap_row(number))

    assert (10, 20) == (writer.rows_waiting, writer.rows_lost)
    writer.close(within_s=5)
    assert 30 == writer.rows_lost


def test_a_directory_that_cannot_be_used_does_not_stop_anything(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    writer = LedgerWriter(blocked / "state", RUN, LedgerConfig(), SystemClock())

    assert None is writer.start(wait_s=0.2)
    writer.put_gap(gap_row(1))
    until(lambda: writer.errors)
    writer.close(within_s=5)
    assert "Not a directory" in writer.error


def test_a_slow_disk_does_not_block(start: Start) -> None:
    release = threading.Event()

    class Slow(LedgerStore):
        def write(self, *arguments: Any) -> None:
            release.wait(10)
            super().write(*arguments)

    writer = start(open_store=Slow)
    writer.start(wait_s=5)
    began = time.monotonic()
    for number in range(1, 1_001):
        writer.put_gap(gap_row(number))
    assert time.monotonic() - began < 0.5
    release.set()


def test_a_damaged_ledger_is_set_aside(start: Start, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 1_000)
    writer = start()
    assert writer.start(wait_s=5) is not None
    writer.put_gap(gap_row(1))

    until(lambda: ids(tmp_path) == [1])
    assert 1 == len(list(tmp_path.glob(f"{FILE}.damaged-*")))


def test_a_removed_ledger_is_created_again(start: Start, tmp_path: Path) -> None:
    writer = start()
    writer.start(wait_s=5)
    for path in tmp_path.glob(f"{FILE}*"):
        path.unlink()
    writer.put_gap(gap_row(1))

    until(lambda: ids(tmp_path) == [1])


# -- numbers -----------------------------------------------------------------------------------


def test_numbers_of_the_ledger_are_used_once_and_requested_in_time() -> None:
    requests: list[int] = []
    numbers = GapNumbers(lambda: requests.append(1))
    numbers.add(100, 4)

    assert [100 << COUNT_BITS, 101 << COUNT_BITS] == [numbers.next_base(4) for _ in range(2)]
    assert [1] == requests
    numbers.add(300, 4)
    assert [102, 103, 300] == [numbers.next_base(4) >> COUNT_BITS for _ in range(3)]


def test_without_a_ledger_numbers_are_random_and_never_those_of_a_ledger() -> None:
    numbers = GapNumbers(lambda: None)

    found = {numbers.next_base(32) for _ in range(100)}

    assert 100 == len(found)
    assert all(RESERVED_MAX <= base >> COUNT_BITS < 2 * RESERVED_MAX for base in found)
    assert max(found) + (1 << COUNT_BITS) < 2**53
