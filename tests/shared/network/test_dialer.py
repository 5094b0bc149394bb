"""The way to the exchange, over real sockets: several addresses, proxies, TLS, aborts."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bybit_pipeline.shared.network.dialer import Dialer, Endpoint, HostNotFound, in_turn
from bybit_pipeline.shared.network.tunnel import ProxyFailed
from tests.shared.network.exits import (
    GREETING,
    ConnectProxy,
    SocksProxy,
    closed,
    greets,
    listener,
    resolve,
    stays_mute,
    swallowing,
)

TIMEOUT_S = 8.0
URL = "ws://exchange.test:80/"
V4, V6 = socket.AF_INET, socket.AF_INET6


def greeting(sock: socket.socket) -> bytes:
    """The server's first message."""
    return sock.recv(len(GREETING))


def dial(url: str = URL, timeout_s: float = TIMEOUT_S, **environ: str) -> bytes:
    """The greeting of whoever is reached."""
    dialer = Dialer(url, environ=environ)
    try:
        return dialer.open(timeout_s, greeting)
    finally:
        dialer.close()


@contextmanager
def quickly(limit_s: float = 5.0) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < limit_s


# -- several addresses ---------------------------------------------------------------------------


def test_an_address_that_swallows_packets_costs_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    with swallowing() as first, listener(greets) as second, quickly(3.0):
        resolve(monkeypatch, exchange_test=[first, second])
        assert GREETING == dial()


def test_so_do_several_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with swallowing() as mute, swallowing() as other, listener(greets) as last, quickly(3.0):
        resolve(monkeypatch, exchange_test=[mute, other, last])
        assert GREETING == dial()


def test_a_closed_port_leads_to_the_next_address_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with closed() as first, listener(greets) as second, quickly(1.0):
        resolve(monkeypatch, exchange_test=[first, second])
        assert GREETING == dial()


def test_an_address_that_connects_and_stays_mute_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with listener(stays_mute) as first, listener(greets) as second:
        resolve(monkeypatch, exchange_test=[first, second])
        assert GREETING == dial(timeout_s=2.0)


def test_a_slow_first_address_may_still_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others fail; it is not given up when they are started."""
    with swallowing() as slow, closed() as refusing, listener(greets) as last:
        resolve(monkeypatch, exchange_test=[slow, refusing, refusing, last])
        assert GREETING == dial()


def test_the_reason_is_that_of_an_address_that_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    with swallowing() as mute, closed() as refusing:
        resolve(monkeypatch, exchange_test=[mute, refusing])
        with pytest.raises(ConnectionRefusedError):
            dial(timeout_s=0.6)
        resolve(monkeypatch, exchange_test=[mute])
        with pytest.raises(TimeoutError):
            dial(timeout_s=0.3)


def test_the_families_take_turns_beginning_with_the_first_choice() -> None:
    found = [Endpoint(V6, 1), Endpoint(V6, 2), Endpoint(V6, 3), Endpoint(V4, 4), Endpoint(V4, 5)]
    assert [1, 4, 2, 5, 3] == [endpoint.address for endpoint in in_turn(found)]


# -- proxies -------------------------------------------------------------------------------------


def test_a_host_that_only_the_proxy_knows_is_reached_through_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with listener(greets) as exchange:
        proxy = ConnectProxy(exchange)
        with listener(proxy) as port:
            resolve(monkeypatch, proxy_test=[port])
            assert GREETING == dial(HTTP_PROXY="http://proxy.test:3128")
    assert ["CONNECT exchange.test:80 HTTP/1.1"] == proxy.requests


def test_a_proxy_is_found_at_the_second_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        listener(greets) as exchange,
        swallowing() as mute,
        listener(ConnectProxy(exchange)) as port,
        quickly(),
    ):
        resolve(monkeypatch, proxy_test=[mute, port])
        assert GREETING == dial(HTTP_PROXY="http://proxy.test:3128")


@pytest.mark.parametrize(
    ("credentials", "is_right"), [("me:p%40ss", True), ("me:wrong", False), ("", False)]
)
@pytest.mark.parametrize("kind", ["http", "socks5h"])
def test_credentials_are_sent_to_the_proxy(
    monkeypatch: pytest.MonkeyPatch, kind: str, credentials: str, is_right: bool
) -> None:
    make = {"http": ConnectProxy, "socks5h": SocksProxy}[kind]
    with listener(greets) as exchange, listener(make(exchange, credentials="me:p@ss")) as port:
        resolve(monkeypatch)
        url = f"{kind}://{credentials}{'@' if credentials else ''}127.0.0.1:{port}"
        if is_right:
            assert GREETING == dial(ALL_PROXY=url)
        else:
            with pytest.raises(ProxyFailed, match=r"407|rejected|demands") as caught:
                dial(ALL_PROXY=url)
            assert "wrong" not in str(caught.value)
            assert "(ALL_PROXY)" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("ws://exchange.test:80/", "exchange.test:80"),
        ("ws://192.0.2.7:90/", "192.0.2.7:90"),
        ("ws://[2001:db8::5]:90/", "2001:db8::5:90"),
    ],
)
def test_a_socks_proxy_gets_names_and_addresses(
    monkeypatch: pytest.MonkeyPatch, url: str, asked: str
) -> None:
    with listener(greets) as exchange:
        proxy = SocksProxy(exchange)
        with listener(proxy) as port:
            resolve(monkeypatch)
            assert GREETING == dial(url, ALL_PROXY=f"socks5://127.0.0.1:{port}")
    assert [asked] == proxy.requests


@pytest.mark.parametrize(
    ("handle", "why"),
    [
        (ConnectProxy(0, b"HTTP/1.1 403 Filtered\r\n\r\n"), "403 Filtered"),
        (ConnectProxy(0, b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), "502 Bad Gateway"),
        (ConnectProxy(0, b"SSH-2.0-OpenSSH\r\n\r\n"), "does not respond like an HTTP proxy"),
        (ConnectProxy(0, b"x" * 20_000), "does not respond like an HTTP proxy"),
        (lambda _: None, "closed the connection without an answer"),
    ],
)
def test_a_proxy_that_refuses_is_named_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, handle: Callable[[socket.socket], None], why: str
) -> None:
    with listener(handle) as port:
        resolve(monkeypatch)
        with pytest.raises(ProxyFailed) as caught:
            dial(HTTP_PROXY=f"http://127.0.0.1:{port}")
    assert str(caught.value).startswith(f"http://127.0.0.1:{port} (HTTP_PROXY): ")
    assert why in str(caught.value) or "reset" in str(caught.value)


def test_a_socks_proxy_that_refuses_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with listener(SocksProxy(0, reply=4)) as port:
        resolve(monkeypatch)
        with pytest.raises(ProxyFailed, match="host unreachable"):
            dial(ALL_PROXY=f"socks5://127.0.0.1:{port}")


def test_a_missing_mute_or_closed_proxy_is_the_proxys_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with closed() as refusing, listener(stays_mute) as mute, swallowing() as swallower:
        resolve(monkeypatch)
        for host in ("no-proxy.test:1", f"127.0.0.1:{refusing}"):
            with pytest.raises(ProxyFailed):
                dial(HTTP_PROXY=f"http://{host}")
        for port in (mute, swallower):
            with pytest.raises(ProxyFailed):
                dial(HTTP_PROXY=f"http://127.0.0.1:{port}", timeout_s=0.3)


def test_an_unusable_proxy_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A direct connection could show an address that the user hides."""
    with listener(greets) as port:
        resolve(monkeypatch, exchange_test=[port])
        with pytest.raises(ProxyFailed, match="ALL_PROXY: socks4 proxies are not supported"):
            dial(ALL_PROXY="socks4://127.0.0.1:1")


