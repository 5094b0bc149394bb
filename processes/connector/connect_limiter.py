"""
When the next connection attempt may be made: the backoff after a failure, and the connect limiter.

Bybit bans addresses that reconnect in a tight loop, so the delay grows from failure to failure.

Bybit allows ``CONNECTIONS_MAX`` new connections in 5 minutes from one address, and all connectors
share the address. They do not talk to each other: the supervisor divides the total among them, and
each connector keeps within its quota in every period of 5 minutes. A connector that is killed and
restarted must not count from zero again: every attempt is written to a file before it is made.
"""

import json
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from random import Random

from bybit_pipeline.shared.bybit import CONNECTIONS_PERIOD_S, CONNECTOR_QUOTA
from bybit_pipeline.shared.files import replace_file

JITTER_RATIO = 0.2


class Backoff:
    """
    Delays that double from ``initial_s`` to ``maximum_s``, each shortened by up to a fifth.

    The shortening is random: connectors that lost their sockets together must not all reconnect at
    the same moment.
    """

    def __init__(self, initial_s: float, maximum_s: float, rng: Random) -> None:
        self._initial_s = initial_s
        self._maximum_s = maximum_s
        self._rng = rng
        self._next_s = initial_s

    def next_delay_s(self) -> float:
        """Seconds to wait before the next attempt; the delay of the call after this is longer."""
        delay = self._next_s
        self._next_s = min(self._maximum_s, delay * 2)
        return delay * (1 - JITTER_RATIO * self._rng.random())

    def reset(self) -> None:
        """Start again with the shortest delay; call it when data flows."""
        self._next_s = self._initial_s


class ConnectLimiter:
    """
    At most ``quota`` attempts in any period. Pure; times are of the monotonic clock, in seconds.

    Args:
        quota: Attempts allowed in a period, at least one. May be changed at any time.
        made: Times of earlier attempts. A time in the future is from before a reboot; it does not
            count.
        now: The present time.
        period_s: Length of the period.
    """

    def __init__(
        self,
        quota: int = CONNECTOR_QUOTA,
        made: Iterable[float] = (),
        *,
        now: float = 0.0,
        period_s: float = CONNECTIONS_PERIOD_S,
    ) -> None:
        self.quota = quota
        self._period_s = period_s
        self._made = deque(sorted(t for t in made if now - period_s < t <= now))

    @property
    def made(self) -> list[float]:
        """Times of the attempts that still count, oldest first."""
        return list(self._made)

    def wait_s(self, now: float) -> float:
        """Seconds until the next attempt is allowed; 0 if it is allowed now."""
        while self._made and self._made[0] <= now - self._period_s:
            self._made.popleft()
        quota = max(1, self.quota)
        if len(self._made) < quota:
            return 0.0
        return self._made[len(self._made) - quota] + self._period_s - now

    def spend(self, now: float) -> None:
        """Count an attempt that is made now."""
        self._made.append(now)


def read_attempts(path: Path) -> list[float]:
    """The times of attempts in a file; none if the file is missing or broken."""
    try:
        return [float(moment) for moment in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError):
        return []


def write_attempts(path: Path, made: Iterable[float]) -> None:
    """
    Write the times of attempts to a file, completely or not at all.

    Raises:
        OSError: If the file cannot be written.
    """
    replace_file(path, json.dumps([round(moment, 3) for moment in made]))
