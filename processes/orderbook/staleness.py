"""
When a silent book is suspicious: judged by the rate and the pauses of its own stream.

A busy book that says nothing for seconds is broken; a quiet one is quiet. There is no constant
that fits both, so each book has its own limit.
"""

from math import exp

FLOOR_S = 10.0
"""No silence shorter than this is ever suspicious."""
MEAN_INTERVALS = 20.0
LONGEST_PAUSES = 3.0
MIN_MESSAGES = 50
RATE_TIME_S = 60.0


class StalenessDetector:
    """
    The silence limit of one stream: the longest of a floor, 20 times the mean interval between
    its messages and 3 times the longest pause that it has made in good health.

    No judgement before ``MIN_MESSAGES`` messages. A pause that turns out to have hidden nothing
    (the next snapshot continues the numbers) is learned, so that a symbol that falls quiet is
    suspected once, not again and again.
    """

    __slots__ = ("_active_at", "_count", "_longest_pause_s", "_rate", "_seen")

    def __init__(self, now: float) -> None:
        self._active_at = now
        self._count = 0
        self._seen = 0
        self._rate = 0.0
        self._longest_pause_s = 0.0

    @property
    def limit_s(self) -> float | None:
        """Seconds of silence that are still plausible; None when nothing can be said yet."""
        if self._seen < MIN_MESSAGES or self._rate <= 0:
            return None
        return max(FLOOR_S, MEAN_INTERVALS / self._rate, LONGEST_PAUSES * self._longest_pause_s)

    def is_silent(self, messages: int, now: float) -> bool:
        """
        Whether the stream has been silent for too long; call about once a second.

        Args:
            messages: Messages of the stream ever received.
            now: Seconds of the monotonic clock.
        """
        new = messages - self._count
        pause = now - self._active_at
        if new > 0:
            if pause > 0:
                weight = 1.0 if self._seen == 0 else 1.0 - exp(-pause / RATE_TIME_S)
                self._rate += (new / pause - self._rate) * weight
                self.learn_until(now)
            self._seen += new
            self.restart(messages, now)
            return False
        limit = self.limit_s
        return limit is not None and pause > limit

    def learn_until(self, now: float) -> None:
        """The pause since the last activity was no fault."""
        self._longest_pause_s = max(self._longest_pause_s, now - self._active_at)

    def restart(self, messages: int, now: float) -> None:
        """Begin a new stretch: what lies between was no silence of the stream."""
        self._count = messages
        self._active_at = now
