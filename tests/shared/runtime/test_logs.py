"""A log that cannot be written costs lines, never the process."""

import json
import os
import subprocess
import sys

DEADLINE_S = 20.0

CLOSED = """
import atexit, os, structlog
from bybit_pipeline.shared.runtime import logs
atexit.register(lambda: os.write(1, str(logs.lost_lines()).encode()))
logs.configure("p", "json")
log = structlog.get_logger()
os.close(2)
for n in range(100_000):
    log.info("nobody reads this", n=n)
"""
STALLED = """
import os, sys, threading, warnings, structlog
from bybit_pipeline.shared.runtime import logs
logs.configure("p", "json")
log = structlog.get_logger()
for n in range(10_000):
    log.info("nobody reads this", n=n)
thread = threading.Thread(target=lambda: 1 / 0)  # its traceback goes to sys.stderr
thread.start()
thread.join()
warnings.warn("of a library")
print("at the end", file=sys.stderr, flush=True)
os.write(1, b"alive\\n")
sys.stdin.readline()
log.info("the last line")
"""
BUG = """
import structlog
from bybit_pipeline.shared.runtime import logs
logs.configure("p", "json")
structlog.get_logger().info("before the bug")
raise ValueError("not handled anywhere")
"""


def test_a_process_with_a_closed_log_goes_on_and_counts_the_lost_lines() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLOSED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert int(done.stdout) >= 100_000


def stalled() -> "subprocess.Popen[bytes]":
    """A process that has written more than its log's pipe can hold, and goes on."""
    process = subprocess.Popen(
        [sys.executable, "-c", STALLED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert b"alive\n" == process.stdout.readline()
    return process


def test_a_stalled_log_reader_stops_nothing_that_writes_to_the_log() -> None:
    with stalled() as process:
        process.stdin.close()  # type: ignore[union-attr]
        assert 0 == process.wait(DEADLINE_S)


def test_the_lost_lines_are_reported_in_one_line_when_the_reader_is_back() -> None:
    with stalled() as process:
        assert process.stderr is not None
        lines: list[bytes] = []
        while not lines or b"log lines lost" not in lines[-1]:
            lines.append(process.stderr.readline())
        _, rest = process.communicate(b"\n", timeout=DEADLINE_S)

    report = json.loads(lines[-1])
    assert ("warning", "p") == (report["level"], report["process"])
    events = [json.loads(each) for each in lines[:-1]]
    numbers = [each["n"] for each in events if "n" in each]
    assert sorted(set(numbers)) == numbers
    assert report["lines"] >= 10_000 - len(numbers) > 0
    assert ["the last line"] == [json.loads(each)["event"] for each in rest.splitlines()]


def test_the_last_lines_of_a_crash_are_written() -> None:
    done = subprocess.run([sys.executable, "-c", BUG], capture_output=True, text=True, check=False)

    assert 1 == done.returncode
    assert "before the bug" in done.stderr.splitlines()[0]
    assert "ValueError: not handled anywhere" == done.stderr.splitlines()[-1]


def test_a_signal_that_ends_a_process_at_once_loses_no_earlier_lines() -> None:
    """Lines reach the reader without any help of the process that logged them."""
    code = f"{BUG.rpartition('raise')[0]}\nimport time; time.sleep({DEADLINE_S})"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"before the bug" in process.stderr.readline()
        os.kill(process.pid, 9)
