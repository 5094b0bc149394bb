"""The orderbook worker with recorded markets, with a clock that is set, and over real sockets."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from msgspec.structs import replace

from bybit_pipeline.shared.bus.market import MarketPublisher, Received
from bybit_pipeline.shared.bus.metrics import MetricInbox
from bybit_pipeline.shared.runtime.clock import SystemClock
from bybit_pipeline.shared.wire.codec import decode_map
from bybit_pipeline.shared.wire.messages import (
    BookMessage,
    LinkMessage,
    MarketMessage,
    TradesMessage,
)
from bybit_pipeline.shared.wire.metrics import Metric
from bybit_pipeline.shared.wire.topics import market_topic
from tests.clock import FakeClock, SteppingClock
from tests.naive import NaiveBook, read_capture
from tests.orderbook.build import (
    delta,
    recorded_book,
    recorded_trades,
    snapshot,
    trade,
    trades_message,
)
from tests.orderbook.worker import (
    BTC,
    BTC_TRADES,
    DEADLINE_MS,
    LINK,
    START_S,
    assignment,
    books,
    due,
    give,
    make_worker,
    payload_of,
)


@pytest.mark.parametrize(
    "name", ["linear_20260809_ob200_BTC_SOL.jsonl", "spot_20260809_ob200_ETH.jsonl"]
)
def test_every_published_book_of_a_capture_equals_the_model_at_that_update(
    captures: Path, name: str
) -> None:
    symbols = ("BTCUSDT", "SOLUSDT", "ETHUSDT")
    clock = FakeClock(START_S)
    worker = make_worker(
        clock,
        *[assignment(symbol, depth=200) for symbol in symbols],
        *[assignment(symbol, "trade") for symbol in symbols],
        publish_levels=200,
    )
    models: dict[str, NaiveBook] = {}
    truth: dict[tuple[str, int], Any] = {}
    published = 0
    for raw in read_capture(captures / name):
        kind, symbol = raw["topic"].split(".")[0], raw["topic"].rsplit(".", 1)[1]
        message: BookMessage | TradesMessage
        if kind == "orderbook":
            message, topic = recorded_book(raw), market_topic("book", "linear", symbol)
            model = models.setdefault(symbol, NaiveBook())
            model.apply(raw)
            truth[symbol, model.update_id] = model.best(200)
        elif kind == "publicTrade":
            message, topic = recorded_trades(raw), market_topic("trade", "linear", symbol)
        else:
            continue
        clock.now_s = max(clock.now_s, message.recv_ts_ns / 1e9)
        for payload in books(give(worker, message, topic) + due(worker)):
            assert "live" == payload["state"]
            bids, asks = truth[payload["symbol"], payload["update_id"]]
            assert (bids, asks) == (payload["bids"], payload["asks"])
            assert payload["best_bid"] < payload["best_ask"]
            published += 1
    assert published > 100


OUR_CLOCK = {"recv_ts_ns", "publish_ts_ns", "opened_ts_ns", "closed_ts_ns"}


def published_with_a_step(step_s: float) -> list[dict[str, Any]]:
    """Return the metrics of a market with one disconnect, at which our clock is set."""
    clock = SteppingClock(now_s=1_000.0)
    worker = make_worker(clock, assignment("BTCUSDT"), assignment("BTCUSDT", "trade"))
    chance = random.Random(5)
    bids = {round(100.0 - 0.05 * level, 2): chance.uniform(1, 3) for level in range(20)}
    asks = {round(100.05 + 0.05 * level, 2): chance.uniform(1, 3) for level in range(20)}
    metrics: list[Metric] = []

    def handle(message: MarketMessage, topic: bytes) -> None:
        worker.on_turn()
        metrics.extend(worker.on_message(Received(topic, message, 0)))
        metrics.extend(worker.publish_due())

    for update in range(1, 600):
        is_snapshot = update in (1, 300)
        if update == 300:
            clock.step_s = step_s
            lost = LinkMessage(1, "sim", 1, 1, clock.time_ns(), "disconnected", "reset", ())
            handle(lost, LINK)
        side, price = (bids, 99.9) if update % 2 else (asks, 100.15)
        side[chance.choice(list(side))] = chance.uniform(1, 3)
        side[price] = 60.0 if update % 150 > 20 else 2.0
        message: MarketMessage = (
            snapshot(update, sorted(bids.items(), reverse=True), sorted(asks.items()))
            if is_snapshot
            else delta(update, list(bids.items()), list(asks.items()))
        )
        clock.now_s += 0.02
        handle(replace(message, recv_ts_ns=clock.time_ns()), BTC)
        if update % 10 == 0:
            sold = trades_message(trade(1_000_000 + update * 20, "Sell", 100.0, 0.5))
            handle(replace(sold, recv_ts_ns=clock.time_ns()), BTC_TRADES)
    return [{k: v for k, v in payload_of(m).items() if k not in OUR_CLOCK} for m in metrics]


@pytest.mark.parametrize("step_s", [3_600.0, -3_600.0])
def test_a_step_of_our_clock_changes_only_our_own_timestamps(step_s: float) -> None:
    """Books, walls, order flow, gaps and publication times, one hour forward or back."""
    steady = published_with_a_step(0.0)

    assert steady == published_with_a_step(step_s)
    kinds = Counter(payload["kind"] for payload in steady)
    assert min(kinds[kind] for kind in ("orderbook", "density")) > 5, kinds
    gaps = [p["event"] for p in steady if p["kind"] == "gap" and p["reason"] == "disconnected"]
    assert ["opened", "closed"] == gaps
    assert {"live", "stale"} == {p["state"] for p in steady if p["kind"] == "orderbook"}


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


def test_over_real_sockets_books_go_in_and_metrics_and_resyncs_come_out(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    market = MarketPublisher(context, f"ipc://{tmp_path}/market", f"ipc://{tmp_path}/feed")
    inbox = MetricInbox(context, f"ipc://{tmp_path}/metrics")
    router = context.socket(zmq.ROUTER)
    router.bind(f"ipc://{tmp_path}/control")
    worker = make_worker(
        SystemClock(),
        assignment("BTCUSDT", endpoint=market.feed_endpoint),
        metrics_in=inbox.endpoint,
        control=f"ipc://{tmp_path}/control",
    )
    metrics: list[dict[str, Any]] = []
    requests: list[dict[str, Any]] = []
    sent = 0

    def drive() -> None:
        nonlocal sent
        market.drain_subscriptions()
        metrics.extend(decode_map(payload) for _, payload in inbox.receive(100))
        while router.poll(0):
            requests.append(decode_map(router.recv_multipart()[1]))
        messages: list[BookMessage | LinkMessage] = [snapshot(1), delta(2), delta(4), snapshot(9)]
        is_connected = not market.wait_for_workers([BTC], 0)
        resyncs = [message for message in requests if message["type"] == "resync"]
        if is_connected and sent < (3 if not resyncs else 4):
            message = messages[sent]
            sent += 1
            number = market.next_sequence(BTC)
            market.publish(BTC, replace(message, bus_sequence=number))
        states = [metric["state"] for metric in metrics if metric.get("kind") == "orderbook"]
        if states[-1:] == ["live"] and "stale" in states:
            worker.stop("all states seen")

    original = worker.on_start

    def on_start() -> None:
        original()
        worker.every(0.005, drive)
        worker.every(DEADLINE_MS / 1000, lambda: worker.stop("deadline"))

    worker.on_start = on_start  # type: ignore[method-assign]
    assert 0 == worker.run()
    states = [metric["state"] for metric in metrics if metric.get("kind") == "orderbook"]
    assert "live" == states[-1]
    assert "stale" in states
    resyncs = [message for message in requests if message["type"] == "resync"]
    assert {"topic": "book.linear.BTCUSDT", "reason": "gap"}.items() <= resyncs[0].items()
