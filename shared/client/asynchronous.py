"""
The client for asyncio.

The event loop calls back when the socket is readable, and one callback takes all messages that
wait. A future per message, as ``zmq.asyncio`` makes them, costs about twice the processor time.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Self

import zmq

from bybit_pipeline.shared.bus.subscriber import MetricSubscriber
from bybit_pipeline.shared.client.base import BaseClient
from bybit_pipeline.shared.client.queues import AsyncQueue
from bybit_pipeline.shared.client.state import READ_S, ClientState, SubscriptionChange
from bybit_pipeline.shared.client.values import Metric

RECEIVE_LIMIT = 100
"""Messages per callback: a few milliseconds, after which other callbacks get their turn."""


class AsyncPipelineClient(BaseClient):
    """
    The last message of every topic of a pipeline, and all messages as they arrive, for asyncio.

    Receives every topic until the first ``subscribe``, and from then on only the topics of the
    subscribed symbols. Getters return None for what was not received, and keep nothing once the
    connection is lost.

    An asynchronous context manager; or await ``open`` and ``close``. All of its methods belong to
    the event loop that opened it. On Windows it needs ``asyncio.SelectorEventLoop``.
    """

    _reader: "_LoopReader | None" = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """
        Connect in the background, and again whenever the connection is lost.

        Raises:
            NoPipelineError: If no pipeline runs in the run directory, or the endpoint is malformed.
            ConfigError: If the keys cannot be used.
        """
        self._leave_parent()
        if self._reader is None:
            self._reader = _LoopReader(self._state, self._connect())

    async def close(self) -> None:
        """Close the connection: iterations end, and the getters return None."""
        self._leave_parent()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __aiter__(self) -> AsyncIterator[Metric]:
        """Messages until the client is closed; see ``messages``."""
        return self.messages()

    def messages(self, timeout_s: float | None = None) -> AsyncIterator[Metric]:
        """
        The last message of every topic, then each new one as it arrives, without repeats.

        Ends when the client is closed, or when no message arrives for ``timeout_s``. An iteration
        that falls ``MAX_WAITING`` messages behind loses the oldest (``dropped``).

        Raises:
            RuntimeError: If the client is not open.
        """
        self._leave_parent()
        if self._reader is None:
            raise RuntimeError("the client is not open in this process")
        waiting = AsyncQueue()
        self._state.add_queue(waiting)
        return _iterate(waiting, timeout_s)

    def _forget_reader(self) -> None:
        self._reader = None

    def _apply(self, change: SubscriptionChange) -> None:
        if self._reader is not None:
            self._reader.apply(change)


async def _iterate(waiting: AsyncQueue, timeout_s: float | None) -> AsyncIterator[Metric]:
    while (metric := await waiting.get(timeout_s)) is not None:
        yield metric


class _LoopReader:
    """The callbacks that read the socket, until ``close``."""

    def __init__(self, state: ClientState, subscriber: MetricSubscriber) -> None:
        self._state = state
        self._subscriber = subscriber
        self._loop = asyncio.get_running_loop()
        self._sockets = (subscriber.socket, subscriber.monitor)
        self._is_closed = False
        try:
            for socket in self._sockets:
                self._loop.add_reader(socket.FD, self._on_readable)
        except NotImplementedError as error:
            subscriber.close()
            text = "this event loop cannot watch sockets; on Windows use asyncio.SelectorEventLoop"
            raise RuntimeError(text) from error
        self._on_timer()

    def apply(self, change: SubscriptionChange) -> None:
        """Make a change at the socket."""
        change.apply(self._subscriber)
        self._read_soon()

    def close(self) -> None:
        """Close the socket and end all iterations."""
        if self._is_closed:
            return
        self._is_closed = True
        self._timer.cancel()
        for socket in self._sockets:
            self._loop.remove_reader(socket.FD)
        self._subscriber.close()
        self._state.end()

    def _on_timer(self) -> None:
        self._subscriber.retry_refused()
        self._read_soon()
        self._timer = self._loop.call_later(READ_S, self._on_timer)

    def _read_soon(self) -> None:
        """
        Read in a callback of its own.

        The descriptor of a ZeroMQ socket signals a change once, and any use of the socket may
        consume the signal. So every use must be followed by a look at what waits.
        """
        self._loop.call_soon(self._on_readable)

    def _on_readable(self) -> None:
        if self._is_closed:
            return
        try:
            self._state.read(self._subscriber, RECEIVE_LIMIT)
        except BaseException:
            self.close()
            raise
        if any(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN for socket in self._sockets):
            self._read_soon()
