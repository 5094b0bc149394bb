"""
The walls of one book: unusually large levels near the mid price, tracked until they end.

Decides which changes and trades concern a wall, and turns verdicts into events. Finding a wall is
in ``search``, its accounts are in ``account``, and the meaning of ``grown``, ``eaten``, ``pulled``
and ``removed`` is in ``verdict``. All times are the exchange's, in milliseconds: match times of
books and trades, and the exchange's present time.

A wall is a level (or ``bucket_ticks`` neighbouring ticks) within ``range_bps`` of the mid price
whose size reaches the threshold of its side, which is in ``baseline``. It is tracked from then on,
and published once it has lasted ``min_age_s``.

Each book message costs one dictionary look-up per known price. Searching, judging and reporting
happen in ``update``, at most once a publish interval: after a change, or at ``wake_ms``. Trades
that are newer than the book are kept until then, since they may have hit a wall that is not found
yet.
"""

from collections.abc import Iterable
from math import inf
from operator import attrgetter
from typing import NamedTuple

from bybit_pipeline.processes.orderbook.book import BookSide, OrderBook
from bybit_pipeline.processes.orderbook.measures import BPS, mid
from bybit_pipeline.processes.orderbook.walls.account import WallAccount, WallLevel, exact
from bybit_pipeline.processes.orderbook.walls.baseline import BACK_MS, Baseline
from bybit_pipeline.processes.orderbook.walls.search import FoundWall, WallSearch
from bybit_pipeline.processes.orderbook.walls.trades import RecentTrades
from bybit_pipeline.processes.orderbook.walls.verdict import Limits, judge, wake_ms
from bybit_pipeline.shared.bybit import PUSH_PERIOD_MS
from bybit_pipeline.shared.settings.config import DensityConfig
from bybit_pipeline.shared.wire.messages import Trade
from bybit_pipeline.shared.wire.orderbook import SideName, Wall, WallEventName

RANGE_KEEP = 1.1
"""A wall is lost at this multiple of the range in which it is found."""
ARRIVAL_MS = 250
"""A trade and the book message that shows it arrive within a push period plus this time."""
HIDDEN_MAX = 20
"""Walls of a side kept while out of sight; with more, those hidden longest are removed."""


class WallEvent(NamedTuple):
    """An event of a wall, and the wall as it was then."""

    event: WallEventName
    wall: Wall


