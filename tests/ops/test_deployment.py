"""The systemd unit and the container file."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.ops.prometheus import OPS
from tests.system.pipeline import COMMAND

ROOT = OPS.parents[1]
UNIT = OPS / "bybit-pipeline.service"
CONTAINER = OPS / "Containerfile"
EXPOSURE_MAX = "20"
"""Of 100, as ``systemd-analyze security`` rates what a broken-into service could do."""


def systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze; skips where it is not there or too old for the question."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    done = subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=30
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze is too old")
    return done


def setting(name: str) -> str:
    """The value of a setting of the unit."""
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    return str(value)


def test_systemd_accepts_the_unit_without_a_word() -> None:
    done = systemd_analyze("verify", str(UNIT))

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_leaves_an_intruder_little() -> None:
    done = systemd_analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", str(UNIT))

    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_the_unit_runs_a_command_that_the_pipeline_understands(tmp_path: Path) -> None:
    env, program, command, *options = shlex.split(setting("ExecStart"))
    assert (env, program, command) == ("/usr/bin/env", "bybit-pipeline", "up")
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given["--run-dir"] == f"/run/{setting('RuntimeDirectory')}"
    given |= {"--config": str(ROOT / "pipeline.toml"), "--run-dir": str(tmp_path / "run")}

    planned = subprocess.run(
        [*COMMAND, "check", *(word for pair in given.items() for word in pair)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert planned.returncode == 0, planned.stderr


def test_the_unit_does_not_restart_what_a_restart_cannot_cure() -> None:
    assert setting("RestartPreventExitStatus").split() == ["64", "78"]
    assert float(setting("TimeoutStopSec")) > 5


def test_the_container_copies_what_there_is_and_what_the_package_needs() -> None:
    text = re.sub(r"\\\n", "", CONTAINER.read_text())
    copied = {
        path
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for path in line.split()[:-1]
    }

    assert [path for path in copied if not (ROOT / path).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]) <= copied
    assert {"pyproject.toml", "requirements/run.txt"} <= copied


def test_the_container_runs_as_nobody_in_particular() -> None:
    assert re.findall(r"^USER (\w+)$", CONTAINER.read_text(), re.MULTILINE) == ["pipeline"]
