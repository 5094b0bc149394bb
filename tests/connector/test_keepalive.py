"""Pings, pongs and silence, without a socket."""

import pytest

from bybit_pipeline.processes.connector.keepalive import Keepalive
from bybit_pipeline.shared.settings.config import ConnectorConfig

SETTINGS = ConnectorConfig(ping_interval_s=20.0, pong_timeout_s=10.0, silence_timeout_s=60.0)


@pytest.fixture
def keepalive() -> Keepalive:
    """Of a connection that was opened at 100 s."""
    keepalive = Keepalive(SETTINGS)
    keepalive.on_connected(100.0)
    return keepalive


def failure(keepalive: Keepalive, now: float, messages: int = 0) -> str | None:
    return keepalive.failure(now, messages=messages, expects_data=True)


def test_nothing_is_due_before_the_first_connection() -> None:
    keepalive = Keepalive(SETTINGS)
    assert keepalive.take_ping(1e6) is None
    assert keepalive.on_pong(1e6) is None


def test_the_first_ping_is_sent_at_once_and_the_others_by_the_interval(
    keepalive: Keepalive,
) -> None:
    assert "ping-1" == keepalive.take_ping(100.0)
    keepalive.on_pong(100.1)
    assert keepalive.take_ping(119.9) is None
    assert "ping-2" == keepalive.take_ping(120.0)


def test_no_ping_is_sent_while_one_is_unanswered(keepalive: Keepalive) -> None:
    keepalive.take_ping(100.0)
    assert keepalive.take_ping(125.0) is None


def test_a_pong_gives_the_round_trip_time(keepalive: Keepalive) -> None:
    keepalive.take_ping(100.0)
    assert 0.25 == keepalive.on_pong(100.25) == keepalive.rtt_s


def test_a_pong_without_a_ping_is_ignored(keepalive: Keepalive) -> None:
    assert keepalive.on_pong(100.5) is None
    assert keepalive.rtt_s is None


def test_a_missing_pong_means_a_dead_peer(keepalive: Keepalive) -> None:
    keepalive.take_ping(100.0)
    assert failure(keepalive, 110.0) is None
    assert "dead_peer" == failure(keepalive, 110.1)


def test_a_new_connection_does_not_wait_for_the_pong_of_the_old_one(keepalive: Keepalive) -> None:
    keepalive.take_ping(100.0)
    keepalive.on_connected(150.0)
    assert failure(keepalive, 150.0) is None
    assert "ping-2" == keepalive.take_ping(150.0)


def test_a_connection_without_data_is_silent_and_pongs_are_no_data(keepalive: Keepalive) -> None:
    assert failure(keepalive, 130.0, messages=5) is None
    keepalive.take_ping(185.0)
    keepalive.on_pong(185.1)
    assert failure(keepalive, 190.0, messages=5) is None
    assert "silence" == failure(keepalive, 190.1, messages=5)


def test_silence_is_counted_from_the_last_message(keepalive: Keepalive) -> None:
    for now in range(100, 400, 50):
        assert failure(keepalive, now, messages=now) is None


def test_silence_is_normal_while_nothing_is_subscribed(keepalive: Keepalive) -> None:
    assert keepalive.failure(500.0, messages=0, expects_data=False) is None
    assert failure(keepalive, 560.0) is None
    assert "silence" == failure(keepalive, 560.1)


def test_a_replay_may_be_silent() -> None:
    keepalive = Keepalive(SETTINGS, silence_matters=False)
    keepalive.on_connected(100.0)
    assert failure(keepalive, 1_000.0) is None
