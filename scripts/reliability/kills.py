"""
Kills of every child at random moments under load: ``scripts/soak kills --kills 200``.

The kills are spaced so that no child exceeds its restart intensity. After each kill the pipeline
must be ready within five seconds, the other children undisturbed, and every published book right.
Nothing may be left at the end.
"""

import argparse
import random
import time
from collections import Counter, defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from scripts.reliability.rig import CONNECTOR, QUICK, Rig
from tests.system.pipeline import kill, until

CHILDREN = ("forwarder", "trades-0", "orderbook-0", CONNECTOR)
STABLE_S, IN_A_ROW = 62.0, 2
"""
A child is killed up to ``IN_A_ROW`` times and then left alone for ``STABLE_S``: the delay of
restarts grows with every failure in a row, so after more kills it could not be ready in time.
"""
READY_S = 5.0


def run(rig: Rig, kills: int, *, seed: int) -> dict[str, list[float]]:
    """Kill children and wait; return the seconds until ready, by process."""
    chance = random.Random(seed)
    pipeline = rig.pipeline
    recent: defaultdict[str, list[float]] = defaultdict(list)
    took: defaultdict[str, list[float]] = defaultdict(list)
    done = 0
    while done < kills:
        now = time.monotonic()
        for name, times in recent.items():
            if times and now - times[-1] > STABLE_S:
                recent[name] = []
        allowed = [name for name in CHILDREN if len(recent[name]) < IN_A_ROW]
        until_s = now + chance.uniform(0.0, 2.0)
        while time.monotonic() < until_s:
            rig.listen()
            pipeline.socket.poll(50)
        if not allowed:
            continue
        name = chance.choice(allowed)
        before = {child: pipeline.pid(child) for child in CHILDREN}
        began = time.monotonic()
        kill(before[name])
        recent[name].append(began)

        def is_back(name: str = name, old: int = before[name]) -> bool:
            rig.listen()
            return pipeline.pid(name) not in (old, 0) and pipeline.http("/readyz")[0] == 200

        until(is_back, f"{name} ready again", 20)
        took[name].append(time.monotonic() - began)
        done += 1
        after = {child: pipeline.pid(child) for child in CHILDREN}
        changed = {child for child in CHILDREN if before[child] != after[child]}
        assert changed == {name}, f"{name} was killed, {changed} changed"
        if done % 20 == 0:
            print(f"{done} kills, wrong numbers {len(rig.oracle.wrong)}", flush=True)
    return dict(took)


def main() -> int:
    """Run and print the figures; return 1 if anything was late or wrong."""
    parser = argparse.ArgumentParser(
        prog="scripts/soak kills", description="Kill every child at random moments under load."
    )
    parser.add_argument("--kills", type=int, default=200, help="number of kills")
    parser.add_argument("--rate", type=int, default=1_000, help="messages per second")
    parser.add_argument("--seed", type=int, default=1, help="random seed")
    options = parser.parse_args()
    with TemporaryDirectory() as directory:
        rig = Rig(
            Path(directory),
            rate=options.rate,
            config=QUICK + "[prometheus]\nport = 0\n",
        )
        try:
            rig.until_live(30)
            took = run(rig, options.kills, seed=options.seed)
            entries = rig.pipeline.status()["processes"]
            files = {e["process"]: psutil.Process(e["pid"]).num_fds() for e in entries}
            restarts = Counter({e["process"]: e["restarts"] for e in entries})
            rig.pipeline.stop()  # asserts that no child and no file is left
        finally:
            rig.close()
    for name, seconds in took.items():
        ordered = sorted(seconds)
        print(
            f"{name:<20} {len(ordered)} kills, ready after {ordered[len(ordered) // 2]:.2f} s "
            f"(median), {ordered[-1]:.2f} s (longest)"
        )
    print(f"restarts             {dict(restarts)}")
    print(f"descriptors          {files}")
    print(f"live books compared  {rig.oracle.checked}")
    print(f"wrong numbers        {len(rig.oracle.wrong)} {rig.oracle.wrong[:5]}")
    late = sum(second > READY_S for seconds in took.values() for second in seconds)
    print(f"later than {READY_S:g} s       {late}")
    return 1 if late or rig.oracle.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
