"""Price samples at whole steps of exchange time, and the squared returns between them."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import log, sqrt

_BITS = 192
"""Squared returns are summed in units of 2^-192, in which each of them is a whole number."""
_TRIM_FROM = 32


class PriceSamples:
    """
    One sample per step of ``sample_ms`` in which there was a trade: the last price of the step.

    Each sample carries the exact sum of the squared log returns up to it. So the sum over a window
    is the difference of two numbers, however many samples the window has.
    """

    __slots__ = ("_end", "_is_valid", "_prices", "_sample_ms", "_sums", "_times")

    def __init__(self, sample_ms: int) -> None:
        self._sample_ms = sample_ms
        self._times = array("q")
        """Ends of the steps, each at or after the trades of its step."""
        self._prices = array("d")
        self._sums: list[int] = []
        self._end = 0
        self._is_valid = True

    def invalidate(self) -> None:
        """Sample all trades again with the next ``move``, because a late trade was inserted."""
        self._is_valid = False

    def move(self, times: Sequence[int], prices: Sequence[float], deleted: int, head: int) -> None:
        """
        Sample the rows that are new since the last call.

        Args:
            times, prices: The columns without their deleted rows.
            deleted: Number of rows deleted from the front of the columns.
            head: First row that is not evicted, counted without the deleted rows.
        """
        if not self._is_valid or self._end < deleted:
            self._times, self._prices, self._sums = array("q"), array("d"), []
            self._end = deleted + head
        elif self._end == deleted + len(times):
            return
        held_times, held_prices, sums = self._times, self._prices, self._sums
        new, step = self._end - deleted, self._sample_ms
        for ts, price in zip(times[new:], prices[new:], strict=True):
            at_ms = -(-ts // step) * step
            if held_times and held_times[-1] == at_ms:
                held_prices[-1] = price
            else:
                held_times.append(at_ms)
                held_prices.append(price)
                sums.append(0)
                self._sum(len(sums) - 2)
        self._sum(len(sums) - 1)
        self._end, self._is_valid = deleted + len(times), True
        if head < len(times):
            self._trim(times[head])

    def volatility(self, since_ms: int, until_ms: int) -> float:
        """Return the root of the sum of squared returns between the samples of a time span."""
        first = bisect_left(self._times, since_ms)
        last = bisect_right(self._times, until_ms) - 1
        if last <= first:
            return 0.0
        return sqrt((self._sums[last] - self._sums[first]) / (1 << _BITS))

    def _sum(self, at: int) -> None:
        """Set the sum up to a sample whose price is final."""
        if at > 0:
            squared = log(self._prices[at] / self._prices[at - 1]) ** 2
            self._sums[at] = self._sums[at - 1] + int(squared * (1 << _BITS))

    def _trim(self, first_ms: int) -> None:
        """Remove samples before the first trade."""
        old = bisect_left(self._times, first_ms)
        if old > _TRIM_FROM:
            del self._times[:old], self._prices[:old], self._sums[:old]
