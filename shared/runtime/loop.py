"""
The poll loop of a process: readable sockets, timers, signals and a prompt stop.

One loop belongs to one thread, the main thread where signals are handled. Knows nothing of what
the sockets carry.
"""

import os
import signal
from collections.abc import Callable, Iterable
from typing import Any

import structlog
import zmq

from bybit_pipeline.shared.errors import EX_FAILED
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.runtime.wakeup import Pollable, Wakeup

log = structlog.get_logger()

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Timer:
    """A callback that is due every ``interval_s`` seconds of the monotonic clock."""

    __slots__ = ("callback", "due", "interval_s")

    def __init__(self, interval_s: float, callback: Callable[[], None], due: float) -> None:
        self.interval_s = interval_s
        self.callback = callback
        self.due = due


class Loop:
    """
    Calls back for readable sockets and due timers until it is stopped.

    Args:
        clock: Monotonic time for the timers.

    Attributes:
        is_running: False once the loop has been asked to stop.
        stop_signals: Number of stop signals received since ``catch_signals``.
    """

    def __init__(self, clock: Clock) -> None:
        self.is_running = True
        self.stop_signals = 0
        self._clock = clock
        self.poller = zmq.Poller()
        """Replaced by a simulation, before anything is watched."""
        self._callbacks: dict[Any, Callable[[], None]] = {}
        self._timers: list[Timer] = []
        self._next_due = 0.0
        """The earliest time a timer may be due."""
        self._stop_signal: int | None = None
        self._exits_on_second = False
        self._wakeup: Wakeup | None = None

    def catch_signals(
        self,
        numbers: Iterable[int] = STOP_SIGNALS,
        *,
        exit_on_second: bool = True,
        on_wakeup: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Stop on these signals, and wake the loop on every signal that Python handles.

        Args:
            numbers: Signals that stop the loop.
            exit_on_second: End the process at once on the second stop signal.
            on_wakeup: Called after any handled signal, in the loop.
        """
        wakeup = self._wakeup = Wakeup()
        wakeup.catch_signals()
        self._exits_on_second = exit_on_second
        for number in numbers:
            signal.signal(number, self._on_signal)

        def woken() -> None:
            wakeup.clear()
            on_wakeup()

        self.watch(wakeup.fileno(), woken)

    def watch(self, source: Pollable, callback: Callable[[], None]) -> None:
        """Call back whenever the socket or file descriptor is readable."""
        self.poller.register(source, zmq.POLLIN)
        self._callbacks[source] = callback

    def unwatch(self, source: Pollable) -> None:
        """Stop watching."""
        self.poller.unregister(source)
        del self._callbacks[source]

    def every(self, interval_s: float, callback: Callable[[], None]) -> Timer:
        """Call back every ``interval_s`` seconds, first one interval from now."""
        timer = Timer(interval_s, callback, self._clock.monotonic() + interval_s)
        self._timers.append(timer)
        self._next_due = min(self._next_due, timer.due)
        return timer

    def hasten(self, timer: Timer, within_s: float) -> None:
        """Make a timer due ``within_s`` seconds from now, unless it is due earlier."""
        timer.due = min(timer.due, self._clock.monotonic() + within_s)
        self._next_due = min(self._next_due, timer.due)

    @property
    def next_due(self) -> float:
        """The earliest time a timer may be due."""
        return self._next_due

    def stop(self, reason: str) -> None:
        """End ``run`` after the current callback."""
        if self.is_running:
            self.is_running = False
            log.info("stopping", reason=reason)

    def run(self) -> None:
        """Turn until stopped."""
        while self.is_running:
            self.turn()

    def turn(self) -> None:
        """Wait for something to do and do it: readable sockets first, then due timers."""
        wait_ms = int((self._next_due - self._clock.monotonic()) * 1000 + 0.999)
        for source, _ in self.poller.poll(max(0, wait_ms)):
            callback = self._callbacks.get(source)
            if callback is not None:
                callback()
        now = self._clock.monotonic()
        if now >= self._next_due:
            for timer in self._timers:
                if timer.due <= now:
                    timer.due = max(timer.due + timer.interval_s, now)
                    timer.callback()
            self._next_due = min((timer.due for timer in self._timers), default=now + 1.0)
        if self._stop_signal is not None:
            self.stop(signal.Signals(self._stop_signal).name)

    def close(self) -> None:
        """Stop catching signals."""
        if self._wakeup is not None:
            self._wakeup.close()

    def _on_signal(self, number: int, _frame: object) -> None:
        """Only record the signal: it may have interrupted a holder of the log's lock."""
        self.stop_signals += 1
        if self.stop_signals > 1 and self._exits_on_second:
            os._exit(EX_FAILED)
        self._stop_signal = number
