"""
The exchange's own order book, and the window of it that one topic publishes.

``BookSide`` is one side, ``ExchangeBook`` both sides, and ``BookWindow`` the top ``depth`` levels
as the subscribers of one topic know them. Prices are ticks, sizes are lots. Pure: no time, no text,
no sockets.

The *key* of a level is its price in ticks on the ask side and the negative of it on the bid side.
The best key is therefore the smallest on both sides, and one implementation serves both.
"""

from bisect import bisect_left, bisect_right, insort

LevelChange = tuple[int, int]
"""``(ticks, lots)`` of one level; zero lots if the level is gone."""


class BookSide:
    """One side of a book: resting lots by key, and the keys sorted best first."""

    __slots__ = ("keys", "lots", "sign", "watchers")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        """1 for asks, -1 for bids: a key times the sign is a price in ticks."""
        self.keys: list[int] = []
        self.lots: dict[int, int] = {}
        self.watchers: list[set[int]] = []
        """Sets that collect the changed keys, one for every window."""

    @property
    def best(self) -> int | None:
        """Best price in ticks; None if the side is empty."""
        return self.keys[0] * self.sign if self.keys else None

    def put(self, key: int, lots: int) -> None:
        """Set the level at ``key`` to ``lots``; zero removes it."""
        if lots > 0:
            if key not in self.lots:
                insort(self.keys, key)
            self.lots[key] = lots
        elif self.lots.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]
        for changed in self.watchers:
            changed.add(key)

    def levels(self, depth: int) -> list[LevelChange]:
        """Return the best ``depth`` levels as ``(ticks, lots)``, best first."""
        return [(key * self.sign, self.lots[key]) for key in self.keys[:depth]]


class ExchangeBook:
    """
    Both sides of a book, with the time and the sequence number of its last change.

    The caller changes the sides directly and then calls ``stamp``.
    """

    __slots__ = ("asks", "bids", "match_ts_ms", "sequence")

    def __init__(self, *, match_ts_ms: int, sequence: int) -> None:
        self.bids = BookSide(-1)
        self.asks = BookSide(1)
        self.match_ts_ms = match_ts_ms
        self.sequence = sequence

    def stamp(self, match_ts_ms: int, sequence: int) -> None:
        """Record the time and sequence number of the last change."""
        self.match_ts_ms = match_ts_ms
        self.sequence = sequence

    def check(self) -> None:
        """
        Verify the invariants of the book.

        Raises:
            AssertionError: If the book is crossed or locked, or a side is out of order.
        """
        for side in (self.bids, self.asks):
            assert sorted(side.lots) == side.keys
            assert all(lots > 0 for lots in side.lots.values())
        if self.bids.keys and self.asks.keys:
            assert -self.bids.keys[0] < self.asks.keys[0], "crossed"


class SideWindow:
    """
    The top ``depth`` levels of one side as last published.

    ``changes`` compares the side with them in O(levels changed), not O(depth): the only keys that
    can differ are those that the side reported as changed, and those between the old and the new
    end of the window.
    """

    __slots__ = ("changed", "depth", "edge", "published", "side")

    def __init__(self, side: BookSide, depth: int) -> None:
        self.side = side
        self.depth = depth
        self.changed: set[int] = set()
        side.watchers.append(self.changed)
        self.edge = self._edge()
        self.published = {key: side.lots[key] for key in side.keys[:depth]}

    def close(self) -> None:
        """Stop watching the side."""
        self.side.watchers = [w for w in self.side.watchers if w is not self.changed]

    def _edge(self) -> int | None:
        """Return the last key of a full window; None while every level fits."""
        keys = self.side.keys
        return keys[self.depth - 1] if len(keys) >= self.depth else None

    def changes(self) -> list[LevelChange]:
        """Return the changes since the last call, best price first, and mark them as published."""
        if not self.changed:
            return []
        keys, lots, published = self.side.keys, self.side.lots, self.published
        old, new = self.edge, self._edge()
        candidates = self.changed
        if old != new:
            start = len(keys) if old is None else bisect_right(keys, old)
            end = len(keys) if new is None else bisect_right(keys, new)
            candidates = candidates.union(keys[min(start, end) : max(start, end)])
        changes = []
        for key in sorted(candidates):
            now = lots.get(key, 0) if new is None or key <= new else 0
            if now != published.get(key, 0):
                changes.append((key * self.side.sign, now))
                if now:
                    published[key] = now
                else:
                    del published[key]
        self.edge = new
        self.changed.clear()
        return changes

    def levels(self) -> list[LevelChange]:
        """Return the published levels, best first."""
        return [(key * self.side.sign, self.published[key]) for key in sorted(self.published)]


class BookWindow:
    """Both sides of a book down to one depth, as the subscribers of one topic know them."""

    __slots__ = ("asks", "bids")

    def __init__(self, book: ExchangeBook, depth: int) -> None:
        self.bids = SideWindow(book.bids, depth)
        self.asks = SideWindow(book.asks, depth)

    def close(self) -> None:
        """Stop watching the book."""
        self.bids.close()
        self.asks.close()

    @property
    def is_touched(self) -> bool:
        """True if the book has changed since the last ``changes``, also outside the window."""
        return bool(self.bids.changed or self.asks.changed)
