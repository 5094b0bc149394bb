"""
Memory per symbol: ``scripts/memory``, and of trades over time: ``scripts/memory growth``.

Measures the resident memory of a new process before and after books or trade windows are filled as
in a running pipeline, divided by their number. ``growth`` feeds the core of a trades worker with
minutes of exchange time, as fast as possible, and prints its memory after every minute.
"""

import gc
import os
import random
import subprocess
import sys
import uuid

from bybit_pipeline.processes.orderbook.manager import OrderBookManager
from bybit_pipeline.processes.trades.aggregator import TradesAggregator
from bybit_pipeline.shared.settings.config import DensityConfig, OrderbookConfig
from bybit_pipeline.shared.wire.messages import BookMessage, Trade, TradesMessage

BOOKS = {50: 200, 1000: 40}
TAPES = 20
TRADES_PER_S, WINDOW_S = 100, 300
T0_MS = 1_700_000_000_000


def resident_bytes() -> int:
    """Return the resident memory of this process, after a garbage collection."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def book(depth: int) -> float:
    """Return the bytes of a full book with its walls and order flow."""
    manager = OrderBookManager(OrderbookConfig(), DensityConfig())
    chance = random.Random(1)
    before = resident_bytes()
    for number in range(BOOKS[depth]):
        symbol = f"T{number}USDT"
        local = manager.subscribe(symbol, "linear", depth=depth, connector="c")
        bids = tuple((1000.0 - n * 0.1, chance.uniform(0.1, 9.0)) for n in range(depth))
        asks = tuple((1000.1 + n * 0.1, chance.uniform(0.1, 9.0)) for n in range(depth))
        snapshot = BookMessage(
            1, "sim", 1, 1, T0_MS * 1_000_000, T0_MS, T0_MS, True, depth, 1, 1, bids, asks
        )
        local.apply(snapshot, 0.0)
        for update in range(2, 200):
            at = chance.randrange(depth)
            level = (bids[at][0], chance.uniform(0.1, 9.0))
            now_ms = T0_MS + update * 20
            delta = BookMessage(
                1,
                "sim",
                1,
                update,
                now_ms * 1_000_000,
                now_ms,
                now_ms,
                False,
                depth,
                update,
                update,
                (level,),
                (),
            )
            local.apply(delta, update * 0.02)
            if update % 5 == 0:
                local.walls.update(local.book, now_ms)
        assert local.state == "live"
    return (resident_bytes() - before) / BOOKS[depth]


def windows() -> float:
    """Return the bytes of the windows of 10, 60 and 300 seconds at 100 trades per second."""
    aggregator = TradesAggregator()
    chance = random.Random(1)
    before = resident_bytes()
    for number in range(TAPES):
        symbol = f"T{number}USDT"
        aggregator.subscribe(symbol, connector="c")
        for index in range(TRADES_PER_S * (WINDOW_S + 30)):
            now_ms = T0_MS + index * 1000 // TRADES_PER_S
            price = round(1000 + chance.uniform(-5, 5), 1)
            trade = Trade(
                now_ms,
                "Buy" if index % 2 else "Sell",
                price,
                round(chance.uniform(0.001, 9), 3),
                f"{number:04}-{index:012}-abcdef",
                index,
                False,
                False,
            )
            message = TradesMessage(1, "sim", 1, index + 1, now_ms * 1_000_000, now_ms, (trade,))
            aggregator.apply(message, symbol)
    return (resident_bytes() - before) / TAPES


def growth(symbols: int = 200, trades_per_s: int = 1_000, minutes: int = 14) -> None:
    """Print the memory of the trades of symbols with different activity, by exchange time."""
    aggregator = TradesAggregator(quantiles=(0.5, 0.9, 0.99), volatility=True)
    chance = random.Random(1)
    names = [f"T{number:03}USDT" for number in range(symbols)]
    activity = [10 ** chance.uniform(-1, 0.3) for _ in names]
    sent = dict.fromkeys(names, 0)
    for name in names:
        aggregator.subscribe(name, connector="c")
    for second in range(1, minutes * 60 + 1):
        picked = chance.choices(names, activity, k=trades_per_s)
        for index, name in enumerate(picked):
            now_ms = T0_MS + second * 1000 - 1000 + index * 1000 // trades_per_s
            sent[name] += 1
            trade_id = str(uuid.UUID(int=chance.getrandbits(128)))
            price, size = 1000 + chance.uniform(-5, 5), chance.uniform(0.001, 9)
            trade = Trade(
                now_ms,
                "Buy" if index % 2 else "Sell",
                round(price, 1),
                round(size, 3),
                trade_id,
                index,
                False,
                False,
            )
            message = TradesMessage(1, "sim", 1, sent[name], now_ms * 1_000_000, now_ms, (trade,))
            aggregator.apply(message, name)
        for tape in aggregator.tapes():
            now_ns = (T0_MS + second * 1000) * 1_000_000
            aggregator.metric(
                tape,
                now_ns,
                source="sim",
                process="trades-0",
                epoch="",
                seq=second,
                publish_ts_ns=now_ns,
            )
        if second % 60 == 0:
            print(f"after {second // 60:2} min {resident_bytes() / 1e6:8.1f} MB", flush=True)


MEASURES = {
    "book of depth 50": lambda: book(50),
    "book of depth 1000": lambda: book(1000),
    "trade windows at 100 trades/s": windows,
}


def main() -> None:
    """Print each measure; each is taken in a process of its own."""
    if sys.argv[1:] == ["growth"]:
        growth()
        return
    if len(sys.argv) > 1:
        print(f"{MEASURES[sys.argv[1]]():.0f}")
        return
    for name in MEASURES:
        command = [sys.executable, "-m", "scripts.reliability.memory", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"{name:<32} {int(done.stdout) / 1000:8.0f} kB per symbol")


if __name__ == "__main__":
    main()
