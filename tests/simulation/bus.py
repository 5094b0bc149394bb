"""
ZeroMQ in memory: the sockets that our bus uses, with their delays, losses and disconnects.

Messages of one connection keep their order; messages of two connections overtake each other. A
sender that finds a queue full drops (XPUB, ROUTER) or refuses (PUSH, DEALER) the message.
"""

import struct
from collections import Counter, deque
from functools import partial
from typing import Any

import zmq

from tests.simulation.world import NEVER, Process, Thread, World

DELAY_S = (0.00005, 0.002)
RECONNECT_S = (0.02, 0.06)
DROPPING = (zmq.XPUB, zmq.ROUTER)


class Pipe:
    """One direction of a connection."""

    __slots__ = ("filters", "last", "limit", "queue", "reader", "writer")

    def __init__(self, writer: "Socket", reader: "Socket", limit: int) -> None:
        self.writer, self.reader, self.limit = writer, reader, limit
        self.queue: deque[tuple[float, list[bytes]]] = deque()
        self.last = 0.0
        self.filters: tuple[bytes, ...] = ()

    def put(self, frames: list[bytes]) -> bool:
        """Send; False if the queue is full."""
        if len(self.queue) >= self.limit:
            return False
        world = self.writer.world
        self.last = max(self.last, world.now + world.random.uniform(*DELAY_S))
        self.queue.append((self.last, frames))
        self.reader.expect(self.last)
        return True


class Link:
    """A connection from a connecting to a bound socket."""

    def __init__(self, client: "Socket", server: "Socket", endpoint: str) -> None:
        self.endpoint = endpoint
        self.client, self.server = client, server
        network = client.context.network
        self.up = Pipe(client, server, network.limit(client, server))
        self.down = Pipe(server, client, network.limit(server, client))
        self.is_open = True


