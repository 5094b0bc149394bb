"""Acks, rejections and pongs in the words of the exchange and the shape of each category."""

import json

import pytest

from bybit_pipeline.processes.simulator.protocol import ExchangeSession, Reply
from bybit_pipeline.shared.wire.messages import Category

TOPICS = {"publicTrade.BTCUSDT", "publicTrade.ETHUSDT", "orderbook.50.BTCUSDT"}
CONTRACTS: tuple[Category, ...] = ("linear", "inverse")


def answer(session: ExchangeSession, **request: object) -> Reply:
    """Return the reply to a request."""
    return session.answer(json.dumps(request), is_topic=TOPICS.__contains__, now_ms=1672916271846)


def session(category: Category) -> ExchangeSession:
    """Return the session of a new connection."""
    return ExchangeSession(category, "c-1")


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
    # rejections
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
def test_each_request_is_answered_as_by_the_exchange(
    category: Category, request_fields: dict[str, object], text: str
) -> None:
    """Every byte is the same, key order and escapes included."""
    assert text == answer(session(category), **request_fields).text.decode()


@pytest.mark.parametrize("category", CONTRACTS)
def test_contracts_accept_all_topics_of_a_request_or_none(category: Category) -> None:
    """One bad topic rejects the whole request, and the reply names only the first one."""
    connection = session(category)
    bad = ["publicTrade.BTCUSDT", "publicTrade.NOPE1", "publicTrade.NOPE2"]
    reply = answer(connection, op="subscribe", args=bad)
    assert b"topic:publicTrade.NOPE1" in reply.text
    assert b"NOPE2" not in reply.text
    assert reply.subscribed == ()
    assert not connection.topics


@pytest.mark.parametrize("category", [*CONTRACTS, "spot"])
def test_a_duplicate_topic_rejects_the_request(
    category: Category,
) -> None:
    """No topic of the request is subscribed, and earlier subscriptions stay."""
    connection = session(category)
    first = answer(connection, op="subscribe", args=["publicTrade.BTCUSDT"])
    assert first.subscribed == ("publicTrade.BTCUSDT",)
    again = answer(connection, op="subscribe", args=["publicTrade.ETHUSDT", "publicTrade.BTCUSDT"])
    assert b'"ret_msg":"error:already subscribed,topic:publicTrade.BTCUSDT"' in again.text
    assert ["publicTrade.BTCUSDT"] == list(connection.topics)
    twice = answer(connection, op="subscribe", args=["publicTrade.ETHUSDT", "publicTrade.ETHUSDT"])
    assert b'"ret_msg":"error:already subscribed,topic:publicTrade.ETHUSDT"' in twice.text


@pytest.mark.parametrize("category", [*CONTRACTS, "spot", "option"])
def test_a_topic_can_be_subscribed_again_after_unsubscribing(category: Category) -> None:
    """The second subscription counts as new, so that a new snapshot follows."""
    connection = session(category)
    for _ in range(2):
        subscribed = answer(connection, op="subscribe", args=["orderbook.50.BTCUSDT"])
        assert subscribed.subscribed == ("orderbook.50.BTCUSDT",)
        gone = answer(connection, op="unsubscribe", args=["orderbook.50.BTCUSDT"])
        assert gone.unsubscribed == ("orderbook.50.BTCUSDT",)
    nothing = answer(connection, op="unsubscribe", args=["orderbook.50.BTCUSDT"])
    assert nothing.unsubscribed == ()
    assert b'"success":true' in nothing.text


def test_options_ack_a_repeated_subscription_without_effect() -> None:
    connection = session("option")
    answer(connection, op="subscribe", args=["publicTrade.BTC"])
    assert answer(connection, op="subscribe", args=["publicTrade.BTC"]).subscribed == ()


@pytest.mark.parametrize("category", [*CONTRACTS, "spot", "option"])
@pytest.mark.parametrize("text", ["hello", "", "[1]", '"ping"', b"\xff\xfe", "{"])
def test_text_that_is_not_a_json_object_is_rejected(category: Category, text: str | bytes) -> None:
    """The reply starts with the words of the exchange."""
    reply = session(category).answer(text, is_topic=TOPICS.__contains__, now_ms=0)
    message = json.loads(reply.text)
    assert message["success"] is False
    assert message["ret_msg"].startswith("Failed to decode incoming data:")


@pytest.mark.parametrize("args", [None, [], "publicTrade.BTCUSDT", {}, 5])
def test_a_request_without_topics_is_rejected(args: object) -> None:
    """This holds for any value that is not a list of topics."""
    reply = answer(session("linear"), op="subscribe", args=args)
    assert json.loads(reply.text)["success"] is False
    assert reply.subscribed == ()


def test_a_topic_that_is_not_text_is_unknown() -> None:
    reply = answer(session("linear"), op="subscribe", args=[5])
    assert b"error:handler not found,topic:5" in reply.text


def test_topics_of_one_connection_have_at_most_21000_characters() -> None:
    """A request beyond the limit is rejected, and earlier subscriptions stay."""
    connection = session("linear")
    topics = [f"orderbook.50.COIN{n:04}USDT" for n in range(1200)]

    def subscribe(part: list[str]) -> Reply:
        text = json.dumps({"op": "subscribe", "args": part})
        return connection.answer(text, is_topic=lambda topic: True, now_ms=0)

    replies = [subscribe(topics[n : n + 10]) for n in range(0, 1200, 10)]
    assert 0 < sum(map(len, connection.topics)) <= 21_000
    assert len(connection.topics) == 21_000 // len(topics[0]) // 10 * 10
    assert b'"success":false' in replies[-1].text
