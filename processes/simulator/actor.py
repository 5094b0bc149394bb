"""
The simulator as a child of the pipeline: control link, heartbeat and counters around the server.

The asyncio server runs in a background thread and owns everything that it serves. The actor's
thread only reads its counters. If the server crashes, a wakeup ends the wait of the actor's loop,
which raises the error and so ends the process like any bug.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import structlog

from bybit_pipeline.processes.simulator.factory import make_server
from bybit_pipeline.processes.simulator.faults import describe
from bybit_pipeline.processes.simulator.server import ServerThread
from bybit_pipeline.shared.runtime.actor import Actor
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.runtime.wakeup import Wakeup
from bybit_pipeline.shared.settings.specs import SimulatorSpec

log = structlog.get_logger()


class Simulator(Actor):
    """Serve the simulated exchange until a stop command or a signal."""

    role: ClassVar[str] = "simulator"

    def __init__(
        self,
        spec: SimulatorSpec,
        *,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        super().__init__(spec, clock=clock, telemetry=telemetry)
        self.server = make_server(spec, clock=self.clock, is_strict=False)
        self._crash_wakeup = Wakeup()
        self._thread = ServerThread(self.server, on_crash=self._crash_wakeup.set)
        self._declare_counters()

    def on_start(self) -> None:
        """Open the port and announce its address as the endpoint ``websocket``."""
        self._thread.start()
        self.watch(self._crash_wakeup.fileno(), self._raise_crash)
        self.endpoints["websocket"] = self.server.url
        log.info(
            "simulated exchange started",
            url=self.server.url,
            faults=describe(self.server.faults.active),
        )

    def on_stop(self) -> None:
        """Close the connections and the port."""
        self._thread.stop()
        self._crash_wakeup.close()

    def status(self) -> Mapping[str, Any]:
        """Return the connections, the data frames by stream and the injected faults by name."""
        return {**asdict(self.server.counters), "faults": dict(self.server.faults.injected)}

    def _declare_counters(self) -> None:
        counters, faults = self.server.counters, self.server.faults
        self.telemetry.gauges(
            "simulator_connections",
            "Open websocket connections.",
            (),
            lambda: [((), counters.connections)],
        )
        self.telemetry.counters(
            "simulator_messages_total",
            "Data messages sent to connections.",
            ("stream",),
            lambda: [((stream,), count) for stream, count in list(counters.frames.items())],
        )
        self.telemetry.counters(
            "simulator_faults_total",
            "Injected faults.",
            ("fault",),
            lambda: [((fault,), count) for fault, count in list(faults.injected.items())],
        )
        self.telemetry.counters(
            "simulator_clients_closed_total",
            "Connections closed because the client was too slow or idle.",
            ("reason",),
            lambda: [(("slow",), counters.overflows), (("idle",), counters.idle)],
        )

    def _raise_crash(self) -> None:
        error = self._thread.error
        assert error is not None
        raise error
