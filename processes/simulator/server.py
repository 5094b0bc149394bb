"""
The websocket server of the simulated exchange: connections, the tick, and delivery.

Decides nothing about content: ``protocol`` answers requests, a feed supplies data, and ``faults``
decides how to misbehave. One asyncio loop owns everything here. Every ``TICK_S`` it takes the due
messages from the feed, builds each websocket frame once, and hands all frames of a connection over
in one write. A client that does not keep up is disconnected when its backlog exceeds a limit;
nothing ever waits for it.
"""

import asyncio
import contextlib
import http
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, TypeVar, get_args

import structlog
from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from bybit_pipeline.processes.simulator import rest
from bybit_pipeline.processes.simulator.faults import Faults
from bybit_pipeline.processes.simulator.feed import MarketFeed, TopicKey, stream_of
from bybit_pipeline.processes.simulator.protocol import ExchangeSession
from bybit_pipeline.shared.bybit import SIMULATOR_NAME
from bybit_pipeline.shared.runtime.clock import Clock, SystemClock
from bybit_pipeline.shared.settings.ports import taken
from bybit_pipeline.shared.wire.messages import Category

log = structlog.get_logger()

TICK_S: Final = 0.01
"""Time between two deliveries."""
REPLY_DELAY_S: Final = 0.01
"""
Delay of every reply. Common clients, the official one included, register their callback only after
they have sent the request, and would miss an immediate reply.
"""
BACKLOG_MAX: Final = 16 << 20
"""Unsent bytes of one connection before it is closed."""
BACKLOG_BEHIND: Final = 1 << 20
"""A playback pauses while every connection has more unsent bytes than this."""
IDLE_TIMEOUT_S: Final = 600.0
"""A connection without any message in this time is closed, as on the exchange."""
IDLE_SCAN_S: Final = 30.0
CLOSE_TIMEOUT_S: Final = 0.3

PATHS: Final[dict[str, Category]] = {
    f"/v5/public/{category}": category for category in get_args(Category)
}

Result = TypeVar("Result")
Observer = Callable[[TopicKey, bytes], None]


@dataclass
class ServerCounters:
    """Counts of the server; any thread may read them."""

    connections: int = 0
    """Connections that are open now."""
    connections_total: int = 0
    requests: int = 0
    rest_requests: int = 0
    frames: dict[str, int] = field(default_factory=lambda: {"trade": 0, "book": 0, "other": 0})
    """Data frames sent to connections, by stream."""
    overflows: int = 0
    """Connections closed because the client did not keep up."""
    idle: int = 0
    """Connections closed because neither side sent anything for ``IDLE_TIMEOUT_S``."""


class Connection:
    """One connection: its protocol session and the frames to send at the end of the tick."""

    __slots__ = ("active_at", "pending", "session", "websocket")

    def __init__(self, websocket: ServerConnection, session: ExchangeSession, now: float) -> None:
        self.websocket = websocket
        self.session = session
        self.pending: list[bytes] = []
        self.active_at = now

    @property
    def backlog(self) -> int:
        """Bytes not yet accepted by the operating system."""
        return self.websocket.transport.get_write_buffer_size()


