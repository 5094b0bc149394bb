"""
Ids of gaps: unique in the ledger, whichever process of whichever pipeline opens the gap.

Every started process gets a number that the ledger gives out once, and counts its gaps from there.
"""

import random
from collections.abc import Callable, Iterator

COUNT_BITS = 26
"""Gaps that one process can count; ids have 53 bits, as many as a JSON reader keeps exactly."""
RESERVED_MAX = 1 << 26
"""Numbers below are given out by the ledger, those from here to twice as many are random."""


class GapNumbers:
    """
    The numbers of the processes of one run.

    Without a ledger, numbers are random: two of them agree once in millions.

    Args:
        reserve: Requests further numbers of the ledger, to be passed to ``add``.
    """

    def __init__(self, reserve: Callable[[], None]) -> None:
        self._reserve = reserve
        self._ranges: list[Iterator[int]] = []
        self._left = 0
        self._is_requested = False

    def add(self, first: int, count: int) -> None:
        """Add numbers that the ledger has reserved."""
        if first + count <= RESERVED_MAX:
            self._ranges.append(iter(range(first, first + count)))
            self._left += count
        self._is_requested = False

    def next_base(self, count: int) -> int:
        """
        Return the number below the ids of the next process.

        Args:
            count: Numbers that the ledger reserves at a time; more are requested in time.
        """
        number = self._take()
        if self._left <= count // 2 and not self._is_requested:
            self._is_requested = True
            self._reserve()
        return number << COUNT_BITS

    def _take(self) -> int:
        while self._ranges:
            number = next(self._ranges[0], None)
            if number is not None:
                self._left -= 1
                return number
            del self._ranges[0]
        return random.randrange(RESERVED_MAX, 2 * RESERVED_MAX)
