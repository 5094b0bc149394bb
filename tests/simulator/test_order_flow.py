"""Invariants of the synthetic market, for any seed."""

import datetime as dt
import itertools
from collections import Counter
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bybit_pipeline.processes.simulator.market.instruments import (
    InstrumentKey,
    default_instruments,
    instrument_named,
)
from bybit_pipeline.processes.simulator.market.order_book import ExchangeBook
from bybit_pipeline.processes.simulator.market.order_flow import (
    LEVELS,
    InstrumentState,
    Match,
    SyntheticMarket,
)

TODAY = dt.date(2026, 8, 9)
START_MS = 1_786_310_817_000
SYMBOLS = [
    ("linear", "BTCUSDT"),
    ("linear", "DOGEUSDT"),
    ("linear", "SNTUSDT"),
    ("spot", "PEPEUSDT"),
    ("inverse", "BTCUSD"),
]


def market(
    seed: int, *, activity: float = 1.0
) -> tuple[SyntheticMarket, dict[str, InstrumentState]]:
    """Return a market with instruments of several kinds, opened at ``START_MS``."""
    instruments = [
        instrument
        for category in ("linear", "spot", "inverse", "option")
        for instrument in default_instruments(category, TODAY)
        if (category, instrument.symbol) in SYMBOLS
    ]
    instruments.append(instrument_named("option", "BTC-14AUG26-69000-C-USDT", TODAY))
    instruments.append(instrument_named("linear", "FOOUSDT", TODAY))
    made = SyntheticMarket(instruments, seed=seed)
    states = {key[1]: made.open(key, START_MS) for key in made.instruments}
    made.set_activity(activity)
    return made, states


def resting(book: ExchangeBook) -> dict[int, int]:
    """Return lots by ticks; the sides of an uncrossed book do not overlap."""
    return {
        key * ladder.sign: lots
        for ladder in (book.bids, book.asks)
        for key, lots in ladder.lots.items()
    }


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), activity=st.sampled_from([0.2, 1.0, 30.0]))
def test_books_are_never_crossed_locked_or_empty(seed: int, activity: float) -> None:
    """This is checked after every millisecond with an event."""
    made, states = market(seed, activity=activity)
    for now_ms in range(START_MS, START_MS + 1500):
        made.advance(now_ms)
        for state in states.values():
            bids, asks = state.book.bids, state.book.asks
            assert bids.best is not None
            assert asks.best is not None
            assert 0 < bids.best < asks.best
    for state in states.values():
        state.book.check()


def test_books_keep_their_depth_and_price_over_minutes() -> None:
    """After twenty minutes a busy book still has 1000 levels, near its start price."""
    instrument = instrument_named("linear", "BTCUSDT", TODAY)
    made = SyntheticMarket([instrument], seed=5)
    book = made.open(("linear", "BTCUSDT"), START_MS).book
    for minute in range(1, 21):
        made.advance(START_MS + minute * 60_000)
        book.check()
        assert min(len(book.bids.keys), len(book.asks.keys)) >= LEVELS
        assert book.bids.best is not None
        middle = book.bids.best / instrument.tick.count(instrument.start_price)
        assert middle == pytest.approx(1, abs=0.02)


def test_trades_reduce_the_book_by_their_size() -> None:
    """A match reduces its levels at once, and the book has the time of the match."""
    instrument = instrument_named("linear", "BTCUSDT", TODAY)
    made = SyntheticMarket([instrument], seed=2)
    state = made.open(("linear", "BTCUSDT"), START_MS)
    sizes = Counter[int]()
    checked = 0
    for _ in range(400):
        before = resting(state.book)
        best = {"Buy": state.book.asks.best, "Sell": state.book.bids.best}
        match = state.match_order(
            "Buy" if checked % 2 else "Sell", 700 + checked * 13, START_MS + checked, fills_max=3
        )
        assert match is not None
        sizes.clear()
        for fill in match.fills:
            sizes[fill.ticks] += fill.lots
            assert fill.lots > 0
            assert fill.match_ts_ms == state.book.match_ts_ms == START_MS + checked
            assert fill.sequence == state.book.sequence
        assert match.fills[0].ticks == best[match.fills[0].side]
        after = resting(state.book)
        assert {
            ticks: lots - after.get(ticks, 0)
            for ticks, lots in before.items()
            if after.get(ticks, 0) != lots
        } == dict(sizes)
        made.advance(START_MS + checked)
        checked += 1
    assert checked == 400


