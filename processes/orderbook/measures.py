"""
The numbers that are read from a book: pure functions of its levels, with their sources.

Decides formulas and the shape of the measures in an ``orderbook.*`` message. Knows no states: it
is only ever given a book that is live.

One pass over the levels of a side gives running totals (``Curve``), and every band, level count
and notional is then read from them by bisection: a further entry in a configuration list costs a
bisection, an empty list nothing.

Notional, said once: price times size in quote currency. On ``inverse`` a size is a number of
contracts of 1 USD each, so the notional *is* the size and the base quantity is size over price.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from operator import mul, neg, truediv
from typing import Any

from processes.orderbook.book import BookHalf, OrderBook
from shared.config import OrderbookConfig
from shared.messages import Category, Level
from shared.shapes import BOOK_MEASURES

BPS = 10_000.0

EDGE = 1e-12
"""Relative slack at the edge of a band or notional, so that a level exactly there is inside
whichever way the computed edge was rounded. Prices have fewer than 16 digits."""


def mid(bid: float, ask: float) -> float:
    """Mid price, in quote currency: ``(bid + ask) / 2`` of the best prices."""
    return (bid + ask) / 2


def spread(bid: float, ask: float) -> float:
    """Spread, in quote currency: ``ask - bid`` of the best prices."""
    return ask - bid


def spread_bps(bid: float, ask: float) -> float:
    """Spread relative to the mid price, in basis points: ``(ask - bid) / mid * 10,000``."""
    return (ask - bid) / mid(bid, ask) * BPS


def weighted_mid(bid: Level, ask: Level) -> float:
    """
    Mid price weighted by the opposite side's size, in quote currency.

    ``(bid.price * ask.size + ask.price * bid.size) / (bid.size + ask.size)``: the baseline that
    Stoikov, "The micro-price", Quantitative Finance 18(12), 2018, improves on; not that price
    itself.

    Args:
        bid, ask: The best levels; sizes above zero, ``bid`` priced below ``ask``.

    Raises:
        ValueError: If a size is not positive or the book is crossed.
    """
    (bid_price, bid_size), (ask_price, ask_size) = bid, ask
    if not (bid_size > 0 and ask_size > 0 and bid_price < ask_price):
        raise ValueError(f"not the best levels of a book: bid {bid}, ask {ask}")
    return (bid_price * ask_size + ask_price * bid_size) / (bid_size + ask_size)


def imbalance(bid_size: float, ask_size: float) -> float | None:
    """
    Queue imbalance in [-1, 1]: ``(bid - ask) / (bid + ask)`` of sizes; None without any size.

    Positive when bids outweigh asks. For the best level: Gould and Bonart, "Queue
    imbalance as a one-tick-ahead price predictor", Market Microstructure and Liquidity 2(2), 2016.
    """
    total = bid_size + ask_size
    return (bid_size - ask_size) / total if total > 0 else None


class Curve:
    """
    Running totals over the levels of one side, best first: totals up to and with each level.

    O(levels) to make, without a Python-level loop; 4 lists as long as the side.

    Args:
        prices: Best first.
        sizes: In the same order.
        is_bid: Whether prices fall (bids) or rise (asks).
        is_inverse: Whether sizes are contracts of 1 USD.
        is_whole: Whether the exchange has no levels behind these.
    """

    __slots__ = ("bases", "is_bid", "is_whole", "notionals", "prices", "sizes")

    def __init__(
        self,
        prices: Sequence[float],
        sizes: Sequence[float],
        *,
        is_bid: bool,
        is_inverse: bool,
        is_whole: bool = True,
    ) -> None:
        self.prices = prices
        self.is_whole = is_whole
        self.is_bid = is_bid
        self.sizes = list(accumulate(sizes))
        if is_inverse:
            self.notionals = self.sizes
            self.bases = list(accumulate(map(truediv, sizes, prices)))
        else:
            self.notionals = list(accumulate(map(mul, prices, sizes)))
            self.bases = self.sizes

    def size_of(self, levels: int) -> float:
        """Total size of the best ``levels`` levels, or of all when there are fewer."""
        return self.sizes[min(levels, len(self.sizes)) - 1] if self.sizes and levels > 0 else 0.0

    def within(self, mid_price: float, distance_bps: float) -> tuple[float, float, bool]:
        """
        Total size and notional of the levels at most ``distance_bps`` from the mid price.

        And whether these are all: not if the band reaches beyond the last level that is visible.
        """
        if self.is_bid:
            edge = mid_price * (1 - distance_bps / BPS) * (1 - EDGE)
            count = bisect_right(self.prices, -edge, key=neg)
        else:
            edge = mid_price * (1 + distance_bps / BPS) * (1 + EDGE)
            count = bisect_right(self.prices, edge)
        is_complete = self.is_whole or count < len(self.prices)
        if not count:
            return 0.0, 0.0, is_complete
        return self.sizes[count - 1], self.notionals[count - 1], is_complete

    def average_price(self, notional: float) -> float | None:
        """
        Average price of taking ``notional`` (quote currency) from this side, best levels first.

        Notional over base quantity, the last level taken in part. None when the visible levels
        hold less.
        """
        index = bisect_left(self.notionals, notional * (1 - EDGE))
        if index == len(self.notionals):
            return None
        before = self.notionals[index - 1] if index else 0.0
        base = self.bases[index - 1] if index else 0.0
        return notional / (base + (notional - before) / self.prices[index])


def curve(half: BookHalf, levels: int, *, is_inverse: bool) -> Curve:
    """Running totals over the best ``levels`` levels of one side of a book."""
    prices = half.best_prices(levels)
    sizes = list(map(half.sizes.__getitem__, prices))
    return Curve(
        prices,
        sizes,
        is_bid=half.side == "bid",
        is_inverse=is_inverse,
        is_whole=len(half.sizes) < levels,
    )


def depth_within(
    bids: Curve, asks: Curve, mid_price: float, distance_bps: float
) -> dict[str, float | bool]:
    """
    Visible size and notional (quote) within ``distance_bps`` of the mid price, the edge included.

    A band that is wider than the visible book holds what is visible, and says so: it is not
    complete, there is at least this much.
    """
    bid, bid_notional, bid_complete = bids.within(mid_price, distance_bps)
    ask, ask_notional, ask_complete = asks.within(mid_price, distance_bps)
    return {
        "bid": bid,
        "ask": ask,
        "bid_notional": bid_notional,
        "ask_notional": ask_notional,
        "bid_complete": bid_complete,
        "ask_complete": ask_complete,
    }


def impact(bids: Curve, asks: Curve, mid_price: float, notional: float) -> dict[str, float | None]:
    """
    Cost of a market order for ``notional`` quote currency, each way, in basis points of the mid.

    Buying walks the asks: ``(average price / mid - 1) * 10,000``; selling the bids: ``(1 - average
    price / mid) * 10,000``. Both are positive, and None beyond the visible book. The "cost of a
    round trip" of Irvine, Benston and Kandel, "Liquidity beyond the inside spread", 2000, one way
    at a time.
    """
    buy = asks.average_price(notional)
    sell = bids.average_price(notional)
    return {
        "buy_bps": None if buy is None else (buy / mid_price - 1) * BPS,
        "sell_bps": None if sell is None else (1 - sell / mid_price) * BPS,
    }


class OrderFlow:
    """
    Order flow imbalance over a publish interval, in units of size.

    Cont, Kukanov and Stoikov, "The price impact of order book events", Journal of Financial
    Econometrics 12(1), 2014, section 2: the sum over consecutive states of the best levels of

        + size of the bid now,      if its price did not fall
        - size of the bid before,   if its price did not rise
        - size of the ask now,      if its price did not rise
        + size of the ask before,   if its price did not fall

    One state a book message, as the exchange conflates them. A side without levels is a best
    level of size zero at the worst possible price.
    """

    __slots__ = ("_ask", "_ask_size", "_bid", "_bid_size", "_has_state", "_total")

    def __init__(self) -> None:
        self._total = 0.0
        self._has_state = False
        self._bid = self._bid_size = self._ask = self._ask_size = 0.0

    def reset(self) -> None:
        """Forget the state before; the next one starts a new sum."""
        self._total = 0.0
        self._has_state = False

    def add(self, bid: float, bid_size: float, ask: float, ask_size: float) -> None:
        """Count the change from the previous state to this one; the first is only kept."""
        if self._has_state:
            total = 0.0
            if bid >= self._bid:
                total += bid_size
            if bid <= self._bid:
                total -= self._bid_size
            if ask <= self._ask:
                total -= ask_size
            if ask >= self._ask:
                total += self._ask_size
            self._total += total
        self._has_state = True
        self._bid, self._bid_size = bid, bid_size
        self._ask, self._ask_size = ask, ask_size

    def take(self) -> float | None:
        """The sum since the last call, which starts the next interval; None without a state."""
        total, self._total = self._total, 0.0
        return total if self._has_state else None


MEASURES = BOOK_MEASURES
"""The measures of a book that is not live: every field, no number."""


def label(number: float) -> str:
    """A level count, distance or notional as a key of a map: ``10``, ``2.5``, ``100000``."""
    return str(int(number)) if number == int(number) else repr(float(number))


class BookMeasures:
    """
    The measures of ``orderbook.*`` messages of one configuration and category.

    Args:
        settings: Which level counts, bands and notionals.
        category: Decides what a notional is.
    """

    def __init__(self, settings: OrderbookConfig, category: Category) -> None:
        self._publish_levels = settings.publish_levels
        self._imbalance = [(label(n), n) for n in settings.imbalance_levels]
        self._depth = [(label(bps), bps) for bps in settings.depth_bps]
        self._impact = [(label(notional), notional) for notional in settings.impact_notionals]
        self._is_inverse = category == "inverse"
        self._whole = bool(settings.depth_bps or settings.impact_notionals)
        self._levels = max([settings.publish_levels, 1, *settings.imbalance_levels])

    def of(self, book: OrderBook) -> dict[str, Any]:
        """
        The measures of a live book, named as in the message; ``ofi`` is left None.

        A one-sided book has no mid price and nothing that needs one; an empty configuration list
        leaves its map empty. A count of more levels than the stream carries has no imbalance.
        """
        bid_half, ask_half = book.bid_half, book.ask_half
        levels = book.depth if self._whole else self._levels
        bids = curve(bid_half, levels, is_inverse=self._is_inverse)
        asks = curve(ask_half, levels, is_inverse=self._is_inverse)
        measures = MEASURES | {
            "imbalance": {
                key: imbalance(bids.size_of(n), asks.size_of(n)) if n <= book.depth else None
                for key, n in self._imbalance
            },
            "bids": _pairs(bid_half, bids.prices[: self._publish_levels]),
            "asks": _pairs(ask_half, asks.prices[: self._publish_levels]),
        }
        bid, ask = book.best_bid, book.best_ask
        if bid is not None:
            measures["best_bid"], measures["best_bid_size"] = bid
        if ask is not None:
            measures["best_ask"], measures["best_ask_size"] = ask
        if bid is not None and ask is not None:
            mid_price = mid(bid[0], ask[0])
            measures["mid_price"] = mid_price
            measures["spread"] = spread(bid[0], ask[0])
            measures["spread_bps"] = spread_bps(bid[0], ask[0])
            measures["weighted_mid"] = weighted_mid(bid, ask)
            measures["depth"] = {
                key: depth_within(bids, asks, mid_price, bps) for key, bps in self._depth
            }
            measures["impact"] = {
                key: impact(bids, asks, mid_price, notional) for key, notional in self._impact
            }
        return measures


def _pairs(half: BookHalf, prices: Sequence[float]) -> list[list[float]]:
    sizes = half.sizes
    return [[price, sizes[price]] for price in prices]
