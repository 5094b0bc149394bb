"""
The oracle: the books that the exchange has really sent, to judge the metrics of the pipeline.

Every message is applied to a naive book, and a digest of the book at each update id is kept.
"""

import json
from collections import OrderedDict
from typing import Any

from tests.naive import NaiveBook

KEPT = 5_000
"""Update ids kept per book: some minutes."""

NUMBERS = ("mid_price", "best_bid", "best_ask", "spread", "imbalance", "depth", "weighted_mid")


def digest(bids: Any, asks: Any) -> int:
    """Return a hash of a book; both sides are ``[price, size]`` pairs, best first."""
    return hash((tuple(map(tuple, bids)), tuple(map(tuple, asks))))


class Oracle:
    """
    Give ``take`` every data message of the exchange, and ``judge`` every metric of the pipeline.

    Args:
        levels: Levels per side that the pipeline publishes.
        symbols: The books to compare exactly; None for all. Metrics of other symbols are only
            checked for contradictions.

    Attributes:
        books: The naive book of each symbol.
        wrong: Descriptions of wrong metrics.
        checked: Number of live books compared.
        metrics: Number of metrics judged.
    """

    def __init__(self, levels: int, symbols: set[str] | None = None) -> None:
        self.books: dict[str, NaiveBook] = {}
        self.wrong: list[str] = []
        self.checked = 0
        self.metrics = 0
        self._levels = levels
        self._symbols = symbols
        self._digests: dict[str, OrderedDict[int, int]] = {}

    def take(self, payload: bytes) -> None:
        """Apply one message of the exchange."""
        symbol = payload[:60].partition(b'"orderbook.')[2].partition(b'"')[0].partition(b".")[2]
        name = symbol.decode()
        if not name or (self._symbols is not None and name not in self._symbols):
            return
        book = self.books.setdefault(name, NaiveBook())
        book.apply(json.loads(payload))
        digests = self._digests.setdefault(name, OrderedDict())
        digests[book.update_id] = digest(*book.best(self._levels))
        if len(digests) > KEPT:
            digests.popitem(last=False)

    def judge(self, message: dict[str, Any]) -> None:
        """Add a description of every error in a metric to ``wrong``."""
        self.metrics += 1
        if message["kind"] == "orderbook":
            self._judge_book(message)
        elif message["kind"] == "trades":
            self._judge_trades(message)

    def _judge_book(self, message: dict[str, Any]) -> None:
        name = f"{message['symbol']} at {message['update_id']} ({message['state']})"
        if message["state"] != "live":
            if any(message[key] is not None for key in NUMBERS) or message["bids"]:
                self.wrong.append(f"{name}: numbers without a live book")
            return
        if not message["best_bid"] < message["mid_price"] < message["best_ask"]:
            self.wrong.append(f"{name}: crossed")
        digests = self._digests.get(message["symbol"])
        if digests is None:
            return
        self.checked += 1
        if digests.get(message["update_id"]) != digest(message["bids"], message["asks"]):
            self.wrong.append(f"{name}: differs from the book of the exchange")

    def _judge_trades(self, message: dict[str, Any]) -> None:
        for window, measures in message["windows"].items():
            name = f"{message['symbol']} {window}"
            trades = measures["trades"]
            if trades is None:
                continue
            if (measures["vwap"] is None) != (trades == 0):
                self.wrong.append(f"{name}: {trades} trades with vwap {measures['vwap']}")
            elif trades and not (
                measures["low"] * (1 - 1e-9) <= measures["vwap"] <= measures["high"] * (1 + 1e-9)
            ):
                self.wrong.append(f"{name}: vwap {measures['vwap']} outside of low and high")