class WallTracker:
    """
    The walls of one book.

    Args:
        settings: Definition of a wall.
        depth: Depth of the stream; its push period bounds how long a trade and the book message
            that shows it wait for each other.
        with_trades: True if the symbol's trades are passed to ``on_trades``.

    Attributes:
        has_trades: True while trades are being received; walls found without them are uncertain.
        tracked: Number of prices in known walls, published or not. Pass book messages while it is
            above zero, and trades always.
        wake_ms: Exchange time at which ``update`` has to run even if nothing more happens.
    """

    __slots__ = (
        "_baselines",
        "_events",
        "_levels",
        "_limits",
        "_match_ms",
        "_mid",
        "_now_ms",
        "_range_kept",
        "_search",
        "_settings",
        "_trades",
        "_walls",
        "has_trades",
        "tracked",
        "wake_ms",
    )

    def __init__(
        self, settings: DensityConfig, depth: int = 50, *, with_trades: bool = True
    ) -> None:
        self._settings = settings
        self._limits = Limits(
            min_age_ms=round(settings.min_age_s * 1_000),
            eaten_ratio=exact(settings.eaten_ratio),
            hidden_ms=round(settings.lookback_s * 1_000),
            grace_ms=PUSH_PERIOD_MS.get(depth, max(PUSH_PERIOD_MS.values())) + ARRIVAL_MS,
        )
        self._range_kept = settings.range_bps * RANGE_KEEP / BPS
        self._levels: dict[SideName, dict[float, WallLevel]] = {"bid": {}, "ask": {}}
        self._walls: dict[SideName, dict[float, WallAccount]] = {"bid": {}, "ask": {}}
        self._events: list[WallEvent] = []
        self._trades = RecentTrades()
        self.has_trades = with_trades
        self.reset()

    def reset(self) -> None:
        """Forget everything learned from this source; call ``drop`` first."""
        self._baselines = {"bid": Baseline(self._settings), "ask": Baseline(self._settings)}
        self._search = WallSearch(self._settings)
        self._trades.clear()
        self._forget_all()
        self._match_ms = 0
        self._now_ms = 0
        self._mid = 0.0

    # -- for each message ------------------------------------------------------------------------

    def on_book(self, book: OrderBook) -> None:
        """Book the changes of the last message to known walls."""
        before_ms = self._match_ms
        now_ms = self._match_ms = max(before_ms, _match_ms(book))
        grown: list[tuple[WallLevel, float, int]] = []
        shrunk: list[WallAccount] = []
        message = book.last
        assert message is not None, "a live book has a last message"
        for side, changes in ((book.bid_side, message.bids), (book.ask_side, message.asks)):
            sizes, levels = side.sizes, self._levels[side.name]
            touched: Iterable[float] = levels
            if not message.is_snapshot and len(changes) < len(levels):
                touched = [price for price, _ in changes if price in levels]
            for price in touched:
                level, size, from_ms = levels[price], sizes.get(price, 0.0), before_ms
                if level.hidden_from_ms is not None:
                    if size == 0.0:
                        continue  # gone or still hidden: ``update`` finds out
                    from_ms = level.show(now_ms)
                if size > level.size:
                    grown.append((level, size, from_ms))
                elif size == level.size:
                    continue
                elif size == 0.0 and _is_beyond(price, side, book.depth):
                    level.hide(before_ms, now_ms)
                else:
                    level.set_size(size, from_ms, now_ms)
                    shrunk.append(level.wall)
        for level, size, from_ms in grown:
            level.set_size(size, from_ms, now_ms)
        for wall in shrunk:
            wall.note_low()

    def on_trades(self, trades: Iterable[Trade]) -> bool:
        """
        Attribute trades to the walls at their prices; block trades never touch the book.

        Returns:
            True if a trade hit a wall, so that ``update`` has something to judge.
        """
        trades = tuple(trades)
        self._trades.append(trades)
        if not self.tracked:
            return False
        has_hit = False
        for trade in trades:
            level = self._levels["ask" if trade.side == "Buy" else "bid"].get(trade.price)
            if level is None or trade.is_block or self._trades.is_booked(trade.trade_id):
                continue
            if self._hit(level, trade):
                has_hit = True
        return has_hit

    def on_trades_lost(self, until_ms: int = 0) -> None:
        """
        Mark the known walls as uncertain, because trades are missing.

        Args:
            until_ms: Match time of the first trade after the missing ones; walls that are found in
                an older book are uncertain too.
        """
        self._trades.note_lost(until_ms)
        for wall in self.accounts():
            wall.uncertain = True

    def set_has_trades(self, has_trades: bool) -> None:
        """Note whether trades are being received from now on."""
        self.has_trades = has_trades
        if not has_trades:
            self.on_trades_lost()

    def drop(self) -> None:
        """Remove every wall, as it was last seen: the book is no longer trusted."""
        for wall in self.accounts():
            self._end(wall)
        self._forget_all()

    # -- once a publish interval -----------------------------------------------------------------

    def update(self, book: OrderBook, now_ms: int) -> None:
        """
        Judge the known walls, search for new ones, and collect the events.

        Args:
            book: The book, live.
            now_ms: The exchange's present time.
        """
        bid, ask = book.best_bid, book.best_ask
        self._match_ms = _match_ms(book)
        now_ms = max(now_ms, self._match_ms)
        if now_ms < self._now_ms - BACK_MS:
            self.drop()  # the old walls were timed by a clock that was set back
        self._now_ms = now_ms
        if bid is None or ask is None:
            self.drop()  # no mid price, no range
            return
        self._mid = mid(bid[0], ask[0])
        for side in (book.bid_side, book.ask_side):
            baseline = self._baselines[side.name]
            has_new_threshold = baseline.observe(side, self._mid, now_ms)
            self._look_for_hidden(side, book.depth)
            self._judge_side(side.name, baseline.threshold, has_new_threshold)
        for side in (book.bid_side, book.ask_side):
            threshold, known = self._baselines[side.name].threshold, self._levels[side.name]
            for found in self._search.find(side, self._mid, threshold, known):
                self._add(side.name, found)
        self._trades.forget_until(self._match_ms)
        self.wake_ms = min((wall.wake_ms for wall in self.accounts()), default=inf)

    @property
    def has_events(self) -> bool:
        """True if ``take_events`` has something to return."""
        return bool(self._events)

    def take_events(self) -> list[WallEvent]:
        """Return the events since the last call, in order."""
        events, self._events = self._events, []
        return events

    def records(self, book: OrderBook | None = None) -> list[Wall]:
        """
        Return the walls as published, nearest first: those that last, and are in sight.

        Args:
            book: Source of the mid price for the distances; by default the one of the last update.
                A book without a mid price has no walls.
        """
        if book is not None:
            if book.best_bid is None or book.best_ask is None:
                return []
            self._mid = mid(book.best_bid[0], book.best_ask[0])
        walls = [self._record(wall) for wall in self.accounts() if wall.is_listed]
        walls.sort(key=attrgetter("distance_bps", "price"))
        return walls

    def accounts(self) -> list[WallAccount]:
        """Return the exact accounts of all walls, published or not."""
        return [wall for walls in self._walls.values() for wall in walls.values()]

    # -- known walls -----------------------------------------------------------------------------

    def _look_for_hidden(self, side: BookSide, depth: int) -> None:
        """Book the loss of levels that would be visible again; limit the walls out of sight."""
        walls = self._walls[side.name].values()
        hidden = [wall for wall in walls if wall.hidden_since_ms is not None]
        for wall in hidden:
            for level in wall.levels:
                if level.hidden_from_ms is not None and not _is_beyond(level.price, side, depth):
                    size = side.sizes.get(level.price, 0.0)
                    level.set_size(size, level.show(self._match_ms), self._match_ms)
            wall.note_low()
        if len(hidden) > HIDDEN_MAX:
            hidden = [wall for wall in walls if wall.hidden_since_ms is not None]
            hidden.sort(key=attrgetter("hidden_since_ms"))
            for wall in hidden[:-HIDDEN_MAX]:
                self._end(wall)

    def _judge_side(self, side: SideName, threshold: float, has_new_threshold: bool) -> None:
        """Judge the walls of a side to which something happened."""
        now_ms = self._now_ms
        due = [
            wall
            for wall in self._walls[side].values()
            if wall.has_changed
            or has_new_threshold
            or now_ms >= wall.wake_ms
            or self._is_out_of_range(wall)
        ]
        if not due:
            return
        exact_threshold = exact(threshold)
        for wall in due:
            event, is_over = judge(
                wall,
                self._limits,
                threshold=exact_threshold,
                is_out_of_range=self._is_out_of_range(wall),
                now_ms=now_ms,
                match_ms=self._match_ms,
            )
            if event is not None:
                self._report(event, wall)
            if is_over:
                self._forget(wall)

    def _add(self, side: SideName, found: FoundWall) -> None:
        """Start to track a wall, and attribute the trades that its book does not show yet."""
        match_ms = self._match_ms
        wall = WallAccount(
            side,
            found.price,
            found.levels,
            first_seen_ms=self._now_ms,
            since_ms=match_ms,
            uncertain=not self.has_trades or self._trades.are_incomplete(match_ms),
        )
        levels = {level.price: level for level in wall.levels}
        self._levels[side].update(levels)
        self._walls[side][found.price] = wall
        self.tracked += len(levels)
        taker = "Sell" if side == "bid" else "Buy"
        # A trade in the same millisecond as the book has most likely shaped it. A trade that was
        # booked for an earlier wall at this price counts for this one too.
        for trade in self._trades.after(match_ms):
            level = levels.get(trade.price)
            if level is not None and trade.side == taker and not trade.is_block:
                self._hit(level, trade)
        if not self._limits.min_age_ms:
            wall.is_detected = True
            self._report("detected", wall)
        wall.wake_ms = wake_ms(wall, self._limits, self._now_ms)

    def _hit(self, level: WallLevel, trade: Trade) -> bool:
        """Book a trade at a wall's price; return True if it took from the visible size."""
        self._trades.note_booked(trade.trade_id)
        if trade.is_rpi:
            level.wall.uncertain = True
            return False
        level.add_trade(trade.match_ts_ms, trade.size)
        return True

    def _end(self, wall: WallAccount) -> None:
        """Remove a wall as it was last seen."""
        if wall.is_detected and wall.spent_since_ms is None:
            self._report("removed", wall)
        self._forget(wall)

    def _forget(self, wall: WallAccount) -> None:
        levels = self._levels[wall.side]
        for level in wall.levels:
            del levels[level.price]
        del self._walls[wall.side][wall.price]
        self.tracked -= len(wall.levels)

    def _forget_all(self) -> None:
        for walls, levels in zip(self._walls.values(), self._levels.values(), strict=True):
            walls.clear()
            levels.clear()
        self.tracked = 0
        self.wake_ms = inf

    def _is_out_of_range(self, wall: WallAccount) -> bool:
        """Return True if a wall is beyond the range, with hysteresis."""
        return abs(wall.price - self._mid) > self._mid * self._range_kept

    # -- reports ---------------------------------------------------------------------------------

    def _report(self, event: WallEventName, wall: WallAccount) -> None:
        self._events.append(WallEvent(event, self._record(wall)))

    def _record(self, wall: WallAccount) -> Wall:
        baseline = self._baselines[wall.side].level
        assert baseline is not None, "a wall was found by its baseline"
        distance_bps = abs(wall.price - self._mid) / self._mid * BPS
        return wall.record(baseline=baseline, distance_bps=distance_bps, now_ms=self._now_ms)


def _match_ms(book: OrderBook) -> int:
    """Return the match time of the book, or its push time if that is missing or earlier."""
    last = book.last
    assert last is not None, "a live book has a last message"
    pushed_ms, matched_ms = last.exchange_ts_ms, last.match_ts_ms
    return pushed_ms if matched_ms is None or matched_ms > pushed_ms else matched_ms


def _is_beyond(price: float, side: BookSide, depth: int) -> bool:
    """Return True if a deleted price is worse than every level of a full side: hidden, not gone."""
    if len(side.sizes) < depth:
        return False
    return bool(price < side.prices[0] if side.name == "bid" else price > side.prices[-1])
