"""The simulated exchange over real sockets, seen by a plain websocket client."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import websocket

from bybit_pipeline.processes.simulator.faults import Faults
from bybit_pipeline.processes.simulator.feed import TopicKey
from bybit_pipeline.processes.simulator.market.instruments import instrument_named
from bybit_pipeline.processes.simulator.market.synthetic import SyntheticFeed
from bybit_pipeline.processes.simulator.playback import PlaybackFeed
from bybit_pipeline.processes.simulator.server import Server, ServerThread
from bybit_pipeline.shared.errors import TakenError
from bybit_pipeline.shared.settings.captures import CaptureReader
from tests.naive import NaiveBook
from tests.simulator.client import DEADLINE_S, OPTION, Connection, running
from tests.simulator.test_instruments import TODAY

KINDS = [
    ("spot", "orderbook.50.BTCUSDT", "publicTrade.BTCUSDT"),
    ("linear", "orderbook.50.BTCUSDT", "publicTrade.BTCUSDT"),
    ("inverse", "orderbook.50.BTCUSD", "publicTrade.BTCUSD"),
    ("option", f"orderbook.25.{OPTION}", "publicTrade.BTC"),
]


def checked_book(messages: list[Any], topic: str) -> NaiveBook:
    """A book from a snapshot and consecutive deltas, never crossed."""
    book = NaiveBook()
    for number, message in enumerate(each for each in messages if each.get("topic") == topic):
        assert message["type"] == ("delta" if number else "snapshot")
        assert not number or message["data"]["u"] == book.update_id + 1
        book.apply(message)
        assert max(book.bids) < min(book.asks)
    return book


@pytest.mark.parametrize(("category", "book_topic", "trade_topic"), KINDS)
def test_each_category_acks_and_delivers_books_and_trades(
    category: str, book_topic: str, trade_topic: str
) -> None:
    """Ack, snapshot, consecutive deltas, trades of the right symbols, pong."""
    with running() as server, Connection(server, category) as client:
        ack = client.subscribe(book_topic, trade_topic)
        assert ack["success"] is True
        client.until_topic(book_topic, 20)
        client.until_topic(trade_topic, 5)
        checked_book(client.messages, book_topic)
        pong = client.ask(op="ping")
        assert "pong" in (pong["op"], pong.get("ret_msg"))
        rows = [
            row
            for message in client.messages
            if message.get("topic") == trade_topic
            for row in message["data"]
        ]
        assert {"Buy", "Sell"} >= {row["S"] for row in rows}
        assert len(rows) == len({row["i"] for row in rows})


def test_unsubscribing_ends_the_topic_and_subscribing_again_gives_a_fresh_snapshot() -> None:
    """Between the unsubscribe ack and the next subscription nothing of the topic comes."""
    topic = "orderbook.50.BTCUSDT"
    with running() as server, Connection(server, "linear") as client:
        client.subscribe(topic, "orderbook.50.ETHUSDT")
        last = client.until_topic(topic, 5)[-1]
        assert client.ask(op="unsubscribe", args=[topic], req_id="9")["req_id"] == "9"
        silent_from = len(client.messages)
        client.until_topic("orderbook.50.ETHUSDT", 20)
        assert topic not in {each.get("topic") for each in client.messages[silent_from:]}
        again = len(client.messages)
        client.subscribe(topic)
        client.until_topic(topic, 5)
        book = checked_book(client.messages[again:], topic)
        assert book.update_id > last["data"]["u"]


def test_several_clients_get_the_same_bytes_each_from_its_own_snapshot() -> None:
    """A second client joins in the middle; from there on both hold the same book."""
    topic = "orderbook.50.BTCUSDT"
    with running() as server, Connection(server, "linear") as first:
        first.subscribe(topic)
        first.until_topic(topic, 10)
        with Connection(server, "linear") as second:
            second.subscribe(topic)
            second.until_topic(topic, 10)
            late = checked_book(second.messages, topic)
        first.until(lambda message: message.get("data", {}).get("u") == late.update_id)
        assert late.best(50) == checked_book(first.messages, topic).best(50)


def test_connections_have_their_own_ids_and_subscriptions() -> None:
    """``already subscribed`` concerns one connection only."""
    with (
        running() as server,
        Connection(server, "linear") as first,
        Connection(server, "linear") as second,
    ):
        acks = [each.subscribe("publicTrade.BTCUSDT") for each in (first, second)]
        assert [True, True] == [ack["success"] for ack in acks]
        assert acks[0]["conn_id"] != acks[1]["conn_id"]
        assert "already subscribed" in first.subscribe("publicTrade.BTCUSDT")["ret_msg"]


def test_an_option_topic_that_is_not_served_is_acked_and_stays_silent() -> None:
    """A served one on the same connection delivers meanwhile."""
    with running() as server, Connection(server, "option") as client:
        ack = client.subscribe(f"orderbook.50.{OPTION}", f"orderbook.25.{OPTION}")
        assert ack["data"]["successTopics"][0] == f"orderbook.50.{OPTION}"
        client.until_topic(f"orderbook.25.{OPTION}", 10)
        assert {None, f"orderbook.25.{OPTION}"} == {each.get("topic") for each in client.messages}


@pytest.mark.parametrize("path", ["/", "/v5/public", "/v5/public/spread", "/v5/private"])
def test_other_paths_are_not_found(path: str) -> None:
    """HTTP 404 instead of a handshake."""
    with running() as server:
        url = f"ws://127.0.0.1:{server.server.port}{path}"
        with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
            websocket.create_connection(url, timeout=DEADLINE_S)
        assert refusal.value.status_code == 404


def test_compression_is_not_negotiated_and_protocol_pings_are_answered() -> None:
    """Frames are plain text whatever the client offers."""
    with running() as server:
        header = ["Sec-WebSocket-Extensions: permessage-deflate"]
        with Connection(server, "linear", header=header) as client:
            assert "sec-websocket-extensions" not in (client.socket.getheaders() or {})
            client.socket.ping("are you there")
            opcode, data = client.socket.recv_data(control_frame=True)
            assert (websocket.ABNF.OPCODE_PONG, b"are you there") == (opcode, data)


def test_text_that_is_not_json_is_answered_and_the_socket_stays_open() -> None:
    """Binary frames likewise."""
    with running() as server, Connection(server, "linear") as client:
        client.socket.send("hello")
        client.socket.send_binary(b"\xff")
        for _ in range(2):
            assert client.read()["ret_msg"].startswith("Failed to decode incoming data:")
        assert client.ask(op="ping")["ret_msg"] == "pong"


def test_a_client_that_does_not_read_is_closed_and_disturbs_nobody() -> None:
    """Its backlog is bounded; the others miss no message."""
    topic = "orderbook.1000.BTCUSDT"
    feed = SyntheticFeed([instrument_named("linear", "BTCUSDT", TODAY)], rate=15_000)
    with running(feed, backlog_max=200_000) as server, Connection(server, "linear") as client:
        dead = Connection(server, "linear", sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
        dead.send(op="subscribe", args=[topic, "publicTrade.BTCUSDT"])
        client.subscribe(topic)
        end = time.monotonic() + DEADLINE_S
        while not server.server.counters.overflows and time.monotonic() < end:
            client.until_topic(topic)
        assert server.server.counters.overflows == 1
        client.until_topic(topic, 3)
        checked_book(client.messages, topic)
        assert server.server.counters.connections == 1
        dead.socket.close()


def test_a_vanished_client_leaves_no_subscription_behind() -> None:
    """Without a close frame, too; the feed is told when the last one of a topic went."""
    feed = SyntheticFeed([instrument_named("linear", "BTCUSDT", TODAY)])
    gone: list[TopicKey] = []
    leave = feed.leave

    def note_and_leave(key: TopicKey) -> None:
        gone.append(key)
        leave(key)

    feed.leave = note_and_leave  # type: ignore[method-assign]
    with (
        running(feed) as server,
        Connection(server, "linear") as stays,
        Connection(server, "linear") as client,
    ):
        stays.subscribe("publicTrade.BTCUSDT")
        client.subscribe("publicTrade.BTCUSDT", "orderbook.50.BTCUSDT")
        assert client.socket.sock is not None
        client.socket.sock.shutdown(socket.SHUT_RDWR)
        end = time.monotonic() + DEADLINE_S
        while server.server.counters.connections > 1 and time.monotonic() < end:
            stays.ask(op="ping")
        assert [("linear", "orderbook.50.BTCUSDT")] == gone


def test_a_taken_port_is_said() -> None:
    """With the address."""
    with running() as server:
        port = server.server.port
        with pytest.raises(TakenError, match=f"127.0.0.1:{port}"):
            ServerThread(Server(SyntheticFeed([]), port=port)).start()


def test_stopping_closes_every_connection_promptly() -> None:
    """Clients see a close frame; also with a client that reads nothing."""
    with running() as server:
        client, mute = Connection(server, "linear"), Connection(server, "linear")
        for each in (client, mute):
            each.send(op="subscribe", args=["orderbook.50.BTCUSDT"])
        client.until_topic("orderbook.50.BTCUSDT")
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 3.0
        with pytest.raises((websocket.WebSocketException, json.JSONDecodeError)):
            client.until(lambda _: False)
        client.socket.close()
        mute.socket.close()


def test_an_error_in_the_feed_ends_the_server_and_is_told() -> None:
    """Never a server that is up and sends nothing."""
    feed = SyntheticFeed([instrument_named("linear", "BTCUSDT", TODAY)])
    deaths: list[BaseException] = []
    thread = ServerThread(Server(feed), on_death=deaths.append)
    with thread:
        feed.poll = lambda now_ms: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        thread._thread.join(DEADLINE_S)
    assert [ZeroDivisionError] == [type(death) for death in deaths]
    assert thread.error is deaths[0]


def test_an_error_while_answering_ends_the_server_too() -> None:
    """A bug in one connection is not swallowed by its handler."""

    def fail(_key: TopicKey) -> bool:
        raise ZeroDivisionError

    feed = SyntheticFeed([])
    feed.serves = fail  # type: ignore[method-assign,assignment]
    thread = ServerThread(Server(feed))
    with thread:
        client = Connection(thread, "linear")
        client.send(op="subscribe", args=["publicTrade.BTCUSDT"])
        thread._thread.join(DEADLINE_S)
        client.socket.close()
    assert isinstance(thread.error, ZeroDivisionError)


# -- faults --------------------------------------------------------------------------------------


def test_dropped_frames_are_holes_that_the_observer_does_not_have() -> None:
    """The observer sees what a faultless exchange would have sent: a test's truth."""
    topic, truth = "orderbook.50.BTCUSDT", []
    faults = Faults()
    faults.set("drop", every=5, stream="book")

    def observe(_key: TopicKey, payload: bytes) -> None:
        truth.append(json.loads(payload)["data"]["u"])

    with running(faults=faults, observe=observe) as server, Connection(server, "linear") as client:
        client.subscribe(topic)
        client.until_topic(topic, 20)
        got = [each["data"]["u"] for each in client.messages if "topic" in each]
        assert truth == list(range(truth[0], truth[0] + len(truth)))
        assert got == [u for number, u in enumerate(truth, 1) if number % 5][: len(got)]
        assert server.server.faults.injected["drop"] >= 4


