"""``up`` with real children, on a terminal and without one."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from bybit_pipeline.shared.runtime.terminal import has_screen
from bybit_pipeline.supervisor.cli.up import Totals

RUN = [
    sys.executable,
    "-c",
    "import sys; from bybit_pipeline.supervisor.cli.main import main; sys.exit(main())",
]
DEADLINE_S = 20.0


def up(run_dir: Path) -> list[str]:
    """A pipeline of simulated data on ports that the operating system chooses."""
    return [
        *RUN,
        "up",
        "--source",
        "sim",
        "--symbols",
        "BTCUSDT",
        "--run-dir",
        str(run_dir),
        "--port",
        "0",
        "--metrics",
        "tcp://127.0.0.1:0",
    ]


def process_entry(name: str, pid: int, **counts: int) -> dict[str, Any]:
    """A process in the status of a pipeline."""
    return {"process": name, "role": name.split("-")[0], "pid": pid, "counts": counts}


def test_the_totals_of_a_run_include_processes_that_were_restarted() -> None:
    totals = Totals()
    for connector, worker in (
        (process_entry("connector-linear-0", 1), process_entry("orderbook-0", 2)),
        (
            process_entry("connector-linear-0", 1, trade_messages=5, book_messages=10),
            process_entry("orderbook-0", 2, messages=10, gaps=1),
        ),
        (
            process_entry("connector-linear-0", 1, trade_messages=10, book_messages=20),
            process_entry("orderbook-0", 3, messages=2, gaps=2),
        ),
        (process_entry("connector-linear-0", 1), process_entry("orderbook-0", 3)),  # ended
    ):
        totals.take({"processes": [connector, worker]})

    assert (30, 3) == (totals.messages, totals.gaps)


def read_until(terminal: int, expected: str) -> str:
    """Read a terminal until some text has appeared."""
    text, deadline = "", time.monotonic() + DEADLINE_S
    while expected not in text:
        assert time.monotonic() < deadline, text
        if select.select([terminal], [], [], 0.2)[0]:
            text += os.read(terminal, 65536).decode(errors="replace")
    return text


def test_a_terminal_shows_the_markets_and_the_log_goes_to_a_file(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        up(run_dir),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "160", "LINES": "50", "TERM": "xterm"},
    ) as process:
        text = read_until(ours, "linear:BTCUSDT")
        log = [json.loads(line) for line in (run_dir / "pipeline.log").read_text().splitlines()]
        process.send_signal(signal.SIGINT)
        end = read_rest(ours, process)
    os.close(theirs)
    os.close(ours)

    assert 0 == process.returncode
    assert "simulated, not real prices" in text
    assert '"event"' not in text
    assert {"supervisor", "connector-linear-0"} <= {line["process"] for line in log}
    summary = re.search(r"ran for 0:00:\d\d: ([\d,]+) messages, (\d+) gaps?; log: (.*)\r\n", end)
    assert summary is not None, end
    assert f"{run_dir}/pipeline.log" == summary[3]
    assert ["pipeline.log"] == [path.name for path in run_dir.iterdir()]
    assert '"stopped"' in (run_dir / "pipeline.log").read_text()


@pytest.mark.parametrize(
    ("term", "is_drawn_on"), [("xterm", True), ("dumb", False), ("", False), (None, False)]
)
def test_a_view_needs_a_terminal_that_can_move_its_cursor(
    monkeypatch: pytest.MonkeyPatch, term: str | None, is_drawn_on: bool
) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    with os.fdopen(theirs, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert is_drawn_on == has_screen()
    os.close(ours)


def test_a_terminal_that_cannot_be_drawn_on_shows_the_log(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        up(run_dir),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "dumb"},
    ) as process:
        text = read_until(ours, "pipeline up")
        process.send_signal(signal.SIGINT)
        text += read_rest(ours, process)
    os.close(theirs)
    os.close(ours)

    assert 0 == process.returncode
    assert "\x1b" not in text  # neither a screen of its own nor colours
    assert re.search(r"ran for 0:00:\d\d: [\d,]+ messages, \d+ gaps?\r\n$", text)
    assert not run_dir.exists()


def read_rest(terminal: int, process: "subprocess.Popen[bytes]") -> str:
    """What a terminal shows until its process has ended."""
    text, is_over = "", False
    while not is_over:
        is_over = process.poll() is not None
        while select.select([terminal], [], [], 0.1)[0]:
            text += os.read(terminal, 65536).decode(errors="replace")
    return text


def set_size(terminal: int, rows: int, columns: int) -> None:
    """Set the size of a terminal."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_q_quits_and_the_terminal_is_as_it_was(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    ours, theirs = pty.openpty()
    set_size(ours, 24, 80)
    before = termios.tcgetattr(theirs)
    env = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    options: dict[str, Any] = {
        "stdin": theirs,
        "stdout": theirs,
        "stderr": theirs,
        "env": {**env, "TERM": "xterm"},
    }
    with subprocess.Popen(up(run_dir), **options) as process:
        read_until(ours, "linear:BTCUSDT")
        assert before != termios.tcgetattr(theirs)
        with subprocess.Popen(
            [*RUN, "watch", "BTCUSDT", "--run-dir", str(run_dir)], **options
        ) as watching:
            read_until(ours, "spread bps")
            set_size(ours, 40, 200)
            read_until(ours, "turnover")  # a column that only a wide terminal has room for
            watching.send_signal(signal.SIGTERM)
            read_rest(ours, watching)
        os.write(ours, b"q")
        text = read_rest(ours, process)
    after = termios.tcgetattr(theirs)
    os.close(theirs)
    os.close(ours)

    assert (0, 0) == (watching.returncode, process.returncode)
    assert before == after
    assert text.rindex("\x1b[?1049l") > text.rindex("bybit-pipeline")
    assert text.rindex("\x1b[?25h") > text.rfind("\x1b[?25l")  # the cursor is visible
    assert text.rindex("ran for") > text.rindex("\x1b[?1049l")
    assert ["pipeline.log"] == [path.name for path in run_dir.iterdir()]


def test_without_a_terminal_there_are_json_lines_on_stderr(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with subprocess.Popen(
        up(run_dir), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "pipeline up" in line:
                process.send_signal(signal.SIGTERM)
        assert "" == process.stdout.read()

    assert 0 == process.returncode
    assert "stopped" == [json.loads(line) for line in lines][-1]["event"]
    assert not run_dir.exists()


INTERRUPTED = """
import os, signal, sys
from bybit_pipeline.supervisor import run_dir
from bybit_pipeline.supervisor.cli.main import main

number, lock = signal.Signals[sys.argv.pop()], run_dir._lock

def interrupted(directory):
    taken = lock(directory)
    os.kill(os.getpid(), number)
    return taken

run_dir._lock = interrupted
sys.exit(main())
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_right_after_the_lock_was_made_leaves_nothing_behind(
    tmp_path: Path, name: str
) -> None:
    run_dir = tmp_path / "run"
    command = [sys.executable, "-c", INTERRUPTED, *up(run_dir)[len(RUN) :], name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    assert not run_dir.exists()
