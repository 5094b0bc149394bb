"""
``scripts/bench [MODES] [options]``: measure, print one table a mode, write JSON.

Modes: cpu, throughput, scale, latency, start, soak. Without any: all but soak, which takes five
minutes by itself.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from scripts.benchmarks import machine, modes, report
from scripts.benchmarks.contestants import BY_NAME, OURS
from scripts.benchmarks.ours import command
from scripts.benchmarks.run import Demand, whole_rounds

MODES = ("cpu", "throughput", "scale", "latency", "start", "soak")
RIVALS = (
    "pybit",
    "wsaccel",
    "ccxt",
    "cryptofeed",
    "picows",
    "uvloop",
    "msgspec",
    "pyzmq",
    "orjson",
    "aiohttp",
    "websockets",
    "websocket-client",
)
RATIOS = {"cpu": ("full_cpu_us", "cpu_us"), "throughput": ("full_cpu_us", "held_rate")}
MANY_SETTINGS = Path(__file__).with_name("many.toml")
QUIET = 0.3
"""Load average above which the machine is called busy."""


def arguments(words: list[str]) -> argparse.Namespace:
    """The options; a message and exit code 64 for wrong ones."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("modes", nargs="*", metavar="MODE", help=", ".join(MODES))
    parser.add_argument("--only", default="", help="contestants, separated by commas")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--symbols", type=int, default=10)
    parser.add_argument("--messages", type=int, help="a run; default: 5 s at the rate")
    parser.add_argument("--rate", type=float, default=4_000.0, help="messages/s of cpu and scale")
    parser.add_argument("--many", type=int, default=600, help="symbols at the far end of scale")
    parser.add_argument(
        "--settings", default=str(MANY_SETTINGS), help="configuration of ours in scale and soak"
    )
    parser.add_argument("--exact", action="store_true", help="latency: also a listener")
    parser.add_argument("--json", type=Path, default=Path("bench-results.json"))
    options = parser.parse_args(words)
    options.modes = options.modes or [mode for mode in MODES if mode != "soak"]
    unknown = set(options.modes) - set(MODES)
    names = options.only.split(",") if options.only else list(BY_NAME)
    if unknown or set(names) - set(BY_NAME):
        print(
            f"unknown: {', '.join(sorted(unknown | (set(names) - set(BY_NAME))))}; "
            f"modes: {', '.join(MODES)}; contestants: {', '.join(BY_NAME)}",
            file=sys.stderr,
        )
        raise SystemExit(64)
    options.contestants = [BY_NAME[name] for name in names]
    return options


def main(words: list[str]) -> int:
    """Run the modes asked for; 1 if a run of ours failed."""
    options = arguments(words)
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "versions": {name: metadata.version(name) for name in RIVALS},
        "pipeline_beside_wsaccel": _has_wsaccel(),
        "load_average_at_start": machine.load_average(),
        "notes": {c.name: c.note for c in options.contestants},
    }
    if results["load_average_at_start"] > QUIET:
        print(
            f"The machine is busy (load {results['load_average_at_start']:.2f}): ratios may "
            "still hold, absolute figures do not.",
            file=sys.stderr,
        )
    for mode in options.modes:
        print(f"\n== {mode}", flush=True)
        results[mode] = _MODES[mode](options)
        print(report.table(results[mode]["rows"]))
        for key in RATIOS.get(mode, ()):
            if ratio_rows := report.ratios(results[mode]["rows"], key):
                print("\n" + report.table(ratio_rows))
        for who, failure in _failures(results[mode]):
            print(f"{who}: {failure}")
        report.write_json(results, options.json)
    print("\n" + report.notes([contestant.name for contestant in options.contestants]))
    print(f"\nwritten to {options.json}")
    return int(any(who == OURS for mode in options.modes for who, _ in _failures(results[mode])))


def _failures(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Who failed, and how; the modes that measure only the pipeline name nobody."""
    named = [
        (row.get("contestant", OURS), failure)
        for row in found["rows"]
        for key, failures in row.items()
        if key.startswith("failures")
        for failure in failures
    ]
    return [*named, *((OURS, failure) for failure in found.get("failures", ()))]


def _has_wsaccel() -> bool:
    """Whether the pipeline's own environment holds wsaccel, which its users' does not."""
    python = Path(command()).with_name("python")
    found = "import importlib.util, sys; sys.exit(importlib.util.find_spec('wsaccel') is None)"
    return subprocess.run([python, "-c", found], check=False).returncode == 0


def _demand(options: argparse.Namespace, **changes: Any) -> Demand:
    demand = replace(Demand(symbols=options.symbols, rate=options.rate), **changes)
    messages = options.messages or int((demand.rate or 20_000) * 5)
    return replace(demand, messages=whole_rounds(messages))


def _cpu(options: argparse.Namespace) -> dict[str, Any]:
    return modes.cpu(options.contestants, options.runs, _demand(options))


def _throughput(options: argparse.Namespace) -> dict[str, Any]:
    return modes.throughput(options.contestants, options.runs, _demand(options, rate=0.0))


def _scale(options: argparse.Namespace) -> dict[str, Any]:
    chosen = options.contestants if options.only else [modes.ours()]
    demand = _demand(options, settings=options.settings)
    return modes.scale(chosen, options.runs, demand, (10, options.many))


def _latency(options: argparse.Namespace) -> dict[str, Any]:
    demand = _demand(options, symbols=50, rate=5_000.0)
    return modes.latency(options.runs, demand, is_exact=options.exact)


def _start(options: argparse.Namespace) -> dict[str, Any]:
    return modes.start(options.runs, _demand(options))


def _soak(options: argparse.Namespace) -> dict[str, Any]:
    demand = _demand(options, symbols=options.many, rate=20_000.0, settings=options.settings)
    demand = replace(demand, messages=whole_rounds(options.messages or 6_000_000))
    return modes.latency(1, demand, is_exact=False)


_MODES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "cpu": _cpu,
    "throughput": _throughput,
    "scale": _scale,
    "latency": _latency,
    "start": _start,
    "soak": _soak,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
