"""
Every documented command and every Python block runs as it is written.

They run beside one simulated pipeline in the default place of a user. The ports that the pages
name (5556, 9400, 9000) become those of the test, a command that starts a pipeline gets a run
directory and ports of its own, and the exchange is replaced by the simulated one. A command that
does not end by itself is interrupted with Ctrl-C once it has shown that it works.
"""

import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.pages import PLACEHOLDER, ROOT, Block, all_blocks, all_commands
from tests.system.pipeline import COMMAND, Pipeline

DEADLINE_S = 40.0
BIN = Path(sys.executable).parent

CANNOT_RUN = {
    r".*\bscripts/test\b": "would run the tests inside the tests",
    r"scripts/(check|bench|soak|faults|frozen|invariants|fuzz|lock|simulate_faults)\b": (
        "takes minutes"
    ),
    r"scripts/walls CAPTURE": "needs a recording; tests/orderbook/walls runs it",
    r"cd scripts/examples && npm install": "a fixture of tests/examples runs it",
    r"bybit-pipeline --install-completion": "would change the configuration of the shell",
    r"node subscribe.mjs": "tests/examples runs it, where its packages are",
}
"""Patterns of commands that these tests cannot run, and why."""

ENDLESS = {
    r"bybit-pipeline simulate\b": r"READY ws://",
    r"bybit-pipeline tail (?!.*--(count|timeout))": r'"topic":',
    r"python ": r"\d",
}
"""Commands that may not end by themselves, and what they print when they work."""

SERVER = re.compile(r"(scripts/up|bybit-pipeline up)\b")
Evidence = Callable[[str], bool]


