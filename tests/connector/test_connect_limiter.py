"""Delays between connection attempts, and their quota."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bybit_pipeline.processes.connector.client import BybitWebSocketClient
from bybit_pipeline.processes.connector.connect_limiter import (
    JITTER_RATIO,
    Backoff,
    ConnectLimiter,
    read_attempts,
    write_attempts,
)
from bybit_pipeline.shared.bybit import CONNECTIONS_PERIOD_S
from bybit_pipeline.shared.settings.config import ConnectorConfig


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


@given(
    quota=st.integers(1, 8),
    steps=st.lists(st.tuples(st.floats(0, 120), st.booleans()), max_size=80),
)
def test_no_period_of_five_minutes_has_more_attempts_than_the_quota(
    quota: int, steps: list[tuple[float, bool]]
) -> None:
    """At any times of attempts, and with any number of restarts."""
    now, made = 1000.0, []
    limiter = ConnectLimiter(quota, now=now)
    for pause, is_restarted in steps:
        now += pause
        if is_restarted:
            limiter = ConnectLimiter(quota, limiter.made, now=now)
        if limiter.wait_s(now) <= 0:
            limiter.spend(now)
            made.append(now)

    for first in made:
        assert len([t for t in made if first <= t < first + CONNECTIONS_PERIOD_S]) <= quota


def test_an_attempt_waits_until_the_oldest_one_no_longer_counts() -> None:
    limiter = ConnectLimiter(2, now=0.0)
    limiter.spend(10.0)
    limiter.spend(20.0)

    assert 290.0 == limiter.wait_s(20.0)
    assert 0.0 == limiter.wait_s(310.0)
    limiter.spend(310.0)
    assert 10.0 == limiter.wait_s(310.0)


def test_a_smaller_quota_counts_earlier_attempts() -> None:
    limiter = ConnectLimiter(3, now=0.0)
    for now in (0.0, 1.0, 2.0):
        limiter.spend(now)

    limiter.quota = 1

    assert 299.0 == limiter.wait_s(3.0)


def test_attempts_before_a_reboot_do_not_count() -> None:
    assert [] == ConnectLimiter(1, [5000.0], now=100.0).made


def test_attempts_are_read_from_a_file_and_a_broken_file_counts_as_empty(
    tmp_path: Path,
) -> None:
    path = tmp_path / "connector-linear-0.attempts"
    assert [] == read_attempts(path)
    write_attempts(path, [1.5, 2.25])
    assert [1.5, 2.25] == read_attempts(path)
    for broken in (b"", b"[1.5, ", b"{}x", b'["a"]', b"[null]", b"7", b"\xff"):
        path.write_bytes(broken)
        assert [] == read_attempts(path)


class Refuser:
    """Accepts TCP connections, records the times, and closes them."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.url = f"ws://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.times.append(time.monotonic())
            connection.close()

    def close(self) -> None:
        """Stop listening."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def refuser() -> Iterator[Refuser]:
    """An exchange that closes every connection."""
    server = Refuser()
    yield server
    server.close()


def test_twenty_connectors_that_always_reconnect_stay_within_their_quotas(refuser: Refuser) -> None:
    """With a period of two seconds instead of five minutes."""
    period_s, quota = 2.0, 5
    settings = ConnectorConfig(backoff_initial_s=0.05, backoff_max_s=0.05)
    clients = [
        BybitWebSocketClient(
            lambda *_: None,
            lambda *_: None,
            url=refuser.url,
            settings=settings,
            rng=Random(n),
            limiter=ConnectLimiter(quota, period_s=period_s),
        )
        for n in range(20)
    ]
    for client in clients:
        client.start()
    deadline = time.monotonic() + 2.5 * period_s
    while len(refuser.times) < 2 * 20 * quota and time.monotonic() < deadline:
        time.sleep(0.02)
    for client in clients:
        client.stop()

    times = list(refuser.times)
    assert len(times) > 20 * quota, "attempts continue in the next period"
    slack_s = 0.2  # between an attempt and its record here
    busiest = max(len([t for t in times if s <= t < s + period_s - slack_s]) for s in times)
    assert busiest <= 20 * quota
    assert all(client.counts.held for client in clients)
