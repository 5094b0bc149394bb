"""Coverage, compared with a set of observed milliseconds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from bybit_pipeline.processes.trades.coverage import Coverage

ALL_HELD = -(1 << 62)


def test_nothing_is_covered_before_observation_begins() -> None:
    coverage = Coverage(1_000)
    assert not coverage.is_observing
    assert 0 == coverage.covered_ms(1_000, 5_000, complete_after_ms=ALL_HELD)


def test_coverage_grows_to_the_window_and_stays_there() -> None:
    coverage = Coverage(1_000)
    coverage.resume(5_000)
    covered = [
        coverage.covered_ms(1_000, now, complete_after_ms=ALL_HELD)
        for now in (5_000, 5_400, 6_000, 9_000)
    ]
    assert [0, 400, 1_000, 1_000] == covered


def test_an_interruption_reduces_coverage_until_it_leaves_the_window() -> None:
    coverage = Coverage(1_000)
    coverage.resume(0)
    assert 2_000 == coverage.interrupt(2_000)
    assert 500 == coverage.covered_ms(1_000, 2_500, complete_after_ms=ALL_HELD)
    coverage.resume(2_600)
    assert 400 == coverage.covered_ms(1_000, 2_700, complete_after_ms=ALL_HELD)
    assert 1_000 == coverage.covered_ms(1_000, 3_600, complete_after_ms=ALL_HELD)
    assert 600 == coverage.lost_ms(9_000)


def test_dropped_trades_are_not_covered() -> None:
    coverage = Coverage(1_000)
    coverage.resume(0)
    assert 100 == coverage.covered_ms(1_000, 3_000, complete_after_ms=2_900)


def test_an_interruption_does_not_overlap_an_earlier_one() -> None:
    coverage = Coverage(1_000)
    coverage.resume(500)
    coverage.interrupt(600)
    coverage.resume(700)
    assert 700 == coverage.interrupt(550)


def test_an_interruption_that_reaches_back_absorbs_an_earlier_one() -> None:
    coverage = Coverage(1_000)
    coverage.resume(500)
    coverage.interrupt(600)
    coverage.resume(700)
    coverage.interrupt(750)
    assert 550 == coverage.reach_back(550)
    coverage.resume(800)
    assert 250 == coverage.lost_ms(900)
    assert 150 == coverage.covered_ms(1_000, 900, complete_after_ms=0)


def test_no_interruption_reaches_back_to_before_observation_began() -> None:
    coverage = Coverage(1_000)
    coverage.resume(500)
    assert 500 == coverage.interrupt(100)
    assert 500 == coverage.reach_back(200)


@settings(max_examples=300, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=40),
    window=st.integers(1, 100),
)
def test_coverage_equals_a_count_of_observed_milliseconds(
    steps: list[tuple[int, int]], window: int
) -> None:
    """``steps``: pairs of a time observed and a time not observed after it."""
    coverage = Coverage(100)
    observed: set[int] = set()
    now = 1_000
    for seen, unseen in steps:
        coverage.resume(now)
        observed.update(range(now + 1, now + seen + 1))
        now += seen
        covered = coverage.covered_ms(window, now, complete_after_ms=ALL_HELD)
        assert covered == sum(ms in observed for ms in range(now - window + 1, now + 1))
        coverage.interrupt(now)
        now += unseen
        covered = coverage.covered_ms(window, now, complete_after_ms=ALL_HELD)
        assert covered == sum(ms in observed for ms in range(now - window + 1, now + 1))


def test_a_flapping_link_costs_bounded_memory_and_never_overstates_coverage() -> None:
    coverage = Coverage(100_000)
    for start in range(0, 100_000, 10):
        coverage.resume(start)
        coverage.interrupt(start + 5)
    assert len(coverage._unobserved) <= 256
    covered = coverage.covered_ms(100_000, 100_000, complete_after_ms=ALL_HELD)
    assert 255 * 5 <= covered <= 50_000