class ExchangeServer:
    """
    The simulated exchange on one port.

    Args:
        feed: Source of the data messages.
        faults: Faults to inject; they may change while the server runs.
        seed: Seed of the connection ids.
        host, port: Address to listen on; with port 0 the operating system chooses.
        clock: Wall clock of the data and monotonic clock of timeouts.
        backlog_max: Unsent bytes of one connection before it is closed.
        observe: Called with every data message before faults change it, including snapshots for
            new subscribers: the messages that a faultless exchange would send.

    Raises:
        TakenError: From ``start``, if the port is taken.
    """

    def __init__(
        self,
        feed: MarketFeed,
        *,
        faults: Faults | None = None,
        seed: int = 1,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
        backlog_max: int = BACKLOG_MAX,
        observe: Observer | None = None,
    ) -> None:
        self.feed = feed
        self.faults = faults or Faults(seed=seed)
        self.counters = ServerCounters()
        self.host = host
        self.port = port
        self._clock = clock or SystemClock()
        self._backlog_max = backlog_max
        self._observe = observe
        self._random = Random(f"{seed}:connections")
        self._connections: set[Connection] = set()
        self._subscribers: dict[TopicKey, set[Connection]] = {}
        self._streams: dict[TopicKey, str] = {}
        self._now_ms = 0
        self._stalled_until = 0.0
        self._pongs_while_stalled = False
        self._failure: BaseException | None = None
        self._closing: set[asyncio.Future[None]] = set()
        self._server: WebSocketServer | None = None

    @property
    def url(self) -> str:
        """``ws://HOST:PORT/v5/public/{category}``, with the placeholder."""
        return f"ws://{self.host}:{self.port}/v5/public/{{category}}"

    async def start(self) -> None:
        """Start to listen; ``port`` is the actual one afterwards."""
        quiet = logging.getLogger("bybit_pipeline.processes.simulator.websockets")
        quiet.setLevel(logging.CRITICAL)  # a handshake that the client breaks off is no error here
        try:
            self._server = await serve(
                self._serve_connection,
                self.host,
                self.port,
                process_request=self._check_request,
                compression=None,
                ping_interval=None,
                close_timeout=CLOSE_TIMEOUT_S,
                server_header=SIMULATOR_NAME,
                logger=quiet,
            )
        except OSError as error:
            raise taken("port", self.host, self.port, error) from error
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until ``stopping`` is set; raise an unexpected error of any connection."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        next_scan = due + IDLE_SCAN_S
        while not stopping.is_set():
            if self._failure is not None:
                raise self._failure
            self._tick()
            now = loop.time()
            if now >= next_scan:
                self._close_idle(now)
                next_scan = now + IDLE_SCAN_S
            due = max(due + TICK_S, now)
            await _wait(stopping, due - now)

    async def stop(self) -> None:
        """Close every connection and the port, within about twice ``CLOSE_TIMEOUT_S``."""
        if self._server is None:
            return
        for connection in list(self._connections):
            if connection.backlog:  # the close frame would wait behind it
                connection.websocket.transport.abort()
        self._server.close(code=1001)
        try:
            async with asyncio.timeout(2 * CLOSE_TIMEOUT_S):
                await self._server.wait_closed()
        except TimeoutError:
            for connection in list(self._connections):
                connection.websocket.transport.abort()

    # -- connections -----------------------------------------------------------------------------

    def _check_request(self, connection: ServerConnection, request: Request) -> Response | None:
        if rest.is_rest(request.path):
            return self._respond_rest(request.path)
        fault = self.faults.trigger("refuse")
        if fault:
            response = connection.respond(http.HTTPStatus(fault.status), "refused\n")
            if fault.retry_after:
                response.headers["Retry-After"] = str(fault.retry_after)
            return response
        if request.path.partition("?")[0] not in PATHS:
            return connection.respond(http.HTTPStatus.NOT_FOUND, "404 page not found\n")
        return None

    def _respond_rest(self, target: str) -> Response:
        """Return a plain HTTP response instead of a handshake."""
        self.counters.rest_requests += 1
        fault = self.faults.trigger("rest")
        status, body = rest.respond(target, self.feed, self._now(), fault=fault)
        headers = Headers(
            {
                "Content-Type": "application/json",
                "Connection": "close",
                "Content-Length": str(len(body)),
            }
        )
        return Response(status.value, status.phrase, headers, body)

    async def _serve_connection(self, websocket: ServerConnection) -> None:
        request = websocket.request
        assert request is not None
        category = PATHS[request.path.partition("?")[0]]
        loop = asyncio.get_running_loop()
        session = ExchangeSession(category, self._connection_id())
        connection = Connection(websocket, session, loop.time())
        self._connections.add(connection)
        self.counters.connections = len(self._connections)
        self.counters.connections_total += 1
        try:
            async for text in websocket:
                await asyncio.sleep(REPLY_DELAY_S)
                self._answer(connection, text)
        except ConnectionClosed:
            pass  # gone without a close frame, or closed by us: removed below in both cases
        except Exception as error:
            self._failure = error
        finally:
            self._remove(connection)

    def _connection_id(self) -> str:
        """Return an id such as ``d9avt8shteepr00gfc1g-4zd1x``."""
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"
        draw = self._random.choice
        return (
            "".join(draw(digits) for _ in range(20)) + "-" + "".join(draw(digits) for _ in range(5))
        )

    def _remove(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.counters.connections = len(self._connections)
        for topic in connection.session.topics:
            self._unsubscribe(connection, (connection.session.category, topic))

    # -- requests --------------------------------------------------------------------------------

    def _answer(self, connection: Connection, text: str | bytes) -> None:
        loop = asyncio.get_running_loop()
        category = connection.session.category
        connection.active_at = loop.time()
        self.counters.requests += 1
        now_ms = self._now()
        reply = connection.session.answer(
            text,
            is_topic=lambda topic: self.feed.serves((category, topic)),
            is_unavailable=lambda topic: bool(
                self.faults.trigger("unavailable", (category, topic))
            ),
            now_ms=now_ms,
        )
        if loop.time() >= self._stalled_until or self._pongs_while_stalled:
            topics = (*reply.subscribed, *reply.unsubscribed)
            late = topics and self.faults.trigger("late_ack", (category, topics[0]))
            if late:
                loop.call_later(late.seconds, self._send_now, connection, reply.text)
            else:
                connection.pending.append(text_frame(reply.text))
        for topic in reply.unsubscribed:
            self._unsubscribe(connection, (category, topic))
        for topic in reply.subscribed:
            self._subscribe(connection, (category, topic), now_ms)
        self._flush(connection)

    def _subscribe(self, connection: Connection, key: TopicKey, now_ms: int) -> None:
        if not self.feed.serves(key):
            return  # an option topic that is acked but does not exist
        self._subscribers.setdefault(key, set()).add(connection)
        self._streams[key] = stream_of(key[1])
        is_stalled = asyncio.get_running_loop().time() < self._stalled_until
        for payload in self.feed.join(key, now_ms):
            self._notify_observer(key, payload)
            for frame in self.faults.apply(key, payload):
                if not is_stalled:
                    self._enqueue(connection, key, text_frame(frame))

    def _unsubscribe(self, connection: Connection, key: TopicKey) -> None:
        subscribers = self._subscribers.get(key)
        if subscribers is None:
            return
        subscribers.discard(connection)
        if not subscribers:
            del self._subscribers[key], self._streams[key]
            self.faults.discard_topic(key)
            self.feed.leave(key)

    def _send_now(self, connection: Connection, text: bytes) -> None:
        connection.pending.append(text_frame(text))
        self._flush(connection)

    # -- the tick --------------------------------------------------------------------------------

    def _now(self) -> int:
        """Return the wall clock in milliseconds; it never goes back."""
        self._now_ms = max(self._now_ms, self._clock.time_ns() // 1_000_000)
        return self._now_ms

    def _tick(self) -> None:
        if self.feed.is_elastic and self._is_every_connection_behind():
            return
        loop = asyncio.get_running_loop()
        faults, touched = self.faults, set()
        for key, payload in self.feed.poll(self._now()):
            self._notify_observer(key, payload)
            subscribers = self._subscribers.get(key)
            if not subscribers:
                continue
            if faults.active:
                self._inject_connection_faults(loop.time())
            for each in faults.apply(key, payload):
                if loop.time() < self._stalled_until:
                    continue
                frame = text_frame(each)
                for connection in subscribers:
                    self._enqueue(connection, key, frame)
                touched.update(subscribers)
        for connection in touched:
            connection.active_at = loop.time()
            self._flush(connection)

    def _is_every_connection_behind(self) -> bool:
        return bool(self._connections) and all(
            connection.backlog > BACKLOG_BEHIND for connection in self._connections
        )

    def _notify_observer(self, key: TopicKey, payload: bytes) -> None:
        if self._observe is not None:
            self._observe(key, payload)

    def _enqueue(self, connection: Connection, key: TopicKey, frame: bytes) -> None:
        connection.pending.append(frame)
        self.counters.frames[self._streams[key]] += 1

    def _flush(self, connection: Connection) -> None:
        pending, connection.pending = connection.pending, []
        websocket = connection.websocket
        if not pending or websocket.state is not State.OPEN:
            return
        websocket.transport.write(b"".join(pending))
        if connection.backlog > self._backlog_max:
            self.counters.overflows += 1
            log.warning("slow client disconnected", backlog_bytes=connection.backlog)
            websocket.transport.abort()

    # -- faults of connections -------------------------------------------------------------------

    def _inject_connection_faults(self, now: float) -> None:
        stall = self.faults.trigger("stall")
        if stall:
            self._stalled_until = now + stall.seconds
            self._pongs_while_stalled = stall.pongs
        fault = self.faults.trigger("disconnect")
        if fault:
            self.disconnect(fault.code)

    def disconnect(self, code: int = 0) -> None:
        """Break every connection, with a close frame if a code is given."""
        for connection in list(self._connections):
            if code:
                task = asyncio.ensure_future(connection.websocket.close(code))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            else:
                connection.websocket.transport.abort()

    def _close_idle(self, now: float) -> None:
        for connection in list(self._connections):
            if now - connection.active_at > IDLE_TIMEOUT_S:
                self.counters.idle += 1
                connection.websocket.transport.abort()


def text_frame(payload: bytes) -> bytes:
    """Return an unmasked, unfragmented websocket text frame (RFC 6455, section 5.2)."""
    length = len(payload)
    if length < 126:
        return b"\x81" + length.to_bytes(1, "big") + payload
    if length < 1 << 16:
        return b"\x81\x7e" + length.to_bytes(2, "big") + payload
    return b"\x81\x7f" + length.to_bytes(8, "big") + payload


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event up to ``seconds``; always yield to the loop at least once."""
    if seconds <= 0:
        await asyncio.sleep(0)
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class ServerThread:
    """
    Runs a server in a separate thread, for processes and tests without an asyncio loop.

    Args:
        server: The server, not started yet.
        on_crash: Called in that thread after an unexpected error has ended the server.
    """

    def __init__(
        self, server: ExchangeServer, *, on_crash: Callable[[], None] | None = None
    ) -> None:
        self.server = server
        self.error: BaseException | None = None
        self._on_crash = on_crash
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._main, name="simulator", daemon=True)

    def __enter__(self) -> "ServerThread":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """
        Start the thread and wait until the port is open.

        Raises:
            TakenError: If the port is taken.
        """
        self._thread.start()
        self._ready.wait()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Stop the server and wait for its thread; do nothing if it has ended already."""
        if self._loop is not None and self._stopping is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function in the server's thread and return its result."""
        assert self._loop is not None

        async def run() -> Result:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self.error = error
            if self._ready.is_set() and self._on_crash is not None:
                self._on_crash()
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        await self.server.start()
        self._ready.set()
        try:
            await self.server.run(self._stopping)
        finally:
            await self.server.stop()
