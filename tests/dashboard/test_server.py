"""The HTTP server over real sockets: what it serves and what it refuses."""

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from bybit_pipeline.processes.dashboard import server as server_module
from bybit_pipeline.processes.dashboard.page_state import PageState
from bybit_pipeline.processes.dashboard.server import STREAMS_MAX, Server
from tests.dashboard.browser import wait
from tests.dashboard.payloads import book


@pytest.fixture
def server() -> Iterator[Server]:
    page = PageState("60s", "10")
    server = Server("127.0.0.1", 0, page, lambda: 1)
    take(server, book())
    yield server
    server.close()


def take(server: Server, payload: dict[str, Any]) -> None:
    with server.lock:
        server.page.take(payload, 1)
        server.notify()


def address(server: Server) -> tuple[str, int]:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return host, int(port)


def ask(
    server: Server, path: str, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(*address(server), timeout=5)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


class Stream:
    """The browser's end of ``/events``."""

    def __init__(self, server: Server, path: str = "/events") -> None:
        self._socket = socket.create_connection(address(server), timeout=5)
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self._file = self._socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        while self._file.readline().strip():
            pass

    def next(self) -> dict[str, Any]:
        line = self._file.readline()
        assert line.startswith(b"data: "), line
        self._file.readline()
        return dict(json.loads(line.removeprefix(b"data: ")))

    def ends(self) -> bool:
        return not [line for line in self._file if b"data: " not in line and line.strip()]

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def test_the_page_and_all_its_files_are_served(server: Server) -> None:
    answer, body = ask(server, "/")

    assert 200 == answer.status
    for path in ("/style.css", "/js/main.js", "/vendor/uPlot.iife.min.js", "/favicon.svg"):
        assert path.encode() in body
        assert 200 == ask(server, path)[0].status, path


def test_every_response_forbids_other_origins_and_inline_code(server: Server) -> None:
    for path in ("/", "/js/main.js", "/nothing"):
        headers = ask(server, path)[0].headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy
        assert "nosniff" == headers["X-Content-Type-Options"]
        assert "no-referrer" == headers["Referrer-Policy"]
        assert "DENY" == headers["X-Frame-Options"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_methods_that_do_not_read_are_refused(server: Server, method: str) -> None:
    answer, _ = ask(server, "/", method)

    assert (405, "GET, HEAD") == (answer.status, answer.headers["Allow"])
    assert 1 == server.counts.refused["method"]


@pytest.mark.parametrize(
    "path",
    [
        "/../actor.py",
        "/js/../../actor.py",
        "/%2e%2e/actor.py",
        "//etc/passwd",
        "/js",
        "/vendor/README.md",
    ],
)
def test_only_listed_files_are_served(server: Server, path: str) -> None:
    assert 404 == ask(server, path)[0].status


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:9480", "127.0.0.1.evil.example", "localhost.evil.example", ""],
)
def test_a_website_cannot_reach_it_through_a_name_of_its_own(server: Server, host: str) -> None:
    assert 403 == ask(server, "/events", Host=host)[0].status
    assert 1 == server.counts.refused["host"]


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:9480", "[::1]:9480"])
def test_names_of_this_machine_are_accepted_with_any_port(server: Server, host: str) -> None:
    assert 200 == ask(server, "/", Host=host)[0].status


def test_a_stream_starts_with_the_last_values_and_continues_with_changes(server: Server) -> None:
    stream = Stream(server, "/events?market=linear.BTCUSDT")
    first = stream.next()
    take(server, book(seq=2, best_bid=99.5))
    second = stream.next()
    stream.close()

    assert [("linear.BTCUSDT", 1)] == [(row["name"], row["book"]["seq"]) for row in first["rows"]]
    assert [[100.0, 3.0]] == first["market"]["orderbook"]["bids"]
    assert [(2, 99.5)] == [(row["book"]["seq"], row["best_bid"]) for row in second["rows"]]


def test_a_quiet_stream_sends_heartbeats(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEARTBEAT_S", 0.05)
    stream = Stream(server)
    stream.next()

    beat = stream.next()
    stream.close()

    assert (False, []) == (beat["full"], beat["rows"])


def test_a_browser_that_does_not_read_skips_versions_and_is_disconnected(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "SEND_S", 0.3)
    monkeypatch.setattr(server_module, "PAUSE_S", 0.0)
    monkeypatch.setattr(server_module, "SEND_BUFFER", 4096)
    slow = Stream(server, "/events?market=linear.BTCUSDT")
    big = [[float(level), 1.0] for level in range(20_000)]
    taken = 0

    def push() -> bool:
        nonlocal taken
        take(server, book(seq=taken + 2, bids=big))
        taken += 1
        return server.counts.refused["slow"] == 1

    wait(push, "the slow browser is disconnected")
    slow.close()

    assert server.counts.updates < taken
    wait(lambda: server.counts.streams == 0, "its place is free again")


def test_the_number_of_pages_is_limited(server: Server) -> None:
    streams = [Stream(server) for _ in range(STREAMS_MAX)]
    for stream in streams:
        stream.next()

    one_more = Stream(server)
    assert 503 == one_more.status
    one_more.close()

    for stream in streams:
        stream.close()
    take(server, book(seq=2))
    wait(lambda: server.counts.streams == 0, "all places are free again")


def test_closing_ends_the_streams() -> None:
    server = Server("127.0.0.1", 0, PageState("60s", "10"), lambda: 1)
    stream = Stream(server)
    stream.next()

    server.close()

    assert stream.ends()
    stream.close()
