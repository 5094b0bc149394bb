"""
Silent workers: which workers no longer prove that they publish. Pure.

Every worker sends heartbeats on the way of its metrics. The newest one that the forwarder has
handled says up to when it has passed on everything from that worker. This covers a hung worker, a
hung forwarder and a queue of old messages alike.
"""

from typing import NamedTuple

LATE_S = 1.0
"""Age of the newest heartbeat from which on a worker is silent."""


class SilentWorker(NamedTuple):
    """A worker that has become silent, and for how long."""

    name: str
    silent_s: float


class SilentWorkers:
    """The time of the newest heartbeat of every worker."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        """The workers that are silent."""
        self._sent_s: dict[str, float] = {}

    def note(self, name: str, sent_s: float, now: float) -> bool:
        """
        Note a heartbeat; return True if it ends a silence.

        Args:
            name: Name of the worker.
            sent_s: When it was sent, by the monotonic clock of the machine.
            now: Seconds of the same clock.
        """
        self._sent_s[name] = max(sent_s, self._sent_s.get(name, sent_s))
        if name in self.names and now - sent_s <= LATE_S:
            self.names.discard(name)
            return True
        return False

    def check(self, now: float) -> list[SilentWorker]:
        """Return the workers that have become silent since the last call."""
        new = [
            SilentWorker(name, now - sent_s)
            for name, sent_s in self._sent_s.items()
            if now - sent_s > LATE_S and name not in self.names
        ]
        self.names.update(worker.name for worker in new)
        return new
