"""When a busy reader rests."""

from shared.pace import BUSY_PER_S, ENOUGH, LOOK_S, REST_S, Pace


def rests(rate_per_s: float, messages: int, seconds: float = 1.0) -> set[float]:
    """What a reader is told that gets so many messages a read, after its first look."""
    pace, told = Pace(), set()
    step_s = messages / rate_per_s
    for read in range(int(seconds / step_s)):
        rest_s = pace.rest_s(messages, 100.0 + read * step_s)
        if read * step_s > 2 * LOOK_S:
            told.add(rest_s)
    return told


def test_below_the_limit_every_message_is_read_at_once() -> None:
    assert rests(BUSY_PER_S * 0.9, 1) == {0.0}


def test_above_the_limit_the_reader_rests() -> None:
    assert rests(BUSY_PER_S * 1.2, 1) == {REST_S}


def test_messages_that_came_together_are_not_waited_for() -> None:
    assert rests(BUSY_PER_S * 10, ENOUGH) == {0.0}


def test_a_reader_that_is_no_longer_busy_stops_resting() -> None:
    pace = Pace()
    for read in range(2_000):
        pace.rest_s(1, 100.0 + read / (2 * BUSY_PER_S))
    assert pace.rest_s(1, 200.0) == 0.0
    assert pace.rest_s(1, 200.01) == 0.0


def test_the_first_read_does_not_rest() -> None:
    assert Pace().rest_s(1, 1e6) == 0.0
