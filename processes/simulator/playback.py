"""
A recorded capture as a feed: the recorded messages at their recorded or a multiple of their speed.

Decides which line is due when, and what a later subscriber gets first. Pure apart from reading the
capture as its time advances. Messages are sent byte for byte as recorded, with their timestamps.

The timeline starts ``START_DELAY_MS`` after the first subscription; all subscribers share it. A
book sends nothing before its first recorded snapshot. A later subscriber gets a snapshot of the
book as it is, with the numbers of the last message, so that the next recorded delta continues it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from bybit_pipeline.processes.simulator.feed import ListedInstrument, OutgoingMessage, TopicKey
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
"""Size of the messages of one poll, so that a fast playback leaves time for other work."""


class RecordedBook:
    """The book of one recorded topic, as text, and the snapshot for a new subscriber."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self._last = snapshot
        self._bids: dict[str, str] = {}
        self._asks: dict[str, str] = {}
        self.apply(snapshot)

    def apply(self, message: dict[str, Any]) -> None:
        """Apply a recorded snapshot or delta."""
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
        """Return the book as a snapshot with the numbers and key order of the last message."""
        bids = sorted(self._bids.items(), key=lambda level: -float(level[0]))
        asks = sorted(self._asks.items(), key=lambda level: float(level[0]))
        data = {**self._last["data"], "b": bids, "a": asks}
        return msgspec.json.encode({**self._last, "type": "snapshot", "data": data})


class PlaybackFeed:
    """
    The topics of a capture; a ``MarketFeed``.

    Args:
        path: Path of the capture.
        speed: Replay speed, above zero; 1 is real time.
        category: Category of the messages; detected from the content if None.
        on_finish: Called once with ``totals``, after the last line.

    Raises:
        CaptureError: If the capture cannot be read or contains no market data.
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
            raise ValueError(f"speed {speed:g}: allowed: a number above zero")
        self.info: CaptureInfo = describe_capture(path)
        self.category: Category = category or self.info.category
        self.played = 0
        """Recorded messages passed so far, subscribed or not."""
        self.is_finished = False
        self._speed = speed
        self._on_finish = on_finish
        self._reader = CaptureReader(path)
        self._lines = _timed_lines(self._reader)
        self._next = next(self._lines, None)
        self._start_ms: int | None = None
        self._books: dict[str, RecordedBook] = {}
        self._subscribed: set[TopicKey] = set()

    def listed(self, category: Category) -> list[ListedInstrument]:
        """Return the recorded symbols, with a turnover of 0: a capture contains none."""
        if category != self.category:
            return []
        return [
            ListedInstrument(symbol, base_coin(symbol), 0.0, 1.0, "0.01", "0.01")
            for symbol in sorted(self.info.symbols)
        ]

    def serves(self, key: TopicKey) -> bool:
        """Return True if the capture contains messages of this topic."""
        return key[0] == self.category and key[1] in self.info.topics

    def join(self, key: TopicKey, now_ms: int) -> list[bytes]:
        """Return the current book as a snapshot, if its first snapshot has been played."""
        if self._start_ms is None:
            self._start_ms = now_ms + START_DELAY_MS
        self._subscribed.add(key)
        book = self._books.get(key[1])
        return [] if book is None else [book.snapshot()]

    def leave(self, key: TopicKey) -> None:
        """Stop delivering a topic; the timeline continues."""
        self._subscribed.discard(key)

    def poll(self, now_ms: int) -> list[OutgoingMessage]:
        """Return the recorded messages that are due and subscribed."""
        outgoing: list[OutgoingMessage] = []
        if self._start_ms is None or self.is_finished:
            return outgoing
        elapsed_ms = (now_ms - self._start_ms) * self._speed
        bytes_left = BYTES_PER_POLL
        for _ in range(MESSAGES_PER_POLL):
            if self._next is None:
                self._finish()
                break
            offset_ms, topic, line = self._next
            if offset_ms > elapsed_ms or bytes_left <= 0:
                break
            key: TopicKey = (self.category, topic)
            if self._play(topic, line) and key in self._subscribed:
                outgoing.append(OutgoingMessage(key, line.raw))
                bytes_left -= len(line.raw)
            self._next = next(self._lines, None)
        return outgoing

    @property
    def totals(self) -> dict[str, Any]:
        """Return the totals of the playback, for the log."""
        return {
            "messages": self.played,
            "topics": len(self.info.topics),
            "skipped": self._reader.skipped,
        }

    def _play(self, topic: str, line: CaptureLine) -> bool:
        """Update the topic's book; return True if the message may be sent."""
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
    Yield data messages as ``(milliseconds since the first message, topic, line)``.

    Lines keep their order: a line with an earlier time than its predecessor is due together with
    it. The first line decides which clock is used for all: the receive time if it has one, else
    the exchange's ``ts``. A line without that time is due with its predecessor.
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
