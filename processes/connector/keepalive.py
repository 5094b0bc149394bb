"""
Pings, and the detection of dead and silent connections. Pure: time comes in, in monotonic seconds.

Decides when to send Bybit's ping, when a connection counts as proven to be current, and when to
give it up: because a pong did not arrive in time (``dead_peer``), or because pongs arrive but no
data (``silence``).

A ping is sent regularly, and at once when nothing has arrived for ``QUIET_S``. A busy connection
that then stays silent is dead: waiting for ``pong_timeout_s`` would leave old numbers standing.

The pong follows what the server had sent before. Time in which a long message arrives, or in which
messages are being handled, is therefore no time without a pong.
"""

import math
from typing import Literal, NamedTuple

from bybit_pipeline.shared.settings.config import ConnectorConfig

QUIET_S = 0.5
"""Silence of the whole connection after which a ping is sent."""
QUIET_PING_S = 1.0
"""Shortest interval between two such pings."""
PROOF_S = 1.0
"""A busy connection is dead if nothing arrives for this long after a ping."""
BUSY_PER_S = 1.0
"""Data messages per second from which on a connection is busy."""
RATE_TIME_S = 10.0
"""Time constant of the rate of data messages."""
HEARTBEAT_S = 0.2
"""Shortest interval between two heartbeats."""
PAUSE_S = 0.75
"""
Longest plausible time between two reads. After a longer one this process was stopped, and old
messages may wait in the buffers of the operating system.
"""


class Heartbeat(NamedTuple):
    """
    Proof that everything received up to ``read_s`` has been handed out.

    ``heard_ts_ns`` is the wall clock when the exchange was last heard; None before its first
    message. ``read_s`` and ``heard_s`` are times of the monotonic clock.
    """

    heard_ts_ns: int | None
    heard_s: float
    read_s: float


