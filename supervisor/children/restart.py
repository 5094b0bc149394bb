"""
Restart decisions for one child: when to start it again, and what to call its condition.

The words are those of Erlang/OTP's supervisors: every child is restarted by itself (*one for
one*), and one that fails more than ``intensity`` times within ``period_s`` has exceeded its
intensity. OTP then gives up. Here the child is *flapping* instead: that is said and counted, and it
is retried at the longest delay for ever, because a pipeline that stopped trying is of no use at
night. Reads no clock and starts nothing; ``supervisor`` does.
"""

from dataclasses import dataclass, field
from typing import Literal

from bybit_pipeline.shared.errors import FINAL_EXIT_CODES

ExitReason = Literal["exit", "signal", "hung"]


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """The limits; all times in seconds."""

    delay_initial_s: float = 0.5
    delay_max_s: float = 30.0
    intensity: int = 5
    """Failures within ``period_s`` that are still ordinary."""
    period_s: float = 60.0
    stable_s: float = 60.0
    """A child that ran this long starts again with a clean record."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do about an exit: start again after ``delay_s``, or never when it is None."""

    delay_s: float | None
    is_flapping: bool


@dataclass
class RestartHistory:
    """
    The record of one child.

    Times are seconds of one monotonic clock, handed in by the caller.
    """

    policy: RestartPolicy = field(default_factory=RestartPolicy)
    is_flapping: bool = False
    _failures: list[float] = field(default_factory=list)
    _streak: int = 0

    def on_exit(self, now: float, *, started: float, exit_code: int | None) -> Decision:
        """
        Decide after an exit that nobody asked for.

        The n-th failure in a row (n from 0) waits ``delay_initial_s * 2**n``, at most
        ``delay_max_s``; a flapping child always waits ``delay_max_s``.

        Args:
            now: Time of the exit.
            started: Time of the start that it ended.
            exit_code: What the child returned; None when a signal ended it or it was killed.
        """
        if exit_code in FINAL_EXIT_CODES:
            return Decision(delay_s=None, is_flapping=False)
        if now - started >= self.policy.stable_s:
            self._forgive()
        self._failures = [t for t in self._failures if now - t < self.policy.period_s]
        self._failures.append(now)
        self.is_flapping = self.is_flapping or len(self._failures) > self.policy.intensity
        delay = self._delay()
        self._streak += 1
        return Decision(delay_s=delay, is_flapping=self.is_flapping)

    def on_running(self, now: float, *, started: float) -> None:
        """Note that the child still runs: after ``stable_s`` it is flapping no longer."""
        if now - started >= self.policy.stable_s:
            self._forgive()

    def _delay(self) -> float:
        if self.is_flapping:
            return self.policy.delay_max_s
        doubled = self.policy.delay_initial_s * 2.0 ** min(self._streak, 60)
        return min(doubled, self.policy.delay_max_s)

    def _forgive(self) -> None:
        self._failures.clear()
        self._streak = 0
        self.is_flapping = False


def exit_reason(return_code: int, *, was_hung: bool) -> ExitReason:
    """
    Why a child is gone, as the label of ``process_restarts_total``.

    Args:
        return_code: As ``subprocess`` gives it: negative for a signal.
        was_hung: True if we killed it for being silent.
    """
    if was_hung:
        return "hung"
    return "signal" if return_code < 0 else "exit"