def test_disconnect_breaks_every_connection() -> None:
    """Abruptly; new connections are welcome."""
    with running() as server, Connection(server, "linear") as client:
        client.subscribe("orderbook.50.BTCUSDT")
        server.server.faults.set("disconnect", every=10, times=1)
        with pytest.raises((websocket.WebSocketException, OSError)):
            client.until(lambda _: False)
        with Connection(server, "linear") as again:
            assert again.subscribe("orderbook.50.BTCUSDT")["success"]


def test_disconnect_can_say_goodbye() -> None:
    """With the close code asked for."""
    with running() as server, Connection(server, "linear") as client:
        client.subscribe("orderbook.50.BTCUSDT")
        server.server.faults.set("disconnect", every=10, times=1, code=1012)
        opcode, data = client.socket.recv_data(control_frame=True)
        while opcode == websocket.ABNF.OPCODE_TEXT:
            opcode, data = client.socket.recv_data(control_frame=True)
        assert (websocket.ABNF.OPCODE_CLOSE, 1012) == (opcode, int.from_bytes(data[:2], "big"))


def test_refused_handshakes_say_their_status() -> None:
    """And later ones are let in."""
    faults = Faults()
    faults.set("refuse", times=1, status=403)
    with running(faults=faults) as server:
        with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
            Connection(server, "linear")
        assert refusal.value.status_code == 403
        with Connection(server, "linear") as client:
            assert client.ask(op="ping")["ret_msg"] == "pong"


