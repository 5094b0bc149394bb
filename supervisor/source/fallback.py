"""
The rule of ``source = "auto"``: when to replace an unreachable exchange by the simulator. Pure.

The pipeline falls back at most once, at the start, and only if no connector has received a live
message. After a live message, a lost connection means reconnecting, never simulated data.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Link(NamedTuple):
    """The connection of one connector that is up, on the caller's monotonic clock."""

    last_heard: float
    """Time of the connector's last message to the supervisor."""
    has_message: bool
    """True if the connector has received data of the live exchange."""


class FallbackRule:
    """
    Decides when to fall back, once.

    Args:
        is_auto: False if the source is fixed, so that the rule never applies.
        after_s: Time that the exchange may be unreachable, from the first connector's ``ready``.

    Attributes:
        is_armed: True while falling back is still possible.
    """

    def __init__(self, *, is_auto: bool, after_s: float) -> None:
        self.is_armed = is_auto
        self._after_s = after_s
        self._since: float | None = None

    def is_due(self, now: float, links: Sequence[Link]) -> bool:
        """
        True once, when it is time to fall back.

        Every connector must have been heard of after the time is up, so that a live message of the
        last moment counts.
        """
        if not self.is_armed or not links:
            return False
        if any(link.has_message for link in links):
            self.is_armed = False
            return False
        if self._since is None:
            self._since = now
        deadline = self._since + self._after_s
        if now < deadline or any(link.last_heard < deadline for link in links):
            return False
        self.is_armed = False
        return True
