"""
One websocket connection, from looking up its host to its end, that any thread may break off.

Decides how a socket is opened (addresses, TCP options, TLS, the upgrade) and in which word of a
closed set an attempt or a connection failed. Knows nothing of Bybit's messages or of when to try
again. The library could connect by itself, but its attempts can be neither bounded nor broken off:
a look-up may take half a minute, and a server that sends its header byte by byte for ever.
"""

import errno
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import websocket

from bybit_pipeline.processes.connector.buffered_websocket import (
    BufferedWebSocket,
    ClosedByServer,
    FrameTooLarge,
)

CONNECT_TIMEOUT_S = 10.0

# No SO_RCVBUF: setting it caps the buffer at net.core.rmem_max (often 208 KiB) and switches off the
# kernel's own tuning, which grows it to some 6 MiB when this process is busy.
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
FAILURE_REASONS: tuple[FailureReason, ...] = (
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
)
"""
Why there is no connection (any more). While connecting: host not found, port closed, no route, too
slow, certificate or TLS refused, HTTP 403, HTTP 429, HTTP 5xx, any other answer that is no upgrade.
Later: reset by the network, closed by the server, protocol broken, message too large. By us: no
pong, no data, a book that the venue does not serve, another source, stopping, an error of ours.
"""

NETWORK_ERRORS = (OSError, websocket.WebSocketException)
"""What a network may do to us; everything else is a bug."""

_UNREACHABLE = frozenset(
    (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EACCES)
)
_HTTP_REASONS: dict[int, FailureReason] = {403: "forbidden", 429: "rate_limited"}


class HostNotFound(OSError):  # noqa: N818 - named after the event
    """The name of the host could not be looked up, or not in time."""


class HandshakeFailed(websocket.WebSocketException):
    """The answer to the upgrade request was none that a websocket server gives."""


class Address(NamedTuple):
    """Where a websocket URL leads."""

    host: str
    port: int
    is_secure: bool


def parse_url(url: str) -> Address:
    """
    The address in ``ws://host[:port]/path`` or ``wss://…``.

    Raises:
        ValueError: If it is no such URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"{url!r} is not a websocket address: ws://… or wss://…")
    is_secure = parts.scheme == "wss"
    return Address(parts.hostname, parts.port or (443 if is_secure else 80), is_secure)


def failure_reason(error: Exception) -> FailureReason:
    """The word for what happened, for counters and messages."""
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


class Connection:
    """
    One attempt and what comes of it.

    ``open`` and ``close`` belong to one thread, ``abort`` to everybody.

    Args:
        url: Where to connect.
        tls: For ``wss``; certificate and host name are always verified.
        time_ns: The wall clock that stamps what is received.
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

        Whoever watches must call ``abort`` when it takes longer than ``timeout_s`` altogether:
        that bounds each step, and a slow server may need many.

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
            raise ConnectionAbortedError("broken off while connecting")

    def abort(self, reason: FailureReason) -> None:
        """Break off, whatever is going on; the first reason counts."""
        with self._lock:
            if self.abort_reason is None:
                self.abort_reason = reason
            self._aborted.set()
            if self._socket is not None:
                with suppress(OSError):
                    # Not SSLSocket.shutdown, which takes the encryption away under a reader.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; nothing else of this connection may be in use by this thread."""
        with self._lock, self.websocket.lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None
            self.websocket.sock = None
            self.websocket.connected = False

    # -- steps -----------------------------------------------------------------------------------

    def _look_up(self, deadline: float) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
        """The addresses of the host, looked up in a thread that can be left behind."""
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
                answer.put(OSError(f"no host name: {error}"))

        threading.Thread(target=look_up, name="look-up", daemon=True).start()
        while not self._aborted.is_set() and time.monotonic() < deadline:
            with suppress(queue.Empty):
                found = answer.get(timeout=0.05)
                if isinstance(found, OSError):
                    raise HostNotFound(f"{host}: {found}") from found
                return found
        raise HostNotFound(f"{host}: no answer in time")

    def _connect(
        self, addresses: list[tuple[socket.AddressFamily, tuple[str, int]]], deadline: float
    ) -> socket.socket:
        """A TCP socket connected to the first address that answers."""
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
            # Redirects are refused: a market data host that moves is a matter for a person.
            self.websocket.connect(self.url, socket=sock, redirect_limit=0)  # type: ignore[no-untyped-call]
        except NETWORK_ERRORS as error:
            if type(error) is websocket.WebSocketException:
                raise HandshakeFailed(str(error)) from error
            raise
        except Exception as error:
            # The library reads the server's header without much care.
            raise HandshakeFailed(f"unreadable answer: {error}") from error
        self.websocket.start_reading()

    def _adopt(self, sock: socket.socket) -> None:
        """Make ``sock`` the one that ``abort`` breaks."""
        with self._lock:
            self._socket = sock
            if self._aborted.is_set():
                raise ConnectionAbortedError("broken off while connecting")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("connecting took too long")
    return left
