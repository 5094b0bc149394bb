"""The share of Bybit's connections that one connector may use."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bybit_pipeline.processes.connector import connect_limiter
from bybit_pipeline.processes.connector.client import BybitWebSocketClient
from bybit_pipeline.processes.connector.connect_limiter import (
    ConnectLimiter,
    read_attempts,
    write_attempts,
)
from bybit_pipeline.shared.bybit import CONNECTIONS_PERIOD_S
from bybit_pipeline.shared.settings.config import ConnectorConfig


@given(
    share=st.integers(1, 8),
    steps=st.lists(st.tuples(st.floats(0, 120), st.booleans()), max_size=80),
)
def test_no_five_minutes_ever_hold_more_than_the_share(
    share: int, steps: list[tuple[float, bool]]
) -> None:
    """Whenever somebody wants to connect, and however often the process is started again."""
    now, made = 1000.0, []
    budget = ConnectLimiter(share, now=now)
    for pause, is_restarted in steps:
        now += pause
        if is_restarted:
            budget = ConnectLimiter(share, budget.made, now=now)
        if budget.wait_s(now) <= 0:
            budget.spend(now)
            made.append(now)

    for first in made:
        assert len([t for t in made if first <= t < first + CONNECTIONS_PERIOD_S]) <= share


def test_the_wait_is_as_long_as_needed_and_no_longer() -> None:
    budget = ConnectLimiter(2, now=0.0)
    budget.spend(10.0)
    budget.spend(20.0)

    assert 290.0 == budget.wait_s(20.0)
    assert 0.0 == budget.wait_s(310.0)
    budget.spend(310.0)
    assert 10.0 == budget.wait_s(310.0)


def test_a_smaller_share_counts_what_was_spent_before() -> None:
    budget = ConnectLimiter(3, now=0.0)
    for now in (0.0, 1.0, 2.0):
        budget.spend(now)

    budget.share = 1

    assert 299.0 == budget.wait_s(3.0)


def test_attempts_of_another_boot_do_not_count() -> None:
    assert [] == ConnectLimiter(1, [5000.0], now=100.0).made


def test_attempts_survive_in_a_file_and_a_broken_file_is_none(tmp_path: Path) -> None:
    path = tmp_path / "connector-linear-0.attempts"
    assert [] == read_attempts(path)
    write_attempts(path, [1.5, 2.25])
    assert [1.5, 2.25] == read_attempts(path)
    for broken in (b"", b"[1.5, ", b"{}x", b'["a"]', b"[null]", b"7", b"\xff"):
        path.write_bytes(broken)
        assert [] == read_attempts(path)


class Refuser:
    """Accepts TCP connections, notes when, and closes them."""

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
        """Listen no longer."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def refuser() -> Iterator[Refuser]:
    """A venue that turns everybody away."""
    server = Refuser()
    yield server
    server.close()


def test_twenty_connectors_in_a_storm_stay_within_the_budget(
    refuser: Refuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five minutes last two seconds here, and everybody wants to connect all the time."""
    period_s, share = 2.0, 5
    monkeypatch.setattr(connect_limiter, "CONNECTIONS_PERIOD_S", period_s)
    settings = ConnectorConfig(backoff_initial_s=0.05, backoff_max_s=0.05)
    clients = [
        BybitWebSocketClient(
            lambda *_: None,
            lambda *_: None,
            url=refuser.url,
            settings=settings,
            rng=Random(n),
            budget=ConnectLimiter(share),
        )
        for n in range(20)
    ]
    for client in clients:
        client.start()
    deadline = time.monotonic() + 2.5 * period_s
    while len(refuser.times) < 2 * 20 * share and time.monotonic() < deadline:
        time.sleep(0.02)
    for client in clients:
        client.stop()

    times = list(refuser.times)
    assert len(times) > 20 * share, "it goes on when the budget allows it again"
    slack_s = 0.2  # between the attempt and our noting it
    busiest = max(len([t for t in times if s <= t < s + period_s - slack_s]) for s in times)
    assert busiest <= 20 * share
    assert all(client.counts.held for client in clients)
