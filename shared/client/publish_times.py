"""
The time of publication of a message, on the reader's own clock. Pure.

A program that was suspended, or that read too slowly, receives old messages one after the other.
Their time of arrival says nothing, and the pipeline's wall clock may differ from ours. But the time
from publication to arrival, as read on both clocks, is smallest for a message that came straight
here. That of any other message is larger by its delay.
"""

from typing import Any

SPAN_S = 10.0
"""
Time, in seconds, over which the smallest difference is taken.

If the pipeline's clock is set back, all messages look late for up to twice as long.
"""


class PublishTimes:
    """Converts ``publish_ts_ns`` to the reader's monotonic clock."""

    def __init__(self) -> None:
        self._since = float("-inf")
        self._smallest = self._smallest_before = float("inf")

    def on_own_clock(self, publish_ts_ns: Any, now: float) -> float:
        """When a message that has just arrived was published; ``now`` if it does not say."""
        if not isinstance(publish_ts_ns, int):
            return now
        published_s = publish_ts_ns / 1e9
        difference = now - published_s
        # Not emptied by time alone: after a suspension the first message is an old one.
        if now - self._since >= SPAN_S:
            self._since = now
            self._smallest_before, self._smallest = self._smallest, difference
        else:
            self._smallest = min(self._smallest, difference)
        return min(now, published_s + min(self._smallest, self._smallest_before))
