"""One simulated pipeline for the tests of the documentation, in the default place of a user."""

import os
from collections.abc import Iterator

import pytest

from tests.system.pipeline import Pipeline


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """``bybit-pipeline up`` on the simulated exchange, its run directory the default one."""
    directory = tmp_path_factory.mktemp("docs")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(directory)
    pipeline = Pipeline(directory, "--source", "sim", run_dir=directory / "bybit-pipeline")
    try:
        pipeline.wait_ready()
        yield pipeline
    finally:
        pipeline.close()
        if runtime is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = runtime
