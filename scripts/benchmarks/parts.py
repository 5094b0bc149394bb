"""
``scripts/bench_parts [PART...]``: what one step of the hot path costs a message.

Each part runs beside a plain reference that does the same work the obvious way, in turns and on
the same messages, and the ratio between the two is the figure to watch: it hardly depends on the
machine. Times are CPU of this thread, the best of several rounds, in microseconds a message.
"""

import argparse
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import zmq
from msgspec.structs import astuple

from scripts.benchmarks.frames import Load, LoadSpec, make_load
from scripts.benchmarks.report import table
from scripts.benchmarks.rivals.tally import hide_wsaccel

hide_wsaccel()  # before websocket-client is imported: the product does not have it

import websocket  # noqa: E402

from bybit_pipeline.processes.connector.buffered_websocket import BufferedWebSocket  # noqa: E402
from bybit_pipeline.processes.connector.protocol import decode  # noqa: E402
from bybit_pipeline.processes.orderbook.book import OrderBook  # noqa: E402
from bybit_pipeline.processes.orderbook.measures import BookMeasures  # noqa: E402
from bybit_pipeline.processes.trades.window import TradeWindows  # noqa: E402
from bybit_pipeline.shared.bus.market import BUNDLE  # noqa: E402
from bybit_pipeline.shared.settings.config import OrderbookConfig  # noqa: E402
from bybit_pipeline.shared.wire import codec  # noqa: E402
from bybit_pipeline.shared.wire.messages import BookMessage, TradesMessage  # noqa: E402
from bybit_pipeline.shared.wire.topics import market_topic  # noqa: E402
from scripts.benchmarks.records import frame_payload, record_of  # noqa: E402

MESSAGES = 5_000
SYMBOL = "BTCUSDT"
WINDOWS_MS = (10_000, 60_000, 300_000)
NOW_NS = 1_790_000_000_000_000_000

Job = Callable[[], int]
"""Does its work and says how many messages that was."""


class Inputs:
    """One symbol's messages at every stage, made once."""

    def __init__(self, load: Load) -> None:
        frames = [load.snapshots[SYMBOL], *[frame.data for frame in load.frames]]
        self.stream = b"".join(frames)
        self.payloads = [frame_payload(frame) for frame in frames]
        self.messages = [
            record_of(payload, NOW_NS, number) for number, payload in enumerate(self.payloads, 1)
        ]
        self.books = [m for m in self.messages if isinstance(m, BookMessage)]
        self.trades = [t for m in self.messages if isinstance(m, TradesMessage) for t in m.trades]
        self.topic = market_topic("book", "linear", SYMBOL)
        self.packed = [codec.encode_record(message) for message in self.books]


def frame_read(inputs: Inputs) -> tuple[Job, Job]:
    """Websocket frames off a socket: websocket-client's ``recv_data``, our buffered reader."""

    def feed() -> socket.socket:
        theirs, mine = socket.socketpair()
        threading.Thread(target=theirs.sendall, args=(inputs.stream,)).start()
        return mine

    def reference() -> int:
        client = websocket.WebSocket(skip_utf8_validation=True)
        client.sock, client.connected = feed(), True
        for _ in inputs.payloads:
            client.recv_data()
        client.sock.close()
        return len(inputs.payloads)

    def ours() -> int:
        client = BufferedWebSocket()
        client.sock, client.connected = feed(), True
        client.start_reading()
        left = len(inputs.payloads)
        while left > 0:
            left -= len(client.receive())
        client.sock.close()
        return len(inputs.payloads)

    return reference, ours


def decoding(inputs: Inputs) -> tuple[Job, Job]:
    """Text to numbers: ``json.loads`` and ``float``, our typed and validating decoder."""

    def reference() -> int:
        for payload in inputs.payloads:
            data = json.loads(payload)["data"]
            if isinstance(data, dict):
                [(float(price), float(size)) for side in "ba" for price, size in data[side]]
            else:
                [(float(row["p"]), float(row["v"])) for row in data]
        return len(inputs.payloads)

    def ours() -> int:
        for payload in inputs.payloads:
            decode(payload, "linear", NOW_NS)
        return len(inputs.payloads)

    return reference, ours


def coding(inputs: Inputs) -> tuple[Job, Job]:
    """To bytes and back: JSON, our codec."""

    def reference() -> int:
        for message in inputs.books:
            json.loads(json.dumps(astuple(message)))
        return len(inputs.books)

    def ours() -> int:
        for message in inputs.books:
            codec.decode_record(inputs.topic, codec.encode_record(message))
        return len(inputs.books)

    return reference, ours


def bus_hop(inputs: Inputs) -> tuple[Job, Job]:
    """Sending and receiving packed messages: topic and body as multipart, bundles."""
    context = zmq.Context()
    directory = tempfile.mkdtemp(prefix="bench-")
    sender, receiver = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    for end in (sender, receiver):
        end.setsockopt(zmq.LINGER, 0)
        end.set_hwm(0)
    receiver.bind(f"ipc://{os.path.join(directory, 'hop')}")
    sender.connect(receiver.getsockopt_string(zmq.LAST_ENDPOINT))

    def reference() -> int:
        for frame in inputs.packed:
            sender.send_multipart((inputs.topic, frame))
        for _ in inputs.packed:
            receiver.recv_multipart()
        return len(inputs.packed)

    def ours() -> int:
        parts = [part for record in inputs.packed for part in (inputs.topic, record)]
        for start in range(0, len(parts), 2 * BUNDLE):
            sender.send(codec.encode_bundle(parts[start : start + 2 * BUNDLE]), zmq.NOBLOCK)
        left = len(inputs.packed)
        while left > 0:
            left -= len(list(codec.decode_bundle(receiver.recv())))
        return len(inputs.packed)

    return reference, ours


