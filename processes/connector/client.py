"""
The websocket client: one thread that connects, reads, decodes and calls back, again and again.

Decides when to connect, ping, give a silent connection up and try again; what was subscribed is in
``subscriptions``, what a frame says in ``protocol``. It works alone, outside of the pipeline:

    client = BybitWebSocketClient(print, print, category="linear")
    client.subscribe_trades("BTCUSDT")
    client.subscribe_orderbook("BTCUSDT", 50)
    client.start()

Two threads meet here. The *socket thread* owns the connection: it connects, reads, decodes and
makes every callback. ``check`` and the commands run on any other thread: they only send through
websocket-client's locked ``send`` or break the TCP socket off, which wakes the reader. What both
touch is behind one lock, which data of a subscribed topic never takes.
"""

import math
import os
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from random import Random
from typing import NamedTuple, Protocol

import structlog

from bybit_pipeline.processes.connector.backoff import Backoff
from bybit_pipeline.processes.connector.connect_limiter import ConnectLimiter
from bybit_pipeline.processes.connector.connection import (
    CONNECT_TIMEOUT_S,
    FAILURE_REASONS,
    NETWORK_ERRORS,
    Connection,
    FailureReason,
    failure_reason,
    parse_url,
)
from bybit_pipeline.processes.connector.protocol import (
    INVALID_REASONS,
    Ack,
    BookUpdate,
    InvalidFrame,
    InvalidReason,
    Pong,
    TradeBatch,
    decode,
    ping_text,
    trades_in,
)
from bybit_pipeline.processes.connector.subscriptions import (
    Event,
    EventKind,
    Subscriptions,
    TopicState,
)
from bybit_pipeline.shared.bybit import (
    DEPTH_MAX,
    STREAM_URLS,
    TRADES_PREFIX,
    StreamKind,
    book_topic,
    parse_exchange_topic,
    trades_topic,
)
from bybit_pipeline.shared.errors import EX_SOFTWARE
from bybit_pipeline.shared.runtime.clock import Clock, SystemClock
from bybit_pipeline.shared.runtime.coalescing import ReadCoalescer
from bybit_pipeline.shared.settings.config import ConnectorConfig
from bybit_pipeline.shared.wire.messages import Category, LinkEvent, Source

log = structlog.get_logger()

BATCH = 256
"""
Messages of one read that are handled before ``after_batch`` is called: with 64 the bus was woken
more often, and the connector took 4 % more at 80,000 messages/s.
"""
CHECK_S = 0.1
"""How often ``check`` wants to be called."""
JOIN_S = 1.0
QUOTA_CHECK_S = 1.0
"""How often an attempt held back by the connect limiter checks for a larger quota."""
LOG_EVERY_S = 10.0
"""At most one line in this time about invalid frames of one reason."""
SHOWN_BYTES = 160
MISSED_S = 1.0
"""Trades that were missed are said to flow once nothing more was missed for so long."""

StreamKey = tuple[StreamKind, str]
"""``("trade", "BTCUSDT")`` or ``("book", "BTCUSDT")``."""


class LinkHandler(Protocol):
    """Told on the socket thread what happens to the connection or to some of its streams."""

    def __call__(self, event: LinkEvent, reason: str, streams: Sequence[StreamKey]) -> None:
        """``streams`` is empty for ``connected`` and ``disconnected``, which concern all."""


class LinkNotice(NamedTuple):
    """Something about streams that the socket thread has yet to announce."""

    event: LinkEvent
    reason: str
    streams: list[StreamKey]


class Target(NamedTuple):
    """Where to connect, and what the data from there counts as."""

    url: str
    source: Source


