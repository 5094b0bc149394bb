"""
Coverage: the parts of exchange time in which the trades of one symbol were observed.

Decides for how much of a window its trades are complete. All times are exchange times, in
milliseconds.
"""

from collections import deque

_BEGINNING_MS = -(1 << 62)
_MAX_INTERVALS = 256
"""With more intervals, the oldest ones are merged. This can only understate the coverage."""


class Coverage:
    """
    The intervals in which the trades of one symbol were not observed.

    The first interval is the time before observation began. The last one is open while trades are
    not observed.

    Args:
        retention_ms: Length of the longest window. Older intervals are forgotten.
    """

    def __init__(self, retention_ms: int) -> None:
        self._retention_ms = retention_ms
        self._unobserved: deque[tuple[int, int]] = deque()
        """Closed intervals as (start, end], in order and disjoint."""
        self._open_since_ms: int | None = _BEGINNING_MS
        self._lost_ms = 0

    @property
    def is_observing(self) -> bool:
        """True if a trade that happens now is observed."""
        return self._open_since_ms is None

    @property
    def began(self) -> bool:
        """True once observation has begun."""
        return self._open_since_ms != _BEGINNING_MS

    def resume(self, at_ms: int) -> None:
        """Close the open interval at ``at_ms``, if there is one."""
        if self._open_since_ms is not None:
            start_ms, self._open_since_ms = self._open_since_ms, None
            self._close(start_ms, max(at_ms, start_ms))

    def interrupt(self, since_ms: int) -> int:
        """
        Open an interval at ``since_ms`` and return its start.

        The start is later if the interval would overlap an earlier one. Call this only while
        observing.
        """
        assert self.is_observing, "nothing to interrupt"
        self._open_since_ms = max(since_ms, self._unobserved[-1][1])
        return self._open_since_ms

    def reach_back(self, since_ms: int) -> int:
        """
        Extend the open interval back to ``since_ms`` and return its start.

        The interval absorbs earlier ones, but never reaches back to before observation began.
        """
        assert self._open_since_ms is not None, "no interval is open"
        start_ms = min(self._open_since_ms, since_ms)
        while self._unobserved and start_ms < self._unobserved[-1][1]:
            earlier_start, earlier_end = self._unobserved[-1]
            if earlier_start == _BEGINNING_MS:
                start_ms = earlier_end
            else:
                self._unobserved.pop()
                self._lost_ms -= earlier_end - earlier_start
                start_ms = min(start_ms, earlier_start)
        if self.began:
            self._open_since_ms = start_ms
        return self._open_since_ms

    def lost_ms(self, now_ms: int) -> int:
        """Return the total time not observed from the beginning of observation to ``now_ms``."""
        if self._open_since_ms is None or not self.began:
            return self._lost_ms
        return self._lost_ms + max(0, now_ms - self._open_since_ms)

    def covered_ms(self, window_ms: int, now_ms: int, *, complete_after_ms: int) -> int:
        """
        Return how much of ``(now - window, now]`` was observed.

        Args:
            window_ms: Length of the window, at most the retention.
            now_ms: The exchange's time.
            complete_after_ms: Trades up to this time are no longer held, so it is not covered.
        """
        start_ms = max(now_ms - window_ms, complete_after_ms)
        covered = now_ms - start_ms
        for unobserved_start, unobserved_end in self._unobserved:
            covered -= max(0, min(unobserved_end, now_ms) - max(unobserved_start, start_ms))
        if self._open_since_ms is not None:
            covered -= max(0, now_ms - max(self._open_since_ms, start_ms))
        return max(0, covered)

    def _close(self, start_ms: int, end_ms: int) -> None:
        if start_ms != _BEGINNING_MS:
            self._lost_ms += end_ms - start_ms
        self._unobserved.append((start_ms, end_ms))
        while len(self._unobserved) > 1 and self._unobserved[0][1] <= end_ms - self._retention_ms:
            self._unobserved.popleft()
        if len(self._unobserved) > _MAX_INTERVALS:
            first, second = self._unobserved.popleft(), self._unobserved.popleft()
            self._unobserved.appendleft((first[0], second[1]))
