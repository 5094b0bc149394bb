"""A log or a terminal that nobody reads any more stops nothing but itself."""

import os
import pty
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.system.conftest import Start
from tests.system.exchange import Exchange
from tests.system.pipeline import COMMAND, STOP_S, kill, until

CONNECTOR, WORKER = "connector-linear-0", "orderbook-0"
QUICK = "[connector]\nbackoff_initial_s = 0.1\nbackoff_max_s = 0.2\n"


class LogPipe:
    """The pipe between a pipeline and the reader of its log."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def stall(self) -> None:
        """Fill it, without changing the mode of the descriptor that the pipeline writes to."""
        fill(f"/proc/self/fd/{self.writer}")

    def lines(self) -> Iterator[bytes]:
        """Read the lines that arrive, for up to ten seconds each."""
        data = b""
        while select.select([self.reader], [], [], 10)[0]:
            data += os.read(self.reader, 65536)
            *lines, data = data.split(b"\n")
            yield from lines


def fill(path: str) -> None:
    """Write to a pipe or terminal until it takes no more."""
    filler = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    with suppress(BlockingIOError):
        while True:
            os.write(filler, b"x\n")
    os.close(filler)


@pytest.fixture
def log_pipe() -> Iterator[LogPipe]:
    """A pipe for the log."""
    pipe = LogPipe()
    yield pipe
    os.close(pipe.reader)
    os.close(pipe.writer)


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    """An exchange that may be killed."""
    exchange = Exchange("--symbols", "BTCUSDT")
    yield exchange
    exchange.kill()


def test_a_stalled_log_reader_stops_nothing(
    start: Start, log_pipe: LogPipe, exchange: Exchange
) -> None:
    """Reconnecting, restarting, answering, counting and stopping do not need the log's reader."""
    options = ("--symbols", "BTCUSDT", "--source", "live", "--url", exchange.url)
    pipeline = start(*options, config=QUICK, output=log_pipe.writer)
    pipeline.wait_ready()
    log_pipe.stall()

    exchange.kill()
    pipeline.first(lambda m: m["kind"] == "orderbook" and m["reason"] == "disconnected")
    until(lambda: pipeline.http("/readyz")[0] == 503, "not ready")
    port = exchange.url.rpartition(":")[2].partition("/")[0]
    again = Exchange("--symbols", "BTCUSDT", "--port", port)
    try:
        until(lambda: pipeline.http("/readyz")[0] == 200, "connected again")
        before = pipeline.pid(WORKER)
        kill(before)
        until(lambda: pipeline.pid(WORKER) not in (0, before), "restarted")
        pipeline.wait_ready()
        assert "ready" in pipeline.command("status").stdout
        assert 0 < pipeline.counters("supervisor")["process_resident_memory_bytes"]
        assert 0 < pipeline.counters(CONNECTOR)["process_resident_memory_bytes"]
    finally:
        again.kill()
    assert pipeline.stop(signal.SIGTERM) < STOP_S


def test_lines_that_could_wait_are_written_when_the_reader_is_back(
    start: Start, log_pipe: LogPipe
) -> None:
    options = ("--symbols", "BTCUSDT", "--source", "sim", "--log-format", "json")
    pipeline = start(*options, output=log_pipe.writer)
    pipeline.wait_ready()
    log_pipe.stall()
    before = pipeline.pid(WORKER)
    kill(before)
    until(lambda: pipeline.pid(WORKER) not in (0, before), "restarted")

    for line in log_pipe.lines():
        if b"process ended, restarting" in line:
            break
    else:
        raise AssertionError("the restart is not in the log")
    assert 0 == pipeline.total("supervisor", "log_lines_lost_total")
    assert pipeline.stop() < STOP_S


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stalled_terminal_stops_nothing_and_is_restored_in_the_end(
    start: Start, number: signal.Signals
) -> None:
    ours, theirs = pty.openpty()
    pipeline = start("--symbols", "BTCUSDT", "--source", "sim", output=theirs, on_terminal=True)
    shown = b""
    while b"linear:BTCUSDT" not in shown:
        assert select.select([ours], [], [], 20)[0], shown
        shown += os.read(ours, 65536)
    fill(os.ttyname(theirs))

    pipeline.wait_ready()
    assert "ready    yes" in pipeline.command("status").stdout
    before = pipeline.pid(WORKER)
    kill(before)
    until(lambda: pipeline.pid(WORKER) not in (0, before), "restarted")
    pipeline.process.send_signal(number)
    assert 0 == pipeline.process.wait(STOP_S)

    shown = b""
    while select.select([ours], [], [], 0.2)[0]:
        shown += os.read(ours, 65536)
    assert b"\x1b[?1049l" in shown  # the screen is as it was
    assert b"\x1b[?25h" in shown  # the cursor is visible
    os.close(theirs)
    os.close(ours)


def test_a_watch_on_a_stalled_terminal_ends_on_a_signal(start: Start) -> None:
    pipeline = start("--symbols", "BTCUSDT", "--source", "sim")
    pipeline.wait_ready()
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "watch", "--run-dir", str(pipeline.run_dir)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"},
    ) as watch:
        assert select.select([ours], [], [], 20)[0]
        fill(os.ttyname(theirs))
        watch.send_signal(signal.SIGTERM)
        assert 0 == watch.wait(STOP_S)
    os.close(theirs)
    os.close(ours)
