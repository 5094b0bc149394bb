"""The two clocks of the operating system behind one object, so that tests can bring their own."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall clock for timestamps that leave the process, monotonic clock for durations."""

    def time_ns(self) -> int:
        """Nanoseconds since 1970, may step."""
        ...

    def monotonic(self) -> float:
        """Seconds since some start, never steps."""
        ...


class SystemClock:
    """The real clocks."""

    def time_ns(self) -> int:
        """Nanoseconds since 1970, may step."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds since some start, never steps."""
        return time.monotonic()
