"""
``scripts/bench_growth``: what a worker costs as symbols, depth and trades a second grow.

A worker without sockets is fed from memory and told the time. As in its process it unpacks records,
applies them, makes the metrics that are due and packs them; but nobody else is on the cores, so
whole processes cost more (``scripts/bench scale``). Times are CPU of this thread in microseconds. A
metric is that of a book or of trades; its cost contains the events of the book's walls, and what
trades cost when measures are read.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from bybit_pipeline.processes.orderbook.actor import OrderbookWorker
from bybit_pipeline.processes.trades.actor import TradesWorker
from bybit_pipeline.shared.bus.market import Received
from bybit_pipeline.shared.settings.specs import Assignment, OrderbookSpec, Stream, TradesSpec
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.shared.wire.messages import BookMessage, MarketMessage, Trade, TradesMessage
from bybit_pipeline.shared.wire.metrics import Metric
from bybit_pipeline.shared.wire.topics import market_topic
from scripts.benchmarks.frames import DEPTH, LoadSpec, make_load
from scripts.benchmarks.records import frame_payload, record_of
from scripts.benchmarks.report import table

SYMBOLS = (10, 100, 600)
DEPTHS = (50, 200, 1000)
TRADES_PER_S = (1, 10, 100, 500)
MESSAGES_PER_S = 4_000.0
"""Of all symbols together, as in ``scripts/bench scale``."""
LOAD_S = 6.0
WARM_S = 2.0
"""Left out at the start."""
WINDOWS_S = 310.0
"""So long until the longest window is full."""
BEGIN_NS = 1_790_000_000_000_000_000
CONNECTOR = "connector-linear-0"

Timed = tuple[float, bytes, bytes]
"""When a record comes in seconds, its topic, the record."""


class ToldClock:
    """A clock that shows what it is told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def time_ns(self) -> int:
        """Nanoseconds since 1970."""
        return BEGIN_NS + int(self.now_s * 1e9)

    def monotonic(self) -> float:
        """Seconds since the beginning."""
        return self.now_s


@dataclass
class Spent:
    """CPU of a run, without its warm-up."""

    message_ns: int = 0
    messages: int = 0
    metric_ns: int = 0
    metrics: int = 0
    events: int = 0
    """Of walls, published beside the metrics."""
    longest_ns: int = 0
    """The longest that messages had to wait for one turn of metrics."""

    def row(self, grows: str, value: int) -> dict[str, Any]:
        """Microseconds a message and a metric, how many there were, and the longest turn."""
        return {
            "grows": grows,
            "value": value,
            "message_us": self.message_ns / max(1, self.messages) / 1e3,
            "metric_us": self.metric_ns / max(1, self.metrics) / 1e3,
            "metrics_a_message": self.metrics / max(1, self.messages),
            "events_a_metric": self.events / max(1, self.metrics),
            "longest_turn_us": self.longest_ns / 1e3,
        }


def run(
    worker: OrderbookWorker | TradesWorker,
    clock: ToldClock,
    records: Iterator[Timed],
    warm_s: float,
) -> Spent:
    """Feed a worker, a tick of its publish timer at a time, as its process does."""
    spent, tick_s = Spent(), worker.scheduler.tick_s
    cpu, next_tick_s = time.thread_time_ns, tick_s
    for at_s, topic, record in records:
        while next_tick_s <= at_s:
            clock.now_s = next_tick_s
            next_tick_s += tick_s
            began = cpu()
            worker.on_turn()
            kinds = [_pack(metric) for metric in worker.publish_due()]
            took_ns = cpu() - began
            if kinds and clock.now_s > warm_s:
                spent.metric_ns += took_ns
                spent.events += kinds.count("density")
                spent.metrics += len(kinds) - kinds.count("density")
                spent.longest_ns = max(spent.longest_ns, took_ns)
        clock.now_s = at_s
        began = cpu()
        worker.on_turn()
        message = codec.decode_record(topic, record)
        list(worker.on_message(Received(topic, message, 0)))
        if at_s >= warm_s:
            spent.message_ns += cpu() - began
            spent.messages += 1
    return spent


