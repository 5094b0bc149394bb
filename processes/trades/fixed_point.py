"""
Exact sums of exchange decimals: the text behind a float as an integer count of its last digit.

Bybit sends decimals of fewer than 16 significant digits and the bus carries them as floats. Such
a float names its decimal uniquely, so ``0.001`` is one unit of 10^-3 and not the binary fraction
next to it. Integers add and subtract without error, hence a sum kept this way never drifts.
"""

from decimal import Decimal

PLAUSIBLE_MIN = 1e-18
PLAUSIBLE_MAX = 1e18
"""Prices and sizes outside of this are no market's; within, every conversion here is exact."""

_EXACT_LIMIT = 10**15
"""Below this many units a float and its decimal are one to one (IEEE 754 keeps 15 digits)."""


def is_plausible(value: float) -> bool:
    """Whether a price or size is a positive, finite number of a believable magnitude."""
    return PLAUSIBLE_MIN <= value <= PLAUSIBLE_MAX


class FixedPointScale:
    """
    The finest decimal place seen so far: ``scale`` units make one.

    The number of decimals is learned from the data, because nothing on the stream names the tick
    or the lot of a symbol. It only ever grows; who keeps sums in units multiplies them by what
    ``refine`` returns.
    """

    __slots__ = ("scale",)

    def __init__(self) -> None:
        self.scale = 1

    def units(self, value: float) -> int | None:
        """
        ``value`` in units, or None when it has more decimals than the scale (see ``refine``).

        Args:
            value: A plausible number (see ``is_plausible``), of fewer than 16 significant digits.
                One with more counts as the shortest decimal that reads back as the same float.
        """
        units = round(value * self.scale)
        if units < _EXACT_LIMIT and units / self.scale == value:
            return units
        exact = Decimal(repr(value)) * self.scale
        return int(exact) if exact == exact.to_integral_value() else None

    def refine(self, value: float) -> int:
        """Make the scale fine enough for ``value``; return the factor by which it grew."""
        exponent = Decimal(repr(value)).as_tuple().exponent
        assert isinstance(exponent, int)  # plausible values are finite
        scale: int = max(self.scale, 10 ** max(0, -exponent))
        factor = scale // self.scale
        self.scale = scale
        return factor
