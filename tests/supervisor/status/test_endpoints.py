"""``endpoints.json``: when it is written, and a disk that refuses it."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog.testing

from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.plan.plan import make_plan
from bybit_pipeline.supervisor.run_dir import RunDir
from bybit_pipeline.supervisor.status.endpoints import EndpointsFile

PROMETHEUS = {"supervisor": "127.0.0.1:1"}


class World:
    """The file, and children that are not up yet."""

    def __init__(self, path: Path) -> None:
        self.path = path / "endpoints.json"
        self.run_dir = RunDir.take(path)
        self.file = EndpointsFile(self.run_dir, url="http://127.0.0.1:1", state_dir="/s")
        self.children: Any = SimpleNamespace(
            plan=make_plan(make_config({}), run_dir=str(path)),
            metrics="tcp://127.0.0.1:2",
            dashboard="",
            is_complete=False,
        )

    def update(self) -> bool:
        """Update the file; True if it was written for the first time."""
        return self.file.update(self.children, PROMETHEUS)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """No file yet."""
    return World(tmp_path)


def test_the_file_is_written_once_everything_is_up(world: World) -> None:
    assert not world.update()
    assert not world.path.exists()

    world.children.is_complete = True
    assert world.update()

    endpoints = json.loads(world.path.read_text())
    plan = world.children.plan
    assert {
        "pid": os.getpid(),
        "source": "live",
        "metrics": "tcp://127.0.0.1:2",
        "keys": None,
        "control": plan.control_endpoint,
        "http": "http://127.0.0.1:1",
        "dashboard": None,
        "state_dir": "/s",
        "market": {"connector-linear-0": plan.market_endpoint("connector-linear-0")},
        "prometheus": PROMETHEUS,
    } == endpoints


def test_later_changes_are_written_even_while_a_child_is_down(world: World) -> None:
    world.children.is_complete = True
    world.update()
    world.children.is_complete = False
    world.children.dashboard = "http://127.0.0.1:3"

    assert not world.update()

    assert "http://127.0.0.1:3" == json.loads(world.path.read_text())["dashboard"]


def test_a_failed_write_is_logged_once_and_retried(world: World) -> None:
    world.children.is_complete = True
    obstacle = world.path.with_suffix(".partial")
    obstacle.mkdir()

    with structlog.testing.capture_logs() as logs:
        assert not world.update()
        assert not world.update()

    assert ["endpoints.json not written, retrying"] == [entry["event"] for entry in logs]
    obstacle.rmdir()
    assert world.update()
