"""Queries of a gap ledger with ten million rows: each must take less than half a second."""

import argparse
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bybit_pipeline.supervisor.ledger.rows import Followed
from bybit_pipeline.supervisor.ledger.store import DAY_MS, LedgerStore
from bybit_pipeline.supervisor.ledger.view import LedgerView

LIMIT_S = 0.5
SYMBOLS = 600
DAYS = 400
RUN = "/run/bybit-pipeline"
ROWS = f"""
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count),
timed AS (SELECT n, CAST(:now - (:count - n) * :step AS INTEGER) AS ms FROM numbers)
INSERT INTO gap (gap_id, pipeline, source, network, stream, category, symbol, reason, start_ms,
    end_ms, duration_s, update_id_before, update_id_after, complete, from_ms, to_ms, is_long)
SELECT n, '{RUN}', 'live', 'mainnet', iif(n % 2, 'book', 'trades'), 'linear',
    'S' || (n / 2 % {SYMBOLS}) || 'USDT', 'disconnected', ms, ms + 1000, 1.0, n, n + 1, 0, ms,
    ms + 1000, 0 FROM timed
"""


def main() -> int:
    """Fill a ledger, measure, print; the exit code is 1 if a query was too slow."""
    parser = argparse.ArgumentParser(prog="scripts/bench_ledger", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="gaps (default 10,000,000)")
    parser.add_argument("--dir", help="directory to use and keep; filled if it is empty")
    options = parser.parse_args()
    directory = Path(options.dir or tempfile.mkdtemp(prefix="ledger-"))
    now_ms = int(time.time() * 1_000)
    try:
        fill(directory, options.rows, now_ms)
        return measure(directory, now_ms)
    finally:
        if not options.dir:
            shutil.rmtree(directory)


def fill(directory: Path, count: int, now_ms: int) -> None:
    """Write gaps of a second, spread evenly over the days and symbols."""
    store = LedgerStore(directory)
    store.write(RUN, (), followed(now_ms), now_ms)
    store.close()
    with LedgerView(directory) as view:
        if next(view.gaps(newest=1), None) is not None:
            return
    began = time.perf_counter()
    connection = sqlite3.connect(store.path)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(ROWS, {"count": count, "now": now_ms, "step": DAYS * DAY_MS / count})
    connection.commit()
    connection.close()
    size_gb = sum(path.stat().st_size for path in directory.iterdir()) / 1e9
    print(f"{count:,} rows, {size_gb:.1f} GB, written in {time.perf_counter() - began:.0f} s")


def followed(now_ms: int) -> Iterator[Followed]:
    """All symbols, since the first day."""
    for number in range(SYMBOLS):
        yield Followed(
            pipeline=RUN,
            source="live",
            network="mainnet",
            stream="book",
            category="linear",
            symbol=f"S{number}USDT",
            start_ms=now_ms - DAYS * DAY_MS,
            end_ms=now_ms,
        )


def measure(directory: Path, now_ms: int) -> int:
    """Time the queries, each with a connection of its own."""
    hour_ms = DAY_MS // 24
    middle_ms = now_ms - DAYS // 2 * DAY_MS
    queries: dict[str, Callable[[LedgerView], object]] = {
        "--since 24h --symbol": lambda v: list(v.gaps(now_ms - DAY_MS, symbol="S7USDT")),
        "--since 1h": lambda v: list(v.gaps(now_ms - hour_ms)),
        "an hour in the middle": lambda v: list(v.gaps(middle_ms, middle_ms + hour_ms)),
        "--symbol, all days": lambda v: list(v.gaps(symbol="S7USDT")),
        "the newest 1,000": lambda v: list(v.gaps(newest=1_000)),
        "--summary --symbol": lambda v: v.summary(now_ms, symbol="S7USDT"),
        "--summary --since 1d": lambda v: v.summary(now_ms, now_ms - DAY_MS),
    }
    slow = 0
    for name, query in queries.items():
        began = time.perf_counter()
        with LedgerView(directory) as view:
            found = query(view)
        took_s = time.perf_counter() - began
        count = len(found) if isinstance(found, list) else 0
        slow += took_s > LIMIT_S
        print(f"{name:<24} {count:>8,} rows {took_s * 1_000:>8.1f} ms")
    return 1 if slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
