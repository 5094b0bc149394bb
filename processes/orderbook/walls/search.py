"""
The search for new walls on one side of a book.

Decides which levels are large and near enough. Knows no accounts or events, and keeps no walls:
the caller passes the prices that already belong to one.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from decimal import Decimal
from math import inf
from typing import NamedTuple

from bybit_pipeline.processes.orderbook.book import BookSide
from bybit_pipeline.processes.orderbook.measures import band
from bybit_pipeline.processes.orderbook.walls.account import exact
from bybit_pipeline.shared.settings.config import DensityConfig
from bybit_pipeline.shared.wire.messages import Level
from bybit_pipeline.shared.wire.orderbook import SideName


class FoundWall(NamedTuple):
    """A new wall: the price of its largest level, and all its levels, which may be empty ones."""

    price: float
    levels: list[Level]


class TickGrid:
    """
    The tick of a symbol: the greatest common divisor of all price steps seen so far.

    Attributes:
        tick: In quote currency; None before two prices were seen.
    """

    __slots__ = ("_origin", "_seen", "tick")

    def __init__(self) -> None:
        self.tick: Decimal | None = None
        self._origin: Decimal | None = None
        self._seen: set[float] = set()

    def observe(self, prices: Iterable[float]) -> None:
        """Learn from prices; only those that were absent from the previous call take time."""
        seen = set(prices)
        for price in seen - self._seen:
            number = exact(price)
            if self._origin is None:
                self._origin = number
            elif number != self._origin:
                self.tick = _common_divisor(self.tick, abs(number - self._origin))
        self._seen = seen

    def steps(self, low: float, high: float) -> int:
        """Return the number of ticks between two prices that were both observed."""
        assert self.tick is not None, "two prices have been seen"
        return int((exact(high) - exact(low)) / self.tick)

    def ladder(self, low: float, count: int) -> list[float]:
        """Return ``count`` prices from ``low`` upwards, one tick apart."""
        if self.tick is None:
            return [low]
        start = exact(low)
        return [float(start + step * self.tick) for step in range(count)]


class WallSearch:
    """
    Find levels, or runs of ``bucket_ticks`` neighbouring ticks, that are large enough to be a wall.

    Args:
        settings: The range, and the ticks that form one wall.
    """

    __slots__ = ("_band", "_bucket_ticks", "_grid")

    def __init__(self, settings: DensityConfig) -> None:
        self._band = band(settings.range_bps)
        self._bucket_ticks = settings.bucket_ticks
        self._grid = TickGrid()

    def find(
        self, side: BookSide, mid_price: float, threshold: float, known: Collection[float]
    ) -> list[FoundWall]:
        """
        Return the new walls of a side. O(levels).

        Args:
            side: Levels of a live book.
            mid_price: Centre of the range.
            threshold: The size of a wall.
            known: Prices that already belong to a wall.
        """
        if self._bucket_ticks > 1:
            return self._find_buckets(side, mid_price, threshold, known)
        large = [
            price for price, size in side.sizes.items() if size >= threshold and price not in known
        ]
        if not large:
            return []
        low, high = self._range(side.name, mid_price)
        return [
            FoundWall(price, [(price, side.sizes[price])])
            for price in sorted(large, reverse=side.name == "bid")
            if low <= price <= high
        ]

    def _find_buckets(
        self, side: BookSide, mid_price: float, threshold: float, known: Collection[float]
    ) -> list[FoundWall]:
        self._grid.observe(side.prices)
        low, high = self._range(side.name, mid_price)
        prices = side.prices[bisect_left(side.prices, low) : bisect_right(side.prices, high)]
        sizes = list(map(side.sizes.__getitem__, prices))
        found = []
        for bucket in self._buckets(prices, sizes, threshold, known):
            levels = [(price, side.sizes.get(price, 0.0)) for price in bucket]
            largest = max(levels, key=lambda level: level[1])
            found.append(FoundWall(largest[0], levels))
        return found

    def _buckets(
        self,
        prices: Sequence[float],
        sizes: Sequence[float],
        threshold: float,
        known: Collection[float],
    ) -> Iterator[list[float]]:
        """
        Yield runs of ``bucket_ticks`` prices whose sizes reach ``threshold``, largest total first.

        ``prices`` ascend. Each run starts at a level. No run shares a price with another one or
        with a known wall.
        """
        count = self._bucket_ticks
        if len(prices) < 2:
            return
        ticks = [self._grid.steps(prices[0], price) for price in prices]
        totals: list[tuple[float, int]] = []
        end, total = 0, 0.0
        for start, size in enumerate(sizes):
            while end < len(ticks) and ticks[end] < ticks[start] + count:
                total += sizes[end]
                end += 1
            if total >= threshold:
                totals.append((-total, start))
            total -= size
        taken = set(known)
        for _, start in sorted(totals):
            bucket = self._grid.ladder(prices[start], count)
            if taken.isdisjoint(bucket):
                taken.update(bucket)
                yield bucket

    def _range(self, side: SideName, mid_price: float) -> tuple[float, float]:
        """Return the lowest and the highest price of a side within range of the mid price."""
        lowest, highest = self._band
        return (mid_price * lowest, inf) if side == "bid" else (0.0, mid_price * highest)


def _common_divisor(first: Decimal | None, second: Decimal) -> Decimal:
    first = first or second
    while second:
        first, second = second, first % second
    return first
