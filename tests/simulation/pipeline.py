"""
The pipeline in one process: the production supervisor and its children on virtual time.

``Pipeline`` is the machine: it starts what the supervisor starts, and can kill, hang and slow down
every process. State on disk (specs, the attempts of connectors, the gap ledger) outlives processes.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bybit_pipeline.processes.connector.actor import ConnectorActor
from bybit_pipeline.processes.forwarder.actor import Forwarder
from bybit_pipeline.processes.orderbook.actor import OrderbookWorker
from bybit_pipeline.processes.trades.actor import TradesWorker
from bybit_pipeline.shared.runtime.actor import Actor
from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.settings.specs import (
    ConnectorSpec,
    ForwarderSpec,
    OrderbookSpec,
    TradesSpec,
    read_spec,
)
from bybit_pipeline.shared.wire.topics import link_topic
from bybit_pipeline.supervisor.ledger.ledger import PipelineLedger
from bybit_pipeline.supervisor.ledger.rows import Followed, GapRow
from bybit_pipeline.supervisor.ledger.store import LedgerState
from bybit_pipeline.supervisor.plan.plan import Plan
from bybit_pipeline.supervisor.supervisor import Supervisor
from tests.simulation.bus import Context, Network, Poller
from tests.simulation.connection import SteppedClient
from tests.simulation.exchange import Exchange
from tests.simulation.world import MachineClock, Process, Thread, World

START_S = (0.15, 0.5)
"""How long the start of a process takes."""
SPECS: dict[str, Any] = {
    "forwarder": (Forwarder, ForwarderSpec),
    "trades": (TradesWorker, TradesSpec),
    "orderbook": (OrderbookWorker, OrderbookSpec),
    "connector": (ConnectorActor, ConnectorSpec),
}


class QuietTelemetry(Telemetry):
    """Counters without an exporter."""

    def serve(self, host: str, port: int = 0) -> int:
        return 1


class Disk:
    """What the ledger's writer has written; it can be full."""

    def __init__(self) -> None:
        self.gaps: dict[int, GapRow] = {}
        self.followed: dict[tuple[str, ...], Followed] = {}
        self.numbers = 1
        self.is_full = False


class DiskWriter:
    """``LedgerWriter`` without a thread: rows are durable at once, or wait for a full disk."""

    def __init__(self, disk: Disk, *_: Any) -> None:
        self._disk = disk
        self._waiting: dict[int, GapRow] = {}
        self.rows_written = self.rows_lost = self.errors = 0
        self.error = ""

    def start(self, *, wait_s: float) -> LedgerState | None:
        first = self.reserve(1024)
        open_gaps = [row for row in self._disk.gaps.values() if row.duration_s is None]
        followed = [each for each in self._disk.followed.values() if each.is_open]
        return LedgerState(first, open_gaps, followed, {}, list(self._disk.gaps.values())[-200:])

    def reserve(self, count: int) -> int:
        first, self._disk.numbers = self._disk.numbers, self._disk.numbers + count
        return first

    @property
    def rows_waiting(self) -> int:
        return len(self._waiting)

    def waiting(self) -> list[GapRow]:
        return list(self._waiting.values())

    def put_gap(self, gap: GapRow) -> None:
        self._waiting[gap.gap_id] = gap
        if not self._disk.is_full:
            self._disk.gaps.update(self._waiting)
            self._waiting.clear()

    def put_followed(self, interval: Followed) -> None:
        key = (interval.source, *interval.key, str(interval.start_ms))
        self._disk.followed[key] = interval

    def run_soon(self, name: str, job: Callable[[Any], None]) -> None:
        if name == "numbers":
            job(self)

    def close(self, *, within_s: float) -> None:
        pass


