"""
One websocket connection, from the DNS lookup to its end; any thread can abort it.

Opens the socket (addresses, TCP options, TLS, the upgrade) and classifies every failure into one of
``FAILURE_REASONS``. Must not know Bybit's messages, or when to try again.

The library's own connect has no overall deadline and cannot be cancelled: a DNS lookup may block
for 30 s, and a server that trickles its header blocks indefinitely.
"""

import errno
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, NamedTuple, get_args
from urllib.parse import urlsplit

import websocket

from bybit_pipeline.processes.connector.buffered_websocket import (
    BufferedWebSocket,
    ClosedByServer,
    FrameTooLarge,
)

CONNECT_TIMEOUT_S = 10.0
"""How long an attempt to connect may take."""

# No SO_RCVBUF: setting it caps the buffer at net.core.rmem_max (often 208 KiB) and turns off the
# kernel's own tuning, which lets it grow to about 6 MiB while this process is busy.
SOCKET_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)

FailureReason = Literal[
    "dns",
    "refused",
    "unreachable",
    "timeout",
    "tls",
    "forbidden",
    "rate_limited",
    "server_error",
    "handshake",
    "reset",
    "closed",
    "protocol",
    "too_large",
    "dead_peer",
    "silence",
    "resync",
    "source_change",
    "stopped",
    "bug",
]
FAILURE_REASONS: tuple[FailureReason, ...] = get_args(FailureReason)
"""
Why a connection attempt failed or a connection ended.

- While connecting: ``dns`` host not found; ``refused`` port closed; ``unreachable`` no route;
  ``timeout``; ``tls`` certificate or handshake rejected; ``forbidden`` HTTP 403; ``rate_limited``
  HTTP 429; ``server_error`` HTTP 5xx; ``handshake`` any other response that is not an upgrade.
- Later: ``reset`` by the network; ``closed`` by the server; ``protocol`` violated by the server;
  ``too_large`` message.
- By us: ``dead_peer`` no pong; ``silence`` no data; ``resync`` a book without a snapshot;
  ``source_change``; ``stopped``; ``bug`` an error of ours.
"""

NETWORK_ERRORS = (OSError, websocket.WebSocketException)
"""Errors that a network can cause; every other exception is a bug."""

_UNREACHABLE = frozenset(
    (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EACCES)
)
_HTTP_REASONS: dict[int, FailureReason] = {403: "forbidden", 429: "rate_limited"}


class HostNotFound(OSError):  # noqa: N818 - named after the event
    """The DNS lookup failed or took too long."""


class HandshakeFailed(websocket.WebSocketException):
    """The server did not respond like a websocket server."""


class Address(NamedTuple):
    """Host and port of a websocket URL."""

    host: str
    port: int
    is_secure: bool


def parse_url(url: str) -> Address:
    """
    The address in ``ws://host[:port]/path`` or ``wss://…``.

    Raises:
        ValueError: If it is not such a URL.
    """
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if scheme not in ("ws", "wss") or not host:
        raise ValueError(f"{url!r} is not a websocket address; use ws://… or wss://…")
    return Address(host, port or (443 if scheme == "wss" else 80), scheme == "wss")


def failure_reason(error: Exception) -> FailureReason:
    """The reason that an error stands for."""
    match error:
        case HostNotFound():
            return "dns"
        case FrameTooLarge():
            return "too_large"
        case ClosedByServer() | websocket.WebSocketConnectionClosedException():
            return "closed"
        case websocket.WebSocketBadStatusException(status_code=int(status)):
            return _HTTP_REASONS.get(status, "server_error" if status >= 500 else "handshake")
        case TimeoutError() | websocket.WebSocketTimeoutException():
            return "timeout"
        case HandshakeFailed():
            return "handshake"
        case websocket.WebSocketException():
            return "protocol"
        case ssl.SSLError():
            return "tls"
        case ConnectionRefusedError():
            return "refused"
        case OSError() if error.errno in _UNREACHABLE:
            return "unreachable"
    return "reset"


def failure_name(error: Exception) -> str:
    """The reason of a failed attempt for people: the HTTP status if the server sent one."""
    match error:
        case websocket.WebSocketBadStatusException(status_code=int(status)):
            return str(status)
    return failure_reason(error)


