"""
A running pipeline, started by its command and read through what users can read.

It runs with the default configuration: connector, both workers, forwarder and supervisor, all
measures published, all counters on. ``BENCH_PIPELINE`` names the command, so that it can run in an
environment with nothing but the product: wsaccel, which is installed beside the rivals, would speed
it up.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from scripts.benchmarks.child import RunFailed, end

PREFIX = "bybit_pipeline_"
STOP_S = 6.0
LOSSES = (
    "bus_messages_lost_total",
    "book_gaps_total",
    "connector_frames_invalid_total",
    "connector_reconnects_total",
    "process_restarts_total",
)
"""Counters that make a run invalid if they are not zero."""

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Prometheus samples by name without prefix and sorted labels."""


def default_command() -> str:
    """Return the path of the ``bybit-pipeline`` to measure."""
    return os.environ.get("BENCH_PIPELINE") or str(Path(sys.executable).with_name("bybit-pipeline"))


class Pipeline:
    """A running pipeline with its own run directory."""

    def __init__(
        self, url: str, symbols: list[str], *, settings: str = "", command: str = ""
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        here = Path(self._directory.name)
        self.run_dir, self.log = here / "run", here / "log"
        self.metrics = f"ipc://{here}/metrics"
        options = {
            "--source": "live",
            "--url": url,
            "--symbols": ",".join(symbols),
            "--run-dir": str(self.run_dir),
            "--metrics": self.metrics,
            "--port": "0",
            "--log-format": "json",
        }
        if settings:
            options["--config"] = str(Path(settings).resolve())
        words = [word for option in options.items() for word in option]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [command or default_command(), "up", *words],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=here,  # not a checkout, whose modules its children would import
            )

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        return self.process.pid

    def wait_live(self, books: int, timeout_s: float) -> None:
        """Wait until this number of books is live."""
        self._until(lambda: self.status()["books"].get("live") == books, "live books", timeout_s)

    def endpoints(self) -> dict[str, Any]:
        """Wait for ``endpoints.json`` and return it."""
        path = self.run_dir / "endpoints.json"
        self._until(path.exists, "endpoints.json", 20)
        return dict(json.loads(path.read_text()))

    def status(self) -> dict[str, Any]:
        """Return the answer of ``/status``."""
        return dict(json.loads(_get(self.endpoints()["http"], "/status")))

    def samples(self, *prefixes: str) -> Samples:
        """Return the samples of all processes, or of those whose names have one of the prefixes."""
        samples: Samples = {}
        for process, address in self.endpoints()["prometheus"].items():
            if not process.startswith(prefixes or ("",)):
                continue
            for family in text_string_to_metric_families(_get(address, "/metrics")):
                for sample in family.samples:
                    labels = tuple(sorted({"process": process, **sample.labels}.items()))
                    samples[sample.name.removeprefix(PREFIX), labels] = sample.value
        return samples

    def handled(self) -> int:
        """Return the messages handled by all workers that receive them."""
        return handled_by_all(self.samples("trades-"), self.samples("orderbook-"))

    def wait_handled(self, messages: int, timeout_s: float) -> None:
        """Wait until the workers have handled this number of messages."""
        self._until(lambda: self.handled() >= messages, f"{messages} messages", timeout_s, 0.1)

    def stop(self) -> None:
        """Stop the pipeline as a user would; kill it if that takes longer than ``STOP_S``."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            end(self.process)
        finally:
            self._directory.cleanup()

    def log_tail(self) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log.read_text().splitlines()[-15:])

    def _until(
        self, condition: Callable[[], Any], what: str, timeout_s: float, every_s: float = 0.02
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RunFailed(
                    f"bybit-pipeline: no {what} within {timeout_s:g} s\n{self.log_tail()}"
                )
            time.sleep(every_s)


def total(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of the samples of a name that have the given labels."""
    wanted = set(labels.items())
    return sum(
        value for (found, has), value in samples.items() if found == name and wanted <= set(has)
    )


def handled_by_all(trades_workers: Samples, orderbook_workers: Samples) -> int:
    """
    Return the messages handled by every worker that receives them.

    Trades go to both kinds of worker, so the slower kind counts; books go to one.
    """
    name = "worker_messages_total"
    trades = min(total(trades_workers, name), total(orderbook_workers, name, stream="trade"))
    return int(trades + total(orderbook_workers, name, stream="book"))


def losses(samples: Samples) -> dict[str, float]:
    """Return the counters of ``LOSSES`` that are not zero."""
    counts = {name: total(samples, name) for name in LOSSES}
    return {name: count for name, count in counts.items() if count}


def _get(address: str, path: str) -> str:
    host = address.removeprefix("http://").rstrip("/")
    with urllib.request.urlopen(f"http://{host}{path}", timeout=5) as answer:
        return str(answer.read().decode())
