"""
The children of a plan: who is to run, what each has been told, and who is on the way out.

Starts what a plan has and dismisses what it has no longer, writes the spec files, and sends every
child the difference between the plan that it knows and the one in force, as soon as it can hear
it. Knows no sockets: commands leave through a callable.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bybit_pipeline.shared.settings.specs import DashboardSpec, ForwarderSpec, write_spec
from bybit_pipeline.supervisor.children.child import Child
from bybit_pipeline.supervisor.children.process import ChildProcess, Lifeline
from bybit_pipeline.supervisor.plan.change import change
from bybit_pipeline.supervisor.plan.names import (
    DASHBOARD,
    FORWARDER,
    role_of,
)
from bybit_pipeline.supervisor.plan.plan import Plan
from bybit_pipeline.supervisor.plan.process_specs import make_spec

LEAVE_S = 2.0
"""How long a child that is no longer needed may take to stop."""

PAUSE_S = 1.0
"""Between two checks: longer means that we did not run."""

Send = Callable[[str, Mapping[str, Any]], None]
"""Sends a control message to a process."""


def module_command(role: str) -> Sequence[str]:
    """How Python runs a child of this role."""
    return ("-m", f"bybit_pipeline.processes.{role}")


class Children:
    """
    The children of one pipeline.

    Args:
        plan: What is to run first.
        send: Where commands go.
        lifeline: The supervisor's.
        log: A file for the children's output; None leaves it to our stderr.
        command: How to run a child of a role, after the interpreter.

    Attributes:
        plan: The plan in force; ``apply`` changes it.
        children: By process name, in the order of their first start.
        metrics: Where subscribers connect; exact once the forwarder is up.
        dashboard: Address of the page; empty while there is none.
    """

    def __init__(
        self,
        plan: Plan,
        send: Send,
        *,
        lifeline: Lifeline,
        log: Path | None = None,
        command: Callable[[str], Sequence[str]] = module_command,
    ) -> None:
        self.plan = plan
        self.by_name: dict[str, Child] = {}
        self.metrics = plan.config.metrics.endpoint
        self.dashboard = ""
        self._send = send
        self._lifeline = lifeline
        self._log = log
        self._command = command
        self._leaving: list[Child] = []
        self._known_plans: dict[str, Plan] = {}
        """The plan that each child knows: that of its spec, or of what it was told since."""
        self._ports: dict[str, int] = {}
        """The scrape port that each child had last; its successor asks for it."""
        self._is_closing = False
        self._checked: float | None = None

    @property
    def all(self) -> list[Child]:
        """All children, also those on the way out."""
        return [*self.by_name.values(), *self._leaving]

    @property
    def is_complete(self) -> bool:
        """True while every process of the plan is up."""
        return all(
            name in self.by_name and self.by_name[name].is_up for name in self.plan.processes
        )

    @property
    def down_workers(self) -> list[str]:
        """Workers that should run and do not, after a crash: nobody speaks for their markets."""
        names = self.plan.workers
        return [name for name in names if name in self.by_name and self.by_name[name].is_down]

    def start_missing(self, now: float) -> None:
        """
        Start what the plan has and nobody has started yet.

        All at once and connectors last: they wait for their workers by themselves, and for an
        address only as long as a simulator has yet to say it. So does the dashboard for the exact
        address of the metrics.
        """
        if self._is_closing:
            return
        leaving = {child.name for child in self._leaving}
        for name in self.plan.processes:
            if name in leaving:
                continue  # its predecessor still has the socket and the name: start after it
            if name not in self.by_name:
                self.by_name[name] = Child(name, role_of(name), partial(self._spawn, name))
            child = self.by_name[name]
            has_address = {
                "connector": bool(self.plan.url),
                "dashboard": self.by_name[FORWARDER].is_up,
            }
            if child.is_new and has_address.get(child.role, True):
                child.start(now)

    def check(self, now: float) -> None:
        """
        Look after everybody; call it often.

        After a pause of our own (Ctrl-Z, a machine without time for us) heartbeats still wait to
        be read, so silence during the pause does not count.
        """
        paused_s = 0.0 if self._checked is None else now - self._checked
        self._checked = now
        for child in self.all:
            if paused_s > PAUSE_S:
                child.excuse(paused_s)
            child.check(now)
        if any(child.is_gone for child in self._leaving):
            self._leaving = [child for child in self._leaving if not child.is_gone]
            self.start_missing(now)

    def apply(self, plan: Plan, now: float) -> None:
        """
        Bring the running children to another plan.

        Workers are told first: who joins a topic listens before it flows, and who leaves one does
        not take its end for a loss. A child that is not up is told when it is.
        """
        self.plan = plan
        for name in [name for name in self.by_name if name not in plan.processes]:
            self._dismiss(name, now)
        for name in plan.processes:
            child = self.by_name.get(name)
            if child is not None and child.is_up:
                self._tell(name)
        self.start_missing(now)

    def stop(self, roles: Collection[str], now: float, *, within_s: float) -> list[Child]:
        """Ask the children of some roles to stop; nobody is started from now on."""
        self._is_closing = True
        group = [child for child in self.all if child.role in roles]
        for child in group:
            child.stop(now, within_s=within_s)
        return group

    def on_ready(self, name: str, message: Mapping[str, Any], now: float) -> Child | None:
        """Note that a child is up and tell it what it missed; None if nobody runs who says so."""
        child = self.by_name.get(name)
        if child is None or not child.on_ready(now, message):
            return None
        port = str(message.get("prometheus", "")).rpartition(":")[2]
        if port.isdigit():
            self._ports[name] = int(port)
        if name == FORWARDER:
            self.metrics = endpoint_of(child, "metrics") or self.metrics
            self.start_missing(now)
        if name == DASHBOARD:
            self.dashboard = endpoint_of(child, "http")
        self._tell(name)
        return child

    def _dismiss(self, name: str, now: float) -> None:
        child = self.by_name.pop(name)
        child.stop(now, within_s=LEAVE_S)
        self._leaving.append(child)

    def _spawn(self, name: str) -> ChildProcess:
        spec = make_spec(self.plan, name, prometheus_port=self._ports.get(name, 0))
        if isinstance(spec, ForwarderSpec):
            spec.endpoint = self.metrics  # a successor takes the address that subscribers know
        if isinstance(spec, DashboardSpec):
            spec.metrics = self.metrics
            if self.dashboard:  # likewise: open pages find it again
                spec.port = int(self.dashboard.rpartition(":")[2])
        path = Path(self.plan.run_dir) / f"{name}.json"
        write_spec(spec, path)
        self._known_plans[name] = self.plan
        command = (*self._command(role_of(name)), str(path))
        return ChildProcess(command, lifeline=self._lifeline, log=self._log)

    def _tell(self, name: str) -> None:
        before, after = self._known_plans[name], self.plan
        self._known_plans[name] = after
        is_moved = (before.source, before.url) != (after.source, after.url)
        if role_of(name) == "connector" and is_moved:
            url = after.connector_url(name)
            self._send(name, {"type": "source", "source": after.source, "url": url})
        if role_of(name) == "connector" and before.connect_quota != after.connect_quota:
            self._send(name, {"type": "connect_quota", "quota": after.connect_quota})
        if before.placements is after.placements:
            return
        step = change(before, after)
        for receiver, command in (*step.unsubscribe, *step.readers, *step.subscribe):
            if receiver == name:
                self._send(name, command)


def endpoint_of(child: Child, name: str) -> str:
    """An endpoint that a child bound and announced, empty if it did not."""
    endpoints = child.ready.get("endpoints")
    return str(endpoints.get(name, "")) if isinstance(endpoints, dict) else ""
