"""The simulator as an actor: what it announces, what it counts, how it ends with its server."""

from typing import Any

import pytest
from prometheus_client import generate_latest

from bybit_pipeline.processes.simulator.actor import Simulator
from bybit_pipeline.processes.simulator.feed import Outgoing
from bybit_pipeline.processes.simulator.market.synthetic import SyntheticFeed
from bybit_pipeline.shared.settings.specs import SimulatorSpec
from tests.simulator.client import Connection


def simulator(**fields: Any) -> Simulator:
    """An actor that nobody supervises."""
    return Simulator(SimulatorSpec(process="simulator", role="simulator", run_dir="", **fields))


def test_it_announces_its_address_and_counts_what_it_sends_and_spoils() -> None:
    """In the status and for Prometheus alike."""
    actor = simulator(faults=["drop:every=2,stream=book"])
    actor.on_start()
    try:
        assert actor.endpoints["websocket"] == actor.server.url
        with Connection(actor._thread, "linear") as client:
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

    def poll(self, now_ms: int) -> list[Outgoing]:
        """Fail."""
        raise ZeroDivisionError


def turn_for_ever(actor: Simulator) -> None:
    """The actor's loop; the test's time-out is its deadline."""
    while True:
        actor.turn()


def test_the_death_of_the_server_is_the_death_of_the_process() -> None:
    """The loop wakes at once and the error is raised in it, which ends with exit code 70."""
    actor = simulator()
    actor.on_start()
    try:
        actor.server.feed = Broken()
        with pytest.raises(ZeroDivisionError):
            turn_for_ever(actor)
    finally:
        actor.on_stop()
