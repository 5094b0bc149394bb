"""Pings, pongs, proof and silence, without a socket."""

import pytest

from bybit_pipeline.processes.connector.keepalive import Keepalive
from bybit_pipeline.shared.settings.config import ConnectorConfig

SETTINGS = ConnectorConfig(ping_interval_s=20.0, pong_timeout_s=10.0, silence_timeout_s=60.0)
STEP_S = 0.1


class Connection:
    """A keepalive with the calls that a client makes every 100 ms, from 100 s on."""

    def __init__(self, *, silence_matters: bool = True) -> None:
        self.keepalive = Keepalive(SETTINGS, silence_matters=silence_matters)
        self.keepalive.on_connected(100.0)
        self.now = 100.0
        self.messages = self.reads = 0
        self.pings: list[float] = []

    def read(self, *, has_messages: bool, has_bytes: bool = True, took_s: float = 0.0) -> None:
        """Read, and handle the messages for a time."""
        if has_bytes:
            self.reads += 1
        self.keepalive.on_read(self.now, self.reads, has_messages=has_messages)
        self.now += took_s
        self.keepalive.on_handled(self.now)

    def run(
        self,
        until: float,
        *,
        data: bool = False,
        pongs: bool = True,
        expects_data: bool = True,
    ) -> str | None:
        """Go on until a time or a failure; return the failure."""
        while self.now < until - 1e-9:
            self.now = round(self.now + STEP_S, 6)
            self.messages += data
            self.read(has_messages=data, has_bytes=data)
            failure = self.keepalive.failure(
                self.now, messages=self.messages, expects_data=expects_data
            )
            if failure is not None:
                return failure
            if self.keepalive.take_ping(self.now) is not None:
                self.pings.append(self.now)
                if pongs:
                    self.read(has_messages=True)
                    self.keepalive.on_pong(self.now)
        return None


@pytest.fixture
def connection() -> Connection:
    """A connection that was opened at 100 s."""
    return Connection()


def test_nothing_is_due_before_the_first_connection() -> None:
    keepalive = Keepalive(SETTINGS)
    assert keepalive.take_ping(1e6) is None
    assert keepalive.on_pong(1e6) is None


def test_a_busy_connection_is_pinged_at_once_and_then_by_the_interval(
    connection: Connection,
) -> None:
    assert connection.run(150, data=True) is None
    assert [100.1, 120.1, 140.1] == connection.pings


def test_a_quiet_connection_is_pinged_about_once_a_second(connection: Connection) -> None:
    assert connection.run(110, expects_data=False) is None
    assert 9 <= len(connection.pings) <= 11


def test_no_ping_is_sent_while_one_is_unanswered(connection: Connection) -> None:
    connection.run(108, pongs=False)
    assert [100.1] == connection.pings


def test_a_pong_gives_the_round_trip_time(connection: Connection) -> None:
    connection.keepalive.take_ping(100.0)
    assert 0.25 == connection.keepalive.on_pong(100.25) == connection.keepalive.rtt_s


def test_a_pong_without_a_ping_is_ignored(connection: Connection) -> None:
    assert connection.keepalive.on_pong(100.5) is None
    assert connection.keepalive.rtt_s is None


def test_data_without_pongs_means_a_dead_peer(connection: Connection) -> None:
    assert "dead_peer" == connection.run(200, data=True, pongs=False)
    assert connection.now == pytest.approx(110.2, abs=0.11)


def test_a_busy_connection_that_becomes_silent_is_dead_within_two_seconds(
    connection: Connection,
) -> None:
    connection.run(130, data=True)
    assert "dead_peer" == connection.run(200, pongs=False)
    assert connection.now - 130 <= 1.7


def test_a_busy_connection_that_pauses_and_answers_is_kept(connection: Connection) -> None:
    connection.run(130, data=True)
    assert connection.run(150) is None


