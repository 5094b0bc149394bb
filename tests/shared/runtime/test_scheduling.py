"""Markets share the publish interval, and busy readers wait for more messages."""

import pytest

from bybit_pipeline.shared.runtime.scheduling import (
    BATCH_MESSAGES,
    BUSY_PER_S,
    DELAY_MAX_S,
    LATE_S,
    MIN_BATCH,
    RATE_WINDOW_S,
    SLOWDOWN_MAX,
    PublishScheduler,
    ReadCoalescer,
)
from bybit_pipeline.shared.runtime.telemetry import Telemetry

INTERVALS_S = (0.1, 0.25, 0.45, 10.0)


# -- publishing ------------------------------------------------------------------------------------


def published(scheduler: PublishScheduler, markets: int, seconds: float, lag_s: float) -> int:
    """Return the number of metrics allowed in ``seconds`` while messages are ``lag_s`` late."""
    total = 0
    for _ in range(round(seconds / scheduler.tick_s)):
        scheduler.note_lag(lag_s)
        total += scheduler.take_quota(markets)
    return total


@pytest.mark.parametrize("interval_s", INTERVALS_S)
@pytest.mark.parametrize("markets", [1, 10, 50, 60, 300, 1000])
def test_a_worker_on_time_publishes_every_market_in_every_interval(
    markets: int, interval_s: float
) -> None:
    scheduler = PublishScheduler(interval_s)
    assert published(scheduler, markets, 10 * interval_s, LATE_S / 2) >= 10 * markets
    assert 1.0 == scheduler.slowdown


@pytest.mark.parametrize("interval_s", INTERVALS_S)
@pytest.mark.parametrize("markets", [60, 300])
def test_an_overloaded_worker_publishes_several_times_less(markets: int, interval_s: float) -> None:
    scheduler = PublishScheduler(interval_s)
    published(scheduler, markets, interval_s, 10 * LATE_S)
    assert SLOWDOWN_MAX == scheduler.slowdown
    late = published(scheduler, markets, 10 * interval_s, 10 * LATE_S)
    on_time = published(PublishScheduler(interval_s), markets, 10 * interval_s, 0.0)
    assert pytest.approx(on_time / SLOWDOWN_MAX, abs=1) == late


def test_even_the_most_overloaded_worker_publishes_something() -> None:
    scheduler = PublishScheduler(0.1)
    published(scheduler, 1, 1.0, 3600.0)
    quotas = []
    for _ in range(2 * int(SLOWDOWN_MAX)):
        scheduler.note_lag(3600.0)
        quotas.append(scheduler.take_quota(1))
    assert 2 * MIN_BATCH == sum(quotas)


@pytest.mark.parametrize("interval_s", INTERVALS_S)
@pytest.mark.parametrize("markets", [10, 50, 59, 300])
def test_an_occasional_late_read_changes_nothing(markets: int, interval_s: float) -> None:
    scheduler = PublishScheduler(interval_s)
    total = 0
    for tick in range(1, 6_001):
        scheduler.note_lag(1.0 if tick % 20 == 0 else LATE_S / 10)
        total += scheduler.take_quota(markets)
    assert 1.0 == scheduler.slowdown
    assert total >= 6_000 / 20 * markets


def test_without_further_messages_a_late_read_is_forgotten() -> None:
    scheduler = PublishScheduler(0.1)
    scheduler.note_lag(1.0)
    for _ in range(100):
        scheduler.take_quota(300)
    assert 1.0 == scheduler.slowdown


@pytest.mark.parametrize("interval_s", INTERVALS_S[:3])
def test_a_worker_that_is_on_time_again_recovers_within_seconds(interval_s: float) -> None:
    scheduler = PublishScheduler(interval_s)
    published(scheduler, 300, 2.0, 1.0)
    assert SLOWDOWN_MAX == scheduler.slowdown
    published(scheduler, 300, 3.0, 0.0)
    assert scheduler.slowdown > 2.0
    published(scheduler, 300, 3.0, 0.0)
    assert 1.0 == scheduler.slowdown


# -- reading ---------------------------------------------------------------------------------------


def delays(rate_per_s: float, messages: int, seconds: float = 1.0) -> set[float]:
    """Return the delays of a reader with ``messages`` per read, once it knows its rate."""
    coalescer, seen = ReadCoalescer(), set()
    step_s = messages / rate_per_s
    for read in range(int(seconds / step_s)):
        delay_s = coalescer.next_delay_s(messages, 100.0 + read * step_s)
        if read * step_s > 2 * RATE_WINDOW_S:
            seen.add(delay_s)
    return seen


@pytest.mark.parametrize("rate_per_s", [1.0, 1_000.0, BUSY_PER_S * 0.95])
def test_at_ordinary_rates_every_message_is_read_at_once(rate_per_s: float) -> None:
    assert {0.0} == delays(rate_per_s, 1, seconds=3.0)


def test_above_the_limit_the_delay_grows_gradually_with_the_rate() -> None:
    (some,) = {round(delay_s, 5) for delay_s in delays(BUSY_PER_S + 1_000, 1)}
    (more,) = {round(delay_s, 5) for delay_s in delays(BUSY_PER_S + 2_000, 1)}
    assert pytest.approx(0.001, rel=0.1) == some
    assert pytest.approx(0.002, rel=0.1) == more


def test_the_delay_has_an_upper_limit() -> None:
    assert {DELAY_MAX_S} == delays(11_000, 1)


def test_at_high_rates_the_delay_is_the_time_that_a_batch_takes_to_arrive() -> None:
    for delay_s in delays(80_000, 8):
        assert pytest.approx(BATCH_MESSAGES / 80_000, rel=0.1) == delay_s


def test_a_read_that_brought_a_batch_is_not_delayed() -> None:
    assert {0.0} == delays(BUSY_PER_S * 10, BATCH_MESSAGES)


def test_a_reader_that_is_no_longer_busy_reads_at_once_again() -> None:
    coalescer = ReadCoalescer()
    for read in range(2_000):
        coalescer.next_delay_s(1, 100.0 + read / (2 * BUSY_PER_S))
    assert coalescer.delay_s > 0
    assert 0.0 == coalescer.next_delay_s(1, 200.0)
    assert 0.0 == coalescer.next_delay_s(1, 200.01)


def test_the_first_read_is_not_delayed() -> None:
    assert 0.0 == ReadCoalescer().next_delay_s(1, 1e6)


def test_prometheus_shows_the_delay() -> None:
    telemetry, coalescer = Telemetry(), ReadCoalescer()
    coalescer.expose(telemetry, "trades-0")
    coalescer.next_delay_s(0, 100.0)
    coalescer.next_delay_s(1_000, 100.1)
    name, labels = "bybit_pipeline_read_rest_seconds", {"process": "trades-0"}
    assert DELAY_MAX_S == telemetry.registry.get_sample_value(name, labels)
