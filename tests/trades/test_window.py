"""Trade windows, compared with tables of cases and a slow, simple model in exact fractions."""

import random
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from math import log, sqrt
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bybit_pipeline.processes.trades import rolling_quantiles
from bybit_pipeline.processes.trades.window import TradeWindows
from bybit_pipeline.shared.fixed_point import FixedPointScale, is_plausible
from bybit_pipeline.shared.wire.trades import Window


class Print(NamedTuple):
    """A trade as the model sees it."""

    ts: int
    price: float
    size: float
    is_buy: bool


def exact(value: float) -> Fraction:
    """The decimal that a float was parsed from."""
    return Fraction(Decimal(repr(value)))


def brute_force(
    prints: Sequence[Print], window_ms: int, now_ms: int, *, is_inverse: bool = False
) -> Window:
    """The definitions of the measures, applied to all trades in exact fractions."""
    held = [p for p in prints if now_ms - window_ms < p.ts <= now_ms]
    bought = sum((exact(p.size) for p in held if p.is_buy), Fraction(0))
    sold = sum((exact(p.size) for p in held if not p.is_buy), Fraction(0))
    volume = bought + sold
    if is_inverse:
        turnover = volume
        coins = sum((exact(p.size) / exact(p.price) for p in held), Fraction(0))
        vwap = float(volume / coins) if held else None
    else:
        turnover = sum((exact(p.size) * exact(p.price) for p in held), Fraction(0))
        vwap = float(turnover / volume) if held else None
    return Window(
        trades=len(held),
        tpm=len(held) * 60_000 / window_ms,
        tps=len(held) * 1_000 / window_ms,
        volume=float(volume),
        buy_volume=float(bought),
        sell_volume=float(sold),
        vol_delta=float(bought - sold),
        buy_sell_ratio=float(bought / sold) if sold else None,
        buy_share=float(bought / volume) if volume else None,
        turnover=float(turnover),
        vwap=vwap,
        high=max((p.price for p in held), default=None),
        low=min((p.price for p in held), default=None),
    )


RANKS = (0.01, 0.5, 0.9, 1.0)


def ranked(prints: Sequence[Print], window_ms: int, now_ms: int) -> tuple[float, ...] | None:
    """Size quantiles: per rank, the smallest size such that enough sizes are not larger."""
    sizes = sorted(p.size for p in prints if now_ms - window_ms < p.ts <= now_ms)
    if not sizes:
        return None
    return tuple(
        next(
            size
            for size in sizes
            if sum(other <= size for other in sizes) >= rank * len(sizes) - 1e-9
        )
        for rank in RANKS
    )


def filled(prints: Sequence[Print], *, retention_ms: int = 60_000) -> TradeWindows:
    windows = TradeWindows(retention_ms=retention_ms)
    for p in prints:
        windows.add(p.ts, p.price, p.size, is_buy=p.is_buy)
    return windows


def test_a_window_without_trades_has_zero_sums_and_no_prices() -> None:
    windows = TradeWindows(retention_ms=60_000)
    expected = Window(
        trades=0,
        tpm=0.0,
        tps=0.0,
        volume=0.0,
        buy_volume=0.0,
        sell_volume=0.0,
        vol_delta=0.0,
        turnover=0.0,
    )
    assert expected == windows.measures(60_000)
    windows.advance(1_000_000)
    assert expected == windows.measures(60_000)


def test_buys_and_sells_are_measured() -> None:
    windows = filled(
        [
            Print(1_000, 100.0, 0.3, True),
            Print(2_000, 102.0, 0.1, False),
            Print(3_000, 99.0, 0.2, True),
        ]
    )
    measures = windows.measures(60_000)
    assert 3 == measures.trades
    assert 3.0 == measures.tpm
    assert 0.05 == measures.tps
    assert 0.6 == measures.volume
    assert 0.5 == measures.buy_volume
    assert 0.1 == measures.sell_volume
    assert 0.4 == measures.vol_delta
    assert 5.0 == measures.buy_sell_ratio
    assert float(Fraction(5, 6)) == measures.buy_share
    assert 60.0 == measures.turnover
    assert 100.0 == measures.vwap
    assert (102.0, 99.0) == (measures.high, measures.low)


def test_without_sells_the_ratio_is_absent_and_the_share_is_one() -> None:
    measures = filled([Print(1_000, 5.0, 2.0, True)]).measures(10_000)
    assert measures.buy_sell_ratio is None
    assert 1.0 == measures.buy_share


def test_decimal_sizes_add_up_to_the_decimal_sum() -> None:
    windows = filled([Print(1_000 + i, 0.1, 0.1, True) for i in range(10)])
    assert 1.0 == windows.measures(60_000).volume
    assert 0.1 == windows.measures(60_000).turnover


