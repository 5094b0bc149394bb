"""One rule for what is a repeat, what follows missed messages, and what is a new epoch."""

from typing import Any

import pytest

from bybit_pipeline.shared.bus.sequences import EPOCHS_KEPT, NEW, REPEAT, Arrival, SequenceTracker


def classified(*numbers: tuple[Any, Any]) -> list[Arrival]:
    """Classifications of messages of one topic, given as ``(epoch, seq)``."""
    tracker = SequenceTracker()
    return [tracker.classify("trades.linear.A", epoch, seq) for epoch, seq in numbers]


def missed(count: int) -> Arrival:
    return Arrival(is_repeat=False, missed=count)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        pytest.param([("a", 1), ("a", 2), ("a", 3)], [NEW, NEW, NEW], id="in order"),
        pytest.param([("a", 7)], [NEW], id="joined late"),
        pytest.param([("a", 1), ("a", 1)], [NEW, REPEAT], id="last value again"),
        pytest.param([("a", 5), ("a", 3), ("a", 6)], [NEW, REPEAT, NEW], id="older value again"),
        pytest.param([("a", 1), ("a", 2), ("a", 5)], [NEW, NEW, missed(2)], id="jump"),
        pytest.param([("a", 9), ("b", 1), ("b", 2)], [NEW, NEW, NEW], id="new epoch from 1"),
        pytest.param([("a", 9), ("b", 40)], [NEW, NEW], id="new epoch joined late"),
        pytest.param([("a", 9), ("b", 9)], [NEW, NEW], id="same number in a new epoch"),
        pytest.param(
            [("a", 1), ("b", 1), ("a", 2), ("b", 3)],
            [NEW, NEW, NEW, missed(1)],
            id="two publishers take turns",
        ),
        pytest.param([(None, 1), (None, 1)], [NEW, NEW], id="no epoch"),
        pytest.param([("a", None), ("a", None)], [NEW, NEW], id="no seq"),
        pytest.param([(["a"], 1), ("a", "1")], [NEW, NEW], id="numbers of a wrong type"),
    ],
)
def test_numbers_of_one_topic(numbers: list[tuple[Any, Any]], expected: list[Arrival]) -> None:
    assert expected == classified(*numbers)


def test_topics_are_numbered_independently() -> None:
    tracker = SequenceTracker()
    tracker.classify("trades.linear.A", "a", 1)
    assert NEW == tracker.classify("trades.linear.B", "a", 1)
    assert NEW == tracker.classify("trades.linear.A", "a", 2)


def test_the_oldest_epoch_of_a_topic_is_forgotten() -> None:
    """Memory stays bounded; an epoch that still publishes is not the oldest."""
    numbers = [("first", 1), ("second", 1), ("first", 2)]
    numbers += [(f"later {count}", 1) for count in range(EPOCHS_KEPT - 1)]
    assert [REPEAT, NEW] == classified(*numbers, ("first", 2), ("second", 1))[-2:]


def test_a_forgotten_topic_starts_again() -> None:
    tracker = SequenceTracker()
    tracker.classify("trades.linear.A", "a", 1)
    tracker.classify("trades.linear.B", "a", 1)
    tracker.forget(lambda topic: topic.endswith("A"))
    assert NEW == tracker.classify("trades.linear.A", "a", 9)
    assert REPEAT == tracker.classify("trades.linear.B", "a", 1)
