"""Fetching lists over real sockets, from the simulated exchange and from broken servers."""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from bybit_pipeline.supervisor.plan.instruments import InstrumentListError, InstrumentQuery
from bybit_pipeline.supervisor.source import instruments_client
from bybit_pipeline.supervisor.source.instruments_client import (
    InstrumentsClient,
    ListRequest,
    ListResponse,
    get_list,
    get_lists,
)
from tests.shared.network.exits import ConnectProxy, listener
from tests.simulator.client import running
from tests.supervisor.plan.test_instruments import page

LINEAR = InstrumentQuery("linear")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@contextmanager
def server(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """The URL of a server that handles every connection like this, after its request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    with suppress(OSError):  # the client has closed the connection
                        handle(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def sends(data: bytes) -> Callable[[socket.socket], None]:
    """Send the data, then close."""
    return lambda connection: connection.sendall(data)


def waits_for(event: threading.Event) -> Callable[[socket.socket], None]:
    """Send nothing until the event."""

    def wait(_: socket.socket) -> None:
        event.wait(5)

    return wait


def failure_at(url: str, *, deadline_s: float = 20.0, **limits: Any) -> str:
    """Why the list cannot be fetched from that URL."""
    with pytest.raises(InstrumentListError) as error:
        get_list(url, LINEAR, deadline=time.monotonic() + deadline_s, **limits)
    assert "\n" not in str(error.value)
    return error.value.failure


def test_lists_of_a_local_exchange_are_fetched_without_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    queries = (
        InstrumentQuery("linear", has_turnover=True),
        InstrumentQuery("spot"),
        InstrumentQuery("option", "ETH"),
    )
    with running() as exchange:
        response = get_lists(
            ListRequest(url=f"http://127.0.0.1:{exchange.server.port}", queries=queries)
        )

    assert not response.errors
    assert {"BTCUSDT", "ETHUSDT"} == set(response.lists[queries[0]].symbols[:2])
    assert "MNTUSDT" in response.lists[queries[1]].symbols
    assert all(symbol.startswith("ETH-") for symbol in response.lists[queries[2]].symbols)


def test_lists_are_fetched_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "")
    with running() as exchange:
        proxy = ConnectProxy(exchange.server.port)
        with listener(proxy) as port:
            for setting, environ in ((f"http://127.0.0.1:{port}", ""), ("", f"127.0.0.1:{port}")):
                monkeypatch.setenv("http_proxy", environ)
                request = ListRequest(url="http://api.invalid", queries=(LINEAR,), proxy=setting)
                assert "BTCUSDT" in get_lists(request).lists[LINEAR].symbols
    assert {"CONNECT api.invalid:80 HTTP/1.1"} == set(proxy.requests)


@pytest.mark.parametrize(
    ("data", "failure"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "forbidden"),
        (b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", "rate_limited"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "status"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/login\r\n\r\n", "status"),
        (OK % 6 + b"<html>", "unreadable"),
        (OK % 5000 + page("BTCUSDT"), "unreadable"),
        (b"SSH-2.0-OpenSSH\r\n", "unreachable"),
        (b"", "unreachable"),
    ],
)
def test_every_kind_of_failure_has_its_reason(data: bytes, failure: str) -> None:
    with server(sends(data)) as url:
        assert failure == failure_at(url)


def test_a_closed_port_and_an_unknown_host_are_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert "unreachable" == failure_at(f"http://127.0.0.1:{port}")
    assert "unreachable" == failure_at("http://no-such-host.invalid")


def test_a_server_without_tls_is_unreachable_over_https() -> None:
    with server(sends(b"HTTP/1.1 200 OK\r\n\r\n")) as url:
        assert "unreachable" == failure_at(url.replace("http:", "https:"))


def test_a_response_that_never_starts_times_out() -> None:
    done = threading.Event()
    with server(waits_for(done)) as url:
        assert "timeout" == failure_at(url, connect_s=0.2)
        done.set()


def test_a_response_that_trickles_in_times_out_at_the_deadline() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(OK % 10_000)
        for _ in range(400):
            connection.sendall(b" ")
            time.sleep(0.02)

    began = time.monotonic()
    with server(drip) as url:
        assert "timeout" == failure_at(url, deadline_s=0.3)
        assert time.monotonic() - began < 3


def test_an_endless_response_is_cut_off() -> None:

    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b" " * 65_536)

    with server(flood) as url:
        assert "too_large" == failure_at(url, body_bytes_max=1 << 20)


# -- the thread --------------------------------------------------------------------------------


@pytest.fixture
def client() -> Iterator[InstrumentsClient]:
    """A client that is closed after the test."""
    client = InstrumentsClient()
    yield client
    client.close()


def taken(client: InstrumentsClient) -> ListResponse:
    """The next response."""
    assert select.select([client.wakeup], [], [], 10)[0]
    return client.take()


def test_requests_are_answered_one_by_one(client: InstrumentsClient) -> None:
    with running() as exchange:
        url = f"http://127.0.0.1:{exchange.server.port}"
        for query in (LINEAR, InstrumentQuery("spot")):
            client.request(ListRequest(url=url, queries=(query,)))
            assert client.is_busy
            response = taken(client)
            assert not client.is_busy
            assert {query} == set(response.lists)


def test_a_failed_list_does_not_affect_the_others(client: InstrumentsClient) -> None:
    with running() as exchange:
        url = f"http://127.0.0.1:{exchange.server.port}"
        exchange.server.faults.set("rest", times=1)
        client.request(ListRequest(url=url, queries=(LINEAR, InstrumentQuery("spot"))))
        response = taken(client)

    assert ({LINEAR}, {InstrumentQuery("spot")}) == (set(response.errors), set(response.lists))
    assert response.is_exchange_there is None


@pytest.mark.parametrize("is_there", [True, False])
def test_the_websocket_is_probed_after_a_failure_if_it_was_given(
    client: InstrumentsClient, is_there: bool
) -> None:
    with running() as exchange:
        exchange.server.faults.set("rest")
        if not is_there:
            exchange.server.faults.set("refuse")
        port = exchange.server.port
        websocket_url = f"ws://127.0.0.1:{port}/v5/public/linear"
        client.request(
            ListRequest(
                url=f"http://127.0.0.1:{port}", queries=(LINEAR,), websocket_url=websocket_url
            )
        )

        assert is_there is taken(client).is_exchange_there


def test_a_bug_is_reported_and_does_not_end_the_thread(
    client: InstrumentsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer in ("errors", "lists"):
        with running() as exchange, monkeypatch.context() as patch:
            if answer == "errors":
                patch.setattr(instruments_client, "get_list", None)
            url = f"http://127.0.0.1:{exchange.server.port}"
            client.request(ListRequest(url=url, queries=(LINEAR,)))
            assert {LINEAR} == set(getattr(taken(client), answer))


def test_closing_does_not_wait_for_a_running_request() -> None:
    done = threading.Event()
    with server(waits_for(done)) as url:
        client = InstrumentsClient()
        client.request(ListRequest(url=url, queries=(LINEAR,)))
        began = time.monotonic()
        client.close()
        assert time.monotonic() - began < 3
        done.set()
