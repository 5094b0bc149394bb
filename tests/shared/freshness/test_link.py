"""The proof that a connector, its connection and the way from it work."""

import pytest

from bybit_pipeline.shared.freshness.link import LinkFreshness
from bybit_pipeline.shared.wire.messages import HeartbeatMessage


def heartbeat(sent_s: float, silent_s: float = 0.0) -> HeartbeatMessage:
    return HeartbeatMessage(1, "live", 1, 1, int(sent_s * 1e9), sent_s, silent_s)


@pytest.fixture
def link() -> LinkFreshness:
    """A link with a heartbeat of 100 s."""
    link = LinkFreshness()
    link.note(heartbeat(100.0))
    return link


def test_nothing_is_doubted_before_the_first_heartbeat() -> None:
    link = LinkFreshness()
    assert link.doubt(1e6) is None
    assert link.unproven_s(1e6) is None


def test_a_recent_heartbeat_is_proof(link: LinkFreshness) -> None:
    assert link.doubt(101.0) is None
    assert 100_000_000_000 == link.heard_ts_ns


def test_an_old_heartbeat_means_that_a_process_is_silent(link: LinkFreshness) -> None:
    assert "process_silent" == link.doubt(101.1)
    assert 1.1 == pytest.approx(link.unproven_s(101.1))


def test_an_old_heartbeat_that_is_handled_late_proves_nothing(link: LinkFreshness) -> None:
    link.note(heartbeat(101.0))
    assert "process_silent" == link.doubt(105.0)
    link.note(heartbeat(104.9))
    assert link.doubt(105.0) is None


def test_a_heartbeat_of_a_silent_connection_is_no_proof_of_the_exchange(
    link: LinkFreshness,
) -> None:
    link.note(heartbeat(101.8, silent_s=1.8))
    assert link.doubt(101.85) is None
    assert "silent" == link.doubt(102.0)
    assert 2.0 == pytest.approx(link.unproven_s(102.0))


def test_a_connection_that_ended_is_not_doubted(link: LinkFreshness) -> None:
    link.forget()
    assert link.doubt(200.0) is None
    assert link.heard_ts_ns is None
