"""A market with walls, changed step by step."""

from collections.abc import Iterable
from typing import Any

import pytest

from bybit_pipeline.processes.orderbook.book import OrderBook
from bybit_pipeline.processes.orderbook.walls.account import WallAccount
from bybit_pipeline.processes.orderbook.walls.tracker import ARRIVAL_MS, WallEvent, WallTracker
from bybit_pipeline.shared.bybit import PUSH_PERIOD_MS
from bybit_pipeline.shared.settings.config import DensityConfig
from bybit_pipeline.shared.wire.messages import Level, Trade
from tests.orderbook.build import delta, snapshot, trade

STEP_MS = 100
GRACE_MS = PUSH_PERIOD_MS[50] + ARRIVAL_MS
SMALL = [(round(99.99 - step / 100, 2), 1.0) for step in range(10)]
SMALL_ASKS = [(round(100.01 + step / 100, 2), 1.0) for step in range(10)]
WALL = 99.95


def exactly(size: Any) -> Any:
    return pytest.approx(size, rel=1e-12, abs=1e-12)


class Story:
    """
    A book around 100 with levels of size 1, changed step by step.

    A step takes 100 ms: trades in the middle, the book message at the end, then an update.
    """

    def __init__(self, depth: int = 50, **config: Any) -> None:
        self.tracker = WallTracker(DensityConfig(**{"min_age_s": 0.0} | config), depth)
        self.book = OrderBook(depth)
        self.update_id = 10
        self.now_ms = 1_000_000
        self.book.apply(self.message(SMALL, SMALL_ASKS, is_snapshot=True))
        self.tracker.update(self.book, self.now_ms)

    def message(self, bids: Iterable[Level], asks: Iterable[Level], **fields: Any) -> Any:
        make = snapshot if fields.pop("is_snapshot", False) else delta
        return make(self.update_id, bids, asks, match_ms=self.now_ms, depth=self.book.depth)

    def step(
        self,
        bids: Iterable[Level] = (),
        asks: Iterable[Level] = (),
        trades: Iterable[Trade] = (),
        *,
        is_late: bool = False,
        ms: int = STEP_MS,
    ) -> list[WallEvent]:
        """Run one step and return its events; late trades arrive after the book message."""
        self.now_ms += ms
        self.update_id += 1
        if not is_late:
            self.tracker.on_trades(trades)
        self.book.apply(self.message(bids, asks))
        if self.tracker.tracked:
            self.tracker.on_book(self.book)
        if is_late:
            self.tracker.on_trades(trades)
        self.tracker.update(self.book, self.now_ms)
        for wall in self.tracker.accounts():
            check_balance(wall)
        return self.tracker.take_events()

    def sold(self, size: float, price: float = WALL, **fields: Any) -> Trade:
        """Return a trade that takes from the bids in the middle of the next step."""
        return trade(self.now_ms + STEP_MS // 2, "Sell", price, size, **fields)

    def wait(self, ms: int = GRACE_MS + STEP_MS) -> list[WallEvent]:
        """Run steps without changes and return their events."""
        return [event for _ in range(-(-ms // STEP_MS)) for event in self.step()]


def check_balance(wall: WallAccount) -> None:
    assert wall.traded + wall.cancelled + wall.size == wall.peak + wall.refilled
    assert wall.eaten + wall.pulled + wall.size == wall.peak
    for amount in (wall.size, wall.traded, wall.cancelled, wall.refilled, wall.eaten, wall.pulled):
        assert amount >= 0


def names(events: Iterable[WallEvent]) -> list[str]:
    return [event.event for event in events]
