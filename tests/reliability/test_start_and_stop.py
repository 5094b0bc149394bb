"""Starting and stopping with missing resources, and with signals at bad moments."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.system.conftest import Start
from tests.system.pipeline import COMMAND, until

# -- what the machine lacks ------------------------------------------------------------------------


def up(directory: Path, *arguments: str, limits: Callable[[], None] | None = None) -> Any:
    """Run ``up`` with the simulator until it ends, for six seconds at most."""
    try:
        return subprocess.run(
            [
                *COMMAND,
                "up",
                "--source",
                "sim",
                "--port",
                "0",
                "--metrics",
                "tcp://127.0.0.1:0",
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=6,
            check=False,
            preexec_fn=limits,
            cwd=directory,
        )
    except subprocess.TimeoutExpired as running:
        return running


def limit_files(number: int) -> Callable[[], None]:
    """Limit the number of file descriptors."""
    import resource

    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


def no_space() -> None:
    """Make every write to a file fail, as on a full disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@pytest.mark.parametrize(
    ("arguments", "limits", "code", "words"),
    [
        (("--run-dir", "/proc/nowhere/run"), None, 73, "run_dir"),
        (("--run-dir", "{here}/" + "x" * 90), None, 78, "too long"),
        (("--run-dir", "{here}/run"), no_space, 73, "run_dir"),
        (("--run-dir", "{here}/run"), limit_files(12), 1, "open files"),
        (("--run-dir", "{here}/run"), limit_files(100), 1, "open files"),
    ],
    ids=["read-only", "path too long", "disk full", "12 descriptors", "100 descriptors"],
)
def test_a_missing_resource_gives_one_clear_line(
    tmp_path: Path, arguments: tuple[str, ...], limits: Any, code: int, words: str
) -> None:
    done = up(tmp_path, *(text.format(here=tmp_path) for text in arguments), limits=limits)

    assert isinstance(done, subprocess.CompletedProcess), "it ends by itself"
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1, done.stderr
    assert words in said[0]
    assert done.returncode == code


# -- stopping --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["typer", "bybit_pipeline.supervisor.cli.up", "zmq"])
def test_a_signal_while_modules_are_loaded_ends_it_with_0(
    tmp_path: Path, module: str, number: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "def watch(event, arguments):\n"
        f"    if event == 'import' and arguments[0] == '{module}':\n"
        f"        os.kill(os.getpid(), {number:d})\n"
        "sys.addaudithook(watch)\n"
    )

    done = subprocess.run(
        [*COMMAND, "up", "--source", "sim", "--run-dir", str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("after_ms", [0, 80, 200, 350, 600, 1000])
def test_a_signal_at_any_moment_of_the_start_ends_it(start: Start, after_ms: int) -> None:
    pipeline = start("--source", "sim")
    if after_ms:
        until(lambda: (pipeline.run_dir / "lock").exists(), "the lock file")
    began = time.monotonic()
    until(lambda: (time.monotonic() - began) * 1000 >= after_ms, "the moment")
    children = psutil.Process(pipeline.process.pid).children(recursive=True)

    pipeline.process.send_signal(signal.SIGTERM)

    code = pipeline.process.wait(6)
    if after_ms:  # before that, Python itself is still starting and has the signal's default
        assert code == 0, pipeline.log_tail()
    assert time.monotonic() - began < 5 + after_ms / 1000
    assert not [child for child in children if child.is_running()]
    assert not pipeline.run_dir.exists() or not list(pipeline.run_dir.iterdir())
