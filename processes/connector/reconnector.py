"""
Keep one websocket open: connect, read until it fails, wait, connect again.

Decides where to connect, when, and how long an attempt may take. Must not know topics or messages:
it hands every read to a callback. ``run`` is the whole life of the socket thread; the other methods
are for any thread.
"""

import math
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import structlog
import websocket

from bybit_pipeline.processes.connector.connect_limiter import Backoff, ConnectLimiter
from bybit_pipeline.processes.connector.connection import (
    FAILURE_REASONS,
    Connection,
    FailureReason,
    failure_name,
    failure_reason,
)
from bybit_pipeline.shared.network.address import parse_url
from bybit_pipeline.shared.network.handshake import NETWORK_ERRORS, retry_after_s
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.runtime.scheduling import ReadCoalescer
from bybit_pipeline.shared.settings.config import ConnectorConfig
from bybit_pipeline.shared.wire.messages import Source

log = structlog.get_logger()

QUOTA_CHECK_S = 1.0
"""How often an attempt held back by the connect limiter checks for a larger quota."""


class Target(NamedTuple):
    """Where to connect, and the source of the data from there."""

    url: str
    source: Source


class LinkFailure(NamedTuple):
    """Why there is no connection, and when the next attempt follows."""

    name: str
    """One of ``FAILURE_REASONS``, or the HTTP status that answered the handshake."""
    detail: str
    """Text of the error, one line."""
    next_attempt_ts_ms: int | None = None
    """Wall clock of the next attempt; None while it is under way."""


@dataclass
class ConnectionCounts:
    """Connections so far. Written by the socket thread; any thread may read."""

    connects: int = 0
    failed_connects: int = 0
    reconnects: dict[FailureReason, int] = field(
        default_factory=lambda: dict.fromkeys(FAILURE_REASONS, 0)
    )
    """Attempts and connections that failed, each followed by another attempt."""
    held: int = 0
    """Attempts held back by the connect limiter."""
    failure: LinkFailure | None = None
    """Why there is no connection; None if there is one or none has been tried."""
    live_since_ts_ms: int | None = None
    """Wall clock of the first data of a live exchange; None before them."""


