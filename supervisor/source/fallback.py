"""
When ``source = "auto"`` gives up on the exchange and takes the simulator. Pure.

Falling back happens at most once, at the start, and only if no connector has ever had a live
message. Once one has, a lost link means reconnecting, never simulated data.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Link(NamedTuple):
    """What one connector that is up has said, on the caller's monotonic clock."""

    last_heard: float
    """Time of its last message."""
    has_message: bool
    """True if it has had a message of the exchange."""


class FallbackRule:
    """
    Decides once.

    Args:
        is_auto: False if the source is fixed: then never.
        after_s: How long the exchange may be unreachable, from the first connector's ``ready``.

    Attributes:
        is_armed: True as long as falling back is still possible.
    """

    def __init__(self, *, is_auto: bool, after_s: float) -> None:
        self.is_armed = is_auto
        self._after_s = after_s
        self._since: float | None = None

    def is_due(self, now: float, links: Sequence[Link]) -> bool:
        """
        True once, when it is time to fall back.

        Every connector must have been heard of after the time is up, so that a live message that
        arrived a moment ago counts.
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
