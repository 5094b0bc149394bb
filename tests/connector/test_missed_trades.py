"""Announcements of trades that an unreadable message may have held."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bybit_pipeline.processes.connector.missed_trades import (
    RECOVERY_S,
    MissedTrades,
    trades_in,
)
from bybit_pipeline.processes.connector.protocol import InvalidFrame, decode
from bybit_pipeline.processes.connector.topics.streams import StreamKey

BTC: StreamKey = ("trade", "BTCUSDT")
ETH: StreamKey = ("trade", "ETHUSDT")


def unreadable(
    missed: MissedTrades, *streams: StreamKey, trade_messages: int = 0, now: float = 0.0
) -> list[StreamKey]:
    """An unreadable message that may have held the trades of these streams."""
    topics = [f"publicTrade.{symbol}" for _, symbol in streams]
    return missed.on_unreadable(topics, lambda _: streams, trade_messages=trade_messages, now=now)


def test_the_first_unreadable_message_announces_its_streams() -> None:
    missed = MissedTrades()
    assert [BTC, ETH] == unreadable(missed, BTC, ETH, trade_messages=3)
    assert missed


def test_streams_that_are_not_served_are_not_announced() -> None:
    missed = MissedTrades()
    found = missed.on_unreadable(["publicTrade.BTCUSDT"], lambda _: [], trade_messages=1, now=0.0)
    assert [] == found
    assert not missed


def test_a_flood_is_announced_once() -> None:
    missed = MissedTrades()
    unreadable(missed, BTC, trade_messages=3)
    for _ in range(100):
        assert [] == unreadable(missed, BTC, trade_messages=3)


def test_a_stream_is_announced_again_after_trades_arrived() -> None:
    missed = MissedTrades()
    unreadable(missed, BTC, trade_messages=3)
    assert [BTC] == unreadable(missed, BTC, trade_messages=4)


def test_a_further_stream_is_announced_without_new_trades() -> None:
    missed = MissedTrades()
    unreadable(missed, BTC, trade_messages=3)
    assert [BTC, ETH] == unreadable(missed, BTC, ETH, trade_messages=3)
    assert [] == unreadable(missed, ETH, trade_messages=3)


def test_streams_flow_again_when_nothing_is_missed_for_a_second() -> None:
    missed = MissedTrades()
    unreadable(missed, BTC, trade_messages=3, now=10.0)
    unreadable(missed, BTC, trade_messages=3, now=10.5)
    assert set() == missed.take_recovered(10.5 + RECOVERY_S - 0.01)
    assert {BTC} == missed.take_recovered(10.5 + RECOVERY_S)
    assert set() == missed.take_recovered(20.0)
    assert not missed


def test_a_stream_that_flows_again_is_announced_when_it_is_missed_once_more() -> None:
    missed = MissedTrades()
    unreadable(missed, BTC, trade_messages=3)
    missed.on_flowing([BTC])
    assert not missed
    assert [BTC] == unreadable(missed, BTC, trade_messages=3)


# -- the topics of a rejected message -------------------------------------------------------------

BOOK_TEXT = (
    b'{"topic": "orderbook.50.BTCUSDT", "type": "delta", "ts": 1790134716101, "data": '
    b'{"s": "BTCUSDT", "b": [["86723.40", "0.194"]], "a": [["86723.50", "0"]], "u": 7, "seq": 9}, '
    b'"cts": 1790134716094}'
)
TRADE_TEXT = (
    b'{"topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": 1791365008335, "data": [{"T": '
    b'1791365008334, "s": "BTCUSDT", "S": "Buy", "v": "0.001", "p": "83766.30", "L": "PlusTick", '
    b'"i": "68bc1c35-dcc0-58e8-a4c5-f59a6b790814", "BT": false, "RPI": true}]}'
)
ALPHANUMERIC = (string.ascii_letters + string.digits).encode()
TOPICS = ["publicTrade.BTCUSDT", "publicTrade.BTCUSDC", "publicTrade.ETHUSDT"]


@pytest.mark.parametrize(
    ("raw", "missed"),
    [
        (TRADE_TEXT[:-9], TOPICS[:1]),
        (TRADE_TEXT.replace(b"Buy", b"\xff"), TOPICS[:1]),
        (TRADE_TEXT.replace(b"0.001", b"nan"), TOPICS[:1]),
        (b'{"topic" :\n"publicTrade.BTCUSDT"', TOPICS[:1]),
        (BOOK_TEXT[:-9] + TRADE_TEXT[:-9], TOPICS[:1]),
        (b'{"topic":"publicTrade.BTC', TOPICS[:2]),
        (b'{"topic":"publicTrade.BTC\\u0055SDT","ts":1}', TOPICS[:2]),
        (b'{"topic":"publicTrade.BTC\xffSDT"}', TOPICS[:2]),
        (b'{"topic":"publicTrade.E', TOPICS[2:]),
    ],
)
def test_a_readable_topic_shows_which_trades_may_be_missing(raw: bytes, missed: list[str]) -> None:
    assert missed == trades_in(raw, TOPICS)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"nope",
        b"[]",
        b"7",
        b"null",
        b'"x"',
        b"\x00\x01",
        b"\x1f\x8b\x08\xff",
        b"[" * 5_000,
        b'{"data":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"top',
        b'{"topic',
        b'{"topic":',
        b'{"topic":"',
        b'{"topic":"\xff\xfe"}',
        b'{"topic":"order',
        b'{"\xff":1,"data":[]}',
        TRADE_TEXT[30:],
        BOOK_TEXT[40:],
        TRADE_TEXT.replace(b"topic", b"t\xffpic"),
        TRADE_TEXT.replace(b"topic", b"tpoic"),
        TRADE_TEXT.replace(b'"publicTrade.BTCUSDT"', b"7"),
        TRADE_TEXT[:-9].replace(b"publicTrade", b"publicTrad\x7f"),
        TRADE_TEXT[:-9].replace(b"BTC", b"XXX"),
    ],
)
def test_a_message_without_a_readable_topic_may_have_held_any_trades(raw: bytes) -> None:
    assert TOPICS == trades_in(raw, TOPICS)


@pytest.mark.parametrize(
    "raw",
    [
        BOOK_TEXT[:-9],
        BOOK_TEXT[:40],
        BOOK_TEXT.replace(b"delta", b"\xff"),
        BOOK_TEXT.replace(b"0.194", b"nan"),
        b'{"topic":"orderbook.50.BTC',
        TRADE_TEXT.replace(b"BTC", b"XXX").replace(b"0.001", b"nan"),
        b"{}",
        b'{"topic":"tickers.BTCUSDT","data":[1]}',
        b'{"topic":"","type":"delta","ts":1}',
        b'{"op":"what"}',
        b'{"op":"pong","args":["1"],"x":"\xff"}',
        b'{"success":"maybe"}',
        b'{"success":true,"ret_msg":"hello","data":{"failTopics":[]},"type":"NEWS"}',
    ],
)
def test_a_message_of_another_kind_held_no_trades(raw: bytes) -> None:
    assert [] == trades_in(raw, TOPICS)


@given(at=st.integers(0, len(TRADE_TEXT) - 1), noise=st.binary(max_size=200))
def test_a_truncated_message_of_trades_may_have_held_them_whatever_follows(
    at: int, noise: bytes
) -> None:
    """Except where the noise completes it to a valid message."""
    broken = TRADE_TEXT[:at] + noise.translate(None, ALPHANUMERIC)
    try:
        decode(broken, "linear", 0)
    except InvalidFrame:
        assert TOPICS[0] in trades_in(broken, TOPICS)