class Network:
    """
    The endpoints of one machine.

    Attributes:
        queue_max: Upper limit of every queue, below those that the sockets ask for.
        counts: Messages sent, received and lost, by the kind of the sending socket.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.bound: dict[str, Socket] = {}
        self.queue_max = 1_000_000
        self.counts: Counter[str] = Counter()
        self._ports = iter(range(20_000, 60_000))

    def limit(self, writer: "Socket", reader: "Socket") -> int:
        """Messages that fit between two sockets."""
        asked: int = writer.options.get(zmq.SNDHWM, 1000) + reader.options.get(zmq.RCVHWM, 1000)
        return min(self.queue_max, asked)

    def set_limits(self) -> None:
        """Apply ``queue_max`` to the connections that are open."""
        for server in self.bound.values():
            for link in server.links:
                link.up.limit = self.limit(link.client, server)
                link.down.limit = self.limit(server, link.client)

    def bind(self, socket: "Socket", endpoint: str) -> str:
        if endpoint.endswith(":*"):
            endpoint = endpoint.removesuffix("*") + str(next(self._ports))
        if endpoint in self.bound:
            raise zmq.ZMQError(zmq.EADDRINUSE)
        self.bound[endpoint] = socket
        return endpoint

    def connect(self, client: "Socket", endpoint: str) -> None:
        """Connect as soon as the endpoint is bound, and again after each end."""

        def attempt() -> None:
            if client.is_closed or endpoint not in client.endpoints:
                return
            server = self.bound.get(endpoint)
            if server is None:
                self.world.after(self.world.random.uniform(*RECONNECT_S), attempt)
            else:
                client.open_link(server, endpoint)

        self.world.after(self.world.random.uniform(0.0002, 0.01), attempt)


class Context:
    """The sockets of one process."""

    def __init__(self, network: Network, process: Process) -> None:
        self.network, self.process = network, process
        self.sockets: list[Socket] = []

    def socket(self, kind: int) -> "Socket":
        socket = Socket(self, kind)
        self.sockets.append(socket)
        return socket

    def destroy(self, linger: int = 0) -> None:
        for socket in self.sockets:
            socket.close()

    def kill(self) -> None:
        """End like a killed process: what its input-output thread still held is lost."""
        for socket in self.sockets:
            for link in socket.links:
                out = link.up if link.client is socket else link.down
                keep = self.network.world.random.randint(0, len(out.queue))
                while len(out.queue) > keep and out.queue[-1][0] > self.network.world.now:
                    out.queue.pop()
                    self.network.counts["lost at a death"] += 1
            socket.close()


class Socket:
    """One socket; only the calls that our code makes."""

    def __init__(self, context: Context, kind: int) -> None:
        self.context, self.kind = context, kind
        self.world = context.network.world
        self.process = context.process
        self.options: dict[int, Any] = {}
        self.links: list[Link] = []
        self.inputs: list[Pipe] = []
        self.endpoints: list[str] = []
        self.bound = ""
        self.is_closed = False
        self.thread: Thread | None = None
        self._own: deque[tuple[float, list[bytes]]] = deque()
        """Subscription changes and monitor events."""
        self._unsent: deque[list[bytes]] = deque()
        self._parts: list[bytes] = []
        self._subscriptions: dict[bytes, None] = {}
        self._monitor: Socket | None = None
        self._monitored = 0
        self._identities: dict[bytes, Link] = {}

    # -- options ---------------------------------------------------------------------------------

    def setsockopt(self, option: int, value: Any) -> None:
        self.options[option] = value

    def getsockopt(self, option: int) -> int:
        assert option == zmq.EVENTS
        return zmq.POLLIN if self.is_readable() else 0

    def getsockopt_string(self, option: int) -> str:
        assert option == zmq.LAST_ENDPOINT
        return self.bound

    # -- connections -----------------------------------------------------------------------------

    def bind(self, endpoint: str) -> None:
        self.bound = self.context.network.bind(self, endpoint)

    def connect(self, endpoint: str) -> None:
        self.endpoints.append(endpoint)
        self.context.network.connect(self, endpoint)

    def disconnect(self, endpoint: str) -> None:
        self.endpoints.remove(endpoint)
        for link in [link for link in self.links if link.endpoint == endpoint]:
            self.world.after(0.0, partial(_end, link))

    def open_link(self, server: "Socket", endpoint: str) -> None:
        for socket in (self, server):
            open_pipes = [pipe for link in socket.links for pipe in (link.up, link.down)]
            socket.inputs = [pipe for pipe in socket.inputs if pipe.queue or pipe in open_pipes]
        link = Link(self, server, endpoint)
        self.links.append(link)
        server.links.append(link)
        self.inputs.append(link.down)
        if server.kind != zmq.XPUB:
            server.inputs.append(link.up)
        if server.kind == zmq.ROUTER:
            server._identities[self.options[zmq.ROUTING_ID]] = link
        self._event(zmq.EVENT_HANDSHAKE_SUCCEEDED, endpoint)
        for topic in self._subscriptions:
            self._send_subscription(link, b"\x01" + topic)
        while self._unsent:
            link.up.put(self._unsent.popleft())

    def lose(self, link: Link) -> None:
        """The other end of a connection is gone."""
        self.links.remove(link)
        if self.kind == zmq.XPUB:
            for topic in link.down.filters:
                self._unsubscribe(link, topic)
        for identity in [i for i, other in self._identities.items() if other is link]:
            del self._identities[identity]
        if link.client is self:
            self.context.network.counts["lost at a death"] += len(link.up.queue)
            self._event(zmq.EVENT_DISCONNECTED, link.endpoint)
            self.context.network.connect(self, link.endpoint)

    def close(self, linger: int | None = None) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        if self.bound:
            self.context.network.bound.pop(self.bound, None)
        for link in self.links:
            _end(link, but=self)
        if self.inputs and self.kind in (zmq.PULL, zmq.ROUTER):
            lost = sum(len(pipe.queue) for pipe in self.inputs)
            self.context.network.counts["lost at a death"] += lost

    # -- monitor ---------------------------------------------------------------------------------

    def get_monitor_socket(self, events: int) -> "Socket":
        self._monitor = self.context.socket(zmq.PAIR)
        self._monitored = events
        return self._monitor

    def disable_monitor(self) -> None:
        self._monitor = None

    def _event(self, event: int, endpoint: str) -> None:
        if self._monitor is not None and event & self._monitored:
            frames = [struct.pack("=hi", event, 0), endpoint.encode()]
            self._monitor._own.append((self.world.now, frames))
            self._monitor.expect(self.world.now)

    # -- subscriptions ---------------------------------------------------------------------------

    def subscribe(self, topic: bytes | str) -> None:
        topic = topic.encode() if isinstance(topic, str) else topic
        self._subscriptions[topic] = None
        for link in self.links:
            self._send_subscription(link, b"\x01" + topic)

    def unsubscribe(self, topic: bytes | str) -> None:
        topic = topic.encode() if isinstance(topic, str) else topic
        self._subscriptions.pop(topic, None)
        for link in self.links:
            self._send_subscription(link, b"\x00" + topic)

    def _send_subscription(self, link: Link, change: bytes) -> None:
        pipe = link.up
        pipe.last = max(pipe.last, self.world.now + self.world.random.uniform(*DELAY_S))
        server = link.server

        def arrive() -> None:
            if not link.is_open:
                return
            if change[:1] == b"\x01":
                server._subscribe(link, change[1:])
            else:
                server._unsubscribe(link, change[1:])

        self.world.at(pipe.last, arrive)

    def _subscribe(self, link: Link, topic: bytes) -> None:
        is_known = any(topic in other.down.filters for other in self.links)
        link.down.filters = (*link.down.filters, topic)
        if not is_known or self.options.get(zmq.XPUB_VERBOSE):
            self._own.append((self.world.now, [b"\x01" + topic]))
            self.expect(self.world.now)

    def _unsubscribe(self, link: Link, topic: bytes) -> None:
        if topic not in link.down.filters:
            return
        link.down.filters = tuple(other for other in link.down.filters if other != topic)
        if not any(topic in other.down.filters for other in self.links if other is not link):
            self._own.append((self.world.now, [b"\x00" + topic]))
            self.expect(self.world.now)

    # -- messages --------------------------------------------------------------------------------

    def send(self, frame: bytes, flags: int = 0) -> None:
        self._parts.append(frame)
        if not flags & zmq.SNDMORE:
            frames, self._parts = self._parts, []
            self._send(frames)

    def send_multipart(self, frames: list[bytes], flags: int = 0) -> None:
        self._send(frames)

    def _send(self, frames: list[bytes]) -> None:
        if self.is_closed:
            return
        counts = self.context.network.counts
        if self.kind == zmq.XPUB:
            for link in self.links:
                if frames[0].startswith(link.down.filters) and not link.down.put(frames):
                    counts["dropped: queue full"] += 1
                    self.world.seen["queue full"] += 1
        elif self.kind == zmq.ROUTER:
            receiver = self._identities.get(frames[0])
            if receiver is not None and not receiver.down.put(frames[1:]):
                counts["dropped: queue full"] += 1
        elif self.links:
            if not self.links[0].up.put(frames):
                self.world.seen["sender refused: queue full"] += 1
                raise zmq.Again
        elif len(self._unsent) < min(
            self.context.network.queue_max, self.options.get(zmq.SNDHWM, 1000)
        ):
            self._unsent.append(frames)
        else:
            self.world.seen["sender refused: queue full"] += 1
            raise zmq.Again

    def recv(self, flags: int = 0) -> bytes:
        return self.recv_multipart(flags)[0]

    def recv_multipart(self, flags: int = 0) -> list[bytes]:
        best: Any = None
        now = self.world.now
        if self._own and self._own[0][0] <= now:
            return self._own.popleft()[1]
        for pipe in self.inputs:
            queue = pipe.queue
            if queue and queue[0][0] <= now and (best is None or queue[0][0] < best.queue[0][0]):
                best = pipe
        if best is None or self.is_closed:
            raise zmq.Again
        _, frames = best.queue.popleft()
        if self.kind == zmq.ROUTER:
            return [best.writer.options[zmq.ROUTING_ID], *frames]
        return list(frames)

    def poll(self, timeout: int = 0) -> int:
        return zmq.POLLIN if self.is_readable() else 0

    def is_readable(self) -> bool:
        return self.next_arrival() <= self.world.now

    def next_arrival(self) -> float:
        """When the next message can be received."""
        arrivals = [pipe.queue[0][0] for pipe in self.inputs if pipe.queue]
        if self._own:
            arrivals.append(self._own[0][0])
        return min(arrivals, default=NEVER)

    def expect(self, when: float) -> None:
        """Wake the thread that polls this socket."""
        if self.thread is not None:
            self.thread.wake(when)


def _end(link: Link, but: "Socket | None" = None) -> None:
    """End a connection: the other end notices a moment later."""
    if not link.is_open:
        return
    link.is_open = False
    for socket in (link.client, link.server):
        if socket is not but and not socket.is_closed:
            if socket.kind == zmq.XPUB or link.server is socket:
                socket.lose(link)
            else:
                # Everything that the other end had sent is read before.
                noticed = max(socket.world.now + 0.001, link.down.last)
                socket.world.at(noticed, partial(_notice, socket, link))


def _notice(socket: Socket, link: Link) -> None:
    if not socket.is_closed:
        socket.lose(link)


class Poller:
    """The poll of one loop: never waits, wakes its thread instead."""

    def __init__(self) -> None:
        self.thread: Thread | None = None
        self._sources: list[Any] = []

    def register(self, source: Any, flags: int) -> None:
        self._sources.append(source)
        if isinstance(source, Socket):
            source.thread = self.thread

    def unregister(self, source: Any) -> None:
        self._sources.remove(source)

    def poll(self, timeout_ms: int) -> list[tuple[Any, int]]:
        return [
            (source, zmq.POLLIN)
            for source in self._sources
            if isinstance(source, Socket) and source.is_readable()
        ]

    def next_arrival(self) -> float:
        sockets = [source for source in self._sources if isinstance(source, Socket)]
        return min((socket.next_arrival() for socket in sockets), default=NEVER)