class Reconnector:
    """
    One websocket at a time, until ``stop``.

    All callbacks run on the socket thread.

    Args:
        target: Where to connect first.
        on_open: Called with the target when a websocket is open.
        on_read: Called after every read, several times a second even if nothing arrives, with the
            text messages, the binary messages (each with the number of text messages before it) and
            the wall clock of the read. Returns True if there was data among them: then the next
            backoff starts with the shortest delay.
        on_close: Called when an open websocket ended, with target, reason and error.
        on_attempt: Called before each attempt at a live exchange.
        counts: Where connections are counted.
        limiter: Quota of attempts at a live exchange.
        settings: ``backoff_initial_s``, ``backoff_max_s`` and ``proxy`` count.
        clock: Wall and monotonic clock.
        rng: Jitter of the backoff.
        connect_timeout_s: How long an attempt may take.
        tls: Certificates to trust instead of the system's.
    """

    def __init__(
        self,
        target: Target,
        *,
        on_open: Callable[[Target], None],
        on_read: Callable[[Sequence[bytes], Sequence[tuple[int, bytes]], int], bool],
        on_close: Callable[[Target, FailureReason, Exception | None], None],
        on_attempt: Callable[[], None],
        counts: ConnectionCounts,
        limiter: ConnectLimiter,
        settings: ConnectorConfig,
        clock: Clock,
        rng: Random,
        connect_timeout_s: float,
        tls: ssl.SSLContext | None,
    ) -> None:
        parse_url(target.url)
        self.coalescer = ReadCoalescer()
        """How long the socket thread sleeps between two reads."""
        self._target = target
        self._on_open = on_open
        self._on_read = on_read
        self._on_close = on_close
        self._on_attempt = on_attempt
        self._counts = counts
        self._limiter = limiter
        self._backoff = Backoff(settings.backoff_initial_s, settings.backoff_max_s, rng)
        self._clock = clock
        self._connect_timeout_s = connect_timeout_s
        self._tls = tls
        self._proxy = settings.proxy
        self._asked_pause_s = 0.0
        """Pause that the server asked for in its response to the last attempt."""
        self.is_simulated = False
        """True if the last connection led to our simulated exchange."""
        self._lock = threading.Lock()
        """Guards the target and which connection is in use."""
        self._connection: Connection | None = None
        self._connecting_since = math.inf
        self._stopping = threading.Event()
        self._wake = threading.Event()

    # -- any thread ------------------------------------------------------------------------------

    @property
    def target(self) -> Target:
        """Where the next attempt goes."""
        return self._target

    @property
    def is_stopping(self) -> bool:
        """Whether ``stop`` has been called."""
        return self._stopping.is_set()

    def wait_for_stop(self, timeout_s: float) -> bool:
        """Wait until ``stop`` is called, up to ``timeout_s``; True if it was."""
        return self._stopping.wait(timeout_s)

    def stop(self) -> None:
        """Break the connection and let ``run`` return."""
        self._stopping.set()
        self._wake.set()
        self.abort("stopped")

    def change_target(self, target: Target) -> None:
        """
        Break the connection and connect elsewhere at once.

        Raises:
            ValueError: If the URL is not a websocket address.
        """
        parse_url(target.url)
        with self._lock:
            self._target = target
            self._backoff.reset()
            if self._connection is not None:
                self._connection.abort("source_change")
        self._wake.set()

    def send(self, text: str) -> None:
        """Send a text message; an error breaks the connection. Without one nothing happens."""
        connection = self._connection
        if connection is not None:
            try:
                connection.websocket.send(text)
            except NETWORK_ERRORS as error:
                connection.abort(failure_reason(error))

    def abort(self, reason: FailureReason) -> None:
        """Break the present connection or attempt; another one follows."""
        with self._lock:
            if self._connection is not None:
                self._connection.abort(reason)

    def check(self, now: float) -> None:
        """Break an attempt that takes too long; call it several times a second."""
        if now - self._connecting_since > self._connect_timeout_s:
            self.abort("timeout")

    # -- the socket thread -----------------------------------------------------------------------

    def run(self) -> None:
        """Connect again and again until ``stop``."""
        while not self._stopping.is_set():
            self._wait_for_quota()
            reason = self._connect_and_read()
            if self._stopping.is_set():
                return
            self._counts.reconnects[reason] += 1
            if reason == "source_change":
                self._counts.failure = None
            else:
                delay = max(self._backoff.next_delay_s(), self._asked_pause_s)
                asked = {"asked_by_server": True} if delay == self._asked_pause_s else {}
                log.info("next connection attempt scheduled", in_s=round(delay, 1), **asked)
                self._expect_attempt(delay)
                self._wake.wait(delay)
            self._wake.clear()

    def _wait_for_quota(self) -> None:
        """Wait until the limiter allows an attempt at a live exchange, and count it."""
        is_held = False
        while self._target.source == "live" and not self._stopping.is_set():
            now = self._clock.monotonic()
            wait_s = self._limiter.wait_s(now)
            if wait_s <= 0:
                self._limiter.spend(now)
                self._on_attempt()
                return
            self._expect_attempt(wait_s)
            if not is_held:
                is_held = True
                self._counts.held += 1
                log.warning(
                    "connection attempt held back",
                    quota=self._limiter.quota,
                    next_in_s=round(wait_s, 1),
                )
            self._wake.wait(min(wait_s, QUOTA_CHECK_S))
            self._wake.clear()

    def _expect_attempt(self, in_s: float | None) -> None:
        """Update the time of the next attempt; None: it begins now."""
        if self._counts.failure is not None:
            due = None if in_s is None else self._clock.time_ns() // 1_000_000 + int(in_s * 1000)
            self._counts.failure = self._counts.failure._replace(next_attempt_ts_ms=due)

    def _connect_and_read(self) -> FailureReason:
        """One attempt and the connection that comes of it; the reason why it ended."""
        with self._lock:
            target = self._target
            connection = Connection(
                target.url, proxy=self._proxy, tls=self._tls, time_ns=self._clock.time_ns
            )
            self._asked_pause_s = 0.0
            if self._stopping.is_set():
                return "stopped"
            self._connection = connection
            self._connecting_since = self._clock.monotonic()
        self._expect_attempt(None)
        try:
            connection.open(self._connect_timeout_s)
        except NETWORK_ERRORS as error:
            reason = connection.abort_reason or failure_reason(error)
            name = reason if connection.abort_reason else failure_name(error)
            self._counts.failure = LinkFailure(name, one_line(error))
            self._asked_pause_s = retry_after_s(error, self._clock.time_ns() / 1e9)
            if reason not in ("stopped", "source_change"):
                self._counts.failed_connects += 1
                log.warning(
                    "connection attempt failed",
                    url=target.url,
                    reason=reason,
                    error=one_line(error),
                )
            return reason
        else:
            self._connecting_since = math.inf
            self._counts.connects += 1
            self._counts.failure = None
            return self._use(connection, target)
        finally:
            with self._lock:
                self._connection = None
                self._connecting_since = math.inf
            connection.close()

    def _use(self, connection: Connection, target: Target) -> FailureReason:
        """Read an open connection to its end; the reason why it ended."""
        reason: FailureReason = "bug"
        error: Exception | None = None
        self.is_simulated = connection.is_simulated
        self._on_open(target)
        try:
            error = self._read(connection, target)
            reason = connection.abort_reason or failure_reason(error)
            self._counts.failure = LinkFailure(reason, one_line(error))
        finally:
            self._on_close(target, reason, error)
        return reason

    def _read(self, connection: Connection, target: Target) -> Exception:
        """Receive until the connection ends; the error that ended it."""
        websocket = connection.websocket
        receive, on_read = websocket.receive, self._on_read
        delay, monotonic = self.coalescer.delay, self._clock.monotonic
        has_data = False
        while True:
            try:
                messages = receive()
            except NETWORK_ERRORS as error:
                return error
            if on_read(messages, websocket.binaries, websocket.recv_ts_ns) and not has_data:
                has_data = True
                self._backoff.reset()
                if target.source == "live" and self._counts.live_since_ts_ms is None:
                    self._counts.live_since_ts_ms = websocket.recv_ts_ns // 1_000_000
            delay(len(messages), monotonic())


def one_line(error: BaseException) -> str:
    """Type and text of an error for the log; of an HTTP response only its status."""
    match error:
        case websocket.WebSocketBadStatusException(status_code=int(status)):
            return f"HTTP {status} {error.status_message or ''}".strip()[:300]
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
