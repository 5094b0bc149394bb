"""
The subscriber's side of the metrics socket, for Python users.

    with PipelineClient() as client:
        client.subscribe("BTCUSDT")
        for topic, payload in client:
            print(client.get_tpm("BTCUSDT", "60s"), client.get_snapshot("BTCUSDT"))

One thread owns the socket and keeps the last message of every topic; the getters read those from
any thread. What was not received is None, and nothing is kept once the connection is gone. What
has no getter of its own is in ``get_message``.

Numbers of a book are None unless the book is live. Numbers of trades count what was observed: for
the first minute of a 60-second window, and after a gap, that is less than happened, and the
window's ``coverage_s`` (``get_coverage_s``) says how much of it was seen.
"""

import json
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, cast

import zmq
from zmq.utils.monitor import recv_monitor_message

from bybit_pipeline.shared.bus.metrics import METRIC_QUEUE
from bybit_pipeline.shared.bus.sockets import RECONNECT_MS
from bybit_pipeline.shared.errors import CodecError, NoPipelineError
from bybit_pipeline.shared.settings.config import own_run_dir
from bybit_pipeline.shared.settings.curve_keys import ClientKeys, read_client_keys
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.shared.wire.messages import Category, Level, Source
from bybit_pipeline.shared.wire.topics import metric_topic

MARKET_KINDS = ("trades", "orderbook", "density", "gap")
MAX_WAITING = 10_000
"""Messages that an iteration may fall behind before the oldest are dropped."""
EPOCHS_KEPT = 4
"""A topic with two publishers (``gap``) has two epochs at a time, and each its own numbers."""
RECEIVE_LIMIT = 1_000
RETRY_REFUSED_S = 2.0
HEARTBEAT_MS = 2_000
HEARTBEAT_TIMEOUT_MS = 6_000
"""So often ZeroMQ asks whether the line is alive, and so long it waits for anything to come."""
BPS = 10_000

DensitySide = Literal["bid", "ask"]


