"""
The faults: what can go wrong between any two steps.

Every fault is a method of ``Faults``: it begins at once, ends by itself, and returns how long it
lasts. To add one, write the method and add it to ``FAULTS``; a set of runs then fails unless it was
exercised.
"""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from bybit_pipeline.shared.bus.control import ControlLink
from tests.simulation.bus import Context
from tests.simulation.exchange import DEPTH, Frame, Wire
from tests.simulation.pipeline import Pipeline
from tests.simulation.world import Process

KILLED_S = 0.3
HUNG_S = 1.5
SILENT_S = 2.0
KILLS_MAX = 3
"""Kills of one process in a run: with more, the restart policy waits for longer than a test."""

Fault = Callable[["Faults"], float]
ROLES = ("connector", "trades", "orderbook", "forwarder")
FRAME_FAULTS = (
    "lost frame",
    "duplicated frame",
    "truncated frame",
    "reordered frames",
    "malformed frame",
    "wrong update id",
    "repeated update id",
    "crossed book",
    "duplicated trades",
    "malformed trades",
)


@dataclass
class Outage:
    """A fault after which some topics must soon not be live."""

    kind: str
    start: float
    end: float
    limit_s: float
    process: str


class Faults:
    """
    Begins faults in one pipeline.

    Args:
        pipeline: The pipeline.
        seed: Chooses the first faults; the others are left to chance.

    Attributes:
        outages: Faults with a limit of their own for numbers that no longer follow.
        disturbed_until: Until then the supervisor, the forwarder or the machine cannot do its part.
        exempt: Symbols that need not be live at the end.
    """

    def __init__(self, pipeline: Pipeline, seed: int) -> None:
        self.pipeline = pipeline
        self._first = [KINDS[(2 * seed + n) % len(KINDS)] for n in range(2)]
        """The first faults; over a few dozen seeds, every kind is among them."""
        self.world = pipeline.world
        self.exchange = pipeline.exchange
        self.outages: list[Outage] = []
        self.disturbed_until = 0.0
        self.exempt: set[str] = set()
        self._kills: dict[str, int] = {}
        self._frame_faults: list[str] = []
        self._silent_topics: dict[str, float] = {}
        self._answers: list[float | None] = []
        self._refusal: tuple[float, tuple[Exception, float]] | None = None
        self._held: dict[str, bytes] = {}
        self._requests = 0
        self.exchange.distort = self._distort
        self.exchange.answer = self._answer
        self.exchange.refuses = self._refuse
        self._command_line = Context(pipeline.network, Process("command line"))

    def begin(self) -> float:
        """Begin a fault of a random kind; return when it is over."""
        random = self.world.random
        name = self._first.pop() if self._first else random.choice(KINDS)
        if name in FRAME_FAULTS:
            self._frame_faults.append(name)
            return self.world.now + 1.0
        self.world.saw(f"fault: {name}")
        return self.world.now + FAULTS[name](self)

    def end(self) -> None:
        """End what waits for its chance."""
        self._frame_faults.clear()
        self._answers.clear()
        self._held.clear()

    # -- frames ----------------------------------------------------------------------------------

    def _distort(self, wire: Wire, frame: Frame, raw: bytes) -> list[tuple[bytes, float]]:
        topic = frame["topic"]
        held = self._held.pop(topic, None)
        if held is not None:
            return [(raw, 0.0), (held, 0.0)]
        if self._silent_topics.get(topic, 0.0) > self.world.now:
            return []
        is_delta = frame["type"] == "delta"
        for kind in self._frame_faults:
            if is_delta != ("trades" not in kind):
                continue
            self._frame_faults.remove(kind)
            self.world.saw(f"fault: {kind}")
            return self._spoilt(kind, frame, raw)
        return [(raw, 0.0)]

    def _spoilt(self, kind: str, frame: Frame, raw: bytes) -> list[tuple[bytes, float]]:
        random = self.world.random
        if kind == "lost frame":
            return []
        if kind.startswith("duplicated"):
            return [(raw, 0.0), (raw, 0.0)]
        if kind == "truncated frame":
            return [(raw[: random.randrange(len(raw))], 0.0)]
        if kind == "reordered frames":
            self._held[frame["topic"]] = raw
            return []
        if kind.startswith("malformed"):
            place = random.randrange(len(raw))
            broken = raw.replace(b'"data"', b'"dota"') if place % 2 else raw[::-1]
            return [(broken, 0.0)]
        data = {**frame["data"]}
        if kind == "wrong update id":
            data["u"] += random.randrange(2, 1000)
        elif kind == "repeated update id":
            # Long past: the number of a frame that was lost just before would fit.
            data["u"] = max(1, data["u"] - 100)
        else:
            data["b"] = [*data["b"], ["1000000", "1"]]
        return [(json.dumps({**frame, "data": data}).encode(), 0.0)]

    def topic_silent(self) -> float:
        market = self._market()
        seconds = self.world.random.uniform(0.5, 6.0)
        self._silent_topics[f"orderbook.{DEPTH}.{market.symbol}"] = self.world.now + seconds
        return seconds

    def numbers_restarted(self) -> float:
        self.exchange.publish(self._market().restart_numbers())
        return 0.0

    # -- connections -----------------------------------------------------------------------------

    def _wire(self) -> Wire | None:
        wires = list(self.exchange.wires)
        return self.world.random.choice(wires) if wires else None

    def connection_reset(self) -> float:
        if (wire := self._wire()) is not None:
            wire.end(ConnectionResetError())
        return 0.0

    def half_open_connection(self) -> float:
        if (wire := self._wire()) is not None:
            wire.is_half_open = True
        return 3.0

    def stalled_socket(self) -> float:
        seconds = self.world.random.uniform(0.5, 5.0)
        if (wire := self._wire()) is not None:
            wire.stall(self.world.now + seconds)
        return seconds

    def connections_refused(self) -> float:
        seconds = self.world.random.uniform(0.5, 3.0)
        self._refusal = (self.world.now + seconds, (ConnectionRefusedError(), 0.01))
        if (wire := self._wire()) is not None:
            wire.end(ConnectionResetError())
        return seconds

    def connection_hangs(self) -> float:
        self._refusal = (self.world.now + 1.0, (TimeoutError(), math.inf))
        if (wire := self._wire()) is not None:
            wire.end(ConnectionResetError())
        return 12.0

    def _refuse(self) -> tuple[Exception, float] | None:
        if self._refusal is None or self._refusal[0] < self.world.now:
            return None
        return self._refusal[1]

    def answers_lost(self) -> float:
        self._answers += [None] * self.world.random.randint(1, 2)
        self._resync_one()
        return 6.0

    def answers_late(self) -> float:
        self._answers += [self.world.random.uniform(0.5, 7.0)] * self.world.random.randint(1, 2)
        self._resync_one()
        return 7.0

    def _answer(self, request: Frame) -> float | None:
        return self._answers.pop() if self._answers else 0.0

    def _resync_one(self) -> None:
        """Give the connector a reason to send a request."""
        self._frame_faults.append("lost frame")

    # -- processes -------------------------------------------------------------------------------

    def process_killed(self, role: str) -> float:
        name = self._process(role)
        if name is None or self._kills.get(name, 0) >= KILLS_MAX:
            return 0.0
        self._kills[name] = self._kills.get(name, 0) + 1
        if name == "forwarder":
            self._disturb(4.0)
        self.outages.append(Outage("killed", self.world.now, self.world.now + 0.5, KILLED_S, name))
        self.pipeline.children[name].crash(-9)
        return 1.0

    def process_hung(self, role: str) -> float:
        name = self._process(role)
        if name is None or self._kills.get(name, 0) >= KILLS_MAX:
            return 0.0
        seconds = self.world.random.choice((0.3, 0.8, 1.2, 2.0, 3.0, 7.0))
        self._kills[name] = self._kills.get(name, 0) + (seconds > 5)
        self.world.note(f"{name} hangs for {seconds} s")
        until = self.world.now + seconds
        if name == "forwarder":
            self._disturb(seconds + 3.0)
        else:
            self.outages.append(Outage("hung", self.world.now, until, HUNG_S, name))
        self.pipeline.children[name].process.hung_until = until
        return seconds

    def process_slow(self) -> float:
        name = self._process()
        if name is not None:
            process, seconds = self.pipeline.children[name].process, 2.0
            process.turn_s = self.world.random.choice((0.01, 0.03, 0.1))
            self.world.after(seconds, lambda: setattr(process, "turn_s", 0.0))
        return 2.0

    def queues_full(self) -> float:
        """Small queues, and somebody who does not read them."""
        network, seconds = self.pipeline.network, 3.0
        network.queue_max = 30

        def widen() -> None:
            network.queue_max = 1_000_000
            network.set_limits()

        network.set_limits()
        self._disturb(seconds + 3.0)
        self.world.after(seconds, widen)
        workers = [name for name in sorted(self.pipeline.children) if "connector" not in name]
        if workers:
            name = self.world.random.choice(workers)
            self.pipeline.children[name].process.hung_until = self.world.now + 2.5
        return seconds

    def supervisor_hung(self) -> float:
        seconds = self.world.random.uniform(0.3, 4.0)
        self.pipeline.process.hung_until = self.world.now + seconds
        self._disturb(seconds + 2.0)
        return seconds

    def supervisor_restarted(self) -> float:
        if self._kills.get("supervisor", 0) >= 1:
            return 0.0
        self._kills["supervisor"] = 1
        self._disturb(6.0)
        self.pipeline.kill_supervisor()
        self.world.after(1.5, self.pipeline.start_supervisor)
        return 4.0

    def clock_set(self) -> float:
        step_s = self.world.random.choice((-100.0, -1.0, -0.05, 0.05, 1.0, 100.0))
        self.world.wall_step_ns += int(step_s * 1e9)
        return 0.0

    def machine_suspended(self) -> float:
        seconds = self.world.random.uniform(0.5, 5.0)
        self.world.asleep_until = self.world.now + seconds
        self._disturb(seconds + 3.0)
        return seconds

    def disk_full(self) -> float:
        disk = self.pipeline.disk
        disk.is_full = True
        self.world.after(3.0, lambda: setattr(disk, "is_full", False))
        return 3.0

    # -- markets ---------------------------------------------------------------------------------

    def _market(self) -> Any:
        return self.world.random.choice(list(self.exchange.markets.values()))

    def symbol_delisted(self) -> float:
        if self.exchange.delisted:
            self.exchange.delisted.clear()
            return 0.0
        symbol = self._market().symbol
        self.exempt.add(symbol)
        self.exchange.delisted.add(symbol)
        self.connection_reset()
        return 0.0

    def unsubscribed(self) -> float:
        """Unsubscribe a market, and subscribe it again soon."""
        market = f"linear:{self._market().symbol}"
        seconds = self.world.random.uniform(0.05, 3.0)
        self._request("unsubscribe", market)
        self.world.after(seconds, lambda: self._request("subscribe", market))
        return seconds + 1.0

    def _request(self, command: str, market: str) -> None:
        endpoint = self.pipeline.plan.control_endpoint
        self._requests += 1
        link = ControlLink(
            self._command_line,  # type: ignore[arg-type]
            endpoint,
            f"command-{self._requests}",
        )
        link.send("request", id=self._requests, command=command, arguments={"markets": [market]})

    def source_changed(self) -> float:
        """Simulated data for a while, from the same exchange."""
        self._change_source("sim")
        seconds = self.world.random.uniform(0.2, 3.0)
        self.world.after(seconds, lambda: self._change_source("live"))
        return seconds

    def _change_source(self, source: Any) -> None:
        if self.pipeline.process.is_dead:
            self.pipeline.plan = dataclasses.replace(self.pipeline.plan, source=source)
        else:
            supervisor = self.pipeline.supervisor
            supervisor.change_plan(dataclasses.replace(supervisor.plan, source=source))

    # -- helpers ---------------------------------------------------------------------------------

    def _process(self, role: str = "") -> str | None:
        running = sorted(
            name
            for name, child in self.pipeline.children.items()
            if child.actor is not None and name.startswith(role)
        )
        return self.world.random.choice(running) if running else None

    def _disturb(self, seconds: float) -> None:
        self.disturbed_until = max(self.disturbed_until, self.world.now + seconds)


FAULTS: dict[str, Fault] = {
    "topic silent": Faults.topic_silent,
    "numbers restarted": Faults.numbers_restarted,
    "connection reset": Faults.connection_reset,
    "half-open connection": Faults.half_open_connection,
    "stalled socket": Faults.stalled_socket,
    "connections refused": Faults.connections_refused,
    "connection hangs": Faults.connection_hangs,
    "answers lost": Faults.answers_lost,
    "answers late": Faults.answers_late,
    **{f"{role} killed": partial(Faults.process_killed, role=role) for role in ROLES},
    **{f"{role} hung": partial(Faults.process_hung, role=role) for role in ROLES},
    "process slow": Faults.process_slow,
    "queues full": Faults.queues_full,
    "supervisor hung": Faults.supervisor_hung,
    "supervisor restarted": Faults.supervisor_restarted,
    "clock set": Faults.clock_set,
    "machine suspended": Faults.machine_suspended,
    "disk full": Faults.disk_full,
    "symbol delisted": Faults.symbol_delisted,
    "unsubscribed": Faults.unsubscribed,
    "source changed": Faults.source_changed,
}
KINDS = (*FAULTS, *FRAME_FAULTS)