def test_trades_print_at_the_touch_and_in_order() -> None:
    """Times and sequences never decrease, and numbers never repeat."""
    made, _ = market(3, activity=20)
    matches: list[Match] = []
    for now_ms in range(START_MS, START_MS + 20_000, 10):
        matches += made.advance(now_ms)
    assert len(matches) > 500
    for symbol in {match.instrument.symbol for match in matches}:
        fills = [f for m in matches if m.instrument.symbol == symbol for f in m.fills]
        times = [fill.match_ts_ms for fill in fills]
        sequences = [fill.sequence for fill in fills]
        assert times == sorted(times)
        assert sequences == sorted(sequences)
        assert len(fills) == len({fill.number for fill in fills})
        for before, after in itertools.pairwise(fills):
            zero = "Zero" if after.ticks == before.ticks else ""
            sign = "Plus" if after.ticks > before.ticks else "Minus"
            kind = before.direction.removeprefix("Zero") if zero else f"{sign}Tick"
            assert f"{zero}{kind}" == after.direction


@pytest.mark.parametrize("step_ms", [1, 10, 333])
def test_the_same_seed_gives_the_same_market_at_any_time_step(step_ms: int) -> None:

    def run(step: int) -> tuple[list[Match], dict[int, int]]:
        made, states = market(11)
        matches = []
        for now_ms in range(START_MS, START_MS + 9990 + 1, step):
            matches += made.advance(now_ms)
        return [
            Match(match.instrument, match.fills)
            for match in matches
            if match.instrument.symbol == "BTCUSDT"
        ], resting(states["BTCUSDT"].book)

    expected, actual = run(9990), run(step_ms)
    assert [match.fills for match in expected[0]] == [match.fills for match in actual[0]]
    assert expected[1] == actual[1]
    assert expected[0]


def test_other_seeds_and_symbols_give_other_markets() -> None:
    first, second = market(1)[1], market(2)[1]
    assert resting(first["BTCUSDT"].book) != resting(second["BTCUSDT"].book)
    assert resting(first["BTCUSDT"].book) != resting(first["BTCUSD"].book)


def test_busy_symbols_are_busy_and_silent_ones_nearly_silent() -> None:
    """Bitcoin has about 50 book events and several trades per second, a small coin almost none."""
    made, states = market(4)
    changes = Counter[str]()
    stamps = {symbol: state.book.sequence for symbol, state in states.items()}
    trades = Counter[str]()
    for now_ms in range(START_MS, START_MS + 60_000, 20):
        trades.update(match.instrument.symbol for match in made.advance(now_ms))
        for symbol, state in states.items():
            changes[symbol] += state.book.sequence != stamps[symbol]
            stamps[symbol] = state.book.sequence
    assert 25 < changes["BTCUSDT"] / 60 < 40
    assert 2 < trades["BTCUSDT"] / 60 < 7
    assert changes["SNTUSDT"] / 60 < 0.5


def test_walls_are_placed_and_then_eaten_or_pulled() -> None:
    """Within minutes a major has walls of many medians, and both kinds of end occur."""
    instrument = instrument_named("linear", "BTCUSDT", TODAY)
    made = SyntheticMarket([instrument], seed=1)
    book = made.open(("linear", "BTCUSDT"), START_MS).book
    seen: dict[int, int] = {}
    ends = Counter[str]()
    typical = median(resting(book).values())
    for now_ms in range(START_MS, START_MS + 900_000, 100):
        traded = Counter[int]()
        for match in made.advance(now_ms):
            for fill in match.fills:
                traded[fill.ticks] += fill.lots
        levels = dict(book.bids.levels(40) + book.asks.levels(40))
        now_resting = resting(book)
        for ticks in list(seen):
            if ticks not in now_resting:
                ends["eaten" if traded[ticks] else "pulled"] += 1
                del seen[ticks]
        seen |= {ticks: lots for ticks, lots in levels.items() if lots > 8 * typical}
    assert ends["eaten"] >= 3
    assert ends["pulled"] >= 3


def test_a_closed_instrument_pauses_and_continues() -> None:
    """No burst of missed events follows the pause."""
    made, states = market(6)
    made.advance(START_MS + 1000)
    key: InstrumentKey = ("linear", "BTCUSDT")
    made.close(key)
    before = resting(states["BTCUSDT"].book)
    made.advance(START_MS + 60_000)
    assert before == resting(states["BTCUSDT"].book)
    assert made.open(key, START_MS + 60_000) is states["BTCUSDT"]
    matches = made.advance(START_MS + 60_100)
    assert all(match.fills[0].match_ts_ms >= START_MS + 60_000 for match in matches)
    assert states["BTCUSDT"].book.match_ts_ms >= START_MS + 60_000
