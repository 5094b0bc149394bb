"""Quantiles of trade sizes, in short and in long windows."""

import random
from math import ceil

import pytest

from bybit_pipeline.processes.trades.rolling_quantiles import LONG, RollingQuantiles

RANKS = (0.01, 0.5, 0.9, 1.0)


def ranked(sizes: list[float]) -> tuple[float, ...]:
    ordered = sorted(sizes)
    return tuple(ordered[ceil(p * len(ordered) - 1e-9) - 1] for p in RANKS)


@pytest.mark.parametrize("step", [7, LONG // 4], ids=["a few", "many at once"])
def test_quantiles_are_right_while_a_window_grows_and_shrinks(step: int) -> None:
    rng = random.Random(5)
    sizes = [rng.randrange(1, 5_000) / 10 for _ in range(3 * LONG)]
    rolling, first, end = RollingQuantiles(), 0, LONG - 100
    while first < end:
        rolling.move(sizes, 0, first, end)
        if end == len(sizes) or first % 101 == 0:
            assert ranked(sizes[first:end]) == rolling.quantiles(RANKS)
        end = min(len(sizes), end + step)
        first += step // 2 if end < len(sizes) else 2 * step + 900


def test_the_rest_is_sorted_when_most_sizes_leave_the_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Removing most sizes one by one would take longer than sorting the rest."""
    monkeypatch.setattr(RollingQuantiles, "_remove", None)
    sizes = [float(size % 17) for size in range(100)]
    for is_cut in (True, False):
        rolling = RollingQuantiles()
        rolling.move(sizes, 0, 0, 100)
        if is_cut:
            rolling.drop_before(sizes, 0, 90)
        rolling.move(sizes[90:] if is_cut else sizes, 90 if is_cut else 0, 90, 100)
        assert ranked(sizes[90:]) == rolling.quantiles(RANKS)


def test_quantiles_are_right_when_no_size_stays_in_the_window() -> None:
    sizes = [float(size) for size in range(100)]
    rolling = RollingQuantiles()
    rolling.move(sizes, 0, 0, 50)
    rolling.move(sizes[60:], 60, 60, 100)
    assert ranked(sizes[60:]) == rolling.quantiles(RANKS)
    rolling.move(sizes[60:], 60, 100, 100)
    assert rolling.quantiles(RANKS) is None
