"""Data messages: keys, key order and number text of each category and depth."""

import datetime as dt
import json
import re
from typing import Any

import pytest

from bybit_pipeline.processes.simulator.market.encoder import (
    TRADES_PER_MESSAGE,
    encode_book,
    encode_trades,
)
from bybit_pipeline.processes.simulator.market.instruments import instrument_named
from bybit_pipeline.processes.simulator.market.order_flow import Fill, Match
from bybit_pipeline.shared.wire.messages import Category

TODAY = dt.date(2026, 8, 9)
OPTION = "BTC-14AUG26-65000-C-USDT"


def fills(count: int) -> tuple[Fill, ...]:
    """Return the trades of one match."""
    return tuple(
        Fill(1000, 7, "Buy", 651142, 20, n, 2**128 - 1 - n, "PlusTick") for n in range(count)
    )


def book(category: Category, symbol: str, depth: int, *, is_snapshot: bool = False) -> str:
    """Return a small book message."""
    instrument = instrument_named(category, symbol, TODAY)
    return encode_book(
        instrument,
        f"orderbook.{depth}.{symbol}",
        depth=depth,
        is_snapshot=is_snapshot,
        exchange_ts_ms=1010,
        match_ts_ms=1000,
        update_id=5,
        sequence=9,
        bids=[(651142, 20), (651140, 0)],
        asks=[],
    ).decode()


@pytest.mark.parametrize(
    ("category", "symbol", "depth", "text"),
    [
        (
            "linear",
            "BTCUSDT",
            50,
            '{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1010,"data":{"s":"BTCUSDT",'
            '"b":[["65114.20","0.020"],["65114.00","0"]],"a":[],"u":5,"seq":9},"cts":1000}',
        ),
        (
            "linear",
            "BTCUSDT",
            1,
            '{"topic":"orderbook.1.BTCUSDT","ts":1010,"type":"delta","data":{"s":"BTCUSDT",'
            '"b":[["65114.20","0.020"],["65114.00","0"]],"a":[],"u":5,"seq":9},"cts":1000}',
        ),
        (
            "inverse",
            "BTCUSD",
            200,
            '{"topic":"orderbook.200.BTCUSD","type":"delta","ts":1010,"data":{"s":"BTCUSD",'
            '"b":[["65114.20","20"],["65114.00","0"]],"a":[],"u":5,"seq":9},"cts":1000}',
        ),
        (
            "spot",
            "BTCUSDT",
            200,
            '{"topic":"orderbook.200.BTCUSDT","ts":1010,"type":"delta","data":{"s":"BTCUSDT",'
            '"b":[["65114.2","0.00002"],["65114","0"]],"a":[],"u":5,"seq":9},"cts":1000}',
        ),
        (
            "option",
            OPTION,
            25,
            '{"id":"orderbook.25.BTC-14AUG26-65000-C-USDT-9-1010",'
            '"topic":"orderbook.25.BTC-14AUG26-65000-C-USDT","ts":1010,'
            '"data":{"s":"BTC-14AUG26-65000-C-USDT","b":[["3255710","0.2"],["3255700","0"]],'
            '"a":[],"u":5,"seq":9},"type":"delta","cts":1000}',
        ),
    ],
)
def test_book_messages_equal_those_of_the_exchange(
    category: Category, symbol: str, depth: int, text: str
) -> None:
    """Every byte is the same."""
    assert text == book(category, symbol, depth)


def test_a_snapshot_differs_from_a_delta_only_in_its_type() -> None:
    expected = book("linear", "BTCUSDT", 50).replace('"delta"', '"snapshot"')
    assert expected == book("linear", "BTCUSDT", 50, is_snapshot=True)


@pytest.mark.parametrize(
    ("category", "symbol", "topic", "top", "row"),
    [
        (
            "linear",
            "BTCUSDT",
            "publicTrade.BTCUSDT",
            "topic type ts data",
            "T s S v p L i BT RPI seq",
        ),
        (
            "inverse",
            "BTCUSD",
            "publicTrade.BTCUSD",
            "topic type ts data",
            "T s S v p L i BT RPI seq",
        ),
        ("spot", "BTCUSDT", "publicTrade.BTCUSDT", "topic ts type data", "i T p v S seq s BT RPI"),
        (
            "option",
            OPTION,
            "publicTrade.BTC",
            "id topic ts data type",
            "p v i T BT s S seq mP iP mIv iv",
        ),
    ],
)
def test_trade_messages_have_the_keys_of_their_category_in_order(
    category: Category, symbol: str, topic: str, top: str, row: str
) -> None:
    """Only contracts have ``L``; only options have ``id`` and volatilities, and no ``RPI``."""
    match = Match(instrument_named(category, symbol, TODAY), fills(1))
    (payload,) = encode_trades(topic, match, 1010)
    message: dict[str, Any] = json.loads(payload)
    assert top.split() == list(message)
    assert row.split() == list(message["data"][0])
    assert {"topic": topic, "type": "snapshot", "ts": 1010} == {
        key: message[key] for key in ("topic", "type", "ts")
    }
    first = message["data"][0]
    assert (symbol, "Buy", 1000, 7) == (first["s"], first["S"], first["T"], first["seq"])
    assert (first["BT"], first.get("RPI", False)) == (False, False)
    is_digits = category == "spot"
    uuid = r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}"
    assert re.fullmatch(r"\d{19}" if is_digits else uuid, first["i"])


def test_a_large_match_is_split_into_messages_that_share_seq() -> None:
    """Each has up to 1,024 trades, and none is lost."""
    match = Match(instrument_named("linear", "BTCUSDT", TODAY), fills(2 * TRADES_PER_MESSAGE + 1))
    messages = [json.loads(each) for each in encode_trades("publicTrade.BTCUSDT", match, 1010)]
    assert [1024, 1024, 1] == [len(message["data"]) for message in messages]
    rows = [row for message in messages for row in message["data"]]
    assert len({row["i"] for row in rows}) == len(rows)
    assert {7} == {row["seq"] for row in rows}
