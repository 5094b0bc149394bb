"""
The delay before the next connection attempt. Pure: random numbers come in.

Bybit bans addresses that reconnect in a tight loop.
"""

from random import Random

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
