"""
Simulations of the whole path with faults: one seed is one run.

``scripts/simulate_faults`` runs many; the test suite runs a few.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import structlog

from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.plan.plan import make_plan
from tests.simulation.checks import MARGIN_S, Viewer, ViolationError
from tests.simulation.exchange import Exchange
from tests.simulation.faults import KINDS, Faults
from tests.simulation.pipeline import Pipeline
from tests.simulation.world import NEVER, START_S, World

ENDPOINT = "tcp://127.0.0.1:5556"
WARM_UP_S = 4.0
RECOVERY_S = 10.0
"""After the last fault, everything is live within this time."""
LONGEST_WINDOW_S = 10.0
QUIET_S = RECOVERY_S + LONGEST_WINDOW_S + 2.0
LIMIT_S = 3.0
"""The longest time in the table of freshness: one topic silent while others flow."""
DISTURBED_S = 5.5
"""The same while the processes that would notice it are themselves disturbed."""
CHECK_S = 0.05
RECOVERIES = (
    "orderbook not live: gap",
    "orderbook not live: duplicate",
    "orderbook not live: crossed",
    "orderbook not live: disconnected",
    "orderbook not live: process_down",
    "orderbook not live: process_silent",
    "orderbook not live: silent",
    "orderbook not live: source_change",
    "trades not live: disconnected",
    "trades not live: process_down",
    "trades not live: process_silent",
    "queue full",
)
"""What must have happened in a set of runs, besides every fault."""


@dataclass
class Result:
    """What one run showed."""

    seed: int
    hash: str
    seen: Counter[str]
    counts: Counter[str]
    virtual_s: float
    cpu_s: float


class FailedRunError(AssertionError):
    """A run that broke a promise, with what is needed to see it again."""


class Run:
    """One simulation."""

    def __init__(self, seed: int, seconds: float, directory: str) -> None:
        self.seed, self.seconds = seed, seconds
        self.world = World(seed)
        rates = {"AUSDT": 15.0, "BUSDT": 12.0, "CUSDT": 20.0}
        self.exchange = Exchange(self.world, rates)
        config = make_config(
            {
                "source": "live",
                "state_dir": directory,
                "metrics": {"endpoint": ENDPOINT},
                "dashboard": {"enabled": False},
                "connector": {
                    "topics_per_socket": 4,
                    "backoff_initial_s": 0.5,
                    "backoff_max_s": 2.0,
                    "ack_timeout_s": 2.0,
                    "pong_timeout_s": 3.0,
                },
                "trades": {"windows": ["2s", "10s"]},
                "orderbook": {"publish_levels": 5},
                "market": [{"category": "linear", "symbols": list(rates), "depth": 50}],
            }
        )
        self.pipeline = Pipeline(self.world, self.exchange, make_plan(config, run_dir=directory))
        self.viewer = Viewer(self.world, self.pipeline.network, ENDPOINT, self.exchange)
        self.faults = Faults(self.pipeline, seed)
        self.quiet_from = self.world.now

    def execute(self) -> Result:
        """
        Run to the end.

        Raises:
            FailedRunError: If a promise was broken.
        """
        world, began = self.world, time.process_time()
        try:
            world.after(CHECK_S, self._check_freshness)
            world.run_until(world.now + WARM_UP_S)
            self._begin_faults(until=START_S + self.seconds - QUIET_S - 2.0)
            world.run_until(max(START_S + self.seconds - QUIET_S, self.quiet_from))
            world.run_until(max(world.now, self.quiet_from))
            self.faults.end()
            world.run_until(world.now + RECOVERY_S)
            self._check_recovered(with_windows=False)
            world.run_until(world.now + LONGEST_WINDOW_S + 2.0)
            self._check_recovered(with_windows=True)
        except Exception as error:
            raise FailedRunError(self._report(error)) from error
        finally:
            self.pipeline.close()
        return Result(
            self.seed,
            self.viewer.hash.hexdigest(),
            world.seen,
            self.viewer.counts,
            virtual_s=world.now - START_S,
            cpu_s=time.process_time() - began,
        )

    def _begin_faults(self, until: float) -> None:
        def begin() -> None:
            if self.world.now < until:
                self.quiet_from = max(self.quiet_from, self.faults.begin())
                self.world.after(self.world.random.expovariate(0.7), begin)

        begin()

    # -- safety ----------------------------------------------------------------------------------

    def _check_freshness(self) -> None:
        world, faults, viewer = self.world, self.faults, self.viewer
        world.after(CHECK_S, self._check_freshness)
        if world.now < world.asleep_until + 0.2:
            return  # nobody looks
        is_disturbed = world.now < faults.disturbed_until
        limit_s = DISTURBED_S if is_disturbed else LIMIT_S
        for topic in viewer.views:
            lag_s = viewer.follow(topic)
            if lag_s > limit_s + MARGIN_S:
                raise ViolationError(f"{topic} has said live for {lag_s:.2f} s without following")
            if is_disturbed or lag_s <= MARGIN_S:
                continue
            concerned = [
                outage
                for outage in faults.outages
                if outage.start < world.now < outage.end + 1.0
                and self._concerns(outage.process, topic)
            ]
            # The slower of two faults at once decides.
            allowed_s = max((each.limit_s for each in concerned), default=NEVER) + MARGIN_S
            for outage in concerned:
                if outage.start + allowed_s < world.now < outage.end and lag_s > allowed_s:
                    raise ViolationError(
                        f"{topic} says live {lag_s:.2f} s after {outage.process} was {outage.kind}"
                    )

    def _concerns(self, process: str, topic: str) -> bool:
        """Whether the numbers of a topic pass through a process."""
        kind, _, market = topic.partition(".")
        stream = f"{'book' if kind == 'orderbook' else 'trade'}.{market}"
        worker = "orderbook" if kind == "orderbook" else "trades"
        for placement in self.pipeline.plan_in_force.placements:
            if placement.stream.topic == stream:
                workers = [name for name in placement.workers if name.startswith(worker)]
                return process in (placement.connector, *workers)
        return False

    # -- liveness --------------------------------------------------------------------------------

    def _check_recovered(self, *, with_windows: bool) -> None:
        for placement in self.pipeline.plan_in_force.placements:
            stream = placement.stream
            if stream.symbol in self.faults.exempt:
                continue
            kind = "orderbook" if stream.kind == "book" else "trades"
            topic = f"{kind}.{stream.category}.{stream.symbol}"
            view = self.viewer.views.get(topic)
            is_warm = view is not None and view.payload["state"] == "warming"
            if not self.viewer.is_live(topic) and (with_windows or not is_warm):
                raise ViolationError(f"{topic} is not live {RECOVERY_S:.0f} s after the last fault")

    def _report(self, error: Exception) -> str:
        return "\n".join(
            [
                f"seed {self.seed} after {self.world.now - START_S:.3f} virtual seconds: {error!r}",
                *self.world.last,
                self.viewer.report(),
                f"again: scripts/simulate_faults --seed {self.seed} --seconds {self.seconds:g}",
            ]
        )


def simulate(seed: int, seconds: float) -> Result:
    """
    Run one seed.

    Raises:
        FailedRunError: If a promise was broken.
    """
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        with tempfile.TemporaryDirectory(prefix="simulation-") as directory:
            return Run(seed, seconds, directory).execute()
    finally:
        structlog.configure(**before)


def attempt(seed: int, seconds: float) -> Result | str:
    """Run one seed; return what it showed, or the report of its failure."""
    try:
        return simulate(seed, seconds)
    except FailedRunError as failure:
        return str(failure)


def simulate_all(seeds: Iterable[int], seconds: float, jobs: int) -> Iterator[Result | str]:
    """Run many seeds, some of them at the same time; the results are in order."""
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(partial(attempt, seconds=seconds), seeds)


def missing(results: Iterable[Result]) -> list[str]:
    """What no run has exercised."""
    seen: Counter[str] = Counter()
    for result in results:
        seen.update(result.seen)
    return [name for name in (*(f"fault: {kind}" for kind in KINDS), *RECOVERIES) if not seen[name]]


def main() -> int:
    """``--seeds N --seconds S``, or ``--seed K``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="number of runs")
    parser.add_argument("--first", type=int, default=1, help="seed of the first run")
    parser.add_argument("--seconds", type=float, default=60.0, help="virtual seconds of each run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at the same time")
    parser.add_argument("--seed", type=int, help="run only this seed")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        seeds, outcomes = [arguments.seed], iter([attempt(arguments.seed, arguments.seconds)])
    else:
        seeds = list(range(arguments.first, arguments.first + arguments.seeds))
        outcomes = simulate_all(seeds, arguments.seconds, arguments.jobs)
    results: list[Result] = []
    for outcome in outcomes:
        if isinstance(outcome, str):
            print(outcome, file=sys.stderr)
        else:
            results.append(outcome)
            print(f"seed {outcome.seed}: {outcome.hash[:16]}, {outcome.counts.total()} checks")
    unseen = missing(results) if arguments.seed is None else []
    for name in unseen:
        print(f"not exercised: {name}", file=sys.stderr)
    rate = sum(result.virtual_s for result in results) / max(
        1e-9, sum(result.cpu_s for result in results)
    )
    failed = len(seeds) - len(results)
    print(f"{len(seeds)} seeds, {failed} failed, {rate:.1f} virtual seconds per CPU second")
    return 1 if failed or unseen else 0


if __name__ == "__main__":
    sys.exit(main())
