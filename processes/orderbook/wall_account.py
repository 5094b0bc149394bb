"""
The exact accounts of one wall: how it grew, what trades took, what was cancelled.

Decides how a change of size is booked and which trade explains which decrease. Knows nothing of
books, thresholds or events; those are in ``density``.

Amounts are ``Decimal``, made from the shortest text of the float, which is the exchange's own
text: sums are exact (28 digits hold 10^12 sizes of 16 digits), and at every moment

    traded + cancelled + size = peak + refilled

to the last digit. A decrease is booked as cancelled until a trade explains it; the accounts are
never open. A trade and a decrease belong together when the trade's match time lies within the
match times of the two book messages between which the level shrank, whichever arrives first.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from bybit_pipeline.processes.orderbook.book import SideName

ZERO = Decimal(0)


def exact(number: float) -> Decimal:
    """The decimal number that the exchange wrote; the float has its 16 digits or fewer."""
    return Decimal(repr(number))


class Decrease:
    """A decrease between two book messages that no trade has explained yet."""

    __slots__ = ("amount", "from_ms", "to_ms")

    def __init__(self, from_ms: int, to_ms: int, amount: Decimal) -> None:
        self.from_ms = from_ms
        self.to_ms = to_ms
        self.amount = amount


class WaitingTrade:
    """A trade at a wall's price that no decrease has shown yet."""

    __slots__ = ("amount", "match_ms")

    def __init__(self, match_ms: int, amount: Decimal) -> None:
        self.match_ms = match_ms
        self.amount = amount


class WallLevel:
    """One price of a wall; ``size`` is as the book has it."""

    __slots__ = ("_exact_size", "decreases", "price", "size", "waiting", "wall")

    def __init__(self, wall: "WallAccount", price: float, size: float) -> None:
        self.wall = wall
        self.price = price
        self.size = size
        self._exact_size = exact(size)
        self.decreases: list[Decrease] = []
        self.waiting: list[WaitingTrade] = []

    def set_size(self, size: float, from_ms: int, to_ms: int) -> None:
        """Book the level's new size, seen between two book messages."""
        exact_size = exact(size)
        change = exact_size - self._exact_size
        self.size, self._exact_size = size, exact_size
        if change > 0:
            self.wall.increase(change)
        elif change < 0:
            self.wall.decrease(-change)
            decrease = Decrease(from_ms, to_ms, -change)
            for trade in self.waiting:
                self._explain(decrease, trade)
            self.waiting = [trade for trade in self.waiting if trade.amount]
            if decrease.amount:
                self.decreases.append(decrease)

    def trade(self, match_ms: int, size: float) -> None:
        """Book a trade at this price that took from the wall's side."""
        trade = WaitingTrade(match_ms, exact(size))
        for decrease in self.decreases:
            self._explain(decrease, trade)
        self.decreases = [decrease for decrease in self.decreases if decrease.amount]
        if trade.amount:
            self.waiting.append(trade)
            self.wall.has_changed = True

    def settle(self, until_ms: int) -> None:
        """
        Close what is older than ``until_ms``: no partner will come any more.

        A decrease stays cancelled. A trade that no decrease has shown was made good within the
        same push period: the wall was eaten and refilled by as much. Not so for a trade of the
        very millisecond of the wall's first state, which had it in it already.
        """
        if self.decreases:
            self.decreases = [item for item in self.decreases if item.to_ms >= until_ms]
        if self.waiting:
            for trade in self.waiting:
                if self.wall.since_ms < trade.match_ms < until_ms:
                    self.wall.make_good(trade.amount)
            self.waiting = [trade for trade in self.waiting if trade.match_ms >= until_ms]

    def _explain(self, decrease: Decrease, trade: WaitingTrade) -> None:
        if decrease.from_ms <= trade.match_ms <= decrease.to_ms:
            amount = min(decrease.amount, trade.amount)
            decrease.amount -= amount
            trade.amount -= amount
            self.wall.explain_by_trade(amount)


