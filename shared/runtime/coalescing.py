"""
When a busy reader should rest for a moment, so that messages come to it together.

Waking for one message costs several times what the message costs: processes take turns on the
cores and find their caches cold. Up to some thousand messages a second every message is read at
once. Above, the rest grows with the rate, until some fifty messages come together or to 4 ms: with
20,000 messages/s of 600 symbols a message costs both connectors together 12 us in place of 20.
"""

import time

from bybit_pipeline.shared.runtime.telemetry import Telemetry

BUSY_PER_S = 5_500.0
"""Messages a second from which on resting pays."""
RAMP_S = 1e-6
"""How much longer the rest is for every message a second more."""
REST_MAX_S = 0.004
ENOUGH = 48
"""So many messages are together already; waiting for more makes none cheaper."""
REST_MIN_S = 0.0001
"""Below, the operating system sleeps longer than it is told."""
LOOK_S = 0.05
"""Over which time the rate is taken."""


class ReadCoalescer:
    """
    The rate of one reader's messages, and the rest that follows from it.

    Attributes:
        longest_s: The rest between two reads that bring little, at the present rate.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._since_s = 0.0
        self._messages = 0

    def expose(self, telemetry: Telemetry, process: str) -> None:
        """Let Prometheus see the rest: while it lasts, what has come waits unseen."""
        telemetry.gauges(
            "read_rest_seconds",
            "Rest between two reads, as of the last; 0: none.",
            ("process",),
            lambda: [((process,), self.longest_s)],
        )

    def rest(self, messages: int, now_s: float) -> None:
        """Sleep for as long as ``rest_s`` says."""
        rest_s = self.rest_s(messages, now_s)
        if rest_s:
            time.sleep(rest_s)

    def rest_s(self, messages: int, now_s: float) -> float:
        """
        How long to rest before the next read; mostly not at all.

        Args:
            messages: How many the last read brought.
            now_s: Seconds of the monotonic clock.
        """
        self._messages += messages
        elapsed_s = now_s - self._since_s
        if elapsed_s >= LOOK_S:
            self.longest_s = _rest_s(self._messages / elapsed_s)
            self._messages, self._since_s = 0, now_s
        return self.longest_s if messages < ENOUGH else 0.0


def _rest_s(per_s: float) -> float:
    """The rest at a rate of messages."""
    if per_s <= BUSY_PER_S:
        return 0.0
    rest_s = min((per_s - BUSY_PER_S) * RAMP_S, REST_MAX_S, ENOUGH / per_s)
    return rest_s if rest_s >= REST_MIN_S else 0.0
