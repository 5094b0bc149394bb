"""Acks, refusals and pongs: the exchange's own words in each category's shape."""

import json

import pytest

from bybit_pipeline.processes.simulator.protocol import Reply, Session
from bybit_pipeline.shared.wire.messages import Category

TOPICS = {"publicTrade.BTCUSDT", "publicTrade.ETHUSDT", "orderbook.50.BTCUSDT"}
CONTRACTS: tuple[Category, ...] = ("linear", "inverse")


def answer(session: Session, **request: object) -> Reply:
    """The reply to a request."""
    return session.answer(json.dumps(request), is_topic=TOPICS.__contains__, now_ms=1672916271846)


def session(category: Category) -> Session:
    """A fresh connection."""
    return Session(category, "c-1")


TABLE: list[tuple[Category, dict[str, object], str]] = [
    # pings
    ("spot", {"op": "ping"}, '{"success":true,"ret_msg":"pong","conn_id":"c-1","op":"ping"}'),
    (
        "spot",
        {"op": "ping", "req_id": "7"},
        '{"success":true,"ret_msg":"pong","conn_id":"c-1","op":"ping"}',
    ),
    (
        "linear",
        {"op": "ping"},
        '{"success":true,"ret_msg":"pong","conn_id":"c-1","req_id":"","op":"ping"}',
    ),
    (
        "inverse",
        {"op": "ping", "req_id": "7"},
        '{"success":true,"ret_msg":"pong","conn_id":"c-1","req_id":"7","op":"ping"}',
    ),
    ("option", {"op": "ping", "req_id": "7"}, '{"args":["1672916271846"],"op":"pong"}'),
    # success
    (
        "spot",
        {"op": "subscribe", "args": ["publicTrade.BTCUSDT"]},
        '{"success":true,"ret_msg":"subscribe","conn_id":"c-1","op":"subscribe"}',
    ),
    (
        "spot",
        {"op": "subscribe", "args": ["publicTrade.BTCUSDT"], "req_id": "10001"},
        '{"success":true,"ret_msg":"subscribe","conn_id":"c-1","req_id":"10001","op":"subscribe"}',
    ),
    (
        "spot",
        {"op": "unsubscribe", "args": ["publicTrade.BTCUSDT"], "req_id": "2"},
        '{"success":true,"ret_msg":"unsubscribe","conn_id":"c-1","req_id":"2","op":"unsubscribe"}',
    ),
    (
        "linear",
        {"op": "subscribe", "args": ["publicTrade.BTCUSDT"]},
        '{"success":true,"ret_msg":"","conn_id":"c-1","req_id":"","op":"subscribe"}',
    ),
    (
        "inverse",
        {"op": "subscribe", "args": ["publicTrade.BTCUSDT"], "req_id": 12},
        '{"success":true,"ret_msg":"","conn_id":"c-1","req_id":"12","op":"subscribe"}',
    ),
    (
        "linear",
        {"op": "unsubscribe", "args": ["publicTrade.BTCUSDT"], "req_id": "3"},
        '{"success":true,"ret_msg":"","conn_id":"c-1","req_id":"3","op":"unsubscribe"}',
    ),
    (
        "option",
        {"op": "subscribe", "args": ["orderbook.1.X", "nonsense"], "req_id": "1"},
        '{"success":true,"conn_id":"c-1","data":{"failTopics":[],'
        '"successTopics":["orderbook.1.X","nonsense"]},"type":"COMMAND_RESP"}',
    ),
    (
        "option",
        {"op": "unsubscribe", "args": ["orderbook.1.X"]},
        '{"success":true,"conn_id":"c-1","data":{"failTopics":[],'
        '"successTopics":["orderbook.1.X"]},"type":"COMMAND_RESP"}',
    ),
    # refusals
    (
        "linear",
        {"op": "subscribe", "args": ["orderbook.50.NOPEUSDT"], "req_id": "e1"},
        '{"success":false,"ret_msg":"error:handler not found,topic:orderbook.50.NOPEUSDT",'
        '"conn_id":"c-1","req_id":"e1","op":"subscribe"}',
    ),
    (
        "linear",
        {"op": "subscribe", "args": ["orderbook.50.btcusdt"]},
        '{"success":false,"ret_msg":"error:handler not found,topic:orderbook.50.btcusdt",'
        '"conn_id":"c-1","req_id":"","op":"subscribe"}',
    ),
    (
        "inverse",
        {"op": "subscribe", "args": ["order"]},
        '{"success":false,"ret_msg":"error:handler not found,topic:order",'
        '"conn_id":"c-1","req_id":"","op":"subscribe"}',
    ),
    (
        "spot",
        {"op": "subscribe", "args": ["publicTrade.NOPEUSDT"]},
        '{"success":false,"ret_msg":"Invalid symbol :[publicTrade.NOPEUSDT]",'
        '"conn_id":"c-1","op":"subscribe"}',
    ),
    (
        "spot",
        {"op": "subscribe", "args": ["publicTrade.BTCUSDT"] * 11, "req_id": "9"},
        '{"success":false,"ret_msg":"args size \\u003e10","conn_id":"c-1","req_id":"9",'
        '"op":"subscribe"}',
    ),
    (
        "linear",
        {"op": "dance"},
        '{"success":false,"ret_msg":"error:invalid op","conn_id":"c-1","req_id":"","op":"dance"}',
    ),
    (
        "linear",
        {},
        '{"success":false,"ret_msg":"error:invalid op","conn_id":"c-1","req_id":"","op":""}',
    ),
]


