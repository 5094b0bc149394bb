"""
Staleness detection: how long a book may be silent before it is suspicious.

A busy book that is silent for seconds is broken, while a quiet one is merely quiet. No constant
fits both, so each book gets a limit of its own, derived from the rate and the pauses of its stream.
"""

from math import exp

FLOOR_S = 10.0
"""Shorter silences are never suspicious."""
MEAN_INTERVALS = 20.0
LONGEST_PAUSES = 3.0
MIN_MESSAGES = 50
"""Messages needed before anything is suspicious."""
RATE_TIME_S = 60.0
"""Time constant of the message rate."""


class StalenessDetector:
    """
    The silence limit of one stream.

    It is the longest of ``FLOOR_S``, 20 mean intervals between messages, and 3 times the longest
    pause seen so far. A pause that turns out to be harmless, because the next snapshot continues
    the numbers, is learned too. A symbol that turns quiet is thus suspected once, not repeatedly.
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
        """Longest plausible silence in seconds; None before ``MIN_MESSAGES`` messages."""
        if self._seen < MIN_MESSAGES or self._rate <= 0:
            return None
        return max(FLOOR_S, MEAN_INTERVALS / self._rate, LONGEST_PAUSES * self._longest_pause_s)

    def is_silent(self, messages: int, now: float) -> bool:
        """
        Return True if the silence is longer than the limit; call it about once a second.

        Args:
            messages: Messages of the stream received so far.
            now: Seconds of the monotonic clock.
        """
        new = messages - self._count
        pause = now - self._active_at
        if new > 0:
            if pause > 0:
                weight = 1.0 if self._seen == 0 else 1.0 - exp(-pause / RATE_TIME_S)
                self._rate += (new / pause - self._rate) * weight
                self.learn_pause(now)
            self._seen += new
            self.restart(messages, now)
            return False
        limit = self.limit_s
        return limit is not None and pause > limit

    def learn_pause(self, now: float) -> None:
        """Note that the pause since the last activity was harmless."""
        self._longest_pause_s = max(self._longest_pause_s, now - self._active_at)

    def restart(self, messages: int, now: float) -> None:
        """Start the next interval here; the time before it counts as no silence."""
        self._count = messages
        self._active_at = now
