"""The waits between attempts to connect."""

from random import Random

from bybit_pipeline.processes.connector.backoff import JITTER_RATIO, Backoff


def test_waits_double_up_to_the_maximum() -> None:
    backoff = Backoff(5, 60, Random(1))
    for nominal in (5, 10, 20, 40, 60, 60, 60):
        assert nominal * (1 - JITTER_RATIO) <= backoff.delay_s() <= nominal


def test_data_brings_back_the_shortest_wait() -> None:
    backoff = Backoff(5, 60, Random(1))
    for _ in range(5):
        backoff.delay_s()
    backoff.reset()
    assert backoff.delay_s() <= 5


def test_connectors_that_fail_together_do_not_come_back_together() -> None:
    delays = {Backoff(5, 60, Random(seed)).delay_s() for seed in range(20)}
    assert len(delays) == 20


def test_one_connector_stays_far_below_500_attempts_in_5_minutes() -> None:
    backoff = Backoff(5, 60, Random(1))
    waited, attempts = 0.0, 0
    while waited < 300:
        waited += backoff.delay_s()
        backoff.reset()
        attempts += 1
    assert attempts <= 80