@pytest.fixture(scope="module")
def environment(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user whose checkout is set up, with the commands on the PATH."""
    venv = tmp_path_factory.mktemp("venv")
    (venv / "bin").symlink_to(BIN)
    files = [ROOT / "pyproject.toml", ROOT / "requirements" / "run.txt"]
    content = b"".join(path.read_bytes() for path in files)
    stamp = subprocess.run(["cksum"], input=content, capture_output=True, check=True).stdout
    (venv / ".setup-run").write_text(f"{stamp.decode().strip()} {ROOT}")
    return {
        **os.environ,
        "BYBIT_PIPELINE_VENV": str(venv),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture(scope="module")
def started() -> set[str]:
    """The commands that started a pipeline, without their run directories."""
    return set()


@pytest.fixture
def sandboxed(
    pipeline: Pipeline, exchange: str, recording: Path, tmp_path: Path
) -> Callable[[str], str]:
    """Replaces the addresses and places in a command or a program by those of the tests."""
    http = pipeline.endpoints()["http"].removeprefix("http://")

    def replace(text: str) -> str:
        text = text.replace("127.0.0.1:9000", exchange).replace("RECORDING", str(recording))
        text = text.replace("--port 9000", "--port 0")
        if SERVER.match(text):
            return _own_places(text, tmp_path / "run")
        text = text.replace("tcp://127.0.0.1:5556", pipeline.metrics)
        text = text.replace("127.0.0.1:9400", http).replace(". .venv/bin/activate", ":")
        return text.replace(".venv/bin/", f"{BIN}/")

    return replace


def _own_places(command: str, run_dir: Path) -> str:
    """A command that starts a pipeline, with its own places and the simulated exchange."""
    for option in ("--run-dir", "--metrics", "--port"):
        command = re.sub(rf" {option}[ =]\S+", "", command)
    if "--url" not in command:
        command = re.sub(r" --source \w+", "", command)
        command += "" if "--capture" in command else " --source sim"
    return f"{command} --run-dir {run_dir} --metrics tcp://127.0.0.1:0 --port 0"


def is_ready(run_dir: Path) -> bool:
    """Whether the pipeline in this run directory answers that it is ready."""
    path = run_dir / "endpoints.json"
    found = re.search(r'"http": "([^"]+)"', path.read_text()) if path.exists() else None
    if found is None:
        return False
    try:
        with urllib.request.urlopen(f"{found[1]}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False


def run_until(command: list[str], environment: dict[str, str], evidence: Evidence | None) -> str:
    """
    The output of a command until it ends, or until there is evidence that it works.

    It must exit with 0: by itself, or after Ctrl-C once there is evidence.
    """
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    deadline = time.monotonic() + DEADLINE_S
    output = b""
    is_interrupted = False
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                selector.select(0.2)
                part = process.stdout.read()
                output += part or b""
                if part == b"":
                    break
                if evidence is not None and evidence(output.decode(errors="replace")):
                    is_interrupted = True
                    os.killpg(process.pid, signal.SIGINT)
                    break
            else:
                raise AssertionError(f"no evidence within {DEADLINE_S:g} s: {output.decode()}")
        code = process.wait(10)
        output += process.stdout.read() or b""
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()
    text = output.decode(errors="replace")
    # A plain program has no handler for Ctrl-C and ends with a traceback.
    is_plain = is_interrupted and "KeyboardInterrupt" in text
    assert code == 0 or is_plain, f"exit {code}: {text}"
    assert is_plain or "Traceback" not in text, text
    return text


def evidence_for(command: str, tmp_path: Path) -> Evidence | None:
    """How to see that a command works which does not end by itself; None if it ends."""
    if SERVER.match(command):
        return lambda _: is_ready(tmp_path / "run")
    if re.search(r"--(count|timeout|seconds)\b", command):
        return None
    for pattern, shown in ENDLESS.items():
        if re.match(pattern, command):
            return lambda output: re.search(shown, output) is not None
    return None


@pytest.mark.parametrize(
    "command", [pytest.param(command, id=f"{place} {command}") for place, command in all_commands()]
)
def test_command_works(
    command: str,
    pipeline: Pipeline,
    environment: dict[str, str],
    sandboxed: Callable[[str], str],
    started: set[str],
    tmp_path: Path,
) -> None:
    """A reader who types the command sees it work."""
    for pattern, reason in CANNOT_RUN.items():
        if re.match(pattern, command):
            pytest.skip(reason)
    if command.startswith("curl") and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    environment = {**environment, "XDG_CONFIG_HOME": str(tmp_path)}
    if command.startswith("bybit-pipeline unsubscribe"):
        pipeline.command("subscribe", *command.split()[2:])
    if command.startswith("bybit-pipeline keys --client"):
        subprocess.run([*COMMAND, "keys"], env=environment, check=True, stdout=subprocess.DEVNULL)
    script = sandboxed(command)
    if SERVER.match(command):
        same = script.replace(str(tmp_path), "")
        if same in started:
            return  # it differs from another command only in its places
        started.add(same)
    if not re.search(r"&&|;|\||^\. ", command):
        script = f"exec {script}"
    output = run_until(["bash", "-c", script], environment, evidence_for(command, tmp_path))
    is_quiet = re.match(r"\. |.*(client_alert|tail gap)", command)
    assert output or is_quiet, "it prints nothing"


@pytest.mark.parametrize(
    "block",
    [pytest.param(block, id=f"{block.page}:{block.line}") for block in all_blocks("python")],
)
def test_python_block_runs(
    block: Block,
    environment: dict[str, str],
    sandboxed: Callable[[str], str],
    tmp_path: Path,
) -> None:
    """A reader who copies the program sees numbers."""
    program = tmp_path / "block.py"
    program.write_text(sandboxed(block.text))
    command = [sys.executable, "-u", str(program)]
    output = run_until(
        command, environment, lambda text: re.search(r"(.*\d.*\n){3}", text) is not None
    )
    assert re.search(r"\d", output)
    # Ctrl-C cancels the program's own coroutines.
    errors = set(re.findall(r"^[\w.]*Error\b", output, re.MULTILINE))
    assert errors <= {"asyncio.exceptions.CancelledError"}, output


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=f"{block.page}:{block.line}") for block in all_blocks("toml")]
)
def test_configuration_is_valid(block: Block, tmp_path: Path) -> None:
    """A reader who copies the configuration can use it."""
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    if "curve = true" in block.text:
        subprocess.run([*COMMAND, "keys"], env=environment, check=True, stdout=subprocess.DEVNULL)
    path = tmp_path / "pipeline.toml"
    path.write_text(block.text)
    checked = subprocess.run(
        [*COMMAND, "check", "--config", str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (0, "") == (checked.returncode, checked.stderr)


def test_commands_are_found() -> None:
    """The pages have their commands where these tests look for them."""
    found = {command: place for place, command in all_commands()}
    assert len(found) >= 40
    assert found["scripts/up"].startswith("README.md")
    assert "bybit-pipeline status" in found
    assert all(shlex.split(command) for command in found)
    assert [] == [c for c in found if PLACEHOLDER.search(c) and "RECORDING" not in c]


def test_every_excuse_is_needed() -> None:
    """A pattern of commands that cannot run is removed when no page contains one."""
    found = [command for _, command in all_commands()]
    for pattern in CANNOT_RUN:
        assert any(re.match(pattern, command) for command in found), pattern
