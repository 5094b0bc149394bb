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
"""Exposure out of 100, as ``systemd-analyze security`` rates what an intruder could do."""


def systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze; the test is skipped if it is missing or too old."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
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


def test_systemd_accepts_the_unit_without_a_warning() -> None:
    done = systemd_analyze("verify", str(UNIT))

    assert (0, "") == (done.returncode, done.stdout + done.stderr)


def test_the_unit_limits_what_an_intruder_can_do() -> None:
    done = systemd_analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", str(UNIT))

    assert 0 == done.returncode, done.stdout[-300:] + done.stderr


def test_the_unit_runs_a_command_that_the_pipeline_understands(tmp_path: Path) -> None:
    env, program, command, *options = shlex.split(setting("ExecStart"))
    assert ("/usr/bin/env", "bybit-pipeline", "up") == (env, program, command)
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert f"/run/{setting('RuntimeDirectory')}" == given["--run-dir"]
    given |= {"--config": str(ROOT / "pipeline.toml"), "--run-dir": str(tmp_path / "run")}

    planned = subprocess.run(
        [*COMMAND, "check", *(word for pair in given.items() for word in pair)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert 0 == planned.returncode, planned.stderr


def test_the_unit_does_not_restart_after_wrong_usage_or_configuration() -> None:
    assert ["64", "78"] == setting("RestartPreventExitStatus").split()
    assert float(setting("TimeoutStopSec")) > 5


def test_the_container_copies_existing_files_and_all_that_the_package_needs() -> None:
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


def test_the_container_runs_as_a_user_of_its_own() -> None:
    assert ["pipeline"] == re.findall(r"^USER (\w+)$", CONTAINER.read_text(), re.MULTILINE)


def test_the_health_of_the_container_is_that_of_the_supervisor() -> None:
    """One delisted symbol makes a pipeline unready, and a restart cannot fix that."""
    text = CONTAINER.read_text()
    command = text[text.index("\nHEALTHCHECK") :].split("\n")[2]
    assert "/healthz" in command
    assert "/readyz" not in command
