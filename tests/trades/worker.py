"""A trades worker for tests: messages in, metrics as subscribers read them out."""

from collections.abc import Iterable
from itertools import count
from typing import Any

from bybit_pipeline.processes.trades.actor import TradesWorker
from bybit_pipeline.shared.bus.market import Received
from bybit_pipeline.shared.settings.config import TradesConfig
from bybit_pipeline.shared.settings.specs import Assignment, Stream, TradesSpec
from bybit_pipeline.shared.wire.codec import decode_map, encode_map
from bybit_pipeline.shared.wire.messages import (
    LinkEvent,
    LinkMessage,
    MarketMessage,
    Source,
    Trade,
    TradesMessage,
)
from bybit_pipeline.shared.wire.metrics import Metric
from bybit_pipeline.shared.wire.topics import link_topic, market_topic
from tests.clock import FakeClock

T0 = 1_700_000_000_000
DEADLINE_S = 10
CONNECTOR = "connector-linear-0"
BTC = market_topic("trade", "linear", "BTCUSDT")
ETH = market_topic("trade", "linear", "ETHUSDT")
LINK = link_topic(CONNECTOR)
IDS = count()


def assignment(symbol: str, endpoint: str = "ipc:///nowhere") -> Assignment:
    stream = Stream(kind="trade", category="linear", symbol=symbol)
    return Assignment(stream=stream, connector=CONNECTOR, endpoint=endpoint)


def make_worker(clock: FakeClock | None = None, **settings: Any) -> TradesWorker:
    spec = TradesSpec(
        process="trades-0",
        role="trades",
        run_dir="/nowhere",
        metrics_in="ipc:///nowhere",
        assignments=[assignment("BTCUSDT"), assignment("ETHUSDT")],
        settings=TradesConfig(**settings),
    )
    return TradesWorker(spec, clock=clock or FakeClock())


def trades_message(
    clock: FakeClock, *trades: Trade, session: int = 1, source: Source = "sim"
) -> TradesMessage:
    now_ns = clock.time_ns()
    return TradesMessage(1, source, session, 1, now_ns, T0 + now_ns // 1_000_000, trades)


def trade(clock: FakeClock, *, size: float = 1.0) -> Trade:
    at_ms = T0 + clock.time_ns() // 1_000_000
    return Trade(at_ms, "Buy", 100.0, size, f"trade-{next(IDS)}", 5, False, False)


def link(
    clock: FakeClock, event: LinkEvent, *topics: str, session: int = 1, source: Source = "sim"
) -> LinkMessage:
    return LinkMessage(1, source, session, 1, clock.time_ns(), event, "", topics)


Payload = dict[str, Any]


def read(metric: Metric) -> Payload:
    """The payload of a metric as a subscriber reads it."""
    return decode_map(encode_map(metric.payload))


def give(worker: TradesWorker, topic: bytes, message: MarketMessage, lost: int = 0) -> list[Metric]:
    return list(worker.on_message(Received(topic, message, lost)))


def due(worker: TradesWorker, topic: bytes = b"trades.linear.BTCUSDT") -> list[Payload]:
    return [read(metric) for metric in worker.publish_due() if metric.topic == topic]


def of_bitcoin(metrics: Iterable[Metric], kind: str) -> list[Payload]:
    topic = f"{kind}.linear.BTCUSDT".encode()
    return [read(metric) for metric in metrics if metric.topic == topic]


def by_topic(metrics: Iterable[Metric]) -> dict[bytes, Payload]:
    return {metric.topic: read(metric) for metric in metrics}
