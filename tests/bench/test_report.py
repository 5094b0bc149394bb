"""The report: ratios against their limits, latencies out of histograms, unfit runs left out."""

from scripts.benchmarks.modes import _bucketed, _row
from scripts.benchmarks.report import ratios, table
from scripts.benchmarks.run import Demand, Result, whole_rounds


def samples(counts: dict[str, float]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        ("bus_latency_seconds_bucket", (("le", bound), ("process", "trades-1"))): count
        for bound, count in counts.items()
    }


def test_ours_is_divided_by_each_rival_and_held_against_the_limit() -> None:
    rows = [
        {"contestant": name, "cpu_us": cost}
        for name, cost in (("bybit-pipeline", 20.0), ("pybit", 100.0), ("cryptofeed+zmq", 40.0))
    ]
    found = {row["ours over"]: (row["cpu_us"], row["kept"]) for row in ratios(rows)}
    assert {"pybit": (0.2, "yes"), "cryptofeed+zmq": (0.5, "NO")} == found


def test_a_rate_must_reach_its_limit_and_not_stay_below_it() -> None:
    rows = [
        {"contestant": "bybit-pipeline", "held_rate": 50_000.0},
        {"contestant": "pybit+wsaccel", "held_rate": 10_000.0},
    ]
    assert "yes" == ratios(rows, "held_rate")[0]["kept"]


def test_a_failed_run_counts_for_nothing_but_is_named() -> None:
    good = Result("pybit", Demand(), ok=True, cpu_us=10.0)
    bad = Result("pybit", Demand(), cpu_us=1.0, failure="lost 3")
    row = _row("pybit", [good, bad])
    assert (10.0, "1/2", ["lost 3"]) == (row["cpu_us"], row["ok"], row["failures"])


def test_quantiles_are_upper_bounds_of_what_the_histogram_gained() -> None:
    before = samples({"0.0001": 100, "0.001": 100, "+Inf": 100})
    after = samples({"0.0001": 160, "0.001": 199, "+Inf": 200})
    spread = _bucketed({"before": before, "after": after}, "bus_latency_seconds")["trades-1"]
    assert 100 == spread["count"]
    assert (100.0, 1000.0, 1000.0) == (spread["p50"], spread["p90"], spread["p99"])
    assert float("inf") == spread["max"]


def test_messages_come_in_whole_rounds() -> None:
    assert [500, 100_000, 200_000] == [whole_rounds(n) for n in (500, 100_001, 299_999)]


def test_absent_figures_are_dashes() -> None:
    assert "-" == table([{"contestant": "x", "cpu_us": None}]).split()[-1]
