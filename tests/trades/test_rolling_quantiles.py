"""Sizes in order, in short windows and in long ones."""

import random
from math import ceil

import pytest

from bybit_pipeline.processes.trades.rolling_quantiles import LONG, RollingQuantiles

RANKS = (0.01, 0.5, 0.9, 1.0)


def ranked(sizes: list[float]) -> tuple[float, ...]:
    ordered = sorted(sizes)
    return tuple(ordered[ceil(p * len(ordered) - 1e-9) - 1] for p in RANKS)


@pytest.mark.parametrize("step", [7, LONG // 4], ids=["a few", "many at once"])
def test_a_window_that_grows_long_and_short_again_stays_in_order(step: int) -> None:
    rng = random.Random(5)
    sizes = [rng.randrange(1, 5_000) / 10 for _ in range(3 * LONG)]
    order, first, end = RollingQuantiles(), 0, LONG - 100
    while first < end:
        order.move(sizes, 0, first, end)
        if end == len(sizes) or first % 101 == 0:
            assert order.quantiles(RANKS) == ranked(sizes[first:end])
        end = min(len(sizes), end + step)
        first += step // 2 if end < len(sizes) else 2 * step + 900


def test_when_most_of_a_window_leaves_the_rest_is_sorted_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One by one, 150,000 sizes took 135 ms to leave."""
    monkeypatch.setattr(RollingQuantiles, "_remove", None)
    sizes = [float(size % 17) for size in range(100)]
    for is_cut in (True, False):
        order = RollingQuantiles()
        order.move(sizes, 0, 0, 100)
        if is_cut:
            order.let_go(sizes, 0, 90)
        order.move(sizes[90:] if is_cut else sizes, 90 if is_cut else 0, 90, 100)
        assert order.quantiles(RANKS) == ranked(sizes[90:])


def test_a_window_that_moved_on_beyond_all_it_held_begins_anew() -> None:
    sizes = [float(size) for size in range(100)]
    order = RollingQuantiles()
    order.move(sizes, 0, 0, 50)
    order.move(sizes[60:], 60, 60, 100)
    assert order.quantiles(RANKS) == ranked(sizes[60:])
    order.move(sizes[60:], 60, 100, 100)
    assert order.quantiles(RANKS) is None
