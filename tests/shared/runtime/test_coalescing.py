"""When a busy reader rests."""

import pytest

from bybit_pipeline.shared.runtime.coalescing import (
    BUSY_PER_S,
    ENOUGH,
    LOOK_S,
    REST_MAX_S,
    ReadCoalescer,
)
from bybit_pipeline.shared.runtime.telemetry import Telemetry


def rests(rate_per_s: float, messages: int, seconds: float = 1.0) -> set[float]:
    """What a reader is told that gets so many messages a read, after its first look."""
    pace, told = ReadCoalescer(), set()
    step_s = messages / rate_per_s
    for read in range(int(seconds / step_s)):
        rest_s = pace.rest_s(messages, 100.0 + read * step_s)
        if read * step_s > 2 * LOOK_S:
            told.add(rest_s)
    return told


@pytest.mark.parametrize("rate_per_s", [1.0, 1_000.0, BUSY_PER_S * 0.95])
def test_below_the_limit_every_message_is_read_at_once(rate_per_s: float) -> None:
    assert rests(rate_per_s, 1, seconds=3.0) == {0.0}


def test_above_the_limit_the_rest_grows_with_the_rate_and_not_at_once() -> None:
    (some,) = {round(rest_s, 5) for rest_s in rests(BUSY_PER_S + 1_000, 1)}
    (more,) = {round(rest_s, 5) for rest_s in rests(BUSY_PER_S + 2_000, 1)}
    assert some == pytest.approx(0.001, rel=0.1)
    assert more == pytest.approx(0.002, rel=0.1)


def test_the_rest_ends_at_its_longest() -> None:
    assert rests(11_000, 1) == {REST_MAX_S}


def test_at_a_high_rate_the_rest_is_no_longer_than_enough_messages_need() -> None:
    for rest_s in rests(80_000, 8):
        assert rest_s == pytest.approx(ENOUGH / 80_000, rel=0.1)


def test_messages_that_came_together_are_not_waited_for() -> None:
    assert rests(BUSY_PER_S * 10, ENOUGH) == {0.0}


def test_a_reader_that_is_no_longer_busy_stops_resting() -> None:
    pace = ReadCoalescer()
    for read in range(2_000):
        pace.rest_s(1, 100.0 + read / (2 * BUSY_PER_S))
    assert pace.longest_s > 0
    assert pace.rest_s(1, 200.0) == 0.0
    assert pace.rest_s(1, 200.01) == 0.0


def test_the_first_read_does_not_rest() -> None:
    assert ReadCoalescer().rest_s(1, 1e6) == 0.0


def test_prometheus_sees_the_rest() -> None:
    telemetry, pace = Telemetry(), ReadCoalescer()
    pace.expose(telemetry, "trades-0")
    pace.rest_s(0, 100.0)
    pace.rest_s(1_000, 100.1)
    name, labels = "bybit_pipeline_read_rest_seconds", {"process": "trades-0"}
    assert telemetry.registry.get_sample_value(name, labels) == REST_MAX_S
