"""The whole path on virtual time, with faults between any two steps."""

from tests.simulation.run import Result, missing, simulate_all

SECONDS = 40.0


def test_no_fault_makes_a_number_lie() -> None:
    outcomes = list(simulate_all(range(1, 21), SECONDS, jobs=2))
    failures = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert not failures, "\n\n".join(failures)
    assert [] == missing(outcome for outcome in outcomes if isinstance(outcome, Result))


def test_a_seed_repeats_exactly() -> None:
    first, second = simulate_all([5, 5], 30.0, jobs=2)
    assert isinstance(first, Result)
    assert isinstance(second, Result)
    assert first.hash == second.hash
