"""The sizes of the trades of one window in order, kept up as the window moves on."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from math import ceil

BLOCK = 512
"""A block is split in two when it holds twice as many numbers."""
SORT_SHARE = 32
"""With more than one new number among so many, sorting all again is cheaper than insertion."""


class SizeOrder:
    """
    Sorted sizes of the rows ``first`` to ``end`` of a column that grows at one end.

    Moving on costs two short binary searches for each row that comes or goes since the last time,
    so a busy market does not sort all its trades for every publish. Plain lists of some 500
    numbers: 0.5 us a row, where a SortedList, which also knows positions, takes 2.5.
    """

    def __init__(self) -> None:
        self._blocks: list[list[float]] = []
        self._highest: list[float] = []
        """The last number of each block."""
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
        moved = first - self._first + end - self._end
        if not self._is_valid or self._first < cut or moved * SORT_SHARE > end - first:
            self._sort(sizes[first - cut : end - cut])
        else:
            for size in sizes[self._first - cut : first - cut]:
                self._remove(size)
            for size in sizes[self._end - cut : end - cut]:
                self._add(size)
        self._first, self._end, self._is_valid = first, end, True

    def quantiles(self, probabilities: Sequence[float]) -> tuple[float, ...] | None:
        """The smallest size that at least that share of the sizes does not exceed, each."""
        count = self._end - self._first
        if not count:
            return None
        # 0.07 * 100 is a little more than 7: a rank must not be missed by the last bit of a float.
        return tuple([self._at(max(0, ceil(p * count - 1e-9) - 1)) for p in probabilities])

    def _sort(self, sizes: Sequence[float]) -> None:
        ordered = sorted(sizes)
        self._blocks = [ordered[at : at + BLOCK] for at in range(0, len(ordered), BLOCK)]
        self._highest = [block[-1] for block in self._blocks]

    def _add(self, size: float) -> None:
        at = min(bisect_left(self._highest, size), len(self._blocks) - 1)
        block = self._blocks[at]
        insort(block, size)
        if len(block) > 2 * BLOCK:
            self._blocks[at : at + 1] = [block[:BLOCK], block[BLOCK:]]
            self._highest.insert(at, block[BLOCK - 1])
            at += 1
        self._highest[at] = self._blocks[at][-1]

    def _remove(self, size: float) -> None:
        at = bisect_left(self._highest, size)
        block = self._blocks[at]
        del block[bisect_right(block, size) - 1]
        if block:
            self._highest[at] = block[-1]
        else:
            del self._blocks[at], self._highest[at]

    def _at(self, rank: int) -> float:
        for block in self._blocks:
            if rank < len(block):
                return block[rank]
            rank -= len(block)
        raise AssertionError("a rank below the number of sizes")
