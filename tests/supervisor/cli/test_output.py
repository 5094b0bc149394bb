"""Standard output that is full, closed or no longer read is no bug."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

RUN = [
    sys.executable,
    "-c",
    "import sys; from bybit_pipeline.supervisor.cli.main import main; sys.exit(main())",
]


def shell(script: str) -> "subprocess.CompletedProcess[str]":
    """Run a shell script in which ``run`` is the command line."""
    program = f"run() {{ {shlex.join(RUN)}" + ' "$@"; }; ' + script
    return subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize("command", ["check", "check --json", "config", "--help", "--version"])
def test_a_full_disk_is_one_line_and_1(command: str) -> None:
    done = shell(f"run {command} > /dev/full")

    assert (1, "stdout: cannot be written: no space left on the disk\n") == (
        done.returncode,
        done.stderr,
    )


@pytest.mark.parametrize("command", ["check --json", "--version"])
def test_a_closed_stdout_is_one_line_and_1(command: str) -> None:
    done = shell(f"run {command} >&-")

    assert (1, "stdout: cannot be written: it is closed\n") == (done.returncode, done.stderr)


@pytest.mark.parametrize("command", ["check", "config"])
def test_a_reader_that_stops_reading_ends_the_command_quietly(command: str) -> None:
    done = shell(f"run {command} | head -1; echo ${{PIPESTATUS[0]}}")

    assert "" == done.stderr
    assert "0" == done.stdout.splitlines()[-1]


@pytest.mark.parametrize("stream", ["2>&-", "2>/dev/full"])
def test_without_stderr_the_exit_code_remains(stream: str) -> None:
    assert 78 == shell(f"run check --depth 7 {stream}").returncode


def test_pages_that_other_machines_can_read_are_warned_about(tmp_path: Path) -> None:
    done = shell(
        f"cd {tmp_path}; printf '[prometheus]\\nhost = \"0.0.0.0\"\\n' > a.toml;"
        " run check --config a.toml --json"
    )

    assert 0 == done.returncode
    assert done.stderr.startswith("warning: a.toml:2: prometheus.host: 0.0.0.0 can be reached")
    assert 1 == len(done.stderr.splitlines())
    assert done.stdout.startswith("{")
