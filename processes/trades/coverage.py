"""
Which stretches of exchange time were observed, and which were not.

Decides how much of a window its trades can speak for. Times are the exchange's, in milliseconds.
"""

from collections import deque

_BEGINNING_MS = -(1 << 62)
_MAX_HOLES = 256
"""More holes than this merge at the old end, which can only understate what was observed."""


class Coverage:
    """
    Holes in the observation of one symbol: before it began, after it broke off, and in between.

    ``retention_ms`` is the longest window that is asked about; older holes are forgotten.
    """

    def __init__(self, retention_ms: int) -> None:
        self._retention_ms = retention_ms
        self._holes: deque[tuple[int, int]] = deque()
        """Closed holes as (start, end], in order and disjoint."""
        self._open_since_ms: int | None = _BEGINNING_MS
        self._lost_ms = 0

    @property
    def is_observing(self) -> bool:
        """Whether trades that happen now would be seen."""
        return self._open_since_ms is None

    @property
    def began(self) -> bool:
        """Whether anything was ever observed."""
        return self._open_since_ms != _BEGINNING_MS

    def resume(self, at_ms: int) -> None:
        """Observed from ``at_ms`` on; nothing changes when it was observed already."""
        if self._open_since_ms is not None:
            start_ms, self._open_since_ms = self._open_since_ms, None
            self._close(start_ms, max(at_ms, start_ms))

    def interrupt(self, since_ms: int) -> int:
        """
        Not observed after ``since_ms``; the start of the hole.

        That is later than asked for when the hole would reach back over an earlier one. Call it
        while observing.
        """
        assert self.is_observing, "nothing to interrupt"
        self._open_since_ms = max(since_ms, self._holes[-1][1])
        return self._open_since_ms

    def reach_back(self, since_ms: int) -> int:
        """
        The open hole began at ``since_ms`` already, if not earlier; its start.

        It takes in earlier holes, but no time from before observation began.
        """
        assert self._open_since_ms is not None, "no hole is open"
        start_ms = min(self._open_since_ms, since_ms)
        while self._holes and start_ms < self._holes[-1][1]:
            hole_start, hole_end = self._holes[-1]
            if hole_start == _BEGINNING_MS:
                start_ms = hole_end
            else:
                self._holes.pop()
                self._lost_ms -= hole_end - hole_start
                start_ms = min(start_ms, hole_start)
        if self.began:
            self._open_since_ms = start_ms
        return self._open_since_ms

    def lost_ms(self, now_ms: int) -> int:
        """Total time not observed since observation began, up to ``now_ms``."""
        if self._open_since_ms is None or not self.began:
            return self._lost_ms
        return self._lost_ms + max(0, now_ms - self._open_since_ms)

    def covered_ms(self, window_ms: int, now_ms: int, *, complete_after_ms: int) -> int:
        """
        How much of ``(now - window, now]`` was observed, holes subtracted.

        Args:
            window_ms: At most the retention.
            now_ms: The exchange's time.
            complete_after_ms: Trades up to this time are no longer held.
        """
        start_ms = max(now_ms - window_ms, complete_after_ms)
        covered = now_ms - start_ms
        for hole_start, hole_end in self._holes:
            covered -= max(0, min(hole_end, now_ms) - max(hole_start, start_ms))
        if self._open_since_ms is not None:
            covered -= max(0, now_ms - max(self._open_since_ms, start_ms))
        return max(0, covered)

    def _close(self, start_ms: int, end_ms: int) -> None:
        if start_ms != _BEGINNING_MS:
            self._lost_ms += end_ms - start_ms
        self._holes.append((start_ms, end_ms))
        while len(self._holes) > 1 and self._holes[0][1] <= end_ms - self._retention_ms:
            self._holes.popleft()
        if len(self._holes) > _MAX_HOLES:
            first, second = self._holes.popleft(), self._holes.popleft()
            self._holes.appendleft((first[0], second[1]))
