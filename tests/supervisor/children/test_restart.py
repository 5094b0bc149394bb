"""Restart decisions for histories of runs and exits."""

from collections.abc import Sequence

import pytest

from bybit_pipeline.supervisor.children.restart import (
    Decision,
    RestartHistory,
    RestartPolicy,
    exit_reason,
)

POLICY = RestartPolicy(
    delay_initial_s=0.5, delay_max_s=30.0, intensity=5, period_s=60.0, stable_s=60.0
)

Run = tuple[float, int | None]
"""Run time in seconds, and exit code (None: ended by a signal)."""

HISTORIES: dict[str, tuple[Sequence[Run], Sequence[float | None]]] = {
    "a first crash is restarted after the initial delay": ([(10.0, 70)], [0.5]),
    "crash after crash doubles the delay": ([(0.1, 70)] * 5, [0.5, 1.0, 2.0, 4.0, 8.0]),
    "exit code 0 is a failure too": ([(5.0, 0)], [0.5]),
    "a signal is a failure like an exit": ([(0.1, None), (0.1, 70)], [0.5, 1.0]),
    "the sixth failure within a minute waits the longest delay": (
        [(0.1, 70)] * 6,
        [0.5, 1.0, 2.0, 4.0, 8.0, 30.0],
    ),
    "a flapping child is retried at the longest delay without limit": (
        [(0.1, 70)] * 12,
        [0.5, 1.0, 2.0, 4.0, 8.0] + [30.0] * 7,
    ),
    "failures too far apart to flap still double the delay up to the longest": (
        [(25.0, 70)] * 9,
        [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0],
    ),
    "a stable run resets the delay": ([(0.1, 70), (0.1, 70), (60.0, 70)], [0.5, 1.0, 0.5]),
    "a run a little shorter than stable does not": ([(0.1, 70), (59.0, 70)], [0.5, 1.0]),
    "a stable run ends flapping": (
        [(0.1, 70)] * 7 + [(61.0, 70), (0.1, 70)],
        [0.5, 1.0, 2.0, 4.0, 8.0, 30.0, 30.0, 0.5, 1.0],
    ),
    "wrong usage is final": ([(0.1, 64)], [None]),
    "bad configuration is final": ([(0.1, 70), (0.1, 78)], [0.5, None]),
    "a bug is not final": ([(0.1, 70)], [0.5]),
    "an unreachable peer is not final": ([(0.1, 69)], [0.5]),
}


@pytest.mark.parametrize(("runs", "delays"), HISTORIES.values(), ids=HISTORIES.keys())
def test_delays_of_a_history(runs: Sequence[Run], delays: Sequence[float | None]) -> None:
    assert list(delays) == [decision.delay_s for decision in _play(runs)]


def test_a_child_is_flapping_from_the_failure_that_exceeds_the_intensity() -> None:
    assert [False] * 5 + [True] * 2 == [d.is_flapping for d in _play([(0.1, 70)] * 7)]


def test_flapping_does_not_end_because_retries_are_rare() -> None:
    """At the longest delay there are fewer failures per period than the intensity."""
    assert all(decision.is_flapping for decision in _play([(0.1, 70)] * 20)[6:])


def test_flapping_ends_after_a_stable_run() -> None:
    history = RestartHistory(POLICY)
    for second in range(6):
        history.on_exit(float(second), started=float(second), exit_code=70)

    history.on_running(64.9, started=5.0)
    assert history.is_flapping
    history.on_running(65.0, started=5.0)
    assert not history.is_flapping


@pytest.mark.parametrize(
    ("return_code", "was_hung", "reason"),
    [(0, False, "exit"), (70, False, "exit"), (-9, False, "signal"), (-9, True, "hung")],
)
def test_reason_of_an_exit(return_code: int, was_hung: bool, reason: str) -> None:
    assert reason == exit_reason(return_code, was_hung=was_hung)


def _play(runs: Sequence[Run]) -> list[Decision]:
    """Run, exit, wait the decided delay, run again."""
    history = RestartHistory(POLICY)
    now, decisions = 0.0, []
    for length, exit_code in runs:
        started, now = now, now + length
        decisions.append(history.on_exit(now, started=started, exit_code=exit_code))
        now += decisions[-1].delay_s or 0.0
    return decisions
