"""
The life of one child: started, awaited, watched, killed when it hangs, restarted, stopped.

Derives the state of the child from its messages and its exit; ``restart`` decides when to restart
it. Time and the function that starts a process are passed in, so tests need neither. Knows nothing
of sockets or of other children.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog

from bybit_pipeline.shared.wire.process_status import ExitReason, ProcessState
from bybit_pipeline.supervisor.children.restart import RestartHistory, exit_reason
from bybit_pipeline.supervisor.children.timing import Timing

log = structlog.get_logger()

"""
``silent``: was up, and sends no heartbeats. ``restarting``: waits for its next start, or was
restarted and is not ready yet. ``flapping``: has failed too often, until it has run long enough.
``failed``: will not be restarted. ``stopped``: was asked to stop.
"""


class Process(Protocol):
    """What ``Child`` needs of a running process; ``process.ChildProcess`` is the real one."""

    @property
    def pid(self) -> int:
        """Process id."""
        ...

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while the process runs."""
        ...

    def terminate(self) -> None:
        """Ask the process to stop."""
        ...

    def kill(self) -> None:
        """End the process at once."""
        ...

    @property
    def cpu_s(self) -> float:
        """CPU time used, in seconds."""
        ...

    @property
    def is_runnable(self) -> bool:
        """True if a thread is runnable now."""
        ...


