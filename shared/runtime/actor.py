"""
The frame that every child process runs in: a loop, a context, control and an orderly end.

An ``Actor`` owns one ZeroMQ context, one loop and everything it registers there, all created in the
process that uses them. Decisions belong to pure classes; an actor only moves messages between them
and its sockets.

It stops on SIGTERM and SIGINT, on a ``stop`` command, and when its supervisor is gone. The
supervisor holds the writing end of a pipe, the *lifeline*. The child watches the reading end, which
the operating system closes however the supervisor dies. A second signal ends the process at once.
"""

import argparse
import gc
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn

import structlog
import zmq

from bybit_pipeline.shared.bus.control import HEARTBEAT_S, STATUS_S, ControlLink
from bybit_pipeline.shared.bus.sockets import LINGER_MS
from bybit_pipeline.shared.errors import EX_OK, EX_SOFTWARE, EX_USAGE, ConfigError, PipelineError
from bybit_pipeline.shared.runtime import logs
from bybit_pipeline.shared.runtime.clock import Clock, SystemClock
from bybit_pipeline.shared.runtime.loop import Loop, Timer
from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.runtime.wakeup import Pollable
from bybit_pipeline.shared.settings.ports import host_port
from bybit_pipeline.shared.settings.specs import AnySpec, ProcessSpec, read_spec

log = structlog.get_logger()

Context = zmq.Context[zmq.Socket[bytes]]

NEWS_S = 0.05
"""Delay of a status that reports news, so that the same status reports what follows at once."""


class Actor:
    """
    One process: override the ``on_`` hooks and ``status``, use ``watch`` and ``every``.

    Args:
        spec: The settings that the supervisor passed to this process.
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
        logs.expose_lost_lines(self.telemetry, self.process)
        self.loop = Loop(self.clock)
        self.control: ControlLink | None = None
        self.endpoints: dict[str, str] = {}
        """Endpoints that this process has bound, by name; sent with ``ready``."""
        self._spec_common = spec
        self._context: Context | None = None
        self._started = self.clock.monotonic()
        self._status_due = float("-inf")
        self._heartbeats: Timer | None = None

    # -- hooks -----------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Create the sockets and timers; the process is reported ready when this returns."""

    def on_command(self, command: dict[str, Any]) -> None:
        """Act on a command of the supervisor (``bus.control``); ``stop`` is handled here."""

    def on_stop(self) -> None:
        """Close what ``on_start`` created."""

    def status(self) -> Mapping[str, Any]:
        """Return the role's own counts for heartbeats and ``process.NAME`` messages."""
        return {}

    # -- services for subclasses -----------------------------------------------------------------

    @property
    def context(self) -> Context:
        """The ZeroMQ context of this process; exists while ``run`` runs."""
        assert self._context is not None, "the context exists while run() runs"
        return self._context

    def watch(self, source: Pollable, callback: Callable[[], None]) -> None:
        """Call back whenever the socket or file descriptor is readable."""
        self.loop.watch(source, callback)

    def unwatch(self, source: Pollable) -> None:
        """Stop watching."""
        self.loop.unwatch(source)

    def every(self, interval_s: float, callback: Callable[[], None]) -> Timer:
        """Call back every ``interval_s`` seconds, first one interval from now."""
        return self.loop.every(interval_s, callback)

    def stop(self, reason: str) -> None:
        """End the loop after the current callback."""
        self.loop.stop(reason)

    def turn(self) -> None:
        """Wait for something to do and do it; ``run`` calls this until the actor stops."""
        self.loop.turn()

    def send_control(self, kind: str, **fields: Any) -> None:
        """Send a message to the supervisor; without one (started by hand) do nothing."""
        if self.control is not None:
            self.control.send(kind, **fields)

    def report_soon(self) -> None:
        """Send the status within ``NEWS_S``: something has changed that decides on readiness."""
        self._status_due = float("-inf")
        if self._heartbeats is not None:
            self.loop.hasten(self._heartbeats, NEWS_S)

    # -- life ------------------------------------------------------------------------------------

    def run(self, lifeline: int | None = None) -> int:
        """
        Run until asked to stop; return the exit code.

        Args:
            lifeline: Reading end of the supervisor's pipe; its end of file stops the process.
        """
        self.loop.catch_signals()
        # Modules and settings stay for good: spare the garbage collector from scanning them.
        gc.collect()
        gc.freeze()
        try:
            self.open(zmq.Context(), lifeline)
            log.info("ready", pid=os.getpid())
            self.loop.run()
        finally:
            self._close()
        log.info(
            "stopped",
            uptime_s=round(self.clock.monotonic() - self._started, 1),
            **_totals(self.status()),
        )
        return EX_OK

    def open(self, context: Context, lifeline: int | None = None) -> None:
        """Create everything that ``turn`` needs; ``run`` calls this, and so does a simulation."""
        self._context = context
        spec = self._spec_common
        if lifeline is not None:
            self.watch(lifeline, lambda: self.stop("supervisor gone"))
        prometheus = self.telemetry.serve(spec.prometheus_host, spec.prometheus_port)
        if spec.control:
            self.control = ControlLink(self.context, spec.control, self.process)
            self.watch(self.control.socket, self._on_control)
        self.on_start()
        self.send_control(
            "ready",
            pid=os.getpid(),
            role=self.role,
            prometheus=host_port(spec.prometheus_host, prometheus),
            endpoints=self.endpoints,
        )
        self._heartbeat()
        self._heartbeats = self.every(HEARTBEAT_S, self._heartbeat)

    def _close(self) -> None:
        self.on_stop()
        if self.control is not None:
            self.control.close()
        self.loop.close()
        self.context.destroy(linger=LINGER_MS)

    def _heartbeat(self) -> None:
        now = self.clock.monotonic()
        if now < self._status_due:
            self.send_control("heartbeat")
        else:
            self._status_due = now + STATUS_S - HEARTBEAT_S / 2
            self.send_control("heartbeat", status=dict(self.status()))

    def _on_control(self) -> None:
        assert self.control is not None
        for command in self.control.receive():
            if command["type"] == "stop":
                self.stop("stop command")
            else:
                self.on_command(command)


def _totals(status: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in status.items() if isinstance(value, int | float)}


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports wrong usage in one line, with our exit code."""

    def error(self, message: str) -> NoReturn:
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


def main(actor: Callable[[AnySpec], Actor], spec_type: type[AnySpec]) -> int:
    """
    Run the ``__main__`` of a process: ``SPEC.json [--lifeline FD]`` from the command line.

    An expected failure is one line in the log and has its own exit code. A bug is logged once with
    its traceback and ends with 70.
    """
    parser = _Parser()
    parser.add_argument("spec", help="spec file written by the supervisor")
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
