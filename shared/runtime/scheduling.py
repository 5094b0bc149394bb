"""
Scheduling: when a worker publishes each market, and when a busy reader waits for more messages.

Both trade a little latency for much less work when there is more of it.
"""

import time

from bybit_pipeline.shared.runtime.telemetry import Telemetry

# -- publishing ------------------------------------------------------------------------------------

TICKS_MAX = 20
"""Upper limit of ticks per publish interval."""
TICK_MIN_S = 0.005
"""Shortest tick."""
MIN_BATCH = 3
"""
Markets that may be published in any tick. With 50 markets at 5,000 messages/s a smaller batch saves
no latency, and a larger one delays the messages behind it.
"""
LATE_S = 0.01
"""A worker whose messages are later than this tick after tick is overloaded."""
SLOWDOWN_MAX = 8.0
SLOWDOWN_UP = 1.2
"""Growth per late tick; reaches the maximum in about 15."""
SLOWDOWN_DOWN = 0.67
"""Factor per second on time; back to 1 within 5 s. A faster return would oscillate."""


class PublishScheduler:
    """
    Spreads the markets of a worker over its publish interval.

    Every ``tick_s`` the worker publishes up to a quota of its due markets, longest waiting first.
    Without this, markets that arrived together would be published together for good, and every
    message behind them would wait.

    A metric costs as much as ten to twenty messages, so an overloaded worker publishes less often
    instead of falling further behind. A single late read, as a busy machine causes now and then,
    changes nothing.

    Args:
        interval_s: Publish interval of each market.

    Attributes:
        tick_s: Interval between two looks for due markets.
        slowdown: Between 1 and ``SLOWDOWN_MAX``: divides the number of markets published per tick.
            A worker with few markets has spare quota and is hardly slowed down.
    """

    def __init__(self, interval_s: float) -> None:
        self._ticks = max(1, min(TICKS_MAX, round(interval_s / TICK_MIN_S)))
        self._lag_s = 0.0
        self._was_late = False
        self._carry = 0.0
        """Fraction of the quota carried over to the next tick."""
        self.tick_s = interval_s / self._ticks
        self.slowdown = 1.0

    def note_lag(self, lag_s: float) -> None:
        """Record the age of the last message read; counts for the next tick."""
        self._lag_s = lag_s

    def take_quota(self, markets: int) -> int:
        """Return how many of ``markets`` may be published now; call once per tick."""
        is_late, self._lag_s = self._lag_s > LATE_S, 0.0
        if not is_late:
            self.slowdown = max(1.0, self.slowdown * SLOWDOWN_DOWN**self.tick_s)
        elif self._was_late:
            self.slowdown = min(SLOWDOWN_MAX, self.slowdown * SLOWDOWN_UP)
        self._was_late = is_late
        self._carry += max(MIN_BATCH, markets // self._ticks + 1) / self.slowdown
        quota = int(self._carry)
        self._carry -= quota
        return quota


# -- reading ---------------------------------------------------------------------------------------

BUSY_PER_S = 5_500.0
"""Messages per second from which coalescing pays."""
RAMP_S = 1e-6
"""Growth of the delay per further message per second."""
DELAY_MAX_S = 0.004
BATCH_MESSAGES = 48
"""A read with this many messages needs no delay: waiting for more would make none cheaper."""
DELAY_MIN_S = 0.0001
"""Shorter sleeps take longer than requested."""
RATE_WINDOW_S = 0.05
"""Time over which the rate is measured."""


class ReadCoalescer:
    """
    Read coalescing: how long a busy reader sleeps between reads so that messages arrive in batches.

    Waking up for a single message costs several times as much as the message. At ordinary rates
    every message is read at once; above ``BUSY_PER_S`` the delay grows with the rate, up to
    ``DELAY_MAX_S`` or the time that ``BATCH_MESSAGES`` messages take to arrive.

    Attributes:
        delay_s: Delay after a small read, at the present rate.
    """

    def __init__(self) -> None:
        self.delay_s = 0.0
        self._since_s = 0.0
        self._messages = 0

    def expose(self, telemetry: Telemetry, process: str) -> None:
        """Publish the delay to Prometheus: messages that have arrived wait for up to this long."""
        telemetry.gauges(
            "read_rest_seconds",
            "Delay between two reads that lets messages arrive in batches; 0: none.",
            ("process",),
            lambda: [((process,), self.delay_s)],
        )

    def delay(self, messages: int, now_s: float) -> None:
        """Sleep for ``next_delay_s``."""
        delay_s = self.next_delay_s(messages, now_s)
        if delay_s:
            time.sleep(delay_s)

    def next_delay_s(self, messages: int, now_s: float) -> float:
        """
        Return the delay before the next read, in seconds; usually 0.

        Args:
            messages: Number of messages in the last read.
            now_s: Seconds of the monotonic clock.
        """
        self._messages += messages
        elapsed_s = now_s - self._since_s
        if elapsed_s >= RATE_WINDOW_S:
            self.delay_s = _delay_s(self._messages / elapsed_s)
            self._messages, self._since_s = 0, now_s
        return self.delay_s if messages < BATCH_MESSAGES else 0.0


def _delay_s(per_s: float) -> float:
    """Return the delay at a rate of messages per second."""
    if per_s <= BUSY_PER_S:
        return 0.0
    delay_s = min((per_s - BUSY_PER_S) * RAMP_S, DELAY_MAX_S, BATCH_MESSAGES / per_s)
    return delay_s if delay_s >= DELAY_MIN_S else 0.0
