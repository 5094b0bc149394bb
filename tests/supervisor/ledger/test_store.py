"""The file of the ledger: what is written is found again, by id and by time, also after a crash."""

import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from bybit_pipeline.supervisor.ledger.reader import LedgerError, LedgerReader
from bybit_pipeline.supervisor.ledger.rows import TopicKey
from bybit_pipeline.supervisor.ledger.schema import MIGRATIONS, NewerLedgerError, migrate
from bybit_pipeline.supervisor.ledger.store import FILE, LedgerStore, set_aside
from tests.supervisor.ledger.rows import DAY_MS, NOON_MS, RUN, gap_row, interval, open_row

NOW_MS = NOON_MS + DAY_MS
HOUR_MS = 3_600_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LedgerStore]:
    store = LedgerStore(tmp_path / "state")
    yield store
    store.close()


def found(store: LedgerStore, *span: int, **wanted: object) -> list[int]:
    """The ids of the gaps that a reader finds."""
    with LedgerReader(store.path.parent) as reader:
        return [row.gap_id for row in reader.gaps(*span, **wanted)]  # type: ignore[arg-type]


def test_a_gap_is_read_as_it_was_written(store: LedgerStore) -> None:
    full = gap_row(
        7,
        opened_ts_ns=5,
        closed_ts_ns=6,
        update_id_before=1,
        update_id_after=2,
        received_update_id=3,
        sequence_before=4,
        sequence_after=5,
        trade_id_before="a",
        trade_id_after="b",
        repaired_by="rest",
        complete=True,
    )
    store.write(RUN, [full], [], NOW_MS)

    with LedgerReader(store.path.parent) as reader:
        assert [full] == list(reader.gaps())


def test_a_repeated_report_changes_nothing(store: LedgerStore) -> None:
    opened = open_row()
    closed = replace(opened, end_ms=NOON_MS + 1_500, duration_s=1.5)
    for row in (opened, closed, closed, opened):
        store.write(RUN, [row], [], NOW_MS)

    with LedgerReader(store.path.parent) as reader:
        assert [closed] == list(reader.gaps())
    key = TopicKey("book", "linear", "BTCUSDT")
    assert {key: 1.5} == store.load(RUN, numbers=1, recent=9).untrusted_s


def test_gaps_that_overlap_an_interval_are_found_oldest_first(store: LedgerStore) -> None:
    rows = [
        gap_row(1, NOON_MS - HOUR_MS),
        gap_row(2, NOON_MS - 500),
        gap_row(3, NOON_MS + 500),
        gap_row(4, NOON_MS + 9_000),
        gap_row(5, NOON_MS - DAY_MS, end_ms=NOON_MS + 200, duration_s=86_400.2),
        open_row(6, NOON_MS - 2 * DAY_MS),
        gap_row(7, NOON_MS + 600, symbol="ETHUSDT"),
    ]
    store.write(RUN, rows, [], NOW_MS)

    assert [6, 5, 2, 3, 7] == found(store, NOON_MS, NOON_MS + 1_000)
    assert [7] == found(store, NOON_MS, symbol="ETHUSDT")
    assert [3, 7, 4] == found(store, newest=3)
    assert [6, 5, 1, 2, 3, 7, 4] == found(store)


def test_a_gap_without_exchange_times_is_found_by_our_clock(store: LedgerStore) -> None:
    store.write(RUN, [gap_row(1, None, reason="starting")], [], NOW_MS)

    assert [1] == found(store, NOW_MS - 1, NOW_MS + 1)
    assert [] == found(store, NOW_MS + 1)


def test_a_starting_pipeline_continues_its_own_rows_and_gets_new_numbers(tmp_path: Path) -> None:
    first = LedgerStore(tmp_path)
    numbers = first.load(RUN, numbers=10, recent=9).first_number
    followed = interval(NOON_MS, NOON_MS + 5)
    first.write(RUN, [open_row(1), open_row(2, pipeline="/other")], [followed], NOW_MS)
    first.close()

    again = LedgerStore(tmp_path)
    state = again.load(RUN, numbers=10, recent=9)
    again.close()

    assert numbers + 10 == state.first_number
    assert [open_row(1)] == state.open_gaps
    assert [followed] == state.followed
    assert [open_row(1)] == state.recent


def test_a_followed_interval_moves_and_ends(store: LedgerStore) -> None:
    store.write(RUN, [], [interval(NOON_MS, NOON_MS)], NOW_MS)
    ended = interval(NOON_MS, NOON_MS + 900, update_id=4, is_open=False)
    store.write(RUN, [], [ended], NOW_MS)

    assert [] == store.load(RUN, numbers=1, recent=9).followed
    with LedgerReader(store.path.parent) as reader:
        assert [ended] == reader.followed()