@pytest.mark.parametrize(("category", "request_fields", "text"), TABLE)
def test_each_request_gets_the_exchanges_words(
    category: Category, request_fields: dict[str, object], text: str
) -> None:
    """To the byte, key order and escapes included."""
    assert text == answer(session(category), **request_fields).text.decode()


@pytest.mark.parametrize("category", CONTRACTS)
def test_contracts_take_all_topics_of_a_request_or_none(category: Category) -> None:
    """One bad topic refuses the whole request and only the first bad one is named."""
    connection = session(category)
    bad = ["publicTrade.BTCUSDT", "publicTrade.NOPE1", "publicTrade.NOPE2"]
    reply = answer(connection, op="subscribe", args=bad)
    assert b"topic:publicTrade.NOPE1" in reply.text
    assert b"NOPE2" not in reply.text
    assert reply.subscribed == ()
    assert not connection.topics


@pytest.mark.parametrize("category", [*CONTRACTS, "spot"])
def test_what_is_subscribed_already_refuses_the_request_and_keeps_delivering(
    category: Category,
) -> None:
    """Also within one request; nothing of the refused request is subscribed."""
    connection = session(category)
    first = answer(connection, op="subscribe", args=["publicTrade.BTCUSDT"])
    assert first.subscribed == ("publicTrade.BTCUSDT",)
    again = answer(connection, op="subscribe", args=["publicTrade.ETHUSDT", "publicTrade.BTCUSDT"])
    assert b'"ret_msg":"error:already subscribed,topic:publicTrade.BTCUSDT"' in again.text
    assert ["publicTrade.BTCUSDT"] == list(connection.topics)
    twice = answer(connection, op="subscribe", args=["publicTrade.ETHUSDT", "publicTrade.ETHUSDT"])
    assert b'"ret_msg":"error:already subscribed,topic:publicTrade.ETHUSDT"' in twice.text


@pytest.mark.parametrize("category", [*CONTRACTS, "spot", "option"])
def test_unsubscribing_makes_room_for_subscribing_again(category: Category) -> None:
    """The second subscription counts as new, so that a fresh snapshot comes."""
    connection = session(category)
    for _ in range(2):
        subscribed = answer(connection, op="subscribe", args=["orderbook.50.BTCUSDT"])
        assert subscribed.subscribed == ("orderbook.50.BTCUSDT",)
        gone = answer(connection, op="unsubscribe", args=["orderbook.50.BTCUSDT"])
        assert gone.unsubscribed == ("orderbook.50.BTCUSDT",)
    nothing = answer(connection, op="unsubscribe", args=["orderbook.50.BTCUSDT"])
    assert nothing.unsubscribed == ()
    assert b'"success":true' in nothing.text


def test_options_subscribe_a_topic_once_however_often_it_is_asked() -> None:
    """Asking again is acked and changes nothing."""
    connection = session("option")
    answer(connection, op="subscribe", args=["publicTrade.BTC"])
    assert answer(connection, op="subscribe", args=["publicTrade.BTC"]).subscribed == ()


@pytest.mark.parametrize("category", [*CONTRACTS, "spot", "option"])
@pytest.mark.parametrize("text", ["hello", "", "[1]", '"ping"', b"\xff\xfe", "{"])
def test_what_is_not_a_json_object_is_said_to_be_undecodable(
    category: Category, text: str | bytes
) -> None:
    """The socket stays open; the reply starts with the exchange's words."""
    reply = session(category).answer(text, is_topic=TOPICS.__contains__, now_ms=0)
    message = json.loads(reply.text)
    assert message["success"] is False
    assert message["ret_msg"].startswith("Failed to decode incoming data:")


@pytest.mark.parametrize("args", [None, [], "publicTrade.BTCUSDT", {}, 5])
def test_a_request_without_topics_is_refused(args: object) -> None:
    """Whatever is in the place of the list."""
    reply = answer(session("linear"), op="subscribe", args=args)
    assert json.loads(reply.text)["success"] is False
    assert reply.subscribed == ()


def test_topics_that_are_not_text_are_unknown_topics() -> None:
    """A number in the list is refused by name, not a crash."""
    reply = answer(session("linear"), op="subscribe", args=[5])
    assert b"error:handler not found,topic:5" in reply.text


def test_one_connection_takes_topics_of_21000_characters() -> None:
    """What goes beyond is refused; what is subscribed stays."""
    connection = session("linear")
    topics = [f"orderbook.50.COIN{n:04}USDT" for n in range(1200)]

    def subscribe(part: list[str]) -> Reply:
        text = json.dumps({"op": "subscribe", "args": part})
        return connection.answer(text, is_topic=lambda topic: True, now_ms=0)

    replies = [subscribe(topics[n : n + 10]) for n in range(0, 1200, 10)]
    assert 0 < sum(map(len, connection.topics)) <= 21_000
    assert len(connection.topics) == 21_000 // len(topics[0]) // 10 * 10
    assert b'"success":false' in replies[-1].text
