"""Trades that are newer than the book, kept for walls that are not found yet."""

from collections import deque
from collections.abc import Iterator

from bybit_pipeline.shared.wire.messages import Trade

RECENT_MESSAGES = 256
"""Trades messages kept; more than usually arrive between two searches."""
TRADE_IDS = 4096
"""Ids of trades at a wall's price that are remembered, so that a repeat is not booked twice."""


class RecentTrades:
    """
    The last trades messages that the book may not show yet, and the ids that were booked.

    Bounded: up to ``RECENT_MESSAGES`` messages and ``TRADE_IDS`` ids.
    """

    __slots__ = ("_ids", "_lost_until_ms", "_messages", "append")

    def __init__(self) -> None:
        self._messages: deque[tuple[Trade, ...]] = deque(maxlen=RECENT_MESSAGES)
        self._ids: dict[str, None] = {}
        self._lost_until_ms = 0
        self.append = self._messages.append
        """Keep the trades of one message."""

    def clear(self) -> None:
        """Forget everything."""
        self._messages.clear()
        self._ids.clear()
        self._lost_until_ms = 0

    def note_lost(self, until_ms: int) -> None:
        """Note that trades before ``until_ms`` are missing."""
        self._lost_until_ms = until_ms

    def is_booked(self, trade_id: str) -> bool:
        """Return True if this trade was booked before."""
        return trade_id in self._ids

    def note_booked(self, trade_id: str) -> None:
        """Remember that this trade was booked."""
        self._ids[trade_id] = None
        if len(self._ids) > TRADE_IDS:
            del self._ids[next(iter(self._ids))]

    def after(self, match_ms: int) -> Iterator[Trade]:
        """Yield each trade that is newer than ``match_ms`` once, in order of arrival."""
        seen: set[str] = set()
        for trades in self._messages:
            for trade in trades:
                if trade.match_ts_ms > match_ms and trade.trade_id not in seen:
                    seen.add(trade.trade_id)
                    yield trade

    def are_incomplete(self, since_ms: int) -> bool:
        """Return True if trades after ``since_ms`` were lost, or were too many to keep."""
        if since_ms < self._lost_until_ms:
            return True
        messages = self._messages
        is_full = len(messages) == RECENT_MESSAGES
        return is_full and (not messages[0] or messages[0][0].match_ts_ms > since_ms)

    def forget_until(self, match_ms: int) -> None:
        """Forget trades that the book of this match time already shows."""
        messages = self._messages
        while messages and (not messages[0] or messages[0][-1].match_ts_ms <= match_ms):
            messages.popleft()
