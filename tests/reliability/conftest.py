"""Rigs that are stopped at the end of their tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.reliability.rig import Rig
from tests.system.conftest import start  # noqa: F401 - a fixture
from tests.system.pipeline import Pipeline

ATTEMPTS_MAX = 30
"""
A connector may open 60 connections in 5 minutes, and then it waits, as it should: a test starts
with half of them left, however many the ones before it needed on a slow machine.
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline shared by tests that leave it running."""
    pipeline = Pipeline(Path(tmp_path_factory.mktemp("p")), "--source", "sim")
    try:
        pipeline.wait_ready()
        yield pipeline
        pipeline.stop()
    finally:
        pipeline.close()


@pytest.fixture(scope="module")
def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Rig]]:
    """The rig of a file; another one when its connector has spent too many connections."""
    rigs: list[Rig] = []

    def current() -> Rig:
        if rigs and len(rigs[-1].proxy.attempts) > ATTEMPTS_MAX:
            rigs.pop().close()
        if not rigs:
            rigs.append(Rig(Path(tmp_path_factory.mktemp("r"))))
            rigs[-1].until_live()
        return rigs[-1]

    try:
        yield current
    finally:
        for rig in rigs:
            rig.close()


@pytest.fixture
def rig(shared_rig: Callable[[], Rig]) -> Rig:
    """A rig that tests share, with everything live; they leave it as it was."""
    return shared_rig()


@pytest.fixture
def make_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Rig]]:
    """Make rigs with the given options; they are stopped at the end of the test."""
    rigs: list[Rig] = []

    def make(**options: Any) -> Rig:
        rigs.append(Rig(Path(tmp_path_factory.mktemp("r")), **options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()
