"""
Measures of a live book: pure functions of its levels, with their sources.

Decides the formulas and the measures of an ``orderbook.*`` message. Knows no states.

One pass over the levels of a side gives running totals (``CumulativeDepth``). Bands, level counts
and notionals are then found by bisection, so that an entry in a configuration list costs one
bisection. Prices and sums are published as ``rounding`` makes them: without binary noise.

A notional is price times size, in quote currency. On ``inverse`` a size is a number of contracts of
1 USD each: the notional is the size, and the base quantity is size over price.
"""

from bisect import bisect_left, bisect_right
from itertools import accumulate
from math import fsum
from operator import mul, truediv

from bybit_pipeline.processes.orderbook.book import BookSide, OrderBook
from bybit_pipeline.processes.orderbook.rounding import BookRounding
from bybit_pipeline.shared.settings.config import OrderbookConfig
from bybit_pipeline.shared.wire.messages import Category, Level, Source
from bybit_pipeline.shared.wire.orderbook import Depth, Impact, Orderbook, Wall

BPS = 10_000.0

EDGE = 1e-12
"""Relative slack at the edge of a band or notional: a level exactly at the edge is inside, however
the edge was rounded. Prices have fewer than 16 digits."""


def mid(bid: float, ask: float) -> float:
    """Mid price, in quote currency: ``(bid + ask) / 2`` of the best prices."""
    return (bid + ask) / 2


def spread_bps(bid: float, ask: float) -> float:
    """Spread relative to the mid price, in basis points: ``(ask - bid) / mid * 10,000``."""
    return (ask - bid) / mid(bid, ask) * BPS


def imbalance(bid_size: float, ask_size: float) -> float | None:
    """
    Queue imbalance in [-1, 1]: ``(bid - ask) / (bid + ask)`` of sizes; None without any size.

    Positive when bids outweigh asks. For the best level: Gould and Bonart, "Queue
    imbalance as a one-tick-ahead price predictor", Market Microstructure and Liquidity 2(2), 2016.
    """
    total = bid_size + ask_size
    return (bid_size - ask_size) / total if total > 0 else None


def band(distance_bps: float) -> tuple[float, float]:
    """
    Bounds of the prices within ``distance_bps`` of the mid price, as multiples of the mid price.

    They are wider by ``EDGE``, so that a level exactly at the edge is inside.
    """
    distance = distance_bps / BPS
    return (1 - distance) * (1 - EDGE), (1 + distance) * (1 + EDGE)