class Metric(NamedTuple):
    """One message of the metrics socket."""

    topic: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    A book as last published; numbers are None and levels empty unless ``state`` is ``live``.

    ``bids`` and ``asks`` are ``(price, size)`` pairs, best first.
    """

    category: str
    symbol: str
    source: Source
    state: str
    reason: str | None
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    best_bid: float | None
    best_ask: float | None
    mid_price: float | None
    spread_bps: float | None
    update_id: int | None
    match_ts_ms: int | None


@dataclass(frozen=True, slots=True)
class Density:
    """A wall in a book, as last published (contract section 3)."""

    side: DensitySide
    price: float
    size: float
    initial_size: float
    peak_size: float
    strength: float
    eaten_ratio: float
    pulled_ratio: float
    traded_size: float
    distance_bps: float
    first_seen_ms: int
    age_ms: int
    uncertain: bool = False


_DENSITY_FIELDS = frozenset(field.name for field in fields(Density))


class PipelineClient:
    """
    The last message of every topic of a pipeline, and all of them as they come.

    Starts with the whole pipeline; the first ``subscribe`` narrows it to the symbols asked for.
    All methods may be called from any thread. Use it as a context manager, or ``open`` and
    ``close`` it.

    Args:
        endpoint: Of the metrics socket; found in the run directory by default.
        run_dir: Of the pipeline; the default one by default.
        keys: Directory with ``client.key`` and ``server.pub``, for a metrics socket with CURVE;
            found in the run directory by default, unless an endpoint is given.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        run_dir: str | Path | None = None,
        keys: str | Path | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._keys = keys
        self._run_dir = run_dir
        self._lock = threading.Lock()
        self._values: dict[str, dict[str, Any]] = {}
        self._numbers: dict[str, dict[str, int]] = {}
        self._wanted: set[str] | None = None
        """Topics asked for; None for all."""
        self._feeds: list[_Feed] = []
        self._source: Source | None = None
        self._connected = False
        self._lost = 0
        self._dropped = 0
        self._invalid = 0
        self._refused = 0
        self._reader: _Reader | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """
        Connect, in the background, now and whenever the connection is lost.

        Raises:
            NoPipelineError: If no pipeline runs in the run directory, or the endpoint is none.
            ConfigError: If the keys cannot be used.
        """
        with self._lock:
            if self._reader is not None:
                return
            reader = _Reader(self, *self._find())
            prefixes = {""} if self._wanted is None else self._wanted
            reader.tell([("subscribe", prefix) for prefix in prefixes])
            self._reader = reader
        try:
            reader.start()
        except BaseException:
            with self._lock:
                self._reader = None
            raise

    def close(self) -> None:
        """Close the connection; iterations end. What was received stays readable no longer."""
        with self._lock:
            reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    # -- what is received ------------------------------------------------------------------------

    def subscribe(self, symbol: str, category: Category = "linear") -> None:
        """Receive a symbol's topics; the first call ends receiving everything."""
        with self._lock:
            first = self._wanted is None
            wanted = set() if self._wanted is None else self._wanted
            new = _topics(symbol, category) - wanted
            self._wanted = wanted | new
            if first:
                self._forget(set(self._values) - new)
            self._tell_reader([*(("subscribe", t) for t in new)] + [("unsubscribe", "")] * first)

    def unsubscribe(self, symbol: str, category: Category = "linear") -> None:
        """
        Receive a symbol's topics no longer, and forget what came.

        Nothing changes before the first ``subscribe``, while everything is received.
        """
        with self._lock:
            if self._wanted is None:
                return
            gone = _topics(symbol, category) & self._wanted
            self._wanted -= gone
            self._forget(gone)
            self._tell_reader([("unsubscribe", topic) for topic in gone])

    @property
    def connected(self) -> bool:
        """Whether the metrics socket is connected now."""
        return self._connected

    @property
    def source(self) -> Source | None:
        """Where the data of the last message came from: ``live``, ``sim`` or ``replay``."""
        return self._source

    @property
    def lost(self) -> int:
        """
        Messages missed: the holes in ``seq``, per topic and epoch.

        What a topic published before its first message here, or before the first of a new epoch,
        is not counted.
        """
        return self._lost

    @property
    def dropped(self) -> int:
        """Messages that an iteration was too slow for; the getters had them all the same."""
        return self._dropped

    @property
    def invalid(self) -> int:
        """Messages that could not be read."""
        return self._invalid

    @property
    def refused(self) -> int:
        """How often the pipeline turned us away: our key is not allowed there."""
        return self._refused

    def __iter__(self) -> Iterator[Metric]:
        """Messages until the client is closed; see ``messages``."""
        return self.messages()

    def messages(self, timeout_s: float | None = None) -> Iterator[Metric]:
        """
        The last message of every topic, then each new one as it comes, repeats left out.

        Ends when the client is closed, or when nothing came for ``timeout_s``. An iteration that
        falls behind by ``MAX_WAITING`` messages loses the oldest (``dropped``).

        Raises:
            RuntimeError: If the client is not open.
        """
        with self._lock:
            if self._reader is None:
                raise RuntimeError("the client is not open")
            feed = _Feed(Metric(topic, payload) for topic, payload in self._values.items())
            self._feeds.append(feed)
        return self._iterate(feed, timeout_s)

    def _iterate(self, feed: "_Feed", timeout_s: float | None) -> Iterator[Metric]:
        try:
            while (metric := feed.get(timeout_s)) is not None:
                yield metric
        finally:
            with self._lock:
                if feed in self._feeds:
                    self._feeds.remove(feed)

    def topics(self, prefix: str = "") -> list[str]:
        """The topics that begin with ``prefix`` and of which there is a last message."""
        with self._lock:
            return [topic for topic in self._values if topic.startswith(prefix)]

    def get_message(self, topic: str) -> dict[str, Any] | None:
        """
        The last message of a topic such as ``trades.linear.BTCUSDT`` or ``process.forwarder``.

        Its fields are in docs/reference/wire-format.md. Do not change it: others read it as well.
        """
        return self._values.get(topic)

    # -- trades ----------------------------------------------------------------------------------

    def get_tpm(
        self, symbol: str, window: str = "60s", category: Category = "linear"
    ) -> float | None:
        """Trades a minute over a window; too low while that is not covered."""
        return self._window(symbol, window, category, "tpm")

    def get_coverage_s(
        self, symbol: str, window: str = "60s", category: Category = "linear"
    ) -> float | None:
        """How many seconds of a window were observed; its full length when nothing is missing."""
        return self._window(symbol, window, category, "coverage_s")

    def get_tps(self, symbol: str, category: Category = "linear") -> float | None:
        """Trades a second over 10 seconds."""
        trades = self._last("trades", symbol, category)
        return None if trades is None else _number(trades.get("tps"))

    def get_vol_delta(
        self, symbol: str, window: str = "60s", category: Category = "linear"
    ) -> float | None:
        """Bought minus sold size over a window."""
        return self._window(symbol, window, category, "vol_delta")

    def get_buy_sell_ratio(
        self, symbol: str, window: str = "60s", category: Category = "linear"
    ) -> float | None:
        """Bought over sold size of a window; None without sells."""
        return self._window(symbol, window, category, "buy_sell_ratio")

    # -- books -----------------------------------------------------------------------------------

    def get_snapshot(self, symbol: str, category: Category = "linear") -> Snapshot | None:
        """The book as last published, in whatever state it is."""
        book = self._last("orderbook", symbol, category)
        if book is None:
            return None
        return Snapshot(
            category=category,
            symbol=symbol,
            source=book["source"],
            state=book["state"],
            reason=book.get("reason"),
            bids=tuple((price, size) for price, size in book.get("bids") or ()),
            asks=tuple((price, size) for price, size in book.get("asks") or ()),
            best_bid=_number(book.get("best_bid")),
            best_ask=_number(book.get("best_ask")),
            mid_price=_number(book.get("mid_price")),
            spread_bps=_number(book.get("spread_bps")),
            update_id=book.get("update_id"),
            match_ts_ms=book.get("match_ts_ms"),
        )

    def get_imbalance(
        self, symbol: str, levels: int = 10, category: Category = "linear"
    ) -> float | None:
        """Imbalance of the best ``levels`` levels, in [-1, 1]; None unless that is published."""
        return _number(self._by_number("imbalance", symbol, levels, category))

    def get_aggregated_depth(
        self,
        symbol: str,
        side: DensitySide,
        range_bps: float = 50,
        category: Category = "linear",
    ) -> float | None:
        """
        Size on one side within ``range_bps`` of the mid; None unless that band is published.

        At least that much where the band reaches beyond the visible book: see ``bid_complete`` and
        ``ask_complete`` in the message.

        Raises:
            ValueError: If ``side`` is neither ``bid`` nor ``ask``.
        """
        _check_side(side)
        band = self._by_number("depth", symbol, range_bps, category)
        return None if band is None else _number(band[side])

    def get_densities(self, symbol: str, category: Category = "linear") -> list[Density] | None:
        """The walls tracked now; None without a live book."""
        book = self._last("orderbook", symbol, category)
        if book is None or book["state"] != "live":
            return None
        return [
            Density(**{name: value for name, value in wall.items() if name in _DENSITY_FIELDS})
            for wall in book.get("densities") or ()
        ]

    def get_density_at_price(
        self,
        symbol: str,
        price: float,
        side: DensitySide,
        tolerance_bps: float = 10,
        category: Category = "linear",
    ) -> Density | None:
        """
        The wall of a side that is nearest to ``price``, within ``tolerance_bps`` of it.

        Raises:
            ValueError: If ``side`` is neither ``bid`` nor ``ask``.
        """
        _check_side(side)
        near = [
            wall
            for wall in self.get_densities(symbol, category) or ()
            if wall.side == side and abs(wall.price - price) <= price * tolerance_bps / BPS
        ]
        return min(near, key=lambda wall: abs(wall.price - price), default=None)

    # -- the reading thread's side ---------------------------------------------------------------

    def _on_frames(self, frames: list[bytes]) -> None:
        """Take in one message of the socket."""
        try:
            topic = frames[0].decode()
            payload = codec.decode_map(frames[-1])
        except (CodecError, UnicodeDecodeError):
            self._invalid += 1
            return
        with self._lock:
            if self._wanted is not None and topic not in self._wanted:
                return  # a longer name with the same beginning, or on its way when unsubscribed
            if not self._is_new(topic, payload):
                self._values.setdefault(topic, payload)
                return
            self._values[topic] = payload
            if topic.partition(".")[0] in MARKET_KINDS:
                self._source = payload["source"]
            metric = Metric(topic, payload)
            for feed in self._feeds:
                self._dropped += feed.put(metric)

    def _is_new(self, topic: str, payload: dict[str, Any]) -> bool:
        """Whether a message is no repeat; counts the hole before it."""
        epoch, number = payload.get("epoch"), payload.get("seq")
        if epoch is None or number is None:
            return True
        numbers = self._numbers.setdefault(topic, {})
        last = numbers.pop(epoch, None)
        numbers[epoch] = number if last is None else max(number, last)
        if len(numbers) > EPOCHS_KEPT:
            del numbers[next(iter(numbers))]
        if last is None:
            return True
        self._lost += max(0, number - last - 1)
        return cast(bool, number > last)

    def _on_connection(self, is_connected: bool) -> None:
        """The link to the pipeline came or went; nothing old passes for current without it."""
        with self._lock:
            self._connected = is_connected
            if not is_connected:
                self._values.clear()
                self._source = None

    def _on_refusal(self) -> None:
        """The pipeline does not know our key."""
        self._refused += 1

    def _on_end(self) -> None:
        """The thread ends: nothing more comes."""
        self._on_connection(False)
        with self._lock:
            for feed in self._feeds:
                feed.end()

    # -- helpers ---------------------------------------------------------------------------------

    def _find(self) -> tuple[str, ClientKeys | None]:
        """The endpoint and the keys for it."""
        endpoint, keys = self._endpoint, self._keys
        if endpoint is None:
            endpoint, found = _find_endpoint(self._run_dir)
            keys = keys or found
        return endpoint, read_client_keys(Path(keys)) if keys else None

    def _last(self, kind: str, symbol: str, category: str) -> dict[str, Any] | None:
        return self._values.get(f"{kind}.{category}.{symbol}")

    def _window(self, symbol: str, window: str, category: str, name: str) -> float | None:
        trades = self._last("trades", symbol, category)
        measures = None if trades is None else trades["windows"].get(window)
        return None if measures is None else _number(measures[name])

    def _by_number(self, name: str, symbol: str, number: float, category: str) -> Any:
        """An entry of a map whose keys are numbers as text."""
        book = self._last("orderbook", symbol, category)
        entries = None if book is None else book.get(name)
        for key, value in (entries or {}).items():
            if float(key) == number:
                return value
        return None

    def _forget(self, topics: set[str]) -> None:
        for topic in topics:
            self._values.pop(topic, None)
            self._numbers.pop(topic, None)

    def _tell_reader(self, commands: list[tuple[str, str]]) -> None:
        if self._reader is not None:
            self._reader.tell(commands)


