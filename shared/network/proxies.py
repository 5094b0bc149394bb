"""
The proxy for an address, from the configuration or the environment. Pure.

``HTTPS_PROXY`` is for ``wss`` and ``https``, ``HTTP_PROXY`` for ``ws`` and ``http``, ``ALL_PROXY``
for all of them, each also in small letters, which win. ``NO_PROXY`` lists exceptions: host names
(with their subdomains), IP addresses, networks such as ``10.0.0.0/8``, each with an optional port,
or ``*``. This machine is never reached through a proxy: the simulator runs here.
"""

import os
import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Literal, NamedTuple, get_args
from urllib.parse import unquote, urlsplit

from bybit_pipeline.shared.network.address import Address

ProxyKind = Literal["http", "socks5", "socks5h"]
PROXY_KINDS: tuple[ProxyKind, ...] = get_args(ProxyKind)
DEFAULT_PORTS = {"http": 80, "socks5": 1080, "socks5h": 1080}
ALLOWED = "http://host:port or socks5://host:port, with user:password@ if needed"
CONFIG_KEY = "connector.proxy"
DIRECT = "none"
"""The value of ``connector.proxy`` that ignores the environment."""


class ProxyInvalid(ValueError):  # noqa: N818 - named after the event
    """
    A proxy that cannot be used.

    ``origin`` is the configuration key or the variable; ``what`` has no credentials in it.
    """

    def __init__(self, origin: str, what: str) -> None:
        self.origin = origin
        self.what = what
        super().__init__(f"{origin}: {what}; use {ALLOWED}")


class Proxy(NamedTuple):
    """A proxy; its text leaves out the credentials."""

    kind: ProxyKind
    host: str
    port: int
    username: str
    password: str
    origin: str
    """The configuration key or the variable that names it."""

    @property
    def address(self) -> Address:
        """Where to connect."""
        return Address(self.host, self.port, is_secure=False)

    def __str__(self) -> str:
        return f"{self.kind}://{self.address} ({self.origin})"


def proxy_for(
    address: Address, configured: str = "", environ: Mapping[str, str] | None = None
) -> Proxy | None:
    """
    The proxy for an address; None to connect directly.

    Args:
        address: Where to connect.
        configured: ``connector.proxy``: a URL, ``none``, or empty for the environment's.
        environ: The environment; this process's own by default.

    Raises:
        ProxyInvalid: If the proxy in force cannot be used.
    """
    environ = os.environ if environ is None else environ
    if address.is_loopback or configured == DIRECT:
        return None
    if configured:
        return parse_proxy(configured, CONFIG_KEY)
    for variable in ("https_proxy" if address.is_secure else "http_proxy", "all_proxy"):
        for name in (variable, variable.upper()):
            if value := environ.get(name, "").strip():
                exceptions = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
                return None if is_exempt(address, exceptions) else parse_proxy(value, name)
    return None


def parse_proxy(url: str, origin: str) -> Proxy:
    """
    The proxy in ``http://[user:password@]host[:port]``; without a scheme it is ``http``.

    Raises:
        ProxyInvalid: If it is another kind of proxy, or not a URL.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise ProxyInvalid(origin, "not the address of a proxy")
    for kind in PROXY_KINDS:
        if parts.scheme == kind:
            return Proxy(
                kind,
                host,
                port or DEFAULT_PORTS[kind],
                unquote(parts.username or ""),
                unquote(parts.password or ""),
                origin,
            )
    raise ProxyInvalid(origin, f"{parts.scheme} proxies are not supported")


def is_exempt(address: Address, exceptions: str) -> bool:
    """Whether ``NO_PROXY`` names an address."""
    return any(_matches(address, entry.lower()) for entry in re.split(r"[\s,]+", exceptions))


def _matches(address: Address, entry: str) -> bool:
    if entry == "*":
        return True
    port = re.search(r":(\d+)$", entry) if entry.count(":") == 1 or "]" in entry else None
    if port is not None:
        if int(port[1]) != address.port:
            return False
        entry = entry[: port.start()]
    entry = entry.strip("[]").removeprefix("*").lstrip(".")
    host = address.host.lower().rstrip(".")
    try:
        network = ip_network(entry, strict=False)
    except ValueError:
        return bool(entry) and (host == entry or host.endswith(f".{entry}"))
    try:
        return ip_address(host) in network
    except ValueError:
        return False
