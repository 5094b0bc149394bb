"""The forwarder over real sockets, in a thread; and as a process whose port is taken."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from bybit_pipeline.processes.forwarder.actor import Forwarder
from bybit_pipeline.shared.bus.metrics import MetricPublisher
from bybit_pipeline.shared.errors import EX_CANTCREAT
from bybit_pipeline.shared.settings.specs import ForwarderSpec, write_spec
from bybit_pipeline.shared.wire.codec import decode_map, encode_bundle

DEADLINE_MS = 10_000
BTC = b"trades.linear.BTCUSDT"
ETH = b"trades.linear.ETHUSDT"
BOOK = b"orderbook.linear.BTCUSDT"
Context = zmq.Context[zmq.Socket[bytes]]


def make_spec(directory: Path, endpoint: str = "tcp://127.0.0.1:0") -> ForwarderSpec:
    return ForwarderSpec(
        process="forwarder",
        role="forwarder",
        run_dir=str(directory),
        metrics_in=f"ipc://{directory}/metrics-in",
        endpoint=endpoint,
    )


class Rig:
    """A forwarder whose loop runs in a thread."""

    def __init__(self, context: Context, directory: Path, *, queue: int = 50_000) -> None:
        self.context = context
        self.forwarder = Forwarder(make_spec(directory), queue=queue)
        self.forwarder._context = context
        self.forwarder.on_start()
        self.forwarder.every(0.01, lambda: None)
        self.endpoint = self.forwarder.endpoints["metrics"]
        self.publisher = MetricPublisher(context, self.forwarder.spec.metrics_in)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.forwarder.turn()
        self.forwarder.on_stop()

    def subscribe(self, *prefixes: bytes, queue: int = 50_000) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, queue)
        socket.connect(self.endpoint)
        for prefix in prefixes:
            socket.subscribe(prefix)
        return socket

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds in the forwarder."""
        ticker = threading.Event()
        for _ in range(DEADLINE_MS // 5):
            if condition():
                return
            ticker.wait(0.005)
        raise AssertionError("the condition never held")

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.publisher.close()


@pytest.fixture
def context() -> Iterator[Context]:
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def rig(context: Context, tmp_path: Path) -> Iterator[Rig]:
    with contextlib.closing(Rig(context, tmp_path)) as rig:
        yield rig


def receive(socket: zmq.Socket[bytes]) -> tuple[bytes, dict[str, Any]]:
    assert socket.poll(DEADLINE_MS), "nothing arrived"
    topic, payload = socket.recv_multipart()
    return topic, decode_map(payload)


def test_a_late_subscriber_receives_the_last_value_of_each_matching_topic(
    rig: Rig,
) -> None:
    for seq in range(1, 4):
        rig.publisher.publish(BTC, {"seq": seq})
    rig.publisher.publish(ETH, {"seq": 7})
    rig.publisher.publish(BOOK, {"seq": 9})
    rig.until(lambda: rig.forwarder.status()["messages"] == 5)
    late = rig.subscribe(b"trades.")
    assert {BTC: {"seq": 3}, ETH: {"seq": 7}} == dict([receive(late), receive(late)])


def test_the_second_subscriber_of_a_topic_receives_its_last_value_too(rig: Rig) -> None:
    rig.publisher.publish(BTC, {"seq": 1})
    rig.until(lambda: rig.forwarder.status()["last_values"] == 1)
    first = rig.subscribe(BTC)
    assert (BTC, {"seq": 1}) == receive(first)
    second = rig.subscribe(BTC)
    assert (BTC, {"seq": 1}) == receive(second)
    rig.publisher.publish(BTC, {"seq": 2})
    assert (BTC, {"seq": 2}) == receive(second)
    seen = [receive(first)[1]["seq"]]
    while seen[-1] != 2:
        seen.append(receive(first)[1]["seq"])
    assert seen in ([1, 2], [2])


def test_messages_pass_in_order(rig: Rig) -> None:
    subscriber = rig.subscribe(b"trades.")
    rig.until(lambda: rig.forwarder.status()["subscriptions"] == 1)
    for seq in range(5_000):
        rig.publisher.publish((BTC, ETH)[seq % 2], {"seq": seq})
    assert list(range(5_000)) == [receive(subscriber)[1]["seq"] for _ in range(5_000)]


def test_a_retired_topic_is_neither_passed_on_nor_kept(rig: Rig) -> None:
    subscriber = rig.subscribe(b"")
    rig.until(lambda: rig.forwarder.status()["subscriptions"] == 1)
    rig.publisher.publish(BTC, {"seq": 1})
    rig.publisher.tombstone(BTC)
    rig.publisher.publish(ETH, {"seq": 1})
    assert [BTC, ETH] == [receive(subscriber)[0] for _ in range(2)]
    late = rig.subscribe(b"")
    assert ETH == receive(late)[0]
    assert 1 == rig.forwarder.status()["last_values"]


def test_invalid_messages_are_counted_and_dropped(rig: Rig) -> None:
    subscriber = rig.subscribe(b"")
    rig.until(lambda: rig.forwarder.status()["subscriptions"] == 1)
    raw = rig.context.socket(zmq.PUSH)
    raw.connect(rig.forwarder.spec.metrics_in)
    raw.send(b"no bundle")
    raw.send(encode_bundle([BTC, b"a topic without a payload", ETH]))
    raw.send(encode_bundle([BTC, b"not msgpack"]))
    raw.send_multipart([b"two", b"frames"])
    rig.until(lambda: rig.forwarder.status()["invalid"] == 5)
    rig.publisher.publish(ETH, {"seq": 1})
    assert ETH == receive(subscriber)[0]
    raw.close(linger=0)


def test_a_subscriber_that_does_not_read_loses_messages_and_delays_no_other(
    context: Context, tmp_path: Path
) -> None:
    payload = {"fill": "x" * 10_000}
    with contextlib.closing(Rig(context, tmp_path, queue=100)) as rig:
        sleeper = rig.subscribe(b"", queue=1)
        reader = rig.subscribe(b"")
        rig.until(lambda: rig.forwarder.status()["subscriptions"] == 2)
        for seq in range(3_000):
            rig.publisher.publish(BTC, {"seq": seq, **payload})
            assert seq == receive(reader)[1]["seq"]
        seen = [receive(sleeper)[1]["seq"]]
        while sleeper.poll(100):
            seen.append(receive(sleeper)[1]["seq"])
        assert 0 < len(seen) < 3_000
        assert sorted(set(seen)) == seen


def test_a_taken_port_ends_the_process_with_one_line_that_names_the_port(
    context: Context, tmp_path: Path
) -> None:
    owner = context.socket(zmq.PUB)
    port = owner.bind_to_random_port("tcp://127.0.0.1")
    spec = make_spec(tmp_path, f"tcp://127.0.0.1:{port}")
    write_spec(spec, tmp_path / "forwarder.json")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bybit_pipeline.processes.forwarder",
            str(tmp_path / "forwarder.json"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    assert EX_CANTCREAT == done.returncode
    [line] = [line for line in done.stderr.splitlines() if '"level": "error"' in line]
    assert f"127.0.0.1:{port}" in line
    assert "Traceback" not in done.stderr
