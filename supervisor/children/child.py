"""
The life of one child: started, awaited, watched, killed when hung, restarted, stopped.

Decides the child's state from what is reported about it; ``policy`` decides when to restart. Time
and the way to start a process are handed in, so that this is tested without either. Knows nothing
of sockets or of the other children.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import structlog

from bybit_pipeline.supervisor.children.restart import (
    ExitReason,
    RestartHistory,
    RestartPolicy,
    exit_reason,
)

log = structlog.get_logger()

State = Literal["starting", "up", "restarting", "flapping", "failed", "stopped"]
"""
``restarting`` waits for its next start or is on the way up again; ``flapping`` the same after too
many failures, until it has run for long enough; ``failed`` is final, ``stopped`` was asked for.
"""

READY_S = 20.0
"""How long a child may take from its start to its ``ready``."""
SILENT_S = 5.0
"""How long a child may go without a heartbeat."""
STARVED_RATIO = 6
"""
So many times longer if it wants to run and the machine gives it less than half of the time: then
not the child hangs, and to start another one would only make it worse.
"""


class Process(Protocol):
    """What a child needs of a running process; ``child.ChildProcess`` is the real one."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def poll(self) -> int | None:
        """Its exit, negative for a signal; None while it runs."""
        ...

    def terminate(self) -> None:
        """Ask it to stop."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def demand(self) -> tuple[float, bool]:
        """CPU time that it has used in seconds, and whether it wants more now."""
        ...


class Child:
    """
    Keeps one child alive; call ``check`` often.

    Args:
        name: Its process name.
        role: Its role.
        spawn: Starts it.
        policy: When to restart it.

    Attributes:
        restarts: Restarts by reason.
        status: The map of its last heartbeat; empty when there is none of this run.
        ready: What its ``ready`` message said; empty before.
        beat: When it was last heard of, on the clock of the caller; None before it was ready.
        started: When it was last started.
        exit_code: Of its last exit that was not a signal.
    """

    def __init__(
        self,
        name: str,
        role: str,
        spawn: Callable[[], Process],
        *,
        policy: RestartPolicy | None = None,
    ) -> None:
        self.name = name
        self.role = role
        self.restarts: Counter[ExitReason] = Counter()
        self.status: dict[str, Any] = {}
        self.ready: dict[str, Any] = {}
        self.beat: float | None = None
        self.started = 0.0
        self.exit_code: int | None = None
        self._spawn = spawn
        self._history = RestartHistory(policy or RestartPolicy())
        self._process: Process | None = None
        self._heard = 0.0
        """When it last gave a sign of life, its start included."""
        self._used_s = 0.0
        """CPU time that it had used by then."""
        self._is_starved = False
        self._due: float | None = None
        self._kill_at: float | None = None
        self._was_hung = False
        self._is_wanted = False
        self._was_started = False
        self._is_final = False

    # -- what it is ------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Its condition in one word."""
        if self._is_final:
            return "failed"
        if not self._is_wanted:
            return "stopped" if self._was_started else "starting"
        if self._history.is_flapping:
            return "flapping"
        if self.is_up:
            return "up"
        return "restarting" if self.restarts else "starting"

    @property
    def is_new(self) -> bool:
        """True before its first start."""
        return not self._was_started

    @property
    def is_up(self) -> bool:
        """True while it runs and has said that it is ready; also of a flapping one."""
        return self._process is not None and bool(self.ready)

    @property
    def is_flapping(self) -> bool:
        """True from too many failures until it has run for long enough."""
        return self._history.is_flapping

    @property
    def is_down(self) -> bool:
        """True while it should run and does not, whatever becomes of it."""
        return self._is_wanted and self._process is None

    @property
    def is_gone(self) -> bool:
        """True once it was asked to stop and has stopped."""
        return self._process is None and not self._is_wanted

    @property
    def pid(self) -> int | None:
        """Its process id, None while it does not run."""
        return None if self._process is None else self._process.pid

    # -- what happens to it ----------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Start it."""
        self._is_wanted = self._was_started = True
        self._launch(now)

    def stop(self, now: float, *, within_s: float) -> None:
        """Ask it to stop, and kill it if it still runs after ``within_s``."""
        if self._is_wanted:
            self._is_wanted = False
            self._due = None
            self._kill_at = now + within_s
            if self._process is not None:
                self._process.terminate()

    def kill(self) -> None:
        """End it at once and do not start it again."""
        self._is_wanted = False
        self._due = None
        if self._process is not None:
            self._process.kill()

    def on_ready(self, now: float, message: Mapping[str, Any]) -> bool:
        """Note that it is ready; False if that was said by a predecessor."""
        if message.get("pid") != self.pid or self._process is None:
            return False
        self.ready = dict(message)
        self._hear(now)
        return True

    def on_heartbeat(self, now: float, status: Mapping[str, Any] | None) -> None:
        """Note that it lives, and what it says about itself; None if that cannot be read."""
        if self.is_up:
            self._hear(now)
            if status is not None:
                self.status = dict(status)

    def excuse(self, seconds: float) -> None:
        """Do not hold a silence against it in which nobody listened."""
        self._heard += seconds

    def check(self, now: float) -> None:
        """Notice its exit, kill it when it hangs, start it when that is due."""
        if self._process is not None:
            code = self._process.poll()
            if code is not None:
                self._on_exit(now, code)
            else:
                self._check_running(now, self._process)
        if self._due is not None and now >= self._due:
            self._due = None
            self._launch(now)

    def _hear(self, now: float) -> None:
        assert self._process is not None, "only who runs is heard"
        self.beat = self._heard = now
        self._used_s, _ = self._process.demand()
        self._is_starved = False

    def _launch(self, now: float) -> None:
        self.started = self._heard = now
        self._used_s, self._is_starved = 0.0, False
        self.ready, self.status, self.beat = {}, {}, None
        self._was_hung = False
        try:
            self._process = self._spawn()
        except OSError as error:
            decision = self._history.on_exit(now, started=now, exit_code=None)
            assert decision.delay_s is not None, "only exit codes are final"
            self._due = now + decision.delay_s
            log.error("cannot be started", child=self.name, error=str(error))

    def _check_running(self, now: float, process: Process) -> None:
        if not self._is_wanted:
            if self._kill_at is not None and now >= self._kill_at:
                log.warning("does not stop, killed", child=self.name, pid=process.pid)
                self._kill_at = None
                process.kill()
            return
        self._history.on_running(now, started=self.started)
        silent = now - self._heard
        allowed = READY_S if self.beat is None else SILENT_S
        if silent < allowed or self._was_hung:
            return
        if silent < allowed * STARVED_RATIO and self._gets_no_time(process, silent):
            return
        log.warning("hung, killed", child=self.name, pid=process.pid, silent_s=round(silent, 1))
        self._was_hung = True
        process.kill()

    def _gets_no_time(self, process: Process, silent: float) -> bool:
        """Whether it is silent since others have the processors; said once."""
        used_s, is_wanting = process.demand()
        used_s -= self._used_s
        if not is_wanting or used_s >= silent / 2:
            return False
        if not self._is_starved:
            self._is_starved = True
            log.warning(
                "silent for want of processor time",
                child=self.name,
                pid=process.pid,
                silent_s=round(silent, 1),
                used_s=round(used_s, 2),
            )
        return True

    def _on_exit(self, now: float, code: int) -> None:
        pid = self.pid
        self._process = None
        self.ready, self.status, self.beat = {}, {}, None
        self.exit_code = code if code >= 0 else None
        if not self._is_wanted:
            return
        reason = exit_reason(code, was_hung=self._was_hung)
        decision = self._history.on_exit(now, started=self.started, exit_code=self.exit_code)
        if decision.delay_s is None:
            self._is_final = True
            log.error("failed for good", child=self.name, pid=pid, exit_code=code)
            return
        self.restarts[reason] += 1
        self._due = now + decision.delay_s
        log.warning(
            "gone, will be restarted",
            child=self.name,
            pid=pid,
            reason=reason,
            code=code,
            delay_s=decision.delay_s,
            flapping=decision.is_flapping,
        )
