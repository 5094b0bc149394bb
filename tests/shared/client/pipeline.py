"""A real forwarder in a thread, with something that publishes through it, for tests of clients."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import zmq

from bybit_pipeline.processes.forwarder.actor import Forwarder
from bybit_pipeline.shared.bus.metrics import MetricPublisher
from bybit_pipeline.shared.settings.specs import ForwarderSpec

DEADLINE_S = 10.0
TICK_S = 0.005

WINDOW = {"trades": 4, "tpm": 4.0, "vol_delta": -1.5, "buy_sell_ratio": 0.25}
WALL = {
    "side": "bid",
    "price": 99.0,
    "size": 80.0,
    "initial_size": 70.0,
    "peak_size": 90.0,
    "strength": 8.0,
    "eaten_ratio": 0.1,
    "pulled_ratio": 0.0,
    "traded_size": 9.0,
    "distance_bps": 100.5,
    "first_seen_ms": 1,
    "age_ms": 2,
    "uncertain": False,
    "cancelled_size": 1.0,
}
BOOK = {
    "source": "sim",
    "state": "live",
    "reason": None,
    "update_id": 77,
    "match_ts_ms": 123,
    "best_bid": 100.0,
    "best_ask": 101.0,
    "mid_price": 100.5,
    "spread_bps": 99.5,
    "bids": [[100.0, 1.0], [99.0, 80.0]],
    "asks": [[101.0, 2.0]],
    "imbalance": {"1": -0.25, "10": 0.5},
    "depth": {"10": {"bid": 1.0, "ask": 2.0}, "2.5": {"bid": 0.5, "ask": 0.25}},
    "densities": [WALL],
}


class ForwarderRig:
    """A forwarder in a thread, and a publisher that is connected to it."""

    def __init__(
        self, directory: Path, endpoint: str = "tcp://127.0.0.1:0", keys: Path | None = None
    ) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.forwarder = Forwarder(
            ForwarderSpec(
                process="forwarder",
                role="forwarder",
                run_dir=str(directory),
                metrics_in=f"ipc://{directory}/metrics-in",
                endpoint=endpoint,
                keys="" if keys is None else str(keys),
            )
        )
        self.forwarder._context = self.context
        self.forwarder.on_start()
        self.forwarder.every(0.01, lambda: None)
        self.endpoint = self.forwarder.endpoints["metrics"]
        self._publisher = MetricPublisher(self.context, self.forwarder.spec.metrics_in)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.forwarder.turn()
        self.forwarder.on_stop()

    def publish(self, topic: str, seq: int, epoch: str = "a", **fields: Any) -> None:
        """Publish one message."""
        self._publisher.publish(topic.encode(), self._payload(topic, seq, epoch) | fields)

    def publish_many(self, topic: str, seqs: range) -> None:
        """Publish one message per number."""
        self._publisher.publish_all((topic.encode(), self._payload(topic, seq)) for seq in seqs)

    def _payload(self, topic: str, seq: int, epoch: str = "a") -> dict[str, Any]:
        return {
            "kind": topic.partition(".")[0],
            "source": "sim",
            "epoch": epoch,
            "seq": seq,
            "publish_ts_ns": time.time_ns(),
        }

    def publish_trades(self, symbol: str = "BTCUSDT", seq: int = 1, **fields: Any) -> None:
        """Publish a ``trades.linear`` message."""
        windows = {"60s": WINDOW, "10s": dict.fromkeys(WINDOW)}
        self.publish(f"trades.linear.{symbol}", seq, tps=0.5, windows=windows, **fields)

    def publish_book(self, seq: int = 1, **fields: Any) -> None:
        """Publish an ``orderbook.linear.BTCUSDT`` message."""
        self.publish("orderbook.linear.BTCUSDT", seq, **(BOOK | fields))

    def status(self, name: str) -> int:
        """One of the forwarder's counts."""
        return int(self.forwarder.status()[name])

    def close(self) -> None:
        """Stop the forwarder and close every socket."""
        self._stop.set()
        self._thread.join()
        self.context.destroy(linger=0)


class Relay:
    """A TCP relay to an endpoint that can stop forwarding without closing its connections."""

    def __init__(self, endpoint: str) -> None:
        self._port = int(endpoint.rpartition(":")[2])
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self.is_forwarding = threading.Event()
        self.is_forwarding.set()
        self._sockets = [self._server]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += (near, far)
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self.is_forwarding.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close every connection."""
        self.is_forwarding.set()
        for each in self._sockets:
            each.close()


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that another thread makes true."""
    ticker, deadline = threading.Event(), time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        ticker.wait(TICK_S)
