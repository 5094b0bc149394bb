"""Host and port of a URL. Pure."""

from collections.abc import Collection
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
SECURE = ("https", "wss")


class Address(NamedTuple):
    """Where a URL leads."""

    host: str
    port: int
    is_secure: bool

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine: never reached through a proxy."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_url(url: str, schemes: Collection[str] = ("ws", "wss")) -> Address:
    """
    The address in ``ws://host[:port]/path`` or ``wss://…``.

    Raises:
        ValueError: If it is not such a URL.
    """
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
        host = host and host.encode("idna").decode()
    except ValueError:  # or UnicodeError
        scheme, host, port = "", None, None
    if scheme not in schemes or not host:
        kind = "a websocket address" if "ws" in schemes else "an address"
        allowed = " or ".join(f"{name}://…" for name in schemes)
        raise ValueError(f"{url!r} is not {kind}; use {allowed}")
    return Address(host, port or PORTS[scheme], scheme in SECURE)
