"""
The children of a plan: reconciles the running processes with the plan in force.

Starts the processes that a plan adds and stops those that it removes, writes their spec files, and
sends each child the difference between the plan that it knows and the plan in force, once it is
up. Knows no sockets: control messages leave through a callable.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bybit_pipeline.shared.settings.specs import (
    Assignment,
    DashboardSpec,
    ForwarderSpec,
    ProcessSpec,
    write_spec,
)
from bybit_pipeline.supervisor.children.child import Child, Process
from bybit_pipeline.supervisor.children.process import ChildProcess, Lifeline
from bybit_pipeline.supervisor.children.timing import Timing
from bybit_pipeline.supervisor.plan.change import change
from bybit_pipeline.supervisor.plan.names import DASHBOARD, FORWARDER, role_of
from bybit_pipeline.supervisor.plan.plan import Plan
from bybit_pipeline.supervisor.plan.process_specs import make_spec

PAUSE_S = 0.5
"""Time between two checks, in seconds, from which on the supervisor itself was suspended."""

Send = Callable[[str, Mapping[str, Any]], None]
"""Sends a control message to a process."""


def module_command(role: str) -> Sequence[str]:
    """Arguments with which Python runs a child of this role."""
    return ("-m", f"bybit_pipeline.processes.{role}")


class Children:
    """
    The children of one pipeline.

    Args:
        plan: The first plan.
        send: Sends a control message.
        lifeline: The supervisor's lifeline.
        log: File for the children's output; None for our stderr.
        command: Arguments with which Python runs a child of a role.
        timing: Time limits and the restart policy.
        start: Starts a process; called like ``ChildProcess``.
        prepare: Completes the spec of a child that is about to start.
        adopt: Completes an assignment that a running worker gets.

    Attributes:
        plan: The plan in force; ``reconcile`` replaces it.
        by_name: The children by process name, in the order of their first start.
        metrics: Endpoint for subscribers; the bound one once the forwarder is up.
        dashboard: URL of the dashboard; empty while there is none.
    """

    def __init__(
        self,
        plan: Plan,
        send: Send,
        *,
        lifeline: Lifeline,
        log: Path | None = None,
        command: Callable[[str], Sequence[str]] = module_command,
        timing: Timing | None = None,
        start: Callable[..., Process] = ChildProcess,
        prepare: Callable[[ProcessSpec], None] = lambda _: None,
        adopt: Callable[[str, Assignment], Assignment] = lambda _, assignment: assignment,
    ) -> None:
        self.plan = plan
        self.by_name: dict[str, Child] = {}
        self.metrics = plan.config.metrics.endpoint
        self.dashboard = ""
        self._send = send
        self._lifeline = lifeline
        self._log = log
        self._command = command
        self._timing = timing or Timing()
        self._start = start
        self._prepare = prepare
        self._adopt = adopt
        self._leaving: list[Child] = []
        self._known_plans: dict[str, Plan] = {}
        """The plan that each child knows, from its spec or from later messages."""
        self._ports: dict[str, int] = {}
        """The last scrape port of each child; its successor asks for the same one."""
        self._is_closing = False
        self._checked_at: float | None = None

    @property
    def all(self) -> list[Child]:
        """All children, including those that are being stopped."""
        return [*self.by_name.values(), *self._leaving]

    @property
    def is_complete(self) -> bool:
        """True while every process of the plan is up."""
        return all(
            name in self.by_name and self.by_name[name].is_up for name in self.plan.processes
        )

    @property
    def silent(self) -> frozenset[str]:
        """Children that are up and send no heartbeats, as of the last ``check``."""
        return frozenset(name for name, child in self.by_name.items() if child.is_silent)

    @property
    def down_workers(self) -> list[str]:
        """Workers that have crashed and do not run; nobody publishes their markets."""
        return [n for n in self.plan.workers if n in self.by_name and self.by_name[n].is_down]

    def start_missing(self, now: float) -> None:
        """
        Start the processes of the plan that have not been started yet, connectors last.

        None waits for another, with two exceptions. Connectors start once the address of the
        source is known, which a simulator announces. The dashboard starts once the forwarder has
        bound the metrics endpoint.
        """
        if self._is_closing:
            return
        leaving = {child.name for child in self._leaving}
        for name in self.plan.processes:
            if name in leaving:
                continue  # its predecessor still has the socket file and the name
            if name not in self.by_name:
                spawn = partial(self._spawn, name)
                self.by_name[name] = Child(name, role_of(name), spawn, timing=self._timing)
            child = self.by_name[name]
            has_address = {
                "connector": bool(self.plan.url),
                "dashboard": self.by_name[FORWARDER].is_up,
            }
            if child.is_new and has_address.get(child.role, True):
                child.start(now)

    def check(self, now: float) -> None:
        """
        Check every child; call this often.

        If the supervisor itself was suspended (Ctrl-Z, an overloaded machine), the heartbeats of
        that time are not read yet, so the silence does not count.
        """
        paused_s = 0.0 if self._checked_at is None else now - self._checked_at
        self._checked_at = now
        for child in self.all:
            if paused_s > PAUSE_S:
                child.excuse_silence(paused_s)
            child.check(now)
        if any(child.is_gone for child in self._leaving):
            self._leaving = [child for child in self._leaving if not child.is_gone]
            self.start_missing(now)

    def reconcile(self, plan: Plan, now: float) -> None:
        """
        Bring the running children to another plan.

        Workers are informed first: they must listen to a new topic before it flows, and must not
        take the end of a removed one for a loss. A child that is not up is informed once it is.
        """
        self.plan = plan
        for name in [name for name in self.by_name if name not in plan.processes]:
            self._dismiss(name, now)
        for name in plan.processes:
            child = self.by_name.get(name)
            if child is not None and child.is_up:
                self._send_changes(name)
        self.start_missing(now)

    def stop(self, roles: Collection[str], now: float, *, within_s: float) -> list[Child]:
        """Ask the children of some roles to stop; no child is started from now on."""
        self._is_closing = True
        group = [child for child in self.all if child.role in roles]
        for child in group:
            child.stop(now, within_s=within_s)
        return group

    def on_ready(self, name: str, message: Mapping[str, Any], now: float) -> Child | None:
        """Mark a child as ready and send it what it missed; None if there is no such process."""
        child = self.by_name.get(name)
        if child is None or not child.on_ready(now, message):
            return None
        port = child.prometheus.rpartition(":")[2]
        if port.isdigit():
            self._ports[name] = int(port)
        if name == FORWARDER:
            self.metrics = child.endpoint("metrics") or self.metrics
            self.start_missing(now)
        if name == DASHBOARD:
            self.dashboard = child.endpoint("http")
        self._send_changes(name)
        return child

    def _dismiss(self, name: str, now: float) -> None:
        child = self.by_name.pop(name)
        child.stop(now, within_s=self._timing.leave_s)
        self._leaving.append(child)

    def _spawn(self, name: str) -> Process:
        spec = make_spec(self.plan, name, prometheus_port=self._ports.get(name, 0))
        if isinstance(spec, ForwarderSpec):
            spec.endpoint = self.metrics  # a successor binds the endpoint that subscribers know
        if isinstance(spec, DashboardSpec):
            spec.metrics = self.metrics
            if self.dashboard:  # and the port that open pages know
                spec.port = int(self.dashboard.rpartition(":")[2])
        self._prepare(spec)
        path = Path(self.plan.run_dir) / f"{name}.json"
        write_spec(spec, path)
        self._known_plans[name] = self.plan
        command = (*self._command(role_of(name)), str(path))
        return self._start(command, lifeline=self._lifeline, log=self._log)

    def _send_changes(self, name: str) -> None:
        before, after = self._known_plans[name], self.plan
        self._known_plans[name] = after
        if role_of(name) == "connector":
            if (before.source, before.url) != (after.source, after.url):
                url = after.connector_url(name)
                self._send(name, {"type": "source", "source": after.source, "url": url})
            if before.connect_quota != after.connect_quota:
                self._send(name, {"type": "connect_quota", "quota": after.connect_quota})
        if before.placements is after.placements:
            return
        step = change(before, after)
        for receiver, command in (*step.unsubscribe, *step.readers, *step.subscribe):
            if receiver != name:
                continue
            if command["type"] == "assign":
                given = msgspec.convert(command["assignment"], Assignment)
                assignment = msgspec.to_builtins(self._adopt(name, given))
                command = {**command, "assignment": assignment}
            self._send(name, command)
