"""Trade ids seen lately, in bounded memory, so that no trade counts twice."""


class RecentIds:
    """
    Remembers every id for at least ``horizon_ms`` of exchange time, unless they come too fast.

    Two generations: ids go into the young one, and when that is a horizon old or full, it becomes
    the old one and the former old one is forgotten. A check costs two set look-ups, and memory is
    at most ``2 * max_ids`` ids (some 150 bytes each).
    """

    def __init__(self, horizon_ms: int, max_ids: int) -> None:
        self._horizon_ms = horizon_ms
        self._max_ids = max_ids
        self._young: set[str] = set()
        self._old: set[str] = set()
        self._since_ms = 0

    def __len__(self) -> int:
        """Number of ids remembered."""
        return len(self._young) + len(self._old)

    def add(self, trade_id: str, now_ms: int) -> bool:
        """Remember an id; False when it was remembered already."""
        if trade_id in self._young or trade_id in self._old:
            return False
        if now_ms - self._since_ms >= self._horizon_ms or len(self._young) >= self._max_ids:
            self._old, self._young, self._since_ms = self._young, set(), now_ms
        self._young.add(trade_id)
        return True
