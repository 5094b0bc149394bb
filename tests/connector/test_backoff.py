"""Delays between connection attempts."""

from random import Random

from bybit_pipeline.processes.connector.backoff import JITTER_RATIO, Backoff


def test_delays_double_up_to_the_maximum() -> None:
    backoff = Backoff(5, 60, Random(1))
    for nominal in (5, 10, 20, 40, 60, 60, 60):
        assert nominal * (1 - JITTER_RATIO) <= backoff.next_delay_s() <= nominal


def test_a_reset_restores_the_shortest_delay() -> None:
    backoff = Backoff(5, 60, Random(1))
    for _ in range(5):
        backoff.next_delay_s()
    backoff.reset()
    assert backoff.next_delay_s() <= 5


def test_connectors_that_fail_together_reconnect_at_different_times() -> None:
    delays = {Backoff(5, 60, Random(seed)).next_delay_s() for seed in range(20)}
    assert 20 == len(delays)


def test_one_connector_stays_far_below_500_attempts_in_5_minutes() -> None:
    backoff = Backoff(5, 60, Random(1))
    waited, attempts = 0.0, 0
    while waited < 300:
        waited += backoff.next_delay_s()
        backoff.reset()
        attempts += 1
    assert attempts <= 80