class Child:
    """A running child, as ``Child`` of the supervisor sees it."""

    def __init__(self, pipeline: "Pipeline", command: Sequence[str]) -> None:
        self._pipeline = pipeline
        path = Path(command[-1])
        self.process = Process(path.stem)
        self.role = command[1].rpartition(".")[2]
        self.actor: Actor | None = None
        self.threads: list[Thread] = []
        self.context = Context(pipeline.network, self.process)
        self.code: int | None = None
        self.pid = os.getpid()
        self.cpu_s = 0.0
        self.is_runnable = False
        actor_type, spec_type = SPECS[self.role]
        spec = read_spec(path, spec_type)
        world = pipeline.world
        world.after(world.random.uniform(*START_S), partial(self._start, actor_type, spec))

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        """SIGTERM: the process ends after its turn, unless it hangs."""
        world = self._pipeline.world
        delay_s = max(0.02, self.process.hung_until - world.now)
        world.after(delay_s, partial(self._end, 0))

    def kill(self) -> None:
        """SIGKILL."""
        self.crash(-9)

    def crash(self, code: int) -> None:
        """End without any last act."""
        if not self.process.is_dead:
            self.context.kill()
            self._end(code)

    def _end(self, code: int) -> None:
        if self.process.is_dead:
            return
        self.process.is_dead = True
        self.code = code
        if self.actor is not None:
            self.actor._close()
        if isinstance(self.actor, ConnectorActor):
            attempt = self.actor.client.stepped._attempt  # type: ignore[attr-defined]
            if attempt is not None and attempt.wire is not None:
                attempt.wire.end(ConnectionResetError())
        self.context.destroy()
        self._pipeline.children.pop(self.process.name, None)
        self._pipeline.on_exit(self)

    def _start(self, actor_type: Any, spec: Any) -> None:
        if self.process.is_dead:
            return
        pipeline, world = self._pipeline, self._pipeline.world
        options: dict[str, Any] = {}
        if actor_type is ConnectorActor:
            options["client"] = partial(SteppedClient, exchange=pipeline.exchange)
        actor = actor_type(spec, clock=pipeline.clock, telemetry=QuietTelemetry(), **options)
        self.actor = actor
        loop, poller = actor.loop, Poller()
        loop.poller = poller
        main = Thread(
            world, self.process, loop.turn, lambda: min(loop.next_due, poller.next_arrival())
        )
        poller.thread = main
        if actor_type is ConnectorActor:
            client = actor.client
            client.thread = Thread(world, self.process, client.turn, client.next_due)
            wanted = {link_topic(spec.process), *(s.topic_bytes for s in spec.streams)}

            def has_workers() -> bool:
                actor._publisher.drain_subscriptions()
                return not actor._publisher.wait_for_workers(wanted, 0.0)

            client.is_ready_to_connect = has_workers
        actor.open(self.context)
        main.wake(world.now)


class SimulatedSupervisor(Supervisor):
    """The supervisor with sockets in memory, without HTTP."""

    _loop: Any

    def open(self, context: Context, poller: Poller) -> None:
        """Start the pipeline."""
        self._loop.poller = poller
        self._http: Any = SimpleNamespace(
            address="127.0.0.1:1", url="http://127.0.0.1:1", snapshot=None
        )
        self._open(context)  # type: ignore[arg-type]

    def release(self) -> None:
        """Release what the operating system gave."""
        self._switch.close()
        self._discovery.close()
        self._lifeline.close()

    def turn(self) -> None:
        self._loop.turn()

    def next_due(self) -> float:
        due: float = self._loop.next_due
        return due

    @property
    def ledger(self) -> PipelineLedger:
        return self._ledger


class FakeRunDir:
    """A run directory that nobody else wants."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_endpoints(self, endpoints: Mapping[str, Any]) -> None:
        pass

    def remove_endpoints(self) -> None:
        pass


class Pipeline:
    """
    The machine on which a pipeline runs.

    Attributes:
        children: The running children by name.
    """

    def __init__(self, world: World, exchange: Exchange, plan: Plan) -> None:
        self.world, self.exchange = world, exchange
        self.clock = MachineClock(world)
        self.network = Network(world)
        self.disk = Disk()
        self.children: dict[str, Child] = {}
        self.plan = plan
        self.start_supervisor()

    def start_supervisor(self) -> None:
        """Start the supervisor, which starts everything else."""
        self.process = Process("supervisor")
        context = Context(self.network, self.process)
        poller = Poller()
        writer: Any = partial(DiskWriter, self.disk)
        self.supervisor = SimulatedSupervisor(
            self.plan,
            FakeRunDir(Path(self.plan.run_dir)),  # type: ignore[arg-type]
            clock=self.clock,
            telemetry=QuietTelemetry(),
            start=self._start_child,
            ledger=partial(PipelineLedger, writer=writer),
        )
        self._context = context
        thread = Thread(
            self.world,
            self.process,
            self.supervisor.turn,
            lambda: min(self.supervisor.next_due(), poller.next_arrival()),
        )
        self.thread = poller.thread = thread
        self.supervisor.open(context, poller)
        thread.wake(self.world.now)

    @property
    def plan_in_force(self) -> Plan:
        """The plan of the supervisor."""
        return self.supervisor.plan

    def close(self) -> None:
        """Release what the operating system gave."""
        for child in list(self.children.values()):
            child.crash(-9)
        self.supervisor.release()

    def kill_supervisor(self) -> None:
        """Kill the supervisor; its children follow, because their lifeline breaks."""
        self.process.is_dead = True
        self.plan = self.supervisor.plan
        self._context.kill()
        self.supervisor.release()
        for child in list(self.children.values()):
            child.terminate()

    def on_exit(self, child: Child) -> None:
        """SIGCHLD: the supervisor looks at its children."""
        self.world.after(0.002, self._wake_supervisor)

    def _wake_supervisor(self) -> None:
        def look() -> None:
            if not self.process.is_dead and self.world.now >= self.process.hung_until:
                self.supervisor._on_wakeup()

        look()

    def _start_child(self, command: Sequence[str], **_: Any) -> Child:
        child = Child(self, command)
        self.children[child.process.name] = child
        return child
