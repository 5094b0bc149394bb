"""
The simulator as a child of the pipeline: control, heartbeat and counters around the server.

The asyncio server runs in one background thread and owns everything it serves; this thread only
reads its counters. When the server dies, a byte in a pipe wakes this loop and the error is raised
here, which ends the process like any bug.
"""

import os
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
from bybit_pipeline.shared.settings.specs import SimulatorSpec

log = structlog.get_logger()


class Simulator(Actor):
    """Serve the simulated exchange until told to stop."""

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
        self._thread = ServerThread(self.server, on_death=self._on_death)
        self._obituary = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._declare_counters()

    def on_start(self) -> None:
        """Open the port; its address is announced as the endpoint ``websocket``."""
        self._thread.start()
        self.watch(self._obituary[0], self._raise_death)
        self.endpoints["websocket"] = self.server.url
        log.info("serving", url=self.server.url, faults=describe(self.server.faults.active))

    def on_stop(self) -> None:
        """Close the connections and the port."""
        self._thread.stop()
        for end in self._obituary:
            os.close(end)

    def status(self) -> Mapping[str, Any]:
        """Connections, data frames by stream, faults by name."""
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
            "Data messages handed to connections.",
            ("stream",),
            lambda: [((stream,), count) for stream, count in list(counters.frames.items())],
        )
        self.telemetry.counters(
            "simulator_faults_total",
            "Faults injected.",
            ("fault",),
            lambda: [((fault,), count) for fault, count in list(faults.injected.items())],
        )
        self.telemetry.counters(
            "simulator_clients_closed_total",
            "Connections closed because they were too slow or idle.",
            ("reason",),
            lambda: [(("slow",), counters.overflows), (("idle",), counters.idle)],
        )

    def _on_death(self, _error: BaseException) -> None:
        os.write(self._obituary[1], b"x")

    def _raise_death(self) -> None:
        error = self._thread.error
        assert error is not None
        raise error
