"""The load server over real sockets: handshake, acks, pings, and every frame once."""

import json
import socket
import threading
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from scripts.benchmarks.load import LoadSpec, make_load
from scripts.benchmarks.load_server import LoadServer

MESSAGES = 500
TIMEOUT_S = 10


@pytest.fixture
def server() -> LoadServer:
    """Return a server with three symbols at full speed; its threads are daemons."""
    load = make_load(LoadSpec(symbols=3, messages=MESSAGES))
    made = LoadServer(load, rate=0.0, total=MESSAGES)
    threading.Thread(target=made.accept_forever, daemon=True).start()
    return made


def open_client(server: LoadServer) -> ClientConnection:
    url = f"ws://127.0.0.1:{server.port}/v5/public/linear"
    return connect(url, compression=None, close_timeout=0.1)


def receive(client: ClientConnection) -> dict[str, Any]:
    return dict(json.loads(client.recv(TIMEOUT_S)))


def subscribe(client: ClientConnection, topics: list[str]) -> list[dict[str, Any]]:
    """Subscribe; return the ack and the snapshots that follow."""
    client.send(json.dumps({"req_id": "r1", "op": "subscribe", "args": topics}))
    snapshots = sum(topic.startswith("orderbook") for topic in topics)
    return [receive(client) for _ in range(1 + snapshots)]


def topics(symbol: str, depth: int = 50) -> list[str]:
    return [f"orderbook.{depth}.{symbol}", f"publicTrade.{symbol}"]


def test_a_subscription_is_acked_and_followed_by_a_snapshot(server: LoadServer) -> None:
    with open_client(server) as client:
        ack, snapshot = subscribe(client, topics("BTCUSDT"))
        assert (True, "subscribe", "r1") == (ack["success"], ack["op"], ack["req_id"])
        assert ("snapshot", 50) == (snapshot["type"], len(snapshot["data"]["b"]))


def test_a_ping_gets_the_pong_of_linear(server: LoadServer) -> None:
    with open_client(server) as client:
        client.send('{"req_id":"7","op":"ping"}')
        pong = receive(client)
        assert ("pong", "ping", "7") == (pong["ret_msg"], pong["op"], pong["req_id"])


def test_every_message_reaches_the_connection_that_has_subscribed_it(server: LoadServer) -> None:
    with open_client(server) as one, open_client(server) as other:
        subscribe(one, topics("BTCUSDT"))
        subscribe(other, topics("ETHUSDT") + topics("SOLUSDT", depth=200))
        report: dict[str, Any] = {}
        assert server.complete.wait(TIMEOUT_S)
        server.prepare()
        player = threading.Thread(target=lambda: report.update(server.send_load()))
        player.start()
        counts = {"BTCUSDT": 0, "ETHUSDT": 0, "SOLUSDT": 0}
        for frame in server.load.frames:
            counts[frame.symbol] += 1
        mine = [receive(one) for _ in range(counts["BTCUSDT"])]
        theirs = [receive(other) for _ in range(counts["ETHUSDT"] + counts["SOLUSDT"])]
        player.join(TIMEOUT_S)
        assert {"BTCUSDT"} == {line["topic"].rpartition(".")[2] for line in mine}
        assert {"ETHUSDT", "SOLUSDT"} == {line["topic"].rpartition(".")[2] for line in theirs}
        assert (MESSAGES, 0) == (report["sent"], report["disconnected"])


def test_the_report_counts_lost_connections(server: LoadServer) -> None:
    with open_client(server) as one, open_client(server) as other:
        subscribe(one, topics("BTCUSDT"))
        subscribe(other, topics("ETHUSDT") + topics("SOLUSDT"))
        one.socket.shutdown(socket.SHUT_RDWR)
        assert server.ended.acquire(timeout=TIMEOUT_S)
        assert server.complete.wait(TIMEOUT_S)
        server.prepare()
        assert server.send_load()["disconnected"] == 1
