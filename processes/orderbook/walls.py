"""
Walls: unusually large levels near the price, found, followed, and told about when they end.

Decides what is a wall, when it is told as ``detected``, ``grown``, ``eaten``, ``pulled`` or
``removed``, and which trades concern it; the accounts are in ``wall``. All times are the
exchange's, in milliseconds: match times of books and trades, and the exchange's present time.

Between publications only the few prices of known walls are looked at, one dictionary look-up each
per book message. The search for new walls, the thresholds and the events are done by ``update``, at
most once a publish interval: when the book changed, or at ``wake_ms``. Trades that are newer than
the book are kept until then: they may have hit a wall that is not found yet.

- A wall is a level (or ``bucket_ticks`` neighbouring ticks) within ``range_bps`` of the mid price
  whose size is at least ``k`` times the baseline: the median over ``lookback_s`` of the median
  level size of its side, sampled once a second while the book changes. Medians of many levels do
  not feel the walls.
- Hysteresis: a wall ends below ``KEEP`` of the threshold it had to reach, and beyond
  ``RANGE_KEEP`` times the range.
- ``grown``: ``GROWN`` times the lowest size since the last event, also after being eaten.
- ``eaten``: trades took at least ``eaten_ratio`` of the peak. A wall that fell below its threshold
  mostly by trades has ``FALL_MS`` to get there, or is ``eaten`` then or when nothing is left. This
  is said once; the wall stays known for ``REFILL_MS`` after it fell, and filled up again it is
  ``grown``: the same wall (``first_seen_ms``, ``initial_size``) with new accounts.
- ``pulled``: it fell below its threshold mostly by cancellation. Told when no trade can explain
  the decrease any more. Where the level goes on shrinking all the time it is told ``FALL_MS`` after
  the fall, as uncertain, once what is open cannot turn the verdict.
- ``removed``: out of range, out of the visible book, dropped with an untrusted book or with one
  that has one side only, or no longer large because the baseline rose.
"""

from array import array
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from math import inf
from operator import itemgetter
from statistics import median
from typing import Any, Literal, NamedTuple

from bybit_pipeline.processes.orderbook.book import BookSide, OrderBook, SideName
from bybit_pipeline.processes.orderbook.measures import BPS, band, mid
from bybit_pipeline.processes.orderbook.wall_account import WallAccount, WallLevel, exact
from bybit_pipeline.shared.bybit import PUSH_PERIOD_MS
from bybit_pipeline.shared.settings.config import DensityConfig
from bybit_pipeline.shared.wire.messages import Trade

WallEventName = Literal["detected", "grown", "eaten", "pulled", "removed"]
EVENTS: tuple[WallEventName, ...] = ("detected", "grown", "eaten", "pulled", "removed")

KEEP = Decimal("0.7")
RANGE_KEEP = 1.1
GROWN = Decimal("1.25")
FALL_MS = 5_000
REFILL_MS = 10_000
SAMPLE_MS = 1_000
BACK_MS = 60_000
"""Time that goes back so far is another time; by less it does when it was guessed forward."""
MAX_SAMPLES = 300
TRADE_IDS = 4096
RECENT_TRADES = 256
"""Messages of trades that are kept for walls yet to be found: more than come between two looks."""

ARRIVAL_MS = 250
"""How much later than its push period a partner may arrive."""


class Wall(NamedTuple):
    """
    A wall as published: sizes as the exchange gives them, ratios of the peak in [0, 1].

    ``traded_size + cancelled_size + size = peak_size + refilled_size``. ``strength`` is size over
    baseline. ``uncertain``: trades may be missing, or retail price improvement traded at its
    price, so that eaten and pulled may be confused.
    """

    side: SideName
    price: float
    size: float
    initial_size: float
    peak_size: float
    strength: float
    eaten_ratio: float
    pulled_ratio: float
    traded_size: float
    cancelled_size: float
    refilled_size: float
    distance_bps: float
    first_seen_ms: int
    age_ms: int
    uncertain: bool


class WallEvent(NamedTuple):
    """What happened to a wall."""

    event: WallEventName
    wall: Wall


