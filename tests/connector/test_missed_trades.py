"""Announcements of trades that an unreadable message may have held."""

from bybit_pipeline.processes.connector.missed_trades import RECOVERY_S, MissedTrades
from bybit_pipeline.processes.connector.streams import StreamKey

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
