"""
The exchange's own order book, and the window of it that one topic shows.

``Ladder`` is one side, ``Book`` both, ``Window`` the top ``depth`` levels as the subscribers of
one topic know them. Prices are ticks, sizes are lots. Pure: no time, no text, no sockets.

A ladder's *key* is the price in ticks on the ask side and its negative on the bid side, so that on
both sides the best key is the smallest and everything is written once.
"""

from bisect import bisect_left, bisect_right, insort

Change = tuple[int, int]
"""``(ticks, lots)`` of one level; zero lots when it is gone."""


class Ladder:
    """One side of a book: resting lots by key, keys sorted best first."""

    __slots__ = ("keys", "lots", "sign", "watchers")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.keys: list[int] = []
        self.lots: dict[int, int] = {}
        self.watchers: list[set[int]] = []

    @property
    def best(self) -> int | None:
        """Best price in ticks, None when the side is empty."""
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

    def levels(self, depth: int) -> list[Change]:
        """The best ``depth`` levels as ``(ticks, lots)``, best first."""
        return [(key * self.sign, self.lots[key]) for key in self.keys[:depth]]


class Book:
    """
    Both sides, with the time and the sequence number of the last change.

    Whoever changes the sides calls ``stamp`` afterwards.
    """

    __slots__ = ("asks", "bids", "match_ts_ms", "sequence")

    def __init__(self, *, match_ts_ms: int, sequence: int) -> None:
        self.bids = Ladder(-1)
        self.asks = Ladder(1)
        self.match_ts_ms = match_ts_ms
        self.sequence = sequence

    def stamp(self, match_ts_ms: int, sequence: int) -> None:
        """Note when the matching engine last changed this book."""
        self.match_ts_ms = match_ts_ms
        self.sequence = sequence

    def check(self) -> None:
        """
        Verify what must always hold.

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
    The top ``depth`` levels of one ladder as last published.

    ``changes`` compares the ladder with that and costs O(levels changed), not O(depth): only keys
    the ladder reported, and keys between the old and the new end of the window, can differ.
    """

    __slots__ = ("changed", "depth", "edge", "ladder", "published")

    def __init__(self, ladder: Ladder, depth: int) -> None:
        self.ladder = ladder
        self.depth = depth
        self.changed: set[int] = set()
        ladder.watchers.append(self.changed)
        self.edge = self._edge()
        self.published = {key: ladder.lots[key] for key in ladder.keys[:depth]}

    def close(self) -> None:
        """Stop watching the ladder."""
        self.ladder.watchers = [w for w in self.ladder.watchers if w is not self.changed]

    def _edge(self) -> int | None:
        """The last key of a full window, None while every level fits."""
        keys = self.ladder.keys
        return keys[self.depth - 1] if len(keys) >= self.depth else None

    def changes(self) -> list[Change]:
        """What a subscriber must apply to be up to date, best price first; publishes it."""
        if not self.changed:
            return []
        keys, lots, published = self.ladder.keys, self.ladder.lots, self.published
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
                changes.append((key * self.ladder.sign, now))
                if now:
                    published[key] = now
                else:
                    del published[key]
        self.edge = new
        self.changed.clear()
        return changes

    def levels(self) -> list[Change]:
        """The published levels, best first."""
        return [(key * self.ladder.sign, self.published[key]) for key in sorted(self.published)]


class Window:
    """Both sides of a book to one depth, as the subscribers of one topic know them."""

    __slots__ = ("asks", "bids")

    def __init__(self, book: Book, depth: int) -> None:
        self.bids = SideWindow(book.bids, depth)
        self.asks = SideWindow(book.asks, depth)

    def close(self) -> None:
        """Stop watching the book."""
        self.bids.close()
        self.asks.close()

    @property
    def is_touched(self) -> bool:
        """Whether anything changed since the last ``changes``, perhaps outside the window."""
        return bool(self.bids.changed or self.asks.changed)
