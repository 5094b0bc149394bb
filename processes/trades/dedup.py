"""The ids of recent trades, in bounded memory, so that no trade is counted twice."""

from collections import deque

SLICES = 32
"""Slices per horizon. Ids are removed by slice, so an id may stay one slice too long."""


class RecentIds:
    """
    The trade ids of at least the last ``horizon_ms`` of exchange time, unless there are too many.

    All ids are in one set, so a check is one look-up. Each slice of the horizon also lists its ids;
    they are removed when the slice is older than the horizon. At most ``2 * max_ids`` ids are held,
    about 200 bytes each. Ids are stored whole: a digest could take one trade for another.

    Args:
        horizon_ms: How long an id is remembered.
        max_ids: Number of ids that are remembered even if they arrive faster than expected.
    """

    def __init__(self, horizon_ms: int, max_ids: int) -> None:
        self._horizon_ms = horizon_ms
        self._slice_ms = -(-horizon_ms // SLICES)
        self._slice_ids = max(1, 2 * max_ids // (SLICES + 1))
        self._ids: set[str] = set()
        self._young: list[str] = []
        self._old: deque[tuple[int, list[str]]] = deque()
        """Finished slices, each with the time of its last id."""
        self._ends_ms = 0
        """Time at which the present slice ends."""

    def __len__(self) -> int:
        """Return the number of ids held."""
        return len(self._ids)

    def add(self, trade_id: str, now_ms: int) -> bool:
        """Add an id; return False if it is held already. ``now_ms`` must never go back."""
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
        """Start the next slice, and remove those that are too old or too many."""
        young, self._young, self._ends_ms = self._young, [], now_ms + self._slice_ms
        old, floor_ms = self._old, now_ms - self._horizon_ms
        while old and (len(old) == SLICES or old[0][0] < floor_ms):
            _, oldest = old.popleft()
            self._ids.difference_update(oldest)
        old.append((now_ms, young))
