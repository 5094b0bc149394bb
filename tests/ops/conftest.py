"""A simulated pipeline and a Prometheus that scrapes it, shared by all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.ops.prometheus import Prometheus, tool
from tests.system.pipeline import Pipeline, until

QUICK = "[connector]\nping_interval_s = 1.0\n"
"""A ping between any two scrapes, so that the histogram of round trips has data."""


@pytest.fixture(scope="package")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """``bybit-pipeline up`` on the simulated exchange."""
    pipeline = Pipeline(tmp_path_factory.mktemp("ops"), "--source", "sim", config=QUICK)
    try:
        pipeline.wait_ready()
        yield pipeline
    finally:
        pipeline.close()


@pytest.fixture(scope="package")
def prometheus(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Prometheus]:
    """Prometheus with the files of ``docs/ops``, scraping the pipeline."""
    tool("prometheus")
    pipeline: Pipeline = request.getfixturevalue("pipeline")
    supervisor = pipeline.endpoints()["http"].removeprefix("http://")
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), supervisor, "500ms")
    try:
        until(lambda: prometheus.address and prometheus.targets(), "targets in Prometheus")
        yield prometheus
    finally:
        prometheus.close()