def test_a_late_ack_comes_after_the_data_it_acks() -> None:
    """The subscription itself is not late."""
    faults = Faults()
    faults.set("late_ack", seconds=0.2)
    with running(faults=faults) as server, Connection(server, "linear") as client:
        client.subscribe("orderbook.50.BTCUSDT")
        assert client.messages[-1]["success"]
        assert len(client.messages) > 3


def test_a_stall_silences_the_connection_and_leaves_a_hole() -> None:
    """What was due meanwhile is lost."""
    topic = "orderbook.50.BTCUSDT"
    with running() as server, Connection(server, "linear") as client:
        client.subscribe(topic)
        client.until_topic(topic)
        server.server.faults.set("stall", every=1, times=1, seconds=0.4)
        before = client.messages[-1]
        while (after := client.read())["ts"] - before["ts"] < 300:
            before = after
        assert after["data"]["u"] > before["data"]["u"] + 1


# -- playback ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "linear_20260809_ob200_BTC_SOL.jsonl",
        "spot_20260809_ob200_ETH.jsonl",
        "linear_20241201_ob500_XRP.data",
        "linear_20250613_ob1_4symbols.jsonl",
    ],
)
def test_a_real_capture_comes_over_the_socket_as_recorded(captures: Path, name: str) -> None:
    """At high speed: all data to who was there from the start, the final book to who comes late."""
    feed = PlaybackFeed(captures / name, speed=100)
    topics = list(feed.info.topics)
    recorded = [line for line in CaptureReader(captures / name) if line.topic]
    with running(feed) as server, Connection(server, feed.category) as client:
        for start in range(0, len(topics), 10):
            assert client.subscribe(*topics[start : start + 10])["success"]
        data = [client.until(lambda message: "topic" in message) for _ in recorded]
        assert [line.message for line in recorded] == data
        assert not client.subscribe("publicTrade.NOPEUSDT")["success"]
        with Connection(server, feed.category) as late:
            for topic in topics:
                if topic.startswith("orderbook."):
                    late.subscribe(topic)
                    book, truth = NaiveBook(), NaiveBook()
                    book.apply(late.until_topic(topic)[0])
                    for message in data:
                        if message["topic"] == topic:
                            truth.apply(message)
                    assert truth.best(500) == book.best(500)
                    assert truth.update_id == book.update_id
