"""
Restart decisions for one child: when to restart it, and whether it is flapping.

The terms are those of Erlang/OTP's supervisors: each child is restarted on its own (*one for one*),
and a child that fails more than ``intensity`` times within ``period_s`` has exceeded its intensity.
OTP then gives up. Here the child is marked as *flapping* and retried at the longest delay without
limit, because a pipeline that has given up is of no use at night. Reads no clock and starts
nothing.
"""

from dataclasses import dataclass, field

from bybit_pipeline.shared.errors import FINAL_EXIT_CODES
from bybit_pipeline.shared.wire.process_status import ExitReason


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """The limits of the restart rule."""

    delay_initial_s: float = 0.5
    delay_max_s: float = 30.0
    intensity: int = 5
    """Failures within ``period_s`` that are not flapping yet."""
    period_s: float = 60.0
    stable_s: float = 60.0
    """Run time after which earlier failures are forgotten."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The answer to an exit: restart after ``delay_s``, or never if it is None."""

    delay_s: float | None
    is_flapping: bool


@dataclass
class RestartHistory:
    """
    The failures of one child.

    Times are seconds of one monotonic clock, passed in by the caller.
    """

    policy: RestartPolicy = field(default_factory=RestartPolicy)
    is_flapping: bool = False
    _failures: list[float] = field(default_factory=list)
    _streak: int = 0

    def on_exit(self, now: float, *, started: float, exit_code: int | None) -> Decision:
        """
        Decide after an exit that was not asked for.

        The n-th failure in a row (n from 0) waits ``delay_initial_s * 2**n``, at most
        ``delay_max_s``. A flapping child always waits ``delay_max_s``.

        Args:
            now: Time of the exit.
            started: Time of the start of that run.
            exit_code: Exit code; None if a signal ended the process, ours included.
        """
        if exit_code in FINAL_EXIT_CODES:
            return Decision(delay_s=None, is_flapping=False)
        if now - started >= self.policy.stable_s:
            self._reset()
        self._failures = [t for t in self._failures if now - t < self.policy.period_s]
        self._failures.append(now)
        self.is_flapping = self.is_flapping or len(self._failures) > self.policy.intensity
        delay = self._delay()
        self._streak += 1
        return Decision(delay_s=delay, is_flapping=self.is_flapping)

    def on_running(self, now: float, *, started: float) -> None:
        """Forget earlier failures once the child has run for ``stable_s``."""
        if now - started >= self.policy.stable_s:
            self._reset()

    def _delay(self) -> float:
        if self.is_flapping:
            return self.policy.delay_max_s
        doubled = self.policy.delay_initial_s * 2.0 ** min(self._streak, 60)
        return min(doubled, self.policy.delay_max_s)

    def _reset(self) -> None:
        self._failures.clear()
        self._streak = 0
        self.is_flapping = False


def exit_reason(return_code: int, *, was_hung: bool) -> ExitReason:
    """
    The reason of an exit, as the label of ``process_restarts_total``.

    Args:
        return_code: As ``subprocess`` gives it: negative for a signal.
        was_hung: True if the supervisor killed the child because it hung.
    """
    if was_hung:
        return "hung"
    return "signal" if return_code < 0 else "exit"