class _Feed:
    """The messages that wait for one iteration; the oldest go when there are too many."""

    def __init__(self, first: Iterator[Metric]) -> None:
        self._waiting = deque(first, maxlen=MAX_WAITING)
        self._is_ended = False
        self._changed = threading.Condition()

    def put(self, metric: Metric) -> int:
        """Add a message; the number of messages dropped for it."""
        with self._changed:
            dropped = len(self._waiting) == MAX_WAITING
            self._waiting.append(metric)
            self._changed.notify()
        return int(dropped)

    def end(self) -> None:
        """No more messages."""
        with self._changed:
            self._is_ended = True
            self._changed.notify()

    def get(self, timeout_s: float | None) -> Metric | None:
        """The next message; None at the end or after the timeout."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._is_ended, timeout_s)
            return self._waiting.popleft() if self._waiting else None


class _Reader:
    """The thread that owns the socket; told what to subscribe through a queue and an eventfd."""

    def __init__(
        self, client: PipelineClient, endpoint: str, keys: ClientKeys | None = None
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._keys = keys
        self._retry_at: float | None = None
        self._commands: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="pipeline-client", daemon=True)

    def start(self) -> None:
        """
        Start the thread; returns when the socket is made.

        Raises:
            NoPipelineError: If the endpoint is none.
        """
        self._thread.start()
        try:
            self._opened.result()
        except BaseException:
            self._thread.join()
            os.close(self._wakeup)
            raise

    def tell(self, commands: list[tuple[str, str]]) -> None:
        """Pass commands to the thread: ``subscribe`` or ``unsubscribe`` a prefix, ``close``."""
        for command in commands:
            self._commands.put(command)
        os.eventfd_write(self._wakeup, 1)

    def close(self) -> None:
        """End the thread and wait for it."""
        self.tell([("close", "")])
        self._thread.join()
        os.close(self._wakeup)

    def _run(self) -> None:
        context = zmq.Context()
        try:
            self._loop(context)
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)
        finally:
            self._client._on_end()
            context.destroy(linger=0)

    def _loop(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        socket = context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, METRIC_QUEUE)
        # Subscriptions are messages as well: those over this mark would be dropped in silence.
        socket.setsockopt(zmq.SNDHWM, METRIC_QUEUE)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        # A line that passes nothing and does not end is one that is lost.
        socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        socket.setsockopt(zmq.MAXMSGSIZE, codec.MAX_FRAME_BYTES)
        if self._keys is not None:
            self._keys.apply(socket)
        monitor = socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        try:
            socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            socket.disable_monitor()
            raise NoPipelineError(f"cannot use {self._endpoint}: {error}") from error
        self._opened.set_result(None)
        poller = zmq.Poller()
        for source in (socket, monitor, self._wakeup):
            poller.register(source, zmq.POLLIN)
        while True:
            wait_ms = None if self._retry_at is None else int(RETRY_REFUSED_S * 1000)
            ready = dict(poller.poll(wait_ms))
            self._retry(socket)
            if self._wakeup in ready and not self._obey(socket):
                break
            if monitor in ready:
                self._watch_link(socket, monitor)
            self._receive(socket, RECEIVE_LIMIT)
        socket.disable_monitor()

    def _retry(self, socket: "zmq.Socket[bytes]") -> None:
        """Knock again some time after a refusal: ZeroMQ itself would never."""
        if self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._retry_at = None
            socket.disconnect(self._endpoint)
            socket.connect(self._endpoint)

    def _obey(self, socket: "zmq.Socket[bytes]") -> bool:
        """Do what was told; False when that was to close."""
        os.eventfd_read(self._wakeup)
        while not self._commands.empty():
            command, prefix = self._commands.get()
            if command == "close":
                return False
            (socket.subscribe if command == "subscribe" else socket.unsubscribe)(prefix)
        return True

    def _receive(self, socket: "zmq.Socket[bytes]", limit: int) -> None:
        for _ in range(limit):
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._client._on_frames(frames)

    def _watch_link(self, socket: "zmq.Socket[bytes]", monitor: "zmq.Socket[bytes]") -> None:
        """Follow the connection to its present state; after a loss, drop what still waits."""
        is_connected = False
        while monitor.poll(0):
            event = recv_monitor_message(monitor)["event"]
            is_connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._client._on_refusal()
                self._retry_at = time.monotonic() + RETRY_REFUSED_S
        if not is_connected:
            self._receive(socket, METRIC_QUEUE)
        self._client._on_connection(is_connected)


def _find_endpoint(run_dir: str | Path | None) -> tuple[str, str | None]:
    """The metrics endpoint of a running pipeline, and the directory of its keys if it has any."""
    path = Path(run_dir or own_run_dir()) / "endpoints.json"
    try:
        endpoints = json.loads(path.read_text())
        return str(endpoints["metrics"]), endpoints.get("keys")
    except OSError as error:
        raise NoPipelineError(f"no pipeline runs in {path.parent}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise NoPipelineError(f"{path} names no metrics endpoint") from error


def _topics(symbol: str, category: Category) -> set[str]:
    return {metric_topic(kind, category, symbol).decode() for kind in MARKET_KINDS}


def _number(value: Any) -> float | None:
    return None if value is None else cast(float, value)


def _check_side(side: str) -> None:
    if side not in ("bid", "ask"):
        raise ValueError(f"side: {side!r}; allowed: bid, ask")
