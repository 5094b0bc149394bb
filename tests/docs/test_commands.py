"""
Every command and every Python block of the README and of ``docs``, run as it stands.

They run in the sandbox of one simulated pipeline: its run directory is the user's default one, the
checkout's virtual environment is taken as set up, and the ports that the documents name (5556,
9400) become the pipeline's own. What starts a pipeline or a server gets a run directory and ports
of its own. What never ends by itself is ended by Ctrl-C once it has shown that it works.
"""

import itertools
import os
import re
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.system.pipeline import Pipeline

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
]
DEADLINE_S = 40.0

PROGRAMS = (
    "scripts/",
    "bybit-pipeline",
    ".venv/",
    "python ",
    "node ",
    "npm ",
    "pip ",
    "cd ",
    ". ",
    "curl ",
    "systemctl ",
    "journalctl ",
    "podman ",
    "cp ",
    "apt",
    "git ",
    "export ",
    "sudo ",
)
"""What a line in an indented block begins with, if it is a command and not a picture."""
INLINE = re.compile(r"`((?:scripts/up|(?:\.venv/bin/)?bybit-pipeline|python) [^`]+)`")
PLACEHOLDER = re.compile(r"…|\b(FILE|DIR|NAME|CONTAINER|SYMBOL|SPEC\.json|X|N)\b|/path/to")
"""What a reader has to fill in: such a command in running text is a form, not an example."""

CANNOT_RUN = {
    r"scripts/test\b": "would run the tests within the tests",
    r"cd scripts/examples && npm install": "the fixture of tests/examples does it",
    r"node subscribe.mjs": "run in tests/examples, where its packages are",
}
"""Patterns of commands that no test here can run, and why."""

ENDLESS = {
    r"scripts/up\b": r"books live",
    r"bybit-pipeline up\b": r"books live",
    r"bybit-pipeline simulate\b": r"READY ws://",
    r"bybit-pipeline tail (?!.*--(count|timeout))": r'"topic":',
    r"python ": r"\d",
}
"""Commands that may go on for ever, and what they print when they work."""

SERVERS = r"(scripts/up|bybit-pipeline up)\b"


class Block(NamedTuple):
    """A piece of a page: where it stands, its language, its lines."""

    page: str
    line: int
    language: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    """The fenced and the indented code blocks of a page."""
    fence: tuple[int, str, list[str]] | None = None
    indented: list[str] = []
    before = ""
    for number, line in enumerate([*(ROOT / page).read_text("utf-8").splitlines(), ""], 1):
        if fence is not None:
            if line.startswith("```"):
                yield Block(page, fence[0], fence[1], "\n".join(fence[2]))
                fence = None
            else:
                fence[2].append(line)
        elif line.startswith("```"):
            fence = (number + 1, line[3:].strip(), [])
        elif line.startswith("    ") and (indented or not before.strip()):
            indented.append(line[4:])
        elif indented:
            yield Block(page, number - len(indented), "indented", "\n".join(indented))
            indented = []
        before = line
    assert fence is None, f"{page}: a block without end"


def commands(block: Block) -> Iterator[str]:
    """The commands of a block, comments cut off, continued lines joined."""
    for line in block.text.replace("\\\n", " ").splitlines():
        command = re.sub(r"(^|\s+)#.*", "", line).strip().removeprefix("$ ")
        if command and (block.language != "indented" or command.startswith(PROGRAMS)):
            yield command


def all_blocks() -> list[Block]:
    """Every block of every page."""
    return list(itertools.chain.from_iterable(map(blocks, PAGES)))


def all_commands() -> list[tuple[str, str]]:
    """Where each command stands, and the command; each once."""
    found: dict[str, str] = {}
    for block in all_blocks():
        if block.language in ("sh", "bash", "shell", "console", "indented"):
            for command in commands(block):
                found.setdefault(command, f"{block.page}:{block.line}")
    for page in PAGES:
        text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
        text = re.sub(r"\s+", " ", text)
        for command in INLINE.findall(text):
            if not PLACEHOLDER.search(command):
                found.setdefault(command, page)
    return [(place, command) for command, place in found.items()]


