"""
The websocket client: trades and order books of one category, over one websocket that reconnects.

It also works alone, outside of the pipeline:

    client = BybitWebSocketClient(print, print, category="linear")
    client.subscribe_trades("BTCUSDT")
    client.subscribe_orderbook("BTCUSDT", 50)
    client.start()

This file connects the parts. ``reconnector`` keeps the socket open and ``dispatcher`` hands out the
data. ``streams`` holds the requested symbols, ``subscriptions`` the state of every topic.
``keepalive`` and ``missed_trades`` detect silent failures.

Two threads meet here. The *socket thread* connects, reads, decodes and calls every callback. The
commands and ``check`` run on any other thread: they send requests, or break the connection to wake
the socket thread. One lock guards the shared state; data of a subscribed topic never needs it.
"""

import os
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from random import Random
from typing import Protocol

import structlog

from bybit_pipeline.processes.connector.connect_limiter import ConnectLimiter
from bybit_pipeline.processes.connector.connection import CONNECT_TIMEOUT_S, FailureReason
from bybit_pipeline.processes.connector.dispatcher import Dispatcher, MessageCounts
from bybit_pipeline.processes.connector.keepalive import Heartbeat, Keepalive
from bybit_pipeline.processes.connector.missed_trades import MissedTrades, trades_in
from bybit_pipeline.processes.connector.protocol import (
    Ack,
    BookUpdate,
    Decoded,
    InvalidReason,
    Pong,
    TradeBatch,
    ping_text,
)
from bybit_pipeline.processes.connector.reconnector import (
    ConnectionCounts,
    Reconnector,
    Target,
    one_line,
)
from bybit_pipeline.processes.connector.topics.streams import StreamKey, Streams
from bybit_pipeline.processes.connector.topics.subscriptions import (
    Admission,
    Subscriptions,
)
from bybit_pipeline.processes.connector.topics.topic import Event, EventKind
from bybit_pipeline.shared.bybit import STREAM_URLS
from bybit_pipeline.shared.errors import EX_SOFTWARE
from bybit_pipeline.shared.runtime.clock import Clock, SystemClock
from bybit_pipeline.shared.settings.config import ConnectorConfig
from bybit_pipeline.shared.wire.messages import Category, LinkEvent, Source
from bybit_pipeline.shared.wire.process_status import TopicState

log = structlog.get_logger()

CHECK_S = 0.1
"""How often ``check`` must be called."""
JOIN_S = 1.0
"""How long ``stop`` waits for the threads."""


class LinkHandler(Protocol):
    """Receives the events of the connection and of its streams, on the socket thread."""

    def __call__(self, event: LinkEvent, reason: str, streams: Sequence[StreamKey]) -> None:
        """``streams`` is empty for ``connected`` and ``disconnected``: they apply to all."""


@dataclass
class Counts(ConnectionCounts, MessageCounts):
    """Connections and messages so far. Written by the socket thread; any thread may read."""


