"""Facts of the exchange: topic names, addresses, symbols, limits."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bybit_pipeline.shared.bybit import (
    CATEGORIES,
    CONNECTIONS_MAX,
    CONNECTOR_QUOTA,
    DEPTHS,
    INVERSE_SYMBOL,
    PIPELINE_QUOTA,
    PUSH_PERIOD_MS,
    STREAM_URLS,
    SYMBOL,
    book_topic,
    parse_exchange_topic,
    rest_url,
    topic_characters,
    trades_topic,
)
from bybit_pipeline.shared.wire.messages import Category


@pytest.mark.parametrize(
    ("topic", "parts"),
    [
        ("publicTrade.BTCUSDT", ("trade", 0, "BTCUSDT")),
        ("publicTrade.BTC", ("trade", 0, "BTC")),
        ("orderbook.50.BTCUSDT", ("book", 50, "BTCUSDT")),
        ("orderbook.500.XRPUSDT", ("book", 500, "XRPUSDT")),
        ("orderbook.100.XRP-30OCT26-0.4-P-USDT", ("book", 100, "XRP-30OCT26-0.4-P-USDT")),
    ],
)
def test_a_topic_is_split_into_kind_depth_and_name(topic: str, parts: tuple[str, int, str]) -> None:
    assert parts == parse_exchange_topic(topic)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "publicTrade",
        "publicTrade.",
        "orderbook.BTCUSDT",
        "orderbook.50",
        "orderbook.50.",
        "orderbook.-1.BTCUSDT",
        "orderbook.99999.BTCUSDT",
        "orderbook.٥٠.BTCUSDT",
        "tickers.BTCUSDT",
        "Orderbook.50.BTCUSDT",
    ],
)
def test_every_other_topic_is_rejected(topic: str) -> None:
    with pytest.raises(ValueError, match="not a topic of trades or books"):
        parse_exchange_topic(topic)


@pytest.mark.parametrize("category", CATEGORIES)
def test_topics_are_parsed_as_they_are_written(category: Category) -> None:
    for depth in DEPTHS[category]:
        assert ("book", depth, "A-B.C") == parse_exchange_topic(book_topic("A-B.C", depth))
    assert "trade" == parse_exchange_topic(trades_topic(category, "A-B.C")).kind


def test_option_trades_are_subscribed_by_base_coin() -> None:
    assert "publicTrade.BTC" == trades_topic("option", "BTC-30JUN23-45000-P")
    assert "publicTrade.BTC-30JUN23" == trades_topic("linear", "BTC-30JUN23")


@pytest.mark.parametrize(
    ("stream_url", "expected"),
    [
        (STREAM_URLS["mainnet"], "https://api.bybit.com"),
        (STREAM_URLS["testnet"], "https://api-testnet.bybit.com"),
        ("wss://stream.bybit.kz/v5/public/linear", "https://api.bybit.kz"),
        ("wss://streams.example/v5", "https://streams.example"),
        ("ws://127.0.0.1:9000/v5/public/linear", "http://127.0.0.1:9000"),
        ("ws://[::1]:9000", "http://[::1]:9000"),
        ("", ""),
    ],
)
def test_the_rest_api_is_found_from_the_websocket_url(stream_url: str, expected: str) -> None:
    assert expected == rest_url(stream_url)


@pytest.mark.parametrize(
    ("symbol", "is_inverse"),
    [
        ("BTCUSD", True),
        ("BTCUSDU26", True),
        ("BTCUSDT", False),
        ("BTCUSDC", False),
        ("BTCUSDA26", False),
    ],
)
def test_inverse_contracts_are_recognised_by_their_names(symbol: str, is_inverse: bool) -> None:
    assert is_inverse == bool(INVERSE_SYMBOL.fullmatch(symbol))


@pytest.mark.parametrize(
    ("symbol", "is_valid"),
    [
        ("BTCUSDT", True),
        ("1000PEPEUSDT", True),
        ("BTC-30OCT26-65000-C-USDT", True),
        ("XRP-30OCT26-0.4-P-USDT", True),
        ("btcusdt", False),
        ("", False),
        (".BTC", False),
        ("BTC/USDT", False),
        ("A" * 65, False),
    ],
)
def test_a_symbol_is_capitals_digits_and_a_few_signs(symbol: str, is_valid: bool) -> None:
    assert is_valid == bool(SYMBOL.fullmatch(symbol))


def test_every_served_depth_has_a_push_period() -> None:
    assert {depth for depths in DEPTHS.values() for depth in depths} == PUSH_PERIOD_MS.keys()


def test_the_pipeline_stays_below_the_connection_limit_of_the_exchange() -> None:
    assert CONNECTOR_QUOTA <= PIPELINE_QUOTA < CONNECTIONS_MAX


@given(st.lists(st.from_regex(r"[a-z0-9.]{1,30}", fullmatch=True)))
def test_the_length_of_topics_is_at_least_that_of_their_json(topics: list[str]) -> None:
    length = len(json.dumps(topics, separators=(",", ":")))
    assert length <= topic_characters(topics) <= length + 1
