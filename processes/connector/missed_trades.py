"""
Announcements of trades that may be missing. Pure: time comes in, in monotonic seconds.

A message that cannot be read may have held trades. The numbers of a book show that a message is
missing, but trades have no such numbers. So the connector announces the streams whose trades the
message may have held, and announces them as flowing again when no more such messages arrive.
Decides which topics a message may have held, and when to announce what.
"""

import re
from collections.abc import Callable, Iterable, Sequence

import msgspec
from msgspec import Struct

from bybit_pipeline.processes.connector.topics.streams import StreamKey
from bybit_pipeline.shared.bybit import BOOK_PREFIX

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


class _Outline(Struct):
    topic: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")


_decode_outline = msgspec.json.Decoder(_Outline).decode
_TOPIC = re.compile(rb'"topic"\s*:\s*"([^"\\\x00-\x1f]*"?)')
"""A topic with its closing quote, or as much of it as is readable."""


def trades_in(raw: bytes, topics: list[str]) -> list[str]:
    """
    The topics whose trades a rejected message may have held.

    - If the message names one of them: that topic.
    - If it breaks off inside its topic: every topic that starts in this way.
    - If it names a book, or is complete JSON that is clearly not trades: none. A missing message of
      a book shows by its update ids.
    - Otherwise: all of them.

    Args:
        raw: The rejected message.
        topics: The subscribed topics of trades.
    """
    seen = [_readable(named[1]) for named in _TOPIC.finditer(raw)]
    if seen:
        named = [topic for topic in topics if any(f'{topic}"'.startswith(text) for text in seen)]
        if named:
            return named
    if any(text.startswith(BOOK_PREFIX) for text in seen) or _is_without_trades(raw):
        return []
    return topics


def _readable(text: bytes) -> str:
    """The start of a text, as far as it is UTF-8."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        return text[: error.start].decode()


def _is_without_trades(raw: bytes) -> bool:
    """Whether a message is complete JSON that has a topic, or has no list of data."""
    try:
        outline = _decode_outline(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return outline.topic is not None or not bytes(outline.data).startswith(b"[")
