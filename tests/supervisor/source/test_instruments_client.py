"""Getting lists over real sockets: from the simulated exchange, and from broken servers."""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

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
from tests.simulator.client import running
from tests.supervisor.plan.test_instruments import page

LINEAR = InstrumentQuery("linear")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """An address where every connection gets this treatment, after its request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    with suppress(OSError):  # the client has had enough
                        answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def says(data: bytes) -> Callable[[socket.socket], None]:
    """Send this and close."""
    return lambda connection: connection.sendall(data)


def waits_for(event: threading.Event) -> Callable[[socket.socket], None]:
    """Say nothing until then."""

    def wait(_: socket.socket) -> None:
        event.wait(5)

    return wait


def failure_at(url: str, *, deadline_s: float = 20.0) -> InstrumentListError:
    """Why the list cannot be had there."""
    with pytest.raises(InstrumentListError) as error:
        get_list(url, LINEAR, deadline=time.monotonic() + deadline_s)
    assert "\n" not in str(error.value)
    return error.value


def test_lists_come_from_the_simulated_exchange_whatever_proxy_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    queries = (
        InstrumentQuery("linear", has_turnover=True),
        InstrumentQuery("spot"),
        InstrumentQuery("option", "ETH"),
    )
    with running() as exchange:
        answer = get_lists(
            ListRequest(url=f"http://127.0.0.1:{exchange.server.port}", queries=queries)
        )

    assert not answer.errors
    assert {"BTCUSDT", "ETHUSDT"} == set(answer.lists[queries[0]].symbols[:2])
    assert "MNTUSDT" in answer.lists[queries[1]].symbols
    assert all(symbol.startswith("ETH-") for symbol in answer.lists[queries[2]].symbols)


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
def test_answers_that_are_no_list_have_a_word_each(data: bytes, failure: str) -> None:
    with server(says(data)) as url:
        assert failure_at(url).failure == failure


def test_nobody_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert failure_at(f"http://127.0.0.1:{port}").failure == "unreachable"
    assert failure_at("http://no-such-host.invalid").failure == "unreachable"


def test_plain_text_where_tls_should_be_is_unreachable() -> None:
    with server(says(b"HTTP/1.1 200 OK\r\n\r\n")) as url:
        assert failure_at(url.replace("http:", "https:")).failure == "unreachable"


def test_an_answer_that_never_begins_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruments_client, "CONNECT_S", 0.2)
    done = threading.Event()
    with server(waits_for(done)) as url:
        assert failure_at(url).failure == "timeout"
        done.set()


def test_an_answer_that_comes_by_drops_is_given_up_at_the_deadline() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(OK % 10_000)
        for _ in range(400):
            connection.sendall(b" ")
            time.sleep(0.02)

    began = time.monotonic()
    with server(drip) as url:
        assert failure_at(url, deadline_s=0.3).failure == "timeout"
        assert time.monotonic() - began < 3


def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruments_client, "BODY_BYTES_MAX", 1 << 20)

    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b" " * 65_536)

    with server(flood) as url:
        assert failure_at(url).failure == "too_large"


# -- the thread --------------------------------------------------------------------------------


@pytest.fixture
def thread() -> Iterator[InstrumentsClient]:
    """A client that is closed in the end."""
    client = InstrumentsClient()
    yield client
    client.close()


def taken(thread: InstrumentsClient) -> ListResponse:
    """The next answer."""
    assert select.select([thread.reader], [], [], 10)[0]
    return thread.take()


def test_answers_come_one_by_one_by_a_pipe(thread: InstrumentsClient) -> None:
    with running() as exchange:
        url = f"http://127.0.0.1:{exchange.server.port}"
        for query in (LINEAR, InstrumentQuery("spot")):
            thread.ask(ListRequest(url=url, queries=(query,)))
            assert thread.is_busy
            answer = taken(thread)
            assert not thread.is_busy
            assert set(answer.lists) == {query}


def test_one_list_that_fails_does_not_spoil_the_other(thread: InstrumentsClient) -> None:
    with running() as exchange:
        url = f"http://127.0.0.1:{exchange.server.port}"
        exchange.server.faults.set("rest", times=1)
        thread.ask(ListRequest(url=url, queries=(LINEAR, InstrumentQuery("spot"))))
        answer = taken(thread)

    assert (set(answer.errors), set(answer.lists)) == ({LINEAR}, {InstrumentQuery("spot")})
    assert answer.is_exchange_there is None


@pytest.mark.parametrize("is_there", [True, False])
def test_after_a_failure_the_exchange_itself_is_asked_if_it_matters(
    thread: InstrumentsClient, is_there: bool
) -> None:
    with running() as exchange:
        exchange.server.faults.set("rest")
        if not is_there:
            exchange.server.faults.set("refuse")
        port = exchange.server.port
        websocket_url = f"ws://127.0.0.1:{port}/v5/public/linear"
        thread.ask(
            ListRequest(
                url=f"http://127.0.0.1:{port}", queries=(LINEAR,), websocket_url=websocket_url
            )
        )

        assert taken(thread).is_exchange_there is is_there


def test_a_bug_is_said_and_does_not_end_the_thread(
    thread: InstrumentsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer in ("errors", "lists"):
        with running() as exchange, monkeypatch.context() as patch:
            if answer == "errors":
                patch.setattr(instruments_client, "get_list", None)
            url = f"http://127.0.0.1:{exchange.server.port}"
            thread.ask(ListRequest(url=url, queries=(LINEAR,)))
            assert set(getattr(taken(thread), answer)) == {LINEAR}


def test_closing_waits_for_nobody() -> None:
    done = threading.Event()
    with server(waits_for(done)) as url:
        thread = InstrumentsClient()
        thread.ask(ListRequest(url=url, queries=(LINEAR,)))
        began = time.monotonic()
        thread.close()
        assert time.monotonic() - began < 3
        done.set()
