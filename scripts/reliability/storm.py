"""
A storm of reconnects: the connections that twenty connectors open, ``scripts/soak storm``.

Every connection works for a moment, which resets the backoff, and is then reset. From time to time
a connector is killed and restarted. The proxy counts every connection.
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
    """Return the largest number of attempts in any period."""
    best = first = 0
    for last, moment in enumerate(times):
        while moment - times[first] >= period_s:
            first += 1
        best = max(best, last - first + 1)
    return best


def main() -> int:
    """Run and print the figures; return 1 if the limit was exceeded or a number was wrong."""
    parser = argparse.ArgumentParser(
        prog="scripts/soak storm",
        description="Count the connections of twenty connectors whose connections are reset.",
    )
    parser.add_argument("--minutes", type=float, default=6.0, help="duration")
    parser.add_argument("--seed", type=int, default=1, help="random seed")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    symbols = ",".join(f"T{number:02}USDT" for number in range(CONNECTORS))
    with TemporaryDirectory() as directory:
        rig = Rig(Path(directory), symbols=symbols, rate=500, config=CONFIG, followed=set())
        kills = 0
        try:
            rig.pipeline.endpoints()
            names = [entry["process"] for entry in rig.pipeline.status()["connectors"]]
            assert len(names) == CONNECTORS
            until = time.monotonic() + options.minutes * 60
            next_kill = time.monotonic() + 5.0
            while time.monotonic() < until:
                rig.listen()
                rig.proxy.reset()
                if time.monotonic() > next_kill:
                    next_kill += 5.0
                    pid = rig.pipeline.pid(chance.choice(names))
                    if pid:
                        kill(pid)
                        kills += 1
                rig.pipeline.socket.poll(200)
        finally:
            rig.close()
    most = busiest(rig.proxy.attempts, BYBIT_PERIOD_S)
    print(f"connections in total      {len(rig.proxy.attempts)}, {kills} connectors killed")
    print(f"most in any {BYBIT_PERIOD_S:g} s      {most} (Bybit allows {BYBIT_MAX})")
    print(f"wrong numbers             {len(rig.oracle.wrong)}")
    return 1 if most >= BYBIT_MAX or rig.oracle.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