class Baseline:
    """
    The median over a look-back of medians sampled once a second.

    In arrays, which are cheap to insert into at a few hundred samples: 24 bytes each, and in a
    SortedList and a queue of pairs 130.

    Attributes:
        value: The baseline; None before the first sample.
    """

    __slots__ = ("_lookback_ms", "_samples", "_sorted", "_spacing_ms", "_times", "value")

    def __init__(self, lookback_s: float) -> None:
        self._lookback_ms = round(lookback_s * 1000)
        self._spacing_ms = max(SAMPLE_MS, self._lookback_ms // MAX_SAMPLES)
        self._times = array("q")
        self._samples = array("d")
        self._sorted = array("d")
        self.value: float | None = None

    def observe(self, side: BookSide, now_ms: int) -> bool:
        """Take a sample of a side's sizes, if the last is old enough; whether ``value`` moved."""
        times, samples, ordered = self._times, self._samples, self._sorted
        if times and now_ms - times[-1] < self._spacing_ms:
            if now_ms >= times[-1] - BACK_MS:
                return False
            del times[:], samples[:], ordered[:]
        if side.sizes:
            sample = float(median(side.sizes.values()))
            times.append(now_ms)
            samples.append(sample)
            insort(ordered, sample)
        over = bisect_right(times, now_ms - self._lookback_ms)
        for sample in samples[:over]:
            del ordered[bisect_left(ordered, sample)]
        del times[:over], samples[:over]
        before = self.value
        if ordered:
            count = len(ordered)
            self.value = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
        return self.value != before


class TickGrid:
    """The tick of a symbol: the greatest common divisor of all price steps seen."""

    __slots__ = ("_origin", "_seen", "tick")

    def __init__(self) -> None:
        self.tick: Decimal | None = None
        self._origin: Decimal | None = None
        self._seen: set[float] = set()

    def observe(self, prices: Iterable[float]) -> None:
        """Take in prices; only those that were not in the previous call cost anything."""
        seen = set(prices)
        for price in seen - self._seen:
            number = exact(price)
            if self._origin is None:
                self._origin = number
            elif number != self._origin:
                self.tick = _common_divisor(self.tick, abs(number - self._origin))
        self._seen = seen

    def steps(self, low: float, high: float) -> int:
        """Ticks from one price to another; both must have been seen, and two prices at least."""
        assert self.tick is not None, "two prices have been seen"
        return int((exact(high) - exact(low)) / self.tick)

    def ladder(self, low: float, count: int) -> list[float]:
        """``count`` prices from ``low`` upwards, a tick apart."""
        if self.tick is None:
            return [low]
        start = exact(low)
        return [float(start + step * self.tick) for step in range(count)]


class WallTracker:
    """
    The walls of one book.

    Args:
        settings: What counts as a wall.
        depth: Of the stream; its push period bounds how long trades and books wait for each other.
        with_trades: Whether the trades of the symbol are brought at all.

    Attributes:
        trades_followed: Whether trades are being brought; walls found without are uncertain.
        tracked: Number of prices that are followed; bring books when it is not zero, trades always.
        wake_ms: The exchange's time at which ``update`` has something to decide even if nothing
            more comes.
    """

    __slots__ = (
        "_band",
        "_baselines",
        "_events",
        "_grace_ms",
        "_levels",
        "_lost_until_ms",
        "_match_ms",
        "_mid",
        "_now_ms",
        "_range_kept",
        "_recent",
        "_settings",
        "_tick",
        "_trade_ids",
        "_walls",
        "tracked",
        "trades_followed",
        "wake_ms",
    )

    def __init__(
        self, settings: DensityConfig, depth: int = 50, *, with_trades: bool = True
    ) -> None:
        self._settings = settings
        self._band = band(settings.range_bps)
        self._range_kept = settings.range_bps * RANGE_KEEP / BPS
        self._grace_ms = PUSH_PERIOD_MS.get(depth, max(PUSH_PERIOD_MS.values())) + ARRIVAL_MS
        self._levels: dict[SideName, dict[float, WallLevel]] = {"bid": {}, "ask": {}}
        self._walls: dict[SideName, dict[float, WallAccount]] = {"bid": {}, "ask": {}}
        self._events: list[WallEvent] = []
        self.trades_followed = with_trades
        self._recent: deque[tuple[Trade, ...]] = deque(maxlen=RECENT_TRADES)
        self.reset()

    def reset(self) -> None:
        """Forget everything that was learned from this source; walls must be dropped before."""
        lookback_s = self._settings.lookback_s
        self._baselines = {"bid": Baseline(lookback_s), "ask": Baseline(lookback_s)}
        self._tick = TickGrid()
        self._trade_ids: dict[str, None] = {}
        self._recent.clear()
        self._lost_until_ms = 0
        self._forget_all()
        self._match_ms = 0
        self._now_ms = 0
        self._mid = 0.0

    # -- as messages come ------------------------------------------------------------------------

    def on_book(self, book: OrderBook) -> None:
        """Book what the last message did to the walls; for every message while any is tracked."""
        before_ms = self._match_ms
        now_ms = self._match_ms = max(before_ms, _match_ms(book))
        grown: list[tuple[WallLevel, float]] = []
        shrunk: list[WallAccount] = []
        message = book.last
        assert message is not None, "a live book has a last message"
        for side, changes in ((book.bid_side, message.bids), (book.ask_side, message.asks)):
            sizes, levels = side.sizes, self._levels[side.name]
            touched: Iterable[float] = levels
            if not message.is_snapshot and len(changes) < len(levels):
                touched = [price for price, _ in changes if price in levels]
            for price in touched:
                level, size = levels[price], sizes.get(price, 0.0)
                if size == level.size or level.wall.has_left_window:
                    continue
                if size > level.size:
                    grown.append((level, size))
                elif size == 0.0 and _is_beyond(price, side, book.depth):
                    level.wall.has_left_window = level.wall.has_changed = True
                else:
                    level.set_size(size, before_ms, now_ms)
                    shrunk.append(level.wall)
        for level, size in grown:
            level.set_size(size, before_ms, now_ms)
        for wall in shrunk:
            wall.note_low()

    def on_trades(self, trades: Iterable[Trade]) -> bool:
        """
        Attribute trades to the walls at their prices; block trades never touch the book.

        Returns:
            Whether any hit a wall, so that ``update`` has something to decide.
        """
        trades = tuple(trades)
        self._recent.append(trades)
        if not self.tracked:
            return False
        has_hit = False
        for trade in trades:
            level = self._levels["ask" if trade.side == "Buy" else "bid"].get(trade.price)
            if level is None or trade.is_block or trade.trade_id in self._trade_ids:
                continue
            if self._hit(level, trade):
                has_hit = True
        return has_hit

    def on_trades_lost(self, until_ms: int = 0) -> None:
        """
        Trades are missing: what happens to the present walls can no longer be told surely.

        Args:
            until_ms: Match time of the first trade after them: walls that are found in an older
                book are concerned as well.
        """
        self._lost_until_ms = until_ms
        for wall in self.accounts():
            wall.uncertain = True

    def follow_trades(self, followed: bool) -> None:
        """Whether trades are being brought from now on; walls without them are uncertain."""
        self.trades_followed = followed
        if not followed:
            self.on_trades_lost()

    def drop(self) -> None:
        """The book is trusted no longer: every wall is removed, as it was last seen."""
        for wall in self.accounts():
            if wall.spent_since_ms is None:
                self._report("removed", wall)
        self._forget_all()

    # -- once a publish interval -----------------------------------------------------------------

    def update(self, book: OrderBook, now_ms: int) -> None:
        """
        Judge the known walls of a live book and look for new ones; tells events.

        Args:
            book: The book, live.
            now_ms: The exchange's present time.
        """
        bid, ask = book.best_bid, book.best_ask
        self._match_ms = _match_ms(book)
        now_ms = max(now_ms, self._match_ms)
        if now_ms < self._now_ms - BACK_MS:
            self.drop()  # what was measured by that time
        self._now_ms = now_ms
        if bid is None or ask is None:
            self.drop()  # without a mid price nothing is within range
            return
        self._mid = mid(bid[0], ask[0])
        for side in (book.bid_side, book.ask_side):
            has_new_baseline = self._baselines[side.name].observe(side, self._now_ms)
            self._judge_side(side.name, has_new_baseline)
        for side in (book.bid_side, book.ask_side):
            self._search(side)
        self._forget_trades()
        self.wake_ms = min(map(self._wake_ms, self.accounts()), default=inf)

    @property
    def has_events(self) -> bool:
        """Whether there is something to take."""
        return bool(self._events)

    def take_events(self) -> list[WallEvent]:
        """The events since the last call, in order."""
        events, self._events = self._events, []
        return events

    def walls(self, book: OrderBook | None = None) -> list[Wall]:
        """
        The walls, nearest first; distances from the mid price of ``book`` if it is given.

        None of a book that has no mid price.
        """
        if book is not None:
            if book.best_bid is None or book.best_ask is None:
                return []
            self._mid = mid(book.best_bid[0], book.best_ask[0])
        return [Wall(**fields) for fields in self.records()]

    def records(self) -> list[dict[str, Any]]:
        """The walls as they are published, nearest first; about 1 us a wall."""
        records = [self._record(wall) for wall in self.accounts() if wall.spent_since_ms is None]
        records.sort(key=itemgetter("distance_bps", "price"))
        return records

    def accounts(self) -> list[WallAccount]:
        """The walls with their exact accounts, also those that wait to be filled up again."""
        return [wall for walls in self._walls.values() for wall in walls.values()]

    # -- judgement -------------------------------------------------------------------------------

    def _judge_side(self, side: SideName, has_new_baseline: bool) -> None:
        """Judge the walls of a side; those that nothing has happened to cost a comparison."""
        due = [
            wall
            for wall in self._walls[side].values()
            if wall.has_changed or has_new_baseline or self._is_out_of_range(wall)
        ]
        baseline = self._baselines[side].value
        if not due or baseline is None:
            return
        threshold = exact(self._settings.k * baseline)
        until_ms = self._now_ms - self._grace_ms
        for wall in due:
            wall.settle(until_ms)
            is_open = wall.first_open_ms() is not None
            wall.has_changed = is_open or wall.fallen_since_ms is not None
            self._judge(wall, threshold)

    def _judge(self, wall: WallAccount, threshold: Decimal) -> None:
        if wall.spent_since_ms is not None:
            self._judge_spent(wall, threshold)
            return
        is_eaten = wall.eaten >= exact(self._settings.eaten_ratio) * wall.peak
        if wall.has_left_window:
            self._end("removed", wall)
        elif is_eaten and not wall.is_eaten_reported:
            self._report_eaten(wall, is_spent=wall.size < threshold * KEEP)
        elif self._is_out_of_range(wall):
            self._end("removed", wall)
        elif wall.size < threshold * KEEP:
            self._judge_fallen(wall)
        else:
            wall.fallen_since_ms = None
            if wall.size >= wall.low * GROWN:
                self._grow(wall)

    def _judge_spent(self, wall: WallAccount, threshold: Decimal) -> None:
        """A wall that was eaten: filled up again it has grown, else it is forgotten silently."""
        assert wall.spent_since_ms is not None, "only spent walls come here"
        wall.has_changed = True  # comes back also when nothing happens
        is_over = self._now_ms - wall.spent_since_ms > REFILL_MS
        if is_over or wall.has_left_window or self._is_out_of_range(wall):
            self._forget(wall)
        elif wall.size >= threshold:
            self._grow(wall)

    def _judge_fallen(self, wall: WallAccount) -> None:
        """A wall below its threshold: why?"""
        if wall.fallen_since_ms is None:
            wall.fallen_since_ms = self._now_ms
            wall.has_changed = True  # comes back also when nothing happens
        if wall.is_eaten_reported:
            self._spend(wall)
            return
        if wall.size > wall.peak * KEEP:
            self._end("removed", wall)  # it kept its size, the baseline rose
            return
        is_over = self._now_ms - wall.fallen_since_ms > FALL_MS
        unexplained = wall.unexplained()
        if unexplained:
            # What a trade may still explain is booked as pulled, and would move to eaten.
            is_sure = wall.eaten > wall.pulled or wall.pulled - wall.eaten >= 2 * unexplained
            if not (is_over and is_sure):
                return
            wall.uncertain = True
        if wall.eaten <= wall.pulled:
            self._end("pulled", wall)
        elif not wall.size or is_over:
            self._report_eaten(wall, is_spent=True)

    def _wake_ms(self, wall: WallAccount) -> float:
        """When to judge a wall that nothing more happens to."""
        if wall.spent_since_ms is not None:
            return wall.spent_since_ms + REFILL_MS + 1
        if not wall.has_changed:
            return inf
        first_ms = wall.first_open_ms()
        wake_ms = inf if first_ms is None else first_ms + self._grace_ms
        if wall.fallen_since_ms is not None and self._now_ms <= wall.fallen_since_ms + FALL_MS:
            wake_ms = min(wake_ms, wall.fallen_since_ms + FALL_MS)
        return wake_ms + 1

    def _report_eaten(self, wall: WallAccount, *, is_spent: bool) -> None:
        wall.is_eaten_reported = True
        wall.low = wall.size
        self._report("eaten", wall)
        if is_spent:
            self._spend(wall)

    def _spend(self, wall: WallAccount) -> None:
        """Keep an eaten wall in mind for a while, in case it is filled up again."""
        wall.spent_since_ms = self._now_ms
        wall.has_changed = True

    def _grow(self, wall: WallAccount) -> None:
        if wall.is_eaten_reported:
            wall.restart(self._match_ms)
        wall.low = wall.size
        self._report("grown", wall)

    def _end(self, event: WallEventName, wall: WallAccount) -> None:
        self._report(event, wall)
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
        """Whether a wall is beyond the range, with hysteresis."""
        return abs(wall.price - self._mid) > self._mid * self._range_kept

    # -- search ----------------------------------------------------------------------------------

    def _search(self, side: BookSide) -> None:
        baseline = self._baselines[side.name].value
        if baseline is None:
            return
        threshold = self._settings.k * baseline
        if self._settings.bucket_ticks == 1:
            known = self._levels[side.name]
            new = [p for p, size in side.sizes.items() if size >= threshold and p not in known]
            if new:
                low, high = self._range(side.name)
                for price in sorted(new, reverse=side.name == "bid"):
                    if low <= price <= high:
                        self._found(side.name, price, [(price, side.sizes[price])])
        else:
            self._tick.observe(side.prices)
            prices = self._prices_in_range(side)
            sizes = list(map(side.sizes.__getitem__, prices))
            for window in self._windows(side.name, prices, sizes, threshold):
                levels = [(price, side.sizes.get(price, 0.0)) for price in window]
                largest = max(levels, key=lambda level: level[1])
                self._found(side.name, largest[0], levels)

    def _windows(
        self, side: SideName, prices: Sequence[float], sizes: Sequence[float], threshold: float
    ) -> Iterator[list[float]]:
        """
        Runs of ``bucket_ticks`` ticks that hold at least ``threshold``, largest first.

        Each starts at a level; none shares a price with another or with a known wall. ``prices``
        ascend.
        """
        count = self._settings.bucket_ticks
        if len(prices) < 2:
            return
        ticks = [self._tick.steps(prices[0], price) for price in prices]
        totals: list[tuple[float, int]] = []
        end, total = 0, 0.0
        for start, size in enumerate(sizes):
            while end < len(ticks) and ticks[end] < ticks[start] + count:
                total += sizes[end]
                end += 1
            if total >= threshold:
                totals.append((-total, start))
            total -= size
        taken = set(self._levels[side])
        for _, start in sorted(totals):
            window = self._tick.ladder(prices[start], count)
            if taken.isdisjoint(window):
                taken.update(window)
                yield window

    def _range(self, side: SideName) -> tuple[float, float]:
        """The lowest and the highest price of a side that is within range of the mid price."""
        lowest, highest = self._band
        return (self._mid * lowest, inf) if side == "bid" else (0.0, self._mid * highest)

    def _prices_in_range(self, side: BookSide) -> list[float]:
        """The prices of a side within range of the mid price, ascending."""
        low, high = self._range(side.name)
        return side.prices[bisect_left(side.prices, low) : bisect_right(side.prices, high)]

    def _found(self, side: SideName, price: float, levels: list[tuple[float, float]]) -> None:
        wall = WallAccount(
            side,
            price,
            levels,
            first_seen_ms=self._now_ms,
            since_ms=self._match_ms,
            uncertain=not self.trades_followed or self._misses_trades(self._match_ms),
        )
        for level in wall.levels:
            self._levels[side][level.price] = level
        self._walls[side][price] = wall
        wall.has_changed = False
        self.tracked += len(levels)
        self._replay_trades(wall)
        self._report("detected", wall)

    # -- trades ----------------------------------------------------------------------------------

    def _hit(self, level: WallLevel, trade: Trade) -> bool:
        """A trade at a wall's price, seen for the first time; whether it took from the book."""
        self._trade_ids[trade.trade_id] = None
        if len(self._trade_ids) > TRADE_IDS:
            del self._trade_ids[next(iter(self._trade_ids))]
        if trade.is_rpi:
            level.wall.uncertain = True
            return False
        level.trade(trade.match_ts_ms, trade.size)
        return True

    def _replay_trades(self, wall: WallAccount) -> None:
        """
        Attribute what came before the wall was found and is newer than the book that shows it.

        What is of the book's very millisecond has mostly made that book. An id may have hit an
        earlier wall at the price, which tells nothing about this one.
        """
        levels = {level.price: level for level in wall.levels}
        taker = "Sell" if wall.side == "bid" else "Buy"
        seen: set[str] = set()
        for trades in self._recent:
            for trade in trades:
                level = levels.get(trade.price)
                if level is None or trade.side != taker or trade.is_block:
                    continue
                if trade.match_ts_ms > wall.since_ms and trade.trade_id not in seen:
                    seen.add(trade.trade_id)
                    self._hit(level, trade)

    def _misses_trades(self, since_ms: int) -> bool:
        """Whether trades after ``since_ms`` were lost, or too many to keep."""
        if since_ms < self._lost_until_ms:
            return True
        recent = self._recent
        is_full = len(recent) == RECENT_TRADES
        return is_full and (not recent[0] or recent[0][0].match_ts_ms > since_ms)

    def _forget_trades(self) -> None:
        """Let go of trades that the book has in it: a wall that is found later has them too."""
        recent = self._recent
        while recent and (not recent[0] or recent[0][-1].match_ts_ms <= self._match_ms):
            recent.popleft()

    # -- telling ---------------------------------------------------------------------------------

    def _report(self, event: WallEventName, wall: WallAccount) -> None:
        self._events.append(WallEvent(event, self._record_of(wall)))

    def _record_of(self, wall: WallAccount) -> Wall:
        return Wall(**self._record(wall))

    def _record(self, wall: WallAccount) -> dict[str, Any]:
        baseline = self._baselines[wall.side].value
        assert baseline is not None, "a wall was found by its baseline"
        record = wall.fields().copy()
        record["strength"] = record["size"] / baseline
        record["distance_bps"] = abs(wall.price - self._mid) / self._mid * BPS
        record["age_ms"] = max(0, self._now_ms - wall.first_seen_ms)
        record["uncertain"] = wall.uncertain
        return record


def _match_ms(book: OrderBook) -> int:
    """Match time of the book's state, never later than its push, which stands in where it lacks."""
    last = book.last
    assert last is not None, "a live book has a last message"
    pushed_ms, matched_ms = last.exchange_ts_ms, last.match_ts_ms
    return pushed_ms if matched_ms is None or matched_ms > pushed_ms else matched_ms


def _is_beyond(price: float, side: BookSide, depth: int) -> bool:
    """Whether a deleted price lies beyond the levels of a full side: out of sight, not gone."""
    if len(side.sizes) < depth:
        return False
    return bool(price < side.prices[0] if side.name == "bid" else price > side.prices[-1])


def _common_divisor(first: Decimal | None, second: Decimal) -> Decimal:
    first = first or second
    while second:
        first, second = second, first % second
    return first