class BybitWebSocketClient:
    """
    Trades and order books of one category, over one websocket that reconnects.

    ``on_trade(symbol, batch)`` and ``on_orderbook(symbol, update)`` are called on the socket
    thread with a ``TradeBatch`` and a ``BookUpdate``. An exception that they raise is a bug: by
    default it is logged with its traceback and ends the process with exit code 70.

    Args:
        on_trade, on_orderbook: Receive the data.
        category: The category that the endpoint serves.
        url: The endpoint; Bybit's mainnet by default.
        source: The source of the data: ``live``, ``sim`` or ``replay``.
        settings: Timeouts and backoff.
        silence_matters: If False, a connection is kept even without data.
        on_link: Receives the events of the connection and of its streams, on the socket thread.
        on_ping: Receives every round-trip time in seconds, on the socket thread.
        on_heartbeat: Called on the socket thread several times a second while the websocket is open
            and proven to be current, after the callbacks of a read.
        before_connecting: Called once on the socket thread, before the first attempt.
        after_batch: Called on the socket thread after the callbacks of each read, and after every
            256 messages of a large one. Callbacks that collect messages pass them on here.
        limiter: Limits connection attempts to a live exchange.
        on_attempt: Called on the socket thread before each limited attempt, once it is counted.
        on_bug: Receives an unexpected error, on the thread that it ends.
        clock: Wall and monotonic clock.
        rng: Random numbers for the jitter of the backoff.
        connect_timeout_s: How long an attempt may take.
        tls: Certificates to trust instead of the system's.
        reconnector: Makes the part that keeps the websocket open.

    Raises:
        ValueError: If ``url`` is not a websocket address.
    """

    def __init__(
        self,
        on_trade: Callable[[str, TradeBatch], None],
        on_orderbook: Callable[[str, BookUpdate], None],
        *,
        category: Category = "linear",
        url: str = "",
        source: Source = "live",
        settings: ConnectorConfig | None = None,
        silence_matters: bool = True,
        on_link: LinkHandler | None = None,
        on_ping: Callable[[float], None] | None = None,
        on_heartbeat: Callable[[Heartbeat], None] | None = None,
        before_connecting: Callable[[], None] | None = None,
        after_batch: Callable[[], None] | None = None,
        limiter: ConnectLimiter | None = None,
        on_attempt: Callable[[], None] | None = None,
        on_bug: Callable[[BaseException], None] | None = None,
        clock: Clock | None = None,
        rng: Random | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        tls: ssl.SSLContext | None = None,
        reconnector: Callable[..., Reconnector] = Reconnector,
    ) -> None:
        self.category = category
        self.counts = Counts()
        self.session = 0
        """
        Number of the current connection, or of the last one: its opening time in milliseconds since
        1970, always greater than that of the previous session.
        """
        self.source = source
        """Source of the current connection, or of the last one."""
        self._on_link = on_link or _ignore
        self._on_ping = on_ping or _ignore
        self._on_heartbeat = on_heartbeat or _ignore
        self._before_connecting = before_connecting or _ignore
        self._on_bug = on_bug or _end_process
        self._clock = clock or SystemClock()
        settings = settings or ConnectorConfig()
        self._lock = threading.RLock()
        self._subscriptions = Subscriptions(ack_timeout_s=settings.ack_timeout_s)
        self._streams = Streams(category, self._subscriptions)
        self._keepalive = Keepalive(settings, silence_matters=silence_matters)
        self._missed = MissedTrades()
        self._is_open = False
        self._pid = os.getpid()
        self._dispatcher = Dispatcher(
            category,
            on_trade=on_trade,
            on_orderbook=on_orderbook,
            after_batch=after_batch or _ignore,
            streams=self._streams,
            flowing=self._subscriptions.flowing,
            admit=self._admit,
            announce=self._announce,
            on_control=self._on_control,
            on_unreadable=self._on_unreadable,
            counts=self.counts,
            clock=self._clock,
        )
        self._limiter = limiter or ConnectLimiter()
        self._reconnector = reconnector(
            Target(url or STREAM_URLS["mainnet"].format(category=category), source),
            on_open=self._on_open,
            on_read=self._on_read,
            on_close=self._on_close,
            on_attempt=on_attempt or _ignore,
            counts=self.counts,
            limiter=self._limiter,
            settings=settings,
            clock=self._clock,
            rng=rng or Random(),
            connect_timeout_s=connect_timeout_s,
            tls=tls,
        )
        self.coalescer = self._reconnector.coalescer
        """Decides how long the socket thread sleeps between two reads."""
        self._threads: list[threading.Thread] = []

    # -- commands, from any thread ---------------------------------------------------------------

    def start(self, *, own_timers: bool = True) -> None:
        """
        Connect, and stay connected until ``stop``.

        Args:
            own_timers: Start a second thread that calls ``check``. Without it the caller must do
                so every ``CHECK_S`` seconds.
        """
        bodies = {"socket": self._run, **({"timers": self._run_timers} if own_timers else {})}
        for name, body in bodies.items():
            thread = threading.Thread(target=body, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> bool:
        """Disconnect for good; False if a thread did not end within ``JOIN_S``."""
        self._reconnector.stop()
        deadline = time.monotonic() + JOIN_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def is_stopping(self) -> bool:
        """Whether ``stop`` has been called."""
        return self._reconnector.is_stopping

    @property
    def connected(self) -> bool:
        """Whether the websocket is open; never in a forked child, which has none of the threads."""
        return self._is_open and self._pid == os.getpid()

    @property
    def url(self) -> str:
        """Return the address that this client connects to."""
        return self._reconnector.target.url

    @property
    def is_simulated(self) -> bool:
        """True if the last connection led to our simulated exchange, whatever its address."""
        return self._reconnector.is_simulated

    @property
    def ping_rtt_s(self) -> float | None:
        """Round-trip time of the last ping that was answered."""
        return self._keepalive.rtt_s

    @property
    def last_message_ts_ns(self) -> int | None:
        """When the last data message was received."""
        return self._dispatcher.last_message_ts_ns

    def subscribe_trades(self, *symbols: str) -> None:
        """Receive the trades of these symbols, including after a reconnect."""
        with self._lock:
            self._streams.subscribe_trades(symbols, self._clock.monotonic())
            self._flush()

    def subscribe_orderbook(self, symbol: str, depth: int) -> None:
        """
        Receive the book of a symbol, including after a reconnect.

        Raises:
            ValueError: If the symbol is subscribed with another depth, or the depth is out of
                range. Depths that Bybit no longer offers are accepted, because old captures
                contain them.
        """
        self.subscribe_orderbooks([(symbol, depth)])

    def subscribe_orderbooks(self, books: Sequence[tuple[str, int]]) -> None:
        """Receive several books, in as few requests as possible; see ``subscribe_orderbook``."""
        with self._lock:
            self._streams.subscribe_books(books, self._clock.monotonic())
            self._flush()

    def unsubscribe_trades(self, *symbols: str) -> None:
        """Stop receiving the trades of these symbols."""
        with self._lock:
            self._streams.unsubscribe_trades(symbols, self._clock.monotonic())
            self._flush()

    def unsubscribe_orderbook(self, *symbols: str) -> None:
        """Stop receiving the books of these symbols."""
        with self._lock:
            self._streams.unsubscribe_books(symbols, self._clock.monotonic())
            self._flush()

    def resync_orderbook(self, symbol: str) -> bool:
        """Request a new snapshot of a book; False if it is not subscribed."""
        with self._lock:
            return self._streams.resync_book(symbol, self._clock.monotonic())

    def announce_trades(self, symbol: str) -> bool:
        """Announce again that the trades of a symbol are flowing; return False if they are not."""
        with self._lock:
            return self._streams.announce_trades(symbol)

    def change_source(self, url: str, source: Source) -> None:
        """
        Switch to another address at once; this starts a new session.

        Raises:
            ValueError: If ``url`` is not a websocket address.
        """
        self._reconnector.change_target(Target(url, source))

    def set_connect_quota(self, quota: int) -> None:
        """From now on, allow this many connection attempts per five minutes."""
        self._limiter.quota = quota

    def topics(self) -> dict[str, TopicState]:
        """Return the state of every requested Bybit topic."""
        with self._lock:
            return self._subscriptions.states()

    def rejected(self) -> dict[str, str]:
        """Return the rejected Bybit topics, each with its reason."""
        with self._lock:
            return self._subscriptions.rejected()

    def refused(self) -> list[str]:
        """The rejected topics that Bybit itself refused."""
        with self._lock:
            return self._subscriptions.refused()

    @property
    def unexpected_frames(self) -> int:
        """Data frames dropped because their topic waits for a snapshot or was unsubscribed."""
        return self._subscriptions.unexpected

    @property
    def lost_acks(self) -> int:
        """Number of requests that were not acknowledged in time."""
        return self._subscriptions.unanswered

    def check(self) -> None:
        """Run all checks and timeouts that are due; call it every ``CHECK_S`` seconds."""
        with self._lock:
            now = self._clock.monotonic()
            self._reconnector.check(now)
            if self._is_open:
                self._check_alive(now)
                self._subscriptions.on_time(now)
                self._flush()
                self._check_missed(now)

    # -- called with the lock held ---------------------------------------------------------------

    def _check_alive(self, now: float) -> None:
        failure = self._keepalive.failure(
            now,
            messages=self.counts.trade_messages + self.counts.book_messages,
            expects_data=bool(self._streams.symbols),
        )
        if failure is not None:
            self._reconnector.abort(failure)
        elif ping_id := self._keepalive.take_ping(now):
            self._reconnector.send(ping_text(ping_id))

    def _check_missed(self, now: float) -> None:
        """Announce that trades are flowing again once no more are missed."""
        if self._missed and (recovered := self._missed.take_recovered(now)):
            served = self._streams.served_trades(self._streams.trade_topics())
            flowing = [stream for stream in served if stream in recovered]
            if flowing:
                self._streams.announce("subscribed", "", flowing)

    def _flush(self) -> None:
        """Send the requests that are due; log the events and queue their announcements."""
        for request in self._subscriptions.take_requests():
            self._reconnector.send(request)
        events = self._subscriptions.take_events()
        for (kind, reason), group in groupby(events, key=lambda event: (event.kind, event.reason)):
            self._on_events(kind, reason, list(group))

    def _on_events(self, kind: EventKind, reason: str, events: list[Event]) -> None:
        topics = [event.topic for event in events]
        match kind:
            case "subscribed" | "unsubscribed":
                log.info(f"topics {kind}", topics=topics, **({"reason": reason} if reason else {}))
                self._streams.announce(kind, reason, self._streams.of(topics))
            case "rejected":
                details = {event.topic: event.detail for event in events}
                log.warning("topics rejected", topics=details, reason=reason)
                self._streams.announce(kind, reason, self._streams.of(topics))
            case "unanswered":
                log.warning("no ack, subscribing again", topics=topics)
            case "silent":
                log.warning("confirmed without a snapshot, subscribing again", topics=topics)
            case "reconnect":
                log.warning("books without a snapshot, reconnecting", topics=topics)
                self._reconnector.abort("resync")

    # -- the threads -----------------------------------------------------------------------------

    def _run_timers(self) -> None:
        try:
            while not self._reconnector.wait_for_stop(CHECK_S):
                self.check()
        except Exception as bug:
            self._on_bug(bug)

    def _run(self) -> None:
        try:
            self._before_connecting()
            self._reconnector.run()
        except BaseException as bug:
            self._on_bug(bug)

    # -- the socket thread -----------------------------------------------------------------------

    def _on_open(self, target: Target) -> None:
        self.session = max(self._clock.time_ns() // 1_000_000, self.session + 1)
        self.source = target.source
        self._on_link("connected", "", ())
        log.info("websocket connected", url=target.url, session=self.session, source=target.source)
        with self._lock:
            now = self._clock.monotonic()
            self._is_open = True
            self._keepalive.on_connected(now)
            self._subscriptions.on_connected(now)
            self._flush()

    def _on_read(
        self, messages: Sequence[bytes], binaries: Sequence[tuple[int, bytes]], recv_ts_ns: int
    ) -> bool:
        """Hand out the messages of one read, then send the heartbeat if it is due."""
        keepalive, monotonic = self._keepalive, self._clock.monotonic
        keepalive.on_read(monotonic(), recv_ts_ns, has_messages=bool(messages or binaries))
        has_data = self._dispatcher.on_read(messages, binaries, recv_ts_ns)
        keepalive.on_handled(monotonic())
        if (heartbeat := keepalive.take_heartbeat()) is not None:
            self._on_heartbeat(heartbeat)
        return has_data

    def _on_close(self, target: Target, reason: FailureReason, error: Exception | None) -> None:
        if error is not None and reason != "stopped":
            log.warning(
                "websocket disconnected",
                url=target.url,
                session=self.session,
                reason=reason,
                error=one_line(error),
            )
        with self._lock:
            self._is_open = False
            self._subscriptions.on_disconnected()
        self._announce()
        self._on_link("disconnected", reason, ())

    def _admit(self, topic: str, is_snapshot: bool) -> Admission:
        """Decide whether to accept data of a topic that is not delivering yet, or no longer."""
        with self._lock:
            admission = self._subscriptions.on_data(topic, is_snapshot, self._clock.monotonic())
            self._flush()
        if self._streams.notices:
            self._announce()
        return admission

    def _on_control(self, message: Decoded) -> None:
        now = self._clock.monotonic()
        with self._lock:
            if isinstance(message, Ack):
                self._subscriptions.on_ack(message, now)
                self._flush()
            elif isinstance(message, Pong):
                rtt_s = self._keepalive.on_pong(now)
                if rtt_s is not None:
                    self._on_ping(rtt_s)

    def _on_unreadable(self, raw: bytes, reason: InvalidReason) -> None:
        """Announce the streams whose trades an unreadable message may have held."""
        with self._lock:
            wanted = self._streams.trade_topics()
        topics = trades_in(raw, wanted)
        if not topics:
            return
        with self._lock:
            missed = self._missed.on_unreadable(
                topics,
                self._streams.served_trades,
                trade_messages=self.counts.trade_messages,
                now=self._clock.monotonic(),
            )
        if missed:
            self._announce()
            self._on_link("missed", reason, missed)

    def _announce(self) -> None:
        """Make the queued announcements, before any data that follows them."""
        notices = self._streams.notices
        while notices:
            event, reason, streams = notices.popleft()
            if event == "subscribed" and self._missed:
                with self._lock:
                    self._missed.on_flowing(streams)
            self._on_link(event, reason, streams)


def _ignore(*_: object) -> None:
    pass


def _end_process(bug: BaseException) -> None:
    log.critical("bug", thread=threading.current_thread().name, exc_info=bug)
    os._exit(EX_SOFTWARE)
