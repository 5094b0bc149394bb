"""The dashboard process on a real metrics socket: which numbers it treats as current."""

import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from bybit_pipeline.processes.dashboard import actor as actor_module
from bybit_pipeline.processes.dashboard.actor import Dashboard, preferred
from bybit_pipeline.processes.dashboard.page_state import Cursor
from bybit_pipeline.shared.errors import EX_CANTCREAT, TakenError
from bybit_pipeline.shared.settings.specs import DashboardSpec
from bybit_pipeline.shared.wire.codec import encode_map
from tests.dashboard.browser import wait
from tests.dashboard.payloads import book, density, gap


class Rig:
    """A dashboard whose loop runs in a thread, and the socket that it reads."""

    def __init__(self, directory: Path) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.endpoint = f"ipc://{directory}/metrics"
        self.forwarder = self.start_forwarder()
        spec = DashboardSpec(
            process="dashboard",
            role="dashboard",
            run_dir=str(directory),
            metrics=self.endpoint,
            windows=("10s", "60s"),
            imbalance_levels=(1, 10),
        )
        self.dashboard = Dashboard(spec)
        self.dashboard._context = self.context
        self.dashboard.on_start()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def start_forwarder(self) -> "zmq.Socket[bytes]":
        """Bind the metrics socket."""
        socket: zmq.Socket[bytes] = self.context.socket(zmq.XPUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(self.endpoint)
        return socket

    def _run(self) -> None:
        while not self._stop.is_set():
            self.dashboard.turn()
        self.dashboard.on_stop()

    def subscribed(self) -> None:
        """Wait until the dashboard has subscribed."""
        assert self.forwarder.poll(5000)
        assert b"\x01" == self.forwarder.recv()

    def publish(self, payload: dict[str, Any]) -> None:
        """Publish a message."""
        topic = f"{payload['kind']}.{payload['category']}.{payload['symbol']}"
        self.forwarder.send_multipart([topic.encode(), encode_map(payload)])

    def update(self) -> dict[str, Any]:
        """The update that a new browser would get."""
        assert self.dashboard._server is not None
        with self.dashboard._server.lock:
            return self.dashboard.page.update(Cursor(), "", 0)[1]

    def until(self, state: str) -> None:
        """Wait for a state of the metrics socket."""
        wait(lambda: self.update()["metrics"]["state"] == state, f"metrics {state}")

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.context.destroy(linger=0)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


def test_missed_events_are_counted_and_repeats_skipped(rig: Rig) -> None:
    rig.subscribed()
    for seq in (1, 2, 2, 5):
        rig.publish(density(seq))
    rig.publish(gap(1, 5))

    wait(lambda: len(rig.update()["gaps"]) == 1, "the gap")

    assert 3 == len(rig.update()["walls"])
    assert 2 == rig.dashboard.status()["lost"]


def test_a_lost_connection_drops_the_numbers_and_a_new_one_restores_them(rig: Rig) -> None:
    rig.subscribed()
    rig.publish(book())
    wait(lambda: rig.update()["rows"], "a row")

    rig.forwarder.close()
    rig.until("lost")
    (row,) = rig.update()["rows"]
    assert b'"state":"lost"' in bytes(row)

    rig.forwarder = rig.start_forwarder()
    rig.subscribed()
    rig.publish(book(seq=2))
    rig.until("live")
    wait(lambda: b'"state":"live"' in bytes(rig.update()["rows"][0]), "a live row")


def test_last_values_are_requested_again_after_a_silence(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor_module, "SILENT_S", 1.0)
    monkeypatch.setattr(actor_module, "SAMPLE_S", 0.0)
    rig.subscribed()
    rig.publish(book())
    wait(lambda: rig.update()["rows"], "a row")
    rig.until("silent")
    (row,) = rig.update()["rows"]
    assert b'"best_bid":null' in bytes(row)

    rig.publish(book("ETHUSDT"))
    rig.until("live")

    assert rig.forwarder.poll(5000)
    assert [b"\x00", b"\x01"] == [rig.forwarder.recv(), rig.forwarder.recv()]


def test_undecodable_messages_are_counted(rig: Rig) -> None:
    rig.subscribed()
    rig.forwarder.send_multipart([b"trades.linear.X", b"\xc1"])
    rig.forwarder.send_multipart([b"alone"])
    rig.forwarder.send_multipart([b"gap.linear.X", b"\xc1"])
    rig.publish(book())

    wait(lambda: rig.update()["rows"], "a row")

    assert 3 == rig.dashboard.status()["invalid"]


def test_gaps_of_the_ledger_are_shown(rig: Rig) -> None:
    gaps = [gap(1, 5, 9), gap(2, 11)]
    rig.dashboard.on_command({"type": "reply", "ok": True, "result": {"gaps": gaps, "today": []}})

    assert [(1, 9), (2, None)] == [
        (entry["gap_id"], entry["closed_ts_ns"]) for entry in rig.update()["gaps"]
    ]


def test_the_completeness_of_the_present_day_is_shown_and_sent_once(rig: Rig) -> None:
    day = {"category": "linear", "symbol": "BTCUSDT", "trades_percent": None, "book_percent": 99.5}
    result = {"gaps": [], "today": [{**day, "pipeline": "/r"}]}
    for _ in range(2):
        rig.dashboard.on_command({"type": "reply", "ok": True, "result": result})

    assert [day] == rig.update()["completeness"]


def test_the_page_is_served_at_the_reported_address(rig: Rig) -> None:
    with urllib.request.urlopen(rig.dashboard.endpoints["http"], timeout=5) as answer:
        assert 200 == answer.status
    assert json.dumps(rig.dashboard.status())


def test_a_taken_port_is_an_error_of_one_line(rig: Rig, tmp_path: Path) -> None:
    port = int(rig.dashboard.endpoints["http"].rpartition(":")[2])
    spec = DashboardSpec(
        process="dashboard",
        role="dashboard",
        run_dir=str(tmp_path),
        metrics=rig.endpoint,
        port=port,
    )
    second = Dashboard(spec)

    with pytest.raises(TakenError, match=rf"dashboard.port: 127\.0\.0\.1:{port}") as caught:
        second.on_start()
    assert EX_CANTCREAT == caught.value.exit_code


def test_the_page_shows_one_minute_and_ten_levels_if_they_are_published() -> None:
    assert "60s" == preferred("60s", ("10s", "60s"))
    assert "5m" == preferred("60s", ("5m", "1h"))
    assert "" == preferred("10", [])