class Child:
    """
    Keeps one child process alive; call ``check`` often.

    Args:
        name: Process name.
        role: Role of the process.
        spawn: Starts the process.
        timing: Time limits and the restart policy.

    Attributes:
        restarts: Restarts by reason.
        status: Status in the last usable heartbeat of this run; empty before the first.
        ready: The ``ready`` message of this run; empty before it.
        last_heard: Time of the last ``ready`` or heartbeat of this run; None before ``ready``.
        started: Time of the last start.
        status_at: Time of the heartbeat with ``status``.
        is_silent: True while it is up and sends no heartbeats, as of the last ``check``.
        exit_code: Exit code of the last run; None while there is none or if a signal ended it.
    """

    def __init__(
        self,
        name: str,
        role: str,
        spawn: Callable[[], Process],
        *,
        timing: Timing | None = None,
    ) -> None:
        self.name = name
        self.role = role
        self.restarts: Counter[ExitReason] = Counter()
        self.status: dict[str, Any] = {}
        self.ready: dict[str, Any] = {}
        self.status_at = 0.0
        self.last_heard: float | None = None
        self.is_silent = False
        self.started = 0.0
        self.exit_code: int | None = None
        self._spawn = spawn
        self._timing = timing or Timing()
        self._history = RestartHistory(self._timing.restart)
        self._process: Process | None = None
        self._alive_at = 0.0
        """Time of its last start or message, moved forward by ``excuse_silence``."""
        self._cpu_s = 0.0
        """CPU time that it had used by its last message."""
        self._is_starved = False
        self._restart_at: float | None = None
        self._kill_at: float | None = None
        self._was_hung = False
        self._is_wanted = False
        self._was_started = False
        self._has_failed = False

    # -- state -----------------------------------------------------------------------------------

    @property
    def state(self) -> ProcessState:
        """The state, for status and counters."""
        if self._has_failed:
            return "failed"
        if not self._is_wanted:
            return "stopped" if self._was_started else "starting"
        if self._history.is_flapping:
            return "flapping"
        if self.is_up:
            return "silent" if self.is_silent else "up"
        return "restarting" if self.restarts else "starting"

    @property
    def is_new(self) -> bool:
        """True before its first start."""
        return not self._was_started

    @property
    def is_up(self) -> bool:
        """True while it runs and is ready, even if it is flapping."""
        return self._process is not None and bool(self.ready)

    @property
    def is_flapping(self) -> bool:
        """True from too many failures until it has run long enough."""
        return self._history.is_flapping

    @property
    def is_down(self) -> bool:
        """True while it should run and does not, even if it will not be restarted."""
        return self._is_wanted and self._process is None

    @property
    def was_hung(self) -> bool:
        """True if its last run ended because it hung."""
        return self._was_hung

    @property
    def is_gone(self) -> bool:
        """True once it was asked to stop and has stopped."""
        return self._process is None and not self._is_wanted

    @property
    def pid(self) -> int | None:
        """Process id, None while it does not run."""
        return None if self._process is None else self._process.pid

    @property
    def prometheus(self) -> str:
        """``host:port`` of its counters; empty while it is not up."""
        return str(self.ready.get("prometheus", ""))

    def endpoint(self, name: str) -> str:
        """An endpoint that it has bound and reported; empty if it has not."""
        endpoints = self.ready.get("endpoints")
        return str(endpoints.get(name, "")) if isinstance(endpoints, dict) else ""

    # -- events ----------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Start it."""
        self._is_wanted = self._was_started = True
        self._launch(now)

    def stop(self, now: float, *, within_s: float) -> None:
        """Ask it to stop, and kill it if it still runs after ``within_s``."""
        if self._is_wanted:
            self._is_wanted = False
            self._restart_at = None
            self._kill_at = now + within_s
            if self._process is not None:
                self._process.terminate()

    def kill(self) -> None:
        """End it at once and do not restart it."""
        self._is_wanted = False
        self._restart_at = None
        if self._process is not None:
            self._process.kill()

    def on_ready(self, now: float, message: Mapping[str, Any]) -> bool:
        """Mark it as ready; return False for a message of an earlier process."""
        if message.get("pid") != self.pid or self._process is None:
            return False
        self.ready = dict(message)
        self._on_message(now)
        return True

    def on_heartbeat(self, now: float, status: Mapping[str, Any] | None) -> None:
        """Record a sign of life and its status; None for a heartbeat without a usable one."""
        if self.is_up:
            self._on_message(now)
            if status is not None:
                self.status, self.status_at = dict(status), now

    def excuse_silence(self, seconds: float) -> None:
        """Ignore this much of its silence, because the supervisor itself did not run."""
        self._alive_at += seconds

    def check(self, now: float) -> None:
        """Handle its exit, kill it if it hangs, restart it when that is due."""
        if self._process is not None:
            code = self._process.poll()
            if code is not None:
                self._on_exit(now, code)
            else:
                self._check_running(now, self._process)
        if self._restart_at is not None and now >= self._restart_at:
            self._restart_at = None
            self._launch(now)

    def _on_message(self, now: float) -> None:
        assert self._process is not None, "only a running process sends messages"
        self.last_heard = self._alive_at = now
        self._cpu_s = self._process.cpu_s
        self._is_starved = False
        if self.is_silent:
            self.is_silent = False
            log.info("process answers again", child=self.name, pid=self.pid)

    def _launch(self, now: float) -> None:
        self.started = self._alive_at = now
        self._cpu_s, self._is_starved = 0.0, False
        self._forget_run()
        self._was_hung = False
        try:
            self._process = self._spawn()
        except OSError as error:
            decision = self._history.on_exit(now, started=now, exit_code=None)
            assert decision.delay_s is not None, "only exit codes are final"
            self._restart_at = now + decision.delay_s
            log.error("process start failed", child=self.name, error=str(error))

    def _forget_run(self) -> None:
        self.ready, self.status, self.last_heard, self.is_silent = {}, {}, None, False

    def _check_running(self, now: float, process: Process) -> None:
        if not self._is_wanted:
            if self._kill_at is not None and now >= self._kill_at:
                log.warning("process did not stop, killed", child=self.name, pid=process.pid)
                self._kill_at = None
                process.kill()
            return
        self._history.on_running(now, started=self.started)
        silent_s = now - self._alive_at
        if self.is_up and not self.is_silent and silent_s >= self._timing.silent_s:
            self.is_silent = True
            log.warning("process silent", child=self.name, pid=process.pid)
        limit_s = self._timing.ready_s if self.last_heard is None else self._timing.hung_s
        if silent_s < limit_s or self._was_hung:
            return
        if silent_s < limit_s * self._timing.starved_ratio and self._lacks_cpu(process, silent_s):
            return
        log.warning(
            "process hung, killed", child=self.name, pid=process.pid, silent_s=round(silent_s, 1)
        )
        self._was_hung = True
        process.kill()

    def _lacks_cpu(self, process: Process, silent_s: float) -> bool:
        """True if it is silent because other processes have the CPU; logged once."""
        used_s = process.cpu_s - self._cpu_s
        if used_s >= silent_s / 2 or not process.is_runnable:
            return False
        if not self._is_starved:
            self._is_starved = True
            log.warning(
                "process starved of CPU time",
                child=self.name,
                pid=process.pid,
                silent_s=round(silent_s, 1),
                used_s=round(used_s, 2),
            )
        return True

    def _on_exit(self, now: float, code: int) -> None:
        pid = self.pid
        self._process = None
        self._forget_run()
        self.exit_code = code if code >= 0 else None
        if not self._is_wanted:
            return
        reason = exit_reason(code, was_hung=self._was_hung)
        decision = self._history.on_exit(now, started=self.started, exit_code=self.exit_code)
        if decision.delay_s is None:
            self._has_failed = True
            log.error("process failed, not restarted", child=self.name, pid=pid, exit_code=code)
            return
        self.restarts[reason] += 1
        self._restart_at = now + decision.delay_s
        log.warning(
            "process ended, restarting",
            child=self.name,
            pid=pid,
            reason=reason,
            code=code,
            delay_s=decision.delay_s,
            flapping=decision.is_flapping,
        )
