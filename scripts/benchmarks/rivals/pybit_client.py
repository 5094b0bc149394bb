"""
pybit: one process with ``unified_trading.WebSocket``; pybit merges the books itself.

``--variant plain`` hides wsaccel, which is not a dependency of pybit; ``wsaccel`` uses it. Symbols
are subscribed in requests of 100, as with pybit's list form.
"""

import threading
from typing import Any

from scripts.benchmarks.rivals.tally import Tally, arguments, hide_wsaccel

BATCH = 100


def main() -> None:
    """Subscribe, count, and report the end."""
    options = arguments(__doc__)
    if options.variant == "plain":
        hide_wsaccel()
    from pybit import unified_trading

    unified_trading.PUBLIC_WSS = options.url
    tally = Tally(options.books, options.trades)
    first = options.symbols[0]
    books: dict[str, Any] = {}

    def finish() -> None:
        book = books[first]
        tally.done((max(float(p) for p, _ in book["b"]), min(float(p) for p, _ in book["a"])))

    def on_book(message: dict[str, Any]) -> None:
        data = message["data"]
        books[data["s"]] = data
        if tally.add_book():
            finish()

    def on_trades(message: dict[str, Any]) -> None:
        if tally.add_trades(len(message["data"])):
            finish()

    client = unified_trading.WebSocket(channel_type="linear", testnet=False)
    for start in range(0, len(options.symbols), BATCH):
        batch = options.symbols[start : start + BATCH]
        client.trade_stream(batch, on_trades)
        client.orderbook_stream(50, batch, on_book)
    threading.Event().wait()


if __name__ == "__main__":
    main()