class CumulativeDepth:
    """
    Running totals over the levels of one side of a book, best first.

    ``totals[n]`` is the size of the best ``n`` levels, ``notionals[n]`` their value in quote
    currency (``products`` has that of each level), and ``bases[n]`` their quantity in base
    currency. O(levels) to create, without a Python loop.

    Args:
        side: The side; it must not change while this is used.
        depth: Levels per side of the stream. A full side may continue beyond its last level.
        is_inverse: True if sizes are contracts of 1 USD.
        rounding: Rounding of the sums that are published.
    """

    __slots__ = (
        "_ascending",
        "_is_bid",
        "_is_inverse",
        "_is_whole",
        "_precise",
        "_rounded",
        "_rounding",
        "bases",
        "count",
        "notionals",
        "prices",
        "products",
        "sizes",
        "totals",
    )

    def __init__(
        self, side: BookSide, depth: int, *, is_inverse: bool, rounding: BookRounding
    ) -> None:
        self._is_bid = side.name == "bid"
        self._is_inverse = is_inverse
        self._rounding = rounding
        self._rounded: dict[int, tuple[float, float]] = {0: (0.0, 0.0)}
        self._precise = (0, 0.0)
        ascending = self._ascending = side.prices
        prices = self.prices = ascending[::-1] if self._is_bid else ascending
        sizes = self.sizes = list(map(side.sizes.__getitem__, prices))
        self.count = len(sizes)
        self._is_whole = self.count < depth
        self.totals = list(accumulate(sizes, initial=0.0))
        if is_inverse:
            self.products, self.notionals = sizes, self.totals
            self.bases: list[float] = list(accumulate(map(truediv, sizes, prices), initial=0.0))
        else:
            self.products = list(map(mul, prices, sizes))
            self.notionals = list(accumulate(self.products, initial=0.0))
            self.bases = self.totals

    def levels(self, count: int) -> tuple[Level, ...]:
        """Return up to ``count`` ``(price, size)`` pairs, best first."""
        return tuple(zip(self.prices[:count], self.sizes[:count], strict=True))

    def size_of(self, levels: int) -> float:
        """Return the total size of the best ``levels`` levels, or of all if there are fewer."""
        return self.totals[levels] if levels < self.count else self.totals[-1]

    def within(self, edge: float) -> tuple[float, float, bool]:
        """
        Return the total size and notional of the levels not worse than the price ``edge``.

        The third value is False if ``edge`` lies beyond the last visible level, so that the totals
        are lower bounds.
        """
        if self._is_bid:
            count = self.count - bisect_left(self._ascending, edge)
        else:
            count = bisect_right(self._ascending, edge)
        rounded = self._rounded.get(count)
        if rounded is None:
            rounded = self._rounded[count] = self._round(count)
        return *rounded, self._is_whole or count < self.count

    def _round(self, count: int) -> tuple[float, float]:
        """Return size and notional of the best ``count`` levels as published."""
        rounding = self._rounding
        size = rounding.size(self.totals[count], count)
        if size is None:
            size = rounding.exact_size(self.sizes[:count])
        if self._is_inverse:
            return size, size
        notional = rounding.notional(self.notionals[count], count)
        if notional is None:
            notional = rounding.notional(self._precise_notional(count), len(self._rounded))
        if notional is None:
            notional = rounding.exact_notional(self.prices[:count], self.sizes[:count])
        return size, notional

    def _precise_notional(self, count: int) -> float:
        """Return a notional from one addition per call so far; a running total has ``count``."""
        start, total = self._precise if self._precise[0] <= count else (0, 0.0)
        total += fsum(self.products[start:count])
        self._precise = (count, total)
        return total

    def average_price(self, notional: float) -> float | None:
        """
        Return the average price of taking ``notional`` (quote currency), best levels first.

        It is notional over base quantity, with the last level taken in part. None if the visible
        levels hold less.
        """
        last = bisect_left(self.notionals, notional * (1 - EDGE), 1)
        if last > self.count:
            return None
        rest = notional - self.notionals[last - 1]
        return notional / (self.bases[last - 1] + rest / self.prices[last - 1])


def depth_within(
    bids: CumulativeDepth, asks: CumulativeDepth, lowest: float, highest: float
) -> Depth:
    """
    Visible size and notional (quote) of the bids from ``lowest`` up, the asks up to ``highest``.

    Beyond the visible book the numbers are lower bounds, and flagged as not complete.
    """
    bid, bid_notional, bid_complete = bids.within(lowest)
    ask, ask_notional, ask_complete = asks.within(highest)
    return Depth(
        bid=bid,
        ask=ask,
        bid_notional=bid_notional,
        ask_notional=ask_notional,
        bid_complete=bid_complete,
        ask_complete=ask_complete,
    )


def impact(
    bids: CumulativeDepth, asks: CumulativeDepth, mid_price: float, notional: float
) -> Impact:
    """
    Cost of a market order for ``notional`` quote currency, each way, in basis points of the mid.

    Buying walks the asks: ``(average price / mid - 1) * 10,000``. Selling walks the bids: ``(1 -
    average price / mid) * 10,000``. Both are positive, and None beyond the visible book. It is the
    "cost of a round trip" of Irvine, Benston and Kandel, "Liquidity beyond the inside spread",
    2000, one way at a time.
    """
    buy = asks.average_price(notional)
    sell = bids.average_price(notional)
    return Impact(
        buy_bps=None if buy is None else (buy / mid_price - 1) * BPS,
        sell_bps=None if sell is None else (1 - sell / mid_price) * BPS,
    )


class OrderFlow:
    """
    Order flow imbalance over a publish interval, in units of size.

    Cont, Kukanov and Stoikov, "The price impact of order book events", Journal of Financial
    Econometrics 12(1), 2014, section 2: the sum over consecutive states of the best levels of

        + size of the bid now,      if its price did not fall
        - size of the bid before,   if its price did not rise
        - size of the ask now,      if its price did not rise
        + size of the ask before,   if its price did not fall

    There is one state per book message, as conflated by the exchange. A side without levels counts
    as a best level of size zero at the worst possible price.
    """

    __slots__ = ("_ask", "_ask_size", "_bid", "_bid_size", "_has_state", "_total")

    def __init__(self) -> None:
        self._total = 0.0
        self._has_state = False
        self._bid = self._bid_size = self._ask = self._ask_size = 0.0

    def reset(self) -> None:
        """Forget the last state; the next one starts a new sum."""
        self._total = 0.0
        self._has_state = False

    def add(self, bid: float, bid_size: float, ask: float, ask_size: float) -> None:
        """Add the change from the last state to this one; the first state adds nothing."""
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
        """Return the sum since the last call and start a new one; None without a state."""
        total, self._total = self._total, 0.0
        return total if self._has_state else None


