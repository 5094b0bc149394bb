"""
One pipeline with all its views, and the faults that are injected into it one after the other.

Exchange and pipeline are processes, the fault proxy and the views are threads of this one. A fault
begins when everything is live and current, and the next one waits until everything is so again.
"""

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from scripts.freshness import views
from scripts.freshness.faults import FAULTS, HOLD_S, RETURN_S, STREAMS, VIEWS, Fault
from scripts.freshness.judge import TRUTH, Claim, Judge, Key
from scripts.reliability.rig import Rig
from tests.system.pipeline import Pipeline, until

SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
RATE = 300
"""Messages per second: about 50 of every book, and 19 to 68 of the trades of every symbol."""
DASHBOARD = "[dashboard]\nenabled = true\n"
CONFIG = f"""
{DASHBOARD}
[connector]
backoff_initial_s = 0.3
backoff_max_s = 1.0
"""
"""The defaults, except that an exchange that has returned is found soon."""
QUICK_RESTARTS = """
from bybit_pipeline.shared import bybit
from bybit_pipeline.supervisor.children.restart import RestartPolicy
bybit.CONNECTOR_QUOTA = bybit.PIPELINE_QUOTA
RestartPolicy.__init__.__kwdefaults__.update(delay_max_s=0.5, intensity=10**6)
"""
"""
Runs first in every process. A child that is killed fifty times in a row would be flapping, and its
restarts and connections would be delayed. What is measured ends before the restart.
"""
KNOWN_S = 6.0
"""Time after which the rate of a stream is known; a silence before that may be a quiet market."""
FRESH_S = 1.5
"""Everything is current again when no view shows older data."""
POLL_S = 0.01
DETECTED_S = 15.0
"""Observation of a fault that a view does not notice."""
RECOVERED_S = 40.0
DASHBOARD_S = 20.0


class Sample(NamedTuple):
    """One fault as seen by one view."""

    fault: str
    view: str
    frozen_s: float
    is_open: bool = False
    """True if the view had noticed nothing when the observation ended."""
    returned_s: float = 0.0
    late_s: float = 0.0
    """Longest delay of this program itself: the machine was busy, and the figures include it."""


class NotRecoveredError(Exception):
    """A pipeline did not become live and current again."""


class Bench:
    """A pipeline and its views; a context manager."""

    def __init__(self, directory: Path, *, seed: int) -> None:
        self.judge = Judge()
        self._chance = random.Random(seed)
        self._tick = threading.Event()
        self._turn = 0
        self._late_s = 0.0
        self._rig = Rig(
            directory,
            symbols=",".join(SYMBOLS),
            rate=RATE,
            config=CONFIG,
            followed=set(),
        )
        self._views: list[views.View] = []
        self._topics = [f"{kind}.linear.{symbol}" for kind in STREAMS for symbol in SYMBOLS]

    def __enter__(self) -> "Bench":
        try:
            self._rig.pipeline.wait_ready()
            self._views = open_views(self._rig.pipeline, SYMBOLS, self._see)
        except BaseException:
            self._rig.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for view in self._views:
            view.close()
        self._rig.close()

    def _see(self, view: str, topic: str, claim: Claim) -> None:
        self.judge.see(view, topic, claim, now=time.time())

    def measure(self, name: str) -> list[Sample]:
        """
        Inject a fault, observe it, lift it, and wait until everything is current again.

        Raises:
            NotRecoveredError: If it does not become current.
        """
        fault = FAULTS[name]
        self.wait_current()
        self._tick.wait(self._chance.random())  # at any moment between two timers
        self._turn += 1
        self._late_s = 0.0
        symbols = [SYMBOLS[self._turn % len(SYMBOLS)]] if fault.how == "mute" else SYMBOLS
        if fault.how == "mute":
            self._wait_known(fault, symbols)
        pid = self._rig.pipeline.pid(fault.process) if fault.process else 0
        self._inject(fault, symbols, pid)
        began = time.time()
        keys = self._keys(fault, symbols)
        self.judge.begin(keys, now=began, trusts_alive=fault.how != "mute")
        if fault.how == "kill":
            self.judge.lift()  # the supervisor restarts it
        self._observe(fault, began)
        observed = {view: self.judge.end(view, now=time.time()) for view in fault.views}
        self.judge.lift()
        self._lift(fault, pid)
        self.wait_current()
        return [
            Sample(
                name,
                view,
                max(first.frozen_s, last.frozen_s) if not first.is_open else first.frozen_s,
                first.is_open,
                last.returned_s,
                self._late_s,
            )
            for view, first in observed.items()
            for last in (self.judge.end(view, now=time.time()),)
        ]

    def wait_current(self) -> None:
        """
        Wait until every view shows everything live and current.

        Raises:
            NotRecoveredError: If that takes longer than ``RECOVERED_S``.
        """
        deadline = time.time() + RECOVERED_S
        while stale := self._stale():
            check(self._views)
            if time.time() > deadline:
                tail = self._rig.pipeline.log_tail()
                raise NotRecoveredError(f"not current: {stale[:5]}\n{tail}")
            self._pause()

    def _wait_known(self, fault: Fault, symbols: Sequence[str]) -> None:
        """
        Wait until the rate of a stream is known.

        Raises:
            NotRecoveredError: If it does not stay live for ``KNOWN_S``.
        """
        keys = [key for key in self._keys(fault, symbols) if key[0] == TRUTH]
        deadline = time.time() + RECOVERED_S
        while not self.judge.are_live_since(keys, time.time() - KNOWN_S):
            if time.time() > deadline:
                raise NotRecoveredError(f"not live for {KNOWN_S:g} s: {keys}")
            self._pause()

    def _stale(self) -> list[Key]:
        keys = [(view.name, topic) for view in self._views for topic in view.topics]
        return self.judge.stale(keys, fresh_s=FRESH_S, now=time.time())

    def _keys(self, fault: Fault, symbols: Sequence[str]) -> list[Key]:
        topics = [f"{kind}.linear.{symbol}" for kind in fault.streams for symbol in symbols]
        return [
            (view, topic)
            for view in VIEWS
            for topic in ([views.READY] if view == "readyz" else topics)
        ]

    def _observe(self, fault: Fault, began: float) -> None:
        """Wait until every view has noticed, and until the fault has lasted long enough."""
        least = began + (HOLD_S if fault.how == "stop" else 0.0)
        while (now := time.time()) < began + DETECTED_S:
            check(self._views)
            if now >= least and not self.judge.is_frozen(fault.views):
                return
            self._pause()

    def _pause(self) -> None:
        began = time.monotonic()
        self._tick.wait(POLL_S)
        self._late_s = max(self._late_s, time.monotonic() - began - POLL_S)

    # -- what happens ----------------------------------------------------------------------------

    def _inject(self, fault: Fault, symbols: Sequence[str], pid: int) -> None:
        proxy = self._rig.proxy
        match fault.how:
            case "kill":
                os.kill(pid, signal.SIGKILL)
            case "stop":
                os.kill(pid, signal.SIGSTOP)
            case "freeze":
                proxy.mode = "reset"
                proxy.freeze()
            case "mute":
                word = "orderbook.50" if fault.streams == ("orderbook",) else "publicTrade"
                muted = f'"{word}.{symbols[0]}"'.encode()
                proxy.drops = lambda payload: muted in payload[:60]

    def _lift(self, fault: Fault, pid: int) -> None:
        proxy = self._rig.proxy
        match fault.how:
            case "stop":
                with contextlib.suppress(ProcessLookupError):  # killed by the supervisor
                    os.kill(pid, signal.SIGCONT)
            case "freeze":
                proxy.mode = "pass"
            case "mute":
                proxy.drops = None


