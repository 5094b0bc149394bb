"""
Our own side: the whole pipeline through the user's command, read through what users can read.

Default configuration: connector, both workers, forwarder and supervisor, all measures published,
all counters on. ``BENCH_PIPELINE`` names the command, so that it can run from an environment that
holds nothing but the product (wsaccel, which the rivals' environment holds, would change it).
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

from scripts.benchmarks.pipes import ROOT, Failed, end

PREFIX = "bybit_pipeline_"
STOP_S = 6.0
LOSSES = (
    "bus_messages_lost_total",
    "book_gaps_total",
    "connector_frames_invalid_total",
    "connector_reconnects_total",
    "process_restarts_total",
)
"""Every one of these makes a run invalid."""

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def command() -> str:
    """The ``bybit-pipeline`` to measure."""
    return os.environ.get("BENCH_PIPELINE") or str(Path(sys.executable).with_name("bybit-pipeline"))


class Pipeline:
    """A running pipeline with a run directory of its own."""

    def __init__(self, url: str, symbols: list[str], settings: str = "") -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        here = Path(self._directory.name)
        self.run_dir, self.log = here / "run", here / "log"
        self.metrics = f"ipc://{here}/metrics"
        options = ["--config", settings] if settings else []
        self.started_s = time.monotonic()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    command(),
                    "up",
                    "--source",
                    "live",
                    "--url",
                    url,
                    "--symbols",
                    ",".join(symbols),
                    "--run-dir",
                    str(self.run_dir),
                    "--metrics",
                    self.metrics,
                    "--port",
                    "0",
                    "--log-format",
                    "json",
                    *options,
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
            )

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self.process.pid

    def wait_live(self, books: int, timeout_s: float) -> None:
        """Wait until so many books are live."""
        self._until(lambda: self.status()["books"].get("live") == books, "live books", timeout_s)

    def endpoints(self) -> dict[str, Any]:
        """``endpoints.json``, once it is there."""
        path = self.run_dir / "endpoints.json"
        self._until(path.exists, "endpoints.json", 20)
        return dict(json.loads(path.read_text()))

    def status(self) -> dict[str, Any]:
        """The answer of ``/status``."""
        return dict(json.loads(_get(self.endpoints()["http"], "/status")))

    def samples(self, *roles: str) -> Samples:
        """Every counter of every process, or of those whose names begin so."""
        samples: Samples = {}
        targets = self.endpoints()["prometheus"]
        for process, address in targets.items():
            if not process.startswith(roles or ("",)):
                continue
            for family in text_string_to_metric_families(_get(address, "/metrics")):
                for sample in family.samples:
                    labels = tuple(sorted({"process": process, **sample.labels}.items()))
                    samples[sample.name.removeprefix(PREFIX), labels] = sample.value
        return samples

    def handled(self) -> int:
        """Messages that every worker they are for has handled, by the workers' counters."""
        return handled_by_all(self.samples("trades-"), self.samples("orderbook-"))

    def wait_handled(self, messages: int, timeout_s: float) -> None:
        """Wait until the workers have handled so many messages in all."""
        self._until(lambda: self.handled() >= messages, f"{messages} messages", timeout_s, 0.1)

    def stop(self) -> int:
        """Stop it in order; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            end(self.process)
            return -1
        finally:
            self._directory.cleanup()

    def log_tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text().splitlines()[-15:])

    def _until(
        self, condition: Callable[[], Any], what: str, timeout_s: float, every_s: float = 0.02
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"bybit-pipeline: no {what} within {timeout_s:g} s\n{self.log_tail()}")
            time.sleep(every_s)


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of a family over all label values but the given ones."""
    wanted = set(labels.items())
    return sum(
        value for (found, has), value in samples.items() if found == name and wanted <= set(has)
    )


def handled_by_all(trades_workers: Samples, orderbook_workers: Samples) -> int:
    """Trades go to both kinds of worker, so those of the slower kind count; books go to one."""
    name = "worker_messages_total"
    trades = min(total(trades_workers, name), total(orderbook_workers, name, stream="trade"))
    return int(trades + total(orderbook_workers, name, stream="book"))


def losses(samples: Samples) -> dict[str, float]:
    """What must be zero and is not."""
    counts = {name: total(samples, name) for name in LOSSES}
    return {name: count for name, count in counts.items() if count}


def _get(address: str, path: str) -> str:
    host = address.removeprefix("http://").rstrip("/")
    with urllib.request.urlopen(f"http://{host}{path}", timeout=5) as answer:
        return str(answer.read().decode())
