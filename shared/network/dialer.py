"""
Open a connection to the exchange: the DNS lookup, the addresses, the proxy, TLS.

Used by the connector's websocket, by the probe and by REST alike: what one of them can reach, all
of them can. Must not know websockets or HTTP: the caller's first exchange on the socket is a
callback.

A host often has several addresses, and one of them may swallow every packet: broken IPv6 at home,
in a VPN or a container. So the addresses are tried as in RFC 8305 ("Happy Eyeballs"): another one
every ``STAGGER_S``, IPv6 and IPv4 in turn; the first that connects is used. An address that
connects but then stays mute uses up half of the remaining time, and the others get the rest.

No step blocks an abort, not even a DNS lookup, which may hang for 30 s.
"""

import errno
import os
import queue
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import chain, zip_longest
from typing import Any, NamedTuple, TypeVar

from bybit_pipeline.shared.network.address import PORTS, parse_url
from bybit_pipeline.shared.network.proxies import Proxy, ProxyInvalid, proxy_for
from bybit_pipeline.shared.network.tunnel import ProxyFailed, open_tunnel

STAGGER_S = 0.25
"""Time between the starts of two attempts; RFC 8305 recommends it."""
ABORT_CHECK_S = 0.05
"""How often a wait checks whether it was aborted."""

# No SO_RCVBUF: setting it caps the buffer at net.core.rmem_max (often 208 KiB) and turns off the
# kernel's own tuning, which lets it grow to about 6 MiB while this process is busy.
SOCKET_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)

_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)

Result = TypeVar("Result")


class HostNotFound(OSError):  # noqa: N818 - named after the event
    """The DNS lookup failed or took too long."""


class Endpoint(NamedTuple):
    """One address of a host."""

    family: socket.AddressFamily
    address: Any
    """As ``socket.connect`` takes it."""


