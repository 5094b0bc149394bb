"""
Pings, and the detection of dead and silent connections. Pure: time comes in, in monotonic seconds.

Decides when to send Bybit's ping, and when to give up a connection: because the pong did not arrive
in time (``dead_peer``), or because pongs arrive but no data (``silence``).
"""

import math
from typing import Literal

from bybit_pipeline.shared.settings.config import ConnectorConfig


class Keepalive:
    """
    Pings and silence of one connection after another.

    Args:
        settings: ``ping_interval_s``, ``pong_timeout_s`` and ``silence_timeout_s`` count.
        silence_matters: False if a connection without data is never given up.
    """

    def __init__(self, settings: ConnectorConfig, *, silence_matters: bool = True) -> None:
        self.pings = 0
        """Pings sent, over all connections."""
        self.rtt_s: float | None = None
        """Round-trip time of the last ping that was answered."""
        self._settings = settings
        self._silence_matters = silence_matters
        self._ping_due = math.inf
        self._ping_sent = math.inf
        """When the unanswered ping was sent; infinite if there is none."""
        self._messages = 0
        self._message_at = 0.0
        """When ``_messages`` was last seen to change."""

    def on_connected(self, now: float) -> None:
        """Start with a ping at once."""
        self._ping_due, self._ping_sent = now, math.inf
        self._message_at = now

    def on_pong(self, now: float) -> float | None:
        """The round-trip time in seconds; None if no ping was unanswered."""
        if self._ping_sent == math.inf:
            return None
        self.rtt_s = now - self._ping_sent
        self._ping_sent = math.inf
        return self.rtt_s

    def failure(
        self, now: float, *, messages: int, expects_data: bool
    ) -> Literal["dead_peer", "silence"] | None:
        """
        Why the connection must be given up, if it must.

        Args:
            now: The present time.
            messages: Data messages received so far, over all connections.
            expects_data: Whether anything is subscribed.
        """
        if now - self._ping_sent > self._settings.pong_timeout_s:
            return "dead_peer"
        if messages != self._messages or not expects_data:
            self._messages, self._message_at = messages, now
        elif self._silence_matters and now - self._message_at > self._settings.silence_timeout_s:
            return "silence"
        return None

    def take_ping(self, now: float) -> str | None:
        """The id of the ping to send now; None if none is due."""
        if now < self._ping_due or self._ping_sent != math.inf:
            return None
        self.pings += 1
        self._ping_sent = now
        self._ping_due = now + self._settings.ping_interval_s
        return f"ping-{self.pings}"
