"""
Silent workers: which workers no longer prove that they publish. Pure.

Every worker sends heartbeats on the way of its metrics. The newest one that the forwarder has
handled says up to when it has passed on everything from that worker. This covers a hung worker, a
hung forwarder and a queue of old messages alike.
"""

from typing import NamedTuple

from bybit_pipeline.shared.freshness.link import HEARTBEAT_LATE_S

START_S = 1.0
"""
Time after the start in which a worker without a heartbeat counts as silent: it may have sent its
messages long before, to the predecessor of this forwarder.
"""


class SilentWorker(NamedTuple):
    """A worker that has become silent, and for how long."""

    name: str
    silent_s: float


class SilentWorkers:
    """
    The time of the newest heartbeat of every worker.

    Args:
        now: The present time, in seconds of the monotonic clock of the machine.
    """

    def __init__(self, now: float) -> None:
        self.names: set[str] = set()
        """The workers that are silent."""
        self._started = now
        self._sent_s: dict[str, float] = {}

    def note(self, name: str, sent_s: float, now: float) -> bool:
        """
        Note a heartbeat; return True if it ends a silence.

        Args:
            name: Name of the worker.
            sent_s: When it was sent.
            now: The present time.
        """
        self._sent_s[name] = max(sent_s, self._sent_s.get(name, sent_s))
        if name in self.names and now - sent_s <= HEARTBEAT_LATE_S:
            self.names.discard(name)
            return True
        return False

    def any_unproven(self, now: float) -> bool:
        """Return False if every worker is known to publish."""
        return bool(self.names) or now - self._started < START_S

    def is_unproven(self, name: str) -> bool:
        """Return True if messages of a worker may be old, while ``any_unproven``."""
        return name in self.names or name not in self._sent_s

    def check(self, now: float) -> list[SilentWorker]:
        """Return the workers that have become silent since the last call."""
        new = [
            SilentWorker(name, now - sent_s)
            for name, sent_s in self._sent_s.items()
            if now - sent_s > HEARTBEAT_LATE_S and name not in self.names
        ]
        self.names.update(worker.name for worker in new)
        return new
