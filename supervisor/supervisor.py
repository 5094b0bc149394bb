"""
The supervisor: starts, watches, restarts and stops the children, and answers requests.

Decisions are made in the packages next to this file: ``plan`` (which process handles what),
``children`` (which processes run), ``source`` (live or simulated data, instrument lists) and
``status`` (reports and answers). The supervisor moves messages between them.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
import zmq
from prometheus_client import GCCollector, ProcessCollector

from bybit_pipeline.shared.bus.metrics import MetricPublisher
from bybit_pipeline.shared.errors import EX_CANTCREAT, EX_OK, TakenError
from bybit_pipeline.shared.runtime import logs
from bybit_pipeline.shared.runtime.clock import Clock, SystemClock
from bybit_pipeline.shared.runtime.loop import STOP_SIGNALS, Loop
from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.settings.ports import check_free, check_free_endpoint, remove_socket_file
from bybit_pipeline.shared.wire.topics import process_topic
from bybit_pipeline.supervisor.children.child import Process
from bybit_pipeline.supervisor.children.children import Children, module_command
from bybit_pipeline.supervisor.children.last_will import LastWill
from bybit_pipeline.supervisor.children.process import ChildProcess, Lifeline, reap_foreign
from bybit_pipeline.supervisor.children.timing import Timing
from bybit_pipeline.supervisor.ledger.ledger import PipelineLedger
from bybit_pipeline.supervisor.plan.names import FORWARDER, SIMULATOR
from bybit_pipeline.supervisor.plan.plan import Plan
from bybit_pipeline.supervisor.run_dir import LOG, RunDir
from bybit_pipeline.supervisor.source.discovery import Discovery
from bybit_pipeline.supervisor.source.fallback import Link
from bybit_pipeline.supervisor.source.proxy import proxy_in_force
from bybit_pipeline.supervisor.source.switch import SourceSwitch
from bybit_pipeline.supervisor.status.endpoints import EndpointsFile
from bybit_pipeline.supervisor.status.requests import RequestHandler
from bybit_pipeline.supervisor.status.router import ControlRouter, Envelope
from bybit_pipeline.supervisor.status.server import StatusServer
from bybit_pipeline.supervisor.status.snapshot import SUPERVISOR, Reporter, Snapshot
from bybit_pipeline.supervisor.status.status import status_error

log = structlog.get_logger()

TICK_S = 0.1
REPORT_S = 1.0
"""Interval of the ``process.NAME`` messages, in seconds."""
STOP_ORDER = (("connector",), ("simulator", "trades", "orderbook"), ("forwarder", "dashboard"))
"""Roles in the order in which they stop; the groups share ``Timing.stop_s`` equally."""
DECISIVE_FIELDS = ("books", "connected")
"""Fields of a child's status that may end readiness."""
WARNING_PERIOD_S = 10.0
"""Shortest time between two warnings about unusable heartbeats, in seconds."""


