"""
Link freshness: whether everything from the exchange to this worker is proven to work. Pure.

A connector sends heartbeats on the same way as its data. The newest one that a worker has handled
says up to when the worker has handled all data, and when the exchange was last heard. This covers
every cause alike: a hung connector, a slow or hung worker, a queue of old messages after a pause,
and an exchange that is silent while its connection stays open.
"""

from typing import Literal

from bybit_pipeline.shared.wire.messages import HeartbeatMessage

HEARTBEAT_LATE_S = 1.0
"""Age of the newest heartbeat from which on the numbers are not trusted."""
UNHEARD_S = 1.9
"""Time since the exchange was last heard from which on the numbers are not trusted."""

LinkDoubt = Literal["process_silent", "silent"]
"""
Reason not to trust the numbers of a link. ``process_silent``: the connector or this process hangs
or lags behind. ``silent``: nothing was heard from the exchange, not even the answer to a ping.
"""


class LinkFreshness:
    """
    The proof that one connector and the way from it work.

    Attributes:
        announced: The doubt that was last acted on.
        heard_ts_ns: Time when the exchange was last heard, wall clock; None if it was not heard on
            the present connection.
    """

    __slots__ = ("_heard_s", "_sent_s", "announced", "heard_ts_ns")

    def __init__(self) -> None:
        self.announced: LinkDoubt | None = None
        self._sent_s: float | None = None
        self._heard_s = 0.0
        self.heard_ts_ns: int | None = None

    def note(self, heartbeat: HeartbeatMessage) -> None:
        """Note a heartbeat that was handled."""
        self._sent_s = heartbeat.sent_s
        self._heard_s = heartbeat.sent_s - heartbeat.silent_s
        if heartbeat.recv_ts_ns:
            self.heard_ts_ns = heartbeat.recv_ts_ns

    def hear(self, recv_ts_ns: int) -> None:
        """Note that the exchange was heard, as its answer to a request shows."""
        self.heard_ts_ns = max(recv_ts_ns, self.heard_ts_ns or 0)

    def forget(self) -> None:
        """Forget a connection that has ended: its topics are stale for that reason."""
        self._sent_s = self.heard_ts_ns = None

    def doubt(self, now: float) -> LinkDoubt | None:
        """Return the reason not to trust the numbers of this link; None if there is none."""
        if self._sent_s is None:
            return None
        if now - self._sent_s > HEARTBEAT_LATE_S:
            return "process_silent"
        return "silent" if now - self._heard_s > UNHEARD_S else None

    def unproven_s(self, now: float) -> float | None:
        """Return the time since the last proof; None if there was no heartbeat."""
        if self._sent_s is None:
            return None
        is_late = now - self._sent_s > HEARTBEAT_LATE_S
        return max(0.0, now - (self._sent_s if is_late else self._heard_s))
