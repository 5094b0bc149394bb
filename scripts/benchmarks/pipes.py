"""A child process that reports in JSON lines on its standard output."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.benchmarks.machine import tree

ROOT = Path(__file__).resolve().parents[2]


class Failed(Exception):  # noqa: N818 - style.md names errors after the event
    """A child said nothing in time, or ended."""


class Reporter:
    """``python -m MODULE ARGUMENTS``, its JSON lines, and an end with all its descendants."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._module = module
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        """Of the first process."""
        return self.process.pid

    def tell(self, word: str) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def wait(self, event: str, timeout_s: float) -> dict[str, Any]:
        """
        The next line with this event; others before it are passed over.

        Raises:
            Failed: If it does not come in time or the process ends.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise Failed(f"{self._module}: no {event!r} within {timeout_s:g} s") from None
            if line is None:
                raise Failed(f"{self._module} ended with {self.process.wait()}")
            if line["event"] == event:
                return line

    def close(self) -> None:
        """End it and whatever it started."""
        end(self.process)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            if text.startswith("{"):
                self._lines.put(json.loads(text))
        self._lines.put(None)


def end(process: "subprocess.Popen[Any]", pids: Sequence[int] = ()) -> None:
    """Kill a process and its descendants, and wait for it."""
    for pid in [*tree(process.pid), *pids]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
