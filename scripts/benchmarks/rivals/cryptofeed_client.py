"""
cryptofeed: one process on uvloop (its default), books and trades to callbacks.

``--variant callbacks`` counts in the callbacks. ``--variant zmq`` adds its ZeroMQ backend for both
channels, and one consumer process that receives and counts every message without decoding it: less
than any real consumer does. The queue of the consumer is unlimited; those of cryptofeed have its
defaults. cryptofeed always subscribes depth 200 and gets the same frames. Instruments come from a
list instead of its REST call.
"""

import json
import multiprocessing
import time
from typing import Any

import zmq
from cryptofeed import FeedHandler
from cryptofeed import feed as feed_module
from cryptofeed.backends.zmq import BookZMQ, TradeZMQ
from cryptofeed.connection import WebsocketEndpoint, WSAsyncConn
from cryptofeed.defines import BYBIT, L2_BOOK, PERPETUAL, TRADES
from cryptofeed.exchanges import Bybit
from cryptofeed.symbols import Symbols

from scripts.benchmarks.rivals.tally import Tally, arguments


class PlainConnection(WSAsyncConn):
    """A connection that skips one check: cryptofeed rejects addresses that are not wss."""

    def __init__(self, address: str, conn_id: str, **options: Any) -> None:
        super().__init__(address.replace("ws:", "wss:", 1), conn_id, **options)
        self.address = address


def point_at(url: str, names: list[str]) -> list[str]:
    """Set the instruments and the address of cryptofeed; return its names of the symbols."""
    ours = {f"{name.removesuffix('USDT')}-USDT-PERP": name for name in names}
    kinds = {"instrument_type": dict.fromkeys(ours, PERPETUAL), "tick_size": {}}
    Symbols.set(BYBIT, ours, kinds)
    feed_module.WSAsyncConn = PlainConnection
    Bybit.websocket_endpoints = [WebsocketEndpoint(url, options={"compression": None})]
    return list(ours)


def consume(port: Any, deltas: int, trades: int) -> None:
    """Run the consumer process: count the messages of the backend by their first letters."""
    socket = zmq.Context().socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.subscribe(b"")
    port.send(socket.bind_to_random_port("tcp://127.0.0.1"))
    tally = Tally(deltas, trades)
    while True:
        message = socket.recv()
        if not message.startswith(b"BYBIT-book"):
            finished = tally.add_trades()
        else:
            # The backend adds a snapshot after every 1000 deltas of a book; it contains no delta.
            finished = b'"delta"' in message and tally.add_book()
        if finished:
            tally.done()


def main() -> None:
    """Subscribe, count, and report the end."""
    options = arguments(__doc__)
    names = point_at(options.url, options.symbols)
    tally = Tally(options.books, options.trades)
    first = names[0]
    books: dict[str, Any] = {}

    def finish() -> None:
        book = books[first].book
        touch = (float(book.bids.index(0)[0]), float(book.asks.index(0)[0]))
        if options.variant == "zmq":
            print(json.dumps({"event": "read", "at_s": time.monotonic()}), flush=True)
        else:
            tally.done(touch)

    async def on_book(book: Any, _received: float) -> None:
        books[book.symbol] = book
        if tally.add_book():
            finish()

    async def on_trade(_trade: Any, _received: float) -> None:
        if tally.add_trades():
            finish()

    callbacks: dict[str, Any] = {L2_BOOK: on_book, TRADES: on_trade}
    if options.variant == "zmq":
        parent, child = multiprocessing.Pipe()
        multiprocessing.Process(
            target=consume, args=(child, options.books - len(names), options.trades), daemon=True
        ).start()
        port = parent.recv()
        callbacks = {L2_BOOK: BookZMQ(port=port), TRADES: TradeZMQ(port=port)}
    handler = FeedHandler(config={"log": {"disabled": True}})
    feed = Bybit(symbols=names, channels=[L2_BOOK, TRADES], callbacks=callbacks)
    handler.add_feed(feed)
    handler.run()


if __name__ == "__main__":
    main()
