"""The rule of ``source = "auto"``: once, at the start, never after a live message."""

import pytest

from bybit_pipeline.supervisor.source.fallback import FallbackRule, Link


def test_it_is_due_once_the_exchange_has_been_unreachable_for_the_configured_time() -> None:
    rule = FallbackRule(is_auto=True, after_s=5.0)

    assert not rule.is_due(100.0, [Link(100.0, False)])
    assert not rule.is_due(104.9, [Link(104.9, False)])
    assert rule.is_due(105.1, [Link(105.0, False)])


def test_the_time_starts_when_a_connector_is_up() -> None:
    rule = FallbackRule(is_auto=True, after_s=5.0)

    assert not rule.is_due(100.0, [])
    assert not rule.is_due(200.0, [Link(200.0, False)])
    assert rule.is_due(206.0, [Link(206.0, False)])


def test_a_connector_that_has_not_been_heard_of_since_is_awaited() -> None:
    """It may have received a live message after its last heartbeat."""
    rule = FallbackRule(is_auto=True, after_s=5.0)
    rule.is_due(100.0, [Link(100.0, False), Link(100.0, False)])

    assert not rule.is_due(105.5, [Link(105.2, False), Link(104.8, False)])
    assert rule.is_due(105.9, [Link(105.2, False), Link(105.8, False)])


def test_it_is_due_only_once() -> None:
    rule = FallbackRule(is_auto=True, after_s=0.0)

    assert rule.is_due(1.0, [Link(1.0, False)])
    assert not rule.is_due(100.0, [Link(100.0, False)])


def test_it_is_never_due_after_a_live_message_on_any_connector() -> None:
    rule = FallbackRule(is_auto=True, after_s=5.0)

    assert not rule.is_due(100.0, [Link(100.0, False), Link(100.0, True)])
    assert not rule.is_due(200.0, [Link(200.0, False)])
    assert not rule.is_armed


@pytest.mark.parametrize("now", [0.0, 1e9])
def test_a_fixed_source_never_falls_back(now: float) -> None:
    assert not FallbackRule(is_auto=False, after_s=0.0).is_due(now, [Link(now, False)])