class Supervisor:
    """
    Runs a plan until it is asked to stop.

    Args:
        plan: The initial plan.
        run_dir: The run directory, already locked by the caller.
        log_children: True to send the children's output to ``pipeline.log``, not to our stderr.
        command: Returns the arguments with which Python starts a child, by its role.
        clock: Wall and monotonic clock.
        telemetry: The counters; a fresh registry by default.
        timing: Time limits and the restart policy.
        start: Starts a child's process; called like ``ChildProcess``.
        ledger: Opens the gap ledger.

    Attributes:
        snapshot: The latest status snapshot of the pipeline; any thread may read it.
    """

    def __init__(
        self,
        plan: Plan,
        run_dir: RunDir,
        *,
        log_children: bool = False,
        command: Callable[[str], Sequence[str]] = module_command,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
        timing: Timing | None = None,
        start: Callable[..., Process] = ChildProcess,
        ledger: Callable[..., PipelineLedger] = PipelineLedger,
    ) -> None:
        self.snapshot = Snapshot()
        self._clock = clock or SystemClock()
        self._telemetry = telemetry or Telemetry()
        self._timing = timing or Timing()
        self._open_ledger = ledger
        self._loop = Loop(self._clock)
        self._run_dir = run_dir
        self._lifeline = Lifeline()
        self._children = Children(
            plan,
            lambda process, message: self._router.send(process, message),
            lifeline=self._lifeline,
            log=run_dir.path / LOG if log_children else None,
            command=command,
            timing=self._timing,
            start=start,
            prepare=lambda spec: self._ledger.prepare(spec),
            adopt=lambda worker, assignment: self._ledger.adopt(worker, assignment),
        )
        self._last_will = LastWill(f"{self._clock.time_ns() // 1_000_000:x}")
        self._switch = SourceSwitch(plan.config, self._telemetry)
        self._discovery = Discovery(plan.config.instruments, plan.config.connector, self._telemetry)
        self._forwarder_starts = 0
        self._started = self._clock.monotonic()
        self._refreshed_at = 0.0
        self._has_news = False
        """True if a status has arrived since the latest status snapshot."""
        self._is_doubtful = False
        """True if the books or the connection of a child have changed since then."""
        self._silent = frozenset[str]()
        """The silent children in the latest status snapshot."""
        self._warned_at = float("-inf")
        self._cleanup = contextlib.ExitStack()
        self._declare_counters()

    @property
    def plan(self) -> Plan:
        """The plan in force."""
        return self._children.plan

    @property
    def is_running(self) -> bool:
        """False from the moment when the pipeline begins to stop."""
        return self._loop.is_running

    def gaps(self) -> dict[str, Any]:
        """Return the newest gaps, those that are not written yet, and the state directory."""
        return self._ledger.answer()

    def every(self, interval_s: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` every ``interval_s`` seconds, also while the pipeline stops."""
        self._loop.every(interval_s, callback)

    def run(self) -> int:
        """
        Start everything, run until asked to stop, stop everything; return the exit code.

        Raises:
            TakenError: If a port of the configuration is taken.
        """
        signal.signal(signal.SIGCHLD, lambda *_: None)  # the exit of a child wakes the loop
        numbers = [*STOP_SIGNALS]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # not under nohup
            numbers.append(signal.SIGHUP)
        self._loop.catch_signals(numbers, exit_on_second=False, on_wakeup=self._on_wakeup)
        try:
            self._start()
            self._loop.run()
            self._stop_children()
        finally:
            self._close()
        log.info("stopped", uptime_s=round(self._clock.monotonic() - self._started, 1))
        return EX_OK

    # -- start and stop --------------------------------------------------------------------------

    def _start(self) -> None:
        """Bind the supervisor's own sockets, then start the children."""
        config = self.plan.config
        check_free_endpoint("metrics.endpoint", config.metrics.endpoint)
        if config.dashboard.enabled:
            check_free("dashboard.port", config.dashboard.host, config.dashboard.port)
        ProcessCollector(registry=self._telemetry.registry)
        GCCollector(registry=self._telemetry.registry)
        self._http = StatusServer(
            config.prometheus.host,
            config.prometheus.port,
            self._telemetry.registry,
            self._clock.monotonic,
        )
        self._cleanup.callback(self._http.close)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._cleanup.callback(context.destroy, linger=0)
        self._open(context)

    def _open(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        """Create everything that the loop needs, then start the children."""
        config = self.plan.config
        self._reporter = Reporter(self._clock, self._telemetry, address=self._http.address)
        self._ledger = self._open_ledger(
            self.plan, self._clock, self._telemetry, request_gaps=self._request_gaps
        )
        self._cleanup.callback(self._ledger.close)
        self._endpoints = EndpointsFile(
            self._run_dir, url=self._http.url, state_dir=self._ledger.state_dir
        )
        self._router = ControlRouter(context, self.plan.control_endpoint, self._telemetry)
        self._requests = RequestHandler(self, self._router, self._telemetry)
        self._publisher = MetricPublisher(context, self.plan.metrics_in)
        self._loop.watch(self._router.socket, self._on_control)
        self._loop.watch(self._discovery.client.wakeup.fileno(), self._on_lists)
        self._loop.watch(self._switch.prober.wakeup.fileno(), self._on_exchange_answers)
        self._loop.every(TICK_S, self._on_tick)
        self._loop.every(REPORT_S, self._on_report)
        log.info(
            "starting",
            pid=os.getpid(),
            run_dir=self.plan.run_dir,
            source=config.source,
            network=config.network,
            processes=len(self.plan.processes),
            **({"proxy": str(proxy)} if (proxy := proxy_in_force(self.plan)) else {}),
        )
        self._children.start_missing(self._clock.monotonic())
        self.refresh()

    def _stop_children(self) -> None:
        """Stop the children in ``STOP_ORDER``; a second signal cuts the wait short."""
        self._run_dir.remove_endpoints()
        self._ledger.stop()
        began = self._clock.monotonic()
        for number, roles in enumerate(STOP_ORDER, start=1):
            deadline = began + self._timing.stop_s * number / len(STOP_ORDER)
            now = self._clock.monotonic()
            group = self._children.stop(roles, now, within_s=deadline - now)
            while self._loop.stop_signals < 2 and any(child.pid is not None for child in group):
                self._loop.turn()

    def _close(self) -> None:
        """Kill the children that are still running, then release everything."""
        for child in self._children.all:
            child.kill()
        while any(child.pid is not None for child in self._children.all):
            time.sleep(0.005)
            self._children.check(self._clock.monotonic())
        self._switch.close()
        self._discovery.close()
        if self._forwarder_starts:
            remove_socket_file(self._children.metrics)
        self._lifeline.close()
        self._cleanup.close()
        self._loop.close()

    # -- timers and signals ----------------------------------------------------------------------

    def _on_wakeup(self) -> None:
        """A signal has arrived, perhaps the exit of a child."""
        self._check_children()
        self.refresh()

    def _on_tick(self) -> None:
        now = self._clock.monotonic()
        self._check_children()
        if not self.is_running:
            return
        self._ledger.on_tick()
        self._refresh_if_due(now)
        self._check_forwarder()
        self.change_plan(self._switch.fall_back_if_due(self.plan, now, self._links()))
        self.change_plan(self._switch.settle_if_due(self.plan, now, self._connector_links()))
        probes_exchange = self._switch.may_fall_back and self._has_only_patterns
        self.change_plan(
            self._discovery.request_if_due(self.plan, now, probes_exchange=probes_exchange)
        )

    def _on_report(self) -> None:
        if not self.is_running:
            return
        self.refresh()
        for process, payload in self._reporter.messages():
            self._publisher.publish(process_topic(process), payload)
            self._published.value += 1

    def _refresh_if_due(self, now: float) -> None:
        """Make a new snapshot if readiness may have changed since the latest one."""
        age_s = now - self._refreshed_at
        is_waited_for = (self._has_news and not self.snapshot.is_ready) or self.snapshot.is_passing
        if (
            self._children.silent != self._silent
            or (self._is_doubtful and age_s >= TICK_S)
            or (is_waited_for and age_s >= self._timing.refresh_s)
        ):
            self.refresh()

    def refresh(self) -> Snapshot:
        """Make a new snapshot, and update ``endpoints.json``."""
        self._has_news = self._is_doubtful = False
        self._refreshed_at, self._silent = self._clock.monotonic(), self._children.silent
        self.snapshot = self._http.snapshot = self._reporter.refresh(self._children)
        if self.is_running and self._endpoints.update(self._children, self._reporter.addresses()):
            page = {"dashboard": self._children.dashboard} if self._children.dashboard else {}
            log.info(
                "pipeline up",
                source=self.plan.source,
                metrics=self._children.metrics,
                http=self._http.url,
                **page,
                after_s=round(self._clock.monotonic() - self._started, 2),
            )
        return self.snapshot

    def _check_children(self) -> None:
        """Handle exited and hung children; publish the last wills of dead workers."""
        now = self._clock.monotonic()
        self._children.check(now)
        reap_foreign([child.pid for child in self._children.all if child.pid is not None])
        if self.is_running:
            down = self._children.down_workers
            if down:
                self._on_control()  # what the dead have sent before
            for name in down:
                was_hung = self._children.by_name[name].was_hung
                self._ledger.on_down(name, "process_silent" if was_hung else "process_down")
            for metric in self._last_will.due(self.plan, down, now, self._clock.time_ns()):
                self._publisher.publish(metric.topic, metric.payload)
                self._published_down.value += 1

    def _check_forwarder(self) -> None:
        """
        Fail if the forwarder could not bind its endpoint when it was first started.

        Raises:
            TakenError: If it could not.
        """
        forwarder = self._children.by_name[FORWARDER]
        if not self._forwarder_starts and forwarder.exit_code == EX_CANTCREAT:
            raise TakenError(f"metrics.endpoint: {self._children.metrics} cannot be bound")

    # -- control plane ---------------------------------------------------------------------------

    def _on_control(self) -> None:
        now = self._clock.monotonic()
        for envelope in self._router.receive():
            match envelope.message["type"]:
                case "ready":
                    self._on_ready(envelope, now)
                case "heartbeat":
                    self._on_heartbeat(envelope, now)
                case "resync":
                    self._on_resync(envelope)
                case "gaps" | "progress":
                    self._on_worker_report(envelope)
                case "request":
                    self._requests.handle(envelope)
                case _:
                    self._router.invalid["type"] += 1

    def _on_worker_report(self, envelope: Envelope) -> None:
        """Record the gaps or the progress of a worker."""
        worker, message = envelope.sender.decode(), envelope.message
        is_gaps = message["type"] == "gaps"
        record = self._ledger.on_gaps if is_gaps else self._ledger.on_progress
        if not record(worker, message):
            self._router.invalid["content"] += 1

    def _request_gaps(self) -> None:
        """Ask the workers for all their gaps, because some could not be recorded."""
        for worker in self.plan.workers:
            self._router.send(worker, {"type": "gaps"})

    def _on_ready(self, envelope: Envelope, now: float) -> None:
        child = self._children.on_ready(envelope.sender.decode(), envelope.message, now)
        if child is None:
            return
        log.info(
            "process up", child=child.name, pid=child.pid, after_s=round(now - child.started, 2)
        )
        if child.name == FORWARDER:
            self._forwarder_starts += 1
            if self._forwarder_starts > 1:
                for worker in self.plan.workers:
                    self._router.send(worker, {"type": "republish"})
                self._last_will.repeat()
        if child.name == SIMULATOR:
            self.change_plan(self._switch.use_simulator(self.plan, child.endpoint("websocket")))
        self.refresh()

    def _on_heartbeat(self, envelope: Envelope, now: float) -> None:
        """Record a sign of life; a status that cannot be used is counted and dropped."""
        child = self._children.by_name.get(envelope.sender.decode())
        status = envelope.message.get("status")
        if status is None:
            if child is not None:
                child.on_heartbeat(now, None)
            return
        error = status_error(status)
        if error is not None:
            self._router.invalid["content"] += 1
        if child is None:
            return
        if error is not None and now - self._warned_at >= WARNING_PERIOD_S:
            self._warned_at = now
            log.warning("heartbeat with an unusable status", child=child.name, error=error)
        before = child.status
        child.on_heartbeat(now, status if error is None else None)
        self._has_news = True
        if error is None:
            self._is_doubtful |= any(before.get(k) != status.get(k) for k in DECISIVE_FIELDS)
            self._requests.drop_rejected(child.name, status)

    def _on_resync(self, envelope: Envelope) -> None:
        """Pass a worker's request for a new snapshot on to the connector of the topic."""
        topic, reason = envelope.message.get("topic"), envelope.message.get("reason")
        connector = self.plan.connector_of(topic) if isinstance(topic, str) else None
        if connector is not None:
            self._resyncs.value += 1
            self._router.send(connector, {"type": "resync", "topic": topic, "reason": reason})

    # -- changes of the plan ---------------------------------------------------------------------

    def change_plan(self, plan: Plan) -> None:
        """Switch the pipeline to ``plan``; do nothing if that plan is in force."""
        if plan is self.plan:
            return
        before = set(self.plan.processes)
        self._ledger.change_plan(plan)
        self._children.reconcile(plan, self._clock.monotonic())
        for name in before - set(plan.processes):
            self._publisher.tombstone(process_topic(name))
        self.refresh()

    def _on_exchange_answers(self) -> None:
        self.change_plan(self._switch.try_live(self.plan, self._clock.monotonic()))

    def _on_lists(self) -> None:
        """Add and remove symbols as the exchange lists and delists them."""
        now_ms = self._clock.time_ns() // 1_000_000
        universe = self._discovery.take(self.plan, self._clock.monotonic(), now_ms)
        if self.is_running:
            self.change_plan(self.plan.with_universe(universe))

    @property
    def _has_only_patterns(self) -> bool:
        """True while only patterns are configured and none is resolved: no connector runs."""
        return bool(self.plan.universe.patterns) and not self.plan.connectors

    def _links(self) -> list[Link]:
        """Connections to the exchange; without connectors, the link that ``Discovery`` probes."""
        if self._discovery.link is not None and self._has_only_patterns:
            return [self._discovery.link]
        return self._connector_links()

    def _connector_links(self) -> list[Link]:
        return [
            Link(child.last_heard, child.status.get("live_since_ts_ms") is not None)
            for child in self._children.by_name.values()
            if child.role == "connector" and child.last_heard is not None
        ]

    def _declare_counters(self) -> None:
        self._resyncs = self._telemetry.counter(
            "resyncs_routed_total", "Resync requests passed on to connectors."
        )
        self._published, self._published_down = (
            self._telemetry.counter(
                "metrics_published_total", "Metrics published.", process=SUPERVISOR, kind=kind
            )
            for kind in ("process", "down")
        )
        logs.expose_lost_lines(self._telemetry, SUPERVISOR)
