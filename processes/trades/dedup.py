"""Trade ids seen lately, in bounded memory, so that no trade counts twice."""

import sys
from collections import deque

SLICES = 32
"""Slices of the horizon, by which ids are forgotten: what is kept too long is one of them."""

_EMPTY_BYTES = sys.getsizeof(set())
_PLACE_BYTES = 16
_PLACES_USED = 0.6
"""CPython gives a set a larger table when so much of it is used, by removed elements as well."""


class RecentIds:
    """
    Remembers every id for at least ``horizon_ms`` of exchange time, unless they come too fast.

    All ids are in one set, so that a check is one look-up. They are also in lists, each with those
    of a slice of the horizon; when a slice is a horizon old its ids are forgotten. So what is kept
    no longer grows when the horizon and a slice are over. At most ``2 * max_ids`` ids are kept
    (some 140 bytes each), and as they are: a digest might take one trade for another.
    """

    def __init__(self, horizon_ms: int, max_ids: int) -> None:
        self._horizon_ms = horizon_ms
        self._slice_ms = -(-horizon_ms // SLICES)
        self._slice_ids = max(1, 2 * max_ids // (SLICES + 1))
        self._ids: set[str] = set()
        self._young: list[str] = []
        self._old: deque[tuple[int, list[str]]] = deque()
        """Each with the time of its last id."""
        self._ends_ms = 0
        self._removed = 0
        """Ids taken out of the set since it was last packed."""

    def __len__(self) -> int:
        """Number of ids remembered."""
        return len(self._ids)

    def add(self, trade_id: str, now_ms: int) -> bool:
        """Remember an id; False when it was remembered already. The time never goes back."""
        ids = self._ids
        if trade_id in ids:
            return False
        ids.add(trade_id)
        young = self._young
        young.append(trade_id)
        if now_ms >= self._ends_ms or len(young) >= self._slice_ids:
            self._end_slice(now_ms)
        return True

    def _end_slice(self, now_ms: int) -> None:
        """Begin the next slice, and forget those that are a horizon old or too many."""
        young, self._young, self._ends_ms = self._young, [], now_ms + self._slice_ms
        old, floor_ms = self._old, now_ms - self._horizon_ms
        while old and (len(old) == SLICES or old[0][0] < floor_ms):
            _, oldest = old.popleft()
            self._ids.difference_update(oldest)
            self._removed += len(oldest)
        old.append((now_ms, young))
        self._pack_before(2 * len(young))

    def _pack_before(self, coming: int) -> None:
        """
        Copy the set when so many more would not fit.

        A copy has 2 to 4 places an id. A set that grows by itself, and with removed elements that
        is for ever, takes 4 to 8.
        """
        places = (sys.getsizeof(self._ids) - _EMPTY_BYTES) // _PLACE_BYTES
        if len(self._ids) + self._removed + coming > _PLACES_USED * places:
            self._ids, self._removed = set(self._ids), 0
