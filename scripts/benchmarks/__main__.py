"""
Measure the pipeline and its rivals; print one table per mode and write JSON.

Modes: cpu, throughput, scale, latency, start, soak. Without a mode: all but soak, which alone takes
five minutes. With --against CHECKOUT: two builds of this pipeline in turns, mode cpu.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from scripts.benchmarks import machine, modes, report
from scripts.benchmarks.child import ROOT
from scripts.benchmarks.contenders import BY_NAME, OURS, builds
from scripts.benchmarks.pipeline import default_command
from scripts.benchmarks.run import Workload, whole_rounds

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
BUSY_LOAD = 0.3
"""Load average above which the machine is called busy."""
EX_USAGE = 64


def parse_options(words: list[str]) -> argparse.Namespace:
    """Return the options; for wrong ones, print a message and exit with code 64."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("modes", nargs="*", metavar="MODE", help=", ".join(MODES))
    option("--only", default="", help="contenders to measure, separated by commas")
    option(
        "--against",
        type=Path,
        metavar="CHECKOUT",
        help="another checkout of this project with its own .venv, to compare with",
    )
    option("--runs", type=int, default=5, help="runs of each contender (default 5)")
    option("--symbols", type=int, default=10, help="number of symbols (default 10)")
    option("--messages", type=int, help="messages per run (default: 5 s at the rate)")
    option(
        "--rate",
        type=float,
        default=4_000.0,
        help="messages per second of cpu and scale (default 4000)",
    )
    option("--many", type=int, default=600, help="larger number of symbols of scale (default 600)")
    option(
        "--settings",
        default=str(MANY_SETTINGS),
        help="configuration file of this pipeline in scale and soak (default many.toml)",
    )
    option(
        "--json",
        type=Path,
        default=Path("bench-results.json"),
        help="file of the results (default bench-results.json)",
    )
    options = parser.parse_args(words)
    if unknown := set(options.modes) - set(MODES):
        _fail(f"unknown mode {', '.join(sorted(unknown))}; allowed: {', '.join(MODES)}")
    names = options.only.split(",") if options.only else list(BY_NAME)
    if unknown := set(names) - set(BY_NAME):
        _fail(f"unknown contender {', '.join(sorted(unknown))}; allowed: {', '.join(BY_NAME)}")
    options.contenders = [BY_NAME[name] for name in names]
    if options.against is not None:
        _choose_builds(options)
    options.modes = options.modes or [mode for mode in MODES if mode != "soak"]
    return options


def _choose_builds(options: argparse.Namespace) -> None:
    options.modes = options.modes or ["cpu"]
    if options.modes != ["cpu"] or options.only:
        _fail("--against compares two builds in mode cpu, without --only")
    try:
        options.contenders = builds(ROOT, Path(os.environ.get("BENCH_CALLER", ""), options.against))
    except ValueError as error:
        _fail(f"--against: {error}")


def _fail(message: str) -> NoReturn:
    print(f"scripts/bench: {message}", file=sys.stderr)
    raise SystemExit(EX_USAGE)


def main(words: list[str]) -> int:
    """Run the requested modes; return 1 if a run of this pipeline failed."""
    options = parse_options(words)
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "versions": {name: _version(name) for name in RIVALS},
        "pipeline_beside_wsaccel": _has_wsaccel(),
        "load_average_at_start": machine.load_average(),
        "notes": {contender.name: contender.note for contender in options.contenders},
    }
    if results["load_average_at_start"] > BUSY_LOAD:
        print(
            f"The machine is busy (load {results['load_average_at_start']:.2f}): absolute figures "
            "are not reliable, ratios may be.",
            file=sys.stderr,
        )
    for mode in options.modes:
        print(f"\n== {mode}", flush=True)
        results[mode] = _MODES[mode](options)
        print(report.table(results[mode]["rows"]))
        if options.against is not None:
            results["builds"] = report.compare_builds(results[mode]["runs"])
            print("\n" + report.table(results["builds"]))
        for key in RATIOS.get(mode, ()):
            if ratio_rows := report.ratios(results[mode]["rows"], key):
                print("\n" + report.table(ratio_rows))
        for name, failure in _failures(results[mode]):
            print(f"{name}: {failure}")
        report.write_json(results, options.json)
    print("\n" + report.notes(options.contenders))
    print(f"\nresults written to {options.json}")
    pipelines = {contender.name for contender in options.contenders if not contender.module}
    failed = {name for mode in options.modes for name, _ in _failures(results[mode])}
    return int(bool(failed & {OURS, *pipelines}))


def _failures(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the failed contenders and their failures; a mode without contenders means ours."""
    named = [
        (row.get("contender", OURS), failure)
        for row in found["rows"]
        for key, failures in row.items()
        if key.startswith("failures")
        for failure in failures
    ]
    return [*named, *((OURS, failure) for failure in found.get("failures", ()))]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _has_wsaccel() -> bool:
    """Return True if the environment of this pipeline contains wsaccel, unlike that of users."""
    python = Path(default_command()).with_name("python")
    found = "import importlib.util, sys; sys.exit(importlib.util.find_spec('wsaccel') is None)"
    return subprocess.run([python, "-c", found], check=False).returncode == 0


def _workload(options: argparse.Namespace, **changes: Any) -> Workload:
    workload = replace(Workload(symbols=options.symbols, rate=options.rate), **changes)
    messages = options.messages or int((workload.rate or 20_000) * 5)
    return replace(workload, messages=whole_rounds(messages))


def _cpu(options: argparse.Namespace) -> dict[str, Any]:
    return modes.cpu(options.contenders, options.runs, _workload(options))


def _throughput(options: argparse.Namespace) -> dict[str, Any]:
    return modes.throughput(options.contenders, options.runs, _workload(options, rate=0.0))


def _scale(options: argparse.Namespace) -> dict[str, Any]:
    chosen = options.contenders if options.only else [modes.ours()]
    workload = _workload(options, settings=options.settings)
    return modes.scale(chosen, options.runs, workload, (10, options.many))


def _latency(options: argparse.Namespace) -> dict[str, Any]:
    return modes.latency(options.runs, _workload(options, symbols=50, rate=5_000.0))


def _start(options: argparse.Namespace) -> dict[str, Any]:
    return modes.start(options.runs, _workload(options))


def _soak(options: argparse.Namespace) -> dict[str, Any]:
    workload = _workload(options, symbols=options.many, rate=20_000.0, settings=options.settings)
    workload = replace(workload, messages=whole_rounds(options.messages or 6_000_000))
    return modes.latency(1, workload)


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
