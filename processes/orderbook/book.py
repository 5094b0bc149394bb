"""
Order book of one symbol at one depth, by Bybit's rules.

Decides how a snapshot or a delta changes the book, and which messages invalidate it. Knows no
sockets, clocks or symbols. The reaction to an invalid book (stale, resync) is in ``local_book``.

Rules: https://bybit-exchange.github.io/docs/v5/websocket/public/orderbook. One rule was observed
rather than documented: ``u`` (here ``update_id``) of every delta of a topic is that of the previous
update plus one.

Sizes are kept in a dictionary by price. A delta changes only the dictionary and the best price.
Prices are sorted when they are read, about ten times a second, which is cheaper than to keep them
sorted with every message.

Errors are named after what happened to the book, without the suffix ``Error``.
"""
# ruff: noqa: N818

from collections.abc import Callable, Iterable
from math import inf, isfinite
from typing import ClassVar

from bybit_pipeline.shared.wire.gaps import BookGapReason
from bybit_pipeline.shared.wire.messages import BookMessage, Level
from bybit_pipeline.shared.wire.orderbook import SideName


class BookError(Exception):
    """A message could not be applied; the book is not live."""


class BookInvalid(BookError):
    """A message that invalidates the book."""

    reason: ClassVar[BookGapReason]


class NoSnapshot(BookError):
    """A delta arrived before the first snapshot, or after the book was invalidated."""

    def __init__(self, received: int) -> None:
        self.received = received
        super().__init__(f"received update {received} before a snapshot")


class SequenceGap(BookInvalid):
    """Updates are missing: ``received`` is larger than ``expected``."""

    reason = "gap"

    def __init__(self, expected: int, received: int) -> None:
        self.expected = expected
        self.received = received
        super().__init__(f"expected update {expected}, received {received}")


class DuplicateUpdate(BookInvalid):
    """An update is not newer than the book."""

    reason = "duplicate"

    def __init__(self, last: int, received: int) -> None:
        self.last = last
        self.received = received
        super().__init__(f"received update {received} after update {last}")


class Desync(BookInvalid):
    """A delta has update 1, which Bybit gives only to the snapshot after a restart."""

    reason = "desync"

    def __init__(self, text: str, received: int) -> None:
        self.received = received
        super().__init__(f"{text} (update {received})")


class CrossedBook(BookInvalid):
    """The best bid is at or above the best ask."""

    reason = "crossed"

    def __init__(self, bid: float, ask: float) -> None:
        self.bid = bid
        self.ask = ask
        super().__init__(f"best bid {bid!r} is not below best ask {ask!r}")


class TooDeep(BookInvalid):
    """A side has more levels than the depth of the stream."""

    reason = "too_deep"

    def __init__(self, side: SideName, levels: int, depth: int) -> None:
        self.side = side
        self.levels = levels
        self.depth = depth
        super().__init__(f"{side} side has {levels} levels; at most {depth}")


class BadLevels(BookInvalid):
    """Levels are duplicate, unsorted, not positive, not finite, or not pairs."""

    reason = "bad_levels"

    def __init__(self, side: SideName, text: str) -> None:
        self.side = side
        super().__init__(f"{side} levels: {text}")


class WrongDepth(BookInvalid):
    """A message of another depth arrived; a book is never mixed from two depths."""

    reason = "wrong_depth"

    def __init__(self, expected: int, received: int) -> None:
        self.expected = expected
        self.received = received
        super().__init__(f"expected depth {expected}, received {received}")


class BookSide:
    """
    One side of a book.

    Attributes:
        name: ``bid`` or ``ask``.
        sizes: Size by price.
        best: The best price, or ``empty`` if there is no level.
        empty: The worst possible price: 0 for bids, infinity for asks.
        absent_deletes: Deletions of prices that were not in the book.
    """

    __slots__ = (
        "_best_of",
        "_is_sorted",
        "_prices",
        "absent_deletes",
        "best",
        "empty",
        "name",
        "sizes",
    )

    def __init__(self, name: SideName) -> None:
        self.name: SideName = name
        self._best_of: Callable[[Iterable[float]], float] = max if name == "bid" else min
        self.empty = 0.0 if name == "bid" else inf
        self.best = self.empty
        self.sizes: dict[float, float] = {}
        self._prices: list[float] = []
        self._is_sorted = True
        self.absent_deletes = 0

    @property
    def prices(self) -> list[float]:
        """The prices, ascending on both sides; do not change the list."""
        if not self._is_sorted:
            self._prices = sorted(self.sizes)
            self._is_sorted = True
        return self._prices

    def replace(self, levels: tuple[Level, ...]) -> None:
        """Replace all levels; they are expected best first."""
        try:
            sizes = dict(levels)
            prices = [price for price, _ in levels]
            if not all(0.0 < number < inf for level in levels for number in level):
                raise BadLevels(self.name, "a price or size is not a positive finite number")
        except (TypeError, ValueError) as error:
            raise BadLevels(self.name, "not pairs of numbers") from error
        if len(sizes) != len(prices):
            raise BadLevels(self.name, "a price occurs twice")
        if prices != sorted(prices, reverse=self.name == "bid"):
            raise BadLevels(self.name, "not sorted best first")
        self.sizes = sizes
        self._is_sorted = False
        self.best = prices[0] if prices else self.empty

    def merge(self, levels: tuple[Level, ...]) -> None:
        """Set sizes; zero deletes. O(1) per level, O(levels of the side) if the best one goes."""
        sizes = self.sizes
        inserted: list[float] = []
        has_deleted = False
        try:
            for price, size in levels:
                if price in sizes:
                    if 0.0 < size < inf:
                        sizes[price] = size
                    elif size == 0.0:
                        del sizes[price]
                        has_deleted = True
                    else:
                        raise BadLevels(self.name, f"size {size!r}")
                elif 0.0 < size < inf and 0.0 < price < inf:
                    sizes[price] = size
                    inserted.append(price)
                elif size == 0.0 and isfinite(price):
                    self.absent_deletes += 1
                else:
                    raise BadLevels(self.name, f"price {price!r} with size {size!r}")
        except (TypeError, ValueError) as error:
            raise BadLevels(self.name, "not pairs of numbers") from error
        if inserted or has_deleted:
            self._is_sorted = False
            best = self._best_of((self.best, *inserted))
            if best not in sizes:
                best = self._best_of(sizes) if sizes else self.empty
            self.best = best

    def best_prices(self, count: int) -> list[float]:
        """Return up to ``count`` prices, best first."""
        if self.name == "ask":
            return self.prices[: max(count, 0)]
        return self.prices[: -count - 1 : -1] if count > 0 else []

    def levels(self, count: int) -> list[Level]:
        """Return up to ``count`` ``(price, size)`` pairs, best first."""
        prices = self.best_prices(count)
        return list(zip(prices, map(self.sizes.__getitem__, prices), strict=True))


