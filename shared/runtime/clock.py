"""The two clocks of the operating system behind one object, so that tests can bring their own."""

import time
from functools import partial
from typing import Protocol


class Clock(Protocol):
    """Wall clock for timestamps that leave the process, monotonic clock for durations."""

    def time_ns(self) -> int:
        """Nanoseconds since 1970, may step."""
        ...

    def monotonic(self) -> float:
        """Seconds since some start, also those in which the machine slept; never steps."""
        ...


class SystemClock:
    """
    The real clocks; the hot path reads them for every message, so nothing is called between.

    ``time.monotonic`` stands still while the machine sleeps: what was missed would look shorter.
    """

    time_ns = staticmethod(time.time_ns)
    monotonic = staticmethod(
        partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
    )
