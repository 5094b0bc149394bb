"""A forwarder to subscribe to."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shared.client.pipeline import ForwarderRig


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[ForwarderRig]:
    """A running forwarder without any message yet."""
    with contextlib.closing(ForwarderRig(tmp_path)) as rig:
        yield rig