def test_the_window_excludes_its_start_and_includes_now() -> None:
    windows = filled([Print(ts, 1.0, 1.0, True) for ts in (9_999, 10_000, 10_001, 20_000)])
    assert 20_000 == windows.now_ms
    assert 2 == windows.measures(10_000).trades
    windows.advance(20_001)
    assert 1 == windows.measures(10_000).trades
    windows.advance(30_000)
    assert 0 == windows.measures(10_000).trades


def test_old_trades_are_removed_from_memory() -> None:
    windows = TradeWindows(retention_ms=1_000)
    for ts in range(100_000):
        windows.add(ts, 100.0 + ts % 7, 0.5, is_buy=True)
    assert 1_000 == len(windows)
    windows.advance(200_000)
    assert 0 == len(windows)
    assert 0 == windows.measures(1_000).trades


def test_time_never_goes_back() -> None:
    windows = filled([Print(50_000, 1.0, 1.0, True)])
    windows.advance(40_000)
    assert 50_000 == windows.now_ms


def test_a_future_dated_trade_moves_the_time_forward() -> None:
    windows = filled([Print(1_000, 1.0, 1.0, True)], retention_ms=10_000)
    windows.advance(5_000)
    windows.add(12_000, 2.0, 3.0, is_buy=False)
    assert 12_000 == windows.now_ms
    assert 3.0 == windows.measures(10_000).sell_volume
    assert 0.0 == windows.measures(10_000).buy_volume


def test_a_late_trade_counts_in_the_windows_that_cover_its_time() -> None:
    windows = filled([Print(1_000, 1.0, 1.0, True), Print(20_000, 2.0, 1.0, True)])
    windows.add(5_000, 9.0, 4.0, is_buy=False)
    assert 4.0 == windows.measures(60_000).sell_volume
    assert 9.0 == windows.measures(60_000).high
    assert 0.0 == windows.measures(10_000).sell_volume
    assert 2.0 == windows.measures(10_000).high


def test_a_trade_older_than_the_longest_window_counts_only_in_the_totals() -> None:
    windows = filled([Print(100_000, 1.0, 1.0, True)], retention_ms=10_000)
    windows.add(90_000, 7.0, 0.25, is_buy=False)
    assert 1 == windows.measures(10_000).trades
    assert 2 == windows.trades_total
    assert 0.75 == windows.cvd


def test_a_window_longer_than_the_retention_is_rejected() -> None:
    with pytest.raises(ValueError, match="kept"):
        TradeWindows(retention_ms=10_000).measures(10_001)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), 1e19])
def test_an_implausible_price_or_size_is_rejected_and_changes_nothing(bad: float) -> None:
    windows = filled([Print(1_000, 1.0, 1.0, True)])
    with pytest.raises(ValueError, match="trade with price"):
        windows.add(1_001, bad, 1.0, is_buy=True)
    with pytest.raises(ValueError, match="trade with price"):
        windows.add(1_001, 1.0, bad, is_buy=True)
    assert 1 == windows.trades_total
    assert windows.measures(60_000) == filled([Print(1_000, 1.0, 1.0, True)]).measures(60_000)


def test_inverse_turnover_is_the_size_and_vwap_is_weighted_by_coin() -> None:
    windows = TradeWindows(retention_ms=60_000, is_inverse=True)
    windows.add(1_000, 50_000.0, 100.0, is_buy=True)
    windows.add(2_000, 25_000.0, 100.0, is_buy=False)
    measures = windows.measures(60_000)
    assert 200.0 == measures.turnover
    assert float(Fraction(200) / (Fraction(100, 50_000) + Fraction(100, 25_000))) == measures.vwap


def test_a_full_store_drops_whole_milliseconds_and_reports_it() -> None:
    windows = TradeWindows(retention_ms=60_000, max_trades=3)
    for ts in (1, 1, 2, 3):
        windows.add(ts, float(ts), 1.0, is_buy=True)
    assert 2 == windows.trades_dropped
    assert 1 == windows.dropped_through_ms
    assert 2 == windows.measures(60_000).trades
    assert 2.0 == windows.measures(60_000).low
    assert 4.0 == windows.cvd
    windows.add(1, 9.0, 1.0, is_buy=True)
    assert 2 == windows.measures(60_000).trades


