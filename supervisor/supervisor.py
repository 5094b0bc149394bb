"""
The supervisor: one loop that starts, watches, restarts and stops the children and answers users.

Moves messages between the children, the command line and the parts that decide: ``plan`` (who does
what), ``keeper`` and ``policy`` (who lives), ``source`` (live or simulated), ``status`` (what is
said). It is an ``Actor`` whose control plane is the other end: a ROUTER.
"""

import contextlib
import dataclasses
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import metadata
from typing import Any, ClassVar, get_args

import msgspec
import structlog
import zmq
from prometheus_client import GCCollector, ProcessCollector

from shared.actor import Actor
from shared.bus import MetricPublisher
from shared.clock import Clock
from shared.errors import EX_CANTCREAT, EX_OK, EX_USAGE, PipelineError, TakenError
from shared.messages import SCHEMA_VERSION, Source
from shared.specs import ForwarderSpec, ProcessSpec, write_spec
from shared.telemetry import Samples, Telemetry
from shared.topics import process_topic
from supervisor.child import Child, Lifeline, usage
from supervisor.http import Snapshot, StatusServer
from supervisor.keeper import Keeper
from supervisor.markets import streams_of_market, subscribe, unsubscribe
from supervisor.plan import (
    FORWARDER,
    SIMULATOR,
    Plan,
    category_of,
    change,
    exchange_topic,
    fill_category,
    role_of,
)
from supervisor.policy import ExitReason
from supervisor.ports import check_free_endpoint
from supervisor.probe import Prober
from supervisor.router import INVALID_REASONS, ControlRouter, Letter
from supervisor.rundir import LOG, RunDir
from supervisor.source import FallbackRule, Link
from supervisor.status import (
    ProcessView,
    book_counts,
    connector_entries,
    unready_reasons,
)

log = structlog.get_logger()

TICK_S = 0.1
SECOND_S = 1.0
STOP_S = 4.5
"""How long an orderly stop may take before whoever is left is killed."""
STOP_GROUPS = (("connector",), ("simulator", "trades", "orderbook"), ("forwarder",))
"""Roles in the order in which they stop; each group has its share of ``STOP_S``."""
LEAVE_S = 2.0
"""How long a child that is no longer needed may take to stop."""
LOG_BYTES_MAX = 16 * 1024 * 1024

SOURCES: tuple[Source, ...] = ("live", "sim", "replay")
EXIT_REASONS: tuple[ExitReason, ...] = get_args(ExitReason)


class _Request(msgspec.Struct, frozen=True):
    """A request of a command line."""

    id: str | int
    command: str
    arguments: dict[str, Any] = {}