def test_a_new_connection_does_not_wait_for_the_pong_of_the_old_one(
    connection: Connection,
) -> None:
    connection.keepalive.take_ping(100.0)
    connection.keepalive.on_connected(150.0)
    assert connection.keepalive.failure(150.0, messages=0, expects_data=True) is None
    assert "ping-2" == connection.keepalive.take_ping(150.0)


def test_pongs_without_data_count_as_silence(connection: Connection) -> None:
    connection.run(130, data=True)
    assert "silence" == connection.run(300)
    assert connection.now == pytest.approx(190.1, abs=0.11)


def test_silence_is_normal_while_nothing_is_subscribed(connection: Connection) -> None:
    assert connection.run(500, expects_data=False) is None
    assert "silence" == connection.run(700)
    assert connection.now == pytest.approx(560.1, abs=0.11)


def test_a_replay_may_be_silent() -> None:
    assert Connection(silence_matters=False).run(1_000) is None


def test_after_a_pause_of_the_process_only_a_new_ping_proves_that_all_is_read(
    connection: Connection,
) -> None:
    keepalive = connection.keepalive
    connection.run(130, data=True)
    assert keepalive.is_current
    connection.now = 135.0
    connection.read(has_messages=True)
    assert not keepalive.is_current
    assert keepalive.take_ping(135.0) is not None
    keepalive.on_pong(135.1)
    assert keepalive.is_current


def test_after_a_pause_the_pong_of_an_earlier_ping_proves_nothing(connection: Connection) -> None:
    keepalive = connection.keepalive
    connection.run(130, data=True, pongs=True)
    keepalive.take_ping(140.2)
    connection.now = 145.0
    connection.read(has_messages=True)
    keepalive.on_pong(145.0)
    assert not keepalive.is_current
    assert keepalive.take_ping(145.0) is not None
    keepalive.on_pong(145.1)
    assert keepalive.is_current


def test_a_pause_of_the_process_is_no_silence_of_the_exchange(connection: Connection) -> None:
    connection.run(119.9, data=True)
    connection.run(120.2, pongs=False)  # a ping is unanswered
    connection.now += 30
    assert connection.keepalive.failure(connection.now, messages=300, expects_data=True) is None


@pytest.mark.parametrize("is_handled", [False, True], ids=["arriving", "being decoded"])
def test_time_for_a_long_message_is_no_time_without_a_pong(
    connection: Connection, is_handled: bool
) -> None:
    """Its pong waits behind it. Once it is read, the timeout continues."""
    keepalive = connection.keepalive
    keepalive.take_ping(100.0)
    for _ in range(60):
        connection.read(has_messages=False, took_s=0.5 if is_handled else 0.0)
        connection.now += 0.0 if is_handled else 0.5
        assert keepalive.failure(connection.now, messages=0, expects_data=True) is None

    connection.read(has_messages=True)
    done_at = connection.now

    assert "dead_peer" == connection.run(200, pongs=False)
    assert 9.5 <= connection.now - done_at <= 10.6


def test_a_long_message_that_stops_arriving_is_time_without_a_pong(
    connection: Connection,
) -> None:
    connection.keepalive.take_ping(100.0)
    connection.read(has_messages=False)
    assert "dead_peer" == connection.run(200, pongs=False)
    assert connection.now == pytest.approx(110.2, abs=0.11)


def test_heartbeats_follow_each_other_at_an_interval_while_everything_is_read(
    connection: Connection,
) -> None:
    """They say when the exchange was last heard."""
    beats = []
    for tick in range(8):
        connection.now = 100.0 + tick / 8
        connection.read(has_messages=tick == 0, has_bytes=tick == 0)
        beats.append(connection.keepalive.take_heartbeat())
    sent = [beat for beat in beats if beat is not None]
    assert [100.0, 100.25, 100.5, 100.75] == [beat.read_s for beat in sent]
    assert {(1, 100.0)} == {(beat.heard_ts_ns, beat.heard_s) for beat in sent}

    connection.now = 105.0  # the process was stopped
    connection.read(has_messages=True)
    assert connection.keepalive.take_heartbeat() is None