def test_tls_is_verified_through_the_tunnel(
    monkeypatch: pytest.MonkeyPatch, certificate: tuple[Path, Path]
) -> None:
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(*certificate)
    trusting = ssl.create_default_context(cafile=str(certificate[0]))

    def greets_in_secret(connection: socket.socket) -> None:
        with server_side.wrap_socket(connection, server_side=True) as secured:
            greets(secured)

    with listener(greets_in_secret) as exchange, listener(ConnectProxy(exchange)) as port:
        environ = {"HTTPS_PROXY": f"http://127.0.0.1:{port}"}
        resolve(monkeypatch)
        dialer = Dialer("wss://exchange.test/", tls=trusting, environ=environ)
        assert GREETING == dialer.open(TIMEOUT_S, greeting)
        dialer.close()
        for url, tls in (("wss://exchange.test/", None), ("wss://other.test/", trusting)):
            with pytest.raises(ssl.SSLCertVerificationError):
                Dialer(url, tls=tls, environ=environ).open(TIMEOUT_S, greeting)


# -- aborts --------------------------------------------------------------------------------------


def hang(host: str, *_: object, **__: object) -> list[object]:
    threading.Event().wait(20)
    return []


@pytest.mark.parametrize("step", ["lookup", "connect", "proxy", "use"])
def test_every_step_can_be_aborted(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    with swallowing() as swallower, listener(stays_mute) as mute:
        resolve(monkeypatch, exchange_test=[swallower if step == "connect" else mute])
        if step == "lookup":
            monkeypatch.setattr(socket, "getaddrinfo", hang)
        environ = {"HTTP_PROXY": f"http://127.0.0.1:{mute}"} if step == "proxy" else {}
        dialer = Dialer(URL, environ=environ)
        failures: list[Exception] = []

        def run() -> None:
            try:
                dialer.open(20.0, greeting)
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(0.2)  # any moment is right: no step may block the abort
        with quickly(2.0):
            dialer.abort()
            thread.join(5.0)
        assert not thread.is_alive()
        [failure] = failures
        assert isinstance(failure, OSError)


def test_a_lookup_that_hangs_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with quickly(2.0), pytest.raises(HostNotFound, match="took too long"):
        dial(timeout_s=0.2)


@pytest.mark.parametrize("before", [True, False])
def test_an_aborted_attempt_never_succeeds(before: bool) -> None:
    with listener(greets) as port:
        dialer = Dialer(f"ws://127.0.0.1:{port}/")

        def use(sock: socket.socket) -> bytes:
            dialer.abort()
            return b"done"

        if before:
            dialer.abort()
        with pytest.raises(ConnectionAbortedError):
            dialer.open(TIMEOUT_S, use)
