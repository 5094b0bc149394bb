"""The last will of a silent worker, over real sockets and with a clock that the test sets."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from bybit_pipeline.processes.forwarder.actor import Forwarder
from bybit_pipeline.processes.forwarder.silent_workers import SilentWorkers
from bybit_pipeline.shared.bus.metrics import MetricPublisher
from bybit_pipeline.shared.settings.specs import ForwarderSpec
from bybit_pipeline.shared.wire.codec import decode_map
from bybit_pipeline.shared.wire.orderbook import BookReason, Orderbook
from bybit_pipeline.shared.wire.trades import Trades, Window
from tests.clock import FakeClock

BOOK, TRADES = b"orderbook.linear.BTCUSDT", b"trades.linear.BTCUSDT"
TURNS_MAX = 1_000


def book(seq: int, *, process: str = "orderbook-0", reason: BookReason | None = None) -> Orderbook:
    """A live book, or a stale one with a reason."""
    return Orderbook(
        category="linear",
        symbol="BTCUSDT",
        source="live",
        process=process,
        epoch="orderbook-0-1",
        seq=seq,
        publish_ts_ns=seq,
        state="stale" if reason else "live",
        reason=reason,
        mid_price=None if reason else 100.0,
    )


class Rig:
    """A forwarder that takes a turn when the test says so."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], directory: Path) -> None:
        self.clock = FakeClock(1_000.0)
        spec = ForwarderSpec(
            process="forwarder",
            role="forwarder",
            run_dir=str(directory),
            metrics_in=f"ipc://{directory}/metrics-in",
            endpoint="tcp://127.0.0.1:0",
        )
        self.forwarder = Forwarder(spec, clock=self.clock)
        self.forwarder._context = context
        self.forwarder.on_start()
        self.publisher = MetricPublisher(context, spec.metrics_in)
        self.subscriber = context.socket(zmq.SUB)
        self.subscriber.connect(self.forwarder.endpoints["metrics"])
        self.subscriber.subscribe(b"")
        self.turn_until(lambda: self.forwarder.status()["subscriptions"] == 1)

    def turn_until(self, condition: Any) -> None:
        for _ in range(TURNS_MAX):
            if condition():
                return
            self.forwarder.loop.poller.poll(5)
            self.clock.now_s += 1e-4
            self.forwarder.turn()
        raise AssertionError("the condition never held")

    def publish(self, topic: bytes, record: Orderbook | Trades) -> None:
        """Publish a metric and let the forwarder handle it."""
        before = self.handled
        self.publisher.publish(topic, record)
        self.turn_until(lambda: self.handled > before)

    def heartbeat(self, sent_s: float | None = None, process: str = "orderbook-0") -> None:
        """Send a heartbeat, and a message behind it to know that it was handled."""
        self.publisher.heartbeat(process, self.clock.now_s if sent_s is None else sent_s)
        self.publish(b"process.x", book(1))

    @property
    def handled(self) -> int:
        status = self.forwarder.status()
        return status["messages"] + status["withheld"]

    def received(self) -> list[tuple[bytes, dict[str, Any]]]:
        found = []
        while self.subscriber.poll(100):
            topic, payload = self.subscriber.recv_multipart()
            if topic != b"process.x":
                found.append((topic, decode_map(payload)))
        return found


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    context = zmq.Context()
    rig = Rig(context, tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(context.destroy, linger=0)
        stack.callback(rig.forwarder.on_stop)
        stack.callback(rig.publisher.close)
        yield rig


def silence(rig: Rig) -> None:
    rig.clock.now_s += 1.2
    rig.forwarder.turn()


def test_a_silent_worker_is_stale_without_numbers_and_others_are_not(rig: Rig) -> None:
    rig.heartbeat()
    rig.publish(BOOK, book(1))
    rig.publish(b"orderbook.linear.ETHUSDT", book(1, process="orderbook-1"))
    window = Window(trades=3, size_quantiles={"0.5": 1.0}, coverage_s=60.0)
    trades = Trades(
        category="linear",
        symbol="BTCUSDT",
        source="live",
        process="orderbook-0",
        epoch="1",
        seq=1,
        publish_ts_ns=1,
        state="live",
        windows={"60s": window},
    )
    rig.publish(TRADES, trades)
    rig.received()
    silence(rig)
    wills = dict(rig.received())
    assert {BOOK, TRADES} == wills.keys()
    for will in wills.values():
        assert ("stale", "process_silent") == (will["state"], will["reason"])
    assert wills[BOOK]["mid_price"] is None
    shown = wills[TRADES]["windows"]["60s"]
    assert (None, 0.0, {"0.5": None}) == (
        shown["trades"],
        shown["coverage_s"],
        shown["size_quantiles"],
    )
    assert wills[BOOK]["epoch"] != "orderbook-0-1"


def test_heartbeats_keep_a_quiet_worker_live(rig: Rig) -> None:
    rig.heartbeat()
    rig.publish(BOOK, book(1))
    for _ in range(5):
        rig.heartbeat()
        rig.clock.now_s += 0.9
        rig.forwarder.turn()
    assert ["live"] == [payload["state"] for _, payload in rig.received()]


def test_old_live_messages_of_a_worker_that_resumes_are_withheld(rig: Rig) -> None:
    rig.heartbeat()
    rig.publish(BOOK, book(1))
    silence(rig)
    rig.received()
    rig.publish(BOOK, book(2))
    rig.heartbeat(sent_s=rig.clock.now_s - 1.1)
    rig.publish(BOOK, book(3))
    rig.publish(BOOK, book(4, reason="process_silent"))
    rig.heartbeat()
    rig.publish(BOOK, book(5))
    assert [(4, "stale"), (5, "live")] == [(p["seq"], p["state"]) for _, p in rig.received()]
    assert 2 == rig.forwarder.status()["withheld"]


def test_a_topic_that_is_stale_already_keeps_its_reason(rig: Rig) -> None:
    rig.heartbeat()
    rig.publish(BOOK, book(1, reason="process_down"))
    rig.received()
    silence(rig)
    assert [] == rig.received()


def test_a_pause_of_the_forwarder_itself_makes_waiting_messages_old(rig: Rig) -> None:
    rig.heartbeat()
    rig.publish(BOOK, book(1))
    rig.received()
    rig.publisher.publish(BOOK, book(2))
    rig.publisher.heartbeat("orderbook-0", rig.clock.now_s + 0.1)
    rig.clock.now_s += 5.0
    rig.turn_until(lambda: rig.forwarder.status()["withheld"] == 1)
    assert ["stale"] == [payload["state"] for _, payload in rig.received()]


def test_a_worker_is_silent_once_until_a_recent_heartbeat() -> None:
    workers = SilentWorkers(0.0)
    workers.note("trades-0", 10.0, 10.0)
    assert [] == workers.check(11.0)
    assert [("trades-0", 1.5)] == workers.check(11.5)
    assert [] == workers.check(12.0)
    assert not workers.note("trades-0", 10.5, 12.0)
    assert {"trades-0"} == workers.names
    assert workers.note("trades-0", 11.9, 12.0)
    assert set() == workers.names


def test_a_new_forwarder_withholds_what_waited_for_it_until_the_first_recent_heartbeat(
    rig: Rig,
) -> None:
    rig.publish(BOOK, book(1))
    rig.heartbeat(sent_s=rig.clock.now_s - 3.0)
    rig.publish(BOOK, book(2))
    rig.heartbeat()
    rig.publish(BOOK, book(3))
    assert [3] == [payload["seq"] for _, payload in rig.received()]
