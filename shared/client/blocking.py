"""
The client for programs without asyncio.

A thread of its own owns the socket, so that getters and iterations work from any thread.
"""

import queue
import threading
from collections.abc import Iterator
from typing import Self

import zmq

from bybit_pipeline.shared.bus.subscriber import (
    RECEIVE_LIMIT,
    MetricSubscriber,
)
from bybit_pipeline.shared.client.base import BaseClient
from bybit_pipeline.shared.client.queues import ThreadQueue
from bybit_pipeline.shared.client.state import READ_S, ClientState, SubscriptionChange
from bybit_pipeline.shared.client.values import Metric
from bybit_pipeline.shared.runtime.wakeup import Wakeup


class PipelineClient(BaseClient):
    """
    The last message of every topic of a pipeline, and all messages as they arrive.

    Receives every topic until the first ``subscribe``, and from then on only the topics of the
    subscribed symbols. Getters return None for what was not received, and keep nothing once the
    connection is lost.

    A context manager; or call ``open`` and ``close``. Every method may be called from any thread.
    """

    _reader: "_Reader | None" = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """
        Connect in the background, and again whenever the connection is lost.

        Raises:
            NoPipelineError: If no pipeline runs in the run directory, or the endpoint is malformed.
            ConfigError: If the keys cannot be used.
        """
        self._leave_parent()
        with self._state.lifecycle, self._state.lock:
            if self._reader is None:
                self._reader = _Reader(self._state, self._connect())

    def close(self) -> None:
        """Close the connection: iterations end, and the getters return None."""
        self._leave_parent()
        with self._state.lifecycle:
            with self._state.lock:
                reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()

    def __iter__(self) -> Iterator[Metric]:
        """Messages until the client is closed; see ``messages``."""
        return self.messages()

    def messages(self, timeout_s: float | None = None) -> Iterator[Metric]:
        """
        The last message of every topic, then each new one as it arrives, without repeats.

        Ends when the client is closed, or when no message arrives for ``timeout_s``. An iteration
        that falls ``MAX_WAITING`` messages behind loses the oldest (``dropped``).

        Raises:
            RuntimeError: If the client is not open.
        """
        self._leave_parent()
        waiting = ThreadQueue()
        with self._state.lock:
            if self._reader is None:
                raise RuntimeError("the client is not open in this process")
            self._state.add_queue(waiting)
        return iter(lambda: waiting.get(timeout_s), None)

    def _forget_reader(self) -> None:
        self._reader = None

    def _apply(self, change: SubscriptionChange) -> None:
        if self._reader is not None:
            self._reader.apply(change)


class _Reader:
    """The thread that owns the socket, from its start until ``close``."""

    def __init__(self, state: ClientState, subscriber: MetricSubscriber) -> None:
        self._state = state
        self._subscriber = subscriber
        self._changes: queue.SimpleQueue[SubscriptionChange] = queue.SimpleQueue()
        self._is_closing = False
        self._wakeup = Wakeup()
        self._thread = threading.Thread(target=self._run, name="pipeline-client", daemon=True)
        self._thread.start()

    def apply(self, change: SubscriptionChange) -> None:
        """Make a change at the socket, soon."""
        self._changes.put(change)
        self._wakeup.set()

    def close(self) -> None:
        """End the thread and wait for it."""
        self._is_closing = True
        self._wakeup.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._read()
        finally:
            self._subscriber.close()
            self._state.end()
            self._wakeup.close()

    def _read(self) -> None:
        poller = zmq.Poller()
        for source in (self._subscriber.socket, self._subscriber.monitor, self._wakeup.fileno()):
            poller.register(source, zmq.POLLIN)
        while not self._is_closing:
            poller.poll(int(READ_S * 1000))
            self._wakeup.clear()
            while not self._changes.empty():
                self._changes.get().apply(self._subscriber)
            self._subscriber.retry_refused()
            self._state.read(self._subscriber, RECEIVE_LIMIT)
