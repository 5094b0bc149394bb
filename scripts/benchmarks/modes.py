"""
The modes: CPU, throughput, scale, latency, start and the long run.

Each mode returns a report: the rows of a table, and the runs behind them. Contenders take turns
within every run, so that a disturbance of the machine affects all of them. Figures are medians.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import msgpack
import zmq

from scripts.benchmarks.child import RunFailed
from scripts.benchmarks.contenders import BY_NAME, OURS, Contender
from scripts.benchmarks.load import symbol_names
from scripts.benchmarks.pipeline import Pipeline, Samples
from scripts.benchmarks.run import (
    PipelineRun,
    Result,
    Workload,
    measure,
    open_server,
    run,
    whole_rounds,
)

Row = dict[str, Any]
Report = dict[str, Any]

TRIED_SHARES = tuple(percent / 100 for percent in range(100, 25, -5))
"""Shares of the full-speed rate to try, in this order."""
HOLD_S = 5.0
FULL_SPEED_MESSAGES = 100_000
"""
Smallest number of messages at full speed. The clock of CPU time ticks 100 times per second, so a
run needs half a second of CPU at 5 us per message. All messages fit into the bounded queues, so
that full speed is no test of losses; ``throughput`` is.
"""
BEHIND_S = 0.5
"""A rate is sustained if everything is handled within this time after the last message."""


def cpu(contenders: Sequence[Contender], runs: int, workload: Workload) -> Report:
    """
    Measure CPU per message of all processes, at a modest rate and at full speed.

    At a modest rate most messages wake their reader, which costs a design with several processes
    more. At full speed, messages that arrive together are read together. The report has both.
    """
    paced = take_turns(contenders, runs, lambda contender: run(contender, workload))
    flat_out = replace(workload, rate=0.0, messages=max(workload.messages, FULL_SPEED_MESSAGES))
    full = take_turns(contenders, runs, lambda contender: run(contender, flat_out))
    rows = []
    for name in paced:
        row, fast = _row(name, paced[name]), _row(name, full[name])
        row |= {"full_cpu_us": fast["cpu_us"], "full_rate": fast["rate"]}
        row |= {"full_ok": fast["ok"], "failures_full": fast["failures"]}
        rows.append(row)
    return {"workload": workload, "rows": rows, "runs": {"paced": paced, "full speed": full}}


def throughput(contenders: Sequence[Contender], runs: int, workload: Workload) -> Report:
    """Measure full speed, then find the highest rate without a loss or a growing queue."""

    def search(contender: Contender) -> Result:
        full = run(contender, replace(workload, rate=0.0))
        if not full.ok or full.rate is None:
            return full
        for share in TRIED_SHARES:
            rate = full.rate * share
            held = run(
                contender, replace(workload, rate=rate, messages=whole_rounds(int(rate * HOLD_S)))
            )
            if _is_sustained(held):
                held.extra["full_speed"] = {"rate": full.rate, "cpu_us": full.cpu_us}
                held.extra["held_rate"] = rate
                return held
        full.ok, full.failure = False, "no rate could be sustained"
        return full

    results = take_turns(contenders, runs, search)
    rows = []
    for name, of in results.items():
        good = [result for result in of if result.ok]
        rows.append(
            _row(name, of)
            | {
                "held_rate": _median([result.extra["held_rate"] for result in good]),
                "full_rate": _median([result.extra["full_speed"]["rate"] for result in good]),
                "full_cpu_us": _median([result.extra["full_speed"]["cpu_us"] for result in good]),
            }
        )
    return {"workload": workload, "rows": rows, "runs": results}


def scale(
    contenders: Sequence[Contender], runs: int, workload: Workload, symbols: tuple[int, int]
) -> Report:
    """Measure CPU per message and memory with few and with many symbols, at the same rate."""
    rows, every = [], {}
    workloads = {count: replace(workload, symbols=count) for count in symbols}
    for contender in contenders:
        every[contender.name] = {
            count: [run(contender, wanted) for _ in range(runs)]
            for count, wanted in workloads.items()
        }
        row: Row = {"contender": contender.name}
        for count, results in every[contender.name].items():
            part = _row(contender.name, results)
            row[f"cpu_us_{count}"], row[f"failures_{count}"] = part["cpu_us"], part["failures"]
            row[f"rss_mb_{count}"] = part["rss_mb"]
        few, many = (row[f"cpu_us_{count}"] for count in symbols)
        row["growth"] = many / few if few and many else None
        memory = [row[f"rss_mb_{count}"] for count in symbols]
        if all(memory):
            row["kb_per_symbol"] = (memory[1] - memory[0]) * 1e3 / (symbols[1] - symbols[0])
        rows.append(row)
    return {"workload": workload, "rows": rows, "runs": every}


def latency(runs: int, workload: Workload) -> Report:
    """Measure the time from the socket to the worker and to the metric, from its histograms."""
    rows, kept = [], []
    for number in range(runs):
        found: dict[str, Samples] = {}
        result = Result(OURS, workload)
        server, url = open_server(workload)
        runner = PipelineRun(workload, url)
        try:
            server.wait("subscribed", 60)
            runner.wait_ready()
            found["before"] = runner.pipeline.samples()
            measure(runner, server, workload, result)
            found["after"] = runner.pipeline.samples()
        except RunFailed as failure:
            result.ok, result.failure = False, str(failure)
        finally:
            runner.close()
            server.close()
        kept.append(result)
        if not result.ok:
            continue
        for process, quantiles in histogram_quantiles(found, "bus_latency_seconds").items():
            rows.append({"run": number, "where": process, **quantiles})
        for process, quantiles in histogram_quantiles(found, "metric_latency_seconds").items():
            rows.append({"run": number, "where": f"{process} metric", **quantiles})
    failures = [result.failure for result in kept if not result.ok]
    return {"workload": workload, "rows": _median_rows(rows), "failures": failures, "runs": kept}


def start(runs: int, workload: Workload) -> Report:
    """Measure the time from the command to the first live book on the metrics socket."""
    seconds = []
    for _ in range(runs):
        server, url = open_server(workload)
        context = zmq.Context()
        pipeline = None
        try:
            began = time.monotonic()
            pipeline = Pipeline(url, symbol_names(workload.symbols))
            socket = context.socket(zmq.SUB)
            socket.setsockopt(zmq.RECONNECT_IVL, 5)
            socket.subscribe(b"orderbook.")
            socket.connect(pipeline.metrics)
            seconds.append(_first_live(socket, began))
        finally:
            context.destroy(linger=0)
            if pipeline:
                pipeline.stop()
            server.close()
    row = {"what": "start to first live book", "median_s": median(seconds), "max_s": max(seconds)}
    return {"workload": workload, "rows": [row], "runs": seconds}


def take_turns(
    contenders: Sequence[Contender], runs: int, measure_one: Callable[[Contender], Result]
) -> dict[str, list[Result]]:
    """Return ``runs`` results of each contender; the order rotates by one from run to run."""
    results: dict[str, list[Result]] = {contender.name: [] for contender in contenders}
    for number in range(runs):
        turn = number % len(contenders)
        for contender in (*contenders[turn:], *contenders[:turn]):
            result = measure_one(contender)
            results[contender.name].append(result)
            _print_progress(number, runs, result)
    return results


def ours() -> Contender:
    """Return this pipeline as a contender."""
    return BY_NAME[OURS]


# -- small helpers ---------------------------------------------------------------------------------


def _row(name: str, results: Sequence[Result]) -> Row:
    """Return medians over the runs that were ``ok``, and the failures of the others."""
    good = [result for result in results if result.ok]
    return {
        "contender": name,
        "cpu_us": _median([result.cpu_us for result in good]),
        "rate": _median([result.rate for result in good]),
        "behind_s": _median([result.behind_s for result in good]),
        "rss_mb": _median([sum(result.rss_by_process.values()) / 1e6 for result in good]),
        "ok": f"{len(good)}/{len(results)}",
        "failures": [result.failure for result in results if not result.ok],
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _is_sustained(result: Result) -> bool:
    if not result.ok or result.behind_s is None:
        return False
    return result.behind_s <= BEHIND_S and result.server["late_end_s"] <= BEHIND_S


def _print_progress(number: int, runs: int, result: Result) -> None:
    cost = "-" if result.cpu_us is None else f"{result.cpu_us:7.1f} us"
    rate = "-" if result.rate is None else f"{result.rate:9,.0f}/s"
    text = f"run {number + 1}/{runs}  {result.contender:<16} {cost}  {rate}  {result.failure}"
    print(text, file=sys.stderr, flush=True)


def _first_live(socket: "zmq.Socket[bytes]", began: float) -> float:
    while socket.poll(30_000):
        _, payload = socket.recv_multipart()
        if msgpack.unpackb(payload)["state"] == "live":
            return time.monotonic() - began
    raise TimeoutError("no live book within 30 s")


def histogram_quantiles(found: dict[str, Samples], family: str) -> dict[str, Row]:
    """
    Return quantiles by process of what a histogram gained between two scrapes, in microseconds.

    A quantile is the upper bound of its bucket.
    """
    gained: dict[str, dict[float, float]] = {}
    for (name, labels), value in found["after"].items():
        if name == f"{family}_bucket":
            fields = dict(labels)
            before = found["before"].get((name, labels), 0.0)
            buckets = gained.setdefault(fields["process"], {})
            bound = float(fields["le"])
            buckets[bound] = buckets.get(bound, 0.0) + value - before
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    quantiles = {}
    for process, buckets in gained.items():
        count = buckets.get(float("inf"), 0.0)
        if not count:
            continue
        row: Row = {"count": int(count)}
        for label, share in shares.items():
            bound = min(b for b, held in sorted(buckets.items()) if held >= share * count)
            row[label] = bound * 1e6
        quantiles[process] = row
    return quantiles


def _median_rows(rows: Sequence[Row]) -> list[Row]:
    """Return one row per place: medians over the runs."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["where"], []).append(row)
    return [
        {"where": where}
        | {
            key: median([row[key] for row in group])
            for key in group[0]
            if key not in ("where", "run")
        }
        for where, group in groups.items()
    ]