class WallAccount:
    """
    A wall: its levels and its accounts.

    ``eaten`` and ``pulled`` are the parts of the peak that are missing now, by trades and by
    cancellation: ``eaten + pulled + size = peak``. A refill makes good what was eaten first.

    ``has_changed`` is for whoever judges the wall to reset.

    Args:
        side: The book's side.
        price: The price it is known by.
        levels: ``(price, size)`` pairs of all its prices, sizes of zero included.
        first_seen_ms: When it was found.
        since_ms: Match time of the book in which it was found: what its first sizes contain. A
            snapshot's can be much older than the snapshot.
        uncertain: Whether trades may be missing.
    """

    __slots__ = (
        "_fields",
        "cancelled",
        "eaten",
        "fallen_since_ms",
        "first_seen_ms",
        "has_changed",
        "has_left_window",
        "initial",
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
        self.has_changed = True
        self.has_left_window = False
        self.is_eaten_reported = False
        self.fallen_since_ms: int | None = None
        self.spent_since_ms: int | None = None
        self._fields: dict[str, Any] | None = None

    def increase(self, amount: Decimal) -> None:
        """More was added: a refill up to the peak, beyond that a higher peak."""
        self._touch()
        refill = min(amount, self.peak - self.size)
        self.refilled += refill
        self.peak += amount - refill
        self.size += amount
        made_good = min(refill, self.eaten)
        self.eaten -= made_good
        self.pulled -= refill - made_good

    def decrease(self, amount: Decimal) -> None:
        """Something left; cancelled until a trade explains it."""
        self._touch()
        self.size -= amount
        self.cancelled += amount
        self.pulled += amount

    def explain_by_trade(self, amount: Decimal) -> None:
        """Part of what was booked as cancelled was in truth traded."""
        self._touch()
        self.cancelled -= amount
        self.traded += amount
        moved = min(amount, self.pulled)
        self.pulled -= moved
        self.eaten += moved

    def note_low(self) -> None:
        """Remember the lowest size; after all of a book message has been booked."""
        self.low = min(self.low, self.size)

    def restart(self, since_ms: int) -> None:
        """
        Begin new accounts for what is there now: the wall was eaten, told so, and filled up again.

        Args:
            since_ms: Match time of the book that shows the present sizes; later trades wait on.
        """
        self._touch()
        self.peak = self.low = self.size
        self.traded = self.cancelled = self.refilled = self.eaten = self.pulled = ZERO
        self.since_ms = since_ms
        self.is_eaten_reported = False
        self.fallen_since_ms = self.spent_since_ms = None
        for level in self.levels:
            level.decreases.clear()
            level.waiting = [trade for trade in level.waiting if trade.match_ms > since_ms]

    def make_good(self, amount: Decimal) -> None:
        """Something was traded and put back before the book showed it."""
        self._touch()
        self.traded += amount
        self.refilled += amount

    def settle(self, until_ms: int) -> None:
        """Close what is older than ``until_ms`` on every level."""
        for level in self.levels:
            level.settle(until_ms)

    def unexplained(self) -> Decimal:
        """How much of the decreases a trade may still explain."""
        return sum((item.amount for level in self.levels for item in level.decreases), ZERO)

    def first_open_ms(self) -> int | None:
        """Match time of the first trade or decrease that may find a partner; None without any."""
        times = [level.decreases[0].to_ms for level in self.levels if level.decreases]
        times += [trade.match_ms for level in self.levels for trade in level.waiting]
        return min(times, default=None)

    def fields(self) -> dict[str, Any]:
        """What is published of the accounts, ratios of the peak; made anew when they change."""
        if self._fields is None:
            self._fields = {
                "side": self.side,
                "price": self.price,
                "size": float(self.size),
                "initial_size": float(self.initial),
                "peak_size": float(self.peak),
                "eaten_ratio": float(self.eaten / self.peak),
                "pulled_ratio": float(self.pulled / self.peak),
                "traded_size": float(self.traded),
                "cancelled_size": float(self.cancelled),
                "refilled_size": float(self.refilled),
                "first_seen_ms": self.first_seen_ms,
            }
        return self._fields

    def _touch(self) -> None:
        self.has_changed = True
        self._fields = None
