"""The trades worker between a market publisher and a metrics inbox on real sockets."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from bybit_pipeline.processes.trades.actor import TradesWorker
from bybit_pipeline.shared.bus.market import MarketPublisher
from bybit_pipeline.shared.bus.metrics import MetricInbox
from bybit_pipeline.shared.settings.config import TradesConfig
from bybit_pipeline.shared.settings.specs import TradesSpec
from bybit_pipeline.shared.wire.codec import decode_map
from tests.clock import FakeClock
from tests.trades.worker import (
    BTC,
    DEADLINE_S,
    ETH,
    LINK,
    assignment,
    link,
    trade,
    trades_message,
)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


class Rig:
    """A worker between a real market publisher and a real metrics inbox."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], directory: Path) -> None:
        self.publisher = MarketPublisher(
            context, f"ipc://{directory}/market", f"ipc://{directory}/feed"
        )
        self.inbox = MetricInbox(context, f"ipc://{directory}/metrics")
        spec = TradesSpec(
            process="trades-0",
            role="trades",
            run_dir=str(directory),
            metrics_in=self.inbox.endpoint,
            assignments=[assignment("BTCUSDT", self.publisher.feed_endpoint)],
            settings=TradesConfig(publish_interval_ms=10),
        )
        self.worker = TradesWorker(spec)
        self.worker._context = context
        self.worker.on_start()
        self.topics: list[bytes] = []

    def receive(self, topic: bytes) -> tuple[bytes, dict[str, Any] | None]:
        """Run the worker's loop until a message of this topic arrives."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            for name, payload in self.inbox.receive(100):
                self.topics.append(name)
                if name == topic:
                    return name, decode_map(payload) if payload else None
            self.worker.turn()
        raise AssertionError(f"nothing on {topic!r}")


def test_a_trade_on_the_market_bus_becomes_a_metric(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    rig = Rig(context, tmp_path)
    assert set() == rig.publisher.wait_for_workers([BTC, LINK], 5)
    clock = FakeClock(rig.worker.clock.time_ns() / 1e9)
    rig.publisher.publish(BTC, trades_message(clock, trade(clock, size=0.25)))
    _, payload = rig.receive(b"trades.linear.BTCUSDT")
    assert payload is not None
    assert (0.25, "sim", 1) == (payload["last_size"], payload["source"], payload["seq"])
    rig.worker.on_stop()


def test_windows_end_at_the_last_applied_message_while_messages_are_late(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    rig = Rig(context, tmp_path)
    assert set() == rig.publisher.wait_for_workers([BTC, LINK], 5)
    clock = FakeClock(rig.worker.clock.time_ns() / 1e9 - 3.0)
    sent = trades_message(clock, trade(clock))
    rig.publisher.publish(BTC, sent)

    _, payload = rig.receive(b"trades.linear.BTCUSDT")

    assert payload is not None
    assert 1_000 > payload["as_of_ms"] - sent.exchange_ts_ms
    rig.worker.on_stop()


def test_symbols_are_assigned_and_unassigned_at_runtime(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    rig = Rig(context, tmp_path)
    assigned = assignment("ETHUSDT", rig.publisher.endpoint)
    command = {
        "type": "assign",
        "assignment": {
            "stream": {"kind": "trade", "category": "linear", "symbol": "ETHUSDT"},
            "connector": assigned.connector,
            "endpoint": assigned.endpoint,
        },
    }
    rig.worker.on_command(command)
    assert set() == rig.publisher.wait_for_workers([BTC, ETH], 5)
    clock = FakeClock(rig.worker.clock.time_ns() / 1e9)
    rig.publisher.publish(ETH, trades_message(clock, trade(clock)))
    _, payload = rig.receive(b"trades.linear.ETHUSDT")
    assert payload is not None
    rig.worker.on_command({"type": "unassign", "topic": "trade.linear.ETHUSDT"})
    while payload is not None:
        last = payload
        _, payload = rig.receive(b"trades.linear.ETHUSDT")
    assert ("stale", "unsubscribed") == (last["state"], last["reason"])
    rig.topics.clear()
    rig.receive(b"gap.linear.ETHUSDT")
    rig.receive(b"trades.linear.BTCUSDT")
    assert b"trades.linear.ETHUSDT" not in rig.topics
    rig.worker.on_stop()


def test_markets_are_stale_when_their_connector_ends_unannounced(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    rig = Rig(context, tmp_path)
    assert set() == rig.publisher.wait_for_workers([BTC, LINK], 5)
    clock = FakeClock(rig.worker.clock.time_ns() / 1e9)
    rig.publisher.publish(BTC, trades_message(clock, trade(clock)))
    _, payload = rig.receive(b"trades.linear.BTCUSDT")
    assert payload is not None
    assert "warming" == payload["state"]
    rig.publisher.close()
    _, gap = rig.receive(b"gap.linear.BTCUSDT")
    assert gap is not None
    assert ("opened", "stale", "process_down") == (gap["event"], gap["state"], gap["reason"])
    rig.worker.on_stop()


def test_all_markets_are_published_again_for_a_restarted_forwarder(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    rig = Rig(context, tmp_path)
    assert set() == rig.publisher.wait_for_workers([BTC, LINK], 5)
    clock = FakeClock(rig.worker.clock.time_ns() / 1e9)
    rig.publisher.publish(LINK, link(clock, "connected"))
    _, first = rig.receive(b"trades.linear.BTCUSDT")
    rig.worker.on_command({"type": "republish"})
    _, second = rig.receive(b"trades.linear.BTCUSDT")
    assert first is not None
    assert second is not None
    assert first["seq"] + 1 == second["seq"]
    rig.worker.on_stop()
