"""
The market bus: decoded exchange messages from the connectors to the workers.

Every connector binds two XPUB sockets (a PUB that also sees its subscriptions). The open socket
serves everybody: one message per frame, subscribed by topic. The feed serves our own workers. Each
worker subscribes to its own name, under which the connector sends its messages in batches, and to
``name + topic`` for every topic it follows. Nothing is ever published under the latter: it only
tells the connector which worker wants which topic, and that the worker is listening.

ZeroMQ drops messages for a subscriber whose queue is full; the receiver counts them by the jump in
``bus_sequence``.
"""

import time
from collections.abc import Callable, Iterable, Iterator

import zmq
from msgspec import Struct
from zmq.utils.monitor import recv_monitor_message

from bybit_pipeline.shared.bus.sockets import LINGER_MS, RECONNECT_MS, bind, plain_send
from bybit_pipeline.shared.errors import CodecError
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.shared.wire.messages import MarketMessage
from bybit_pipeline.shared.wire.topics import TERMINATOR, is_heartbeat, topic_text

BUNDLE = 64
"""Upper limit of messages in one frame to a worker."""
DRAIN_S = 0.002
"""How often a connector reads its subscriptions; once per message would be costly."""
MARKET_QUEUE = 50_000
"""
Frames queued for a slow worker before ZeroMQ drops them: about 10 s at 5,000 messages/s, by which
time a hung worker has been restarted.
"""


class _Bundle:
    """
    The messages for one worker, sent with the next flush.

    Attributes:
        name: Name of the worker, with the terminator.
        topics: Topics that the worker follows; a bundle without topics is dropped.
        parts: Topic, record, topic, record, …
    """

    __slots__ = ("name", "parts", "topics")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.topics: set[bytes] = set()
        self.parts: list[bytes] = []


