"""``up`` as a person sees it: real children, on a terminal and without one."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

RUN = [sys.executable, "-c", "import sys; from supervisor.cli import main; sys.exit(main())"]
DEADLINE_S = 20.0


def up(run_dir: Path) -> list[str]:
    """A pipeline of simulated data on ports that the operating system chooses."""
    return [*RUN, "up", "--source", "sim", "--symbols", "BTCUSDT", "--run-dir", str(run_dir),
            "--port", "0", "--metrics", "tcp://127.0.0.1:0"]  # fmt: skip


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
        up(run_dir), stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "COLUMNS": "160", "LINES": "50", "TERM": "xterm"},
    ) as process:  # fmt: skip
        text = read_until(ours, "linear:BTCUSDT")
        log = [json.loads(line) for line in (run_dir / "pipeline.log").read_text().splitlines()]
        process.send_signal(signal.SIGINT)
        while process.poll() is None:
            if select.select([ours], [], [], 0.1)[0]:
                os.read(ours, 65536)
    os.close(theirs)
    os.close(ours)

    assert 0 == process.returncode
    assert "made-up numbers, not the market" in text
    assert '"event"' not in text
    assert {"supervisor", "connector-linear-0"} <= {line["process"] for line in log}
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
            if "everything is up" in line:
                process.send_signal(signal.SIGTERM)
        assert "" == process.stdout.read()

    assert 0 == process.returncode
    assert "stopped" == [json.loads(line) for line in lines][-1]["event"]
    assert not run_dir.exists()
