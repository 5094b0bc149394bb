"""The sizes of the trades of one window in order, kept up as the window moves on."""

from array import array
from bisect import bisect_left, insort
from collections.abc import Sequence
from math import ceil

from sortedcontainers import SortedList

BULK = 16
"""
When the new sizes are a sixteenth of those held, all are merged by one sort: 0.15 to 0.3 us a size,
where one by one they cost 0.4 to 0.7, whatever the length of the window.
"""
LONG = 8_192
"""
From so many sizes on they are in a SortedList. Below, an array moves its tail faster than that
finds the place: with hundreds of symbols 0.4 us a size in place of 1.1.
"""


class RollingQuantiles:
    """
    Sorted sizes of the rows ``first`` to ``end`` of a column that grows at one end.

    Moving on costs O(log n) for each row that comes or goes since the last time, so a busy market
    does not sort all its trades for every publish.
    """

    __slots__ = ("_end", "_first", "_is_valid", "_sizes")

    def __init__(self) -> None:
        self._sizes: array[float] | SortedList = array("d")
        self._first = 0
        self._end = 0
        self._is_valid = False

    def invalidate(self) -> None:
        """A row was put in between, or most are gone: begin anew next time."""
        self._is_valid = False

    def let_go(self, sizes: Sequence[float], cut: int, first: int) -> None:
        """
        Give up the rows before ``first``; also to be called before they are cut off.

        Args:
            sizes: The column, without its first ``cut`` rows.
            cut: How many rows are cut off already.
            first: A row, those cut off counted.
        """
        if not self._is_valid or first <= self._first:
            return
        if self._first < cut or first - self._first > self._end - first:
            self.invalidate()
        else:
            self._remove(sizes[self._first - cut : first - cut])
            self._first = first

    def move(self, sizes: Sequence[float], cut: int, first: int, end: int) -> None:
        """
        Make it the order of the rows ``first`` to ``end``, neither of which goes back.

        Args:
            sizes: The column, without its first ``cut`` rows.
            cut: How many rows were cut off.
            first, end: Rows, those cut off counted.
        """
        self.let_go(sizes, cut, first)
        if not self._is_valid:
            self._sizes = _in_order(sizes[first - cut : end - cut])
        elif end > self._end:
            self._add(sizes[self._end - cut : end - cut])
        self._first, self._end, self._is_valid = first, end, True

    def _remove(self, old: Sequence[float]) -> None:
        held = self._sizes
        if isinstance(held, array):
            for size in old:
                del held[bisect_left(held, size)]
        else:
            for size in old:
                held.remove(size)

    def _add(self, new: Sequence[float]) -> None:
        held = self._sizes
        if len(new) * BULK >= len(held):
            self._sizes = _in_order([*held, *new])
        elif isinstance(held, array):
            for size in new:
                insort(held, size)
            if len(held) >= LONG:
                self._sizes = SortedList(held)
        else:
            for size in new:
                held.add(size)

    def quantiles(self, probabilities: Sequence[float]) -> tuple[float, ...] | None:
        """The smallest size that at least that share of the sizes does not exceed, each."""
        held, count = self._sizes, len(self._sizes)
        if not count:
            return None
        # 0.07 * 100 is a little more than 7: a rank must not be missed by the last bit of a float.
        return tuple([held[max(0, ceil(p * count - 1e-9) - 1)] for p in probabilities])


def _in_order(sizes: Sequence[float]) -> "array[float] | SortedList":
    return array("d", sorted(sizes)) if len(sizes) < LONG else SortedList(sizes)
