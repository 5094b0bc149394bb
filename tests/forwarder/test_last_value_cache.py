"""The last value of every topic, and the messages that are not metrics."""

import msgpack
import pytest

from bybit_pipeline.processes.forwarder.last_value_cache import (
    MAX_PAYLOAD_BYTES,
    MAX_TOPIC_BYTES,
    LastValueCache,
    Message,
    parse_message,
)

MAP = b"\x81\xa1v\x01"


@pytest.mark.parametrize("entries", [0, 1, 15, 16, 70_000])
def test_maps_of_every_size_are_metrics(entries: int) -> None:
    payload = msgpack.packb(dict.fromkeys(map(str, range(entries))))
    expected = Message(b"trades.linear.BTCUSDT", payload)
    assert expected == parse_message(b"trades.linear.BTCUSDT", payload)


@pytest.mark.parametrize(
    "topic", [b"process.trades-0", b"orderbook.option.XRP-30OCT26-0.4-P-USDT", b"gap.spot.BTCUSDT"]
)
def test_topics_of_markets_and_processes_are_metrics(topic: bytes) -> None:
    assert Message(topic, MAP) == parse_message(topic, MAP)


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (b"", MAP),
        (b"", b""),
        (b"trades", MAP),
        (b"trades.", MAP),
        (b".linear.BTCUSDT", MAP),
        (b"trades.linear.BTC USDT", MAP),
        (b"trades.linear.BTCUSDT\x00", MAP),
        (b"trades.linear.\xff", MAP),
        (b"trades." + b"A" * MAX_TOPIC_BYTES, MAP),
        (b"trades.linear.BTCUSDT", b"\x93\x01\x02\x03"),
        (b"trades.linear.BTCUSDT", b"{}"),
        (b"trades.linear.BTCUSDT", MAP + b" " * MAX_PAYLOAD_BYTES),
    ],
)
def test_anything_else_is_refused(topic: bytes, payload: bytes) -> None:
    assert parse_message(topic, payload) is None


def test_a_subscription_matches_the_last_message_of_every_topic_with_its_prefix() -> None:
    values = LastValueCache()
    for topic, payload in [
        (b"trades.linear.BTCUSDT", b"1"),
        (b"trades.linear.BTCUSDTPERP", b"2"),
        (b"trades.spot.BTCUSDT", b"3"),
        (b"trades.linear.BTCUSDT", b"4"),
    ]:
        values.remember(Message(topic, payload))
    assert [
        Message(b"trades.linear.BTCUSDT", b"4"),
        Message(b"trades.linear.BTCUSDTPERP", b"2"),
    ] == values.matching(b"trades.linear.BTCUSDT")
    assert 3 == len(values.matching(b""))
    assert [] == values.matching(b"orderbook.")


def test_a_forgotten_topic_is_not_sent_again() -> None:
    values = LastValueCache()
    values.remember(Message(b"trades.linear.BTCUSDT", b"1"))
    values.forget(b"trades.linear.BTCUSDT")
    values.forget(b"trades.linear.ETHUSDT")
    assert [] == values.matching(b"")


def test_at_the_limit_new_topics_are_counted_and_known_ones_still_updated() -> None:
    values = LastValueCache(max_topics=2)
    for number, name in enumerate([b"a", b"b", b"c", b"a"]):
        values.remember(Message(name, b"%d" % number))
    assert [Message(b"a", b"3"), Message(b"b", b"1")] == values.matching(b"")
    assert 1 == values.refused
