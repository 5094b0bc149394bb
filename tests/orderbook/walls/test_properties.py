"""The accounts are exact after any messages; recorded markets give the events of a slow model."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bybit_pipeline.processes.orderbook.book import OrderBook
from bybit_pipeline.processes.orderbook.walls.tracker import ARRIVAL_MS, WallTracker
from bybit_pipeline.processes.orderbook.walls.verdict import FALL_MS, REFILL_MS
from bybit_pipeline.shared.bybit import PUSH_PERIOD_MS
from bybit_pipeline.shared.settings.config import DensityConfig
from tests.naive import read_capture
from tests.orderbook.build import recorded_book, recorded_trades, trade
from tests.orderbook.walls.naive import NaiveWalls
from tests.orderbook.walls.story import STEP_MS, WALL, Story, check_balance, exactly

LOTS = st.integers(0, 300).map(lambda lots: lots / 10)
ACTION = st.tuples(
    st.lists(st.tuples(st.sampled_from([99.95, 99.94, 99.9]), LOTS), max_size=3),
    st.lists(
        st.tuples(st.sampled_from([99.95, 99.94]), LOTS.filter(bool), st.integers(-150, 60)),
        max_size=3,
    ),
    st.booleans(),
    st.sampled_from([20, 100, 400, 3000]),
)
ACTIONS = st.lists(ACTION, max_size=25)


@given(ACTIONS, st.sampled_from([1, 2, 5]))
@settings(max_examples=200, deadline=None)
def test_the_accounts_always_balance_exactly(actions: Any, bucket_ticks: int) -> None:
    story = Story(bucket_ticks=bucket_ticks, k=3.0, min_share=0.0)
    alive: set[tuple[str, float]] = set()
    for number, (levels, sold, is_late, ms) in enumerate(actions):
        trades = [
            trade(story.now_ms + ms + offset, "Sell", price, size, f"{number}-{index}")
            for index, (price, size, offset) in enumerate(sold)
        ]
        for event, wall in story.step(levels, (), trades, is_late=is_late, ms=ms):
            key = (wall.side, wall.price)
            assert (key in alive) != (event == "detected")
            alive.add(key)
            if event in ("pulled", "removed"):
                alive.discard(key)
            assert 0 <= wall.eaten_ratio <= 1
            assert 0 <= wall.pulled_ratio <= 1
            assert (
                exactly(wall.peak_size + wall.refilled_size)
                == wall.traded_size + wall.cancelled_size + wall.size
            )
        alive &= {(wall.side, wall.price) for wall in story.tracker.accounts()}
        assert sum(len(wall.levels) for wall in story.tracker.accounts()) == story.tracker.tracked


WAITS_MS = (0, 50, 300, 3_000, FALL_MS + 1_000, REFILL_MS + 1_000)
TICK_MS = 50


@given(
    st.lists(st.tuples(ACTION, st.sampled_from(WAITS_MS)), max_size=15),
    st.sampled_from([1, 2, 5]),
    st.sampled_from([0.0, 0.5]),
)
@settings(max_examples=200, deadline=None)
def test_no_event_is_later_when_walls_are_judged_only_at_their_wake_times(
    actions: Any, bucket_ticks: int, min_age_s: float
) -> None:
    always, rarely = (
        Story(k=3.0, min_share=0.0, min_age_s=min_age_s, bucket_ticks=bucket_ticks)
        for _ in range(2)
    )
    for number, ((levels, sold, is_late, _), wait_ms) in enumerate(actions):
        trades = [
            trade(always.now_ms + STEP_MS + offset, "Sell", price, size, f"{number}-{index}")
            for index, (price, size, offset) in enumerate(sold)
        ]
        expected = always.step(levels, (), trades, is_late=is_late)
        assert expected == rarely.step(levels, (), trades, is_late=is_late)
        late_trade = [always.sold(1.0, trade_id=f"{number}-late")]
        for tick in range(wait_ms // TICK_MS):
            has_hit = False
            for story in (always, rarely):
                story.now_ms += TICK_MS
                if tick == 1:
                    has_hit = story.tracker.on_trades(late_trade)
            always.tracker.update(always.book, always.now_ms)
            if has_hit or rarely.now_ms >= rarely.tracker.wake_ms:
                rarely.tracker.update(rarely.book, rarely.now_ms)
            assert always.tracker.take_events() == rarely.tracker.take_events()
    for story in (always, rarely):
        story.tracker.update(story.book, story.now_ms)
    assert always.tracker.records() == rarely.tracker.records()


@given(ACTIONS)
@settings(max_examples=100, deadline=None)
def test_the_totals_do_not_depend_on_which_message_arrives_first(actions: Any) -> None:
    totals = []
    for is_late in (False, True):
        story = Story(k=3.0)
        story.step([(WALL, 30.0)])
        for number, (levels, sold, _, _) in enumerate(actions):
            levels = [(price, size + 10) for price, size in levels]  # the wall never falls
            trades = [
                trade(story.now_ms + 50, "Sell", price, size, f"{number}-{index}")
                for index, (price, size, _) in enumerate(sold)
            ]
            story.step(levels, (), trades, is_late=is_late)
        story.wait()
        walls = [wall for wall in story.tracker.accounts() if wall.price == WALL]
        totals.append([(wall.traded, wall.cancelled, wall.refilled) for wall in walls])
    assert totals[0] == totals[1]


EVERY_LARGE_LEVEL = DensityConfig(min_share=0.0, min_age_s=0.0)
"""Settings with as many events as possible."""


@pytest.mark.parametrize(
    ("name", "config", "least"),
    [
        ("linear_20260809_ob200_BTC_SOL.jsonl", EVERY_LARGE_LEVEL, 1000),
        ("spot_20260809_ob200_ETH.jsonl", EVERY_LARGE_LEVEL, 200),
        ("linear_20260809_ob200_BTC_SOL.jsonl", DensityConfig(), 10),
        ("spot_20260809_ob200_ETH.jsonl", DensityConfig(), 10),
        ("spot_20260809_ob200_ETH.jsonl", DensityConfig(min_share=0.0, lookback_s=2.0), 200),
    ],
)
def test_the_events_of_a_capture_are_those_of_a_brute_force_replay(
    captures: Path, name: str, config: DensityConfig, least: int
) -> None:
    books: dict[str, OrderBook] = {}
    trackers: dict[str, WallTracker] = {}
    models: dict[str, NaiveWalls] = {}
    total = 0
    for raw in read_capture(captures / name):
        kind, symbol = raw["topic"].split(".")[0], raw["topic"].rsplit(".", 1)[1]
        if kind == "orderbook":
            message = recorded_book(raw)
            book = books.setdefault(symbol, OrderBook(200))
            tracker = trackers.setdefault(symbol, WallTracker(config, 200))
            model = models.setdefault(
                symbol,
                NaiveWalls(config, depth=200, grace_ms=PUSH_PERIOD_MS[200] + ARRIVAL_MS),
            )
            book.apply(message)
            if tracker.tracked:
                tracker.on_book(book)
            model.on_book(raw)
            tracker.update(book, message.exchange_ts_ms)
            events = [
                (
                    event,
                    wall.side,
                    wall.price,
                    wall.first_seen_ms,
                    wall.size,
                    wall.peak_size,
                    wall.traded_size,
                    wall.cancelled_size,
                    wall.refilled_size,
                    wall.eaten_ratio,
                    wall.pulled_ratio,
                )
                for event, wall in tracker.take_events()
            ]
            assert model.update(message.exchange_ts_ms) == events
            total += len(events)
            for wall in tracker.accounts():
                check_balance(wall)
        elif kind == "publicTrade" and symbol in trackers:
            trades = recorded_trades(raw).trades
            trackers[symbol].on_trades(trades)
            for one in trades:
                models[symbol].on_trade(one)
    assert total > least
