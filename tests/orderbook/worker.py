"""An orderbook worker without sockets, and its metrics as subscribers decode them."""

from collections.abc import Iterable
from typing import Any

from prometheus_client import generate_latest

from bybit_pipeline.processes.orderbook.actor import OrderbookWorker
from bybit_pipeline.shared.bus.market import Received
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.settings.config import DensityConfig, OrderbookConfig
from bybit_pipeline.shared.settings.specs import Assignment, OrderbookSpec, Stream
from bybit_pipeline.shared.wire.codec import decode_map, encode_map
from bybit_pipeline.shared.wire.messages import MarketMessage
from bybit_pipeline.shared.wire.metrics import Metric
from bybit_pipeline.shared.wire.topics import link_topic, market_topic
from tests.clock import FakeClock

CONNECTOR = "connector-linear-0"
BTC = market_topic("book", "linear", "BTCUSDT")
BTC_TRADES = market_topic("trade", "linear", "BTCUSDT")
ETH = market_topic("book", "linear", "ETHUSDT")
LINK = link_topic(CONNECTOR)
DEADLINE_MS = 10_000
START_NS = 1_000_207_000_000
"""Wall clock at which the first snapshot of ``build`` is received."""
START_S = START_NS / 1e9

WALL = [(100.0, 1.0), (99.9, 20.0), (99.8, 1.0), (99.7, 1.0)]
"""Bids with a wall of 20 at 99.9."""

HEADER = {
    "v",
    "kind",
    "category",
    "symbol",
    "source",
    "process",
    "epoch",
    "seq",
    "state",
    "match_ts_ms",
    "exchange_ts_ms",
    "recv_ts_ns",
    "alive_ts_ns",
    "publish_ts_ns",
}
DENSITY = {
    "side",
    "price",
    "size",
    "initial_size",
    "peak_size",
    "strength",
    "eaten_ratio",
    "pulled_ratio",
    "traded_size",
    "cancelled_size",
    "refilled_size",
    "distance_bps",
    "first_seen_ms",
    "age_ms",
    "uncertain",
}


def assignment(
    symbol: str, kind: Any = "book", endpoint: str = "ipc:///nowhere", depth: int = 50
) -> Assignment:
    depth = depth if kind == "book" else 0
    stream = Stream(kind=kind, category="linear", symbol=symbol, depth=depth)
    return Assignment(stream=stream, connector=CONNECTOR, endpoint=endpoint)


def make_worker(
    clock: Clock | None = None,
    *assignments: Assignment,
    per_symbol: bool = True,
    min_age_s: float = 0.0,
    **fields: Any,
) -> OrderbookWorker:
    spec = OrderbookSpec(
        process="orderbook-0",
        role="orderbook",
        run_dir="/nowhere",
        metrics_in=fields.pop("metrics_in", "ipc:///nowhere"),
        control=fields.pop("control", ""),
        assignments=list(assignments)
        or [assignment("BTCUSDT"), assignment("ETHUSDT"), assignment("BTCUSDT", "trade")],
        settings=OrderbookConfig(**fields),
        density=DensityConfig(k=3.0, min_age_s=min_age_s),
        per_symbol=per_symbol,
    )
    return OrderbookWorker(spec, clock=clock or FakeClock(START_S))


def give(
    worker: OrderbookWorker, message: MarketMessage, topic: bytes = BTC, lost: int = 0
) -> list[Metric]:
    """Pass a message to the worker; return the metrics published at once."""
    worker.manager.advance(worker.clock.monotonic())
    return list(worker.on_message(Received(topic, message, lost)))


def due(worker: OrderbookWorker) -> list[Metric]:
    """Return the metrics that are due now."""
    worker.manager.advance(worker.clock.monotonic())
    return list(worker.publish_due())


def payload_of(metric: Metric) -> dict[str, Any]:
    """Return the payload as a subscriber decodes it."""
    return decode_map(encode_map(metric.payload))


def of_kind(metrics: Iterable[Metric], kind: str) -> list[dict[str, Any]]:
    return [payload for payload in map(payload_of, metrics) if payload["kind"] == kind]


def books(metrics: Iterable[Metric]) -> list[dict[str, Any]]:
    return of_kind(metrics, "orderbook")


def scrape(worker: OrderbookWorker) -> dict[str, float]:
    """Return the exported values by name and labels, without the prefix."""
    lines = generate_latest(worker.telemetry.registry).decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name.removeprefix("bybit_pipeline_"): float(value) for name, _, value in samples}
