"""The metrics socket with keys, over real sockets: clients that can read it, and others."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from bybit_pipeline.processes.forwarder.actor import Forwarder
from bybit_pipeline.shared.bus.metrics import MetricPublisher
from bybit_pipeline.shared.client import PipelineClient
from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.settings.curve_keys import (
    make_client_keys,
    make_server_keys,
    read_client_keys,
)
from bybit_pipeline.shared.settings.specs import ForwarderSpec

DEADLINE_S = 10.0
NOTHING_MS = 400
"""Time in which nothing may arrive; an admitted client receives a message within a few ms."""
TOPIC = b"trades.linear.BTCUSDT"
SECRET_WORD = "not-for-everybody"


class Rig:
    """A forwarder with keys whose loop runs in a thread, and a steady stream of metrics."""

    def __init__(self, directory: Path, endpoint: str) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.keys = directory / "keys"
        make_server_keys(self.keys)
        self.forwarder = Forwarder(
            ForwarderSpec(
                process="forwarder",
                role="forwarder",
                run_dir=str(directory),
                metrics_in=f"ipc://{directory}/in",
                endpoint=endpoint,
                keys=str(self.keys),
            )
        )
        self.forwarder._context = self.context
        self.forwarder.on_start()
        self.endpoint = self.forwarder.endpoints["metrics"]
        self._publisher = MetricPublisher(self.context, self.forwarder.spec.metrics_in)
        self._seq = 0
        self.forwarder.every(0.01, self._publish)
        self._strangers: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _publish(self) -> None:
        self._seq += 1
        self._publisher.publish(
            TOPIC, {"epoch": "e", "seq": self._seq, "source": "sim", "word": SECRET_WORD}
        )

    def _run(self) -> None:
        while not self._stop.is_set():
            self.forwarder.turn()
        self.forwarder.on_stop()

    def subscriber(
        self, keys: Path | None = None, *, server: bytes | None = None, endpoint: str = ""
    ) -> zmq.Socket[bytes]:
        """Return a subscriber of all topics in another context, like another process."""
        sub = self._strangers.socket(zmq.SUB)
        if keys is not None:
            read_client_keys(keys).apply(sub)
        if server is not None:
            sub.setsockopt(zmq.CURVE_SERVERKEY, server)
        sub.subscribe(b"")
        sub.connect(endpoint or self.endpoint)
        return sub

    def refused(self, reason: str) -> int:
        """Return the number of refused clients, as exported to Prometheus."""
        value = self.forwarder.telemetry.registry.get_sample_value(
            "bybit_pipeline_forwarder_clients_refused_total",
            {"process": "forwarder", "reason": reason},
        )
        return int(value or 0)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._publisher.close()
        self.context.destroy(linger=0)
        self._strangers.destroy(linger=0)


@pytest.fixture(params=["tcp", "ipc"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """A forwarder with keys, on loopback and on a socket file."""
    endpoint = "tcp://127.0.0.1:0" if request.param == "tcp" else f"ipc://{tmp_path}/out"
    with contextlib.closing(Rig(tmp_path, endpoint)) as rig:
        yield rig


def receives_now(sub: zmq.Socket[bytes]) -> bool:
    """Return True if a new message arrives, after those already queued."""
    while sub.poll(0):
        sub.recv_multipart()
    return bool(sub.poll(int(DEADLINE_S * 1000)))


def until(condition: Callable[[], object]) -> None:
    ticker, deadline = threading.Event(), time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        ticker.wait(0.005)


def assert_receives_nothing(rig: Rig, sub: zmq.Socket[bytes]) -> None:
    """Nothing arrives, even while an admitted client receives messages."""
    allowed = rig.subscriber(rig.keys)
    assert receives_now(allowed)
    assert not sub.poll(NOTHING_MS)
    assert receives_now(allowed)
    assert not sub.poll(0)


def test_a_client_without_keys_receives_nothing(rig: Rig) -> None:
    stranger = rig.subscriber()
    assert_receives_nothing(rig, stranger)
    until(lambda: rig.refused("handshake") >= 1)


def test_a_client_that_expects_another_server_key_receives_nothing(rig: Rig) -> None:
    stranger = rig.subscriber(rig.keys, server=zmq.curve_keypair()[0])
    assert_receives_nothing(rig, stranger)
    until(lambda: rig.refused("handshake") >= 1)


def test_a_client_whose_key_was_never_allowed_receives_nothing(rig: Rig) -> None:
    _, handout = make_client_keys(rig.keys, "mallory")
    (rig.keys / "clients" / "mallory.pub").unlink()
    stranger = rig.subscriber(handout)
    assert_receives_nothing(rig, stranger)
    assert 1 == rig.refused("unknown_key")
    assert 1 == rig.forwarder.status()["clients_refused"]


def test_a_client_with_an_allowed_key_is_served_without_a_restart(rig: Rig) -> None:
    _, handout = make_client_keys(rig.keys, "bob")
    with PipelineClient(rig.endpoint, keys=handout) as bob:
        until(lambda: bob.connected)
        assert SECRET_WORD == next(bob.messages(DEADLINE_S)).payload["word"]


def test_a_client_whose_key_is_revoked_receives_nothing_more_and_others_continue(rig: Rig) -> None:
    _, handout = make_client_keys(rig.keys, "bob")
    with contextlib.ExitStack() as stack:
        local = stack.enter_context(PipelineClient(rig.endpoint, keys=rig.keys))
        bob = stack.enter_context(PipelineClient(rig.endpoint, keys=handout))
        until(lambda: bob.connected and local.connected)

        (rig.keys / "clients" / "bob.pub").rename(rig.keys / "bob.off")

        until(lambda: bob.refused)
        assert not bob.connected
        assert [] == list(bob.messages(NOTHING_MS / 1000))
        until(lambda: local.connected)
        assert SECRET_WORD == next(local.messages(DEADLINE_S)).payload["word"]

        (rig.keys / "bob.off").rename(rig.keys / "clients" / "bob.pub")

        until(lambda: bob.connected)
        assert SECRET_WORD == next(bob.messages(DEADLINE_S)).payload["word"]


def test_no_client_is_admitted_while_the_allowed_keys_cannot_be_read(rig: Rig) -> None:
    allowed = rig.subscriber(rig.keys)
    assert receives_now(allowed)
    (rig.keys / "clients").rename(rig.keys / "gone")
    until(lambda: rig.refused("unknown_key"))
    while allowed.poll(0):
        allowed.recv_multipart()
    assert not allowed.poll(NOTHING_MS)


def test_neither_payloads_nor_topics_are_visible_on_the_network(tmp_path: Path) -> None:
    with contextlib.closing(Rig(tmp_path, "tcp://127.0.0.1:0")) as rig:
        tap = Tap(int(rig.endpoint.rpartition(":")[2]))
        sub = rig.subscriber(rig.keys, endpoint=f"tcp://127.0.0.1:{tap.port}")
        received = b""
        for _ in range(20):
            assert sub.poll(int(DEADLINE_S * 1000))
            received += b"".join(sub.recv_multipart())
        tap.close()
    assert SECRET_WORD.encode() in received
    assert len(tap.recorded) > len(received)
    for word in (SECRET_WORD.encode(), TOPIC, b"BTCUSDT", b"epoch"):
        assert word not in tap.recorded


def test_the_tap_sees_both_without_keys(tmp_path: Path) -> None:
    """The same connection without keys, which shows that the test above can fail."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    out = context.socket(zmq.XPUB)
    port = out.bind_to_random_port("tcp://127.0.0.1")
    tap = Tap(port)
    sub = context.socket(zmq.SUB)
    sub.subscribe(b"")
    sub.connect(f"tcp://127.0.0.1:{tap.port}")
    assert out.poll(int(DEADLINE_S * 1000))
    out.send_multipart([TOPIC, SECRET_WORD.encode()])
    assert sub.poll(int(DEADLINE_S * 1000))
    context.destroy(linger=0)
    tap.close()
    assert SECRET_WORD.encode() in tap.recorded


class Tap:
    """Relays one connection and records all its bytes, both ways."""

    def __init__(self, port: int) -> None:
        self.recorded = b""
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._far = socket.create_connection(("127.0.0.1", port))
        self._near: socket.socket | None = None
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        self._near, _ = self._listener.accept()
        threading.Thread(target=self._pass, args=(self._far, self._near), daemon=True).start()
        self._pass(self._near, self._far)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._lock:
                    self.recorded += data
                target.sendall(data)

    def close(self) -> None:
        for end in (self._far, self._near):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self._thread.join(DEADLINE_S)
        self._listener.close()


def test_a_forwarder_without_usable_keys_does_not_start(tmp_path: Path) -> None:
    spec = ForwarderSpec(
        process="forwarder",
        role="forwarder",
        run_dir=str(tmp_path),
        metrics_in=f"ipc://{tmp_path}/in",
        endpoint="tcp://127.0.0.1:0",
        keys=str(tmp_path / "missing"),
    )
    forwarder = Forwarder(spec)
    forwarder._context = zmq.Context()
    with pytest.raises(ConfigError, match=r"security\.keys"):
        forwarder.on_start()
    assert {} == forwarder.endpoints
    forwarder._context.destroy(linger=0)