def book_apply(inputs: Inputs) -> tuple[Job, Job]:
    """Deltas into a book whose touch is known: a dict, ``max`` and ``min``; our book."""

    def reference() -> int:
        bids: dict[float, float] = {}
        asks: dict[float, float] = {}
        for message in inputs.books:
            for side, levels in ((bids, message.bids), (asks, message.asks)):
                for price, size in levels:
                    if size:
                        side[price] = size
                    else:
                        side.pop(price, None)
            assert max(bids) < min(asks)
        return len(inputs.books)

    def ours() -> int:
        book = OrderBook(50)
        for message in inputs.books:
            book.apply(message)
        return len(inputs.books)

    return reference, ours


def measuring(inputs: Inputs) -> tuple[Job, Job]:
    """All default measures of a book: each summed by itself over sorted levels; ours."""
    settings = OrderbookConfig()
    book = OrderBook(50)
    for message in inputs.books:
        book.apply(message)
    measures = BookMeasures(settings, "linear")
    times = 300

    def reference() -> int:
        for _ in range(times):
            bids = sorted(book.bid_side.sizes.items(), reverse=True)
            asks = sorted(book.ask_side.sizes.items())
            middle = (bids[0][0] + asks[0][0]) / 2
            for count in settings.imbalance_levels:
                bid, ask = (sum(size for _, size in side[:count]) for side in (bids, asks))
                assert -1 <= (bid - ask) / (bid + ask) <= 1
            for bps in settings.depth_bps:
                reach = middle * bps / 1e4
                for side in (bids, asks):
                    sum(size for price, size in side if abs(price - middle) <= reach)
                    sum(price * size for price, size in side if abs(price - middle) <= reach)
            for notional in settings.impact_notionals:
                for side in (bids, asks):
                    _walk(side, notional)
        return times

    def ours() -> int:
        for _ in range(times):
            measures.of(book)
        return times

    return reference, ours


def window_update(inputs: Inputs) -> tuple[Job, Job]:
    """
    Trades into three windows, measured after every trade.

    The reference holds a queue for each window and sums it anew; ours keeps running totals.
    """
    trades = inputs.trades[:1_000]

    def reference() -> int:
        queues: list[deque[tuple[int, float, float, bool]]] = [deque() for _ in WINDOWS_MS]
        for number, trade in enumerate(trades):
            now = trade.match_ts_ms + number * 100
            for span, held in zip(WINDOWS_MS, queues, strict=True):
                held.append((now, trade.price, trade.size, trade.side == "Buy"))
                while held[0][0] <= now - span:
                    held.popleft()
                bought = sum(size for _, _, size, is_buy in held if is_buy)
                sold = sum(size for _, _, size, is_buy in held if not is_buy)
                turnover = sum(price * size for _, price, size, _ in held)
                prices = [price for _, price, _, _ in held]
                assert min(prices) * 0.999 <= turnover / (bought + sold) <= max(prices) * 1.001
        return len(trades)

    def ours() -> int:
        windows = TradeWindows(retention_ms=WINDOWS_MS[-1])
        for number, trade in enumerate(trades):
            windows.add(
                trade.match_ts_ms + number * 100,
                trade.price,
                trade.size,
                is_buy=trade.side == "Buy",
            )
            for span in WINDOWS_MS:
                windows.measures(span)
        return len(trades)

    return reference, ours


PARTS: dict[str, Callable[[Inputs], tuple[Job, Job]]] = {
    "frame-read": frame_read,
    "decode": decoding,
    "codec": coding,
    "bus-hop": bus_hop,
    "book-apply": book_apply,
    "measures": measuring,
    "window-update": window_update,
}


def cost_us(job: Job) -> float:
    """CPU of this thread a message, in microseconds."""
    began = time.thread_time_ns()
    messages = job()
    return (time.thread_time_ns() - began) / messages / 1e3


def measure(parts: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """A row a part: both costs and their ratio."""
    inputs = Inputs(make_load(LoadSpec(symbols=1, messages=MESSAGES)))
    rows = []
    for name in parts:
        reference, ours = PARTS[name](inputs)
        slow, fast = [], []
        for _ in range(rounds):
            slow.append(cost_us(reference))
            fast.append(cost_us(ours))
        rows.append(
            {
                "part": name,
                "reference_us": min(slow),
                "ours_us": min(fast),
                "ratio": min(fast) / min(slow),
            }
        )
    return rows


def _walk(side: Sequence[tuple[float, float]], notional: float) -> float | None:
    """Average price of taking ``notional`` from a side; None if it is not there."""
    left, taken = notional, 0.0
    for price, size in side:
        part = min(left, price * size)
        taken += part / price
        left -= part
        if left <= 0:
            return notional / taken
    return None


def main(words: list[str]) -> int:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(prog="scripts/bench_parts", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    if unknown := set(options.parts) - set(PARTS):
        print(f"unknown: {', '.join(sorted(unknown))}; parts: {', '.join(PARTS)}", file=sys.stderr)
        return 64
    rows = measure(options.parts or list(PARTS), options.rounds)
    print(json.dumps(rows) if options.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
