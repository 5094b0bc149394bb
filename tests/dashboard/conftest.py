"""A browser, and a pipeline with a dashboard; each is started once per module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dashboard.browser import Browser, find_chromium
from tests.system.pipeline import Pipeline

CONFIG = """
source = "sim"

[dashboard]
enabled = true
port = 0

[[market]]
symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = find_chromium()
    if executable is None:
        pytest.skip("Chromium not found: install the package chromium, or run scripts/test")
    browser = Browser(executable, Path(tmp_path_factory.mktemp("chromium")))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    pipeline = Pipeline(Path(tmp_path_factory.mktemp("p")), config=CONFIG)
    pipeline.wait_ready()
    yield pipeline
    pipeline.close()


@pytest.fixture
def page(chromium: Browser, pipeline: Pipeline) -> Iterator[Browser]:
    """The dashboard, newly opened on BTCUSDT; its console must stay empty."""
    chromium.problems.clear()
    chromium.resize(1440, 1000)
    chromium.open("about:blank")
    chromium.open(f"{pipeline.endpoints()['dashboard']}#linear.BTCUSDT")
    chromium.until("document.querySelectorAll('#bids tr').length === 10")
    chromium.until("document.querySelectorAll('#markets .state.good').length === 3")
    yield chromium
    assert [] == chromium.problems