class Connection:
    """
    One attempt, and the connection that it opens.

    ``open`` and ``close`` belong to one thread; any thread may call ``abort``.

    Args:
        url: Where to connect.
        tls: Certificates to trust for ``wss``; certificate and host name are always verified.
        time_ns: Wall clock that stamps received messages.
    """

    def __init__(
        self,
        url: str,
        *,
        tls: ssl.SSLContext | None = None,
        time_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.url = url
        self.abort_reason: FailureReason | None = None
        self.websocket = BufferedWebSocket(time_ns=time_ns)
        self._address = parse_url(url)
        self._tls = tls
        self._socket: socket.socket | None = None
        self._aborted = threading.Event()
        self._lock = threading.Lock()

    def open(self, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        """
        Connect.

        ``timeout_s`` limits each step, and a server that trickles its response makes many steps: to
        limit the whole, another thread must call ``abort``.

        Raises:
            OSError, websocket.WebSocketException: One of ``NETWORK_ERRORS``; the socket is closed.
        """
        deadline = time.monotonic() + timeout_s
        sock = self._connect(self._look_up(deadline), deadline)
        try:
            sock.settimeout(_left(deadline))
            if self._address.is_secure:
                sock = self._secure(sock)
            self._upgrade(sock)
        except BaseException:
            self.close()
            raise
        if self._aborted.is_set():
            self.close()
            raise ConnectionAbortedError("aborted while connecting")

    def abort(self, reason: FailureReason) -> None:
        """End the attempt or the connection now; the first reason counts."""
        with self._lock:
            if self.abort_reason is None:
                self.abort_reason = reason
            self._aborted.set()
            if self._socket is not None:
                with suppress(OSError):
                    # Not SSLSocket.shutdown, which removes the encryption while a thread reads.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket. No other method may run on this thread."""
        with self._lock, self.websocket.lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None
            self.websocket.sock = None
            self.websocket.connected = False

    # -- steps -----------------------------------------------------------------------------------

    def _look_up(self, deadline: float) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
        """The addresses of the host, looked up in a thread of its own that can be abandoned."""
        answer: queue.SimpleQueue[list[tuple[socket.AddressFamily, tuple[str, int]]] | OSError]
        answer = queue.SimpleQueue()
        host, port, _ = self._address

        def look_up() -> None:
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                answer.put([(family, (str(at[0]), port)) for family, _, _, _, at in found])
            except OSError as error:
                answer.put(error)
            except UnicodeError as error:
                answer.put(OSError(f"not a host name: {error}"))

        threading.Thread(target=look_up, name="lookup", daemon=True).start()
        while not self._aborted.is_set() and time.monotonic() < deadline:
            with suppress(queue.Empty):
                found = answer.get(timeout=0.05)
                if isinstance(found, OSError):
                    raise HostNotFound(f"{host}: {found}") from found
                return found
        raise HostNotFound(f"{host}: the DNS lookup took too long")

    def _connect(
        self, addresses: list[tuple[socket.AddressFamily, tuple[str, int]]], deadline: float
    ) -> socket.socket:
        """A TCP socket connected to the first address that accepts."""
        failure: OSError = HostNotFound(f"{self._address.host}: no address")
        for family, address in addresses:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                for option in SOCKET_OPTIONS:
                    sock.setsockopt(*option)
                sock.settimeout(_left(deadline))
                self._adopt(sock)
                sock.connect(address)
            except OSError as error:
                self.close()
                failure = error
            else:
                return sock
        raise failure

    def _secure(self, sock: socket.socket) -> socket.socket:
        tls = self._tls or ssl.create_default_context()
        wrapped = tls.wrap_socket(
            sock, server_hostname=self._address.host, do_handshake_on_connect=False
        )
        self._adopt(wrapped)
        wrapped.do_handshake()
        return wrapped

    def _upgrade(self, sock: socket.socket) -> None:
        try:
            # No redirects: a person must look into it when the market data moves to another host.
            self.websocket.connect(self.url, socket=sock, redirect_limit=0)  # type: ignore[no-untyped-call]
        except NETWORK_ERRORS as error:
            if type(error) is websocket.WebSocketException:
                raise HandshakeFailed(str(error)) from error
            raise
        except Exception as error:
            # The library parses the response carelessly: a bad one raises almost anything.
            raise HandshakeFailed(f"unreadable response: {error}") from error
        self.websocket.start_reading()

    def _adopt(self, sock: socket.socket) -> None:
        """Let ``abort`` shut down this socket."""
        with self._lock:
            self._socket = sock
            if self._aborted.is_set():
                raise ConnectionAbortedError("aborted while connecting")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("connecting took too long")
    return left
