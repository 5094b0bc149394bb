"""Slow and obvious models of a book and of trade windows, and captures read without our code."""

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

Message = dict[str, Any]


def read_capture(path: Path) -> Iterator[Message]:
    """The messages of a capture file that have a topic, in order."""
    with path.open() as lines:
        for line in lines:
            message = json.loads(line)
            if "topic" in message:
                yield message


class NaiveBook:
    """A book as two dictionaries from price to size, by the exchange's rules and nothing else."""

    def __init__(self) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.update_id = 0

    def apply(self, message: Message) -> None:
        """Take in one raw order book message."""
        data = message["data"]
        if message["type"] == "snapshot":
            self.bids, self.asks = {}, {}
        for side, rows in ((self.bids, data["b"]), (self.asks, data["a"])):
            for price, size in rows:
                if float(size) == 0:
                    side.pop(float(price), None)
                else:
                    side[float(price)] = float(size)
        self.update_id = data["u"]

    def best(self, levels: int) -> tuple[list[list[float]], list[list[float]]]:
        """The best levels of both sides as ``[price, size]`` lists, best first."""
        bids = [[price, self.bids[price]] for price in sorted(self.bids, reverse=True)]
        asks = [[price, self.asks[price]] for price in sorted(self.asks)]
        return bids[:levels], asks[:levels]


def books_by_update(path: Path, levels: int) -> dict[str, dict[int, Any]]:
    """Per symbol and update id: the best levels after that message."""
    books: dict[str, NaiveBook] = {}
    history: dict[str, dict[int, Any]] = {}
    for message in read_capture(path):
        if message["topic"].startswith("orderbook."):
            symbol = message["data"]["s"]
            book = books.setdefault(symbol, NaiveBook())
            book.apply(message)
            history.setdefault(symbol, {})[book.update_id] = book.best(levels)
    return history


def trades_by_symbol(path: Path) -> dict[str, list[Message]]:
    """Per symbol: every distinct trade row of a capture in order of arrival."""
    trades: dict[str, dict[str, Message]] = {}
    for message in read_capture(path):
        if message["topic"].startswith("publicTrade."):
            for row in message["data"]:
                trades.setdefault(row["s"], {}).setdefault(row["i"], row)
    return {symbol: list(rows.values()) for symbol, rows in trades.items()}


def window(rows: list[Message], now_ms: int, seconds: int) -> dict[str, float | int | None]:
    """Contract measures of one window over trade rows, from exact fractions."""
    held = [row for row in rows if now_ms - seconds * 1000 < row["T"] <= now_ms]
    sums = {"Buy": Fraction(0), "Sell": Fraction(0)}
    turnover = Fraction(0)
    for row in held:
        sums[row["S"]] += Fraction(row["v"])
        turnover += Fraction(row["v"]) * Fraction(row["p"])
    buy, sell = sums["Buy"], sums["Sell"]
    prices = [float(row["p"]) for row in held]
    return {
        "trades": len(held),
        "tpm": len(held) * 60 / seconds,
        "tps": len(held) / seconds,
        "volume": float(buy + sell),
        "buy_volume": float(buy),
        "sell_volume": float(sell),
        "vol_delta": float(buy - sell),
        "buy_sell_ratio": float(buy / sell) if sell else None,
        "buy_share": float(buy / (buy + sell)) if held else None,
        "turnover": float(turnover),
        "vwap": float(turnover / (buy + sell)) if held else None,
        "high": max(prices, default=None),
        "low": min(prices, default=None),
    }
