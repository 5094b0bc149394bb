"""
One order book of one symbol at one depth, by Bybit's rules.

Decides what a snapshot or delta does to the book and which messages make it untrustworthy. Knows
no sockets, clocks or symbols; what happens after a doubt (stale, resync) is the manager's.

Rules: https://bybit-exchange.github.io/docs/v5/websocket/public/orderbook, and for ``u`` (here
``update_id``), measured: every delta of a topic is the previous update plus exactly one.

Sizes are in a dictionary by price. A delta touches the dictionary and the best price alone; the
prices are sorted when somebody reads them, some ten times a second. A message of 9 changes costs
2.3 us; with inserted and deleted prices put into a ``SortedList`` at once it was 3.0.

The errors are named for what happened to the book, without the suffix ``Error``.
"""
# ruff: noqa: N818

from collections.abc import Callable, Iterable
from math import inf, isfinite
from typing import ClassVar, Literal

from bybit_pipeline.shared.wire.messages import BookMessage, Level

SideName = Literal["bid", "ask"]

InvalidReason = Literal[
    "gap", "duplicate", "desync", "crossed", "too_deep", "bad_levels", "wrong_depth"
]


class BookError(Exception):
    """A message that could not be applied; the book is not live."""


class BookInvalid(BookError):
    """A message after which the book cannot be trusted."""

    reason: ClassVar[InvalidReason]


class NoSnapshot(BookError):
    """A delta before the first snapshot, or after a doubt: there is nothing to apply it to."""

    def __init__(self, received: int) -> None:
        self.received = received
        super().__init__(f"delta {received} without a snapshot before it")


class SequenceGap(BookInvalid):
    """Updates are missing: ``received`` is greater than ``expected``."""

    reason = "gap"

    def __init__(self, expected: int, received: int) -> None:
        self.expected = expected
        self.received = received
        super().__init__(f"expected update {expected}, received {received}")


class DuplicateUpdate(BookInvalid):
    """An update that was applied before, or one older than the book."""

    reason = "duplicate"

    def __init__(self, last: int, received: int) -> None:
        self.last = last
        self.received = received
        super().__init__(f"received update {received} after update {last}")


class Desync(BookInvalid):
    """A delta where the exchange only sends snapshots: update 1 (a restart), or at level 1."""

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
    """A side holds more levels than the stream carries."""

    reason = "too_deep"

    def __init__(self, side: SideName, levels: int, depth: int) -> None:
        self.side = side
        self.levels = levels
        self.depth = depth
        super().__init__(f"{levels} levels on the {side} side of a book of depth {depth}")


class BadLevels(BookInvalid):
    """Levels that no book has: duplicate, unsorted, not positive, not finite or not pairs."""

    reason = "bad_levels"

    def __init__(self, side: SideName, text: str) -> None:
        self.side = side
        super().__init__(f"{side} levels: {text}")


class WrongDepth(BookInvalid):
    """A message of another depth; two depths of a symbol never make one book."""

    reason = "wrong_depth"

    def __init__(self, expected: int, received: int) -> None:
        self.expected = expected
        self.received = received
        super().__init__(f"a message of depth {received} for a book of depth {expected}")


class BookSide:
    """
    One side of a book.

    ``sizes`` maps prices to sizes, ``prices`` is sorted ascending on both sides, ``best`` is the
    best price, or ``empty`` (0 for bids, infinity for asks) when there is no level.
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
        """The prices, ascending; to be read only."""
        if not self._is_sorted:
            self._prices = sorted(self.sizes)
            self._is_sorted = True
        return self._prices

    def replace(self, levels: tuple[Level, ...]) -> None:
        """Hold exactly these levels, which come best first."""
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
        """Set the size of each level; zero deletes. O(1) a level, O(n) when the best one goes."""
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
        """At most ``count`` prices, best first."""
        if self.name == "ask":
            return self.prices[: max(count, 0)]
        return self.prices[: -count - 1 : -1] if count > 0 else []

    def levels(self, count: int) -> list[Level]:
        """At most ``count`` levels, best first."""
        prices = self.best_prices(count)
        return list(zip(prices, map(self.sizes.__getitem__, prices), strict=True))


class OrderBook:
    """
    The book of one stream; ``apply`` its messages in order.

    Between a message that raised and the next good snapshot ``is_live`` is False and the book
    reads as empty, also when what was raised is a bug.

    Args:
        depth: Levels a side of the stream that is followed.

    Attributes:
        is_live: Whether the levels can be trusted.
        last: The last message that was applied; None before the first. It survives a doubt, so
            that a gap can name the numbers before it.
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
        Take in one message; a snapshot replaces the book whenever it comes.

        At depth 1 every message is a snapshot, and the same ``update_id`` with the same levels
        again says that the venue is alive and nothing changed.

        Raises:
            NoSnapshot: If a delta comes to a book that is not live.
            SequenceGap: If updates are missing before this one.
            DuplicateUpdate: If the update is not newer than the book.
            Desync: If a delta carries ``update_id`` 1 or comes at depth 1.
            WrongDepth: If the message is of another depth.
            BadLevels: If the levels are malformed.
            TooDeep: If a side holds more levels than the stream's depth.
            CrossedBook: If the best bid is not below the best ask afterwards.
        """
        was_live, self.is_live = self.is_live, False
        depth, update_id = self.depth, message.update_id
        bid_side, ask_side = self.bid_side, self.ask_side
        if message.depth != depth:
            raise WrongDepth(depth, message.depth)
        if message.is_snapshot:
            bid_side.replace(message.bids)
            ask_side.replace(message.asks)
        elif was_live and update_id == self.update_id + 1 and update_id > 1 and depth > 1:
            if message.bids:
                bid_side.merge(message.bids)
            if message.asks:
                ask_side.merge(message.asks)
        else:
            raise self._refusal(update_id, was_live)
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
        """Trust this book no longer; only a snapshot makes it live again."""
        self.is_live = False

    @property
    def absent_deletes(self) -> int:
        """Deletions of prices that were not held; Bybit is known to send them, rarely."""
        return self.bid_side.absent_deletes + self.ask_side.absent_deletes

    @property
    def best_bid(self) -> Level | None:
        """The best bid; None when the book is not live or has no bids."""
        side = self.bid_side
        return (side.best, side.sizes[side.best]) if self.is_live and side.sizes else None

    @property
    def best_ask(self) -> Level | None:
        """The best ask; None when the book is not live or has no asks."""
        side = self.ask_side
        return (side.best, side.sizes[side.best]) if self.is_live and side.sizes else None

    def bids(self, count: int | None = None) -> list[Level]:
        """The best ``count`` bids (all by default), best first; empty when not live."""
        return self.bid_side.levels(self._count(count)) if self.is_live else []

    def asks(self, count: int | None = None) -> list[Level]:
        """The best ``count`` asks (all by default), best first; empty when not live."""
        return self.ask_side.levels(self._count(count)) if self.is_live else []

    def _count(self, count: int | None) -> int:
        return self.depth if count is None else min(count, self.depth)

    def _refusal(self, received: int, was_live: bool) -> BookError:
        """Why this delta cannot be applied."""
        if not was_live:
            return NoSnapshot(received)
        if self.depth == 1:
            return Desync("a delta on a level 1 stream", received)
        if received == 1:
            return Desync("a delta with the number of a restart", received)
        if received <= self.update_id:
            return DuplicateUpdate(self.update_id, received)
        return SequenceGap(self.update_id + 1, received)
