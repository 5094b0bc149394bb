"""The simulator as an actor: its endpoint, its counters, and its end with the server."""

from typing import Any

import pytest
from prometheus_client import generate_latest

from bybit_pipeline.processes.simulator.actor import Simulator
from bybit_pipeline.processes.simulator.feed import OutgoingMessage
from bybit_pipeline.processes.simulator.market.synthetic import SyntheticFeed
from bybit_pipeline.shared.settings.specs import SimulatorSpec
from tests.simulator.client import Client


def simulator(**fields: Any) -> Simulator:
    """Return an actor without a supervisor."""
    return Simulator(SimulatorSpec(process="simulator", role="simulator", run_dir="", **fields))


def test_it_announces_its_address_and_counts_messages_and_faults() -> None:
    """The status and Prometheus agree."""
    actor = simulator(faults=["drop:every=2,stream=book"])
    actor.on_start()
    try:
        assert actor.endpoints["websocket"] == actor.server.url
        with Client(actor._thread, "linear") as client:
            client.subscribe("orderbook.50.BTCUSDT")
            client.until_topic("orderbook.50.BTCUSDT", 5)
            status = actor.status()
            scraped = generate_latest(actor.telemetry.registry).decode()
        assert status["connections"] == 1
        assert status["frames"]["book"] >= 5
        assert status["faults"]["drop"] >= 4
        assert "bybit_pipeline_simulator_connections 1.0" in scraped
        assert 'bybit_pipeline_simulator_messages_total{stream="book"}' in scraped
        assert 'bybit_pipeline_simulator_faults_total{fault="drop"}' in scraped
    finally:
        actor.on_stop()


class Broken(SyntheticFeed):
    """A feed with a bug."""

    def __init__(self) -> None:
        super().__init__([])

    def poll(self, now_ms: int) -> list[OutgoingMessage]:
        """Raise an error."""
        raise ZeroDivisionError


def run_until_error(actor: Simulator) -> None:
    """Run the actor's loop; the timeout of the test is its deadline."""
    while True:
        actor.turn()


def test_a_crash_of_the_server_ends_the_process() -> None:
    """The crash wakes the loop, which raises the error; the exit code is then 70."""
    actor = simulator()
    actor.on_start()
    try:
        actor.server.feed = Broken()
        with pytest.raises(ZeroDivisionError):
            run_until_error(actor)
    finally:
        actor.on_stop()
