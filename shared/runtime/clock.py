"""The two clocks of the operating system behind one interface, which tests replace."""

import time
from functools import partial
from typing import Protocol


class Clock(Protocol):
    """Wall clock for timestamps that leave the process, monotonic clock for durations."""

    def time_ns(self) -> int:
        """Nanoseconds since 1970; may step."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start, including suspended time; never steps."""
        ...


class SystemClock:
    """
    The real clocks, called directly because the hot path reads them for every message.

    ``time.monotonic`` stops while the machine is suspended, which would shorten gaps.
    """

    time_ns = staticmethod(time.time_ns)
    monotonic = staticmethod(
        partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
        if hasattr(time, "clock_gettime")  # not on Windows, where the client runs too
        else time.monotonic
    )
