"""The wheel as users install it: alone, next to other packages, and seen by type checkers."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEIGHBOUR = sorted(Path(sys.prefix).glob("wheels/supervisor-*.whl"))
"""PyPI's ``supervisor``, which ``scripts/test`` fetches once."""

USER_SCRIPT = """
from bybit_pipeline import PipelineClient

def tpm(client: PipelineClient, symbol: str) -> float | None:
    return client.get_tpm(symbol)

with PipelineClient("tcp://127.0.0.1:5556") as client:
    client.subscribe("BTCUSDT")
    snapshot = client.get_snapshot("BTCUSDT")
    if snapshot is not None:
        reveal_type(snapshot.best_bid)
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Output of a command that must succeed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=cwd, env=environment, check=False
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as a release would be."""
    directory = tmp_path_factory.mktemp("dist")
    for target, suffix in (("sdist", ".tar.gz"), ("wheel", ".whl")):
        source = ROOT
        if target == "wheel":
            archive = next(directory.glob("*.tar.gz"))
            run("tar", "-xzf", archive, "-C", directory)
            source = directory / archive.name.removesuffix(".tar.gz")
        run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", directory, cwd=source)
        assert len(list(directory.glob(f"*{suffix}"))) == 1
    return next(directory.glob("*.whl"))


def make_venv(directory: Path, *wheels: Path) -> Path:
    """A virtual environment with these wheels, installed in order; dependencies are ours."""
    run(sys.executable, "-m", "venv", "--without-pip", directory)
    python = directory / "bin" / "python"
    for wheel in wheels:
        run(
            *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet"),
            *("--no-deps", "--no-index", "--disable-pip-version-check", wheel),
        )
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return directory


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel alone."""
    return make_venv(tmp_path_factory.mktemp("alone") / "venv", wheel)


def test_it_contains_one_package_with_types_and_the_annotated_configuration(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert {"bybit_pipeline"} == {
        top for name in names if not (top := name.split("/")[0]).endswith(".dist-info")
    }
    assert {"bybit_pipeline/py.typed", "bybit_pipeline/pipeline.toml"} <= set(names)
    assert "bybit_pipeline/processes/dashboard/static/index.html" in names
    tracked = run("git", "ls-files", "shared", "processes", "supervisor", cwd=ROOT).split()
    assert {f"bybit_pipeline/{path}" for path in tracked} <= set(names)


def test_it_contains_the_same_without_the_links(wheel: Path, tmp_path: Path) -> None:
    """A container copies the folders alone, and builds from those."""
    containerfile = (ROOT / "docs" / "ops" / "Containerfile").read_text().replace("\\\n", "")
    for line in containerfile.splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not words[1].startswith("--from"):
            for path in words[1:-1]:
                target = tmp_path / path
                target.parent.mkdir(parents=True, exist_ok=True)
                run("cp", "-r", ROOT / path, target)
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist", cwd=tmp_path)

    copied = zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))).namelist()
    assert sorted(zipfile.ZipFile(wheel).namelist()) == sorted(
        name for name in copied if "__pycache__" not in name
    )


@pytest.mark.skipif(not NEIGHBOUR, reason="PyPI's supervisor could not be fetched")
@pytest.mark.parametrize("order", ["ours first", "ours last"])
def test_it_works_next_to_the_package_supervisor(wheel: Path, tmp_path: Path, order: str) -> None:
    wheels = [wheel, NEIGHBOUR[-1]]
    venv = make_venv(tmp_path / "venv", *(wheels if order == "ours first" else wheels[::-1]))

    assert "4." in run(venv / "bin" / "supervisord", "--version", cwd=tmp_path)
    assert "BTCUSDT" in run(venv / "bin" / "bybit-pipeline", "check", cwd=tmp_path)

    run(
        *(sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "uninstall"),
        *("--quiet", "--yes", "bybit-pipeline"),
    )
    assert "4." in run(venv / "bin" / "supervisord", "--version", cwd=tmp_path)


def test_a_folder_of_the_user_does_not_shadow_it(installed: Path, tmp_path: Path) -> None:
    for name in ("shared", "processes", "supervisor"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the folder of the user')")
    python = installed / "bin" / "python"

    look = "from bybit_pipeline import PipelineClient, TradesAggregator; print(PipelineClient)"
    assert "PipelineClient" in run(python, "-c", look, cwd=tmp_path)
    version = run(python, "-m", "bybit_pipeline", "--version", cwd=tmp_path)
    assert version == run(installed / "bin" / "bybit-pipeline", "--version", cwd=tmp_path)


def test_type_checkers_see_the_types(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER_SCRIPT)

    seen = run(
        *(sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache"),
        *("--python-executable", installed / "bin" / "python", "user.py"),
        cwd=tmp_path,
    )

    assert 'Revealed type is "float | None"' in seen.replace("Union[float, None]", "float | None")