def test_sums_do_not_drift_over_a_million_trades() -> None:
    """At the end, sums equal those of a new store, and ``cvd`` the exact decimal sum."""
    rng = random.Random(7)
    windows = TradeWindows(retention_ms=5_000)
    delta = 0
    ts = 1_700_000_000_000
    steps = rng.choices((0, 1, 2), k=1_000_000)
    millis = rng.choices(range(1, 5_000_000), k=1_000_000)
    recent: list[Print] = []
    for step, milli in zip(steps, millis, strict=True):
        ts += step
        is_buy = milli % 2 == 0
        price = (600_000 + milli % 99_991) / 10
        windows.add(ts, price, milli / 1_000, is_buy=is_buy)
        delta += milli if is_buy else -milli
        if windows.trades_total >= 990_000:
            recent.append(Print(ts, price, milli / 1_000, is_buy))
    assert 1_000_000 == windows.trades_total
    assert windows.cvd == float(Fraction(delta, 1_000))
    for window_ms in (1, 100, 1_000, 5_000):
        assert brute_force(recent, window_ms, ts) == windows.measures(window_ms)


@pytest.mark.parametrize("is_inverse", [False, True])
@pytest.mark.parametrize("size", [9e7, 4e12, 5e17])
def test_sums_stay_exact_beyond_64_bits(size: float, is_inverse: bool) -> None:
    """Sums overflow after a while, within a window, or at once; some trades are late."""
    windows = TradeWindows(retention_ms=50, is_inverse=is_inverse)
    seen: list[Print] = []
    delta = Fraction(0)
    for now in range(1, 400):
        late = 7 if now % 5 == 0 else 0
        p = Print(max(1, now - late), 1_000_000 + now / 1_000, size + now % 7, now % 3 == 0)
        windows.add(p.ts, p.price, p.size, is_buy=p.is_buy)
        seen.append(p)
        delta += exact(p.size) if p.is_buy else -exact(p.size)
        assert windows.cvd == float(delta)
        at = max(p.ts for p in seen)
        expected = brute_force(seen[-80:], 50, at, is_inverse=is_inverse)
        assert expected == windows.measures(50)


def decimals(fewest_places: int) -> st.SearchStrategy[float]:
    """Floats of at most 15 digits."""
    return st.builds(
        lambda digits, places: float(Decimal(digits).scaleb(-places)),
        st.integers(1, 999_999_999_999_999),
        st.integers(fewest_places, 15),
    )


small_decimals = st.builds(lambda digits: digits / 100, st.integers(1, 500))
prints = st.builds(
    Print,
    st.integers(0, 400),
    decimals(0) | small_decimals,  # above 2^53 a VWAP may lie between two floats: see measures
    decimals(-3) | small_decimals,
    st.booleans(),
)
steps = st.lists(prints | st.integers(0, 500), max_size=60)
"""Trades in any order, and times to advance to."""


@settings(max_examples=400, deadline=None)
@given(steps=steps, is_inverse=st.booleans())
def test_windows_equal_brute_force_at_every_step(
    steps: list[Print | int], is_inverse: bool
) -> None:
    """Trades and times in any order, sizes from 1e-15 to 1e18, every window boundary."""
    windows = TradeWindows(retention_ms=100, is_inverse=is_inverse)
    seen: list[Print] = []
    delta = Fraction(0)
    now = 0
    windows.advance(now)
    for step in steps:
        if isinstance(step, Print):
            if step.ts > now:
                now = step.ts
            windows.add(step.ts, step.price, step.size, is_buy=step.is_buy)
            delta += exact(step.size) if step.is_buy else -exact(step.size)
            if step.ts > now - 100:
                seen.append(step)
            assert windows.cvd == float(delta)
        else:
            now = max(now, step)
            windows.advance(step)
        for window_ms in (1, 30, 99, 100):
            expected = brute_force(seen, window_ms, now, is_inverse=is_inverse)
            assert expected == windows.measures(window_ms)
            assert ranked(seen, window_ms, now) == windows.size_quantiles(window_ms, RANKS)


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(prints, max_size=60), max_trades=st.integers(1, 10))
def test_a_full_store_equals_brute_force_after_the_dropped_trades(
    steps: list[Print], max_trades: int
) -> None:
    windows = TradeWindows(retention_ms=100, max_trades=max_trades)
    for count, step in enumerate(steps):
        windows.add(step.ts, step.price, step.size, is_buy=step.is_buy)
        assert len(windows) <= max_trades
        now = max(s.ts for s in steps[: count + 1])
        held = [s for s in steps[: count + 1] if s.ts > windows.dropped_through_ms]
        assert windows.measures(30).volume == brute_force(held, 30, now).volume
        assert windows.measures(30).high == brute_force(held, 30, now).high


@given(value=decimals(-3))
def test_a_decimal_converts_to_units_and_back_exactly(value: float) -> None:
    scale = FixedPointScale()
    if scale.units(value) is None:
        assert scale.refine(value) > 1
    units = scale.units(value)
    assert units is not None
    assert Fraction(units, scale.scale) == exact(value)
    assert units / scale.scale == value


