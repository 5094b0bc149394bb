"""
The client for programs without asyncio.

A thread of its own owns the socket, so that getters and iterations work from any thread.
"""

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Self

import zmq

from bybit_pipeline.shared.bus.subscriber import (
    RECEIVE_LIMIT,
    RETRY_REFUSED_S,
    MetricSubscriber,
)
from bybit_pipeline.shared.client.base import BaseClient
from bybit_pipeline.shared.client.queues import ThreadQueue
from bybit_pipeline.shared.client.state import ClientState, SubscriptionChange
from bybit_pipeline.shared.client.values import Metric


class PipelineClient(BaseClient):
    """
    The last message of every topic of a pipeline, and all messages as they arrive.

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
        with self._state.lock:
            if self._reader is None:
                self._reader = _Reader(self._state, self._connect())

    def close(self) -> None:
        """Close the connection: iterations end, and the getters return None."""
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
        waiting = ThreadQueue()
        with self._state.lock:
            if self._reader is None:
                raise RuntimeError("the client is not open")
            self._state.add_queue(waiting)
        return iter(lambda: waiting.get(timeout_s), None)

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
        # Wakes the thread. On Windows a pipe cannot be polled together with ZeroMQ's sockets.
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._wake_receiver = self._context.socket(zmq.PAIR)
        self._wake_receiver.bind("inproc://wake")
        self._wake_sender = self._context.socket(zmq.PAIR)
        self._wake_sender.connect("inproc://wake")
        self._wake_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="pipeline-client", daemon=True)
        self._thread.start()

    def apply(self, change: SubscriptionChange) -> None:
        """Make a change at the socket, soon."""
        self._changes.put(change)
        self._wake()

    def close(self) -> None:
        """End the thread and wait for it."""
        self._is_closing = True
        self._wake()
        self._thread.join()
        self._context.destroy(linger=0)

    def _wake(self) -> None:
        # With zmq.Again the queue is full of wake-ups: one of them is enough.
        with self._wake_lock, contextlib.suppress(zmq.Again):
            self._wake_sender.send(b"", zmq.NOBLOCK)

    def _run(self) -> None:
        try:
            self._read()
        finally:
            self._subscriber.close()
            self._state.end()

    def _read(self) -> None:
        poller = zmq.Poller()
        for socket in (self._subscriber.socket, self._subscriber.monitor, self._wake_receiver):
            poller.register(socket, zmq.POLLIN)
        while True:
            ready = dict(poller.poll(int(RETRY_REFUSED_S * 1000)))
            if self._wake_receiver in ready:
                self._take_wake_ups()
            if self._is_closing:
                return
            self._subscriber.retry_refused()
            self._state.read(self._subscriber, RECEIVE_LIMIT)

    def _take_wake_ups(self) -> None:
        while self._wake_receiver.poll(0):
            self._wake_receiver.recv()
        while not self._changes.empty():
            self._changes.get().apply(self._subscriber)
