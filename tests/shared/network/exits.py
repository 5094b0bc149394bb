"""Addresses and proxies that behave in one way each, over real sockets."""

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

GREETING = b"hello"


@contextmanager
def listener(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that handles every connection in a thread of its own."""
    server = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def serve_one(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            handle(connection)

    def serve_all() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                connections.append(connection)
                threading.Thread(target=serve_one, args=(connection,), daemon=True).start()

    threading.Thread(target=serve_all, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        for one in (server, *connections):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def greets(connection: socket.socket) -> None:
    """An exchange: it sends a greeting, and stays."""
    connection.sendall(GREETING)
    connection.recv(1)


def stays_mute(connection: socket.socket) -> None:
    """Accepts connections and never sends anything."""
    while connection.recv(4096):
        pass


@contextmanager
def swallowing() -> Iterator[int]:
    """A port that swallows every packet: its queue is full, and nobody accepts."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        try:
            yield server.getsockname()[1]
        finally:
            for filler in fillers:
                filler.close()


@contextmanager
def closed() -> Iterator[int]:
    """A port without a listener, which no other program takes."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def resolve(monkeypatch: pytest.MonkeyPatch, **hosts: list[int]) -> None:
    """Let the resolver know these hosts (``_`` is a dot): ports of this machine, in this order."""
    known = {name.replace("_", "."): ports for name, ports in hosts.items()}
    original = socket.getaddrinfo

    def look_up(host: str, *rest: Any, **more: Any) -> Any:
        if host in known:
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*kind, ("127.0.0.1", port)) for port in known[host]]
        if host[0].isdigit():
            return original(host, *rest, **more)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


class ConnectProxy:
    """
    An HTTP proxy that leads every tunnel to one port.

    Args:
        port: Where the tunnels lead.
        answer: The response to ``CONNECT``.
        credentials: ``user:password`` that it demands; empty for none.
    """

    def __init__(
        self,
        port: int,
        answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n",
        credentials: str = "",
    ) -> None:
        self.requests: list[str] = []
        self._port = port
        self._answer = answer
        self._credentials = credentials

    def __call__(self, connection: socket.socket) -> None:
        head = _read_head(connection)
        self.requests.append(head.split("\r\n")[0])
        token = base64.b64encode(self._credentials.encode()).decode()
        if self._credentials and f"Proxy-Authorization: Basic {token}\r\n" not in head:
            connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        connection.sendall(self._answer)
        if b" 200 " in self._answer:
            relay(connection, self._port)


class SocksProxy:
    """A SOCKS5 proxy that leads every tunnel to one port; see ``ConnectProxy``."""

    def __init__(self, port: int, *, reply: int = 0, credentials: str = "") -> None:
        self.requests: list[str] = []
        self._port = port
        self._reply = reply
        self._credentials = credentials

    def __call__(self, connection: socket.socket) -> None:
        offered = connection.recv(2)[1]
        methods = connection.recv(offered)
        if self._credentials:
            if 2 not in methods:
                connection.sendall(b"\x05\xff")
                return
            connection.sendall(b"\x05\x02")
            user = connection.recv(connection.recv(2)[1]).decode()
            password = connection.recv(connection.recv(1)[0]).decode()
            is_right = f"{user}:{password}" == self._credentials
            connection.sendall(b"\x01\x00" if is_right else b"\x01\x01")
            if not is_right:
                return
        else:
            connection.sendall(b"\x05\x00")
        kind = connection.recv(4)[3]
        if kind == 3:
            host = connection.recv(connection.recv(1)[0]).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, connection.recv(size))
        port = int.from_bytes(connection.recv(2), "big")
        self.requests.append(f"{host}:{port}")
        connection.sendall(bytes([5, self._reply, 0, 1, 0, 0, 0, 0, 0, 0]))
        if self._reply == 0:
            relay(connection, self._port)


def relay(connection: socket.socket, port: int) -> None:
    """Pass bytes both ways until one side closes."""
    with socket.create_connection(("127.0.0.1", port)) as other:

        def pump(source: socket.socket, sink: socket.socket) -> None:
            with suppress(OSError):
                while data := source.recv(65_536):
                    sink.sendall(data)
            for one in (source, sink):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

        back = threading.Thread(target=pump, args=(other, connection), daemon=True)
        back.start()
        pump(connection, other)
        back.join()


def _read_head(connection: socket.socket) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n") and (piece := connection.recv(1)):
        head += piece
    return head.decode()