class _Markets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of ``subscribe`` and ``unsubscribe``."""

    markets: list[str]


def module_command(role: str) -> Sequence[str]:
    """How Python runs a child of this role."""
    return ("-m", f"processes.{role}")


class Supervisor(Actor):
    """
    Run a plan until told to stop.

    Args:
        plan: What to run.
        run_dir: Where, already held.
        log_children: Send the children's output to ``pipeline.log`` there, not to our stderr.
        command: How to run a child of a role, after the interpreter.

    Raises:
        TakenError: From ``run``, if a port of the configuration is taken.
    """

    role: ClassVar[str] = "supervisor"

    def __init__(
        self,
        plan: Plan,
        run_dir: RunDir,
        *,
        log_children: bool = False,
        command: Callable[[str], Sequence[str]] = module_command,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        spec = ProcessSpec(process="supervisor", role="supervisor", run_dir=plan.run_dir)
        super().__init__(spec, clock=clock, telemetry=telemetry)
        self.plan = plan
        self.snapshot = Snapshot()
        """What is shown to users, made once a second; any thread may read it."""
        self._run_dir = run_dir
        self._log = run_dir.path / LOG if log_children else None
        self._command = command
        self._keepers: dict[str, Keeper] = {}
        self._leaving: list[Keeper] = []
        """Children that are no longer in the plan, on their way out."""
        self._told: dict[str, Plan] = {}
        """The plan that each child knows."""
        self._been_up: set[str] = set()
        self._prometheus: dict[str, int] = {}
        """The scrape port that each child had last."""
        self._metrics = plan.config.metrics.endpoint
        """Where subscribers connect; exact once the forwarder is up."""
        self._endpoints: dict[str, Any] | None = None
        """As written to ``endpoints.json``; None before everything was up for the first time."""
        self._fallback = FallbackRule(
            is_auto=plan.config.source == "auto", after_s=plan.config.connector.fallback_after_s
        )
        self._prober: Prober | None = None
        self._not_live_since: dict[str, float] = {}
        self._is_hurried = False
        self._started_ts_ms = self.clock.time_ns() // 1_000_000
        self._cleanup = contextlib.ExitStack()
        self._lifeline = Lifeline()
        self._cleanup.callback(self._lifeline.close)
        self._declare_counters()

    # -- start and stop --------------------------------------------------------------------------

    def run(self, lifeline: int | None = None) -> int:  # noqa: ARG002
        """Start everything, run until told to stop, stop everything; the exit code."""
        self._context = zmq.Context()
        wakeup = self._install_signals()
        signal.signal(signal.SIGCHLD, lambda *_: None)  # an exit of a child wakes the loop
        self.watch(wakeup, lambda: self._on_wakeup(wakeup))
        try:
            self.on_start()
            while self._running:
                self.turn()
            self._stop_children()
        finally:
            self.on_stop()
            signal.set_wakeup_fd(-1)
            self._context.destroy(linger=0)
        log.info("stopped", uptime_s=round(self.clock.monotonic() - self._started, 1))
        return EX_OK

    def on_start(self) -> None:
        """Bind what is ours, then start the children."""
        config = self.plan.config
        log.info("starting", pid=os.getpid(), run_dir=self.plan.run_dir, source=config.source,
                 network=config.network, processes=len(self.plan.processes))  # fmt: skip
        check_free_endpoint("metrics.endpoint", config.metrics.endpoint)
        ProcessCollector(registry=self.telemetry.registry)
        GCCollector(registry=self.telemetry.registry)
        self._http = StatusServer(
            config.prometheus.host, config.prometheus.port, self.telemetry.registry
        )
        self._cleanup.callback(self._http.close)
        self._router = ControlRouter(self.context, self.plan.control_endpoint)
        self._publisher = MetricPublisher(self.context, self.plan.metrics_in)
        self.watch(self._router.socket, self._on_control)
        self.every(TICK_S, self._on_tick)
        self.every(SECOND_S, self._on_second)
        self._start_missing()
        self._look()

    def on_stop(self) -> None:
        """End what still runs, then let go of everything."""
        for keeper in self._everyone():
            keeper.kill()
        while any(keeper.pid is not None for keeper in self._everyone()):
            self._check_children()
        if self._prober is not None:
            self._prober.close()
        self._cleanup.close()

    def _stop_children(self) -> None:
        """Stop the children in the reverse order of their start; kill those who do not."""
        self._run_dir.remove_endpoints()
        self._endpoints = None
        began = self.clock.monotonic()
        for number, roles in enumerate(STOP_GROUPS, start=1):
            deadline = began + STOP_S * number / len(STOP_GROUPS)
            group = [keeper for keeper in self._everyone() if keeper.role in roles]
            for keeper in group:
                now = self.clock.monotonic()
                keeper.stop(now, within_s=deadline - now)
            while not self._is_hurried and any(keeper.pid is not None for keeper in group):
                self.turn()

    def _on_signal(self, number: int, _frame: object) -> None:
        """The first signal asks for an orderly stop, the second for one at once."""
        self._signals += 1
        self._is_hurried = self._signals > 1
        self.stop(signal.Signals(number).name)

    def _on_wakeup(self, wakeup: int) -> None:
        super()._on_wakeup(wakeup)
        self._check_children()

    # -- children --------------------------------------------------------------------------------

    def _everyone(self) -> list[Keeper]:
        return [*self._keepers.values(), *self._leaving]

    def _start_missing(self) -> None:
        """
        Start what the plan has and we have not.

        All at once and connectors last: they wait for their workers by themselves, and for an
        address only if a simulator has yet to say it.
        """
        leaving = {keeper.name for keeper in self._leaving}
        for name in self.plan.processes:
            if name in leaving:
                continue  # its predecessor would remove the socket file; started once it is gone
            if name not in self._keepers:
                self._keepers[name] = Keeper(name, role_of(name), partial(self._spawn, name))
            keeper = self._keepers[name]
            has_address = keeper.role != "connector" or self.plan.url
            if keeper.is_new and has_address:
                keeper.start(self.clock.monotonic())

    def _dismiss(self, name: str) -> None:
        """Stop a child that the plan no longer has."""
        keeper = self._keepers.pop(name, None)
        if keeper is not None:
            keeper.stop(self.clock.monotonic(), within_s=LEAVE_S)
            self._leaving.append(keeper)
            self._told.pop(name, None)
            self._publisher.retire(process_topic(name))

    def _spawn(self, name: str) -> Child:
        spec = self.plan.spec(name, prometheus_port=self._prometheus.get(name, 0))
        if isinstance(spec, ForwarderSpec):
            spec.endpoint = self._metrics  # a successor takes the address that subscribers know
        path = self._run_dir.path / f"{name}.json"
        write_spec(spec, path)
        self._told[name] = self.plan
        return Child((*self._command(role_of(name)), str(path)), lifeline=self._lifeline,
                     log=self._log)  # fmt: skip

    def _on_tick(self) -> None:
        self._check_children()
        now = self.clock.monotonic()
        links = [
            Link(keeper.beat, keeper.status.get("last_message_ts_ms") is not None)
            for keeper in self._keepers.values()
            if keeper.role == "connector" and keeper.beat is not None
        ]
        if self._fallback.is_due(now, links):
            self._fall_back()

    def _check_children(self) -> None:
        now = self.clock.monotonic()
        for keeper in self._everyone():
            keeper.check(now)
        if any(keeper.is_gone for keeper in self._leaving):
            self._leaving = [keeper for keeper in self._leaving if not keeper.is_gone]
            self._start_missing()
        forwarder = self._keepers.get(FORWARDER)
        if forwarder and forwarder.exit_code == EX_CANTCREAT and FORWARDER not in self._been_up:
            raise TakenError(f"metrics.endpoint: {self._metrics} cannot be bound")

    # -- control plane ---------------------------------------------------------------------------

    def _on_control(self) -> None:
        for letter in self._router.receive():
            match letter.message["type"]:
                case "ready":
                    self._on_ready(letter)
                case "heartbeat":
                    self._on_heartbeat(letter)
                case "resync":
                    self._on_resync(letter.message)
                case "request":
                    self._router.send(letter.sender, self._reply(letter.message))
                case _:
                    self._router.invalid["type"] += 1

    def _on_ready(self, letter: Letter) -> None:
        name = letter.sender.decode()
        keeper = self._keepers.get(name)
        if keeper is None or not keeper.on_ready(self.clock.monotonic(), letter.message):
            return
        address = str(keeper.ready.get("prometheus", ""))
        port = address.rpartition(":")[2]
        if port.isdigit():
            self._prometheus[name] = int(port)
        self._learn_endpoints(keeper)
        self._tell(name)
        log.info("up", child=name, pid=keeper.pid,
                 after_s=round(self.clock.monotonic() - keeper.started, 2))  # fmt: skip
        self._been_up.add(name)
        self._look()

    def _learn_endpoints(self, keeper: Keeper) -> None:
        """Take over the addresses that only a child that runs can know."""
        endpoints = keeper.ready.get("endpoints")
        endpoints = endpoints if isinstance(endpoints, dict) else {}
        if keeper.name == FORWARDER:
            self._metrics = str(endpoints.get("metrics", self._metrics))
            if FORWARDER in self._been_up:
                for worker in self.plan.workers:
                    self._router.send(worker, {"type": "republish"})
        if keeper.name == SIMULATOR and "websocket" in endpoints:
            source: Source = "replay" if self.plan.config.source == "replay" else "sim"
            self._change_source(source, str(endpoints["websocket"]))
            self._start_missing()

    def _on_heartbeat(self, letter: Letter) -> None:
        keeper = self._keepers.get(letter.sender.decode())
        status = letter.message.get("status")
        if keeper is not None and isinstance(status, dict):
            keeper.on_heartbeat(self.clock.monotonic(), status)

    def _on_resync(self, message: dict[str, Any]) -> None:
        topic, reason = message.get("topic"), message.get("reason")
        connector = self.plan.connector_of(topic) if isinstance(topic, str) else None
        if connector is not None:
            self._resyncs.value += 1
            self._router.send(connector, {"type": "resync", "topic": topic, "reason": reason})

    def _tell(self, name: str) -> None:
        """Send a child what changed since its spec was written or it was last told."""
        before, after = self._told[name], self.plan
        self._told[name] = after
        if role_of(name) == "connector" and (before.source, before.url) != (
            after.source,
            after.url,
        ):
            url = fill_category(after.url, category_of(name))
            self._router.send(name, {"type": "source", "source": after.source, "url": url})
        step = change(before, after)
        for receiver, command in (*step.unsubscribe, *step.readers, *step.subscribe):
            if receiver == name:
                self._router.send(name, command)

    def _apply(self, plan: Plan) -> None:
        """
        Bring the running pipeline to a new plan.

        Workers are told first: who joins a topic listens before it flows, and who leaves one does
        not take its end for a loss. A child that is not up is told when it is.
        """
        self.plan = plan
        for name in [name for name in self._keepers if name not in plan.processes]:
            self._dismiss(name)
        for name in plan.processes:
            keeper = self._keepers.get(name)
            if keeper is not None and keeper.is_up:
                self._tell(name)
        self._start_missing()
        self._look()

    # -- source ----------------------------------------------------------------------------------

    def _fall_back(self) -> None:
        """Start the simulator; connectors change over when it says its address."""
        log.warning("the exchange cannot be reached: SIMULATED data until it answers",
                    url=self.plan.live_url)  # fmt: skip
        self._fallbacks.value += 1
        self._apply(dataclasses.replace(self.plan, has_simulator=True))
        settings = self.plan.config.connector
        url = fill_category(self.plan.live_url, category_of(self.plan.connectors[0]))
        self._prober = Prober(
            url, pause_initial_s=settings.backoff_initial_s, pause_max_s=settings.backoff_max_s
        )
        self.watch(self._prober.reader, self._on_exchange_answers)
        self._prober.start()

    def _on_exchange_answers(self) -> None:
        assert self._prober is not None, "only a prober answers"
        self.unwatch(self._prober.reader)
        self._prober.close()
        self._prober = None
        log.warning("the exchange answers: changing over to LIVE data", url=self.plan.live_url)
        self._change_source("live", self.plan.live_url)
        self._apply(dataclasses.replace(self.plan, has_simulator=False))

    def _change_source(self, source: Source, url: str) -> None:
        if (source, url) != (self.plan.source, self.plan.url):
            self._apply(dataclasses.replace(self.plan, source=source, url=url))
            log.info("source", source=source, url=url)

    # -- requests of the command line ------------------------------------------------------------

    def _reply(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            request = msgspec.convert(message, _Request)
            result = self._result(request)
        except PipelineError as error:
            return _refusal(message, str(error), error.exit_code)
        except msgspec.ValidationError as error:
            self._router.invalid["unreadable"] += 1
            return _refusal(message, str(error), EX_USAGE)
        return {"type": "reply", "id": request.id, "ok": True, "result": result}

    def _result(self, request: _Request) -> dict[str, Any]:
        if request.command == "status":
            self._look()
            return self.snapshot.status
        if request.command not in ("subscribe", "unsubscribe"):
            raise msgspec.ValidationError(f"unknown command {request.command!r}")
        words = msgspec.convert(request.arguments, _Markets).markets
        before = self.plan
        if request.command == "subscribe":
            self._apply(subscribe(before, words))
        else:
            self._apply(unsubscribe(before, words))
        plan = self.plan if request.command == "subscribe" else before
        log.info(request.command, markets=words)
        return {
            "topics": [
                {"process": plan.connector_of(stream.topic), "topic": exchange_topic(stream)}
                for word in words
                for stream in streams_of_market(plan, word)
            ]
        }

    # -- what is said ----------------------------------------------------------------------------

    def _on_second(self) -> None:
        self._look()
        if not self._running:
            return
        for view in self._views:
            payload = {
                **view.status,
                **view.summary(),
                "v": SCHEMA_VERSION,
                "kind": "process",
                "source": self.plan.source,
                "publish_ts_ns": self.clock.time_ns(),
            }
            self._publisher.publish(process_topic(view.process), payload)
            self._published.value += 1
        self._bound_log()

    def _look(self) -> None:
        """Make the snapshot, and keep ``endpoints.json`` as it should be."""
        self._views = tuple(self._process_views())
        connectors = connector_entries(self.plan, self._views)
        reasons = unready_reasons(self.plan, self._views, connectors, self._not_live_s())
        status = {
            "version": metadata.version("bybit-pipeline"),
            "source": self.plan.source,
            "source_setting": self.plan.config.source,
            "network": self.plan.config.network,
            "started_ts_ms": self._started_ts_ms,
            "run_dir": self.plan.run_dir,
            "metrics": self._metrics,
            "http": self._http.address,
            "ready": not reasons,
            "reasons": reasons,
            "processes": [{**view.summary(), "counts": dict(view.status)} for view in self._views],
            "connectors": connectors,
            "books": book_counts(self.plan, self._views),
        }
        targets = [
            {"targets": [view.prometheus], "labels": {"process": view.process, "role": view.role}}
            for view in self._views
            if view.prometheus
        ]
        self.snapshot = Snapshot(
            status=status, targets=targets, is_ready=not reasons, reasons=reasons
        )
        self._http.snapshot = self.snapshot
        self._keep_endpoints()

    def _process_views(self) -> Iterator[ProcessView]:
        now = self.clock.monotonic()
        yield ProcessView(
            process=self.process, role=self.role, pid=os.getpid(), state="up", is_up=True,
            is_flapping=False, restarts={}, uptime_s=now - self._started,
            prometheus=self._http.address, exit_code=None, status={}, **_usage(os.getpid()),
        )  # fmt: skip
        for keeper in self._keepers.values():
            yield ProcessView(
                process=keeper.name, role=keeper.role, pid=keeper.pid, state=keeper.state,
                is_up=keeper.is_up, is_flapping=keeper.is_flapping, restarts=keeper.restarts,
                uptime_s=None if keeper.pid is None else now - keeper.started,
                prometheus=str(keeper.ready.get("prometheus", "")), exit_code=keeper.exit_code,
                status=keeper.status, **_usage(keeper.pid),
            )  # fmt: skip

    def _not_live_s(self) -> dict[str, float]:
        """Seconds since each book that is not ``live`` was last seen ``live``."""
        return {}

    def _keep_endpoints(self) -> None:
        """Write ``endpoints.json`` when everything is up, and when it changes after that."""
        is_whole = all(
            name in self._keepers and self._keepers[name].is_up for name in self.plan.processes
        )
        if not self._running or (self._endpoints is None and not is_whole):
            return
        endpoints = {
            "pid": os.getpid(),
            "source": self.plan.source,
            "metrics": self._metrics,
            "control": self.plan.control_endpoint,
            "http": f"http://{self._http.address}",
            "market": {name: self.plan.market_endpoint(name) for name in self.plan.connectors},
            "prometheus": {
                view.process: view.prometheus for view in self._views if view.prometheus
            },
        }
        if endpoints != self._endpoints:
            if self._endpoints is None:
                log.info("everything is up", source=self.plan.source, metrics=self._metrics,
                         http=endpoints["http"],
                         after_s=round(self.clock.monotonic() - self._started, 2))  # fmt: skip
            self._endpoints = endpoints
            self._run_dir.write_endpoints(endpoints)

    def _bound_log(self) -> None:
        """Keep the log file of the live view, and one before it, within its bound."""
        if self._log is not None and self._log.stat().st_size > LOG_BYTES_MAX:
            shutil.copyfile(self._log, self._log.with_name(f"{LOG}.1"))
            os.truncate(self._log, 0)

    # -- counters --------------------------------------------------------------------------------

    def _declare_counters(self) -> None:
        telemetry = self.telemetry
        self._resyncs = telemetry.counter(
            "resyncs_routed_total", "Resync requests passed on to connectors."
        )
        self._fallbacks = telemetry.counter(
            "source_fallbacks_total", "Changes from an exchange out of reach to the simulator."
        )
        self._published = telemetry.counter(
            "metrics_published_total", "Metrics published.", process=self.process, kind="process"
        )
        telemetry.gauges("process_up", "1 while a process is up.", ("process",),
                         lambda: [((v.process,), v.is_up) for v in self._views])  # fmt: skip
        telemetry.gauges("process_flapping", "1 from too many failures until it is stable.",
                         ("process",),
                         lambda: [((v.process,), v.is_flapping) for v in self._views])  # fmt: skip
        telemetry.counters("process_restarts_total", "Restarts.", ("process", "reason"),
                           self._restart_samples)  # fmt: skip
        telemetry.gauges("source_info", "1 for the source in force.", ("source",),
                         lambda: [((s,), s == self.plan.source) for s in SOURCES])  # fmt: skip
        telemetry.gauges("pipeline_ready", "1 while /readyz says so.", (),
                         lambda: [((), self.snapshot.is_ready)])  # fmt: skip
        telemetry.counters("control_frames_invalid_total", "Control frames dropped.", ("reason",),
                           self._invalid_samples)  # fmt: skip

    def _restart_samples(self) -> Samples:
        for view in self._views:
            for reason in EXIT_REASONS:
                yield (view.process, reason), view.restarts.get(reason, 0)

    def _invalid_samples(self) -> Samples:
        for reason in INVALID_REASONS:
            yield (reason,), self._router.invalid[reason]


def _refusal(message: dict[str, Any], error: str, exit_code: int) -> dict[str, Any]:
    return {"type": "reply", "id": message.get("id"), "ok": False, "error": error,
            "exit_code": exit_code}  # fmt: skip


def _usage(pid: int | None) -> dict[str, Any]:
    used = None if pid is None else usage(pid)
    cpu_seconds, rss_bytes = used if used is not None else (None, None)
    return {"cpu_seconds": cpu_seconds, "rss_bytes": rss_bytes}
