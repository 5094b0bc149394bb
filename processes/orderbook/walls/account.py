"""
Exact accounts of one wall: what was added, traded and cancelled at its prices.

Decides how a change of size is booked and which trade explains which decrease. Knows no books,
thresholds or events.

Amounts are ``Decimal``, made from the shortest text of the float, which is the text that the
exchange sent. Sums are therefore exact (28 digits hold 10^12 sizes of 16 digits), and at every
moment

    traded + cancelled + size = peak + refilled

to the last digit. A decrease counts as cancelled until a trade explains it. A trade explains a
decrease if its match time lies between the match times of the two book messages between which the
level shrank. The trade may arrive before or after the book message.
"""

from collections.abc import Iterable
from decimal import Decimal
from math import inf

from msgspec.structs import replace

from bybit_pipeline.shared.wire.orderbook import SideName, Wall

ZERO = Decimal(0)


def exact(number: float) -> Decimal:
    """Return the decimal number that the exchange sent; it has up to 16 digits."""
    return Decimal(repr(number))


class OpenDecrease:
    """The part of a decrease between two book messages that no trade has explained yet."""

    __slots__ = ("amount", "from_ms", "to_ms")

    def __init__(self, from_ms: int, to_ms: int, amount: Decimal) -> None:
        self.from_ms = from_ms
        self.to_ms = to_ms
        self.amount = amount


class OpenTrade:
    """The part of a trade at a wall's price that no decrease has shown yet."""

    __slots__ = ("amount", "match_ms")

    def __init__(self, match_ms: int, amount: Decimal) -> None:
        self.match_ms = match_ms
        self.amount = amount


class WallLevel:
    """
    One price of a wall.

    Attributes:
        size: The size in the book; the last one seen while the price is out of sight.
        hidden_from_ms: Match time of the last book that showed the price; None while it is visible.
    """

    __slots__ = ("_exact_size", "decreases", "hidden_from_ms", "price", "size", "trades", "wall")

    def __init__(self, wall: "WallAccount", price: float, size: float) -> None:
        self.wall = wall
        self.price = price
        self.size = size
        self._exact_size = exact(size)
        self.hidden_from_ms: int | None = None
        self.decreases: list[OpenDecrease] = []
        self.trades: list[OpenTrade] = []

    def hide(self, from_ms: int, to_ms: int) -> None:
        """Note that the price left the visible book between these two match times."""
        self.hidden_from_ms = from_ms
        self.wall.note_sight(to_ms)

    def show(self, now_ms: int) -> int:
        """Note that the price is visible again; return the match time since which it was not."""
        from_ms = self.hidden_from_ms
        assert from_ms is not None, "only a hidden price can reappear"
        self.hidden_from_ms = None
        self.wall.note_sight(now_ms)
        return from_ms

    def set_size(self, size: float, from_ms: int, to_ms: int) -> None:
        """Book a new size, which the level took between these two match times."""
        exact_size = exact(size)
        change = exact_size - self._exact_size
        self.size, self._exact_size = size, exact_size
        if change > 0:
            self.wall.increase(change)
        elif change < 0:
            self.wall.decrease(-change)
            decrease = OpenDecrease(from_ms, to_ms, -change)
            for trade in self.trades:
                self._explain(decrease, trade)
            self.trades = [trade for trade in self.trades if trade.amount]
            if decrease.amount:
                self.decreases.append(decrease)

    def add_trade(self, match_ms: int, size: float) -> None:
        """Book a trade that took from the wall at this price."""
        trade = OpenTrade(match_ms, exact(size))
        for decrease in self.decreases:
            self._explain(decrease, trade)
        self.decreases = [decrease for decrease in self.decreases if decrease.amount]
        if trade.amount:
            self.trades.append(trade)
            self.wall.has_changed = True

    def settle(self, until_ms: int) -> None:
        """
        Close decreases and trades that are older than ``until_ms``: their match can't arrive.

        An unexplained decrease stays cancelled. A trade without a decrease was refilled within
        the same push period, so its amount counts as traded and refilled. The exception is a trade
        in the same millisecond as the book that first showed the wall, which already includes it.
        """
        if self.decreases:
            self.decreases = [item for item in self.decreases if item.to_ms >= until_ms]
        if self.trades:
            for trade in self.trades:
                if self.wall.since_ms < trade.match_ms < until_ms:
                    self.wall.trade_and_refill(trade.amount)
            self.trades = [trade for trade in self.trades if trade.match_ms >= until_ms]

    def _explain(self, decrease: OpenDecrease, trade: OpenTrade) -> None:
        if decrease.from_ms <= trade.match_ms <= decrease.to_ms:
            amount = min(decrease.amount, trade.amount)
            decrease.amount -= amount
            trade.amount -= amount
            self.wall.explain_by_trade(amount)


