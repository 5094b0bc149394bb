"""
Fixed-point numbers: exact sums of the exchange's decimals.

Bybit sends decimals of fewer than 16 significant digits, and the bus carries them as floats. Such a
float identifies its decimal uniquely: ``0.001`` is one unit of 10^-3, not the binary fraction next
to it. Integers add and subtract without error, so sums of such units never drift.
"""

from decimal import Decimal

PLAUSIBLE_MIN = 1e-18
PLAUSIBLE_MAX = 1e18
"""No market has prices or sizes outside this range; inside it, every conversion is exact."""

_EXACT_LIMIT = 10**15
"""Below this number of units, a float identifies its decimal (IEEE 754 keeps 15 digits)."""


def is_plausible(value: float) -> bool:
    """Return True if a price or size is a positive, finite number of a plausible magnitude."""
    return PLAUSIBLE_MIN <= value <= PLAUSIBLE_MAX


class FixedPointScale:
    """
    The finest decimal place seen so far: ``scale`` units are 1.

    The scale is learned from the data, because the stream does not carry the tick or lot size of a
    symbol. It only grows. A caller that keeps sums in units multiplies them by the result of
    ``refine``.
    """

    __slots__ = ("scale",)

    def __init__(self) -> None:
        self.scale = 1

    def units(self, value: float) -> int | None:
        """
        Return ``value`` in units, or None if it has more decimals than the scale: see ``refine``.

        Args:
            value: A plausible number (see ``is_plausible``) of fewer than 16 significant digits. A
                number with more digits is taken as the shortest decimal that gives the same float.
        """
        units = round(value * self.scale)
        if units < _EXACT_LIMIT and units / self.scale == value:
            return units
        exact = Decimal(repr(value)) * self.scale
        return int(exact) if exact == exact.to_integral_value() else None

    def refine(self, value: float) -> int:
        """Make the scale fine enough for ``value``; return the factor by which the scale grew."""
        exponent = Decimal(repr(value)).as_tuple().exponent
        assert isinstance(exponent, int), "plausible values are finite"
        scale: int = max(self.scale, 10 ** max(0, -exponent))
        factor = scale // self.scale
        self.scale = scale
        return factor
