"""The highest or lowest price since any time, and when to free the memory of old rows."""

from bisect import bisect_right
from collections.abc import Sequence

_TRIM_FROM = 32
_TRIM_RATIO = 64


def should_trim(evicted: int, rows: int) -> bool:
    """
    Return True if evicted rows at the front of a column should be deleted.

    Deleting moves all rows that stay, so it waits until at least 32 rows and a 64th of all rows are
    evicted: its cost per row is then constant.
    """
    return evicted >= _TRIM_FROM and evicted * _TRIM_RATIO >= rows


class MonotonicQueue:
    """
    Highest price (``sign`` 1) or lowest price (``sign`` -1) since any time.

    Holds only the trades that no later trade exceeds or equals. Their times rise and their prices
    times the sign fall, so the extreme since a time is the first entry after it.
    """

    __slots__ = ("_head", "_prices", "_sign", "_ts")

    def __init__(self, *, sign: int) -> None:
        self._sign = sign
        self._head = 0
        self._ts: list[int] = []
        self._prices: list[float] = []
        """Prices times the sign."""

    def extend(self, times: Sequence[int], prices: Sequence[float]) -> None:
        """Add the newest trades, oldest first. O(1) amortised per trade."""
        held_ts, held, sign, head = self._ts, self._prices, self._sign, self._head
        for ts, price in zip(times, prices, strict=True):
            signed = price * sign
            while len(held) > head and held[-1] <= signed:
                held.pop()
                held_ts.pop()
            held.append(signed)
            held_ts.append(ts)

    def insert(self, ts: int, price: float) -> None:
        """Add a trade that is older than some trades already held."""
        signed = price * self._sign
        at = bisect_right(self._ts, ts, self._head)
        if at < len(self._ts) and self._prices[at] >= signed:
            return
        start = at
        while start > self._head and self._prices[start - 1] <= signed:
            start -= 1
        self._ts[start:at] = [ts]
        self._prices[start:at] = [signed]

    def evict(self, floor_ms: int) -> None:
        """Remove all trades up to and including ``floor_ms``."""
        self._head = bisect_right(self._ts, floor_ms, self._head)
        if should_trim(self._head, len(self._ts)):
            del self._ts[: self._head], self._prices[: self._head]
            self._head = 0

    def since(self, start_ms: int) -> float | None:
        """Return the extreme price after ``start_ms``, or None without trades. O(log n)."""
        at = bisect_right(self._ts, start_ms, self._head)
        return self._prices[at] * self._sign if at < len(self._ts) else None