class OrderBook:
    """
    The book of one stream; ``apply`` its messages in order.

    From an error, even an unexpected one, to the next good snapshot ``is_live`` is False and the
    book reads as empty.

    Args:
        depth: Levels per side of the stream.

    Attributes:
        is_live: True if the levels can be trusted.
        last: The last message applied; None before the first. It is kept when the book is
            invalidated, because a gap names the numbers before it.
    """

    __slots__ = ("ask_side", "bid_side", "depth", "is_live", "last", "update_id")

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.is_live = False
        self.last: BookMessage | None = None
        self.update_id = 0
        self.bid_side = BookSide("bid")
        self.ask_side = BookSide("ask")

    def apply(self, message: BookMessage) -> None:
        """
        Apply one message; a snapshot replaces the book at any time.

        At depth 1 Bybit has sent only snapshots since 2025; older captures have deltas as well. A
        snapshot that repeats ``update_id`` means that the exchange is alive and nothing changed.

        Raises:
            NoSnapshot: A delta, but the book is not live.
            SequenceGap: Updates before this one are missing.
            DuplicateUpdate: The update is not newer than the book.
            Desync: A delta has ``update_id`` 1.
            WrongDepth: The message has another depth.
            BadLevels: The levels are malformed.
            TooDeep: A side has more levels than the depth.
            CrossedBook: The best bid is not below the best ask.
        """
        was_live, self.is_live = self.is_live, False
        depth, update_id = self.depth, message.update_id
        bid_side, ask_side = self.bid_side, self.ask_side
        if message.depth != depth:
            raise WrongDepth(depth, message.depth)
        if message.is_snapshot:
            bid_side.replace(message.bids)
            ask_side.replace(message.asks)
        elif was_live and update_id == self.update_id + 1 and update_id > 1:
            if message.bids:
                bid_side.merge(message.bids)
            if message.asks:
                ask_side.merge(message.asks)
        else:
            raise self._rejection(update_id, was_live)
        if bid_side.best >= ask_side.best:
            raise CrossedBook(bid_side.best, ask_side.best)
        if len(bid_side.sizes) > depth:
            raise TooDeep("bid", len(bid_side.sizes), depth)
        if len(ask_side.sizes) > depth:
            raise TooDeep("ask", len(ask_side.sizes), depth)
        self.update_id = update_id
        self.last = message
        self.is_live = True

    def drop(self) -> None:
        """Invalidate the book; only a snapshot makes it live again."""
        self.is_live = False

    @property
    def absent_deletes(self) -> int:
        """Deletions of prices that were not in the book; Bybit sends some, rarely."""
        return self.bid_side.absent_deletes + self.ask_side.absent_deletes

    @property
    def best_bid(self) -> Level | None:
        """The best bid; None if the book is not live or has no bids."""
        side = self.bid_side
        return (side.best, side.sizes[side.best]) if self.is_live and side.sizes else None

    @property
    def best_ask(self) -> Level | None:
        """The best ask; None if the book is not live or has no asks."""
        side = self.ask_side
        return (side.best, side.sizes[side.best]) if self.is_live and side.sizes else None

    def bids(self, count: int | None = None) -> list[Level]:
        """Return the best ``count`` bids (default all), best first; empty if not live."""
        return self.bid_side.levels(self._count(count)) if self.is_live else []

    def asks(self, count: int | None = None) -> list[Level]:
        """Return the best ``count`` asks (default all), best first; empty if not live."""
        return self.ask_side.levels(self._count(count)) if self.is_live else []

    def _count(self, count: int | None) -> int:
        return self.depth if count is None else min(count, self.depth)

    def _rejection(self, received: int, was_live: bool) -> BookError:
        """Return the reason why this delta cannot be applied."""
        if not was_live:
            return NoSnapshot(received)
        if received == 1:
            return Desync("delta instead of the snapshot after a restart", received)
        if received <= self.update_id:
            return DuplicateUpdate(self.update_id, received)
        return SequenceGap(self.update_id + 1, received)
