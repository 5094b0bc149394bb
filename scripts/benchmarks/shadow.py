"""
A listener on the market bus that keeps the exact latency of every message.

Does what a worker does up to the point that matters: receive, unpack, number, and for a book apply
it to a real ``OrderBook``. The snapshots, which were published before it came, it takes from the
load itself. One process for all connectors of the run.
"""

import argparse
import json
import time

import zmq

from bybit_pipeline.processes.orderbook.book import OrderBook
from bybit_pipeline.shared.bus.market import MARKET_QUEUE
from bybit_pipeline.shared.wire.codec import decode_market
from bybit_pipeline.shared.wire.messages import BookMessage
from bybit_pipeline.shared.wire.topics import market_topic
from scripts.benchmarks.frames import LoadSpec, make_load
from scripts.benchmarks.records import frame_payload, record_of
from scripts.benchmarks.run import ROUND
from scripts.benchmarks.venue import load_spec, say


def books_of(spec: LoadSpec) -> dict[bytes, OrderBook]:
    """The books after their snapshots, by market bus topic."""
    books = {}
    for symbol, frame in make_load(spec).snapshots.items():
        snapshot = record_of(frame_payload(frame), 0)
        assert isinstance(snapshot, BookMessage)
        book = OrderBook(snapshot.depth)
        book.apply(snapshot)
        books[market_topic("book", "linear", symbol)] = book
    return books


def spread(samples: list[int]) -> dict[str, float]:
    """Quantiles of nanoseconds, in microseconds."""
    ranked = sorted(samples)
    last = len(ranked) - 1
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    return {"count": len(ranked)} | {
        name: ranked[min(last, int(share * len(ranked)))] / 1e3 for name, share in shares.items()
    }


def main() -> None:
    """Listen to a run, then report."""
    parser = argparse.ArgumentParser(description="Exact latencies of one run.")
    parser.add_argument("connectors", nargs="+", metavar="NAME=ENDPOINT")
    parser.add_argument("--symbols", type=int, required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    books = books_of(load_spec(options.symbols, options.messages, ROUND, options.seed))
    socket = zmq.Context().socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, MARKET_QUEUE)
    for topic in books:
        socket.subscribe(topic)
        socket.subscribe(b"trade" + topic.removeprefix(b"book"))
    for entry in options.connectors:
        socket.connect(entry.partition("=")[2])
    say("listening", at=json.dumps(time.monotonic()))
    samples: dict[str, list[int]] = {"book": [], "trade": []}
    left = options.messages
    while left > 0:
        topic, message = decode_market(socket.recv())
        if isinstance(message, BookMessage):
            books[topic].apply(message)
            samples["book"].append(time.time_ns() - message.recv_ts_ns)
        else:
            samples["trade"].append(time.time_ns() - message.recv_ts_ns)
        left -= 1
    say("latency", **{name: spread(values) for name, values in samples.items() if values})


if __name__ == "__main__":
    main()
