"""The official Python client of the exchange works with the simulator."""

import threading
from collections import Counter
from typing import Any

import pytest
from pybit import unified_trading

from tests.naive import NaiveBook
from tests.simulator.client import DEADLINE_S, running


@pytest.mark.parametrize("category", ["linear", "spot"])
def test_pybit_receives_trades_and_complete_books_of_two_symbols(
    monkeypatch: pytest.MonkeyPatch, category: str
) -> None:
    """
    Its books keep exactly fifty levels.

    pybit merges deltas itself and reports every message as a snapshot of its own book. It fails on
    a delta that deletes an unknown level, so that its book verifies ours.
    """
    symbols = ["BTCUSDT", "ETHUSDT"]
    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    enough = threading.Event()

    def on_book(message: dict[str, Any]) -> None:
        book = NaiveBook()
        book.apply(message)
        if not len(book.bids) == len(book.asks) == 50 or max(book.bids) >= min(book.asks):
            wrong.append(message["topic"])
        count("book", message["data"]["s"])

    def on_trade(message: dict[str, Any]) -> None:
        for row in message["data"]:
            count("trade", row["s"])

    def count(kind: str, symbol: str) -> None:
        counts[kind, symbol] += 1
        if len(counts) == 4 and min(counts.values()) >= 10:
            enough.set()

    with running() as server:
        url = server.server.url.format(category="{CHANNEL_TYPE}")
        monkeypatch.setattr(unified_trading, "PUBLIC_WSS", url)
        # The socket thread of pybit checks once per ping_timeout whether to end.
        client = unified_trading.WebSocket(
            category, testnet=False, restart_on_error=False, ping_interval=4, ping_timeout=3
        )
        try:
            client.orderbook_stream(depth=50, symbol=symbols, callback=on_book)
            client.trade_stream(symbol=symbols, callback=on_trade)
            assert enough.wait(DEADLINE_S), counts
            assert client.is_connected()
        finally:
            client.exit()
            client.wst.join(DEADLINE_S)
        assert not client.wst.is_alive()
    assert [] == wrong
    assert {symbol for _, symbol in counts} == set(symbols)
