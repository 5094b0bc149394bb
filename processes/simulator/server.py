"""
The simulated exchange's websocket server: connections, the beat, who gets what.

Decides nothing about content: requests are answered by ``protocol``, data comes from a ``feed``,
misbehaviour from ``faults``. One asyncio loop owns everything here. Every ``BEAT_S`` it takes what
is due from the feed, builds each websocket frame once, and hands each connection all its frames of
the beat in one write. A receiver that does not keep up is closed when its backlog passes the bound;
nobody ever waits for it.
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
from bybit_pipeline.processes.simulator.feed import Feed, TopicKey, stream_of
from bybit_pipeline.processes.simulator.protocol import Session
from bybit_pipeline.shared.runtime.clock import Clock, SystemClock
from bybit_pipeline.shared.settings.ports import taken
from bybit_pipeline.shared.wire.messages import Category

log = structlog.get_logger()

BEAT_S: Final = 0.01
REPLY_DELAY_S: Final = 0.01
"""
Requests are answered after this time and not at once: stock clients, the official one among them,
file their callbacks only after they have sent the request.
"""
BACKLOG_MAX: Final = 16 << 20
"""Bytes that may wait for one connection."""
BACKLOG_BEHIND: Final = 1 << 20
"""A playback stands still while so much waits for every connection."""
IDLE_TIMEOUT_S: Final = 600.0
IDLE_SCAN_S: Final = 30.0
CLOSE_TIMEOUT_S: Final = 0.3

PATHS: Final[dict[str, Category]] = {
    f"/v5/public/{category}": category for category in get_args(Category)
}

Result = TypeVar("Result")
Observer = Callable[[TopicKey, bytes], None]


@dataclass
class Counters:
    """What the server has done; read from any thread."""

    connections: int = 0
    """Open now."""
    connections_total: int = 0
    requests: int = 0
    rest_requests: int = 0
    frames: dict[str, int] = field(default_factory=lambda: {"trade": 0, "book": 0, "other": 0})
    """Data frames handed to connections, by stream."""
    overflows: int = 0
    """Connections closed because they did not keep up."""
    idle: int = 0
    """Connections closed because neither they nor we sent anything for ten minutes."""


class Client:
    """One connection: its protocol session and the frames that wait for the end of the beat."""

    __slots__ = ("active_at", "pending", "session", "websocket")

    def __init__(self, websocket: ServerConnection, session: Session, now: float) -> None:
        self.websocket = websocket
        self.session = session
        self.pending: list[bytes] = []
        self.active_at = now

    @property
    def backlog(self) -> int:
        """Bytes that the operating system has not taken yet."""
        return self.websocket.transport.get_write_buffer_size()


class Server:
    """
    The simulated exchange on one port.

    Args:
        feed: Where data comes from.
        faults: How to misbehave; may be changed while running.
        seed: Of connection ids.
        host, port: Where to listen; port 0 lets the operating system choose.
        clock: Wall clock of the data, monotonic clock of time-outs.
        backlog_max: Bytes that may wait for one connection.
        observe: Called with every data message before faults, also when it comes from a snapshot
            for a newcomer: what a faultless exchange would have sent.

    Raises:
        TakenError: From ``start``, when the port cannot be had.
    """

    def __init__(
        self,
        feed: Feed,
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
        self.counters = Counters()
        self.host = host
        self.port = port
        self._clock = clock or SystemClock()
        self._backlog_max = backlog_max
        self._observe = observe
        self._random = Random(f"{seed}:connections")
        self._clients: set[Client] = set()
        self._subscribers: dict[TopicKey, set[Client]] = {}
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
        """Listen; ``port`` is the real one afterwards."""
        quiet = logging.getLogger("bybit_pipeline.processes.simulator.websockets")
        quiet.setLevel(logging.CRITICAL)  # handshakes that break off are the visitor's business
        try:
            self._server = await serve(
                self._serve_client,
                self.host,
                self.port,
                process_request=self._check_request,
                compression=None,
                ping_interval=None,
                close_timeout=CLOSE_TIMEOUT_S,
                server_header=None,
                logger=quiet,
            )
        except OSError as error:
            raise taken("port", self.host, self.port, error) from error
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until ``stopping``; an unexpected error of any connection is raised here."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        idle_scan = due + IDLE_SCAN_S
        while not stopping.is_set():
            if self._failure is not None:
                raise self._failure
            self._beat()
            now = loop.time()
            if now >= idle_scan:
                self._close_idle(now)
                idle_scan = now + IDLE_SCAN_S
            due = max(due + BEAT_S, now)
            await _wait(stopping, due - now)

    async def stop(self) -> None:
        """Close every connection and the port, within about twice ``CLOSE_TIMEOUT_S``."""
        if self._server is None:
            return
        for client in list(self._clients):
            if client.backlog:  # a close frame would wait behind it
                client.websocket.transport.abort()
        self._server.close(code=1001)
        try:
            async with asyncio.timeout(2 * CLOSE_TIMEOUT_S):
                await self._server.wait_closed()
        except TimeoutError:
            for client in list(self._clients):
                client.websocket.transport.abort()

    # -- connections -----------------------------------------------------------------------------

    def _check_request(self, connection: ServerConnection, request: Request) -> Response | None:
        if rest.is_rest(request.path):
            return self._answer_rest(request.path)
        fault = self.faults.strikes("refuse")
        if fault:
            return connection.respond(http.HTTPStatus(fault.status), "refused\n")
        if request.path.partition("?")[0] not in PATHS:
            return connection.respond(http.HTTPStatus.NOT_FOUND, "404 page not found\n")
        return None

    def _answer_rest(self, target: str) -> Response:
        """A plain HTTP answer in the place of a handshake."""
        self.counters.rest_requests += 1
        fault = self.faults.strikes("rest")
        status, body = rest.answer(target, self.feed, self._tick(), fault=fault)
        headers = Headers(
            {
                "Content-Type": "application/json",
                "Connection": "close",
                "Content-Length": str(len(body)),
            }
        )
        return Response(status.value, status.phrase, headers, body)

    async def _serve_client(self, websocket: ServerConnection) -> None:
        request = websocket.request
        assert request is not None
        category = PATHS[request.path.partition("?")[0]]
        loop = asyncio.get_running_loop()
        client = Client(websocket, Session(category, self._connection_id()), loop.time())
        self._clients.add(client)
        self.counters.connections = len(self._clients)
        self.counters.connections_total += 1
        try:
            async for text in websocket:
                await asyncio.sleep(REPLY_DELAY_S)
                self._answer(client, text)
        except ConnectionClosed:
            pass  # gone without a close frame, or closed by us; either way it is removed below
        except Exception as error:
            self._failure = error
        finally:
            self._remove(client)

    def _connection_id(self) -> str:
        """Looks like ``d9avt8shteepr00gfc1g-4zd1x``."""
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"
        draw = self._random.choice
        return (
            "".join(draw(digits) for _ in range(20)) + "-" + "".join(draw(digits) for _ in range(5))
        )

    def _remove(self, client: Client) -> None:
        self._clients.discard(client)
        self.counters.connections = len(self._clients)
        for topic in client.session.topics:
            self._unsubscribe(client, (client.session.category, topic))

    # -- requests --------------------------------------------------------------------------------

    def _answer(self, client: Client, text: str | bytes) -> None:
        loop = asyncio.get_running_loop()
        category = client.session.category
        client.active_at = loop.time()
        self.counters.requests += 1
        now_ms = self._tick()
        reply = client.session.answer(
            text, is_topic=lambda topic: self.feed.serves((category, topic)), now_ms=now_ms
        )
        if loop.time() >= self._stalled_until or self._pongs_while_stalled:
            topics = (*reply.subscribed, *reply.unsubscribed)
            late = topics and self.faults.strikes("late_ack", (category, topics[0]))
            if late:
                loop.call_later(late.seconds, self._send_now, client, reply.text)
            else:
                client.pending.append(text_frame(reply.text))
        for topic in reply.unsubscribed:
            self._unsubscribe(client, (category, topic))
        for topic in reply.subscribed:
            self._subscribe(client, (category, topic), now_ms)
        self._flush(client)

    def _subscribe(self, client: Client, key: TopicKey, now_ms: int) -> None:
        if not self.feed.serves(key):
            return  # an option topic that is acked and stays silent
        self._subscribers.setdefault(key, set()).add(client)
        self._streams[key] = stream_of(key[1])
        is_stalled = asyncio.get_running_loop().time() < self._stalled_until
        for payload in self.feed.join(key, now_ms):
            self._note(key, payload)
            for frame in self.faults.frames(key, payload):
                if not is_stalled:
                    self._enqueue(client, key, text_frame(frame))

    def _unsubscribe(self, client: Client, key: TopicKey) -> None:
        subscribers = self._subscribers.get(key)
        if subscribers is None:
            return
        subscribers.discard(client)
        if not subscribers:
            del self._subscribers[key], self._streams[key]
            self.faults.forget(key)
            self.feed.leave(key)

    def _send_now(self, client: Client, text: bytes) -> None:
        client.pending.append(text_frame(text))
        self._flush(client)

    # -- the beat --------------------------------------------------------------------------------

    def _tick(self) -> int:
        """The wall clock in milliseconds, never going back."""
        self._now_ms = max(self._now_ms, self._clock.time_ns() // 1_000_000)
        return self._now_ms

    def _beat(self) -> None:
        if self.feed.is_elastic and self._is_everybody_behind():
            return
        loop = asyncio.get_running_loop()
        faults, touched = self.faults, set()
        for key, payload in self.feed.poll(self._tick()):
            self._note(key, payload)
            subscribers = self._subscribers.get(key)
            if not subscribers:
                continue
            if faults.active:
                self._break_connections(loop.time())
            for each in faults.frames(key, payload):
                if loop.time() < self._stalled_until:
                    continue
                frame = text_frame(each)
                for client in subscribers:
                    self._enqueue(client, key, frame)
                touched.update(subscribers)
        for client in touched:
            client.active_at = loop.time()
            self._flush(client)

    def _is_everybody_behind(self) -> bool:
        return bool(self._clients) and all(
            client.backlog > BACKLOG_BEHIND for client in self._clients
        )

    def _note(self, key: TopicKey, payload: bytes) -> None:
        if self._observe is not None:
            self._observe(key, payload)

    def _enqueue(self, client: Client, key: TopicKey, frame: bytes) -> None:
        client.pending.append(frame)
        self.counters.frames[self._streams[key]] += 1

    def _flush(self, client: Client) -> None:
        pending, client.pending = client.pending, []
        websocket = client.websocket
        if not pending or websocket.state is not State.OPEN:
            return
        websocket.transport.write(b"".join(pending))
        if client.backlog > self._backlog_max:
            self.counters.overflows += 1
            log.warning("client too slow", backlog=client.backlog)
            websocket.transport.abort()

    # -- faults of connections -------------------------------------------------------------------

    def _break_connections(self, now: float) -> None:
        stall = self.faults.strikes("stall")
        if stall:
            self._stalled_until = now + stall.seconds
            self._pongs_while_stalled = stall.pongs
        fault = self.faults.strikes("disconnect")
        if fault:
            self.disconnect(fault.code)

    def disconnect(self, code: int = 0) -> None:
        """Break every connection: with a close frame of this code, or without one."""
        for client in list(self._clients):
            if code:
                task = asyncio.ensure_future(client.websocket.close(code))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            else:
                client.websocket.transport.abort()

    def _close_idle(self, now: float) -> None:
        for client in list(self._clients):
            if now - client.active_at > IDLE_TIMEOUT_S:
                self.counters.idle += 1
                client.websocket.transport.abort()


def text_frame(payload: bytes) -> bytes:
    """An unmasked, unfragmented websocket text frame (RFC 6455, section 5.2)."""
    length = len(payload)
    if length < 126:
        return b"\x81" + length.to_bytes(1, "big") + payload
    if length < 1 << 16:
        return b"\x81\x7e" + length.to_bytes(2, "big") + payload
    return b"\x81\x7f" + length.to_bytes(8, "big") + payload


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set or the time is over; yields to the loop in any case."""
    if seconds <= 0:
        await asyncio.sleep(0)
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class ServerThread:
    """
    A server in a thread of its own, for processes and tests that have no loop.

    Args:
        server: Not started yet.
        on_death: Called on that thread when the server ended with an unexpected error.
    """

    def __init__(
        self, server: Server, *, on_death: Callable[[BaseException], None] | None = None
    ) -> None:
        self.server = server
        self.error: BaseException | None = None
        self._on_death = on_death
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
        Start and wait until the port is open.

        Raises:
            TakenError: If the port cannot be had.
        """
        self._thread.start()
        self._ready.wait()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Stop and wait for the end of the thread; harmless when it has ended."""
        if self._loop is not None and self._stopping is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it ended by itself a moment ago
                self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function on the server's thread and wait for its result."""
        assert self._loop is not None

        async def run() -> Result:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self.error = error
            if self._ready.is_set() and self._on_death is not None:
                self._on_death(error)
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
