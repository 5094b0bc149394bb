"""
One websocket connection, from the DNS lookup to its end; any thread can abort it.

Classifies every failure into one of ``FAILURE_REASONS``. ``shared.network`` decides how the
exchange is reached. Must not know Bybit's messages, or when to try again.
"""

import errno
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Literal, get_args

import websocket

from bybit_pipeline.processes.connector.buffered_websocket import (
    BufferedWebSocket,
    ClosedByServer,
    FrameTooLarge,
)
from bybit_pipeline.shared.bybit import SIMULATOR_NAME
from bybit_pipeline.shared.network.address import parse_url
from bybit_pipeline.shared.network.dialer import Dialer, HostNotFound
from bybit_pipeline.shared.network.handshake import HandshakeFailed, upgrade
from bybit_pipeline.shared.network.tunnel import ProxyFailed

CONNECT_TIMEOUT_S = 10.0
"""How long an attempt to connect may take."""

FailureReason = Literal[
    "dns",
    "refused",
    "unreachable",
    "timeout",
    "proxy",
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
  ``timeout``; ``proxy`` not reachable, or it refused; ``tls`` certificate or handshake rejected;
  ``forbidden`` HTTP 403; ``rate_limited`` HTTP 429; ``server_error`` HTTP 5xx; ``handshake`` any
  other response that is not an upgrade.
- Later: ``reset`` by the network; ``closed`` by the server; ``protocol`` violated by the server;
  ``too_large`` message.
- By us: ``dead_peer`` no pong; ``silence`` no data; ``resync`` a book without a snapshot;
  ``source_change``; ``stopped``; ``bug`` an error of ours.
"""

_UNREACHABLE = frozenset(
    (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EACCES)
)
_HTTP_REASONS: dict[int, FailureReason] = {403: "forbidden", 429: "rate_limited"}


def failure_reason(error: Exception) -> FailureReason:
    """The reason that an error stands for."""
    match error:
        case HostNotFound():
            return "dns"
        case ProxyFailed():
            return "proxy"
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
        proxy: ``connector.proxy``; empty for the proxy of the environment.
        tls: Certificates to trust for ``wss``; certificate and host name are always verified.
        time_ns: Wall clock that stamps received messages.

    Raises:
        ValueError: If ``url`` is not a websocket address.
    """

    def __init__(
        self,
        url: str,
        *,
        proxy: str = "",
        tls: ssl.SSLContext | None = None,
        time_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        parse_url(url)
        self.url = url
        self.abort_reason: FailureReason | None = None
        self.is_simulated = False
        """True if the server named itself as our simulated exchange."""
        self.websocket = BufferedWebSocket(time_ns=time_ns)
        self._dialer = Dialer(url, proxy=proxy, tls=tls)
        self._lock = threading.Lock()

    def open(self, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        """
        Connect.

        ``timeout_s`` limits each step, and a server that trickles its response makes many steps: to
        limit the whole, another thread must call ``abort``.

        Raises:
            OSError, websocket.WebSocketException: One of ``NETWORK_ERRORS``; the socket is closed.
        """
        self._dialer.open(timeout_s, self._upgrade)

    def abort(self, reason: FailureReason) -> None:
        """End the attempt or the connection now; the first reason counts."""
        with self._lock:
            if self.abort_reason is None:
                self.abort_reason = reason
        self._dialer.abort()

    def close(self) -> None:
        """Close the socket. No other method may run on this thread."""
        with self.websocket.lock:
            self._dialer.close()
            self.websocket.sock = None
            self.websocket.connected = False

    def _upgrade(self, sock: socket.socket) -> None:
        upgrade(self.websocket, self.url, sock)
        headers = self.websocket.getheaders() or {}
        self.is_simulated = headers.get("server") == SIMULATOR_NAME
        self.websocket.start_reading()
