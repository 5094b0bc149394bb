"""The gap ledger against the truth: one row an outage, with its true ends, whatever died."""

import json
import os
import signal
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.system.conftest import Start
from tests.system.exchange import Exchange
from tests.system.pipeline import Pipeline, kill, until

SYMBOLS = ("BTCUSDT", "ETHUSDT")
STREAMS = {"orderbook": "book", "trades": "trades"}
EXACT_MS = 300
"""How exactly the ends of an outage are known."""
Row = dict[str, Any]


@pytest.fixture
def pipeline(start: Start) -> Pipeline:
    """A pipeline that has published every topic with data."""
    pipeline = start("--source", "sim")
    pipeline.wait_ready()
    wait_for_data(pipeline)
    return pipeline


def has_data(kind: str, symbol: str, message: Row) -> bool:
    """A condition: numbers that follow the exchange."""
    return (
        (message["kind"], message.get("symbol")) == (kind, symbol)
        and message["state"] in ("live", "warming")
        and message["exchange_ts_ms"] is not None
    )


def wait_for_data(pipeline: Pipeline, *, after_ms: int = 0) -> dict[tuple[str, str], Row]:
    """The first message with data after a time, by stream and symbol."""
    conditions = {
        (STREAMS[kind], symbol): partial(has_data, kind, symbol)
        for kind in STREAMS
        for symbol in SYMBOLS
    }
    found = pipeline.first_of_each(
        *[
            lambda message, is_wanted=is_wanted: (
                is_wanted(message) and message["exchange_ts_ms"] > after_ms
            )
            for is_wanted in conditions.values()
        ]
    )
    return dict(zip(conditions, found, strict=True))


def last_before(pipeline: Pipeline) -> dict[tuple[str, str], int]:
    """The exchange time of the last message with data that has arrived, by stream and symbol."""
    times: dict[tuple[str, str], int] = {}
    for message in pipeline.messages(0.3):
        for kind in STREAMS:
            for symbol in SYMBOLS:
                if has_data(kind, symbol, message):
                    times[STREAMS[kind], symbol] = message["exchange_ts_ms"]
    return times


def rows(pipeline: Pipeline, *options: str) -> list[Row]:
    done = pipeline.command("gaps", "--json", *options)
    assert 0 == done.returncode, done.stderr
    found: list[Row] = json.loads(done.stdout)
    return found


def outages(pipeline: Pipeline, *reasons: str) -> dict[tuple[str, str], Row]:
    """The gaps with these reasons, of which every topic has at most one."""
    found = [row for row in rows(pipeline) if row["reason"] in reasons]
    by_topic = {(row["stream"], row["symbol"]): row for row in found}
    assert len(by_topic) == len(found), f"two rows for one outage: {found}"
    return by_topic


def closed(pipeline: Pipeline, *reasons: str, topics: int) -> dict[tuple[str, str], Row]:
    """Those gaps, once all topics have one and all are closed."""

    def complete() -> dict[tuple[str, str], Row] | None:
        found = outages(pipeline, *reasons)
        is_closed = all(row["duration_s"] is not None for row in found.values())
        return found if len(found) == topics and is_closed else None

    found: dict[tuple[str, str], Row] = until(complete, f"{topics} closed gaps")
    return found


def judge(row: Row, *, start_ms: int, end_ms: int) -> None:
    """Compare a gap with the truth."""
    assert abs(row["start_ms"] - start_ms) <= EXACT_MS, (row, start_ms)
    assert abs(row["end_ms"] - end_ms) <= EXACT_MS, (row, end_ms)
    assert row["duration_s"] == pytest.approx((row["end_ms"] - row["start_ms"]) / 1_000, abs=0.3)
    assert (None, False) == (row["repaired_by"], row["complete"])


