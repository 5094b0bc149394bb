"""
Silence detection: how long one stream may be silent before it is suspicious. Pure.

A busy stream that is silent for seconds is broken, while a quiet one is merely quiet. No constant
fits both, so each stream gets a limit of its own, derived from its rate.
"""

from math import exp

FLOOR_S = 2.7
"""Shorter silences are never suspicious."""
MEAN_INTERVALS = 20.0
MIN_SPAN_S = 0.5
"""Time over which messages must have been seen before anything is suspicious."""
RATE_TIMES_S = (5.0, 60.0)
"""
Time constants of the message rate. The lower of the two rates counts: a stream that becomes quiet
is judged by its new rate within seconds.
"""
HARMLESS_RATIO = 3.0
HARMLESS_S = 600.0
"""
After a pause in which nothing was missed, pauses of up to ``HARMLESS_RATIO`` times its length are
not suspicious for ``HARMLESS_S``.
"""


class SilenceDetector:
    """
    The silence limit of one stream.

    It is the longest of ``FLOOR_S``, 20 mean intervals between messages, and what a harmless pause
    showed lately.

    Args:
        limit_s: Fixed limit in seconds; 0 to derive it from the stream.
        least_messages: Messages needed before anything is suspicious. Trades come in bursts, so
            their rate shows later than that of a book.
    """

    __slots__ = (
        "_count",
        "_fixed_s",
        "_harmless_s",
        "_harmless_until",
        "_least_messages",
        "_rates",
        "_sampled_at",
        "_seen",
        "_span_s",
    )

    def __init__(self, limit_s: float = 0.0, *, least_messages: int) -> None:
        self._fixed_s = limit_s
        self._least_messages = least_messages
        self._span_s = 0.0
        self._count = 0
        self._seen = 0
        self._sampled_at: float | None = None
        self._rates = [0.0, 0.0]
        self._harmless_s = 0.0
        self._harmless_until = 0.0

    def limit_s(self, now: float) -> float | None:
        """Return the longest plausible silence in seconds; None if no silence is suspicious."""
        if self._fixed_s:
            return self._fixed_s
        rate = min(self._rates)
        if self._seen < self._least_messages or self._span_s < MIN_SPAN_S or rate <= 0:
            return None
        harmless_s = self._harmless_s if now < self._harmless_until else 0.0
        return max(FLOOR_S, MEAN_INTERVALS / rate, harmless_s)

    def is_silent(self, messages: int, last_at: float, now: float) -> bool:
        """
        Return True if the stream is silent for longer than its limit; call it often.

        Args:
            messages: Messages of the stream received so far.
            last_at: Monotonic time of the last one.
            now: The present time.
        """
        self._sample(messages, last_at)
        limit_s = self.limit_s(now)
        return limit_s is not None and now - last_at > limit_s

    def learn_harmless(self, pause_s: float, now: float) -> None:
        """Note a suspected pause after which the next message showed that nothing was missed."""
        self._harmless_s = HARMLESS_RATIO * pause_s
        self._harmless_until = now + HARMLESS_S

    def restart(self, messages: int, now: float) -> None:
        """Measure the rate from here on; the time since the last sample does not count."""
        self._count, self._sampled_at = messages, now

    def _sample(self, messages: int, last_at: float) -> None:
        new, since = messages - self._count, self._sampled_at
        if new <= 0:
            return
        self._count, self._sampled_at = messages, last_at
        self._seen += new
        if since is None or last_at <= since:
            return
        elapsed_s = last_at - since
        self._span_s += elapsed_s
        for place, time_s in enumerate(RATE_TIMES_S):
            rate = self._rates[place]
            weight = 1.0 - exp(-elapsed_s / time_s) if rate else 1.0
            self._rates[place] = rate + (new / elapsed_s - rate) * weight
