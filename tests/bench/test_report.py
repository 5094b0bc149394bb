"""The report: ratios and limits, latencies from histograms, and failed runs."""

from pathlib import Path

import pytest

from scripts.benchmarks.contenders import OTHER, THIS, builds
from scripts.benchmarks.modes import _row, histogram_quantiles
from scripts.benchmarks.report import compare_builds, ratios, table
from scripts.benchmarks.run import Result, Workload, whole_rounds


def samples(counts: dict[str, float]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        ("bus_latency_seconds_bucket", (("le", bound), ("process", "trades-1"))): count
        for bound, count in counts.items()
    }


def test_our_cost_is_compared_with_each_rival_and_its_limit() -> None:
    rows = [
        {"contender": name, "cpu_us": cost}
        for name, cost in (("bybit-pipeline", 20.0), ("pybit", 100.0), ("cryptofeed+zmq", 40.0))
    ]
    found = {row["ours relative to"]: (row["cpu_us"], row["kept"]) for row in ratios(rows)}
    assert {"pybit": (0.2, "yes"), "cryptofeed+zmq": (0.5, "NO")} == found


def test_a_rate_must_reach_its_limit() -> None:
    rows = [
        {"contender": "bybit-pipeline", "held_rate": 50_000.0},
        {"contender": "pybit+wsaccel", "held_rate": 10_000.0},
    ]
    assert "yes" == ratios(rows, "held_rate")[0]["kept"]


def test_a_failed_run_is_not_used_but_named() -> None:
    good = Result("pybit", Workload(), ok=True, cpu_us=10.0)
    bad = Result("pybit", Workload(), cpu_us=1.0, failure="lost 3")
    row = _row("pybit", [good, bad])
    assert (10.0, "1/2", ["lost 3"]) == (row["cpu_us"], row["ok"], row["failures"])


def test_quantiles_are_upper_bounds_of_the_gain_of_a_histogram() -> None:
    before = samples({"0.0001": 100, "0.001": 100, "+Inf": 100})
    after = samples({"0.0001": 160, "0.001": 199, "+Inf": 200})
    spread = histogram_quantiles({"before": before, "after": after}, "bus_latency_seconds")[
        "trades-1"
    ]
    assert 100 == spread["count"]
    assert (100.0, 1000.0, 1000.0) == (spread["p50"], spread["p90"], spread["p99"])
    assert float("inf") == spread["max"]


def test_two_builds_are_compared_by_the_medians_of_their_pairs() -> None:
    def results(*costs: float) -> list[Result]:
        return [Result("x", Workload(), ok=cost > 0, cpu_us=cost) for cost in costs]

    runs = {"paced": {THIS: results(9.0, 12.0, 50.0), OTHER: results(10.0, 10.0, 0.0)}}

    assert [
        {
            "load": "paced",
            "pairs": "2/3",
            "this_us": 10.5,
            "other_us": 10.0,
            "ratio": 1.05,
            "ratio_min": 0.9,
            "ratio_max": 1.2,
        }
    ] == compare_builds(runs)


def test_another_checkout_needs_an_environment(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"bybit-pipeline does not exist; run scripts/up"):
        builds(tmp_path, tmp_path)


def test_messages_are_rounded_down_to_whole_rounds() -> None:
    assert [500, 100_000, 200_000] == [whole_rounds(n) for n in (500, 100_001, 299_999)]


def test_missing_figures_are_dashes() -> None:
    assert "-" == table([{"contender": "x", "cpu_us": None}]).split()[-1]