def key_of(number: float) -> str:
    """Return a level count, distance or notional as a key of a map: ``10``, ``2.5``, ``100000``."""
    return str(int(number)) if number == int(number) else repr(float(number))


class BookMeasures:
    """
    Compute the measures of ``orderbook.*`` messages for one configuration and category.

    Args:
        settings: Level counts, bands and notionals.
        category: Decides how a notional is computed.
    """

    def __init__(self, settings: OrderbookConfig, category: Category) -> None:
        self._category = category
        self._rounding: BookRounding | None = None
        self._publish_levels = settings.publish_levels
        self._imbalance = [(key_of(n), n) for n in settings.imbalance_levels]
        self._depth = [(key_of(bps), *band(bps)) for bps in settings.depth_bps]
        self._impact = [(key_of(notional), notional) for notional in settings.impact_notionals]

    def metric(
        self,
        book: OrderBook,
        *,
        symbol: str,
        source: Source,
        process: str,
        epoch: str,
        seq: int,
        publish_ts_ns: int,
        alive_ts_ns: int | None = None,
        ofi: float | None = None,
        walls: tuple[Wall, ...] = (),
    ) -> Orderbook:
        """
        Return the message about a live book.

        A one-sided book has no mid price and nothing that needs one. An empty configuration list
        leaves its map empty. There is no imbalance of more levels than the stream has.

        Args:
            book: A live book.
            symbol, source, process, epoch, seq, publish_ts_ns, alive_ts_ns: The common fields, as
                published.
            ofi: Order flow imbalance since the last message.
            walls: The walls, nearest first.
        """
        last, depth, is_inverse = book.last, book.depth, self._category == "inverse"
        assert last is not None, "a live book has a last message"
        rounding = self._rounding
        if rounding is None:
            rounding = self._rounding = BookRounding()
            rounding.learn(book.bid_side.sizes.items())
            rounding.learn(book.ask_side.sizes.items())
        bids = CumulativeDepth(book.bid_side, depth, is_inverse=is_inverse, rounding=rounding)
        asks = CumulativeDepth(book.ask_side, depth, is_inverse=is_inverse, rounding=rounding)
        best_bid = best_bid_size = best_ask = best_ask_size = None
        mid_price = spread_ = spread_bps_ = weighted_mid_ = depths = impacts = None
        if bids.count:
            best_bid, best_bid_size = bid = bids.prices[0], bids.sizes[0]
        if asks.count:
            best_ask, best_ask_size = ask = asks.prices[0], asks.sizes[0]
        if best_bid is not None and best_ask is not None:
            spread_, mid_price = rounding.spread_and_mid(best_bid, best_ask)
            centre = mid_price
            spread_bps_ = spread_ / mid_price * BPS
            weighted_mid_ = rounding.weighted_mid(bid, ask)
            depths = {
                key: depth_within(bids, asks, centre * lowest, centre * highest)
                for key, lowest, highest in self._depth
            }
            impacts = {key: impact(bids, asks, centre, notional) for key, notional in self._impact}
        return Orderbook(
            category=self._category,
            symbol=symbol,
            source=source,
            process=process,
            epoch=epoch,
            seq=seq,
            match_ts_ms=last.match_ts_ms,
            exchange_ts_ms=last.exchange_ts_ms,
            recv_ts_ns=last.recv_ts_ns,
            alive_ts_ns=alive_ts_ns,
            publish_ts_ns=publish_ts_ns,
            state="live",
            update_id=last.update_id,
            sequence=last.sequence,
            best_bid=best_bid,
            best_bid_size=best_bid_size,
            best_ask=best_ask,
            best_ask_size=best_ask_size,
            mid_price=mid_price,
            spread=spread_,
            spread_bps=spread_bps_,
            weighted_mid=weighted_mid_,
            imbalance={
                key: imbalance(bids.size_of(n), asks.size_of(n)) if n <= depth else None
                for key, n in self._imbalance
            },
            depth=depths,
            impact=impacts,
            ofi=None if ofi is None else rounding.flow(ofi),
            bids=bids.levels(self._publish_levels),
            asks=asks.levels(self._publish_levels),
            densities=walls,
        )
