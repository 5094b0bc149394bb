"""The socket thread of a connector, step by step: the production rules without a socket."""

import math
from collections.abc import Callable
from typing import Any

from bybit_pipeline.processes.connector.client import BybitWebSocketClient
from bybit_pipeline.processes.connector.connection import FailureReason, failure_reason
from bybit_pipeline.processes.connector.reconnector import LinkFailure, Reconnector, one_line
from tests.simulation.exchange import Exchange, Wire
from tests.simulation.world import NEVER, Thread, World

READ_S = 0.25
"""As ``buffered_websocket.TICK_S``."""
WORKERS_S = 2.0
WAIT_S = 0.05


class _Attempt:
    """What ``Reconnector`` needs of a ``Connection``."""

    def __init__(self, exchange: Exchange, wake: Callable[[float], None]) -> None:
        world = exchange.world
        self.abort_reason: FailureReason | None = None
        self.wire: Wire | None = None
        self.error: Exception | None = None
        self.websocket = self
        self._wake = wake
        failure = exchange.refuses()
        delay_s = failure[1] if failure else world.random.uniform(0.01, 0.1)

        def finish() -> None:
            if self.error is not None:
                return
            if failure is not None:
                self.error = failure[0]
            else:
                self.wire = Wire(exchange, wake)
                exchange.wires[self.wire] = None
            wake(world.now)

        if delay_s != math.inf:
            world.after(delay_s, finish)
        self._world = world

    def send(self, text: str) -> None:
        if self.wire is not None:
            self.wire.request(text)

    def abort(self, reason: FailureReason) -> None:
        if self.abort_reason is None:
            self.abort_reason = reason
        self.error = self.error or ConnectionAbortedError(reason)
        if self.wire is not None:
            self.wire.end(self.error)
        self._wake(self._world.now)


class SteppedReconnector(Reconnector):
    """``Reconnector`` whose ``run`` is divided into steps."""

    world: World
    exchange: Exchange
    wake: Callable[[float], None]
    _attempt: _Attempt | None = None
    _is_using = False
    _retry_at = 0.0
    _has_data = False
    _is_held = False
    _recv_ts_ns = 0

    def step(self) -> float:
        """Do what is due; return when the next step is due."""
        now = self.world.now
        if self._stopping.is_set():
            return NEVER
        if self._attempt is None:
            return self._begin(now)
        if self._is_using:
            return self._read_once(now)
        attempt = self._attempt
        if attempt.error is not None:
            self._end(attempt.abort_reason or failure_reason(attempt.error), attempt.error)
            return self._retry_at
        if attempt.wire is None:
            return NEVER
        self._connecting_since = math.inf
        self._counts.connects += 1
        self._counts.failure = None
        self._is_using, self._has_data = True, False
        self._on_open(self._target)
        return now

    def _begin(self, now: float) -> float:
        """Connect if it is time to and the quota allows it."""
        if now < self._retry_at and not self._wake.is_set():
            return self._retry_at
        self._wake.clear()
        self._retry_at = now
        if self._target.source == "live":
            wait_s = self._limiter.wait_s(now)
            if wait_s > 0:
                self._expect_attempt(wait_s)
                self._counts.held += not self._is_held
                self._is_held = True
                return now + min(wait_s, 1.0)
            self._limiter.spend(now)
            self._on_attempt()
        self._is_held = False
        self._attempt = _Attempt(self.exchange, self.wake)
        self._connection = self._attempt  # type: ignore[assignment]
        self._connecting_since = now
        self._expect_attempt(None)
        return NEVER

    def _read_once(self, now: float) -> float:
        assert self._attempt is not None
        wire = self._attempt.wire
        assert wire is not None
        messages = []
        while wire.inbox and wire.inbox[0][0] <= now:
            messages.append(wire.inbox.popleft()[1])
        if messages:
            self._recv_ts_ns = self._clock.time_ns()
        if (
            self._attempt.abort_reason is None
            and self._on_read(messages, [], self._recv_ts_ns)
            and not self._has_data
        ):
            self._has_data = True
            self._backoff.reset()
        if wire.error is not None and (wire.error[0] <= now or self._attempt.abort_reason):
            error = wire.error[1]
            reason = self._attempt.abort_reason or failure_reason(error)
            self._counts.failure = LinkFailure(reason, one_line(error))
            target, self._is_using = self._target, False
            self._end(reason, error, is_open=True)
            self._on_close(target, reason, error)
            return self._retry_at
        arrival = wire.inbox[0][0] if wire.inbox else NEVER
        ends = wire.error[0] if wire.error else NEVER
        return min(arrival, ends, now + READ_S)

    def _end(self, reason: FailureReason, error: Exception, *, is_open: bool = False) -> None:
        if not is_open:
            self._counts.failure = LinkFailure(reason, one_line(error))
            self._counts.failed_connects += reason not in ("stopped", "source_change")
        self._attempt = self._connection = None
        self._connecting_since = math.inf
        if self._stopping.is_set():
            return
        self._counts.reconnects[reason] += 1
        self._retry_at = self.world.now
        if reason != "source_change":
            delay_s = self._backoff.next_delay_s()
            self._retry_at += delay_s
            self._expect_attempt(delay_s)
            self._wake.clear()


class SteppedClient(BybitWebSocketClient):
    """The client with a stepped reconnector, and with turns instead of threads."""

    def __init__(self, *arguments: Any, exchange: Exchange, **options: Any) -> None:
        super().__init__(
            *arguments,
            reconnector=SteppedReconnector,
            rng=exchange.world.random,
            **options,
        )
        stepped = self.stepped
        stepped.world, stepped.exchange = exchange.world, exchange
        self.thread: Thread | None = None
        self.is_ready_to_connect: Callable[[], bool] = lambda: True
        self._next_step = exchange.world.now
        self._waits_until = exchange.world.now + WORKERS_S

    @property
    def stepped(self) -> SteppedReconnector:
        reconnector = self._reconnector
        assert isinstance(reconnector, SteppedReconnector)
        return reconnector

    def start(self, *, own_timers: bool = True) -> None:
        assert self.thread is not None
        self.stepped.wake = self.thread.wake
        self.thread.wake(self.stepped.world.now)

    def stop(self) -> bool:
        self._reconnector.stop()
        return True

    def turn(self) -> None:
        """The turn of the socket thread."""
        now = self.stepped.world.now
        if now < self._waits_until:
            if not self.is_ready_to_connect():
                self._next_step = now + WAIT_S
                return
            self._waits_until = 0.0
        self._next_step = self.stepped.step()

    def next_due(self) -> float:
        return self._next_step