class MarketPublisher:
    """
    A connector's end of the market bus: an open socket for all, and the feed for the workers.

    Belongs to the thread that calls it. Numbers the messages (``bus_sequence``) from 1 per topic
    and session: call ``start_session`` before the first message of every websocket connection.

    Args:
        context: ZeroMQ context of the process.
        endpoint: Endpoint of the open socket; each frame is one message.
        feed_endpoint: Endpoint of the feed; each frame is a batch for one worker.
        queue: Frames that may wait for each subscriber.
        monotonic: Seconds of a monotonic clock.

    Raises:
        TakenError: If an endpoint cannot be bound.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        feed_endpoint: str,
        *,
        queue: int = MARKET_QUEUE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._open, self._feed = context.socket(zmq.XPUB), context.socket(zmq.XPUB)
        for socket in (self._open, self._feed):
            socket.setsockopt(zmq.LINGER, LINGER_MS)
            socket.setsockopt(zmq.SNDHWM, queue)
        self.endpoint = bind(self._open, endpoint)
        self.feed_endpoint = bind(self._feed, feed_endpoint)
        self._send_open, self._send_feed = plain_send(self._open), plain_send(self._feed)
        self._sequences: dict[bytes, int] = {}
        self._collected: list[tuple[bytes, bytes]] = []
        """(topic, record) pairs since the last flush."""
        self._listeners: set[bytes] = set()
        """Subscriptions on the open socket; usually none."""
        self._bundles: dict[bytes, _Bundle] = {}
        """Bundle by name of the worker."""
        self._routes: dict[bytes, list[_Bundle]] = {}
        """Bundles of the workers that follow a topic."""
        self._drain_due = 0.0

    def start_session(self) -> None:
        """Number every topic from 1 again."""
        self._sequences.clear()

    def next_sequence(self, topic: bytes) -> int:
        """Return the ``bus_sequence`` of the next message of ``topic``; call once per message."""
        sequence = self._sequences.get(topic, 0) + 1
        self._sequences[topic] = sequence
        return sequence

    def publish(self, topic: bytes, message: MarketMessage) -> None:
        """Send to all subscribers; never blocks."""
        self.drain_subscriptions()
        self.collect(topic, message)
        self.flush()

    def collect(self, topic: bytes, message: MarketMessage) -> None:
        """Send with the next ``flush``."""
        self._collected.append((topic, codec.encode_record(message)))

    def flush(self) -> None:
        """Send the collected messages in order; very recent subscribers may miss them."""
        if self._monotonic() >= self._drain_due:
            self.drain_subscriptions()
        collected, routes = self._collected, self._routes
        if self._listeners:
            for topic, record in collected:
                self._send_open(topic + record, zmq.NOBLOCK)
        for message in collected:
            for bundle in routes.get(message[0], ()):
                bundle.parts += message
        collected.clear()
        for bundle in self._bundles.values():
            for start in range(0, len(bundle.parts), 2 * BUNDLE):
                bundled = codec.encode_bundle(bundle.parts[start : start + 2 * BUNDLE])
                self._send_feed(bundle.name + bundled, zmq.NOBLOCK)
            bundle.parts.clear()

    def wait_for_workers(self, topics: Iterable[bytes], timeout_s: float) -> set[bytes]:
        """
        Wait until every topic is followed by a worker; return the topics without one.

        Call it before opening the websocket: a first snapshot without a listener is lost.
        """
        missing = set(topics).difference(self._routes)
        deadline = self._monotonic() + timeout_s
        while missing and (left := deadline - self._monotonic()) > 0:
            if self._feed.poll(int(left * 1000) + 1):
                self.drain_subscriptions()
                missing.difference_update(self._routes)
        return missing

    def drain_subscriptions(self) -> None:
        """Read new and ended subscriptions; ``flush`` does this every ``DRAIN_S``."""
        self._drain_due = self._monotonic() + DRAIN_S
        for topic, is_new in _subscription_changes(self._open):
            (self._listeners.add if is_new else self._listeners.discard)(topic)
        for text, is_new in _subscription_changes(self._feed):
            name, terminator, topic = text.partition(TERMINATOR)
            if topic:
                (self._follow if is_new else self._leave)(name + terminator, topic)

    def _follow(self, name: bytes, topic: bytes) -> None:
        bundle = self._bundles.setdefault(name, _Bundle(name))
        if topic not in bundle.topics:
            bundle.topics.add(topic)
            self._routes.setdefault(topic, []).append(bundle)

    def _leave(self, name: bytes, topic: bytes) -> None:
        bundle = self._bundles.get(name)
        if bundle is None or topic not in bundle.topics:
            return
        bundle.topics.discard(topic)
        self._routes[topic].remove(bundle)
        if not self._routes[topic]:
            del self._routes[topic]
        if not bundle.topics:
            del self._bundles[name]

    def close(self) -> None:
        """Close both sockets; pending messages get ``LINGER_MS``."""
        self._open.close()
        self._feed.close()


def _subscription_changes(socket: "zmq.Socket[bytes]") -> Iterator[tuple[bytes, bool]]:
    """Subscriptions (True) and unsubscriptions (False) since the last call."""
    while int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
        change = socket.recv(zmq.NOBLOCK)
        if change[:1] in (b"\x00", b"\x01"):
            yield change[1:], change[:1] == b"\x01"


class Received(Struct, frozen=True, gc=False):
    """A market message, and the number of messages of its topic lost just before it."""

    topic: bytes
    message: MarketMessage
    lost: int


class _Route:
    """State of a subscriber for one topic."""

    __slots__ = ("connector", "decode", "holds_data", "sequence", "session")

    def __init__(self, topic: bytes, connector: str) -> None:
        self.connector = connector
        self.decode = codec.record_decoder(topic)
        self.holds_data = not is_heartbeat(topic)
        self.session: int | None = None
        self.sequence = 0


class MarketSubscriber:
    """
    A worker's end of the market bus: one SUB connected to the feed of every connector.

    ``lost`` counts by connector the messages missing in ``bus_sequence``, except heartbeats, which
    hold no data; ``invalid`` counts unreadable frames and messages.

    Args:
        context: ZeroMQ context of the process.
        name: Name of the worker, unique among the subscribers of these connectors.
        queue: Frames that may wait.
    """

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", name: str, *, queue: int = MARKET_QUEUE
    ) -> None:
        self._name = name.encode() + TERMINATOR
        self.socket = context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, queue)
        # Subscriptions are messages too: above this mark they would be dropped silently.
        self.socket.setsockopt(zmq.SNDHWM, queue)
        self.socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        self.socket.subscribe(self._name)
        self.lost: dict[str, int] = {}
        self.invalid = 0
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        """Readable when a connector has gone; then call ``hang_ups``."""
        self._endpoints: dict[str, str] = {}
        """Name of the connector by endpoint."""
        self._routes: dict[bytes, _Route] = {}

    def connect(self, connector: str, endpoint: str) -> None:
        """Connect to a connector's feed, once; it may be bound later."""
        self.lost.setdefault(connector, 0)
        if endpoint not in self._endpoints:
            self._endpoints[endpoint] = connector
            self.socket.connect(endpoint)

    def subscribe(self, topic: bytes, connector: str) -> None:
        """Receive one topic exactly; ``topic`` ends with its terminator."""
        if topic not in self._routes:
            self._routes[topic] = _Route(topic, connector)
            self.socket.subscribe(self._name + topic)

    def unsubscribe(self, topic: bytes) -> None:
        """Stop receiving a topic and forget its sequence."""
        if self._routes.pop(topic, None) is not None:
            self.socket.unsubscribe(self._name + topic)

    def receive(self, limit: int) -> Iterator[Received]:
        """
        Yield the waiting messages, about ``limit`` at most; never blocks.

        Iterate to the end, or the rest of a frame is lost. ``lost`` of a message counts the missing
        messages before it, within a session or at the start of a new one. Messages of a topic
        unsubscribed in the meantime are dropped, and unreadable ones are counted in ``invalid``.
        """
        recv, routes = self.socket.recv, self._routes
        start, left = len(self._name), limit
        while left > 0:
            try:
                bundle = codec.decode_bundle(recv(zmq.NOBLOCK)[start:])
            except zmq.Again:
                return
            except CodecError:
                self.invalid += 1
                left -= 1
                continue
            for topic, record in bundle:
                left -= 1
                route = routes.get(topic)
                if route is None:
                    self._drop(topic, record)
                    continue
                try:
                    message = route.decode(record)
                except codec.UNREADABLE:
                    self.invalid += 1
                    continue
                session, sequence = message.session, message.bus_sequence
                if session == route.session:
                    missing = sequence - route.sequence - 1
                else:
                    missing = 0 if route.session is None else sequence - 1
                    route.session = session
                route.sequence = sequence
                if missing and route.holds_data:
                    self.lost[route.connector] += missing
                yield Received(topic, message, missing)

    def _drop(self, topic: bytes, record: bytes) -> None:
        """Drop a message of a topic unsubscribed in the meantime; count it if unreadable."""
        try:
            codec.decode_record(topic, record)
        except CodecError:
            self.invalid += 1

    def hang_ups(self) -> list[str]:
        """
        Return the connectors whose process has ended since the last call.

        Messages they sent before may still be waiting, and are valid.
        """
        gone = []
        while self.monitor.poll(0):
            endpoint = recv_monitor_message(self.monitor)["endpoint"].decode()
            gone.append(self._endpoints[endpoint])
        return gone

    def topics(self) -> list[str]:
        """Return the subscribed topics as text."""
        return [topic_text(topic) for topic in self._routes]

    def close(self) -> None:
        """Close the socket at once and discard waiting messages."""
        self.socket.disable_monitor()
        self.socket.close()
