"""
Decode the messages of the websocket and hand them to callbacks: the hot path, without a lock.

Data of a topic that flows goes straight to its callback. Everything else is rare and goes to the
client: data of other topics, acks and pongs, messages that cannot be read. Must not know sockets or
threads.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from bybit_pipeline.processes.connector.protocol import (
    INVALID_REASONS,
    BookUpdate,
    Decoded,
    InvalidFrame,
    InvalidReason,
    TradeBatch,
    decode,
    salvage,
)
from bybit_pipeline.processes.connector.topics.streams import Streams
from bybit_pipeline.processes.connector.topics.subscriptions import Admission
from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.wire.messages import Category

log = structlog.get_logger()

BATCH = 256
"""Messages between two calls of ``after_batch``; smaller batches wake the workers too often."""
LOG_EVERY_S = 10.0
"""Shortest time between two log lines about invalid frames of one reason."""
SALVAGED_REASONS: frozenset[InvalidReason] = frozenset({"schema", "number", "symbol"})
"""Reasons that may concern only a part of a message."""
SHOWN_BYTES = 160
"""Length of the part of an invalid frame that is logged."""


@dataclass
class MessageCounts:
    """Messages so far. Written by the socket thread; any thread may read."""

    trade_messages: int = 0
    book_messages: int = 0
    extended_topics: int = 0
    """Books whose levels have additional elements, which are ignored."""
    invalid: dict[InvalidReason, int] = field(
        default_factory=lambda: dict.fromkeys(INVALID_REASONS, 0)
    )


class Dispatcher:
    """
    The messages of one connection after another.

    Args:
        category: The category of all messages.
        on_trade, on_orderbook: Receive the data, with its symbol.
        after_batch: Called after the callbacks of at most ``BATCH`` messages.
        streams: The wanted streams, with the queued announcements.
        flowing: Topics whose data needs no admission.
        admit: Decides about the data of other topics. Receives the topic, and False for the delta
            of a book.
        announce: Makes the queued announcements. Called after a read.
        on_control: Receives acks and pongs.
        on_unreadable: Receives each message that cannot be decoded, and the reason.
        counts: Where messages are counted.
        clock: Monotonic clock, to limit logging.
    """

    def __init__(
        self,
        category: Category,
        *,
        on_trade: Callable[[str, TradeBatch], None],
        on_orderbook: Callable[[str, BookUpdate], None],
        after_batch: Callable[[], None],
        streams: Streams,
        flowing: set[str],
        admit: Callable[[str, bool], Admission],
        announce: Callable[[], None],
        on_control: Callable[[Decoded], None],
        on_unreadable: Callable[[bytes, InvalidReason], None],
        counts: MessageCounts,
        clock: Clock,
    ) -> None:
        self.last_message_ts_ns: int | None = None
        """When the last data message was received, by the wall clock."""
        self._category = category
        self._on_trade = on_trade
        self._on_orderbook = on_orderbook
        self._after_batch = after_batch
        self._symbols = streams.symbols
        self._notices = streams.notices
        self._flowing = flowing
        self._admit = admit
        self._announce = announce
        self._on_control = on_control
        self._on_unreadable = on_unreadable
        self._counts = counts
        self._clock = clock
        self._extended: set[str] = set()
        """Topics whose levels have additional elements."""
        self._logged: dict[str, tuple[float, int]] = {}
        """By reason: time of the last log line, and the count that it covered."""

    def on_read(
        self, messages: Sequence[bytes], binaries: Sequence[tuple[int, bytes]], recv_ts_ns: int
    ) -> bool:
        """
        Handle the messages of one read; True if there was data among them.

        Args:
            messages: Complete text messages, in order.
            binaries: Binary messages, each with the number of text messages before it.
            recv_ts_ns: Wall clock of the read.
        """
        counts = self._counts
        before = counts.trade_messages + counts.book_messages
        done = 0
        for place, binary in binaries:
            self._on_messages(messages[done:place], recv_ts_ns)
            self._on_invalid(InvalidFrame("binary", "a binary message"), binary)
            self._on_unreadable(binary, "binary")
            done = place
        for start in range(done, len(messages), BATCH):
            self._on_messages(messages[start : start + BATCH], recv_ts_ns)
        has_data = counts.trade_messages + counts.book_messages != before
        if has_data:
            self.last_message_ts_ns = recv_ts_ns
        if self._notices:
            self._announce()
        return has_data

    def _on_messages(self, messages: Sequence[bytes], recv_ts_ns: int) -> None:
        category, flowing, counts = self._category, self._flowing, self._counts
        for raw in messages:
            try:
                decoded = decode(raw, category, recv_ts_ns)
            except InvalidFrame as error:
                self._on_rejected(error, raw, recv_ts_ns)
                continue
            if type(decoded) is BookUpdate:
                topic = decoded.topic
                if topic in flowing or self._is_admitted(topic, decoded.is_snapshot, raw):
                    counts.book_messages += 1
                    self._on_orderbook(decoded.symbol, decoded)
            elif type(decoded) is list:
                self._on_trades(decoded, raw)
            else:
                self._on_control(decoded)
        self._after_batch()

    def _on_rejected(self, error: InvalidFrame, raw: bytes, recv_ts_ns: int) -> None:
        """Pass on what is usable of a rejected message; the rest is missed."""
        usable = None
        if error.reason in SALVAGED_REASONS:
            usable = salvage(raw, self._category, recv_ts_ns)
        if isinstance(usable, BookUpdate):
            self._on_extended_book(usable, raw)
            return
        if usable:
            self._on_invalid(error, raw, "unusable trades skipped")
        else:
            self._on_invalid(error, raw)
        before, *others = usable or ([], [])
        self._on_trades(before, raw)
        for trades in others:
            self._on_unreadable(raw, error.reason)
            self._on_trades(trades, raw)

    def _on_extended_book(self, update: BookUpdate, raw: bytes) -> None:
        topic = update.topic
        if topic not in self._flowing and not self._is_admitted(topic, update.is_snapshot, raw):
            return
        self._counts.book_messages += 1
        self._on_orderbook(update.symbol, update)
        if topic not in self._extended:
            self._extended.add(topic)
            self._counts.extended_topics += 1
            since_last = self._since_last_line("extended", self._counts.extended_topics)
            if since_last:
                log.warning(
                    "additional elements of price levels ignored", topic=topic, topics=since_last
                )

    def _on_trades(self, batches: list[TradeBatch], raw: bytes) -> None:
        if not batches:
            return
        topic = batches[0].topic
        if topic in self._flowing or self._is_admitted(topic, True, raw):
            self._counts.trade_messages += 1
            symbols = self._symbols.get(topic, {})
            for batch in batches:
                if batch.symbol in symbols:
                    self._on_trade(batch.symbol, batch)

    def _is_admitted(self, topic: str, is_snapshot: bool, raw: bytes) -> bool:
        admission = self._admit(topic, is_snapshot)
        if admission == "unknown":
            self._on_invalid(InvalidFrame("topic", f"{topic} was not subscribed"), raw)
        return admission == "pass"

    def _on_invalid(
        self, error: InvalidFrame, raw: bytes, event: str = "invalid frame skipped"
    ) -> None:
        """Count a frame that cannot be used; log it unless its reason was logged lately."""
        self._counts.invalid[error.reason] += 1
        since_last = self._since_last_line(error.reason, self._counts.invalid[error.reason])
        if since_last:
            log.warning(
                event,
                reason=error.reason,
                detail=error.detail[:SHOWN_BYTES],
                start=raw[:SHOWN_BYTES].decode(errors="backslashreplace"),
                bytes=len(raw),
                since_last=since_last,
            )

    def _since_last_line(self, reason: str, total: int) -> int:
        """Return what a log line is to cover; 0 if one was written lately."""
        now = self._clock.monotonic()
        logged_at, counted = self._logged.get(reason, (-math.inf, 0))
        if now - logged_at < LOG_EVERY_S:
            return 0
        self._logged[reason] = (now, total)
        return total - counted
