"""One run of one contender with one workload: its cost, its duration and its losses."""

import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from scripts.benchmarks.child import Child, RunFailed
from scripts.benchmarks.contenders import Contender
from scripts.benchmarks.load import Load, make_load
from scripts.benchmarks.load_server import load_spec
from scripts.benchmarks.machine import (
    command_line,
    cpu_seconds,
    descendants,
    load_average,
    rss_bytes,
)
from scripts.benchmarks.pipeline import Pipeline, losses, total

ROUND = 100_000
"""Largest number of messages in one round; longer loads repeat rounds."""
START_S = 60.0
SETTLE_S = 1.0
"""Pause between the last snapshot and the first message, for imports, caches and timers."""
STALL_S = 30.0
"""Additional time after which a run has lost messages."""


@dataclass(frozen=True)
class Workload:
    """A load and its rate in messages per second; rate 0 is full speed."""

    symbols: int = 10
    messages: int = 20_000
    rate: float = 0.0
    seed: int = 1
    settings: str = ""
    """Configuration file of this pipeline; empty for the default configuration."""


@dataclass
class Result:
    """The figures of a run. A run with a loss or a failure is not ``ok`` and is not used."""

    contender: str
    workload: Workload
    ok: bool = False
    failure: str = ""
    cpu_us: float | None = None
    """User plus system time of all processes per message, in microseconds."""
    seconds: float | None = None
    """Time from the first message sent to the last one handled."""
    behind_s: float | None = None
    """Time from the last message sent to the last one handled."""
    rate: float | None = None
    """Messages per second, over ``seconds``."""
    cpu_by_process: dict[str, float] = field(default_factory=dict)
    """Microseconds per message."""
    rss_by_process: dict[str, int] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)
    """The report of the load server."""
    load_average: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)


def whole_rounds(messages: int) -> int:
    """Round down to whole rounds of the load server, so that a rival's book can be verified."""
    return messages if messages <= ROUND else messages - messages % ROUND


@lru_cache(maxsize=4)
def expected_load(symbols: int, messages: int, seed: int) -> Load:
    """Return the load that the load server sends."""
    return make_load(load_spec(symbols, messages, ROUND, seed))


def open_server(workload: Workload) -> tuple[Child, str]:
    """Start a load server; return it and its URL."""
    options = {
        "--symbols": workload.symbols,
        "--messages": workload.messages,
        "--round": ROUND,
        "--rate": workload.rate,
        "--seed": workload.seed,
    }
    words = [str(word) for option in options.items() for word in option]
    server = Child("scripts.benchmarks.load_server", *words)
    port = server.wait("listening", START_S + workload.messages / 10_000)["port"]
    return server, f"ws://127.0.0.1:{port}/v5/public/linear"


def run(contender: Contender, workload: Workload) -> Result:
    """Start the load server and a contender, send the load, and return the result."""
    result = Result(contender.name, workload, load_average=load_average())
    server, url = open_server(workload)
    try:
        runner: RivalRun | PipelineRun
        if contender.module:
            runner = RivalRun(contender, workload, url)
        else:
            runner = PipelineRun(workload, url, contender.command)
        try:
            server.wait("subscribed", START_S)
            runner.wait_ready()
            measure(runner, server, workload, result)
        finally:
            runner.close()
    except RunFailed as failure:
        result.failure = str(failure)
    finally:
        server.close()
    return result


