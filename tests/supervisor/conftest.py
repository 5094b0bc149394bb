"""A real supervisor with fake children, for tests."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bybit_pipeline.shared.errors import NoPipelineError
from bybit_pipeline.supervisor.cli.control_client import ControlClient, read_endpoints

FAKE = Path(__file__).with_name("fake_child.py")
DEADLINE_S = 15.0
CHILDREN = {"forwarder", "trades-0", "orderbook-0", "connector-linear-0"}
"""The children of the default plan."""

Start = Callable[..., Any]
"""Starts a pipeline with fake children; the arguments are those of ``Pipeline``."""


class Pipeline:
    """A supervisor process with fake children; see ``fake_child``."""

    def __init__(
        self,
        run_dir: Path,
        tables: dict[str, Any] | None = None,
        behaviour: dict[str, Any] | None = None,
        timing: dict[str, Any] | None = None,
        shell: str = "",
    ) -> None:
        """``shell`` is what a shell does before the supervisor takes its place."""
        self.run_dir = run_dir
        self.log = run_dir.parent / f"{run_dir.name}.log"
        tables = {
            "source": "live",
            "metrics": {"endpoint": "tcp://127.0.0.1:0"},
            "prometheus": {"port": 0},
            **(tables or {}),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(("sh", "-c", f'{shell} exec "$0" "$@"') if shell else ()),
                    sys.executable,
                    FAKE,
                    "supervise",
                    run_dir,
                    json.dumps(tables),
                    json.dumps(timing or {}),
                ],
                stderr=log,
                env={**os.environ, "BEHAVIOUR": json.dumps(behaviour or {})},
                start_new_session=True,
            )

    # -- requests --------------------------------------------------------------------------------

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The result of a command on the control plane."""
        with ControlClient(str(self.run_dir)) as requests:
            return requests.ask(command, **arguments)

    def status(self) -> dict[str, Any]:
        """The status."""
        return self.ask("status")

    def process_entry(self, name: str) -> dict[str, Any]:
        """The status of one process; empty if it is not there."""
        entries = {entry["process"]: entry for entry in self.status()["processes"]}
        return dict(entries.get(name, {}))

    def commands(self, name: str) -> list[dict[str, Any]]:
        """The commands that a fake child has received so far."""
        found: list[dict[str, Any]] = self.process_entry(name)["counts"].get("commands", [])
        return found

    def page(self, path: str) -> tuple[int, str]:
        """Status code and body of a page of the supervisor's HTTP."""
        base = json.loads((self.run_dir / "endpoints.json").read_text())["http"]
        try:
            with urllib.request.urlopen(base + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    # -- life ------------------------------------------------------------------------------------

    def wait_up(self) -> None:
        """Wait until every process is up."""
        self.wait_for(self.is_complete)

    def is_complete(self) -> bool:
        """True once this pipeline, not one before it, has written its endpoints."""
        try:
            return bool(self.process.pid == read_endpoints(str(self.run_dir))["pid"])
        except NoPipelineError:
            return False

    def wait_for(self, condition: Callable[[], Any], *, within_s: float = DEADLINE_S) -> Any:
        """Wait until a condition holds; return its value."""
        deadline = time.monotonic() + within_s
        while True:
            assert self.process.poll() is None, f"the supervisor ended:\n{self.log.read_text()}"
            found = condition()
            if found:
                return found
            assert time.monotonic() < deadline, f"timeout:\n{self.log.read_text()}"
            time.sleep(0.03)

    def wait_for_commands(self, name: str, number: int = 1) -> list[dict[str, Any]]:
        """Wait until a fake child has received this many commands; return all of them."""
        self.wait_for(lambda: len(self.commands(name)) >= number)
        return self.commands(name)

    def children(self) -> list[psutil.Process]:
        """The running children."""
        return list(psutil.Process(self.process.pid).children())

    def stop(self) -> int:
        """Ask the supervisor to stop; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    def end(self) -> None:
        """Kill the supervisor and its children, in whatever state they are."""
        processes = []
        if self.process.poll() is None:
            processes = [*self.children(), psutil.Process(self.process.pid)]
        for process in processes:
            process.kill()
        self.process.wait(10)


@pytest.fixture(scope="module")
def steady_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A running pipeline for all tests of a module, which leave it unchanged."""
    pipeline = Pipeline(tmp_path_factory.mktemp("steady") / "run")
    pipeline.wait_up()
    yield pipeline
    pipeline.end()


@pytest.fixture
def start_pipeline(tmp_path: Path) -> Iterator[Callable[..., Pipeline]]:
    """Starts pipelines with fake children; they end with the test."""
    pipelines: list[Pipeline] = []

    def start(**options: Any) -> Pipeline:
        options.setdefault("run_dir", tmp_path / "run")
        pipelines.append(Pipeline(**options))
        return pipelines[-1]

    yield start
    for pipeline in pipelines:
        pipeline.end()


@pytest.fixture
def pipeline(start_pipeline: Start) -> Pipeline:
    """A running pipeline of its own for one test."""
    started: Pipeline = start_pipeline()
    started.wait_up()
    return started
