"""
What is measured: CPU, throughput, scale, latency, start, and the long run.

Every mode gives one report: rows for the table and everything behind them. Contestants take turns
within every run, so that what disturbs the machine disturbs all of them; figures are medians.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import msgpack
import zmq

from scripts.benchmarks.contestants import BY_NAME, OURS, Contestant
from scripts.benchmarks.frames import symbol_names
from scripts.benchmarks.ours import Pipeline, Samples
from scripts.benchmarks.pipes import Failed, Reporter
from scripts.benchmarks.run import Demand, Ours, Result, measure, open_venue, run, whole_rounds

Row = dict[str, Any]
Report = dict[str, Any]

HEADROOM = tuple(percent / 100 for percent in range(100, 25, -5))
"""Shares of the full-speed rate that the search tries, downwards."""
HOLD_S = 5.0
FULL_SPEED_MESSAGES = 100_000
"""Half a second of CPU at 5 us a message, as clocks tick 100 times a second; all of them fit the
bounded queues, so that full speed is no test of losses (``throughput`` is)."""
BEHIND_S = 0.5
"""A rate holds if everything is handled this soon after the last message was sent."""


def cpu(contestants: Sequence[Contestant], runs: int, demand: Demand) -> Report:
    """
    CPU a message of all processes, at one modest rate and at full speed.

    At a modest rate most messages wake their reader, and a design of several processes pays that
    for each; at full speed what arrives together is read together. Both are true, so both stand.
    """
    paced = take_turns(contestants, runs, lambda contestant: run(contestant, demand))
    flat_out = replace(demand, rate=0.0, messages=max(demand.messages, FULL_SPEED_MESSAGES))
    full = take_turns(contestants, runs, lambda contestant: run(contestant, flat_out))
    rows = []
    for name in paced:
        row, fast = _row(name, paced[name]), _row(name, full[name])
        row |= {"full_cpu_us": fast["cpu_us"], "full_rate": fast["rate"]}
        row |= {"full_ok": fast["ok"], "failures_full": fast["failures"]}
        rows.append(row)
    return {"demand": demand, "rows": rows, "runs": {"paced": paced, "full": full}}


def throughput(contestants: Sequence[Contestant], runs: int, demand: Demand) -> Report:
    """Full speed, then the highest rate that holds without a loss or a growing queue."""

    def search(contestant: Contestant) -> Result:
        full = run(contestant, replace(demand, rate=0.0))
        if not full.ok or full.rate is None:
            return full
        for share in HEADROOM:
            rate = full.rate * share
            held = run(
                contestant, replace(demand, rate=rate, messages=whole_rounds(int(rate * HOLD_S)))
            )
            if _holds(held):
                held.extra["full_speed"] = {"rate": full.rate, "cpu_us": full.cpu_us}
                held.extra["held_rate"] = rate
                return held
        full.ok, full.failure = False, "no rate held"
        return full

    results = take_turns(contestants, runs, search)
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
    return {"demand": demand, "rows": rows, "runs": results}


def scale(
    contestants: Sequence[Contestant], runs: int, demand: Demand, symbols: tuple[int, int]
) -> Report:
    """CPU a message with few and with many symbols, at the same rate; memory of ours."""
    rows, every = [], {}
    demands = {count: replace(demand, symbols=count) for count in symbols}
    for contestant in contestants:
        every[contestant.name] = {
            count: [run(contestant, wanted) for _ in range(runs)]
            for count, wanted in demands.items()
        }
        row: Row = {"contestant": contestant.name}
        for count, results in every[contestant.name].items():
            part = _row(contestant.name, results)
            row[f"cpu_us_{count}"], row[f"failures_{count}"] = part["cpu_us"], part["failures"]
            row[f"rss_mb_{count}"] = part["rss_mb"]
        few, many = (row[f"cpu_us_{count}"] for count in symbols)
        row["growth"] = many / few if few and many else None
        memory = [row[f"rss_mb_{count}"] for count in symbols]
        if all(memory):
            row["kb_a_symbol"] = (memory[1] - memory[0]) * 1e3 / (symbols[1] - symbols[0])
        rows.append(row)
    return {"demand": demand, "rows": rows, "runs": every}


def latency(runs: int, demand: Demand, *, is_exact: bool) -> Report:
    """
    Socket to worker: from the workers' own histograms, and exactly from a listener if asked for.

    The histogram counts every message in the process that matters, in buckets; the listener is one
    more process on the bus that applies the same books and keeps every sample, at the price of
    competing for the two cores.
    """
    rows, kept = [], []
    for number in range(runs):
        found: dict[str, Samples] = {}
        exact: Row = {}
        result = Result(OURS, demand)
        venue, url = open_venue(demand)
        side = Ours(demand, url)
        shadow = None
        try:
            venue.wait("subscribed", 60)
            side.wait_ready()
            if is_exact:
                shadow = _shadow(side.pipeline, demand)
            found["before"] = side.pipeline.samples()
            measure(side, venue, demand, result)
            found["after"] = side.pipeline.samples()
            exact = shadow.wait("latency", 30) if shadow else {}
        except Failed as failure:
            result.ok, result.failure = False, str(failure)
        finally:
            if shadow:
                shadow.close()
            side.close()
            venue.close()
        kept.append(result)
        if not result.ok:
            continue
        for process, spread in _bucketed(found, "bus_latency_seconds").items():
            rows.append({"run": number, "where": process, "how": "histogram", **spread})
        for process, spread in _bucketed(found, "metric_latency_seconds").items():
            rows.append({"run": number, "where": f"{process} metric", "how": "histogram", **spread})
        rows.extend(
            {"run": number, "where": where, "how": "exact", **exact[where]}
            for where in ("book", "trade")
            if where in exact
        )
    failures = [result.failure for result in kept if not result.ok]
    return {"demand": demand, "rows": _median_spreads(rows), "failures": failures, "runs": kept}


def start(runs: int, demand: Demand) -> Report:
    """From the command to the first live book on the metrics socket."""
    seconds = []
    for _ in range(runs):
        venue, url = open_venue(demand)
        context = zmq.Context()
        pipeline = None
        try:
            began = time.monotonic()
            pipeline = Pipeline(url, symbol_names(demand.symbols))
            socket = context.socket(zmq.SUB)
            socket.setsockopt(zmq.RECONNECT_IVL, 5)
            socket.subscribe(b"orderbook.")
            socket.connect(pipeline.metrics)
            seconds.append(_first_live(socket, began))
        finally:
            context.destroy(linger=0)
            if pipeline:
                pipeline.stop()
            venue.close()
    row = {"what": "start to first live book", "median_s": median(seconds), "max_s": max(seconds)}
    return {"demand": demand, "rows": [row], "runs": seconds}


def take_turns(
    contestants: Sequence[Contestant], runs: int, measure_one: Callable[[Contestant], Result]
) -> dict[str, list[Result]]:
    """``runs`` results of each; the order of the contestants turns by one from run to run."""
    results: dict[str, list[Result]] = {contestant.name: [] for contestant in contestants}
    for number in range(runs):
        turn = number % len(contestants)
        for contestant in (*contestants[turn:], *contestants[:turn]):
            result = measure_one(contestant)
            results[contestant.name].append(result)
            _progress(number, runs, result)
    return results


def ours() -> Contestant:
    """The pipeline among the contestants."""
    return BY_NAME[OURS]


# -- small helpers ---------------------------------------------------------------------------------


def _row(name: str, results: Sequence[Result]) -> Row:
    """Medians over the runs that were ``ok``, and what was wrong with the others."""
    good = [result for result in results if result.ok]
    return {
        "contestant": name,
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


def _holds(result: Result) -> bool:
    if not result.ok or result.behind_s is None:
        return False
    return result.behind_s <= BEHIND_S and result.venue["late_end_s"] <= BEHIND_S


def _progress(number: int, runs: int, result: Result) -> None:
    cost = "-" if result.cpu_us is None else f"{result.cpu_us:7.1f} us"
    rate = "-" if result.rate is None else f"{result.rate:9,.0f}/s"
    text = f"run {number + 1}/{runs}  {result.contestant:<16} {cost}  {rate}  {result.failure}"
    print(text, file=sys.stderr, flush=True)


def _shadow(pipeline: Pipeline, demand: Demand) -> Reporter:
    market = pipeline.endpoints()["market"]
    shadow = Reporter(
        "scripts.benchmarks.shadow",
        "--symbols",
        str(demand.symbols),
        "--messages",
        str(demand.messages),
        "--seed",
        str(demand.seed),
        *[f"{name}={where}" for name, where in market.items()],
    )
    shadow.wait("listening", 30)
    return shadow


def _first_live(socket: "zmq.Socket[bytes]", began: float) -> float:
    while socket.poll(30_000):
        _, payload = socket.recv_multipart()
        if msgpack.unpackb(payload)["state"] == "live":
            return time.monotonic() - began
    raise TimeoutError("no live book within 30 s")


def _bucketed(found: dict[str, Samples], family: str) -> dict[str, Row]:
    """Quantiles by process of what a histogram gained, each as the upper bound of its bucket."""
    gained: dict[str, dict[float, float]] = {}
    for (name, labels), value in found["after"].items():
        if name == f"{family}_bucket":
            fields = dict(labels)
            before = found["before"].get((name, labels), 0.0)
            buckets = gained.setdefault(fields["process"], {})
            bound = float(fields["le"])
            buckets[bound] = buckets.get(bound, 0.0) + value - before
    spreads = {}
    for process, buckets in gained.items():
        count = buckets.get(float("inf"), 0.0)
        if not count:
            continue
        spread: Row = {"count": int(count)}
        for label, share in (
            ("p50", 0.5),
            ("p90", 0.9),
            ("p99", 0.99),
            ("p99.9", 0.999),
            ("max", 1.0),
        ):
            bound = min(b for b, held in sorted(buckets.items()) if held >= share * count)
            spread[label] = bound * 1e6
        spreads[process] = spread
    return spreads


def _median_spreads(rows: Sequence[Row]) -> list[Row]:
    """One row a place and method: medians over the runs, in microseconds."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["where"], row["how"]), []).append(row)
    return [
        {"where": where, "how": how}
        | {
            key: median([row[key] for row in group])
            for key in group[0]
            if key not in ("where", "how", "run")
        }
        for (where, how), group in groups.items()
    ]
