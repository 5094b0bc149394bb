"""
When a busy reader should rest for a moment, so that messages come to it together.

Waking for one message costs several times what the message costs: processes take turns on the
cores and find their caches cold. Up to some thousand messages a second every message is read at
once. Above, half a millisecond of rest makes them cheaper: at 20,000 messages/s of 10 symbols 47 ->
38 us for all processes, and a millisecond is no better. Reads no clock.
"""

BUSY_PER_S = 6_000.0
"""Messages a second from which on resting pays."""
REST_S = 0.0005
ENOUGH = 32
"""Messages in one turn that are together already."""
LOOK_S = 0.05
"""Over which time the rate is taken."""


class Pace:
    """The rate of one reader's messages, and the rest that follows from it."""

    def __init__(self) -> None:
        self._since_s = 0.0
        self._messages = 0
        self._is_busy = False

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
            self._is_busy = self._messages >= BUSY_PER_S * elapsed_s
            self._messages, self._since_s = 0, now_s
        return REST_S if self._is_busy and messages < ENOUGH else 0.0
