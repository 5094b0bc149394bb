"""The load server over real sockets: Bybit's handshake, acks and pings, and every frame once."""

import json
import socket
import threading
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from scripts.benchmarks.frames import LoadSpec, make_load
from scripts.benchmarks.venue import Venue

MESSAGES = 500
TIMEOUT_S = 10


@pytest.fixture
def venue() -> Venue:
    """A server with three symbols at full speed; its threads are daemons."""
    load = make_load(LoadSpec(symbols=3, messages=MESSAGES))
    server = Venue(load, rate=0.0, total=MESSAGES)
    threading.Thread(target=server.accept_forever, daemon=True).start()
    return server


def open_client(venue: Venue) -> ClientConnection:
    url = f"ws://127.0.0.1:{venue.port}/v5/public/linear"
    return connect(url, compression=None, close_timeout=0.1)


def receive(client: ClientConnection) -> dict[str, Any]:
    return dict(json.loads(client.recv(TIMEOUT_S)))


def subscribe(client: ClientConnection, topics: list[str]) -> list[dict[str, Any]]:
    """The ack and the snapshots that come with it."""
    client.send(json.dumps({"req_id": "r1", "op": "subscribe", "args": topics}))
    snapshots = sum(topic.startswith("orderbook") for topic in topics)
    return [receive(client) for _ in range(1 + snapshots)]


def topics(symbol: str, depth: int = 50) -> list[str]:
    return [f"orderbook.{depth}.{symbol}", f"publicTrade.{symbol}"]


def test_a_subscription_is_acknowledged_and_brings_a_snapshot(venue: Venue) -> None:
    with open_client(venue) as client:
        ack, snapshot = subscribe(client, topics("BTCUSDT"))
        assert (True, "subscribe", "r1") == (ack["success"], ack["op"], ack["req_id"])
        assert ("snapshot", 50) == (snapshot["type"], len(snapshot["data"]["b"]))


def test_a_ping_is_answered_as_linear_does(venue: Venue) -> None:
    with open_client(venue) as client:
        client.send('{"req_id":"7","op":"ping"}')
        pong = receive(client)
        assert ("pong", "ping", "7") == (pong["ret_msg"], pong["op"], pong["req_id"])


def test_every_message_reaches_the_connection_that_subscribed_it(venue: Venue) -> None:
    with open_client(venue) as one, open_client(venue) as other:
        subscribe(one, topics("BTCUSDT"))
        subscribe(other, topics("ETHUSDT") + topics("SOLUSDT", depth=200))
        report: dict[str, Any] = {}
        assert venue.complete.wait(TIMEOUT_S)
        venue.lay_out()
        player = threading.Thread(target=lambda: report.update(venue.play()))
        player.start()
        counts = {"BTCUSDT": 0, "ETHUSDT": 0, "SOLUSDT": 0}
        for frame in venue.load.frames:
            counts[frame.symbol] += 1
        mine = [receive(one) for _ in range(counts["BTCUSDT"])]
        theirs = [receive(other) for _ in range(counts["ETHUSDT"] + counts["SOLUSDT"])]
        player.join(TIMEOUT_S)
        assert {"BTCUSDT"} == {line["topic"].rpartition(".")[2] for line in mine}
        assert {"ETHUSDT", "SOLUSDT"} == {line["topic"].rpartition(".")[2] for line in theirs}
        assert (MESSAGES, 0) == (report["sent"], report["disconnected"])


def test_a_lost_connection_is_in_the_report(venue: Venue) -> None:
    with open_client(venue) as one, open_client(venue) as other:
        subscribe(one, topics("BTCUSDT"))
        subscribe(other, topics("ETHUSDT") + topics("SOLUSDT"))
        one.socket.shutdown(socket.SHUT_RDWR)
        assert venue.ended.acquire(timeout=TIMEOUT_S)
        assert venue.complete.wait(TIMEOUT_S)
        venue.lay_out()
        assert venue.play()["disconnected"] == 1
