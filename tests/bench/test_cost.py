"""
What a message costs in instructions of Python: a guard that does not flicker as seconds would.

The limits are what was measured plus a tenth. Who makes the hot path dearer on purpose raises them
in the same commit and says why; ``docs/explanation/performance.md`` has the figures.
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
from scripts.benchmarks.frames import LoadSpec, make_load
from scripts.benchmarks.records import frame_payload

LOAD = make_load(LoadSpec(symbols=4, messages=1_000))
NAME = "connector-linear-0"
STREAMS = [
    Stream(kind=kind, category="linear", symbol=symbol, depth=50 if kind == "book" else 0)
    for symbol in LOAD.symbols
    for kind in ("book", "trade")
]
DEADLINE_S = 10.0
OTHER_PYTHON = 1.0 if sys.version_info[:2] == (3, 11) else 1.3
"""The limits were measured with Python 3.11; other versions cut instructions differently."""


def instructions(work: Callable[[], object]) -> int:
    """How many instructions of Python ``work`` takes, its C code left out."""
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


class Line:
    """A connector that was given everything but its socket, and its end of the bus."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", directory: Path) -> None:
        self.endpoint = f"ipc://{directory}/feed"
        self.connector = ConnectorActor(
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
        self.connector._publisher = self.publisher
        self.read([frame_payload(frame) for frame in LOAD.snapshots.values()])
        flowing = self.connector.client._subscriptions.flowing
        for symbol in LOAD.symbols:
            flowing |= {f"publicTrade.{symbol}", f"orderbook.50.{symbol}"}

    def read(self, messages: list[bytes]) -> None:
        """Let the connector handle messages as if they had been read from its socket."""
        self.connector.client._dispatcher.on_read(messages, (), time.time_ns())

    def read_load(self) -> None:
        """First the snapshots, then everything."""
        self.read([frame_payload(frame) for frame in LOAD.snapshots.values()])
        self.read([frame_payload(frame.data) for frame in LOAD.frames])


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """A connector on a bus of its own."""
    context = zmq.Context()
    found = Line(context, tmp_path)
    yield found
    found.publisher.close()
    context.destroy(linger=0)


def assignments(line: Line, *kinds: str) -> list[Assignment]:
    """What a worker is told."""
    return [
        Assignment(stream=stream, connector=NAME, endpoint=line.endpoint)
        for stream in STREAMS
        if stream.kind in kinds
    ]


def cost(line: Line, worker: OrderbookWorker | TradesWorker, messages: int) -> float:
    """Instructions a message, from the bus to the worker's state."""
    context = zmq.Context()
    subscriber = MarketSubscriber(context, worker.process)
    subscriber.connect(NAME, line.endpoint)
    topics = [assignment.stream.topic_bytes for assignment in worker.spec.assignments]
    for topic in topics:
        subscriber.subscribe(topic, NAME)
    assert not line.publisher.wait_for_workers(topics, DEADLINE_S)
    line.read_load()
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


def test_the_connector_takes_few_instructions_from_frame_to_bus(line: Line) -> None:
    spent = instructions(line.read_load) / (len(LOAD.frames) + len(LOAD.symbols))
    assert not any(line.connector.client.counts.invalid.values())
    assert spent < 395 * OTHER_PYTHON


def test_the_orderbook_worker_takes_few_instructions_from_bus_to_book(line: Line) -> None:
    worker = OrderbookWorker(
        OrderbookSpec(
            process="orderbook-0",
            role="orderbook",
            run_dir="",
            metrics_in="",
            assignments=assignments(line, "book", "trade"),
        )
    )
    spent = cost(line, worker, len(LOAD.frames) + len(LOAD.symbols))
    assert worker.manager.states()["live"] == len(LOAD.symbols)
    assert spent < 600 * OTHER_PYTHON


def test_the_trades_worker_takes_few_instructions_from_bus_to_windows(line: Line) -> None:
    worker = TradesWorker(
        TradesSpec(
            process="trades-0",
            role="trades",
            run_dir="",
            metrics_in="",
            assignments=assignments(line, "trade"),
        )
    )
    spent = cost(line, worker, LOAD.trade_messages)
    assert worker.aggregator.counts.taken == LOAD.trades
    assert spent < 1_065 * OTHER_PYTHON
