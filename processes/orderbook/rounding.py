"""
Numbers of a book as a person computes them, with decimals.

Decides how the noise of binary arithmetic is removed. Prices and sizes are decimals, and so are
their sums, differences and products: 65104.1 - 65104.0 is 0.1, but in floats it is
0.09999999999854481. Each result is rounded to the last decimal place that it can have, which is
learned from the prices and sizes of the book.

Rounding gives the exact decimal if the float is off by much less than a unit of that place. Every
float operation is off by at most ``ROUNDOFF`` of its result, so this is checked for each number. If
the float may be off by too much, or lies between two units because a level has more decimals than
were seen before, the number is computed with integers.
"""

from collections.abc import Iterable, Sequence

from bybit_pipeline.shared.fixed_point import FixedPointScale
from bybit_pipeline.shared.wire.messages import Level

ROUNDOFF = 2.0**-53
"""Largest relative error of one operation of 64-bit floats."""
CERTAIN = 0.1
"""Error, in units of the last place, below which the nearest unit is the exact one."""
FLOW_NOISE = 1e-5
"""The same for order flow: a sum of differences, whose error depends on sizes no longer known."""
MID_PARTS = 1_000
"""A weighted mid is rounded to this part of a unit of the last place of prices."""
PLACES_MAX = 10**15


class BookRounding:
    """
    The decimal places of one book, and the rounding of its published numbers.

    Places are only ever added: rounding to more places than a market has changes nothing.
    """

    __slots__ = ("_prices", "_sizes")

    def __init__(self) -> None:
        self._prices = FixedPointScale()
        self._sizes = FixedPointScale()

    def learn(self, levels: Iterable[tuple[float, float]]) -> None:
        """Learn the decimal places of levels."""
        for price, size in levels:
            _learn(self._prices, (price,))
            _learn(self._sizes, (size,))

    def spread_and_mid(self, bid: float, ask: float) -> tuple[float, float]:
        """Return ``ask - bid`` and ``(bid + ask) / 2``."""
        bid_units, ask_units = _pair(self._prices, bid, ask)
        scale = self._prices.scale
        return (ask_units - bid_units) / scale, (ask_units + bid_units) / (2 * scale)

    def weighted_mid(self, bid: Level, ask: Level) -> float:
        """
        Return the mid price weighted by the opposite side's size, in quote currency.

        ``(bid.price * ask.size + ask.price * bid.size) / (bid.size + ask.size)``, rounded to a
        thousandth of the last place of prices, half to even: the baseline that Stoikov, "The
        micro-price", Quantitative Finance 18(12), 2018, improves on; not that price itself.

        Args:
            bid, ask: The best levels; sizes above zero, ``bid`` priced below ``ask``.

        Raises:
            ValueError: A size is not positive or the book is crossed.
        """
        if not (bid[0] < ask[0] and bid[1] > 0 and ask[1] > 0):
            raise ValueError(f"bid {bid}, ask {ask}: not the best levels of a book")
        bid_price, ask_price = _pair(self._prices, bid[0], ask[0])
        bid_size, ask_size = _pair(self._sizes, bid[1], ask[1])
        sizes = bid_size + ask_size
        parts, rest = divmod(MID_PARTS * (bid_price * ask_size + ask_price * bid_size), sizes)
        if 2 * rest > sizes or (2 * rest == sizes and parts % 2):
            parts += 1
        return parts / (self._prices.scale * MID_PARTS)

    def size(self, total: float, additions: int) -> float | None:
        """Round a sum of sizes; None if the float is not certain, see ``exact_size``."""
        return _nearest(total, self._sizes.scale, additions)

    def notional(self, total: float, additions: int) -> float | None:
        """Round a sum of prices times sizes; None if it is not certain, see ``exact_notional``."""
        return _nearest(total, self._prices.scale * self._sizes.scale, additions)

    def exact_size(self, sizes: Sequence[float]) -> float:
        """Return the sum of sizes, computed with integers."""
        _learn(self._sizes, sizes)
        return sum(_units(self._sizes, size) for size in sizes) / self._sizes.scale

    def exact_notional(self, prices: Sequence[float], sizes: Sequence[float]) -> float:
        """Return the sum of prices times sizes, computed with integers."""
        _learn(self._prices, prices)
        _learn(self._sizes, sizes)
        units = sum(
            _units(self._prices, price) * _units(self._sizes, size)
            for price, size in zip(prices, sizes, strict=True)
        )
        return units / (self._prices.scale * self._sizes.scale)

    def flow(self, value: float) -> float:
        """Round a sum of differences of sizes to the first place that fits it."""
        places = self._sizes.scale
        while places <= PLACES_MAX:
            units = round(value * places)
            if abs(value * places - units) <= FLOW_NOISE:
                return units / places
            places *= 10
        return value


def _nearest(total: float, scale: int, additions: int) -> float | None:
    """
    Return the decimal next to a sum of products, or None if that is not certain.

    The terms are not negative. Each is off by three operations at most, the sum by one per addition
    and the scaling by one more.
    """
    scaled = total * scale
    units = round(scaled)
    error = (additions + 4) * ROUNDOFF * scaled
    return units / scale if abs(scaled - units) <= error < CERTAIN else None


def _pair(scale: FixedPointScale, first: float, second: float) -> tuple[int, int]:
    """Return two numbers in units of a scale that is fine enough for both."""
    first_units, second_units = scale.units(first), scale.units(second)
    if first_units is None or second_units is None:
        _learn(scale, (first, second))
        first_units, second_units = _units(scale, first), _units(scale, second)
    return first_units, second_units


def _learn(scale: FixedPointScale, numbers: Iterable[float]) -> None:
    for number in numbers:
        if scale.units(number) is None:
            scale.refine(number)


def _units(scale: FixedPointScale, number: float) -> int:
    units = scale.units(number)
    assert units is not None, "the scale was learned from this number"
    return units
