"""Clocks that a test moves."""

import dataclasses


@dataclasses.dataclass
class FakeClock:
    """A clock that the test moves; its wall time has whole milliseconds."""

    now_s: float = 1_000.0

    def time_ns(self) -> int:
        return round(self.now_s * 1_000) * 1_000_000

    def monotonic(self) -> float:
        return self.now_s


@dataclasses.dataclass
class SteppingClock(FakeClock):
    """A wall clock that is set during the test, by ``step_s``, and a monotonic one that is not."""

    step_s: float = 0.0

    def time_ns(self) -> int:
        return super().time_ns() + round(self.step_s * 1_000) * 1_000_000
