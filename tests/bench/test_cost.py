"""
The cost of a message in Python instructions: a stable guard, unlike CPU time.

The limits are the measured figures plus a tenth. A commit that makes the hot path more expensive on
purpose raises them and explains why.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import zmq

from bybit_pipeline.processes.connector.actor import ConnectorActor
from bybit_pipeline.processes.orderbook.actor import OrderbookWorker
from bybit_pipeline.processes.trades.actor import TradesWorker
from bybit_pipeline.shared.bus.market import MarketPublisher, MarketSubscriber
from bybit_pipeline.shared.settings.specs import (
    Assignment,
    ConnectorSpec,
    OrderbookSpec,
    Stream,
    TradesSpec,
)
from scripts.benchmarks.load import LoadSpec, frame_payload, make_load

LOAD = make_load(LoadSpec(symbols=4, messages=1_000))
NAME = "connector-linear-0"
STREAMS = [
    Stream(kind=kind, category="linear", symbol=symbol, depth=50 if kind == "book" else 0)
    for symbol in LOAD.symbols
    for kind in ("book", "trade")
]
DEADLINE_S = 10.0
OTHER_PYTHON = 1.0 if sys.version_info[:2] == (3, 11) else 1.3
"""The limits were measured with Python 3.11; other versions have other instructions."""


def instructions(work: Callable[[], object]) -> int:
    """Return the Python instructions that ``work`` executes, without C code."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


class ConnectorOnBus:
    """A connector without a websocket, and its end of the bus."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", directory: Path) -> None:
        self.endpoint = f"ipc://{directory}/feed"
        self.actor = ConnectorActor(
            ConnectorSpec(
                process=NAME,
                role="connector",
                run_dir=str(directory),
                category="linear",
                url="ws://127.0.0.1:1/",
                source="live",
                market_endpoint=f"ipc://{directory}/bus",
                feed_endpoint=self.endpoint,
                streams=STREAMS,
            )
        )
        self.publisher = MarketPublisher(context, f"ipc://{directory}/bus", self.endpoint)
        self.actor._publisher = self.publisher
        self.read([frame_payload(frame) for frame in LOAD.snapshots.values()])
        flowing = self.actor.client._subscriptions.flowing
        for symbol in LOAD.symbols:
            flowing |= {f"publicTrade.{symbol}", f"orderbook.50.{symbol}"}

    def read(self, messages: list[bytes]) -> None:
        """Let the connector handle messages as if they had been read from its socket."""
        self.actor.client._dispatcher.on_read(messages, (), time.time_ns())

    def read_load(self) -> None:
        """Let the connector handle the snapshots and then all frames."""
        self.read([frame_payload(frame) for frame in LOAD.snapshots.values()])
        self.read([frame_payload(frame.data) for frame in LOAD.frames])


@pytest.fixture
def connector(tmp_path: Path) -> Iterator[ConnectorOnBus]:
    """Return a connector on its own bus."""
    context = zmq.Context()
    found = ConnectorOnBus(context, tmp_path)
    yield found
    found.publisher.close()
    context.destroy(linger=0)


def assignments(connector: ConnectorOnBus, *kinds: str) -> list[Assignment]:
    """Return the assignments of a worker."""
    return [
        Assignment(stream=stream, connector=NAME, endpoint=connector.endpoint)
        for stream in STREAMS
        if stream.kind in kinds
    ]


def cost(connector: ConnectorOnBus, worker: OrderbookWorker | TradesWorker, messages: int) -> float:
    """Return the instructions per message, from the bus to the worker's state."""
    context = zmq.Context()
    subscriber = MarketSubscriber(context, worker.process)
    subscriber.connect(NAME, connector.endpoint)
    topics = [assignment.stream.topic_bytes for assignment in worker.spec.assignments]
    for topic in topics:
        subscriber.subscribe(topic, NAME)
    assert not connector.publisher.wait_for_workers(topics, DEADLINE_S)
    connector.read_load()
    left, spent, deadline = messages, 0, time.monotonic() + DEADLINE_S
    while left > 0 and time.monotonic() < deadline:
        assert subscriber.socket.poll(int(DEADLINE_S * 1000))
        handled = 0

        def take() -> None:
            nonlocal handled
            for received in subscriber.receive(10_000):
                worker.on_message(received)
                handled += 1

        spent += instructions(take)
        left -= handled
    subscriber.close()
    context.destroy(linger=0)
    assert left == 0
    return spent / messages


def test_the_connector_takes_few_instructions_from_frame_to_bus(connector: ConnectorOnBus) -> None:
    spent = instructions(connector.read_load) / (len(LOAD.frames) + len(LOAD.symbols))
    assert not any(connector.actor.client.counts.invalid.values())
    assert spent < 395 * OTHER_PYTHON


def test_the_orderbook_worker_takes_few_instructions_from_bus_to_book(
    connector: ConnectorOnBus,
) -> None:
    worker = OrderbookWorker(
        OrderbookSpec(
            process="orderbook-0",
            role="orderbook",
            run_dir="",
            metrics_in="",
            assignments=assignments(connector, "book", "trade"),
        )
    )
    spent = cost(connector, worker, len(LOAD.frames) + len(LOAD.symbols))
    assert worker.manager.states()["live"] == len(LOAD.symbols)
    assert spent < 600 * OTHER_PYTHON


def test_the_trades_worker_takes_few_instructions_from_bus_to_windows(
    connector: ConnectorOnBus,
) -> None:
    worker = TradesWorker(
        TradesSpec(
            process="trades-0",
            role="trades",
            run_dir="",
            metrics_in="",
            assignments=assignments(connector, "trade"),
        )
    )
    spent = cost(connector, worker, LOAD.trade_messages)
    assert worker.aggregator.counts.taken == LOAD.trades
    assert spent < 1_065 * OTHER_PYTHON