class Keepalive:
    """
    Pings, proof and silence of one connection after another.

    ``on_read``, ``on_handled`` and ``take_heartbeat`` belong to the thread that reads; the other
    methods need the caller's lock.

    Args:
        settings: ``ping_interval_s``, ``pong_timeout_s`` and ``silence_timeout_s`` count.
        silence_matters: False if a connection without data is never given up.

    Attributes:
        pings: Pings sent, over all connections.
        rtt_s: Round-trip time of the last ping that was answered.
        heard_at: Time when anything was last received.
    """

    def __init__(self, settings: ConnectorConfig, *, silence_matters: bool = True) -> None:
        self.pings = 0
        self.rtt_s: float | None = None
        self.heard_at = math.inf
        self._settings = settings
        self._silence_matters = silence_matters
        self._read_at = math.inf
        self._read_ts_ns = 0
        self._heard_ts_ns: int | None = None
        self._heartbeat_due = 0.0
        self._handled_at = math.inf
        self._is_handling = False
        self._is_within_message = False
        """True while a message has arrived in part."""
        self._hidden_s = 0.0
        """Time so far in which a pong that had arrived could not be seen."""
        self._checked_at = math.inf
        self._ping_due = math.inf
        self._pinged_at = -math.inf
        self._ping_sent = math.inf
        """When the unanswered ping was sent; infinite if there is none."""
        self._ping_hidden_s = 0.0
        """``_hidden_s`` when it was sent."""
        self._pongs_needed = 0
        """Pongs still to arrive before the connection is proven to be current."""
        self._messages = 0
        self._message_at = 0.0
        """When ``_messages`` was last seen to change."""
        self._rate = 0.0
        """Data messages per second."""

    def on_connected(self, now: float) -> None:
        """Start with a ping at once."""
        self._ping_due, self._ping_sent = now, math.inf
        self.heard_at = self._message_at = self._read_at = self._checked_at = now
        self._handled_at = now
        self._is_handling = self._is_within_message = False
        self._heard_ts_ns, self._heartbeat_due = None, now
        self._pongs_needed = 0
        self._rate = 0.0

    # -- the reading thread ----------------------------------------------------------------------

    def on_read(self, now: float, recv_ts_ns: int, *, has_messages: bool) -> None:
        """
        Note a read, whether or not anything had arrived; then call ``on_handled``.

        Args:
            now: The present time.
            recv_ts_ns: Wall clock of the last read that received anything.
            has_messages: True if a message is complete.
        """
        if now - self._read_at > PAUSE_S:
            # A pong passes through the same buffers as the data: the answer to a ping that is sent
            # from now on follows everything old. An unanswered ping may have its pong among it.
            self._pongs_needed = 1 if self._ping_sent == math.inf else 2
            self._ping_due = now
        if recv_ts_ns != self._read_ts_ns:
            self._read_ts_ns = recv_ts_ns
            if self._is_within_message:
                self._hidden_s += now - self._handled_at
            self._is_within_message = not has_messages
        self._read_at = now
        self._is_handling = True
        if has_messages:
            self.heard_at, self._heard_ts_ns = now, recv_ts_ns

    def on_handled(self, now: float) -> None:
        """Note that everything of the last read was handed out."""
        self._hidden_s += now - self._read_at
        self._handled_at = now
        self._is_handling = False

    def take_heartbeat(self) -> Heartbeat | None:
        """Return the heartbeat to send now, after ``on_handled``; None if none is due."""
        now = self._read_at
        if now < self._heartbeat_due or not self.is_current:
            return None
        self._heartbeat_due = now + HEARTBEAT_S
        return Heartbeat(self._heard_ts_ns, self.heard_at, now)

    @property
    def is_current(self) -> bool:
        """False after a pause, until it is proven that all messages of that time were read."""
        return not self._pongs_needed

    # -- with the caller's lock ------------------------------------------------------------------

    def on_pong(self, now: float) -> float | None:
        """Return the round-trip time in seconds; None if no ping was unanswered."""
        if self._ping_sent == math.inf:
            return None
        self.rtt_s = now - self._ping_sent
        self._ping_sent = math.inf
        if self._pongs_needed:
            self._pongs_needed -= 1
            if self._pongs_needed:
                self._ping_due = now
        return self.rtt_s

    def failure(
        self, now: float, *, messages: int, expects_data: bool
    ) -> Literal["dead_peer", "silence"] | None:
        """
        Return the reason for which the connection must be given up; None if there is none.

        Call it several times a second.

        Args:
            now: The present time.
            messages: Data messages received so far, over all connections.
            expects_data: True if anything is subscribed.
        """
        elapsed_s, self._checked_at = now - self._checked_at, now
        if elapsed_s > PAUSE_S:  # this process was stopped: what has arrived is not read yet
            self._ping_sent += elapsed_s
            self._message_at += elapsed_s
        if elapsed_s > 0:
            weight = 1.0 - math.exp(-elapsed_s / RATE_TIME_S)
            self._rate += ((messages - self._messages) / elapsed_s - self._rate) * weight
        hidden_s = self._hidden_s - self._ping_hidden_s
        if self._is_handling:
            hidden_s += now - self._read_at
        waited_s = now - self._ping_sent - hidden_s
        if waited_s > self._settings.pong_timeout_s:
            return "dead_peer"
        if waited_s > PROOF_S and self.heard_at < self._ping_sent and self._rate >= BUSY_PER_S:
            return "dead_peer"
        if messages != self._messages or not expects_data:
            self._messages, self._message_at = messages, now
        elif self._silence_matters and now - self._message_at > self._settings.silence_timeout_s:
            return "silence"
        return None

    def take_ping(self, now: float) -> str | None:
        """Return the id of the ping to send now; None if none is due."""
        is_quiet = now - self.heard_at >= QUIET_S and now - self._pinged_at >= QUIET_PING_S
        if self._ping_sent != math.inf or not (is_quiet or now >= self._ping_due):
            return None
        self.pings += 1
        self._ping_sent = self._pinged_at = now
        self._ping_hidden_s = self._hidden_s
        self._ping_due = now + self._settings.ping_interval_s
        return f"ping-{self.pings}"
