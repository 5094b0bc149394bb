"""
ccxt.pro: one process, ``watch_order_book_for_symbols`` and ``watch_trades_for_symbols``.

With orjson and coincurve as its manual recommends, on uvloop. Its two watch calls return after a
change and may skip messages that arrived in between. Messages are therefore counted in ccxt's own
handlers, and the two user coroutines run as in its examples. Markets come from a list instead of
its REST call.
"""

import asyncio
from typing import Any

import ccxt.pro
import uvloop

from scripts.benchmarks.rivals.tally import Tally, arguments


def market(name: str) -> dict[str, Any]:
    """Return the description of a linear perpetual in the form of ccxt."""
    base = name.removesuffix("USDT")
    return {
        "id": name,
        "symbol": f"{base}/USDT:USDT",
        "base": base,
        "quote": "USDT",
        "settle": "USDT",
        "baseId": base,
        "quoteId": "USDT",
        "settleId": "USDT",
        "type": "swap",
        "spot": False,
        "margin": False,
        "swap": True,
        "future": False,
        "option": False,
        "active": True,
        "contract": True,
        "linear": True,
        "inverse": False,
        "contractSize": 1.0,
        "precision": {"amount": 0.001, "price": 0.01},
        "limits": {},
        "info": {},
    }


class Counting(ccxt.pro.bybit):  # type: ignore[misc]
    """The exchange, with two handlers that count."""

    tally: Tally
    first: str

    def handle_order_book(self, client: Any, message: Any) -> None:
        """Handle the message and count it."""
        super().handle_order_book(client, message)
        if self.tally.add_book():
            self.finish()

    def handle_trades(self, client: Any, message: Any) -> None:
        """Handle the message and count it."""
        super().handle_trades(client, message)
        if self.tally.add_trades(len(message["data"])):
            self.finish()

    def finish(self) -> None:
        """Report that everything has arrived."""
        book = self.orderbooks[self.first]
        self.tally.done((book["bids"][0][0], book["asks"][0][0]))


async def run(options: Any) -> None:
    """Watch until the process is killed."""
    exchange = Counting({"newUpdates": True})
    exchange.tally = Tally(options.books, options.trades)
    exchange.urls["api"]["ws"]["public"]["linear"] = options.url
    exchange.set_markets([market(name) for name in options.symbols])
    symbols = [market(name)["symbol"] for name in options.symbols]
    exchange.first = symbols[0]

    async def watch_books() -> None:
        while True:
            await exchange.watch_order_book_for_symbols(symbols, 50)

    async def watch_trades() -> None:
        while True:
            await exchange.watch_trades_for_symbols(symbols)

    await asyncio.gather(watch_books(), watch_trades())


if __name__ == "__main__":
    uvloop.run(run(arguments(__doc__)))
