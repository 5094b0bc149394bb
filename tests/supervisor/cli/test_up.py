"""``up`` as a person sees it: real children, on a terminal and without one."""

import fcntl
import json
import os
import pty
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
        while process.poll() is None:
            if select.select([ours], [], [], 0.1)[0]:
                os.read(ours, 65536)
    os.close(theirs)
    os.close(ours)

    assert 0 == process.returncode
    assert "simulated, not real prices" in text
    assert '"event"' not in text
    assert {"supervisor", "connector-linear-0"} <= {line["process"] for line in log}
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
    """Make a terminal as large as this."""
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
    assert text.rindex("\x1b[?25h") > text.rfind("\x1b[?25l")  # the cursor is to be seen
    assert not run_dir.exists()


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
