"""
The loop that every process runs: sockets, timers, control, signals, prompt stop.

One ``Actor`` owns one context, one poller and everything it registers there, all made in the
process that uses them. What the process decides is in pure classes; an actor only moves messages
between them and its sockets.

It stops for SIGTERM and SIGINT, for a ``stop`` command, and when its supervisor is gone: the
supervisor holds the writing end of a pipe, the *lifeline*, whose reading end the child watches,
and the operating system closes it however the supervisor dies. A second signal ends the process
at once.
"""

import argparse
import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn

import structlog
import zmq

from bybit_pipeline.shared.bus.control import HEARTBEAT_S, ControlLink
from bybit_pipeline.shared.bus.sockets import LINGER_MS
from bybit_pipeline.shared.errors import (
    EX_FAILED,
    EX_OK,
    EX_SOFTWARE,
    EX_USAGE,
    ConfigError,
    PipelineError,
)
from bybit_pipeline.shared.runtime import logs
from bybit_pipeline.shared.runtime.clock import Clock, SystemClock
from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.settings.specs import AnySpec, ProcessSpec, read_spec

log = structlog.get_logger()

Context = zmq.Context[zmq.Socket[bytes]]
Pollable = zmq.Socket[bytes] | int


class Timer:
    """A callback that is due every ``interval_s`` seconds of the monotonic clock."""

    __slots__ = ("callback", "due", "interval_s")

    def __init__(self, interval_s: float, callback: Callable[[], None], due: float) -> None:
        self.interval_s = interval_s
        self.callback = callback
        self.due = due