@pytest.fixture(scope="session")
def environment(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user whose checkout is set up, with the commands on the PATH."""
    venv = tmp_path_factory.mktemp("venv")
    (venv / "bin").symlink_to(Path(sys.prefix) / "bin")
    files = (ROOT / "pyproject.toml").read_bytes() + (
        ROOT / "requirements" / "run.txt"
    ).read_bytes()
    stamp = subprocess.run(["cksum"], input=files, capture_output=True, check=True).stdout
    (venv / ".setup-run").write_text(f"{stamp.decode().strip()} {ROOT}")
    return {
        **os.environ,
        "BYBIT_PIPELINE_VENV": str(venv),
        "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }


def in_sandbox(text: str, pipeline: Pipeline, directory: Path) -> str:
    """A command or program with the addresses and places of the sandbox."""
    http = pipeline.endpoints()["http"].removeprefix("http://")
    if re.match(SERVERS, text):
        options = {"--run-dir": str(directory), "--metrics": "tcp://127.0.0.1:0", "--port": "0"}
        if not re.search(r"--(source|capture)\b", text) or "--source live" in text:
            # The exchange is not there for tests: the simulated one stands in.
            text = text.replace("--source live", "")
            options["--source"] = "sim"
        for option, value in options.items():
            text = re.sub(rf"{option}[ =]\S+", "", text) + f" {option} {value}"
        return text
    text = text.replace("tcp://127.0.0.1:5556", pipeline.metrics).replace("127.0.0.1:9400", http)
    return text.replace(".venv/bin/", f"{Path(sys.prefix) / 'bin'}/").replace(
        ". .venv/bin/activate", ":"
    )


def run_until(command: list[str], environment: dict[str, str], evidence: str | None) -> str:
    """
    What a command prints until it ends, or until there is evidence that it works.

    It must end well: by itself with 0, or, once there is evidence, by Ctrl-C.
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
    is_shown = False
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                selector.select(0.5)
                part = process.stdout.read()
                output += part or b""
                if part == b"":
                    break
                if evidence is not None and re.search(evidence, output.decode(errors="replace")):
                    is_shown = True
                    os.killpg(process.pid, signal.SIGINT)
                    break
            else:
                raise AssertionError(f"nothing to show in {DEADLINE_S:g} s: {output.decode()}")
        code = process.wait(10)
        output += process.stdout.read() or b""
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()
    text = output.decode(errors="replace")
    is_interrupted = is_shown and "KeyboardInterrupt" in text  # a plain program has no handler
    assert code == 0 or is_interrupted, f"exit {code}: {text}"
    assert is_interrupted or "Traceback" not in text, text
    return text


@pytest.mark.parametrize(
    "command", [pytest.param(command, id=f"{place} {command}") for place, command in all_commands()]
)
def test_command_works(
    command: str,
    pipeline: Pipeline,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A reader who types it sees it work."""
    for pattern, reason in CANNOT_RUN.items():
        if re.match(pattern, command):
            pytest.skip(reason)
    directory = tmp_path_factory.mktemp("d")
    if command.startswith("bybit-pipeline unsubscribe"):
        pipeline.command("subscribe", *command.split()[2:])
    shown = [text for pattern, text in ENDLESS.items() if re.search(pattern, command)]
    evidence = shown[0] if shown and "--count" not in command else None
    if "--timeout" in command or "--seconds" in command:
        evidence = None
    script = "exec " + in_sandbox(command, pipeline, directory)
    if re.search(r"&&|;|\||^\. ", command):
        script = script.removeprefix("exec ")
    output = run_until(["bash", "-c", script], environment, evidence)
    assert output or re.match(r"\. |.*client_alert", command), "it says nothing"


PYTHON = [block for block in all_blocks() if block.language == "python"]


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=f"{block.page}:{block.line}") for block in PYTHON]
)
def test_python_block_runs(
    block: Block, pipeline: Pipeline, environment: dict[str, str], tmp_path: Path
) -> None:
    """A reader who copies it sees numbers."""
    program = tmp_path / "block.py"
    program.write_text(in_sandbox(block.text, pipeline, tmp_path))
    command = [sys.executable, "-u", str(program)]
    output = run_until(command, environment, r"(.*\d.*\n){3}")
    assert "Error" not in output.split("KeyboardInterrupt")[0], output


def test_shell_commands_are_found() -> None:
    """The pages still have their commands where this looks for them."""
    found = {command: place for place, command in all_commands()}
    assert len(found) >= 20
    assert any(place.startswith("README.md") for place in found.values())
    assert "bybit-pipeline status" in found
    assert "scripts/up" in found
    assert all(shlex.split(command) for command in found)


def test_nothing_is_excused_that_is_not_there() -> None:
    """A pattern of commands that cannot run, and that nobody writes any more, goes."""
    found = [command for _, command in all_commands()]
    for pattern in CANNOT_RUN:
        assert any(re.match(pattern, command) for command in found), pattern


def test_every_kind_of_process_is_in_the_architecture() -> None:
    """A newcomer who wonders what a folder is finds it there."""
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text("utf-8")
    folders = sorted(path.parent.name for path in (ROOT / "processes").glob("*/__main__.py"))
    assert folders
    assert [f for f in folders if f"(../../processes/{f})" not in text] == []


LINK = re.compile(r"\]\(([^)#\s]+)?(?:#([^)\s]+))?\)")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Files exist, and so do the headings that links name."""
    for target, anchor in LINK.findall((ROOT / page).read_text("utf-8")):
        if "://" in target:
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}
            assert anchor in anchors, f"{page}: {target}#{anchor}"
