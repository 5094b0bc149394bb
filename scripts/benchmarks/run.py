"""One run of one contestant against one load: what it cost, how long it took, what it lost."""

import time
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from scripts.benchmarks.contestants import Contestant
from scripts.benchmarks.frames import Load, make_load
from scripts.benchmarks.machine import command_line, cpu_seconds, load_average, rss_bytes, tree
from scripts.benchmarks.ours import Pipeline, losses, total
from scripts.benchmarks.pipes import Failed, Reporter
from scripts.benchmarks.venue import load_spec

ROUND = 100_000
START_S = 60.0
SETTLE_S = 1.0
"""Between the last snapshot and the first message: imports, caches and timers come to rest."""
STALL_S = 30.0
"""Longer than a run should take: then something was lost."""


@dataclass(frozen=True)
class Demand:
    """A load and its rate; 0 is full speed."""

    symbols: int = 10
    messages: int = 20_000
    rate: float = 0.0
    seed: int = 1
    settings: str = ""
    """A configuration file for ours; the default configuration without one."""


@dataclass
class Result:
    """What came out; a run that lost or missed something is not ``ok`` and counts for nothing."""

    contestant: str
    demand: Demand
    ok: bool = False
    failure: str = ""
    cpu_us: float | None = None
    """CPU of all its processes, user and system, a message."""
    seconds: float | None = None
    """From the first message sent to the last one handled."""
    behind_s: float | None = None
    """From the last message sent to the last one handled."""
    rate: float | None = None
    """Messages a second, over ``seconds``."""
    cpu_by_process: dict[str, float] = field(default_factory=dict)
    """Microseconds a message."""
    rss_by_process: dict[str, int] = field(default_factory=dict)
    venue: dict[str, Any] = field(default_factory=dict)
    load_average: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For the JSON report."""
        return asdict(self)


def whole_rounds(messages: int) -> int:
    """At most so many messages, in whole rounds of the venue: what a rival can be checked for."""
    return messages if messages <= ROUND else messages - messages % ROUND


@lru_cache(maxsize=4)
def truth(symbols: int, messages: int, seed: int) -> Load:
    """The load as the venue makes it."""
    return make_load(load_spec(symbols, messages, ROUND, seed))


def open_venue(demand: Demand) -> tuple[Reporter, str]:
    """A load server and its address."""
    venue = Reporter(
        "scripts.benchmarks.venue",
        "--symbols",
        str(demand.symbols),
        "--messages",
        str(demand.messages),
        "--round",
        str(ROUND),
        "--rate",
        str(demand.rate),
        "--seed",
        str(demand.seed),
    )
    port = venue.wait("listening", START_S + demand.messages / 10_000)["port"]
    return venue, f"ws://127.0.0.1:{port}/v5/public/linear"


def run(contestant: Contestant, demand: Demand) -> Result:
    """Start both sides, send, wait, account; failures are in the result."""
    result = Result(contestant.name, demand, load_average=load_average())
    venue, url = open_venue(demand)
    try:
        side = _Rival(contestant, demand, url) if contestant.module else Ours(demand, url)
        try:
            venue.wait("subscribed", START_S)
            side.wait_ready()
            measure(side, venue, demand, result)
        finally:
            side.close()
    except Failed as failure:
        result.failure = str(failure)
    finally:
        venue.close()
    return result


def measure(side: "_Rival | Ours", venue: Reporter, demand: Demand, result: Result) -> None:
    """Send the load and account for it."""
    venue.tell("lay out")
    venue.wait("ready", START_S)
    pids = tree(side.pid)
    before = cpu_seconds(pids)
    venue.tell("go")
    planned_s = demand.messages / demand.rate if demand.rate else 0.0
    try:
        side.wait_done(venue, planned_s + STALL_S + demand.messages / 2_000, result)
    finally:
        after = cpu_seconds(tree(side.pid))
        result.rss_by_process = {f"{pid} {command_line(pid)}": rss_bytes(pid) or 0 for pid in pids}
    ended = result.extra.pop("ended_s", None) or time.monotonic()
    spent = {pid: after[pid] - before.get(pid, 0.0) for pid in after}
    result.cpu_us = sum(spent.values()) / demand.messages * 1e6
    result.cpu_by_process = {
        f"{pid} {command_line(pid)}": round(seconds / demand.messages * 1e6, 2)
        for pid, seconds in spent.items()
    }
    result.seconds = ended - result.venue["began_s"]
    result.rate = demand.messages / result.seconds
    result.behind_s = max(0.0, ended - result.venue["ended_s"])
    result.failure = side.fault(result)
    result.ok = not result.failure


class _Rival:
    """A rival's driver process."""

    def __init__(self, contestant: Contestant, demand: Demand, url: str) -> None:
        self._load = truth(demand.symbols, demand.messages, demand.seed)
        rounds, rest = divmod(demand.messages, len(self._load.frames))
        assert not rest, "messages are whole rounds"
        self._books = self._load.books * rounds + demand.symbols
        self._trades = self._load.trades * rounds
        self._reports_touch = contestant.reports_touch
        self._reporter = Reporter(
            contestant.module,
            "--url",
            url,
            "--symbols",
            ",".join(self._load.symbols),
            "--books",
            str(self._books),
            "--trades",
            str(self._trades),
            "--variant",
            contestant.variant,
        )
        self.pid = self._reporter.pid
        self._touch: Any = None

    def wait_ready(self) -> None:
        """There is nothing to ask a rival; its snapshots have been sent."""
        time.sleep(SETTLE_S)

    def wait_done(self, venue: Reporter, timeout_s: float, result: Result) -> None:
        """Its own word that it has handled everything."""
        done = self._reporter.wait("done", timeout_s)
        self._touch = done["touch"]
        result.extra["ended_s"] = done["at_s"]
        result.venue = venue.wait("done", timeout_s)

    def fault(self, _result: Result) -> str:
        """A book that is not what was sent."""
        expected = self._load.touches[self._load.symbols[0]]
        if self._reports_touch and (not self._touch or tuple(self._touch) != expected):
            return f"best bid and ask are {self._touch}, sent was {expected}"
        return ""

    def close(self) -> None:
        """End it."""
        self._reporter.close()


class Ours:
    """The pipeline, judged by its counters."""

    def __init__(self, demand: Demand, url: str) -> None:
        self._demand = demand
        symbols = truth(demand.symbols, demand.messages, demand.seed).symbols
        url = url.replace("/linear", "/{category}")
        self.pipeline = Pipeline(url, symbols, demand.settings)
        self.pid = self.pipeline.pid
        self._handled = 0
        self._before: Any = {}

    def wait_ready(self) -> None:
        """All books live, then quiet."""
        self.pipeline.wait_live(self._demand.symbols, START_S)
        time.sleep(SETTLE_S)
        self._handled = self.pipeline.handled()

    def wait_done(self, venue: Reporter, timeout_s: float, result: Result) -> None:
        """The venue has sent everything, then the workers' counters say the same."""
        result.venue = venue.wait("done", timeout_s)
        self.pipeline.wait_handled(self._handled + self._demand.messages, STALL_S)
        result.extra["ended_s"] = time.monotonic()

    def fault(self, result: Result) -> str:
        """Anything lost, restarted or resynchronised."""
        samples = self.pipeline.samples()
        result.extra["published"] = total(samples, "metrics_published_total")
        lost = losses(samples)
        if result.venue["resubscribed"]:
            lost["resubscribed"] = result.venue["resubscribed"]
        return ", ".join(f"{name} {count:g}" for name, count in lost.items())

    def close(self) -> None:
        """Stop it in order."""
        self.pipeline.stop()