def books(symbols: int, depth: int, seconds: float) -> Spent:
    """The books of so many symbols, 4,000 messages/s of all together, trades among them."""
    messages = int(MESSAGES_PER_S * seconds)
    load = make_load(LoadSpec(symbols=symbols, depth=depth, messages=messages))
    frames = [(symbol, True, data) for symbol, data in load.snapshots.items()]
    frames += [(frame.symbol, frame.is_book, frame.data) for frame in load.frames]
    records = []
    for number, (symbol, is_book, data) in enumerate(frames):
        at_s = max(0, number - symbols) / MESSAGES_PER_S
        topic = market_topic("book" if is_book else "trade", "linear", symbol)
        records.append((at_s, topic, codec.encode_record(_message(data, at_s))))
    clock = ToldClock()
    followed = _assignments(
        *map(_trades_of, load.symbols), *(_book_of(symbol, depth) for symbol in load.symbols)
    )
    spec = OrderbookSpec(
        process="orderbook-0", role="orderbook", run_dir="", metrics_in="", assignments=followed
    )
    return run(OrderbookWorker(spec, clock=clock), clock, iter(records), WARM_S)


def trades(per_s: int, seconds: float, warm_s: float) -> Spent:
    """One symbol with so many trades a second, each a message of its own."""
    draw, stream = random.Random(1), _trades_of("BTCUSDT")

    def records() -> Iterator[Timed]:
        for number in range(int(seconds * per_s)):
            at_s = number / per_s
            trade = Trade(
                _ms(at_s),
                "Buy" if draw.random() < 0.5 else "Sell",
                round(50_000 + draw.randrange(1_000) / 10, 1),
                round(0.001 + draw.lognormvariate(-3, 1.5), 3),
                f"{draw.getrandbits(64):016x}",
                None,
                False,
                False,
            )
            message = TradesMessage(1, "live", 1, number + 1, _ns(at_s), _ms(at_s), (trade,))
            yield at_s, stream.topic_bytes, codec.encode_record(message)

    clock = ToldClock()
    spec = TradesSpec(
        process="trades-0",
        role="trades",
        run_dir="",
        metrics_in="",
        assignments=_assignments(stream),
    )
    return run(TradesWorker(spec, clock=clock), clock, records(), warm_s)


def measure(load_s: float = LOAD_S, windows_s: float = WINDOWS_S) -> list[dict[str, Any]]:
    """A row for every value of everything that grows."""
    rows = [books(count, DEPTH, load_s).row("symbols", count) for count in SYMBOLS]
    rows += [books(10, depth, load_s).row("depth", depth) for depth in DEPTHS]
    rows += [
        trades(per_s, windows_s + load_s, windows_s).row("trades/s", per_s)
        for per_s in TRADES_PER_S
    ]
    return rows


def _pack(metric: Metric) -> str:
    """Pack a metric, as it is for the forwarder; its kind."""
    codec.encode_map(metric.payload)
    return metric.topic.partition(b".")[0].decode()


def _ns(at_s: float) -> int:
    return BEGIN_NS + int(at_s * 1e9)


def _ms(at_s: float) -> int:
    return _ns(at_s) // 1_000_000


def _assignments(*streams: Stream) -> list[Assignment]:
    return [Assignment(stream=stream, connector=CONNECTOR, endpoint="") for stream in streams]


def _trades_of(symbol: str) -> Stream:
    return Stream(kind="trade", category="linear", symbol=symbol, depth=0)


def _book_of(symbol: str, depth: int) -> Stream:
    return Stream(kind="book", category="linear", symbol=symbol, depth=depth)


def _message(frame: bytes, at_s: float) -> MarketMessage:
    """A frame of the load as a record that was sent and received at that time."""
    record = record_of(frame_payload(frame), _ns(at_s))
    if isinstance(record, BookMessage):
        return replace(record, exchange_ts_ms=_ms(at_s), match_ts_ms=_ms(at_s))
    rows = tuple(replace(trade, match_ts_ms=_ms(at_s)) for trade in record.trades)
    return replace(record, exchange_ts_ms=_ms(at_s), trades=rows)


def main(words: list[str]) -> int:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(prog="scripts/bench_growth", description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    rows = measure()
    print(json.dumps(rows) if options.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
