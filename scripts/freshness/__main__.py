"""
Measures how long a number that has stopped following the exchange is still labelled ``live``.

Every fault is injected into running pipelines, again and again, and five views are watched: a
subscriber of the metrics socket, the Python client, the page, the terminal and ``/readyz``.
"""

import argparse
import json
import multiprocessing
import random
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from scripts.freshness import bench, quiet
from scripts.freshness.faults import FAULTS
from scripts.freshness.report import as_json, summarize, table

QUIET = "quiet"


def measure(faults: list[str], repeat: int, *, parallel: int, seed: int) -> list[bench.Sample]:
    """Inject the faults, in random order, into several pipelines at the same time."""
    work = [fault for _ in range(repeat) for fault in faults if fault != QUIET]
    random.Random(seed).shuffle(work)
    shares = [share for number in range(parallel) if (share := work[number::parallel])]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(parallel + 1, mp_context=context) as pool:
        running = [
            pool.submit(bench.run, number, share, seed + number)
            for number, share in enumerate(shares)
        ]
        if QUIET in faults:
            running.append(pool.submit(quiet.run, repeat))
        return [sample for future in running for sample in future.result()]


def main() -> int:
    """Run and print the table; return 1 if a limit was missed."""
    parser = argparse.ArgumentParser(
        prog="scripts/frozen",
        description="Measure how long numbers that no longer follow the exchange are called live.",
    )
    option = parser.add_argument
    option("--repeat", type=int, default=50, help="repetitions of every fault (default 50)")
    option(
        "--fault",
        nargs="+",
        choices=FAULTS,
        default=list(FAULTS),
        metavar="NAME",
        help=f"faults to inject (default: all): {', '.join(FAULTS)}",
    )
    option("--parallel", type=int, default=3, help="pipelines at the same time (default 3)")
    option("--seed", type=int, default=1, help="random seed of the moments (default 1)")
    option("--json", type=Path, metavar="FILE", help="also write the table as JSON")
    options = parser.parse_args()
    began = time.monotonic()
    samples = measure(options.fault, options.repeat, parallel=options.parallel, seed=options.seed)
    rows = summarize(samples)
    print(table(rows))
    print(f"took {time.monotonic() - began:.0f} s")
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(rows), indent=1) + "\n")
    return 0 if all(row.is_good for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
