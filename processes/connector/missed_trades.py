"""
Announcements of trades that may be missing. Pure: time comes in, in monotonic seconds.

A message that cannot be read may have held trades. The numbers of a book show that a message is
missing, but trades have no such numbers. So the connector announces the streams whose trades the
message may have held, and announces them as flowing again when no more such messages arrive.
Decides when to announce what; ``protocol.trades_in`` decides which topics a message may have held.
"""

from collections.abc import Callable, Iterable, Sequence

from bybit_pipeline.processes.connector.streams import StreamKey

RECOVERY_S = 1.0
"""Missed trades count as flowing again after this time without another unreadable message."""


class MissedTrades:
    """The streams that were announced as missed and not as flowing again."""

    def __init__(self) -> None:
        self._missed: dict[StreamKey, None] = {}
        self._topics: list[str] = []
        """Topics of the last announcement; empty after a stream was announced as flowing."""
        self._trade_messages = 0
        """Messages of trades received before the last announcement."""
        self._last_at = 0.0
        """When the last unreadable message arrived."""

    def __bool__(self) -> bool:
        """True if a stream was announced as missed and not as flowing again."""
        return bool(self._missed)

    def on_unreadable(
        self,
        topics: list[str],
        served: Callable[[list[str]], Iterable[StreamKey]],
        *,
        trade_messages: int,
        now: float,
    ) -> list[StreamKey]:
        """
        The streams to announce as missed; mostly none, as one announcement is enough.

        A stream is announced again only if trades arrived since: every announcement opens a gap.

        Args:
            topics: Topics of trades that the message may have held.
            served: The streams that these topics carry at present. Called only when needed.
            trade_messages: Messages of trades received so far.
            now: The present time.
        """
        self._last_at = now
        has_new_trades = trade_messages != self._trade_messages
        if not has_new_trades and topics == self._topics:
            return []
        missed = dict.fromkeys(served(topics))
        if not missed or not (has_new_trades or missed.keys() - self._missed.keys()):
            return []
        self._missed |= missed
        self._topics = topics
        self._trade_messages = trade_messages
        return list(missed)

    def on_flowing(self, streams: Sequence[StreamKey]) -> None:
        """These streams are announced as flowing."""
        self._topics = []
        for stream in streams:
            self._missed.pop(stream, None)

    def take_recovered(self, now: float) -> set[StreamKey]:
        """The streams to announce as flowing again; empty until ``RECOVERY_S`` have passed."""
        if now - self._last_at < RECOVERY_S:
            return set()
        recovered = set(self._missed)
        self._missed.clear()
        self._topics = []
        return recovered