def measure(
    runner: "RivalRun | PipelineRun", server: Child, workload: Workload, result: Result
) -> None:
    """Send the load and fill in the result."""
    server.send("prepare")
    server.wait("ready", START_S)
    pids = descendants(runner.pid)
    before = cpu_seconds(pids)
    server.send("start")
    planned_s = workload.messages / workload.rate if workload.rate else 0.0
    try:
        runner.wait_done(server, planned_s + STALL_S + workload.messages / 2_000, result)
    finally:
        after = cpu_seconds(descendants(runner.pid))
        result.rss_by_process = {f"{pid} {command_line(pid)}": rss_bytes(pid) or 0 for pid in pids}
    ended = result.extra.pop("ended_s", None) or time.monotonic()
    spent = {pid: after[pid] - before.get(pid, 0.0) for pid in after}
    result.cpu_us = sum(spent.values()) / workload.messages * 1e6
    result.cpu_by_process = {
        f"{pid} {command_line(pid)}": round(seconds / workload.messages * 1e6, 2)
        for pid, seconds in spent.items()
    }
    result.seconds = ended - result.server["began_s"]
    result.rate = workload.messages / result.seconds
    result.behind_s = max(0.0, ended - result.server["ended_s"])
    result.failure = runner.find_fault(result)
    result.ok = not result.failure


class RivalRun:
    """The driver process of a rival, judged by its own counts and its book."""

    def __init__(self, contender: Contender, workload: Workload, url: str) -> None:
        self._load = expected_load(workload.symbols, workload.messages, workload.seed)
        rounds, rest = divmod(workload.messages, len(self._load.frames))
        assert not rest, "messages must be whole rounds"
        self._reports_touch = contender.reports_touch
        options = {
            "--url": url,
            "--symbols": ",".join(self._load.symbols),
            "--books": str(self._load.books * rounds + workload.symbols),
            "--trades": str(self._load.trades * rounds),
            "--variant": contender.variant,
        }
        words = [word for option in options.items() for word in option]
        self._driver = Child(contender.module, *words)
        self.pid = self._driver.pid
        self._touch: Any = None

    def wait_ready(self) -> None:
        """Wait a moment: the snapshots have been sent, and a rival cannot be asked."""
        time.sleep(SETTLE_S)

    def wait_done(self, server: Child, timeout_s: float, result: Result) -> None:
        """Wait for the driver's report that it has handled everything."""
        done = self._driver.wait("done", timeout_s)
        self._touch = done["touch"]
        result.extra["ended_s"] = done["at_s"]
        result.server = server.wait("done", timeout_s)

    def find_fault(self, _result: Result) -> str:
        """Return a description of a wrong book, else an empty text."""
        expected = self._load.touches[self._load.symbols[0]]
        if self._reports_touch and (not self._touch or tuple(self._touch) != expected):
            return f"best bid and ask are {self._touch}, expected {expected}"
        return ""

    def close(self) -> None:
        """End the driver."""
        self._driver.close()


class PipelineRun:
    """A build of this pipeline, judged by its counters."""

    def __init__(self, workload: Workload, url: str, command: str = "") -> None:
        self._workload = workload
        symbols = expected_load(workload.symbols, workload.messages, workload.seed).symbols
        url = url.replace("/linear", "/{category}")
        self.pipeline = Pipeline(url, symbols, settings=workload.settings, command=command)
        self.pid = self.pipeline.pid
        self._handled = 0

    def wait_ready(self) -> None:
        """Wait until all books are live, and then a moment longer."""
        self.pipeline.wait_live(self._workload.symbols, START_S)
        time.sleep(SETTLE_S)
        self._handled = self.pipeline.handled()

    def wait_done(self, server: Child, timeout_s: float, result: Result) -> None:
        """Wait until the load server has sent and the workers have handled everything."""
        result.server = server.wait("done", timeout_s)
        self.pipeline.wait_handled(self._handled + self._workload.messages, STALL_S)
        result.extra["ended_s"] = time.monotonic()

    def find_fault(self, result: Result) -> str:
        """Return the losses, restarts and resubscriptions of the run, else an empty text."""
        samples = self.pipeline.samples()
        result.extra["published"] = total(samples, "metrics_published_total")
        lost = losses(samples)
        if result.server["resubscribed"]:
            lost["resubscribed"] = result.server["resubscribed"]
        return ", ".join(f"{name} {count:g}" for name, count in lost.items())

    def close(self) -> None:
        """Stop the pipeline."""
        self.pipeline.stop()
