"""Which topics the wanted streams need, and what is announced about them."""

import json

import pytest

from bybit_pipeline.processes.connector.protocol import Ack
from bybit_pipeline.processes.connector.topics.streams import LinkNotice, Streams
from bybit_pipeline.processes.connector.topics.subscriptions import Subscriptions
from bybit_pipeline.shared.wire.messages import Category

CALL, PUT = "BTC-30OCT26-65000-C", "BTC-30OCT26-65000-P"


class Rig:
    """Streams over an open connection to an exchange that grants everything."""

    def __init__(self, category: Category = "linear") -> None:
        self.subscriptions = Subscriptions(ack_timeout_s=10.0)
        self.streams = Streams(category, self.subscriptions)
        self.subscriptions.on_connected(0.0)

    def requests(self) -> list[tuple[str, list[str]]]:
        """The requests since the last call, granted now."""
        requests = [json.loads(text) for text in self.subscriptions.take_requests()]
        for request in requests:
            self.subscriptions.on_ack(Ack(True, request["op"], request["req_id"], ""), 0.0)
        return [(request["op"], request["args"]) for request in requests]

    def notices(self) -> list[LinkNotice]:
        """The announcements since the last call."""
        notices = list(self.streams.notices)
        self.streams.notices.clear()
        return notices


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_trades_and_books_are_subscribed_by_their_topics(rig: Rig) -> None:
    rig.streams.subscribe_books([("BTCUSDT", 50), ("ETHUSDT", 200)], 0.0)
    rig.streams.subscribe_trades(["BTCUSDT"], 0.0)
    assert [
        ("subscribe", ["orderbook.50.BTCUSDT", "orderbook.200.ETHUSDT"]),
        ("subscribe", ["publicTrade.BTCUSDT"]),
    ] == rig.requests()
    assert [("book", "BTCUSDT"), ("trade", "BTCUSDT")] == rig.streams.of(
        ["orderbook.50.BTCUSDT", "publicTrade.BTCUSDT", "publicTrade.NOPE"]
    )
    assert ["publicTrade.BTCUSDT"] == rig.streams.trade_topics()


def test_options_on_one_coin_share_their_topic_of_trades() -> None:
    rig = Rig("option")
    rig.streams.subscribe_trades([CALL], 0.0)
    assert [("subscribe", ["publicTrade.BTC"])] == rig.requests()
    rig.streams.subscribe_trades([PUT], 0.0)
    assert [] == rig.requests()
    assert [("subscribed", "", [("trade", PUT)])] == rig.notices()

    rig.streams.unsubscribe_trades([CALL], 0.0)
    assert [] == rig.requests()
    rig.streams.unsubscribe_trades([PUT], 0.0)
    assert [("unsubscribe", ["publicTrade.BTC"])] == rig.requests()
    assert [
        ("unsubscribed", "asked", [("trade", CALL)]),
        ("unsubscribed", "asked", [("trade", PUT)]),
    ] == rig.notices()


def test_a_wrong_depth_subscribes_nothing(rig: Rig) -> None:
    for books in ([("AUSDT", 50), ("BUSDT", 0)], [("AUSDT", 50), ("AUSDT", 200)]):
        with pytest.raises(ValueError, match="depth"):
            rig.streams.subscribe_books(books, 0.0)
    assert [] == rig.requests()
    assert {} == rig.streams.symbols


def test_unsubscribing_what_is_not_subscribed_does_nothing(rig: Rig) -> None:
    rig.streams.unsubscribe_books(["BTCUSDT"], 0.0)
    rig.streams.unsubscribe_trades(["BTCUSDT"], 0.0)
    assert [] == rig.requests()
    assert [] == rig.notices()


def test_only_confirmed_trades_count_as_served(rig: Rig) -> None:
    rig.streams.subscribe_trades(["BTCUSDT"], 0.0)
    rig.streams.subscribe_books([("BTCUSDT", 50)], 0.0)
    topics = ["publicTrade.BTCUSDT", "orderbook.50.BTCUSDT"]
    assert [] == rig.streams.served_trades(topics)
    assert not rig.streams.announce_trades("BTCUSDT")
    rig.requests()
    assert [("trade", "BTCUSDT")] == rig.streams.served_trades(topics)
    assert rig.streams.announce_trades("BTCUSDT")
    assert not rig.streams.announce_trades("ETHUSDT")
    assert [("subscribed", "", [("trade", "BTCUSDT")])] == rig.notices()


def test_a_book_is_resynced_at_its_depth(rig: Rig) -> None:
    rig.streams.subscribe_books([("BTCUSDT", 200)], 0.0)
    rig.requests()
    rig.subscriptions.on_data("orderbook.200.BTCUSDT", True, 0.0)
    assert rig.streams.resync_book("BTCUSDT", 10.0)
    assert not rig.streams.resync_book("ETHUSDT", 10.0)
    rig.subscriptions.on_time(10.0)
    assert [("unsubscribe", ["orderbook.200.BTCUSDT"])] == rig.requests()
