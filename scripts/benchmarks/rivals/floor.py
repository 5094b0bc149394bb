"""
The floor: two processes, every step in C as far as Python packages allow, no metrics, no checks.

picows on uvloop reads. msgspec decodes into typed records and packs them. libzmq (through pyzmq)
carries one frame per message to a second process, which unpacks and applies it. A side of a book is
a plain ``dict``, the cheapest book as long as nothing reads it. ``--variant c-book`` uses the C
package ``order_book`` instead, which cryptofeed installs; its licence is the GPL, so nothing here
depends on it. The floor counts no losses, restarts nothing and publishes nothing: the additional
cost of a pipeline is the price of these features.
"""

import asyncio
import multiprocessing
import os
import tempfile
from typing import Any

import msgspec
import picows
import uvloop
import zmq

from scripts.benchmarks.rivals.tally import Tally, arguments

BATCH = 10


class Book(msgspec.Struct, gc=False, rename={"symbol": "s", "bids": "b", "asks": "a"}):
    """The data of a book message."""

    symbol: str
    bids: tuple[tuple[float, float], ...]
    asks: tuple[tuple[float, float], ...]
    u: int
    seq: int


class Trade(msgspec.Struct, gc=False):
    """The used fields of a trade."""

    T: int
    s: str
    S: str
    v: float
    p: float
    i: str


class Frame(msgspec.Struct, gc=False):
    """Any data frame."""

    topic: str | None = None
    data: Book | tuple[Trade, ...] | None = None
    type: str = ""
    ts: int = 0


class Record(msgspec.Struct, gc=False, array_like=True):
    """A message to the second process: a book message or trades."""

    is_snapshot: bool
    symbol: str
    ts: int
    bids: tuple[tuple[float, float], ...] = ()
    asks: tuple[tuple[float, float], ...] = ()
    trades: tuple[tuple[int, str, float, float, str], ...] = ()


class Reader(picows.WSListener):  # type: ignore[misc]
    """The first process: decode messages and send them on."""

    def __init__(self, symbols: list[str], socket: "zmq.Socket[bytes]") -> None:
        self._symbols = symbols
        self._send = socket.send
        self._decode = msgspec.json.Decoder(Frame, strict=False).decode
        self._pack = msgspec.msgpack.Encoder().encode

    def on_ws_connected(self, transport: Any) -> None:
        """Subscribe everything."""
        topics = [f"{kind}.{s}" for s in self._symbols for kind in ("orderbook.50", "publicTrade")]
        for start in range(0, len(topics), BATCH):
            request = {"op": "subscribe", "args": topics[start : start + BATCH]}
            transport.send(picows.WSMsgType.TEXT, msgspec.json.encode(request))

    def on_ws_frame(self, _transport: Any, frame: Any) -> None:
        """Decode and send one message."""
        message = self._decode(frame.get_payload_as_memoryview())
        data = message.data
        if data is None:
            return
        if type(data) is Book:
            record = Record(
                message.type == "snapshot", data.symbol, message.ts, data.bids, data.asks
            )
        else:
            trades = tuple([(t.T, t.S, t.p, t.v, t.i) for t in data])
            record = Record(False, data[0].s, message.ts, trades=trades)
        self._send(self._pack(record))


def apply_side(side: dict[float, float], levels: tuple[tuple[float, float], ...]) -> None:
    """Merge levels into a side; a size of zero deletes."""
    for price, size in levels:
        if size:
            side[price] = size
        elif price in side:
            del side[price]


def consume(endpoint: str, options: Any) -> None:
    """Run the second process: receive, unpack and apply messages."""
    socket = zmq.Context().socket(zmq.PULL)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.bind(endpoint)
    decode = msgspec.msgpack.Decoder(Record).decode
    tally = Tally(options.books, options.trades)
    books: dict[str, tuple[Any, Any]] = {}
    volumes = dict.fromkeys(options.symbols, 0.0)
    make = _maker(options.variant)
    finished = False
    while not finished:
        record = decode(socket.recv())
        if record.trades:
            for trade in record.trades:
                volumes[record.symbol] += trade[3]
            finished = tally.add_trades(len(record.trades))
        else:
            if record.is_snapshot:
                books[record.symbol] = make()
            bids, asks = books[record.symbol]
            apply_side(bids, record.bids)
            apply_side(asks, record.asks)
            finished = tally.add_book()
    bids, asks = books[options.symbols[0]]
    tally.done((max(bids), min(asks)))
    socket.poll()


def _maker(variant: str) -> Any:
    """Return a function that makes the two sides of a book."""
    if variant != "c-book":
        return lambda: ({}, {})
    from order_book import OrderBook

    def make() -> tuple[Any, Any]:
        book = OrderBook()
        kept.append(book)
        return book.bids, book.asks

    kept: list[Any] = []
    return make


async def read(options: Any, endpoint: str) -> None:
    """Run the loop of the first process."""
    socket = zmq.Context().socket(zmq.PUSH)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.connect(endpoint)
    _, listener = await picows.ws_connect(lambda: Reader(options.symbols, socket), options.url)
    del listener
    await asyncio.Event().wait()


def main() -> None:
    """Start the second process, then read until killed."""
    options = arguments(__doc__)
    with tempfile.TemporaryDirectory() as directory:
        endpoint = f"ipc://{os.path.join(directory, 'floor')}"
        multiprocessing.Process(target=consume, args=(endpoint, options), daemon=True).start()
        uvloop.run(read(options, endpoint))


if __name__ == "__main__":
    main()
