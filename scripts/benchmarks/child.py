"""A child process that reports events as JSON lines on its standard output."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from scripts.benchmarks.machine import descendants

ROOT = Path(__file__).resolve().parents[2]


class RunFailed(Exception):  # noqa: N818 - style.md names errors after the event
    """A process of the run ended, or missed a deadline."""


def report_event(event: str, **fields: Any) -> None:
    """Write one event as a JSON line on standard output: the child's end of ``Child``."""
    print(json.dumps({"event": event, **fields}), flush=True)


class Child:
    """``python -m MODULE ARGUMENTS`` with its events; ``close`` also ends its descendants."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._module = module
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id of the child itself."""
        return self.process.pid

    def send(self, command: str) -> None:
        """Write a command line to the standard input of the child."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def wait(self, event: str, timeout_s: float) -> dict[str, Any]:
        """
        Return the next event of this name; earlier events are skipped.

        Raises:
            RunFailed: If the event does not arrive in time or the process ends.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                found = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise RunFailed(f"{self._module}: no {event!r} within {timeout_s:g} s") from None
            if found is None:
                raise RunFailed(f"{self._module} ended with {self.process.wait()}")
            if found["event"] == event:
                return found

    def close(self) -> None:
        """End the child and its descendants."""
        end(self.process)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            if text.startswith("{"):
                self._events.put(json.loads(text))
        self._events.put(None)


def end(process: "subprocess.Popen[Any]") -> None:
    """Kill a process and its descendants, and wait for it."""
    for pid in descendants(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
