"""
A recorded capture as a feed: the recorded messages at recorded or multiplied speed.

Decides which line is due when, and what a subscriber gets that comes in the middle; pure apart
from reading the capture's lines as time goes on. Messages go out byte for byte as recorded, their
timestamps too.

The timeline starts ``START_DELAY_MS`` after the first subscription and is then shared by all
subscribers. Nothing is sent for a book before its first recorded snapshot. Who subscribes a book
later gets a snapshot made of the book as it is, with the numbers of the last message, so that the
next recorded delta continues it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from bybit_pipeline.processes.simulator.feed import Listed, Outgoing, TopicKey
from bybit_pipeline.processes.simulator.market.instruments import base_coin
from bybit_pipeline.shared.settings.captures import (
    CaptureInfo,
    CaptureLine,
    CaptureReader,
    book_topic_parts,
    describe_capture,
)
from bybit_pipeline.shared.wire.messages import Category

START_DELAY_MS: Final = 500
MESSAGES_PER_POLL: Final = 1_000
BYTES_PER_POLL: Final = 1 << 20
"""What one poll hands out at most, so that a fast playback leaves time for everything else."""


class RecordedBook:
    """The book of one recorded topic as text, and the message that a newcomer gets."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self._last = snapshot
        self._bids: dict[str, str] = {}
        self._asks: dict[str, str] = {}
        self.apply(snapshot)

    def apply(self, message: dict[str, Any]) -> None:
        """Take over a recorded snapshot or delta."""
        data = message["data"]
        if message.get("type") == "snapshot":
            self._bids.clear()
            self._asks.clear()
        for side, levels in ((self._bids, data["b"]), (self._asks, data["a"])):
            for price, size, *_ in levels:
                if float(size) == 0:
                    side.pop(price, None)
                else:
                    side[price] = size
        self._last = message

    def snapshot(self) -> bytes:
        """The book as a snapshot with the numbers and the key order of the last message."""
        bids = sorted(self._bids.items(), key=lambda level: -float(level[0]))
        asks = sorted(self._asks.items(), key=lambda level: float(level[0]))
        data = {**self._last["data"], "b": bids, "a": asks}
        return msgspec.json.encode({**self._last, "type": "snapshot", "data": data})


class PlaybackFeed:
    """
    The topics of a capture; a ``feed.Feed``.

    Args:
        path: The capture.
        speed: Recorded seconds a second, above zero.
        category: Instead of the one judged by content.
        on_finish: Called once when the last line has gone out, with ``totals``.

    Raises:
        CaptureError: If the capture cannot be read or holds no market data.
    """

    is_elastic = True

    def __init__(
        self,
        path: str | Path,
        *,
        speed: float = 1.0,
        category: Category | None = None,
        on_finish: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        if not 0 < speed < float("inf"):
            raise ValueError(f"speed must be above zero, not {speed}")
        self.info: CaptureInfo = describe_capture(path)
        self.category: Category = category or self.info.category
        self.played = 0
        """Recorded messages that are due and done, whether somebody subscribed them or not."""
        self.is_finished = False
        self._speed = speed
        self._on_finish = on_finish
        self._reader = CaptureReader(path)
        self._lines = _timed_lines(self._reader)
        self._next = next(self._lines, None)
        self._start_ms: int | None = None
        self._books: dict[str, RecordedBook] = {}
        self._subscribed: set[TopicKey] = set()

    def listed(self, category: Category) -> list[Listed]:
        """The recorded symbols; a capture says nothing of turnover, so nothing is ranked by it."""
        if category != self.category:
            return []
        return [
            Listed(symbol, base_coin(symbol), 0.0, 1.0, "0.01", "0.01")
            for symbol in sorted(self.info.symbols)
        ]

    def serves(self, key: TopicKey) -> bool:
        """Whether the capture holds messages of this topic."""
        return key[0] == self.category and key[1] in self.info.topics

    def join(self, key: TopicKey, now_ms: int) -> list[bytes]:
        """The book so far as a snapshot, when it has begun."""
        if self._start_ms is None:
            self._start_ms = now_ms + START_DELAY_MS
        self._subscribed.add(key)
        book = self._books.get(key[1])
        return [] if book is None else [book.snapshot()]

    def leave(self, key: TopicKey) -> None:
        """The timeline goes on without them."""
        self._subscribed.discard(key)

    def poll(self, now_ms: int) -> list[Outgoing]:
        """The recorded messages that are due and subscribed."""
        outgoing: list[Outgoing] = []
        if self._start_ms is None or self.is_finished:
            return outgoing
        elapsed_ms = (now_ms - self._start_ms) * self._speed
        budget = BYTES_PER_POLL
        for _ in range(MESSAGES_PER_POLL):
            if self._next is None:
                self._finish()
                break
            offset_ms, topic, line = self._next
            if offset_ms > elapsed_ms or budget <= 0:
                break
            key: TopicKey = (self.category, topic)
            if self._take(topic, line) and key in self._subscribed:
                outgoing.append(Outgoing(key, line.raw))
                budget -= len(line.raw)
            self._next = next(self._lines, None)
        return outgoing

    @property
    def totals(self) -> dict[str, Any]:
        """What has been played, for the log."""
        return {
            "messages": self.played,
            "topics": len(self.info.topics),
            "skipped": self._reader.skipped,
        }

    def _take(self, topic: str, line: CaptureLine) -> bool:
        """Bring the topic's book up to date; whether the message may go out."""
        self.played += 1
        if book_topic_parts(topic) is None:
            return True
        book = self._books.get(topic)
        if book is not None:
            book.apply(line.message)
        elif line.message.get("type") == "snapshot":
            self._books[topic] = RecordedBook(line.message)
        return topic in self._books

    def _finish(self) -> None:
        self.is_finished = True
        if self._on_finish is not None:
            self._on_finish(self.totals)


def _timed_lines(reader: CaptureReader) -> Iterator[tuple[float, str, CaptureLine]]:
    """
    Data messages as ``(milliseconds since the first one, topic, line)``.

    Lines go out in their order, so one that is earlier than the line before comes with it.
    A line's time is its receive time where there is one, else the exchange's ``ts``, else that of
    the line before. The two clocks are never mixed: the first line decides.
    """
    uses_recv: bool | None = None
    first = latest = 0.0
    for line in reader:
        topic = line.topic
        if topic is None:
            continue
        if uses_recv is None:
            uses_recv = line.recv_ts_ns is not None
        time_ms: float | None = line.exchange_ts_ms
        if uses_recv:
            time_ms = None if line.recv_ts_ns is None else line.recv_ts_ns / 1e6
        if time_ms is not None:
            first = first or time_ms
            latest = time_ms
        yield latest - first, topic, line