def newest_ms(pipeline: Pipeline, kind: str) -> int:
    """The exchange time of the newest message with data that waits on the socket."""
    newest = 0
    while pipeline.socket.poll(0):
        for message in pipeline.messages(0.01):
            if any(has_data(kind, symbol, message) for symbol in SYMBOLS):
                newest = max(newest, message["exchange_ts_ms"])
            if not pipeline.socket.poll(0):
                break
    return newest


@pytest.mark.parametrize(
    ("process", "kind"), [("orderbook-0", "orderbook"), ("trades-0", "trades")]
)
@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGKILL, "process_down"), (signal.SIGSTOP, "process_silent")]
)
def test_a_dead_worker_is_one_row_per_topic(
    pipeline: Pipeline, process: str, kind: str, number: signal.Signals, reason: str
) -> None:
    pid = pipeline.pid(process)
    before_ms = newest_ms(pipeline, kind)
    os.kill(pid, number)
    before_ms = max(before_ms, last_of(pipeline, kind, process))
    until(lambda: pipeline.pid(process) not in (0, pid), "a successor", 15)
    after = wait_for_data(pipeline, after_ms=before_ms + 400)

    found = closed(pipeline, reason, topics=len(SYMBOLS))

    assert {(STREAMS[kind], symbol) for symbol in SYMBOLS} == found.keys()
    for topic, row in found.items():
        judge(row, start_ms=before_ms, end_ms=after[topic]["exchange_ts_ms"])
    assert not [row for row in rows(pipeline) if row["reason"] == "starting" and row["start_ms"]]
    ids = [row["gap_id"] for row in rows(pipeline)]
    assert len(set(ids)) == len(ids)


def last_of(pipeline: Pipeline, kind: str, process: str) -> int:
    """The exchange time of the last message with data of a process that publishes no more."""
    newest = 0
    while pipeline.socket.poll(300):
        for message in pipeline.messages(0.3):
            if message.get("process") == process and any(
                has_data(kind, symbol, message) for symbol in SYMBOLS
            ):
                newest = max(newest, message["exchange_ts_ms"])
            if message["kind"] == kind and message["state"] == "stale":
                return newest
    return newest


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGKILL, "process_down"), (signal.SIGSTOP, "process_silent")]
)
def test_a_dead_connector_is_one_row_per_topic(
    pipeline: Pipeline, number: signal.Signals, reason: str
) -> None:
    before_ms = max(newest_ms(pipeline, "orderbook"), 1)
    os.kill(pipeline.pid("connector-linear-0"), number)
    before_ms = max(before_ms, last_of(pipeline, "orderbook", "orderbook-0"))
    after = wait_for_data(pipeline, after_ms=before_ms + 400)

    found = closed(pipeline, reason, topics=4)

    for (stream, symbol), row in found.items():
        if stream == "book":
            judge(row, start_ms=before_ms, end_ms=after[stream, symbol]["exchange_ts_ms"])
    assert {reason, "starting"} >= {row["reason"] for row in rows(pipeline)}


def stop(pipeline: Pipeline) -> None:
    pipeline.stop()


def kill_supervisor(pipeline: Pipeline) -> None:
    """Kill the supervisor alone: its children see that and end."""
    children = psutil.Process(pipeline.process.pid).children(recursive=True)
    kill(pipeline.process.pid)
    pipeline.process.wait()
    assert not psutil.wait_procs(children, timeout=10)[1]
    (pipeline.run_dir / "endpoints.json").unlink()  # of the dead one


def kill_all(pipeline: Pipeline) -> None:
    """Kill everything at once."""
    supervisor = psutil.Process(pipeline.process.pid)
    everything = [supervisor, *supervisor.children(recursive=True)]
    for process in everything:
        process.kill()
    pipeline.process.wait()
    assert not psutil.wait_procs(everything[1:], timeout=10)[1]
    (pipeline.run_dir / "endpoints.json").unlink()