class Counts:
    """What happened so far; written by the socket thread, read by anybody."""

    def __init__(self) -> None:
        self.trade_messages = 0
        self.book_messages = 0
        self.connects = 0
        self.failed_connects = 0
        self.reconnects: dict[FailureReason, int] = dict.fromkeys(FAILURE_REASONS, 0)
        """Attempts and connections that failed, each of which led to a new attempt."""
        self.invalid: dict[InvalidReason, int] = dict.fromkeys(INVALID_REASONS, 0)
        self.pings = 0
        self.held = 0
        """Attempts held back by the connect limiter."""


class BybitWebSocketClient:
    """
    Trades and order books of one category, over one websocket that is kept up.

    ``on_trade(symbol, batch)`` and ``on_orderbook(symbol, update)`` are called on the socket
    thread with a ``TradeBatch`` and a ``BookUpdate``. What they raise is a bug: by default it is
    logged with its traceback and ends the process with exit code 70.

    Args:
        on_trade, on_orderbook: Receive the data.
        category: What the endpoint serves.
        url: The endpoint; Bybit's main net by default.
        source: What the data counts as, ``source`` of this object during a connection.
        settings: Time-outs and back-off.
        silence_matters: False if no data for a long time is no reason to reconnect.
        on_link: Told about the connection and its streams, on the socket thread.
        on_ping: Told every round-trip time in seconds, on the socket thread.
        before_connecting: Called once on the socket thread, before the first attempt.
        limiter: Quota of connection attempts at a live exchange.
        on_attempt: Told on the socket thread before each of these, when it has been counted.
        after_batch: Called on the socket thread after the callbacks of one read, or of ``BATCH``
            messages of it: for who collects and passes on several at once.
        on_bug: Told on its thread of the unexpected error that ended it.
        clock: Wall and monotonic clock.
        rng: Jitter of the back-off.
        tls: Certificates to trust instead of the system's.
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
        before_connecting: Callable[[], None] | None = None,
        after_batch: Callable[[], None] | None = None,
        limiter: ConnectLimiter | None = None,
        on_attempt: Callable[[], None] | None = None,
        on_bug: Callable[[BaseException], None] | None = None,
        clock: Clock | None = None,
        rng: Random | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.category = category
        self.counts = Counts()
        self.session = 0
        """
        Names the current connection, or the last one: milliseconds since 1970 when it was made,
        and always more than the one before.
        """
        self.source = source
        """Of the current connection, or the last one."""
        self.ping_rtt_s: float | None = None
        self.last_message_ts_ns: int | None = None
        """When the last data message was received."""
        self.pace = ReadCoalescer()
        """When the reading thread rests."""
        self._on_trade = on_trade
        self._on_orderbook = on_orderbook
        self._on_link = on_link or _ignore_link
        self._on_ping = on_ping or _ignore_ping
        self._before_connecting = before_connecting
        self._after_batch = after_batch or _do_nothing
        self._limiter = limiter or ConnectLimiter()
        self._on_attempt = on_attempt
        self._on_bug = on_bug or _end_process
        self._settings = settings or ConnectorConfig()
        self._silence_matters = silence_matters
        self._clock = clock or SystemClock()
        self._tls = tls
        self._target = Target(url or STREAM_URLS["mainnet"].format(category=category), source)
        parse_url(self._target.url)
        self._backoff = Backoff(
            self._settings.backoff_initial_s, self._settings.backoff_max_s, rng or Random()
        )
        self._lock = threading.RLock()
        self._subscriptions = Subscriptions(ack_timeout_s=self._settings.ack_timeout_s)
        self._flowing = self._subscriptions.flowing
        self._streams: dict[str, dict[str, None]] = {}
        """The symbols that are wanted of each Bybit topic; several only on option trades."""
        self._connection: Connection | None = None
        self._connecting_since = math.inf
        self._is_open = False
        self._ping_due = self._ping_sent = math.inf
        self._seen_messages = 0
        self._seen_at = 0.0
        self._notices: deque[LinkNotice] = deque()
        self._missed: dict[StreamKey, None] = {}
        """Trades that were said to be missed and have not been said to flow again."""
        self._missed_topics: list[str] = []
        """The topics of the last time, unless some were said to flow since."""
        self._missed_at = 0.0
        self._missed_after = 0
        """Messages with trades before the last time."""
        self._logged: dict[str, tuple[float, int]] = {}
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._wake = threading.Event()

    # -- commands, from any thread ---------------------------------------------------------------

    def start(self, *, own_timers: bool = True) -> None:
        """
        Connect, and stay connected until ``stop``.

        Args:
            own_timers: Whether to start a second thread that calls ``check``; without it the
                caller does, every ``CHECK_S`` seconds.
        """
        self._threads.append(threading.Thread(target=self._run, name="socket", daemon=True))
        if own_timers:
            timers = threading.Thread(target=self._run_timers, name="timers", daemon=True)
            self._threads.append(timers)
        for thread in self._threads:
            thread.start()

    def stop(self) -> bool:
        """Disconnect for good; False if a thread did not end within ``JOIN_S``."""
        self._stopping.set()
        self._wake.set()
        with self._lock:
            self._abort("stopped")
        deadline = time.monotonic() + JOIN_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def is_stopping(self) -> bool:
        """Whether ``stop`` has been called."""
        return self._stopping.is_set()

    @property
    def connected(self) -> bool:
        """Whether the websocket is open."""
        return self._is_open

    @property
    def url(self) -> str:
        """Where this client connects."""
        return self._target.url

    def subscribe_trades(self, *symbols: str) -> None:
        """Receive the trades of these symbols, also after a reconnect."""
        self._add([(trades_topic(self.category, symbol), symbol) for symbol in symbols])

    def subscribe_orderbook(self, symbol: str, depth: int) -> None:
        """
        Receive the book of a symbol.

        Raises:
            ValueError: If another depth is subscribed, or this one is out of range. Whether the
                venue has it is the venue's to say: recorded captures hold depths of other years.
        """
        self.subscribe_orderbooks([(symbol, depth)])

    def subscribe_orderbooks(self, books: Sequence[tuple[str, int]]) -> None:
        """Receive several books, in as few requests as possible; see ``subscribe_orderbook``."""
        wanted = {symbol: depth for depth, symbol in self._books()}
        for symbol, depth in books:
            if not 1 <= depth <= DEPTH_MAX:
                raise ValueError(f"depth {depth} of {symbol}; allowed: 1 to {DEPTH_MAX}")
            if wanted.setdefault(symbol, depth) != depth:
                raise ValueError(f"{symbol} is subscribed at depth {wanted[symbol]}")
        self._add([(book_topic(symbol, depth), symbol) for symbol, depth in books])

    def unsubscribe_trades(self, *symbols: str) -> None:
        """Receive the trades of these symbols no longer."""
        self._remove([(trades_topic(self.category, symbol), symbol) for symbol in symbols])

    def unsubscribe_orderbook(self, *symbols: str) -> None:
        """Receive the books of these symbols no longer."""
        depths = {symbol: depth for depth, symbol in self._books()}
        self._remove([(book_topic(s, depths[s]), s) for s in symbols if s in depths])

    def resync_orderbook(self, symbol: str) -> bool:
        """Ask for a new snapshot of a book; False if it is not subscribed."""
        with self._lock:
            for depth, name in self._books():
                if name == symbol:
                    now = self._clock.monotonic()
                    return self._subscriptions.resync(book_topic(symbol, depth), now)
        return False

    def announce_trades(self, symbol: str) -> bool:
        """Tell the link handler once more that a symbol's trades flow; False if they do not."""
        topic = trades_topic(self.category, symbol)
        with self._lock:
            is_served = topic in self._served_trades()
            if is_served and symbol in self._streams[topic]:
                self._notices.append(LinkNotice("subscribed", "", [("trade", symbol)]))
                return True
        return False

    def change_source(self, url: str, source: Source) -> None:
        """
        Connect elsewhere, at once; a new session follows.

        Raises:
            ValueError: If ``url`` is no websocket address.
        """
        parse_url(url)
        with self._lock:
            self._target = Target(url, source)
            self._backoff.reset()
            self._abort("source_change")
        self._wake.set()

    def set_connect_quota(self, quota: int) -> None:
        """Allow this many connection attempts in five minutes from now on."""
        self._limiter.quota = quota

    def topics(self) -> dict[str, TopicState]:
        """The state of every wanted Bybit topic."""
        with self._lock:
            return self._subscriptions.states()

    def rejected(self) -> dict[str, str]:
        """The rejected Bybit topics, and why."""
        with self._lock:
            return self._subscriptions.rejected()

    def refused(self) -> list[str]:
        """The rejected Bybit topics that the venue itself refused."""
        with self._lock:
            return self._subscriptions.refused()

    @property
    def late_frames(self) -> int:
        """Data frames dropped because their topic waits for a snapshot or was unsubscribed."""
        return self._subscriptions.late

    @property
    def lost_acks(self) -> int:
        """Requests whose ack did not come in time."""
        return self._subscriptions.unanswered

    def check(self) -> None:
        """Do everything that is due by time; call it every ``CHECK_S`` seconds."""
        with self._lock:
            now = self._clock.monotonic()
            if now - self._connecting_since > CONNECT_TIMEOUT_S:
                self._abort("timeout")
            elif self._is_open:
                self._check_ping(now)
                self._check_silence(now)
                self._subscriptions.on_time(now)
                self._flush()
                self._check_missed(now)

    # -- on a caller's thread, with the lock -----------------------------------------------------

    def _add(self, wanted: Sequence[tuple[str, str]]) -> None:
        with self._lock:
            states = self._subscriptions.states()
            for topic, symbol in wanted:
                symbols = self._streams.setdefault(topic, {})
                if symbol not in symbols and states.get(topic) in ("confirmed", "delivering"):
                    # One more contract of a coin whose trades already flow.
                    self._notices.append(LinkNotice("subscribed", "", [("trade", symbol)]))
                symbols[symbol] = None
            topics = dict.fromkeys(topic for topic, _ in wanted)
            self._subscriptions.subscribe(topics, self._clock.monotonic())
            self._flush()

    def _remove(self, unwanted: Sequence[tuple[str, str]]) -> None:
        with self._lock:
            topics = []
            for topic, symbol in unwanted:
                symbols = self._streams.get(topic, {})
                if symbol in symbols:
                    del symbols[symbol]
                    kind = parse_exchange_topic(topic).kind
                    self._notices.append(LinkNotice("unsubscribed", "asked", [(kind, symbol)]))
                    if not symbols:
                        del self._streams[topic]
                        topics.append(topic)
            self._subscriptions.unsubscribe(topics, self._clock.monotonic())
            self._flush()

    def _books(self) -> list[tuple[int, str]]:
        parsed = [parse_exchange_topic(topic) for topic in list(self._streams)]
        return [(depth, symbol) for kind, depth, symbol in parsed if kind == "book"]

    def _check_ping(self, now: float) -> None:
        if now - self._ping_sent > self._settings.pong_timeout_s:
            self._abort("dead_peer")
        elif self._ping_due <= now and self._ping_sent == math.inf:
            self.counts.pings += 1
            self._ping_sent = now
            self._ping_due = now + self._settings.ping_interval_s
            self._send(ping_text(f"ping-{self.counts.pings}"))

    def _check_silence(self, now: float) -> None:
        messages = self.counts.trade_messages + self.counts.book_messages
        if messages != self._seen_messages or not self._streams:
            self._seen_messages, self._seen_at = messages, now
        elif self._silence_matters and now - self._seen_at > self._settings.silence_timeout_s:
            self._abort("silence")

    def _check_missed(self, now: float) -> None:
        """Say of trades that were missed that they flow, if a while has passed without more."""
        if self._missed and now - self._missed_at >= MISSED_S:
            flowing = self._streams_of(self._served_trades())
            again = [stream for stream in flowing if stream in self._missed]
            self._missed.clear()
            self._missed_topics = []
            if again:
                self._notices.append(LinkNotice("subscribed", "", again))

    def _served_trades(self) -> list[str]:
        """The topics of trades that the exchange has confirmed."""
        return [
            topic
            for topic, state in self._subscriptions.states().items()
            if state in ("confirmed", "delivering")
            and topic in self._streams
            and parse_exchange_topic(topic).kind == "trade"
        ]

    def _flush(self) -> None:
        """Send the requests that are due, log what happened, keep what must be announced."""
        for request in self._subscriptions.take_requests():
            self._send(request)
        events = self._subscriptions.take_events()
        for (kind, reason), group in groupby(events, key=lambda event: (event.kind, event.reason)):
            self._on_events(kind, reason, list(group))

    def _on_events(self, kind: EventKind, reason: str, events: list[Event]) -> None:
        topics = [event.topic for event in events]
        match kind:
            case "subscribed" | "unsubscribed":
                log.info(kind, topics=topics, **({"reason": reason} if reason else {}))
                self._notices.append(LinkNotice(kind, reason, self._streams_of(topics)))
            case "rejected":
                details = {event.topic: event.detail for event in events}
                log.warning("topics rejected", topics=details, reason=reason)
                self._notices.append(LinkNotice("rejected", reason, self._streams_of(topics)))
            case "unanswered":
                log.warning("no ack, asking again", topics=topics)
            case "silent":
                log.warning("confirmed but no snapshot, asking again", topics=topics)
            case "reconnect":
                log.warning("books not served, reconnecting", topics=topics)
                self._abort("resync")

    def _streams_of(self, topics: Sequence[str]) -> list[StreamKey]:
        return [
            (parse_exchange_topic(topic).kind, symbol)
            for topic in topics
            for symbol in self._streams.get(topic, {})
        ]

    def _send(self, text: str) -> None:
        if self._connection is not None and self._is_open:
            try:
                self._connection.websocket.send(text)
            except NETWORK_ERRORS as error:
                self._abort(failure_reason(error))

    def _abort(self, reason: FailureReason) -> None:
        if self._connection is not None:
            self._connection.abort(reason)

    # -- the timers' thread ----------------------------------------------------------------------

    def _run_timers(self) -> None:
        try:
            while not self._stopping.wait(CHECK_S):
                self.check()
        except Exception as bug:
            self._on_bug(bug)

    # -- the socket thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._before_connecting is not None:
                self._before_connecting()
            while not self._stopping.is_set():
                self._take_turn()
                reason = self._connect_and_read()
                if self._stopping.is_set():
                    break
                self._wait_before_next(reason)
        except BaseException as bug:
            self._on_bug(bug)

    def _take_turn(self) -> None:
        """Wait until the limiter allows an attempt at a live exchange, and count it."""
        is_held = False
        while self._target.source == "live" and not self._stopping.is_set():
            now = self._clock.monotonic()
            wait_s = self._limiter.wait_s(now)
            if wait_s <= 0:
                self._limiter.spend(now)
                if self._on_attempt is not None:
                    self._on_attempt()
                return
            if not is_held:
                is_held = True
                self.counts.held += 1
                log.warning(
                    "connection attempt held back",
                    quota=self._limiter.quota,
                    next_in_s=round(wait_s, 1),
                )
            self._wake.wait(min(wait_s, QUOTA_CHECK_S))
            self._wake.clear()

    def _wait_before_next(self, reason: FailureReason) -> None:
        self.counts.reconnects[reason] += 1
        if reason != "source_change":
            delay = self._backoff.next_delay_s()
            log.info("next attempt", in_s=round(delay, 1))
            self._wake.wait(delay)
        self._wake.clear()

    def _connect_and_read(self) -> FailureReason:
        """One connection, from the attempt to its end; why it ended."""
        with self._lock:
            target = self._target
            connection = Connection(target.url, tls=self._tls, time_ns=self._clock.time_ns)
            if self._stopping.is_set():
                return "stopped"
            self._connection = connection
            self._connecting_since = self._clock.monotonic()
        try:
            connection.open()
        except NETWORK_ERRORS as error:
            reason = connection.abort_reason or failure_reason(error)
            if reason not in ("stopped", "source_change"):
                self.counts.failed_connects += 1
                log.warning("cannot connect", url=target.url, reason=reason, error=_one_line(error))
            return reason
        else:
            return self._use(connection, target)
        finally:
            with self._lock:
                self._connection = None
                self._connecting_since = math.inf
            connection.close()

    def _use(self, connection: Connection, target: Target) -> FailureReason:
        """Read an open connection to its end; why it ended."""
        reason: FailureReason = "bug"
        self._open_session(target)
        try:
            error = self._read(connection)
            reason = connection.abort_reason or failure_reason(error)
            if reason != "stopped":
                log.warning(
                    "disconnected",
                    url=target.url,
                    session=self.session,
                    reason=reason,
                    error=_one_line(error),
                )
        finally:
            with self._lock:
                self._is_open = False
                self._subscriptions.on_disconnected()
            self._announce()
            self._on_link("disconnected", reason, ())
        return reason

    def _open_session(self, target: Target) -> None:
        self.counts.connects += 1
        self.session = max(self._clock.time_ns() // 1_000_000, self.session + 1)
        self.source = target.source
        self._on_link("connected", "", ())
        log.info("connected", url=target.url, session=self.session, source=target.source)
        with self._lock:
            now = self._clock.monotonic()
            self._connecting_since = math.inf
            self._is_open = True
            self._ping_due, self._ping_sent = now, math.inf
            self._seen_at = now
            self._subscriptions.on_connected(now)
            self._flush()

    def _read(self, connection: Connection) -> Exception:
        """Receive, decode and call back until the connection ends; what ended it."""
        receive, websocket = connection.websocket.receive, connection.websocket
        has_data = False
        while True:
            try:
                messages = receive()
            except NETWORK_ERRORS as error:
                return error
            if messages or websocket.binaries:
                before = self.counts.trade_messages + self.counts.book_messages
                recv_ts_ns, done = websocket.recv_ts_ns, 0
                for place, binary in websocket.binaries:
                    self._on_read(messages[done:place], recv_ts_ns)
                    self._on_refused(InvalidFrame("binary", "a binary message"), binary)
                    done = place
                self._on_read(messages[done:] if done else messages, recv_ts_ns)
                if self.counts.trade_messages + self.counts.book_messages != before:
                    self.last_message_ts_ns = recv_ts_ns
                    if not has_data:
                        has_data = True
                        self._backoff.reset()
            if self._notices:
                self._announce()
            self.pace.rest(len(messages), self._clock.monotonic())

    def _on_read(self, messages: Sequence[bytes], recv_ts_ns: int) -> None:
        for start in range(0, len(messages), BATCH):
            self._on_messages(messages[start : start + BATCH], recv_ts_ns)

    def _on_messages(self, messages: Sequence[bytes], recv_ts_ns: int) -> None:
        """At most ``BATCH`` websocket messages of one read; the hot path."""
        category, flowing, counts = self.category, self._flowing, self.counts
        for raw in messages:
            try:
                decoded = decode(raw, category, recv_ts_ns)
            except InvalidFrame as error:
                self._on_refused(error, raw)
                continue
            if type(decoded) is BookUpdate:
                topic = decoded.topic
                if topic in flowing or self._admit(topic, decoded.is_snapshot, raw):
                    counts.book_messages += 1
                    self._on_orderbook(decoded.symbol, decoded)
            elif type(decoded) is list:
                self._on_trades(decoded, raw)
            else:
                self._on_control(decoded)
        self._after_batch()

    def _on_trades(self, batches: list[TradeBatch], raw: bytes) -> None:
        if not batches:
            return
        topic = batches[0].topic
        if topic in self._flowing or self._admit(topic, True, raw):
            self.counts.trade_messages += 1
            symbols = self._streams.get(topic, {})
            for batch in batches:
                if batch.symbol in symbols:
                    self._on_trade(batch.symbol, batch)

    def _on_refused(self, error: InvalidFrame, raw: bytes) -> None:
        """Count a message, and say whose trades it may have held: books show by themselves."""
        self._on_invalid(error, raw)
        with self._lock:
            wanted = [topic for topic in self._streams if topic.startswith(TRADES_PREFIX)]
        topics = trades_in(raw, wanted)
        if not topics:
            return
        with self._lock:
            self._missed_at = self._clock.monotonic()
            is_news = self.counts.trade_messages != self._missed_after
            if not is_news and topics == self._missed_topics:
                return  # it was said, and nobody has seen trades since
            served = set(self._served_trades())
            missed = dict.fromkeys(self._streams_of([t for t in topics if t in served]))
            if not missed or not (is_news or missed.keys() - self._missed.keys()):
                return
            self._missed |= missed
            self._missed_topics = topics
            self._missed_after = self.counts.trade_messages
        self._announce()
        self._on_link("missed", error.reason, list(missed))

    def _admit(self, topic: str, is_snapshot: bool, raw: bytes) -> bool:
        """Whether data of a topic that does not simply flow is for us; the slow path."""
        with self._lock:
            passage = self._subscriptions.on_data(topic, is_snapshot, self._clock.monotonic())
            self._flush()
        if passage == "unknown":
            self._on_invalid(InvalidFrame("topic", f"{topic} was not subscribed"), raw)
        if self._notices:
            self._announce()
        return passage == "pass"

    def _on_control(self, message: object) -> None:
        now = self._clock.monotonic()
        with self._lock:
            if isinstance(message, Ack):
                self._subscriptions.on_ack(message, now)
                self._flush()
            elif isinstance(message, Pong) and self._ping_sent != math.inf:
                self.ping_rtt_s = now - self._ping_sent
                self._ping_sent = math.inf
                self._on_ping(self.ping_rtt_s)

    def _on_invalid(self, error: InvalidFrame, raw: bytes) -> None:
        self.counts.invalid[error.reason] += 1
        now = self._clock.monotonic()
        logged_at, count = self._logged.get(error.reason, (-math.inf, 0))
        if now - logged_at < LOG_EVERY_S:
            return
        total = self.counts.invalid[error.reason]
        self._logged[error.reason] = (now, total)
        log.warning(
            "invalid frame skipped",
            reason=error.reason,
            detail=error.detail[:SHOWN_BYTES],
            start=raw[:SHOWN_BYTES].decode(errors="backslashreplace"),
            bytes=len(raw),
            since_last=total - count,
        )

    def _announce(self) -> None:
        """Tell about streams, in order and before the data that follows."""
        while self._notices:
            notice = self._notices.popleft()
            if self._missed and notice.event == "subscribed":
                with self._lock:
                    self._missed_topics = []
                    for stream in notice.streams:
                        self._missed.pop(stream, None)
            self._on_link(notice.event, notice.reason, notice.streams)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _ignore_link(_event: LinkEvent, _reason: str, _streams: Sequence[StreamKey], /) -> None:
    pass


def _do_nothing() -> None:
    pass


def _ignore_ping(_rtt_s: float, /) -> None:
    pass


def _end_process(bug: BaseException) -> None:
    log.critical("bug", thread=threading.current_thread().name, exc_info=bug)
    os._exit(EX_SOFTWARE)
