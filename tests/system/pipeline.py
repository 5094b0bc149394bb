"""A running pipeline as its users see it: a command, a metrics socket, files, HTTP."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import psutil
import zmq

COMMAND = [str(Path(sys.executable).with_name("bybit-pipeline"))]
START_S = 20.0
STOP_S = 5.0
Payload = dict[str, Any]


def until(condition: Callable[[], Any], what: str, timeout_s: float = 20.0) -> Any:
    """Return the first true result of ``condition``, polled every 20 ms."""
    deadline = time.monotonic() + timeout_s
    tick = threading.Event()
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        tick.wait(0.02)
    raise AssertionError(f"not within {timeout_s:g} s: {what}")


class Pipeline:
    """
    ``bybit-pipeline up`` in its own process, with a subscriber that connected first.

    Its log goes to a file, or to ``output``: a pipe, or a terminal if ``on_terminal``.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        config: str = "",
        topics: str = "",
        run_dir: Path | None = None,
        output: int | None = None,
        on_terminal: bool = False,
    ) -> None:
        self.run_dir = run_dir or directory / "run"
        self.log = directory / "log"
        self.env = {**os.environ, "XDG_STATE_HOME": str(directory / "state")}
        path = directory / "pipeline.toml"
        path.write_text(config)
        self.metrics = f"ipc://{directory}/metrics"
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self.socket.subscribe(topics)
        self.socket.connect(self.metrics)
        self._arguments = [
            *COMMAND,
            "up",
            "--config",
            str(path),
            "--run-dir",
            str(self.run_dir),
            "--metrics",
            self.metrics,
            "--port",
            "0",
            *arguments,
        ]
        self._output, self._on_terminal = output, on_terminal
        self.restart()

    def restart(self) -> None:
        """Start it, for the first time or after its end."""
        output = self._output
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self._arguments,
                stdout=log if output is None else output,
                stderr=log if output is None else output,
                stdin=output if self._on_terminal else subprocess.DEVNULL,
                env={**self.env, "TERM": "xterm", "COLUMNS": "160", "LINES": "50"},
            )

    # -- what users see --------------------------------------------------------------------------

    def endpoints(self) -> dict[str, Any]:
        """``endpoints.json`` once it is there."""
        path = self.run_dir / "endpoints.json"
        until(lambda: path.exists() or self._gone(), "endpoints.json", START_S)
        return dict(json.loads(path.read_text()))

    def command(self, *arguments: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        """Run another command against this pipeline."""
        return subprocess.run(
            [*COMMAND, *arguments, "--run-dir", str(self.run_dir)],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env=self.env,
        )

    def status(self) -> Payload:
        """The answer of ``/status``."""
        return dict(json.loads(self.http("/status")[1]))

    def http(self, path: str) -> tuple[int, str]:
        """Status code and body of a page of the supervisor, or of a URL."""
        url = path if path.startswith("http://") else f"{self.endpoints()['http']}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def wait_ready(self) -> None:
        """Wait until ``/readyz`` answers 200."""
        self.endpoints()
        until(lambda: self._gone() or self.http("/readyz")[0] == 200, "ready", START_S)

    def messages(self, timeout_s: float = 20.0) -> Iterator[Payload]:
        """Yield metric payloads with ``topic`` added; end after a time without messages."""
        while self.socket.poll(int(timeout_s * 1000)):
            topic, payload = self.socket.recv_multipart()
            yield {"topic": topic.decode(), **msgpack.unpackb(payload)}
        self._gone()

    def first(self, condition: Callable[[Payload], Any], timeout_s: float = 20.0) -> Payload:
        """The first message that meets a condition."""
        deadline = time.monotonic() + timeout_s
        for message in self.messages(timeout_s):
            if condition(message):
                return message
            if time.monotonic() > deadline:
                break
        raise AssertionError(f"no such message within {timeout_s:g} s\n{self.log_tail()}")

    def first_of_each(
        self, *conditions: Callable[[Payload], Any], timeout_s: float = 20.0
    ) -> list[Payload]:
        """Return the first message that meets each condition, in any order of arrival."""
        found: dict[int, Payload] = {}

        def completes(message: Payload) -> bool:
            for place, condition in enumerate(conditions):
                if place not in found and condition(message):
                    found[place] = message
            return len(found) == len(conditions)

        self.first(completes, timeout_s)
        return [found[place] for place in range(len(conditions))]

    def pid(self, process: str) -> int:
        """Return the process id of a process; 0 while it does not run."""
        pids = {entry["process"]: entry["pid"] for entry in self.status()["processes"]}
        return int(pids[process] or 0)

    def counters(self, process: str) -> dict[str, float]:
        """Prometheus samples of one process, by ``name{labels}``."""
        host = self.endpoints()["prometheus"][process]
        with urllib.request.urlopen(f"http://{host}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def total(self, process: str, name: str, *having: str) -> float:
        """The sum of one process's samples of a counter whose labels hold all of ``having``."""
        return sum(
            value
            for sample, value in self.counters(process).items()
            if sample.split("{")[0] == f"bybit_pipeline_{name}"
            and all(text in sample for text in having)
        )

    # -- the end ---------------------------------------------------------------------------------

    def stop(self, number: signal.Signals = signal.SIGINT) -> float:
        """Stop it as a user would and return the seconds it took; nothing may be left behind."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(STOP_S + 1)
        took = time.monotonic() - began
        assert code == 0, self.log_tail()
        assert took < STOP_S
        assert not [child for child in children if child.is_running()], self.log_tail()
        left = [path.name for path in self.run_dir.rglob("*")] if self.run_dir.exists() else []
        assert left == [], f"left in the run directory: {left}"
        return took

    def close(self) -> None:
        """Make sure that none of its processes keeps running."""
        if self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # it may just have ended
                    child.kill()
            self.process.kill()
            self.process.wait()
        self._context.destroy(linger=0)

    def log_tail(self, lines: int = 30) -> str:
        """The end of the log, for messages of failed tests."""
        return "\n".join(self.log.read_text().splitlines()[-lines:])

    def _gone(self) -> bool:
        assert self.process.poll() is None, f"up ended: {self.log_tail()}"
        return False


def kill(pid: int) -> None:
    """``kill -9``."""
    os.kill(pid, signal.SIGKILL)
