"""
How long to wait before the next attempt to connect. Pure: the random numbers come in.

Bybit bans addresses that reconnect in a tight loop, and counts at most 500 new connections in 5
minutes. One connector that waits 5 s and longer makes at most 60 attempts in that time.
"""

from random import Random

JITTER_RATIO = 0.2


class Backoff:
    """
    Delays that double from ``initial_s`` to ``maximum_s``, each shortened by up to a fifth.

    The shortening is random, so that connectors that lost their sockets together do not come back
    together.
    """

    def __init__(self, initial_s: float, maximum_s: float, rng: Random) -> None:
        self._initial_s = initial_s
        self._maximum_s = maximum_s
        self._rng = rng
        self._next_s = initial_s

    def delay_s(self) -> float:
        """Seconds to wait before the next attempt; each call asks for a longer wait."""
        delay = self._next_s
        self._next_s = min(self._maximum_s, delay * 2)
        return delay * (1 - JITTER_RATIO * self._rng.random())

    def reset(self) -> None:
        """Start over with the shortest wait; call it when data flows again."""
        self._next_s = self._initial_s
