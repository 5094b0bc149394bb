"""The simulated exchange over real sockets, as seen by a plain websocket client."""

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
from bybit_pipeline.processes.simulator.server import ExchangeServer, ServerThread
from bybit_pipeline.shared.errors import TakenError
from bybit_pipeline.shared.settings.captures import CaptureReader
from tests.naive import NaiveBook
from tests.simulator.client import DEADLINE_S, OPTION, Client, running
from tests.simulator.test_instruments import TODAY

KINDS = [
    ("spot", "orderbook.50.BTCUSDT", "publicTrade.BTCUSDT"),
    ("linear", "orderbook.50.BTCUSDT", "publicTrade.BTCUSDT"),
    ("inverse", "orderbook.50.BTCUSD", "publicTrade.BTCUSD"),
    ("option", f"orderbook.25.{OPTION}", "publicTrade.BTC"),
]


def checked_book(messages: list[Any], topic: str) -> NaiveBook:
    """Return the book of a snapshot and consecutive deltas; it must never be crossed."""
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
    """A client gets the ack, a snapshot, consecutive deltas, the right trades and a pong."""
    with running() as server, Client(server, category) as client:
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


def test_a_topic_subscribed_again_starts_with_a_new_snapshot() -> None:
    """Nothing of the topic arrives between the unsubscribe ack and the next subscription."""
    topic = "orderbook.50.BTCUSDT"
    with running() as server, Client(server, "linear") as client:
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


def test_all_clients_of_a_topic_get_the_same_bytes() -> None:
    """A late client starts with its own snapshot and then has the same book."""
    topic = "orderbook.50.BTCUSDT"
    with running() as server, Client(server, "linear") as first:
        first.subscribe(topic)
        first.until_topic(topic, 10)
        with Client(server, "linear") as second:
            second.subscribe(topic)
            second.until_topic(topic, 10)
            late = checked_book(second.messages, topic)
        first.until(lambda message: message.get("data", {}).get("u") == late.update_id)
        assert late.best(50) == checked_book(first.messages, topic).best(50)


def test_each_connection_has_its_own_id_and_subscriptions() -> None:
    """A topic is only a duplicate within one connection."""
    with (
        running() as server,
        Client(server, "linear") as first,
        Client(server, "linear") as second,
    ):
        acks = [each.subscribe("publicTrade.BTCUSDT") for each in (first, second)]
        assert [True, True] == [ack["success"] for ack in acks]
        assert acks[0]["conn_id"] != acks[1]["conn_id"]
        assert "already subscribed" in first.subscribe("publicTrade.BTCUSDT")["ret_msg"]


def test_an_unknown_option_topic_is_acked_but_delivers_nothing() -> None:
    """A known topic on the same connection delivers."""
    with running() as server, Client(server, "option") as client:
        ack = client.subscribe(f"orderbook.50.{OPTION}", f"orderbook.25.{OPTION}")
        assert ack["data"]["successTopics"][0] == f"orderbook.50.{OPTION}"
        client.until_topic(f"orderbook.25.{OPTION}", 10)
        assert {None, f"orderbook.25.{OPTION}"} == {each.get("topic") for each in client.messages}


@pytest.mark.parametrize("path", ["/", "/v5/public", "/v5/public/spread", "/v5/private"])
def test_other_paths_are_not_found(path: str) -> None:
    """The server answers with HTTP 404 instead of a handshake."""
    with running() as server:
        url = f"ws://127.0.0.1:{server.server.port}{path}"
        with pytest.raises(websocket.WebSocketBadStatusException) as rejection:
            websocket.create_connection(url, timeout=DEADLINE_S)
        assert rejection.value.status_code == 404


def test_compression_is_not_negotiated_and_protocol_pings_are_answered() -> None:
    """Frames are plain text even if the client offers compression."""
    with running() as server:
        header = ["Sec-WebSocket-Extensions: permessage-deflate"]
        with Client(server, "linear", header=header) as client:
            assert "sec-websocket-extensions" not in (client.socket.getheaders() or {})
            client.socket.ping("are you there")
            opcode, data = client.socket.recv_data(control_frame=True)
            assert (websocket.ABNF.OPCODE_PONG, b"are you there") == (opcode, data)


