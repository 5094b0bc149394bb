"""Real pipelines for the system tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.pipeline import Pipeline

Start = Callable[..., Pipeline]


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start a pipeline with the given options; it is stopped at the end of the test."""
    running: list[Pipeline] = []

    def start(*arguments: str, **options: Any) -> Pipeline:
        running.append(Pipeline(Path(tmp_path_factory.mktemp("p")), *arguments, **options))
        return running[-1]

    yield start
    for pipeline in running:
        pipeline.close()