@pytest.mark.parametrize(
    ("value", "plausible"),
    [(1.0, True), (1e-18, True), (1e18, True), (0.0, False), (-0.1, False), (float("nan"), False)],
)
def test_only_positive_finite_numbers_are_plausible(value: float, plausible: bool) -> None:
    assert is_plausible(value) is plausible


def test_realised_volatility_samples_the_last_trade_of_every_second() -> None:
    windows = filled(
        [
            Print(500, 100.0, 1.0, True),  # superseded at 1 s
            Print(900, 101.0, 1.0, True),
            Print(1_500, 90.0, 1.0, True),  # superseded at 2 s
            Print(2_000, 102.0, 1.0, True),
            Print(4_500, 103.0, 1.0, True),  # after the last whole second
        ]
    )
    assert sqrt(log(102 / 101) ** 2) == windows.realised_volatility(60_000)
    windows.advance(5_000)
    expected = sqrt(log(102 / 101) ** 2 + log(103 / 102) ** 2)
    assert pytest.approx(expected, rel=1e-15) == windows.realised_volatility(60_000)


@settings(max_examples=200, deadline=None)
@given(prints=st.lists(prints, min_size=1, max_size=40), window_ms=st.integers(1, 400))
def test_realised_volatility_equals_a_slow_model(prints: list[Print], window_ms: int) -> None:
    windows = filled(prints, retention_ms=400)
    now = max(p.ts for p in prints)
    in_order = sorted(prints, key=lambda p: p.ts)
    samples = []
    for at in range(0, now + 1, 10):
        before = [p.price for p in in_order if now - window_ms < p.ts <= at]
        samples += before[-1:]
    returns = [log(b / a) ** 2 for a, b in pairwise(samples)]
    expected = sqrt(sum(returns)) if returns else None
    assert pytest.approx(expected) == windows.realised_volatility(window_ms, sample_ms=10)


def test_size_quantiles_are_right_after_many_trades_entered_and_left() -> None:
    rng = random.Random(3)
    windows = TradeWindows(retention_ms=1_000)
    seen: list[Print] = []
    for ts in range(0, 20_000, 2):
        seen.append(Print(ts, 1.0, rng.randrange(1, 50) / 10, True))
        windows.add(ts, 1.0, seen[-1].size, is_buy=True)
        if ts % 500 == 0:
            for window_ms in (10, 1_000):
                assert ranked(seen, window_ms, ts) == windows.size_quantiles(window_ms, RANKS)
            seen = [p for p in seen if p.ts > ts - 1_000]


def test_deleting_old_trades_does_not_sort_the_sizes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sorting a long window again would stop the worker for a noticeable time."""
    sort, rows = rolling_quantiles._sorted, []

    def counting(sizes: Sequence[float]) -> Any:
        rows.append(len(sizes))
        return sort(sizes)

    monkeypatch.setattr(rolling_quantiles, "_sorted", counting)
    windows = TradeWindows(retention_ms=3_000)
    for ts in range(12_000):
        windows.add(ts, 1.0, 1.0 + ts % 7, is_buy=True)
        if ts % 20 == 0:
            windows.measures(3_000)
            windows.size_quantiles(3_000, RANKS)
        if ts == 6_000:
            rows.clear()
    assert [] == rows


def test_quantiles_and_volatility_are_right_while_a_window_moves_in_small_steps() -> None:
    """Few trades enter and leave a window of thousands between two reads."""
    rng = random.Random(4)
    windows = TradeWindows(retention_ms=5_000)
    seen: list[Print] = []
    price = 100.0
    for ts in range(0, 12_000, 3):
        price = round(price * rng.uniform(0.999, 1.001), 2)
        late_ms = rng.choice((0, 0, 0, 0, 0, 0, 0, 0, 0, 50)) if ts % 1_000 == 0 else 0
        seen.append(Print(max(0, ts - late_ms), price, rng.randrange(1, 2_000) / 10, True))
        windows.add(seen[-1].ts, price, seen[-1].size, is_buy=True)
        windows.advance(ts)
        if ts % 90 == 0:
            found = {
                window_ms: (
                    windows.size_quantiles(window_ms, RANKS),
                    windows.realised_volatility(window_ms, sample_ms=100),
                )
                for window_ms in (3_000, 5_000)
            }
        if ts % 1_800 == 0:
            in_order = sorted(seen, key=lambda p: p.ts)
            for window_ms, (sizes, volatility) in found.items():
                held = [p for p in in_order if ts - window_ms < p.ts <= ts]
                last = {-(-p.ts // 100): p.price for p in held if -(-p.ts // 100) * 100 <= ts}
                returns = [log(b / a) ** 2 for a, b in pairwise(last.values())]
                assert (volatility or 0.0) == pytest.approx(sqrt(sum(returns)), rel=1e-12)
                assert ranked(seen, window_ms, ts) == sizes