def open_views(
    pipeline: Pipeline, symbols: list[str], see: Callable[[str, str, Claim], None]
) -> list[views.View]:
    """Open all views of a pipeline that is ready; ``see`` takes the view and what it shows."""
    until(lambda: pipeline.endpoints()["dashboard"], "the dashboard", DASHBOARD_S)
    endpoints = pipeline.endpoints()
    return [
        views.Subscriber(symbols, partial(see, "subscriber"), pipeline.socket),
        views.Client(symbols, partial(see, "client"), endpoints["metrics"]),
        views.Page(symbols, partial(see, "page"), endpoints["dashboard"]),
        views.Terminal(symbols, partial(see, "terminal"), endpoints["metrics"]),
        views.Readyz(symbols, partial(see, "readyz"), endpoints["http"]),
    ]


def check(opened: Iterable[views.View]) -> None:
    """Raise what has ended a view."""
    for view in opened:
        if view.failure is not None:
            raise view.failure


@contextlib.contextmanager
def quick_restarts(directory: Path) -> Iterator[None]:
    """Let pipelines that are started meanwhile restart their children without growing delays."""
    (directory / "sitecustomize.py").write_text(QUICK_RESTARTS)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(directory)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def run(number: int, work: Sequence[str], seed: int) -> list[Sample]:
    """
    Inject the faults of ``work`` one after the other; return what the views saw.

    A pipeline that does not recover is replaced, and the fault counts as never noticed.
    """
    samples: list[Sample] = []
    left = list(work)
    while left:
        with TemporaryDirectory() as name, quick_restarts(Path(name)):
            samples += run_until_broken(number, left, Path(name), seed + len(left))
    return samples


def run_until_broken(number: int, left: list[str], directory: Path, seed: int) -> list[Sample]:
    """Inject faults from ``left`` into one pipeline, until it does not recover."""
    samples: list[Sample] = []
    with Bench(directory, seed=seed) as bench:
        while left:
            fault = left.pop(0)
            try:
                found = bench.measure(fault)
            except NotRecoveredError as error:
                report(number, f"{fault}: {error}")
                return samples + [Sample(fault, v, RECOVERED_S, True) for v in FAULTS[fault].views]
            samples += found
            worst = max(found, key=lambda sample: sample.frozen_s)
            report(number, f"{len(left):>4} left  {fault:<17} {worst.frozen_s:.2f} s")
            (view, topic), age_s = bench.judge.oldest()
            if age_s > RETURN_S:
                report(number, f"{view}: {topic} was live again with data {age_s:.2f} s old")
    return samples


def report(number: int, text: str) -> None:
    """Print the progress of one pipeline."""
    print(f"pipeline {number}: {text}", file=sys.stderr, flush=True)
