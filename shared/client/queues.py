"""
The messages that wait for one iteration, in bounded memory.

An iteration that is too slow loses the oldest messages; nobody else waits for it. In a forked child
an iteration that its parent began has ended: what waits there is old, and nothing is added.
"""

import asyncio
import os
import threading
from collections import deque

from bybit_pipeline.shared.client.values import Metric

MAX_WAITING = 10_000
"""Messages that wait at most; more would be minutes old before they are read."""


class MessageQueue:
    """A bounded queue; what waits for it overrides ``_wake``."""

    def __init__(self) -> None:
        self._waiting: deque[Metric] = deque(maxlen=MAX_WAITING)
        self._is_ended = False
        self._pid = os.getpid()

    @property
    def _is_foreign(self) -> bool:
        """True in a child that was forked since; it may have copied a locked lock."""
        return self._pid != os.getpid()

    def put(self, metric: Metric) -> int:
        """Add a message; return the number of messages dropped to make room, 0 or 1."""
        dropped = int(len(self._waiting) == MAX_WAITING)
        self._waiting.append(metric)
        self._wake()
        return dropped

    def end(self) -> None:
        """Mark the queue as ended: ``get`` returns the messages that wait, and then None."""
        self._is_ended = True
        self._wake()

    def _wake(self) -> None:
        """Wake whatever waits in ``get``."""
        raise NotImplementedError


class ThreadQueue(MessageQueue):
    """A queue that another thread reads."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()

    def put(self, metric: Metric) -> int:
        """Add a message; return the number of messages dropped to make room, 0 or 1."""
        with self._changed:
            return super().put(metric)

    def end(self) -> None:
        """Mark the queue as ended."""
        with self._changed:
            super().end()

    def _wake(self) -> None:
        self._changed.notify()

    def get(self, timeout_s: float | None) -> Metric | None:
        """Wait for the next message; None at the end or after the timeout."""
        if self._is_foreign:
            return None
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._is_ended, timeout_s)
            return self._waiting.popleft() if self._waiting else None


class AsyncQueue(MessageQueue):
    """A queue that a coroutine of the same event loop reads."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    def _wake(self) -> None:
        self._changed.set()

    async def get(self, timeout_s: float | None) -> Metric | None:
        """Wait for the next message; None at the end or after the timeout."""
        if self._is_foreign:
            return None
        if not self._waiting and not self._is_ended:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), timeout_s)
            except TimeoutError:
                return None
        return self._waiting.popleft() if self._waiting else None