class Actor:
    """
    One process: override the ``on_`` hooks and ``status``, use ``watch`` and ``every``.

    Args:
        spec: What the supervisor told this process.
        clock: Wall and monotonic clock.
        telemetry: The counters; a fresh registry by default.
    """

    role: ClassVar[str] = ""

    def __init__(
        self, spec: ProcessSpec, *, clock: Clock | None = None, telemetry: Telemetry | None = None
    ) -> None:
        self.process = spec.process
        self.clock = clock or SystemClock()
        self.telemetry = telemetry or Telemetry()
        self.telemetry.counters(
            "log_lines_lost_total",
            "Log lines that could not be written.",
            ("process",),
            lambda: [((self.process,), logs.lost_lines())],
        )
        self.control: ControlLink | None = None
        self.endpoints: dict[str, str] = {}
        """Endpoints that this process bound, by name; sent with ``ready``."""
        self._spec_common = spec
        self._context: Context | None = None
        self._poller = zmq.Poller()
        self._callbacks: dict[Any, Callable[[], None]] = {}
        self._timers: list[Timer] = []
        self._next_due = 0.0
        """When the first timer is due; only looked for when one was."""
        self._running = True
        self._signals = 0
        self._stop_signal: int | None = None
        self._started = self.clock.monotonic()

    # -- hooks -----------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Make the sockets and timers; the process is announced ready when this returns."""

    def on_command(self, command: dict[str, Any]) -> None:
        """Act on a command of the supervisor (``control``); ``stop`` is handled here."""

    def on_stop(self) -> None:
        """Close what ``on_start`` made."""

    def status(self) -> Mapping[str, Any]:
        """The role's own counts for heartbeats and ``process.NAME`` messages."""
        return {}

    # -- services for subclasses -----------------------------------------------------------------

    @property
    def context(self) -> Context:
        """The ZeroMQ context of this process; there while ``run`` runs."""
        assert self._context is not None, "the context exists while run() runs"
        return self._context

    def watch(self, source: Pollable, callback: Callable[[], None]) -> None:
        """Call back whenever a socket or file descriptor can be read."""
        self._poller.register(source, zmq.POLLIN)
        self._callbacks[source] = callback

    def unwatch(self, source: Pollable) -> None:
        """Stop watching."""
        self._poller.unregister(source)
        del self._callbacks[source]

    def every(self, interval_s: float, callback: Callable[[], None]) -> Timer:
        """Call back every ``interval_s`` seconds, first one interval from now."""
        timer = Timer(interval_s, callback, self.clock.monotonic() + interval_s)
        self._timers.append(timer)
        self._next_due = min(self._next_due, timer.due)
        return timer

    def stop(self, reason: str) -> None:
        """End the loop after the current callback."""
        if self._running:
            self._running = False
            log.info("stopping", reason=reason)

    def send_control(self, kind: str, **fields: Any) -> None:
        """Send a message to the supervisor; nothing happens when run by hand."""
        if self.control is not None:
            self.control.send(kind, **fields)

    # -- the loop --------------------------------------------------------------------------------

    def run(self, lifeline: int | None = None) -> int:
        """
        Run until asked to stop; the exit code.

        Args:
            lifeline: Reading end of the supervisor's pipe; its end of file stops the process.
        """
        self._context = zmq.Context()
        wakeup = self._install_signals()
        try:
            self._open(wakeup, lifeline)
            log.info("ready", pid=os.getpid())
            while self._running:
                self.turn()
        finally:
            self._close(wakeup)
        log.info(
            "stopped",
            uptime_s=round(self.clock.monotonic() - self._started, 1),
            **_totals(self.status()),
        )
        return EX_OK

    def turn(self) -> None:
        """Wait for the next thing to do and do it: readable sockets first, then due timers."""
        wait_ms = int((self._next_due - self.clock.monotonic()) * 1000 + 0.999)
        for source, _ in self._poller.poll(max(0, wait_ms)):
            callback = self._callbacks.get(source)
            if callback is not None:
                callback()
        now = self.clock.monotonic()
        if now >= self._next_due:
            for timer in self._timers:
                if timer.due <= now:
                    timer.due = max(timer.due + timer.interval_s, now)
                    timer.callback()
            self._next_due = min((timer.due for timer in self._timers), default=now + 1.0)
        if self._stop_signal is not None:
            self.stop(signal.Signals(self._stop_signal).name)

    def _open(self, wakeup: int, lifeline: int | None) -> None:
        spec = self._spec_common
        self.watch(wakeup, lambda: self._on_wakeup(wakeup))
        if lifeline is not None:
            self.watch(lifeline, lambda: self.stop("supervisor gone"))
        prometheus = self.telemetry.serve(spec.prometheus_host, spec.prometheus_port)
        if spec.control:
            self.control = ControlLink(self.context, spec.control, self.process)
            self.watch(self.control.socket, self._on_control)
        # What is loaded by now stays: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        self.on_start()
        self.send_control(
            "ready",
            pid=os.getpid(),
            role=self.role,
            prometheus=f"{spec.prometheus_host}:{prometheus}",
            endpoints=self.endpoints,
        )
        self._heartbeat()
        self.every(HEARTBEAT_S, self._heartbeat)

    def _close(self, wakeup: int) -> None:
        self.on_stop()
        if self.control is not None:
            self.control.close()
        signal.set_wakeup_fd(-1)
        os.close(wakeup)
        self.context.destroy(linger=LINGER_MS)

    def _heartbeat(self) -> None:
        self.send_control("heartbeat", status=dict(self.status()))

    def _on_control(self) -> None:
        assert self.control is not None
        for command in self.control.receive():
            if command["type"] == "stop":
                self.stop("told to")
            else:
                self.on_command(command)

    def _install_signals(self) -> int:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        return reader

    def _on_signal(self, number: int, _frame: object) -> None:
        """Only note it, ``turn`` acts on it: the signal may have interrupted the log's own lock."""
        self._signals += 1
        if self._signals > 1:
            os._exit(EX_FAILED)
        self._stop_signal = number

    def _on_wakeup(self, wakeup: int) -> None:
        os.read(wakeup, 4096)


def _totals(status: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in status.items() if isinstance(value, int | float)}


class _Parser(argparse.ArgumentParser):
    """An argument parser that ends with our exit code for wrong usage, in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


def main(actor: Callable[[AnySpec], Actor], spec_type: type[AnySpec]) -> int:
    """
    The ``__main__`` of a process: ``SPEC.json [--lifeline FD]`` from the command line.

    Expected failures are one line in the log and their own exit code; a bug is logged once with
    its traceback and ends with 70.
    """
    parser = _Parser()
    parser.add_argument("spec", help="the spec file that the supervisor wrote")
    parser.add_argument("--lifeline", type=int, help="file descriptor of the supervisor's pipe")
    arguments = parser.parse_args()
    try:
        spec = read_spec(arguments.spec, spec_type)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    logs.configure(spec.process, spec.log_format, spec.log_level)
    log.info("starting", role=spec.role, pid=os.getpid())
    try:
        return actor(spec).run(arguments.lifeline)
    except PipelineError as error:
        log.error("cannot run", error=str(error))
        return error.exit_code
    except Exception:
        log.exception("bug")
        return EX_SOFTWARE
