"""
The supervisor: one loop that starts, watches, restarts and stops the children and answers users.

Moves messages between the children, the command line and the parts that decide: ``plan`` (who does
what), ``child`` and ``policy`` (who lives), ``source`` (live or simulated), ``status`` (what is
said). It is an ``Actor`` whose control plane is the other end: a ROUTER.
"""

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec
import structlog
import zmq
from prometheus_client import GCCollector, ProcessCollector

from bybit_pipeline.shared.bus.metrics import MetricPublisher
from bybit_pipeline.shared.errors import (
    EX_CANTCREAT,
    EX_OK,
    EX_UNAVAILABLE,
    EX_USAGE,
    NoPipelineError,
    PipelineError,
    TakenError,
)
from bybit_pipeline.shared.runtime.actor import Actor
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.runtime.loop import STOP_SIGNALS
from bybit_pipeline.shared.runtime.telemetry import Samples, Telemetry
from bybit_pipeline.shared.settings.ports import check_free, check_free_endpoint, remove_socket_file
from bybit_pipeline.shared.settings.specs import ProcessSpec
from bybit_pipeline.shared.wire.messages import Source
from bybit_pipeline.shared.wire.topics import process_topic
from bybit_pipeline.supervisor.children.children import Children, module_command
from bybit_pipeline.supervisor.children.last_will import LastWill
from bybit_pipeline.supervisor.children.process import Lifeline
from bybit_pipeline.supervisor.children.timing import Timing
from bybit_pipeline.supervisor.plan.market_args import (
    markets_of,
    streams_of,
    subscribe,
    unsubscribe,
)
from bybit_pipeline.supervisor.plan.names import FORWARDER, SIMULATOR, exchange_topic, fill_category
from bybit_pipeline.supervisor.plan.plan import Plan
from bybit_pipeline.supervisor.run_dir import LOG, RunDir
from bybit_pipeline.supervisor.source.discovery import Discovery
from bybit_pipeline.supervisor.source.fallback import FallbackRule, Link
from bybit_pipeline.supervisor.source.probe import Prober
from bybit_pipeline.supervisor.status.gather import Gather
from bybit_pipeline.supervisor.status.pending import Answer, PendingSubscriptions
from bybit_pipeline.supervisor.status.router import INVALID_REASONS, ControlRouter, Envelope
from bybit_pipeline.supervisor.status.server import Snapshot, StatusServer
from bybit_pipeline.supervisor.status.snapshot import Reporter
from bybit_pipeline.supervisor.status.status import HeartbeatStatus

log = structlog.get_logger()

TICK_S = 0.1
SECOND_S = 1.0
STOP_GROUPS = (("connector",), ("simulator", "trades", "orderbook"), ("forwarder", "dashboard"))
"""Roles in the order in which they stop; each group has its part of ``Timing.stop_s``."""
WARNING_PERIOD_S = 10.0
"""At most one line in this time about heartbeats that cannot be used."""


class _Request(msgspec.Struct, frozen=True):
    """A request of a command line."""

    id: str | int
    command: str
    arguments: dict[str, Any] = {}


class _Markets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of ``subscribe`` and ``unsubscribe``."""

    markets: list[str]


class _Topics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of ``answers``: bus topics."""

    topics: list[str]


