"""Quantiles of the trade sizes in a sliding window."""

from array import array
from bisect import bisect_left, insort
from collections.abc import Sequence
from math import ceil

from sortedcontainers import SortedList

BULK = 16
"""Sorting all sizes is cheaper than inserting the new ones if these are at least a 16th of all."""
LONG = 8_192
"""
Number of sizes from which a SortedList holds them. Below it an array is faster, because moving its
tail costs less than the search in a SortedList.
"""


class RollingQuantiles:
    """
    The sorted sizes of the rows ``first`` to ``end`` of a column that grows at its end.

    Moving the window costs O(log n) for each row that enters or leaves, so a busy market does not
    sort all its trades for every metric. Row numbers include the rows that were deleted from the
    front of the column.
    """

    __slots__ = ("_end", "_first", "_is_valid", "_sizes")

    def __init__(self) -> None:
        self._sizes: array[float] | SortedList = array("d")
        self._first = 0
        self._end = 0
        self._is_valid = False

    def invalidate(self) -> None:
        """Sort all sizes with the next ``move``: a row was inserted, or most rows left."""
        self._is_valid = False

    def drop_before(self, sizes: Sequence[float], deleted: int, first: int) -> None:
        """
        Remove the rows before ``first``. Call this before they are deleted from the column.

        Args:
            sizes: The column without its deleted rows.
            deleted: Number of rows deleted from the front of the column.
            first: First row to keep.
        """
        if not self._is_valid or first <= self._first:
            return
        if self._first < deleted or first - self._first > self._end - first:
            self.invalidate()
        else:
            self._remove(sizes[self._first - deleted : first - deleted])
            self._first = first

    def move(self, sizes: Sequence[float], deleted: int, first: int, end: int) -> None:
        """
        Move the window to the rows ``first`` to ``end``, neither of which may go back.

        Args:
            sizes: The column without its deleted rows.
            deleted: Number of rows deleted from the front of the column.
            first, end: First row in the window, and first row after it.
        """
        self.drop_before(sizes, deleted, first)
        if not self._is_valid:
            self._sizes = _sorted(sizes[first - deleted : end - deleted])
        elif end > self._end:
            self._add(sizes[self._end - deleted : end - deleted])
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
            self._sizes = _sorted([*held, *new])
        elif isinstance(held, array):
            for size in new:
                insort(held, size)
            if len(held) >= LONG:
                self._sizes = SortedList(held)
        else:
            for size in new:
                held.add(size)

    def quantiles(self, probabilities: Sequence[float]) -> tuple[float, ...] | None:
        """
        Return for each probability p the smallest size such that at least a fraction p of the sizes
        is not larger. None if the window is empty.
        """
        held, count = self._sizes, len(self._sizes)
        if not count:
            return None
        # In floats 0.07 * 100 is a little more than 7: the last bit must not change the rank.
        return tuple([held[max(0, ceil(p * count - 1e-9) - 1)] for p in probabilities])


def _sorted(sizes: Sequence[float]) -> "array[float] | SortedList":
    return array("d", sorted(sizes)) if len(sizes) < LONG else SortedList(sizes)