def test_text_that_is_not_json_is_answered_and_the_socket_stays_open() -> None:
    """The same holds for binary frames."""
    with running() as server, Client(server, "linear") as client:
        client.socket.send("hello")
        client.socket.send_binary(b"\xff")
        for _ in range(2):
            assert client.read()["ret_msg"].startswith("Failed to decode incoming data:")
        assert client.ask(op="ping")["ret_msg"] == "pong"


def test_a_client_that_does_not_read_is_disconnected() -> None:
    """Its backlog is bounded, and other clients miss no message."""
    topic = "orderbook.1000.BTCUSDT"
    feed = SyntheticFeed([instrument_named("linear", "BTCUSDT", TODAY)], rate=15_000)
    with running(feed, backlog_max=200_000) as server, Client(server, "linear") as client:
        dead = Client(server, "linear", sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
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


def test_a_client_that_disappears_leaves_no_subscription() -> None:
    """This holds without a close frame as well; the feed stops the topic after its last client."""
    feed = SyntheticFeed([instrument_named("linear", "BTCUSDT", TODAY)])
    gone: list[TopicKey] = []
    leave = feed.leave

    def record_and_leave(key: TopicKey) -> None:
        gone.append(key)
        leave(key)

    feed.leave = record_and_leave  # type: ignore[method-assign]
    with (
        running(feed) as server,
        Client(server, "linear") as stays,
        Client(server, "linear") as client,
    ):
        stays.subscribe("publicTrade.BTCUSDT")
        client.subscribe("publicTrade.BTCUSDT", "orderbook.50.BTCUSDT")
        assert client.socket.sock is not None
        client.socket.sock.shutdown(socket.SHUT_RDWR)
        end = time.monotonic() + DEADLINE_S
        while server.server.counters.connections > 1 and time.monotonic() < end:
            stays.ask(op="ping")
        assert [("linear", "orderbook.50.BTCUSDT")] == gone


def test_the_error_of_a_taken_port_names_the_address() -> None:
    with running() as server:
        port = server.server.port
        with pytest.raises(TakenError, match=f"127.0.0.1:{port}"):
            ServerThread(ExchangeServer(SyntheticFeed([]), port=port)).start()


def test_stopping_closes_every_connection_promptly() -> None:
    """Clients get a close frame; a client that reads nothing does not delay the stop."""
    with running() as server:
        client, mute = Client(server, "linear"), Client(server, "linear")
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


def test_an_error_in_the_feed_ends_the_server_and_is_reported() -> None:
    """The server must not stay up and send nothing."""
    feed = SyntheticFeed([instrument_named("linear", "BTCUSDT", TODAY)])
    crashes: list[None] = []
    thread = ServerThread(ExchangeServer(feed), on_crash=lambda: crashes.append(None))
    with thread:
        feed.poll = lambda now_ms: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        thread._thread.join(DEADLINE_S)
    assert [None] == crashes
    assert isinstance(thread.error, ZeroDivisionError)


def test_an_error_in_a_reply_ends_the_server() -> None:
    """The handler of the connection must not swallow it."""

    def fail(_key: TopicKey) -> bool:
        raise ZeroDivisionError

    feed = SyntheticFeed([])
    feed.serves = fail  # type: ignore[method-assign,assignment]
    thread = ServerThread(ExchangeServer(feed))
    with thread:
        client = Client(thread, "linear")
        client.send(op="subscribe", args=["publicTrade.BTCUSDT"])
        thread._thread.join(DEADLINE_S)
        client.socket.close()
    assert isinstance(thread.error, ZeroDivisionError)


# -- faults --------------------------------------------------------------------------------------


def test_the_observer_sees_dropped_frames() -> None:
    """It gets every message of a faultless exchange, for comparison."""
    topic, truth = "orderbook.50.BTCUSDT", []
    faults = Faults()
    faults.set("drop", every=5, stream="book")

    def observe(_key: TopicKey, payload: bytes) -> None:
        truth.append(json.loads(payload)["data"]["u"])

    with (
        running(faults=faults, observe=observe) as server,
        Client(server, "linear") as client,
    ):
        client.subscribe(topic)
        client.until_topic(topic, 20)
        got = [each["data"]["u"] for each in client.messages if "topic" in each]
        assert truth == list(range(truth[0], truth[0] + len(truth)))
        assert got == [u for number, u in enumerate(truth, 1) if number % 5][: len(got)]
        assert server.server.faults.injected["drop"] >= 4


def test_disconnect_breaks_every_connection() -> None:
    """There is no close frame, and new connections are accepted."""
    with running() as server, Client(server, "linear") as client:
        client.subscribe("orderbook.50.BTCUSDT")
        server.server.faults.set("disconnect", every=10, times=1)
        with pytest.raises((websocket.WebSocketException, OSError)):
            client.until(lambda _: False)
        with Client(server, "linear") as again:
            assert again.subscribe("orderbook.50.BTCUSDT")["success"]


def test_disconnect_can_send_a_close_frame() -> None:
    """The frame has the requested close code."""
    with running() as server, Client(server, "linear") as client:
        client.subscribe("orderbook.50.BTCUSDT")
        server.server.faults.set("disconnect", every=10, times=1, code=1012)
        opcode, data = client.socket.recv_data(control_frame=True)
        while opcode == websocket.ABNF.OPCODE_TEXT:
            opcode, data = client.socket.recv_data(control_frame=True)
        assert (websocket.ABNF.OPCODE_CLOSE, 1012) == (opcode, int.from_bytes(data[:2], "big"))


def test_a_rejected_handshake_has_the_requested_status() -> None:
    """Later handshakes succeed."""
    faults = Faults()
    faults.set("refuse", times=1, status=403)
    with running(faults=faults) as server:
        with pytest.raises(websocket.WebSocketBadStatusException) as rejection:
            Client(server, "linear")
        assert rejection.value.status_code == 403
        with Client(server, "linear") as client:
            assert client.ask(op="ping")["ret_msg"] == "pong"


def test_a_refused_handshake_may_ask_for_a_pause() -> None:
    faults = Faults()
    faults.set("refuse", status=429, retry_after=7, times=1)
    with (
        running(faults=faults) as server,
        pytest.raises(websocket.WebSocketBadStatusException) as rejection,
    ):
        Client(server, "linear")
    assert "7" == (rejection.value.resp_headers or {})["retry-after"]


def test_an_unavailable_topic_is_refused_and_granted_later() -> None:
    faults = Faults()
    faults.set("unavailable", times=1, topic="orderbook")
    with running(faults=faults) as server, Client(server, "linear") as client:
        first = client.ask(op="subscribe", args=["orderbook.50.BTCUSDT"])
        assert (False, "error:internal server error") == (first["success"], first["ret_msg"])
        assert client.ask(op="subscribe", args=["orderbook.50.BTCUSDT"])["success"]
    with running(faults=faults) as server, Client(server, "option") as client:
        faults.set("unavailable", times=2)
        assert ["publicTrade.BTC"] == client.ask(op="subscribe", args=["publicTrade.BTC"])["data"][
            "failTopics"
        ]


def test_a_late_ack_arrives_after_data_of_its_topic() -> None:
    """The subscription itself is not delayed."""
    faults = Faults()
    faults.set("late_ack", seconds=0.2)
    with running(faults=faults) as server, Client(server, "linear") as client:
        client.subscribe("orderbook.50.BTCUSDT")
        assert client.messages[-1]["success"]
        assert len(client.messages) > 3


def test_a_stall_loses_the_messages_that_are_due_meanwhile() -> None:
    topic = "orderbook.50.BTCUSDT"
    sent: list[int] = []

    def observe(_key: TopicKey, payload: bytes) -> None:
        sent.append(json.loads(payload)["data"]["u"])

    with running(observe=observe) as server, Client(server, "linear") as client:
        client.subscribe(topic)
        client.until_topic(topic)
        server.server.faults.set("stall", every=1, times=1, seconds=0.4)
        before = client.messages[-1]
        while (after := client.read())["data"]["u"] == before["data"]["u"] + 1:
            before = after
    lost = range(before["data"]["u"] + 1, after["data"]["u"])
    assert set(lost) <= set(sent)
    assert {"stall": 1} == server.server.faults.injected


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
def test_a_real_capture_is_delivered_as_recorded(captures: Path, name: str) -> None:
    """An early subscriber gets every message, a late one the final book."""
    feed = PlaybackFeed(captures / name, speed=100)
    topics = list(feed.info.topics)
    recorded = [line for line in CaptureReader(captures / name) if line.topic]
    with running(feed) as server, Client(server, feed.category) as client:
        for start in range(0, len(topics), 10):
            assert client.subscribe(*topics[start : start + 10])["success"]
        data = [client.until(lambda message: "topic" in message) for _ in recorded]
        assert [line.message for line in recorded] == data
        assert not client.subscribe("publicTrade.NOPEUSDT")["success"]
        with Client(server, feed.category) as late:
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
