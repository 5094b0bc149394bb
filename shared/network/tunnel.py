"""
Ask a proxy for a tunnel, over a connected socket: HTTP CONNECT and SOCKS5.

The proxy looks the host up: where a proxy is needed, its name often means nothing to our resolver.

RFC 9110, section 9.3.6; RFC 1928; RFC 1929. SOCKS5 is written here and not taken from a library:
libraries open the socket themselves, and then nothing could abort it.
"""

import base64
import socket
from collections.abc import Callable
from ipaddress import ip_address

from bybit_pipeline.shared.network.address import Address
from bybit_pipeline.shared.network.proxies import Proxy

HEADER_BYTES_MAX = 16 * 1024

_SOCKS_REPLIES = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "timed out",
    7: "command not supported",
    8: "address type not supported",
}


class ProxyFailed(OSError):  # noqa: N818 - named after the event
    """The proxy cannot be reached, or it refused the tunnel."""


def open_tunnel(
    sock: socket.socket, proxy: Proxy, target: Address, arm: Callable[[], None]
) -> None:
    """
    Make the proxy connect this socket to ``target``.

    Args:
        sock: Connected to the proxy.
        proxy: Kind and credentials.
        target: Where the tunnel shall lead.
        arm: Called before every read: sets the socket's timeout to the time that is left.

    Raises:
        ProxyFailed: If the proxy refused, or did not respond like a proxy.
        OSError: If the network failed.
    """
    reader = _Reader(sock, arm)
    if proxy.kind == "http":
        _connect(reader, proxy, target)
    else:
        _socks5(reader, proxy, target)


class _Reader:
    """Reads exactly what the proxy sends: what follows belongs to the tunnel."""

    def __init__(self, sock: socket.socket, arm: Callable[[], None]) -> None:
        self.send = sock.sendall
        self._sock = sock
        self._arm = arm

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            self._arm()
            piece = self._sock.recv(size - len(data))
            if not piece:
                raise ProxyFailed("closed the connection without an answer")
            data += piece
        return data


def _connect(reader: _Reader, proxy: Proxy, target: Address) -> None:
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: bybit-pipeline"]
    if proxy.username:
        pair = f"{proxy.username}:{proxy.password}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(pair).decode()}")
    reader.send("\r\n".join([*lines, "", ""]).encode())
    header = b""
    while not header.endswith((b"\r\n\r\n", b"\n\n")):
        header += reader.exactly(1)
        if len(header) > HEADER_BYTES_MAX:
            raise ProxyFailed("does not respond like an HTTP proxy")
    status_line = header.split(b"\n", 1)[0].decode(errors="replace").strip()
    version, _, status = status_line.partition(" ")
    if not version.startswith("HTTP/1.") or not status[:3].isdigit():
        raise ProxyFailed("does not respond like an HTTP proxy")
    if not status.startswith("2"):
        raise ProxyFailed(f"refused the tunnel to {target}: {status[:100]}")


def _socks5(reader: _Reader, proxy: Proxy, target: Address) -> None:
    reader.send(b"\x05\x02\x00\x02" if proxy.username else b"\x05\x01\x00")
    version, method = reader.exactly(2)
    if version != 5:
        raise ProxyFailed("does not respond like a SOCKS5 proxy")
    if method == 2 and proxy.username:
        reader.send(b"\x01" + _text(proxy.username) + _text(proxy.password))
        if reader.exactly(2)[1] != 0:
            raise ProxyFailed("rejected user name and password")
    elif method != 0:
        raise ProxyFailed("demands user name and password")
    reader.send(b"\x05\x01\x00" + _destination(target.host) + target.port.to_bytes(2, "big"))
    _, reply, _, kind = reader.exactly(4)
    if reply != 0:
        why = _SOCKS_REPLIES.get(reply, f"reply {reply}")
        raise ProxyFailed(f"refused the tunnel to {target}: {why}")
    size = {1: 4, 4: 16}.get(kind) or reader.exactly(1)[0]
    reader.exactly(size + 2)


def _destination(host: str) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        return b"\x03" + _text(host)
    return (b"\x01" if address.version == 4 else b"\x04") + address.packed


def _text(text: str) -> bytes:
    """One byte of length, then the text; SOCKS has no room for more than 255 bytes."""
    data = text.encode()
    if len(data) > 255:
        raise ProxyFailed("a host or credential is longer than SOCKS5 allows")
    return bytes([len(data)]) + data
