"""
Twenty connectors in a storm: how many connections do they open? ``scripts/soak storm``.

Every connection works for a moment and is reset, which is what resets back-off; now and then a
connector is killed and starts again. The proxy counts every connection.
"""

import argparse
import random
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.reliability.rig import Rig
from tests.system.pipeline import kill

BYBIT_MAX, BYBIT_PERIOD_S = 500, 300.0
CONNECTORS = 20
CONFIG = """
[connector]
topics_per_socket = 2
backoff_initial_s = 0.2
backoff_max_s = 1.0
"""


def busiest(times: list[float], period_s: float) -> int:
    """The most attempts in any period."""
    best = first = 0
    for last, moment in enumerate(times):
        while moment - times[first] >= period_s:
            first += 1
        best = max(best, last - first + 1)
    return best


def main() -> int:
    """Run and print; 1 if the limit was exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    symbols = ",".join(f"T{number:02}USDT" for number in range(CONNECTORS))
    with TemporaryDirectory() as directory:
        rig = Rig(Path(directory), symbols=symbols, rate=500, config=CONFIG, followed=set())
        kills = 0
        try:
            rig.pipeline.endpoints()
            names = [e["process"] for e in rig.pipeline.status()["connectors"]]
            assert len(names) == CONNECTORS
            until = time.monotonic() + options.minutes * 60
            next_kill = time.monotonic() + 5.0
            while time.monotonic() < until:
                rig.listen()
                rig.link.reset()
                if time.monotonic() > next_kill:
                    next_kill += 5.0
                    pid = rig.pipeline.pid(chance.choice(names))
                    if pid:
                        kill(pid)
                        kills += 1
                rig.pipeline.socket.poll(200)
        finally:
            rig.close()
    most = busiest(rig.link.attempts, BYBIT_PERIOD_S)
    print(f"connections in all        {len(rig.link.attempts)}, {kills} connectors killed")
    print(f"most in any {BYBIT_PERIOD_S:g} s      {most} (Bybit allows {BYBIT_MAX})")
    print(f"wrong numbers             {len(rig.truth.wrong)}")
    return 1 if most >= BYBIT_MAX or rig.truth.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