def test_rows_survive_a_kill(tmp_path: Path) -> None:
    code = """
        import os, sys
        from bybit_pipeline.supervisor.ledger.store import LedgerStore
        from tests.supervisor.ledger.rows import RUN, gap_row
        LedgerStore(sys.argv[1]).write(RUN, [gap_row(3)], [], 1)
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=False, timeout=30
    )
    assert -9 == done.returncode

    with LedgerReader(tmp_path) as reader:
        assert [3] == [row.gap_id for row in reader.gaps()]


def test_two_pipelines_write_the_same_file(tmp_path: Path) -> None:
    one, two = LedgerStore(tmp_path), LedgerStore(tmp_path)
    numbers = {store.reserve(10) for store in (one, two, one)}
    one.write(RUN, [gap_row(1)], [], NOW_MS)
    two.write("/other", [gap_row(2, pipeline="/other")], [], NOW_MS)

    assert 3 == len(numbers)
    assert [1, 2] == found(one)
    one.close()
    two.close()


def test_old_gaps_are_deleted_and_totals_stay(store: LedgerStore) -> None:
    rows = [gap_row(1, NOON_MS - 9 * DAY_MS), open_row(2, NOON_MS - 9 * DAY_MS), gap_row(3)]
    store.write(RUN, rows, [interval(1, 2, is_open=False), interval(3, 4)], NOW_MS)

    assert 1 == store.prune(NOW_MS, keep_days=5, bytes_max=1e9)

    assert [2, 3] == found(store)
    state = store.load(RUN, numbers=1, recent=9)
    assert [2.0] == list(state.untrusted_s.values())
    assert [interval(3, 4)] == state.followed


def test_a_ledger_that_is_too_large_loses_its_oldest_gaps(store: LedgerStore) -> None:
    store.write(RUN, [gap_row(n, NOON_MS + n) for n in range(1, 12_001)], [], NOW_MS)
    bytes_max = store.used_bytes() // 2

    while store.prune(NOW_MS, keep_days=999, bytes_max=bytes_max):
        pass

    assert store.used_bytes() <= bytes_max
    left = found(store)
    assert 12_000 == left[-1]
    assert list(range(left[0], 12_001)) == left
    assert left[0] > 1


def test_a_full_disk_keeps_what_was_written(tmp_path: Path) -> None:
    LedgerStore(tmp_path).close()
    pages = LedgerStore(tmp_path, pages_max=40)
    written = 0

    def fill() -> None:
        nonlocal written
        while True:
            pages.write(RUN, [gap_row(written + n) for n in range(1, 101)], [], NOW_MS)
            written += 100

    with pytest.raises(sqlite3.OperationalError, match="full"):
        fill()
    assert list(range(1, written + 1)) == found(pages)
    pages.close()


# -- versions ----------------------------------------------------------------------------------


def test_a_migration_keeps_the_rows(tmp_path: Path) -> None:
    store = LedgerStore(tmp_path)
    store.write(RUN, [gap_row(1)], [], NOW_MS)
    store.close()
    connection = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    step = "ALTER TABLE gap ADD COLUMN note TEXT;\nUPDATE gap SET note = 'old';\n"

    migrate(connection, [*MIGRATIONS, step])

    assert [(1, "old")] == connection.execute("SELECT gap_id, note FROM gap").fetchall()
    assert (len(MIGRATIONS) + 1,) == connection.execute("PRAGMA user_version").fetchone()
    connection.close()


def test_a_failed_step_leaves_the_version_before_it(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, ["CREATE TABLE a (b);", "CREATE TABLE c (d);\nCREATE TABLE a (b);"])

    assert (1,) == connection.execute("PRAGMA user_version").fetchone()
    assert [("a",)] == connection.execute("SELECT name FROM sqlite_master").fetchall()
    connection.close()


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    LedgerStore(tmp_path).close()
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(NewerLedgerError, match="newer version"):
        LedgerStore(tmp_path)
    with pytest.raises(NewerLedgerError, match="newer version"):
        LedgerReader(tmp_path)


# -- readers -----------------------------------------------------------------------------------


def test_a_missing_ledger_is_empty(tmp_path: Path) -> None:
    with LedgerReader(tmp_path / "none") as reader:
        assert [] == list(reader.gaps())
        assert [] == reader.followed()


def test_a_reader_says_that_a_file_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 1_000)

    with pytest.raises(LedgerError, match=r"gaps\.db: cannot be read: file is not a database"):
        LedgerReader(tmp_path)


def test_a_damaged_ledger_is_kept_under_another_name(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 1_000)

    damaged = set_aside(tmp_path)

    assert b"no database" in damaged.read_bytes()
    LedgerStore(tmp_path).close()


def test_queries_of_many_rows_read_only_those_around_the_interval(store: LedgerStore) -> None:
    rows = (gap_row(n, NOON_MS + n * 1_000, symbol=f"S{n % 100}USDT") for n in range(1, 100_001))
    store.write(RUN, rows, [], NOW_MS)
    since_ms = NOON_MS + 99_000 * 1_000

    began = time.perf_counter()
    hits = found(store, since_ms, symbol="S7USDT")
    assert time.perf_counter() - began < 0.1

    assert [n for n in range(99_000, 100_001) if n % 100 == 7] == hits