class Dialer:
    """
    One attempt to connect, and the socket that it opens.

    ``open`` and ``close`` belong to one thread; any thread may call ``abort``.

    Args:
        url: Where to connect: ``ws``, ``wss``, ``http`` or ``https``.
        proxy: ``connector.proxy``; empty for the proxy of the environment.
        tls: Certificates to trust; certificate and host name are always verified.
        environ: The environment, this process's own by default.
    """

    def __init__(
        self,
        url: str,
        *,
        proxy: str = "",
        tls: ssl.SSLContext | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._target = parse_url(url, tuple(PORTS))
        self._proxy_setting = proxy
        self._environ = environ
        self._tls = tls
        self._socket: socket.socket | None = None
        self._aborted = threading.Event()
        self._lock = threading.Lock()

    @property
    def is_aborted(self) -> bool:
        """Whether ``abort`` has been called."""
        return self._aborted.is_set()

    def open(self, timeout_s: float, use: Callable[[socket.socket], Result]) -> Result:
        """
        Connect, and return what ``use`` makes of the socket.

        An address counts as working once ``use`` has returned: it does the first exchange with the
        server. A timeout in ``use`` leads to the next address; every other error is final.

        ``timeout_s`` limits each wait, and a server that trickles its response makes many: to limit
        the whole, another thread must call ``abort``.

        Raises:
            ProxyFailed: If the proxy is at fault.
            OSError: If the host cannot be found, reached or verified; the socket is closed.
            Exception: Whatever ``use`` raises.
        """
        deadline = time.monotonic() + timeout_s
        try:
            proxy = proxy_for(self._target, self._proxy_setting, self._environ)
        except ProxyInvalid as error:
            raise ProxyFailed(str(error)) from error
        endpoints = self._look_up(proxy, deadline)
        while True:
            sock, endpoint = self._race(endpoints, proxy, deadline)
            endpoints = [other for other in endpoints if other != endpoint]
            left = _left(deadline)
            until = deadline - left / 2 if endpoints else deadline
            try:
                result = use(self._establish(sock, proxy, until))
                self._check_aborted()
            except TimeoutError:
                self.close()
                if not endpoints or self.is_aborted:
                    raise
            except BaseException:
                self.close()
                raise
            else:
                return result

    def abort(self) -> None:
        """End the attempt or the connection now."""
        with self._lock:
            self._aborted.set()
            if self._socket is not None:
                with suppress(OSError):
                    # Not SSLSocket.shutdown, which removes the encryption while a thread reads.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    # -- steps -----------------------------------------------------------------------------------

    def _look_up(self, proxy: Proxy | None, deadline: float) -> list[Endpoint]:
        """The addresses of the host, looked up in a thread of its own that can be abandoned."""
        host, port, _ = proxy.address if proxy else self._target
        answer: queue.SimpleQueue[list[Endpoint] | OSError] = queue.SimpleQueue()

        def look_up() -> None:
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                answer.put([Endpoint(family, address) for family, _, _, _, address in found])
            except OSError as error:
                answer.put(error)
            except UnicodeError as error:
                answer.put(OSError(f"not a host name: {error}"))

        threading.Thread(target=look_up, name="lookup", daemon=True).start()
        why = "the DNS lookup took too long"
        while time.monotonic() < deadline:
            self._check_aborted()
            with suppress(queue.Empty):
                found = answer.get(timeout=ABORT_CHECK_S)
                if not isinstance(found, OSError):
                    return in_turn(dict.fromkeys(found))
                why = str(found)
                break
        raise ProxyFailed(f"{proxy}: {why}") if proxy else HostNotFound(f"{host}: {why}")

    def _race(
        self, endpoints: list[Endpoint], proxy: Proxy | None, deadline: float
    ) -> tuple[socket.socket, Endpoint]:
        try:
            return _Race(endpoints, self._check_aborted).run(deadline)
        except ConnectionAbortedError:
            raise
        except OSError as error:
            if proxy is None:
                raise
            raise ProxyFailed(f"{proxy}: {error.strerror or error}") from error

    def _establish(
        self, sock: socket.socket, proxy: Proxy | None, deadline: float
    ) -> socket.socket:
        """Proxy and TLS, on a connected socket."""
        self._adopt(sock)
        sock.settimeout(_left(deadline))
        if proxy is not None:
            try:
                open_tunnel(sock, proxy, self._target, lambda: sock.settimeout(_left(deadline)))
            except TimeoutError as error:
                raise ProxyTimeout(f"{proxy}: no answer") from error
            except OSError as error:
                self._check_aborted()
                raise ProxyFailed(f"{proxy}: {error}") from error
            sock.settimeout(_left(deadline))
        if not self._target.is_secure:
            return sock
        tls = self._tls or ssl.create_default_context()
        wrapped = tls.wrap_socket(
            sock, server_hostname=self._target.host, do_handshake_on_connect=False
        )
        self._adopt(wrapped)
        wrapped.do_handshake()
        wrapped.settimeout(_left(deadline))
        return wrapped

    def _adopt(self, sock: socket.socket) -> None:
        """Let ``abort`` shut down this socket."""
        with self._lock:
            self._socket = sock
        self._check_aborted()

    def _check_aborted(self) -> None:
        if self.is_aborted:
            raise ConnectionAbortedError("aborted while connecting")


class ProxyTimeout(ProxyFailed, TimeoutError):  # noqa: N818 - named after the event
    """The proxy does not answer; it may at another of its addresses."""


class _Race:
    """Attempts at several addresses, each a little later than the one before."""

    def __init__(self, endpoints: list[Endpoint], check: Callable[[], None]) -> None:
        self._waiting = list(reversed(endpoints))
        self._check = check
        self._pending: dict[socket.socket, Endpoint] = {}
        self._failure: OSError | None = None

    def run(self, deadline: float) -> tuple[socket.socket, Endpoint]:
        """The first connected socket, and its address."""
        with selectors.DefaultSelector() as selector:
            try:
                return self._run(selector, deadline)
            finally:
                for sock in self._pending:
                    sock.close()

    def _run(
        self, selector: selectors.BaseSelector, deadline: float
    ) -> tuple[socket.socket, Endpoint]:
        start_at = now = time.monotonic()
        while (self._waiting or self._pending) and now < deadline:
            self._check()
            if self._waiting and (not self._pending or now >= start_at):
                start_at = now + STAGGER_S
                self._start(selector)
            until = min(deadline, start_at) if self._waiting else deadline
            for key, _ in selector.select(min(ABORT_CHECK_S, max(0.0, until - now))):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                selector.unregister(sock)
                endpoint = self._pending.pop(sock)
                if not (code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                    return sock, endpoint
                self._fail(sock, code)
                start_at = now
            now = time.monotonic()
        raise self._failure or TimeoutError("no address answered in time")

    def _start(self, selector: selectors.BaseSelector) -> None:
        endpoint = self._waiting.pop()
        try:
            sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
        except OSError as error:  # this machine has no such addresses
            self._failure = error
            return
        try:
            for option in SOCKET_OPTIONS:
                sock.setsockopt(*option)
            sock.setblocking(False)
            code = sock.connect_ex(endpoint.address)
        except OSError as error:
            sock.close()
            self._failure = error
            return
        if code in _UNDER_WAY:
            self._pending[sock] = endpoint
            selector.register(sock, selectors.EVENT_WRITE)
        else:
            self._fail(sock, code)

    def _fail(self, sock: socket.socket, code: int) -> None:
        sock.close()
        self._failure = OSError(code, os.strerror(code))


def in_turn(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """The addresses with the families in turn, the resolver's first choice first."""
    families: dict[socket.AddressFamily, list[Endpoint]] = {}
    for endpoint in endpoints:
        families.setdefault(endpoint.family, []).append(endpoint)
    return [one for one in chain(*zip_longest(*families.values())) if one is not None]


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("connecting took too long")
    return left
