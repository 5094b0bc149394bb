"""A manager with live books."""

from typing import Any

from bybit_pipeline.processes.orderbook.local_book import LocalBook
from bybit_pipeline.processes.orderbook.manager import OrderBookManager
from tests.orderbook.build import snapshot

BTC, ETH = "BTCUSDT", "ETHUSDT"
CONNECTOR = "connector-linear-0"
LAST_MS = 1_000_200
"""Match time of the snapshot of ``managed``."""


def managed(*symbols: str, **fields: Any) -> OrderBookManager:
    """Return a manager with a live book of each symbol."""
    manager = OrderBookManager(**fields)
    for symbol in symbols:
        manager.subscribe(symbol, connector=CONNECTOR, trades_connector=CONNECTOR)
        assert manager.apply(symbol, snapshot(10))
    return manager


def local_book(manager: OrderBookManager, symbol: str = BTC) -> LocalBook:
    return manager.books["linear", symbol]


def state(manager: OrderBookManager, symbol: str = BTC) -> tuple[str, str | None]:
    book = local_book(manager, symbol)
    return book.state, book.reason
