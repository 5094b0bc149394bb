"""SIGINT and SIGTERM for commands that wait: every wait ends at once, and none misses a signal."""

import signal
import time
from types import FrameType
from typing import Any

import zmq

from bybit_pipeline.shared.runtime.wakeup import Pollable, Wakeup


class Interrupts:
    """
    Waits that SIGINT and SIGTERM end with ``KeyboardInterrupt``; a context manager.

        with Interrupts() as interrupts:
            while interrupts.wait(1.0, socket):
                ...

    A handler that raises is not enough. A signal that arrives just before the poll would be handled
    only when the poll ends, so every signal also makes a descriptor readable that ``wait`` polls.
    And Python discards an exception that a handler raises during some callbacks, so ``wait`` also
    checks a flag.

    For the main thread only.
    """

    def __init__(self) -> None:
        self._wakeup = Wakeup()
        self._before: dict[int, Any] = {}
        self._is_interrupted = False

    def __enter__(self) -> "Interrupts":
        self._wakeup.catch_signals()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._wakeup.close()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._is_interrupted = True
        raise KeyboardInterrupt

    def wait(self, timeout_s: float, *sources: Pollable) -> bool:
        """
        Wait until a source is readable, for up to ``timeout_s``; return True if one is.

        Raises:
            KeyboardInterrupt: If a signal has arrived, also before the call.
        """
        deadline = time.monotonic() + timeout_s
        poller = zmq.Poller()
        for source in (self._wakeup.fileno(), *sources):
            poller.register(source, zmq.POLLIN)
        while True:
            if self._is_interrupted:
                raise KeyboardInterrupt
            left_s = max(0.0, deadline - time.monotonic())
            ready = [source for source, _ in poller.poll(int(left_s * 1000 + 0.999))]
            if self._wakeup.fileno() not in ready:
                return bool(ready)
            self._wakeup.clear()

    def sleep(self, seconds: float) -> None:
        """
        Wait without a source.

        Raises:
            KeyboardInterrupt: If a signal has arrived, also before the call.
        """
        self.wait(seconds)
