"""Where each message goes, without a socket."""

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from bybit_pipeline.processes.connector.dispatcher import (
    BATCH,
    LOG_EVERY_S,
    Dispatcher,
    MessageCounts,
)
from bybit_pipeline.processes.connector.topics.streams import Streams
from bybit_pipeline.processes.connector.topics.subscriptions import Admission, Subscriptions
from tests.connector.venue import book_text, trade_text

BOOK = book_text("BTCUSDT", 1).encode()
TRADES = trade_text("BTCUSDT", "BTCUSDT").encode()


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        raise NotImplementedError


class Rig:
    """A dispatcher that records its callbacks."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.admission: Admission = "pass"
        self.clock = Clock()
        self.counts = MessageCounts()
        self.flowing: set[str] = set()
        self.streams = Streams("linear", Subscriptions(ack_timeout_s=10.0))
        self.streams.subscribe_trades(["BTCUSDT"], 0.0)
        self.dispatcher = Dispatcher(
            "linear",
            on_trade=lambda symbol, batch: self.seen.append(("trade", symbol)),
            on_orderbook=lambda symbol, update: self.seen.append(("book", symbol)),
            after_batch=lambda: self.seen.append(("batch",)),
            streams=self.streams,
            flowing=self.flowing,
            admit=self.admit,
            announce=self.announce,
            on_control=lambda message: self.seen.append((type(message).__name__,)),
            on_unreadable=lambda raw, reason: self.seen.append(("unreadable", reason)),
            counts=self.counts,
            clock=self.clock,
        )

    def admit(self, topic: str, is_snapshot: bool) -> Admission:
        self.seen.append(("admit", topic, is_snapshot))
        return self.admission

    def announce(self) -> None:
        self.streams.notices.clear()
        self.seen.append(("announce",))

    def read(self, *messages: bytes, recv_ts_ns: int = 7) -> bool:
        return self.dispatcher.on_read(messages, (), recv_ts_ns)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_data_of_a_flowing_topic_needs_no_admission(rig: Rig) -> None:
    rig.flowing |= {"orderbook.50.BTCUSDT", "publicTrade.BTCUSDT"}
    assert rig.read(BOOK, TRADES)
    assert [("book", "BTCUSDT"), ("trade", "BTCUSDT"), ("batch",)] == rig.seen
    assert (1, 1) == (rig.counts.book_messages, rig.counts.trade_messages)
    assert 7 == rig.dispatcher.last_message_ts_ns


def test_other_data_is_passed_on_if_it_is_admitted(rig: Rig) -> None:
    assert rig.read(BOOK)
    assert [
        ("admit", "orderbook.50.BTCUSDT", True),
        ("book", "BTCUSDT"),
        ("batch",),
    ] == rig.seen


def test_unexpected_data_is_dropped_and_is_no_error(rig: Rig) -> None:
    rig.admission = "unexpected"
    assert not rig.read(BOOK, TRADES)
    assert 0 == sum(rig.counts.invalid.values())
    assert rig.dispatcher.last_message_ts_ns is None


def test_data_of_an_unknown_topic_is_invalid(rig: Rig) -> None:
    rig.admission = "unknown"
    assert not rig.read(BOOK)
    assert 1 == rig.counts.invalid["topic"]


def test_trades_of_symbols_that_nobody_wants_are_dropped(rig: Rig) -> None:
    rig.streams.unsubscribe_trades(["BTCUSDT"], 0.0)
    rig.read(TRADES)
    assert ("trade", "BTCUSDT") not in rig.seen


def test_answers_of_the_exchange_are_no_data(rig: Rig) -> None:
    assert not rig.read(b'{"success":true,"ret_msg":"pong","op":"ping"}')
    assert [("Pong",), ("batch",)] == rig.seen


def test_a_large_read_is_passed_on_in_batches(rig: Rig) -> None:
    rig.flowing.add("orderbook.50.BTCUSDT")
    rig.read(*[BOOK] * (2 * BATCH + 1))
    assert 3 == rig.seen.count(("batch",))
    assert ("batch",) == rig.seen[BATCH] == rig.seen[2 * BATCH + 1]


def test_binary_messages_are_handled_in_their_place(rig: Rig) -> None:
    rig.flowing |= {"orderbook.50.BTCUSDT", "publicTrade.BTCUSDT"}
    rig.dispatcher.on_read([BOOK, TRADES], [(1, b"\x00")], 7)
    events = [entry for entry in rig.seen if entry != ("batch",)]
    assert [("book", "BTCUSDT"), ("unreadable", "binary"), ("trade", "BTCUSDT")] == events
    assert 1 == rig.counts.invalid["binary"]


def test_queued_announcements_are_made_after_the_read(rig: Rig) -> None:
    rig.streams.announce("subscribed", "", [("trade", "BTCUSDT")])
    rig.read()
    assert [("announce",)] == rig.seen


def test_invalid_frames_of_one_reason_are_logged_at_most_every_few_seconds(rig: Rig) -> None:
    with capture_logs() as logs:
        for _ in range(5):
            rig.read(b"{")
        rig.read(b'{"op":"what"}')
        rig.clock.now += LOG_EVERY_S
        rig.read(b"{")
    assert [("json", 1), ("control", 1), ("json", 5)] == [
        (line["reason"], line["since_last"]) for line in logs
    ]
    assert 6 == rig.counts.invalid["json"]


def test_additional_elements_of_levels_are_ignored_and_counted_once_per_topic(rig: Rig) -> None:
    extended = BOOK.replace(b'"]', b'","0"]')
    assert extended != BOOK
    rig.flowing.add("orderbook.50.BTCUSDT")
    with capture_logs() as logs:
        rig.read(extended, extended, BOOK)
    assert [("book", "BTCUSDT")] * 3 == [entry for entry in rig.seen if entry != ("batch",)]
    assert (3, 1) == (rig.counts.book_messages, rig.counts.extended_topics)
    assert 0 == sum(rig.counts.invalid.values())
    [line] = logs
    assert ("warning", "orderbook.50.BTCUSDT") == (line["log_level"], line["topic"])


def test_an_extended_book_needs_admission_like_any_other(rig: Rig) -> None:
    rig.admission = "unknown"
    assert not rig.read(BOOK.replace(b'"]', b'","0"]'))
    assert (0, 0) == (rig.counts.book_messages, rig.counts.extended_topics)
    assert 1 == rig.counts.invalid["topic"]


def test_an_unusable_trade_costs_that_trade_and_is_announced_in_its_place(rig: Rig) -> None:
    rig.flowing.add("publicTrade.BTCUSDT")
    message = json.loads(TRADES)
    row = message["data"][0]
    message["data"] = [row, row, row | {"p": "nan"}, row, row | {"v": "0"}]
    with capture_logs() as logs:
        rig.read(json.dumps(message).encode())
    trade, missed = ("trade", "BTCUSDT"), ("unreadable", "number")
    assert [trade, missed, trade, missed] == [e for e in rig.seen if e != ("batch",)]
    assert 1 == rig.counts.invalid["number"]
    assert ["unusable trades skipped"] == [line["event"] for line in logs]
