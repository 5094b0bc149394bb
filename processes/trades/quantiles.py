"""The sizes of the trades of one window in order, kept up as the window moves on."""

from collections.abc import Sequence
from itertools import chain
from math import ceil

from sortedcontainers import SortedList

BULK = 16
"""
When the new sizes are a sixteenth of those held, all are merged by one sort: 0.15 to 0.3 us a size,
where one by one they cost 0.4 to 0.7, whatever the length of the window.
"""


class SizeOrder:
    """
    Sorted sizes of the rows ``first`` to ``end`` of a column that grows at one end.

    Moving on costs O(log n) for each row that comes or goes since the last time, so a busy market
    does not sort all its trades for every publish.
    """

    def __init__(self) -> None:
        self._sizes: SortedList = SortedList()
        self._first = 0
        self._end = 0
        self._is_valid = False

    def invalidate(self) -> None:
        """A row was put in between: begin anew next time."""
        self._is_valid = False

    def move(self, sizes: Sequence[float], cut: int, first: int, end: int) -> None:
        """
        Make it the order of the rows ``first`` to ``end``, neither of which goes back.

        Args:
            sizes: The column, without its first ``cut`` rows.
            cut: How many rows were cut off.
            first, end: Rows, those cut off counted.
        """
        if not self._is_valid or self._first < cut or first >= self._end:
            self._sizes = SortedList(sizes[first - cut : end - cut])
        else:
            for row in range(self._first, first):
                self._sizes.remove(sizes[row - cut])
            self._extend(sizes[self._end - cut : end - cut])
        self._first, self._end, self._is_valid = first, end, True

    def _extend(self, new: Sequence[float]) -> None:
        if len(new) * BULK >= len(self._sizes):
            self._sizes = SortedList(chain(self._sizes, new))
        else:
            for size in new:
                self._sizes.add(size)

    def quantiles(self, probabilities: Sequence[float]) -> tuple[float, ...] | None:
        """The smallest size that at least that share of the sizes does not exceed, each."""
        count = len(self._sizes)
        if not count:
            return None
        # 0.07 * 100 is a little more than 7: a rank must not be missed by the last bit of a float.
        ranks = (ceil(p * count - 1e-9) for p in probabilities)
        return tuple(self._sizes[max(0, rank - 1)] for rank in ranks)
