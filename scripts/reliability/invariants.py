"""
Invariants of every message, checked over a long synthetic market without sockets.

``scripts/invariants`` runs the long form, a test the short one. The exchange's text goes through
the connector's decoder into the cores of the workers, and beside them into slow models. The first
difference raises an assertion.
"""

import argparse
import datetime as dt
import json
import time
from collections import Counter, deque
from decimal import Decimal

from msgspec.structs import asdict

from bybit_pipeline.processes.connector.protocol import BookUpdate, decode
from bybit_pipeline.processes.orderbook.manager import OrderBookManager
from bybit_pipeline.processes.orderbook.measures import BookMeasures
from bybit_pipeline.processes.orderbook.walls.tracker import WallEvent
from bybit_pipeline.processes.simulator.market.instruments import make_instruments
from bybit_pipeline.processes.simulator.market.synthetic import SyntheticFeed
from bybit_pipeline.processes.trades.aggregator import TradesAggregator
from bybit_pipeline.shared.wire.messages import TradesMessage
from tests.naive import Message, NaiveBook, window

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT", "LINKUSDT")
DEPTH = 50
START_MS = 1_790_000_000_000
STEP_MS = 20
MEASURES_EVERY = 50
WINDOWS_EVERY = 400
WINDOWS_S = (10, 60)


class Comparison:
    """The cores of the workers, the naive models, and counts of the comparisons."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.manager = OrderBookManager()
        self.trades = TradesAggregator([f"{seconds}s" for seconds in WINDOWS_S])
        self.measures = BookMeasures(self.manager.settings, "linear")
        self.models = {symbol: NaiveBook() for symbol in SYMBOLS}
        self.rows: dict[str, deque[Message]] = {symbol: deque() for symbol in SYMBOLS}
        for symbol in SYMBOLS:
            self.manager.subscribe(symbol, depth=DEPTH)
            self.trades.subscribe(symbol)

    def take(self, text: bytes, now_ms: int) -> None:
        """Give a message of the exchange to cores and models; assert that they agree."""
        now_ns = now_ms * 1_000_000
        self.manager.advance(now_ms / 1000)
        decoded = decode(text, "linear", now_ns)
        raw = json.loads(text)
        if isinstance(decoded, BookUpdate):
            self.manager.apply(decoded.symbol, decoded.record("sim", 1, 0))
            self._compare_book(decoded.symbol, raw, now_ms)
            return
        assert isinstance(decoded, list)
        for batch in decoded:
            trades = TradesMessage(1, "sim", 1, 0, now_ns, batch.exchange_ts_ms, batch.trades)
            self.manager.apply_trades(batch.symbol, trades)
            self.trades.apply(trades, batch.symbol, category="linear")
            self._compare_windows(batch.symbol, raw)

    def _compare_book(self, symbol: str, raw: Message, now_ms: int) -> None:
        local, model = self.manager.books["linear", symbol], self.models[symbol]
        model.apply(raw)
        self.counts["book messages"] += 1
        book = local.book
        assert local.state == "live", local.reason
        assert book.bid_side.sizes == model.bids
        assert book.ask_side.sizes == model.asks
        assert book.best_bid is not None
        assert book.best_ask is not None
        assert book.best_bid[0] == max(model.bids) < min(model.asks) == book.best_ask[0]
        assert max(len(model.bids), len(model.asks)) <= DEPTH
        if self.counts["book messages"] % MEASURES_EVERY == 0:
            self._compare_measures(symbol, now_ms)

    def _compare_measures(self, symbol: str, now_ms: int) -> None:
        local, model = self.manager.books["linear", symbol], self.models[symbol]
        bids, asks = model.best(DEPTH)
        measures = self.measures.metric(
            local.book,
            symbol=symbol,
            source="sim",
            process="orderbook-0",
            epoch="epoch",
            seq=1,
            publish_ts_ns=now_ms * 1_000_000,
        )
        assert list(map(list, measures.bids)) == bids[:10]
        assert list(map(list, measures.asks)) == asks[:10]
        best_bid, best_ask = Decimal(repr(bids[0][0])), Decimal(repr(asks[0][0]))
        assert measures.mid_price == float((best_bid + best_ask) / 2)
        assert measures.spread == float(best_ask - best_bid)
        assert measures.imbalance is not None
        assert all(value is not None and -1 <= value <= 1 for value in measures.imbalance.values())
        tracker = local.walls
        tracker.update(local.book, now_ms)
        for event in tracker.take_events():
            self.counts[event.event] += 1
            check_accounts(event)
        for wall in tracker.accounts():
            assert wall.traded + wall.cancelled + wall.size == wall.peak + wall.refilled
            assert wall.eaten + wall.pulled + wall.size == wall.peak
        self.counts["measures"] += 1

    def _compare_windows(self, symbol: str, raw: Message) -> None:
        rows = self.rows[symbol]
        rows.extend(raw["data"])
        self.counts["trade messages"] += 1
        self.counts["trades"] += len(raw["data"])
        now_ms = max(row["T"] for row in raw["data"])
        while rows[0]["T"] <= now_ms - 1000 * max(WINDOWS_S):
            rows.popleft()
        if self.counts["trade messages"] % WINDOWS_EVERY == 0:
            tape = self.trades.tape(symbol, "linear")
            assert tape is not None
            assert tape.windows.now_ms is not None
            for seconds in WINDOWS_S:
                expected = window(list(rows), tape.windows.now_ms, seconds)
                measured = asdict(tape.windows.measures(seconds * 1000))
                assert expected.items() <= measured.items()
            self.counts["windows"] += len(WINDOWS_S)


def check_accounts(event: WallEvent) -> None:
    """Assert that the published accounts of a wall balance, within the precision of a float."""
    wall = event.wall
    gone = wall.traded_size + wall.cancelled_size + wall.size
    assert abs(gone - wall.peak_size - wall.refilled_size) <= 1e-9 * max(1.0, gone)
    assert 0 <= wall.eaten_ratio <= 1
    assert 0 <= wall.pulled_ratio <= 1


def run(messages: int, *, seed: int = 1) -> Counter[str]:
    """Compare cores and models over ``messages``; return the counts of comparisons."""
    instruments = make_instruments(
        {"linear": SYMBOLS}, with_defaults=False, today=dt.date(2026, 11, 22)
    )
    feed = SyntheticFeed(instruments, seed=seed, rate=300.0)
    comparison = Comparison()
    now_ms = START_MS
    for symbol in SYMBOLS:
        for topic in (f"orderbook.{DEPTH}.{symbol}", f"publicTrade.{symbol}"):
            for text in feed.join(("linear", topic), now_ms):
                comparison.take(text, now_ms)
    while comparison.counts["book messages"] + comparison.counts["trade messages"] < messages:
        now_ms += STEP_MS
        for outgoing in feed.poll(now_ms):
            comparison.take(outgoing.payload, now_ms)
    return comparison.counts


def main() -> None:
    """Run the long form and print the counts."""
    parser = argparse.ArgumentParser(
        prog="scripts/invariants",
        description="Compare the cores with naive models over a synthetic market.",
    )
    parser.add_argument("--messages", type=int, default=1_000_000, help="messages to compare")
    parser.add_argument("--seed", type=int, default=1, help="random seed")
    arguments = parser.parse_args()
    began = time.monotonic()
    for what, count in run(arguments.messages, seed=arguments.seed).items():
        print(f"{what:16} {count}")
    print(f"no difference; took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