class Supervisor(Actor):
    """
    Run a plan until told to stop.

    Args:
        plan: What to run.
        run_dir: Where, already held.
        log_children: Send the children's output to ``pipeline.log`` there, not to our stderr.
        command: How to run a child of a role, after the interpreter.
        timing: Time limits and the restart policy.

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
        timing: Timing | None = None,
    ) -> None:
        spec = ProcessSpec(process="supervisor", role="supervisor", run_dir=plan.run_dir)
        super().__init__(spec, clock=clock, telemetry=telemetry)
        self.snapshot = Snapshot()
        """What is shown to users, made once a second; any thread may read it."""
        self._run_dir = run_dir
        self._log = run_dir.path / LOG if log_children else None
        self._lifeline = Lifeline()
        self._timing = timing or Timing()
        self._children = Children(
            plan,
            self._send,
            lifeline=self._lifeline,
            log=self._log,
            command=command,
            timing=self._timing,
        )
        self._last_will = LastWill(f"{self.clock.time_ns() // 1_000_000:x}")
        self._forwarder_starts = 0
        self._endpoints: dict[str, Any] | None = None
        """As written to ``endpoints.json``; None before everything was up for the first time."""
        self._write_failed = False
        """That file could not be written, which was said."""
        self._fallback = FallbackRule(
            is_auto=plan.config.source == "auto", after_s=plan.config.connector.fallback_after_s
        )
        self._discovery = Discovery(plan.config.instruments, plan.config.connector, self.telemetry)
        self._prober: Prober | None = None
        self._warned_at = float("-inf")
        self._has_news = False
        self._refreshed_at = 0.0
        """A heartbeat has come since the last tick."""
        self._gather = Gather()
        self._pending = PendingSubscriptions()
        self._cleanup = contextlib.ExitStack()
        self._declare_counters()

    @property
    def plan(self) -> Plan:
        """The plan in force."""
        return self._children.plan

    @property
    def _has_only_patterns(self) -> bool:
        """True while patterns are all there is, and stand for nothing: no connector runs."""
        return bool(self.plan.universe.patterns) and not self.plan.connectors

    # -- start and stop --------------------------------------------------------------------------

    def run(self, lifeline: int | None = None) -> int:  # noqa: ARG002
        """Start everything, run until told to stop, stop everything; the exit code."""
        self._context = zmq.Context()
        signal.signal(signal.SIGCHLD, lambda *_: None)  # an exit of a child wakes the loop
        numbers = [*STOP_SIGNALS]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # not under nohup
            numbers.append(signal.SIGHUP)
        self.loop.catch_signals(numbers, exit_on_second=False, on_wakeup=self._on_wakeup)
        try:
            self.on_start()
            self.loop.run()
            self._stop_children()
        finally:
            self.on_stop()
            self.loop.close()
            self._context.destroy(linger=0)
        log.info("stopped", uptime_s=round(self.clock.monotonic() - self._started, 1))
        return EX_OK

    def on_start(self) -> None:
        """Bind what is ours, then start the children."""
        config = self.plan.config
        check_free_endpoint("metrics.endpoint", config.metrics.endpoint)
        if config.dashboard.enabled:
            check_free("dashboard.port", config.dashboard.host, config.dashboard.port)
        ProcessCollector(registry=self.telemetry.registry)
        GCCollector(registry=self.telemetry.registry)
        self._http = StatusServer(
            config.prometheus.host, config.prometheus.port, self.telemetry.registry
        )
        self._cleanup.callback(self._http.close)
        self._reporter = Reporter(self.clock, self.telemetry, address=self._http.address)
        self._router = ControlRouter(self.context, self.plan.control_endpoint)
        self._publisher = MetricPublisher(self.context, self.plan.metrics_in)
        self.watch(self._router.socket, self._on_control)
        self.watch(self._discovery.client.reader, self._on_lists)
        self.every(TICK_S, self._on_tick)
        self.every(SECOND_S, self._on_second)
        log.info(
            "starting",
            pid=os.getpid(),
            run_dir=self.plan.run_dir,
            source=config.source,
            network=config.network,
            processes=len(self.plan.processes),
        )
        self._children.start_missing(self.clock.monotonic())
        self._look()

    def on_stop(self) -> None:
        """End what still runs, then let go of everything."""
        for child in self._children.all:
            child.kill()
        while any(child.pid is not None for child in self._children.all):
            time.sleep(0.005)
            self._children.check(self.clock.monotonic())
        if self._prober is not None:
            self._prober.close()
        self._discovery.close()
        if self._forwarder_starts:
            remove_socket_file(self._children.metrics)
        self._lifeline.close()
        self._cleanup.close()

    def _stop_children(self) -> None:
        """Stop the children in the reverse order of their start; kill those who do not."""
        self._run_dir.remove_endpoints()
        began = self.clock.monotonic()
        for number, roles in enumerate(STOP_GROUPS, start=1):
            deadline = began + self._timing.stop_s * number / len(STOP_GROUPS)
            now = self.clock.monotonic()
            group = self._children.stop(roles, now, within_s=deadline - now)
            while self.loop.stop_signals < 2 and any(child.pid is not None for child in group):
                self.turn()

    def _on_wakeup(self) -> None:
        self._check_children()
        self._look()

    # -- watching --------------------------------------------------------------------------------

    def _check_children(self) -> None:
        """Notice who is gone, and say of the markets of a worker that nothing is known."""
        now = self.clock.monotonic()
        self._children.check(now)
        if self.loop.is_running:
            down = self._children.down_workers
            for metric in self._last_will.due(self.plan, down, now, self.clock.time_ns()):
                self._publisher.publish(metric.topic, metric.payload)
                self._down_published.value += 1

    def _on_tick(self) -> None:
        self._check_children()
        self._send_gathered()
        now = self.clock.monotonic()
        if not self.loop.is_running:
            return
        if (
            self._has_news
            and not self.snapshot.is_ready
            and now - self._refreshed_at >= self._timing.refresh_s
        ):
            self._look()  # somebody waits for it; no need to wait for the next second
        children = self._children.by_name
        if not self._forwarder_starts and children[FORWARDER].exit_code == EX_CANTCREAT:
            raise TakenError(f"metrics.endpoint: {self._children.metrics} cannot be bound")
        links = [
            Link(child.last_heard, child.status.get("last_message_ts_ms") is not None)
            for child in children.values()
            if child.role == "connector" and child.last_heard is not None
        ]
        if self._discovery.link is not None and self._has_only_patterns:
            links = [self._discovery.link]
        if self._fallback.is_due(now, links):
            self._fall_back()
        self._keep_patterns()

    def _on_second(self) -> None:
        if not self.loop.is_running:
            return
        self._look()
        for process, payload in self._reporter.messages():
            self._publisher.publish(process_topic(process), payload)
            self._published.value += 1
        if self._log is not None:
            self._run_dir.rotate_log()

    def _look(self) -> None:
        """Make the snapshot, and keep ``endpoints.json`` as it should be."""
        self._has_news, self._refreshed_at = False, self.clock.monotonic()
        self.snapshot = self._reporter.look(
            self.plan,
            self._children.by_name.values(),
            metrics=self._children.metrics,
            dashboard=self._children.dashboard,
        )
        self._http.snapshot = self.snapshot
        if self.loop.is_running:
            self._keep_endpoints()

    def _keep_endpoints(self) -> None:
        """Write ``endpoints.json`` when everything is up, and when it changes after that."""
        if self._endpoints is None and not self._children.is_complete:
            return
        plan, metrics = self.plan, self._children.metrics
        endpoints = {
            "pid": os.getpid(),
            "source": plan.source,
            "metrics": metrics,
            "keys": plan.keys,
            "control": plan.control_endpoint,
            "http": f"http://{self._http.address}",
            "dashboard": self._children.dashboard or None,
            "market": {name: plan.market_endpoint(name) for name in plan.connectors},
            "prometheus": self._reporter.addresses(),
        }
        if endpoints == self._endpoints:
            return
        try:
            self._run_dir.write_endpoints(endpoints)
        except OSError as error:
            if not self._write_failed:
                log.error("cannot write endpoints.json, trying again", error=str(error))
            self._write_failed = True
            return
        self._write_failed = False
        if self._endpoints is None:
            page = {"dashboard": endpoints["dashboard"]} if endpoints["dashboard"] else {}
            log.info(
                "everything is up",
                source=plan.source,
                metrics=metrics,
                http=endpoints["http"],
                **page,
                after_s=round(self.clock.monotonic() - self._started, 2),
            )
        self._endpoints = endpoints

    # -- control plane ---------------------------------------------------------------------------

    def _send(self, process: str, message: Any) -> None:
        self._router.send(process, message)

    def _on_control(self) -> None:
        for envelope in self._router.receive():
            match envelope.message["type"]:
                case "ready":
                    self._on_ready(envelope)
                case "heartbeat":
                    self._on_heartbeat(envelope)
                case "resync":
                    self._on_resync(envelope.message)
                case "request" if envelope.message.get("command") == "gaps":
                    self._ask_for_gaps(envelope)
                case "request":
                    self._router.send(envelope.sender, self._reply(envelope.message))
                case "gaps":
                    self._on_gaps(envelope)
                case _:
                    self._router.invalid["type"] += 1

    def _on_ready(self, envelope: Envelope) -> None:
        now = self.clock.monotonic()
        child = self._children.on_ready(envelope.sender.decode(), envelope.message, now)
        if child is None:
            return
        log.info("up", child=child.name, pid=child.pid, after_s=round(now - child.started, 2))
        if child.name == FORWARDER:
            self._forwarder_starts += 1
            if self._forwarder_starts > 1:
                for worker in self.plan.workers:
                    self._send(worker, {"type": "republish"})
                self._last_will.repeat()
        if child.name == SIMULATOR:
            source: Source = "replay" if self.plan.config.source == "replay" else "sim"
            self._change_source(source, child.endpoint("websocket"))
        self._look()

    def _on_heartbeat(self, envelope: Envelope) -> None:
        """Take a sign of life; also one whose status cannot be used, which is dropped."""
        child = self._children.by_name.get(envelope.sender.decode())
        status: dict[str, Any] | None = envelope.message.get("status") or {}
        now = self.clock.monotonic()
        try:
            msgspec.convert(status, HeartbeatStatus)
        except msgspec.ValidationError as error:
            self._router.invalid["content"] += 1
            status = None
            if child is not None and now - self._warned_at >= WARNING_PERIOD_S:
                self._warned_at = now
                log.warning(
                    "heartbeat with an unusable status", child=child.name, error=str(error)[:200]
                )
        if child is not None:
            child.on_heartbeat(now, status)
            self._has_news = True
            self._drop_refused(child.name, status or {})

    def _drop_refused(self, connector: str, status: dict[str, Any]) -> None:
        """Follow no longer what somebody subscribed and the exchange refuses."""
        streams = self._pending.take(self.plan, connector, status)
        if streams:
            self._subscriptions_refused.value += len(streams)
            log.warning(
                "refused by the exchange, followed no longer",
                topics=[stream.topic for stream in streams],
            )
            self._apply(self.plan.with_universe(self.plan.universe.without_named(streams)))

    def _on_resync(self, message: dict[str, Any]) -> None:
        """Pass a worker's wish for a new snapshot on to the connector that has the topic."""
        topic, reason = message.get("topic"), message.get("reason")
        connector = self.plan.connector_of(topic) if isinstance(topic, str) else None
        if connector is not None:
            self._resyncs.value += 1
            self._send(connector, {"type": "resync", "topic": topic, "reason": reason})

    # -- changing --------------------------------------------------------------------------------

    def _apply(self, plan: Plan) -> None:
        before = set(self.plan.processes)
        self._children.reconcile(plan, self.clock.monotonic())
        for name in before - set(plan.processes):
            self._publisher.tombstone(process_topic(name))
        self._look()

    def _change_source(self, source: Source, url: str) -> None:
        if url and (source, url) != (self.plan.source, self.plan.url):
            log.info("source", source=source, url=url)
            self._apply(dataclasses.replace(self.plan, source=source, url=url))

    def _fall_back(self) -> None:
        """Start the simulator; connectors change over when it says its address."""
        plan, settings = self.plan, self.plan.config.connector
        log.warning(
            "the exchange cannot be reached: SIMULATED data until it answers", url=plan.live_url
        )
        self._fallbacks.value += 1
        self._prober = Prober(
            fill_category(plan.live_url, plan.first_category),
            pause_initial_s=settings.backoff_initial_s,
            pause_max_s=settings.backoff_max_s,
        )
        self.watch(self._prober.reader, self._on_exchange_answers)
        self._prober.start()
        self._apply(dataclasses.replace(plan, has_simulator=True))

    def _on_exchange_answers(self) -> None:
        """Change over to live data for good, and let the simulator go."""
        assert self._prober is not None, "only a prober answers"
        self.unwatch(self._prober.reader)
        self._prober.close()
        self._prober = None
        log.warning("the exchange answers: changing over to LIVE data", url=self.plan.live_url)
        self._change_source("live", self.plan.live_url)
        self._apply(dataclasses.replace(self.plan, has_simulator=False))

    def _keep_patterns(self) -> None:
        """Ask for the lists of instruments that patterns need, if it is time to."""
        asks_exchange = self._fallback.is_armed and self._has_only_patterns
        now = self.clock.monotonic()
        plan = self._discovery.look(self.plan, now, asks_exchange=asks_exchange)
        if plan is not self.plan:
            self._apply(plan)

    def _on_lists(self) -> None:
        """Let symbols join and leave as the exchange lists them."""
        now_ms = self.clock.time_ns() // 1_000_000
        universe = self._discovery.take(self.plan, self.clock.monotonic(), now_ms)
        if self.loop.is_running:
            self._apply(self.plan.with_universe(universe))

    # -- requests of the command line ------------------------------------------------------------

    def _reply(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            request = msgspec.convert(message, _Request)
            if not self.loop.is_running:
                raise NoPipelineError("the pipeline is stopping")
            result = self._result(request)
        except PipelineError as error:
            return _refusal(message, str(error), error.exit_code)
        except msgspec.ValidationError as error:
            self._router.invalid["content"] += 1
            return _refusal(message, str(error), EX_USAGE)
        return {"type": "reply", "id": request.id, "ok": True, "result": result}

    def _ask_for_gaps(self, envelope: Envelope) -> None:
        """Pass the question on to the workers; ``_send_gathered`` answers it."""
        try:
            request = msgspec.convert(envelope.message, _Request)
        except msgspec.ValidationError as error:
            self._router.invalid["content"] += 1
            self._router.send(envelope.sender, _refusal(envelope.message, str(error), EX_USAGE))
            return
        children = self._children.by_name
        workers = [name for name in self.plan.workers if name in children and children[name].is_up]
        now = self.clock.monotonic()
        number = self._gather.ask(envelope.sender, request.id, workers, now)
        if number is None:
            refusal = _refusal(envelope.message, "too many questions at a time", EX_UNAVAILABLE)
            self._router.send(envelope.sender, refusal)
            return
        for worker in workers:
            self._send(worker, {"type": "gaps", "id": number})
        self._send_gathered()

    def _on_gaps(self, envelope: Envelope) -> None:
        number, gaps = envelope.message.get("id"), envelope.message.get("gaps")
        if not self._gather.take(number, envelope.sender.decode(), gaps):
            self._router.invalid["content"] += 1
        self._send_gathered()

    def _send_gathered(self) -> None:
        for answer in self._gather.due(self.clock.monotonic()):
            result = {"gaps": answer.gaps, "silent": answer.silent}
            reply = {"type": "reply", "id": answer.request_id, "ok": True, "result": result}
            self._router.send(answer.receiver, reply)

    def _result(self, request: _Request) -> dict[str, Any]:
        if request.command == "status":
            self._look()
            return self.snapshot.status
        if request.command == "answers":
            self._look()
            topics = msgspec.convert(request.arguments, _Topics).topics
            return {"answers": self._answers(topics)}
        if request.command not in ("subscribe", "unsubscribe"):
            raise msgspec.ValidationError(f"unknown command {request.command!r}")
        words = msgspec.convert(request.arguments, _Markets).markets
        before = self.plan
        is_joining = request.command == "subscribe"
        after = subscribe(before, words) if is_joining else unsubscribe(before, words)
        log.info(request.command, markets=words)
        asked = set(before.universe.named)
        self._pending.start(s for s in after.universe.named if s not in asked)
        self._apply(after)
        self._keep_patterns()
        markets = markets_of(before, words)
        plan = after if is_joining else before
        changed = abs(len(_symbols(after)) - len(_symbols(before)))
        return {
            "topics": [
                {
                    "process": plan.connector_of(stream.topic),
                    "topic": exchange_topic(stream),
                    "bus_topic": stream.topic,
                }
                for market in markets
                if not market.is_pattern
                for stream in streams_of(plan, market)
            ],
            "patterns": [str(market) for market in markets if market.is_pattern],
            "symbols": changed,
        }

    def _answers(self, topics: Sequence[str]) -> dict[str, Any]:
        """State and reason of bus topics, as far as the exchange has answered."""
        streams = {placement.stream.topic: placement for placement in self.plan.placements}
        entries = {entry["process"]: entry for entry in self.snapshot.status["connectors"]}
        found = {}
        for topic in topics:
            answer = self._pending.answer(topic)
            placement = streams.get(topic)
            entry = entries.get(placement.connector) if placement else None
            if answer is None and placement is not None and entry is not None:
                name = exchange_topic(placement.stream)
                answer = Answer(entry["topics"][name], entry["rejected"].get(name, ""))
            found[topic] = (answer or Answer("pending"))._asdict()
        return found

    # -- counters --------------------------------------------------------------------------------

    def _declare_counters(self) -> None:
        telemetry = self.telemetry
        self._resyncs = telemetry.counter(
            "resyncs_routed_total", "Resync requests passed on to connectors."
        )
        self._subscriptions_refused = telemetry.counter(
            "subscriptions_refused_total", "Topics that were asked for at runtime and refused."
        )
        self._fallbacks = telemetry.counter(
            "source_fallbacks_total", "Changes from an exchange out of reach to the simulator."
        )
        self._published = telemetry.counter(
            "metrics_published_total", "Metrics published.", process=self.process, kind="process"
        )
        self._down_published = telemetry.counter(
            "metrics_published_total", "Metrics published.", process=self.process, kind="down"
        )
        telemetry.counters(
            "control_frames_invalid_total",
            "Control frames dropped.",
            ("reason",),
            self._invalid_samples,
        )

    def _invalid_samples(self) -> Samples:
        for reason in INVALID_REASONS:
            yield (reason,), self._router.invalid[reason]


def _symbols(plan: Plan) -> set[tuple[str, str]]:
    return {(p.stream.category, p.stream.symbol) for p in plan.placements}


def _refusal(message: dict[str, Any], error: str, exit_code: int) -> dict[str, Any]:
    return {
        "type": "reply",
        "id": message.get("id"),
        "ok": False,
        "error": error,
        "exit_code": exit_code,
    }
