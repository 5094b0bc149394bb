"""One simulated pipeline for all examples, and the packages of the JavaScript example."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.pipeline import Pipeline

EXAMPLES = Path(__file__).resolve().parents[2] / "scripts" / "examples"
NPM_S = 60
CONFIG = """
[density]
k = 3.0
min_share = 0.0
min_age_s = 0.0
"""


@pytest.fixture(scope="package")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """``bybit-pipeline up`` on the simulated exchange, with a low threshold for walls."""
    pipeline = Pipeline(tmp_path_factory.mktemp("examples"), "--source", "sim", config=CONFIG)
    try:
        pipeline.wait_ready()
        yield pipeline
    finally:
        pipeline.close()


@pytest.fixture(scope="session")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """
    The command that runs the JavaScript example; its packages are installed beside a copy.

    They are downloaded once and kept in the virtual environment.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if node is None or npm is None:
        pytest.skip("Node and npm not found; scripts/test installs them where pip can")
    wanted = (EXAMPLES / "package.json").read_text()
    place = Path(sys.prefix) / ".javascript-examples"
    stamp = place / "installed.json"
    if not stamp.exists() or stamp.read_text() != wanted:
        place.mkdir(exist_ok=True)
        (place / "package.json").write_text(wanted)
        install = [
            npm,
            "install",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--no-package-lock",
            "--fetch-retries=0",
            "--fetch-timeout=15000",
        ]
        try:
            subprocess.run(install, cwd=place, capture_output=True, check=True, timeout=NPM_S)
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"cannot install the packages of the JavaScript example: {error}")
        stamp.write_text(wanted)
    shutil.copy(EXAMPLES / "subscribe.mjs", place)
    return [node, str(place / "subscribe.mjs")]
