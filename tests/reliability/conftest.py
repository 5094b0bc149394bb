"""Rigs that end with their tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.rig import Rig
from tests.system.conftest import start  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One rig for the tests of a file, with everything live; they leave it as it was."""
    rig = Rig(Path(tmp_path_factory.mktemp("r")))
    try:
        rig.until_live()
        yield rig
    finally:
        rig.close()


@pytest.fixture
def make_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Rig]]:
    """Make rigs with the given options; they are gone when the test ends."""
    rigs: list[Rig] = []

    def make(**options: Any) -> Rig:
        rigs.append(Rig(Path(tmp_path_factory.mktemp("r")), **options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()
