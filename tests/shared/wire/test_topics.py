"""Building and parsing topic names."""

import pytest

from bybit_pipeline.shared.wire.topics import (
    Topic,
    link_topic,
    market_topic,
    metric_topic,
    parse_topic,
    topic_text,
)


def test_an_option_symbol_with_a_dot_is_parsed() -> None:
    text = "orderbook.option.XRP-30OCT26-0.4-P-USDT"
    assert Topic("orderbook", "option", "XRP-30OCT26-0.4-P-USDT") == parse_topic(text)
    assert text == str(parse_topic(text))


@pytest.mark.parametrize("text", ["", "trades", "trades.linear", "trades..BTCUSDT", "trades.x."])
def test_a_topic_without_three_parts_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"kind\.category\.symbol"):
        parse_topic(text)


def test_a_market_subscription_matches_one_symbol_only() -> None:
    longer = market_topic("book", "linear", "BTCUSDTPERP")
    assert not longer.startswith(market_topic("book", "linear", "BTCUSDT"))
    assert "book.linear.BTCUSDTPERP" == topic_text(longer)


def test_only_market_bus_topics_have_a_terminator() -> None:
    assert b"trades.spot.BTCUSDT" == metric_topic("trades", "spot", "BTCUSDT")
    assert b"link.connector-linear-0\x00" == link_topic("connector-linear-0")