@pytest.mark.parametrize("end", [stop, kill_supervisor, kill_all])
def test_the_time_between_two_runs_is_one_row_per_topic(
    start: Start, end: Callable[[Pipeline], None]
) -> None:
    exchange = Exchange("--symbols", ",".join(SYMBOLS))
    try:
        pipeline = start("--source", "live", "--url", exchange.url)
        pipeline.wait_ready()
        wait_for_data(pipeline)
        until(lambda: followed(pipeline) == 4, "all topics in the ledger")
        untrusted = pipeline.total("supervisor", "untrusted_seconds_total")
        before_ms = newest_ms(pipeline, "orderbook")
        end(pipeline)
        before_ms = max(before_ms, newest_ms(pipeline, "orderbook"))
        assert [] == [row for row in rows(pipeline) if row["reason"] != "starting"]

        pipeline.restart()
        pipeline.wait_ready()
        after = wait_for_data(pipeline, after_ms=before_ms + 400)

        found = closed(pipeline, "stopped", topics=4)
        for (stream, symbol), row in found.items():
            if stream == "book":
                judge(row, start_ms=before_ms, end_ms=after[stream, symbol]["exchange_ts_ms"])
        assert {"starting", "stopped"} >= {row["reason"] for row in rows(pipeline)}
        assert pipeline.total("supervisor", "untrusted_seconds_total") >= untrusted + sum(
            row["duration_s"] - 0.01 for row in found.values()
        )
        pipeline.stop()
        assert found == outages(pipeline, "stopped"), "the same without a running pipeline"
        summary = json.loads(pipeline.command("gaps", "--summary", "--json").stdout)
        assert set(SYMBOLS) == {day["symbol"] for day in summary}
        for day in summary:
            assert 0 < day["book_percent"] < 100
            assert 0 < day["trades_percent"] < 100
    finally:
        exchange.kill()


def followed(pipeline: Pipeline) -> int:
    """The number of topics whose progress is in the ledger."""
    path = Path(pipeline.env["XDG_STATE_HOME"]) / "bybit-pipeline" / "gaps.db"
    if not path.exists():
        return 0
    connection = sqlite3.connect(path)
    try:
        (count,) = connection.execute("SELECT count(*) FROM followed").fetchone()
        return int(count)
    finally:
        connection.close()


def test_an_unsubscribed_symbol_is_not_missed(pipeline: Pipeline) -> None:
    assert 0 == pipeline.command("unsubscribe", "ETHUSDT").returncode
    kill(pipeline.pid("orderbook-0"))
    until(lambda: outages(pipeline, "process_down"), "the gap")
    assert {("book", "BTCUSDT")} == outages(pipeline, "process_down").keys()


def test_two_pipelines_share_a_configured_directory(start: Start, tmp_path: Path) -> None:
    config = f'state_dir = "{tmp_path}/shared"\n[[market]]\nsymbols = ["BTCUSDT"]\n'
    both = [start("--source", "sim", config=config) for _ in range(2)]
    for pipeline in both:
        pipeline.wait_ready()
        pipeline.first(partial(has_data, "orderbook", "BTCUSDT"))
        kill(pipeline.pid("orderbook-0"))

    def names() -> set[str]:
        found = [row for row in rows(both[0]) if row["reason"] == "process_down"]
        assert len({row["gap_id"] for row in found}) == len(found)
        return {row["pipeline"] for row in found}

    until(lambda: names() == {str(pipeline.run_dir) for pipeline in both}, "the gaps of both")


def test_a_ledger_that_cannot_be_written_stops_nothing(start: Start, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    pipeline = start("--source", "sim", config=f'state_dir = "{blocked}/state"\n')
    pipeline.wait_ready()
    wait_for_data(pipeline)

    kill(pipeline.pid("orderbook-0"))

    until(lambda: outages(pipeline, "process_down"), "the gap, from memory")
    assert pipeline.total("supervisor", "ledger_rows_waiting") >= 2
    blocked.unlink()
    until(lambda: pipeline.total("supervisor", "ledger_rows_waiting") == 0, "rows written")
    pipeline.stop()
