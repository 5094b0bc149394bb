"""
How many connections this connector may open: its share of what Bybit allows one address.

Bybit counts at most 500 new connections in 5 minutes from one address, and all connectors have the
same address. They do not talk to each other: the supervisor tells each of them its share, which is
the total over the number of connectors, and each keeps to it by itself in every period of 5
minutes. A connector that is killed and started again would forget what it has used, so it writes
every attempt down before it makes it.
"""

import json
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from bybit_pipeline.shared.bybit import CONNECTIONS_PERIOD_S, CONNECTOR_QUOTA


class ConnectLimiter:
    """
    At most ``share`` attempts in any ``CONNECTIONS_PERIOD_S``. Pure; times are monotonic.

    Args:
        share: How many; at least one. May be changed at any time.
        made: Times of earlier attempts. Those of the future are of another boot and do not count.
        now: The present time, needed to judge ``made``.
    """

    def __init__(
        self, share: int = CONNECTOR_QUOTA, made: Iterable[float] = (), *, now: float = 0.0
    ) -> None:
        self.share = share
        self._made = deque(sorted(t for t in made if now - CONNECTIONS_PERIOD_S < t <= now))

    @property
    def made(self) -> list[float]:
        """When the attempts that still count were made, oldest first."""
        return list(self._made)

    def wait_s(self, now: float) -> float:
        """Seconds until one more attempt may be made; 0 if that is now."""
        while self._made and self._made[0] <= now - CONNECTIONS_PERIOD_S:
            self._made.popleft()
        if len(self._made) < max(1, self.share):
            return 0.0
        return self._made[len(self._made) - max(1, self.share)] + CONNECTIONS_PERIOD_S - now

    def spend(self, now: float) -> None:
        """Count an attempt that is made now."""
        self._made.append(now)


def read_attempts(path: Path) -> list[float]:
    """The attempts in a file; none if it is not there or not whole."""
    try:
        return [float(moment) for moment in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError):
        return []


def write_attempts(path: Path, made: Iterable[float]) -> None:
    """
    Write the attempts down, completely or not at all.

    Raises:
        OSError: If the file cannot be written.
    """
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps([round(moment, 3) for moment in made]))
    partial.replace(path)