class WallAccount:
    """
    The levels of a wall, its accounts, and where it is in its life.

    ``eaten`` and ``pulled`` are the parts of the peak that are missing now, taken by trades and by
    cancellation: ``eaten + pulled + size = peak``. A refill first replaces what was eaten.

    Args:
        side: The side of the book.
        price: The price that identifies the wall.
        levels: ``(price, size)`` pairs of all its prices, including sizes of zero.
        first_seen_ms: When it was found.
        since_ms: Match time of the book in which it was found. The first sizes include every trade
            up to this time. A snapshot's match time can be much older than the snapshot.
        uncertain: True if trades may be missing.

    Attributes:
        low: The smallest size since the last event.
        has_changed: True if the wall has to be judged again.
        hidden_since_ms: When the first of its prices that are out of sight left the visible book;
            None if all are visible.
        is_detected: True once ``detected`` was published.
        is_eaten_reported: True once ``eaten`` was published, until the wall grows again.
        fallen_since_ms: When it fell below its threshold; None while it is above.
        spent_since_ms: When an eaten wall fell below its threshold. It is no longer published, but
            kept for a while in case it is refilled.
        wake_ms: When it has to be judged even if nothing more happens to it.
    """

    __slots__ = (
        "_record",
        "cancelled",
        "eaten",
        "fallen_since_ms",
        "first_seen_ms",
        "has_changed",
        "hidden_since_ms",
        "initial",
        "is_detected",
        "is_eaten_reported",
        "levels",
        "low",
        "peak",
        "price",
        "pulled",
        "refilled",
        "side",
        "since_ms",
        "size",
        "spent_since_ms",
        "traded",
        "uncertain",
        "wake_ms",
    )

    def __init__(
        self,
        side: SideName,
        price: float,
        levels: Iterable[tuple[float, float]],
        *,
        first_seen_ms: int,
        since_ms: int,
        uncertain: bool = False,
    ) -> None:
        self.side: SideName = side
        self.price = price
        self.first_seen_ms = first_seen_ms
        self.since_ms = since_ms
        self.levels = [WallLevel(self, price, size) for price, size in levels]
        self.size = sum((exact(level.size) for level in self.levels), ZERO)
        self.initial = self.peak = self.low = self.size
        self.traded = self.cancelled = self.refilled = ZERO
        self.eaten = self.pulled = ZERO
        self.uncertain = uncertain
        self.has_changed = False
        self.hidden_since_ms: int | None = None
        self.is_detected = False
        self.is_eaten_reported = False
        self.fallen_since_ms: int | None = None
        self.spent_since_ms: int | None = None
        self.wake_ms = inf
        self._record: Wall | None = None

    # -- bookings --------------------------------------------------------------------------------

    def increase(self, amount: Decimal) -> None:
        """Book an addition: a refill up to the peak, and a new peak beyond it."""
        self._touch()
        refill = min(amount, self.peak - self.size)
        self.refilled += refill
        self.peak += amount - refill
        self.size += amount
        replaced = min(refill, self.eaten)
        self.eaten -= replaced
        self.pulled -= refill - replaced

    def decrease(self, amount: Decimal) -> None:
        """Book a decrease; it counts as cancelled until a trade explains it."""
        self._touch()
        self.size -= amount
        self.cancelled += amount
        self.pulled += amount

    def explain_by_trade(self, amount: Decimal) -> None:
        """Move an amount from cancelled to traded."""
        self._touch()
        self.cancelled -= amount
        self.traded += amount
        moved = min(amount, self.pulled)
        self.pulled -= moved
        self.eaten += moved

    def trade_and_refill(self, amount: Decimal) -> None:
        """Book a trade that was refilled before any book message could show it."""
        self._touch()
        self.traded += amount
        self.refilled += amount

    def note_sight(self, now_ms: int) -> None:
        """Note that one of the prices left the visible book or is visible again."""
        self.has_changed = True
        if all(level.hidden_from_ms is None for level in self.levels):
            self.hidden_since_ms = None
        elif self.hidden_since_ms is None:
            self.hidden_since_ms = now_ms

    @property
    def is_listed(self) -> bool:
        """True if the wall is among those published with the book: detected, there and in sight."""
        return self.is_detected and self.spent_since_ms is None and self.hidden_since_ms is None

    def note_low(self) -> None:
        """Update ``low``; call it once all changes of a book message are booked."""
        self.low = min(self.low, self.size)

    def restart(self, since_ms: int) -> None:
        """
        Open new accounts for a wall that was eaten, reported, and is large again.

        Args:
            since_ms: Match time of the book that shows the present sizes; later trades stay open.
        """
        self._touch()
        self.peak = self.low = self.size
        self.traded = self.cancelled = self.refilled = self.eaten = self.pulled = ZERO
        self.since_ms = since_ms
        self.is_eaten_reported = False
        self.fallen_since_ms = self.spent_since_ms = None
        for level in self.levels:
            level.decreases.clear()
            level.trades = [trade for trade in level.trades if trade.match_ms > since_ms]

    # -- matching --------------------------------------------------------------------------------

    def settle(self, until_ms: int) -> None:
        """Close what is older than ``until_ms`` at every level."""
        for level in self.levels:
            level.settle(until_ms)

    def unexplained(self) -> Decimal:
        """Return the total of the decreases that a trade may still explain."""
        return sum((item.amount for level in self.levels for item in level.decreases), ZERO)

    def first_open_ms(self) -> int | None:
        """Return the match time of the oldest open trade or decrease; None if there is none."""
        times = [level.decreases[0].to_ms for level in self.levels if level.decreases]
        times += [trade.match_ms for level in self.levels for trade in level.trades]
        return min(times, default=None)

    # -- the published record --------------------------------------------------------------------

    def record(self, *, baseline: float, distance_bps: float, now_ms: int) -> Wall:
        """Return the wall as published; the accounts are converted once after each change."""
        record = self._record
        if record is None:
            record = self._record = Wall(
                side=self.side,
                price=self.price,
                size=float(self.size),
                initial_size=float(self.initial),
                peak_size=float(self.peak),
                strength=0.0,
                eaten_ratio=float(self.eaten / self.peak),
                pulled_ratio=float(self.pulled / self.peak),
                traded_size=float(self.traded),
                cancelled_size=float(self.cancelled),
                refilled_size=float(self.refilled),
                distance_bps=0.0,
                first_seen_ms=self.first_seen_ms,
                age_ms=0,
                uncertain=False,
            )
        return replace(
            record,
            strength=record.size / baseline,
            distance_bps=distance_bps,
            age_ms=max(0, now_ms - self.first_seen_ms),
            uncertain=self.uncertain,
        )

    def _touch(self) -> None:
        self.has_changed = True
        self._record = None
