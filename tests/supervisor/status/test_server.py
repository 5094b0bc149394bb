"""The pages of the supervisor's HTTP server, over a real socket."""

import contextlib
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from bybit_pipeline.shared.errors import TakenError
from bybit_pipeline.shared.runtime.telemetry import Telemetry
from bybit_pipeline.shared.runtime.webserver import CONNECTIONS_MAX
from bybit_pipeline.supervisor.status.server import StatusServer
from bybit_pipeline.supervisor.status.snapshot import OVERDUE_S, Snapshot


@pytest.fixture
def server() -> Iterator[StatusServer]:
    """A server on a free port."""
    telemetry = Telemetry()
    telemetry.gauge("process_up", "Up.", process="trades-0").value = 1
    server = StatusServer("127.0.0.1", 0, telemetry.registry)
    yield server
    server.close()


def ask(server: StatusServer, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    host, _, port = server.address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read()
    finally:
        connection.close()


def test_metrics_are_served_in_the_format_of_prometheus(server: StatusServer) -> None:
    code, content_type, body = ask(server, "/metrics")

    assert 200 == code
    assert content_type.startswith("text/plain; version=")
    assert b'bybit_pipeline_process_up{process="trades-0"} 1.0' in body


def test_status_and_targets_show_the_latest_snapshot(server: StatusServer) -> None:
    targets = [{"targets": ["127.0.0.1:1"], "labels": {"process": "supervisor"}}]
    server.snapshot = Snapshot(status={"version": "1"}, targets=targets)

    assert {"version": "1"} == json.loads(ask(server, "/status")[2])
    code, content_type, body = ask(server, "/targets?x=1")
    assert (200, "application/json", targets) == (code, content_type, json.loads(body))


def test_readiness_is_the_status_code_and_the_reasons_are_in_the_body(server: StatusServer) -> None:
    server.snapshot = Snapshot(is_ready=False, reasons=["trades-0: restarting"])
    code, _, body = ask(server, "/readyz")
    assert (503, ["trades-0: restarting"]) == (code, json.loads(body)["reasons"])

    server.snapshot = Snapshot(is_ready=True)
    assert 200 == ask(server, "/readyz")[0]


def test_a_pipeline_is_not_ready_while_its_supervisor_makes_no_snapshots() -> None:
    now = 100.0
    server = StatusServer("127.0.0.1", 0, CollectorRegistry(), lambda: now)
    server.snapshot = Snapshot(status={"ready": True, "reasons": []}, is_ready=True, made_at=now)
    try:
        now += OVERDUE_S - 0.1
        assert 200 == ask(server, "/readyz")[0]

        now += 3.1

        code, _, body = ask(server, "/readyz")
        assert (503, ["supervisor: silent for 4 s"]) == (code, json.loads(body)["reasons"])
        assert not json.loads(ask(server, "/status")[2])["ready"]
    finally:
        server.close()


def test_health_does_not_depend_on_readiness(server: StatusServer) -> None:
    assert 200 == ask(server, "/healthz")[0]


def test_head_has_headers_and_no_body(server: StatusServer) -> None:
    assert (200, "application/json", b"") == ask(server, "/healthz", "HEAD")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_rejected(server: StatusServer, method: str) -> None:
    assert 405 == ask(server, "/status", method)[0]


def test_an_unknown_page_is_not_found_and_the_pages_are_listed(server: StatusServer) -> None:
    code, _, body = ask(server, "/admin")

    assert 404 == code
    assert "/readyz" in json.loads(body)["pages"]


def test_the_server_survives_garbage(server: StatusServer) -> None:
    host, _, port = server.address.rpartition(":")
    for garbage in (b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b""):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(garbage)

    assert 200 == ask(server, "/healthz")[0]


def test_idle_connections_are_bounded(server: StatusServer) -> None:
    """A further connection is closed at once; after one has left, there is room again."""
    host, _, port = server.address.rpartition(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(CONNECTIONS_MAX)]
    try:
        with socket.create_connection((host, int(port)), timeout=5) as one_more:
            assert b"" == one_more.recv(1)
    finally:
        for connection in idle:
            connection.close()
    assert 200 == _eventually(server)


def _eventually(server: StatusServer) -> int:
    for _ in range(100):
        try:
            return ask(server, "/healthz")[0]
        except (ConnectionError, http.client.HTTPException):
            continue
    return 0


@pytest.mark.parametrize(
    "start",
    [b"", b"G", b"GET / HTTP/1.1\r\nA: ", b"GET / HTTP/1.1\r\n"],
    ids=["nothing", "method", "header", "headers"],
)
def test_a_slow_request_is_cut_off(
    server: StatusServer, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    """A byte just before every timeout of the socket must not occupy a thread without limit."""
    monkeypatch.setattr("bybit_pipeline.shared.runtime.webserver.BoundedServer.connection_s", 0.3)
    began = time.monotonic()
    with connect(server) as slow:
        slow.settimeout(0.05)
        slow.sendall(start)
        while not is_closed(slow):
            assert time.monotonic() - began < 5
            with contextlib.suppress(OSError):
                slow.sendall(b"x")
    assert 200 == _eventually(server)


def connect(server: StatusServer) -> socket.socket:
    host, _, port = server.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(4096) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def raw(server: StatusServer, request: bytes) -> bytes:
    """The response to these bytes; empty if the connection was closed."""
    answer = b""
    with connect(server) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(request)
        while data := connection.recv(65536):
            answer += data
    return answer


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET /status HTTP/1.1\r\nA: " + b"a" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET /status HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n", b"431"),
    ],
    ids=["path", "header", "headers"],
)
def test_an_oversized_request_is_rejected(
    server: StatusServer, request_bytes: bytes, code: bytes
) -> None:
    answer = raw(server, request_bytes)

    # Unread bytes make the system reset the connection, perhaps before the response arrives.
    assert not answer or code == answer.split(b" ")[1]
    assert 200 == ask(server, "/healthz")[0]


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/status/../../etc/passwd",
        "/metrics/",
        "/%2e%2e/etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1/status",
        "*",
    ],
)
def test_only_the_pages_are_found(server: StatusServer, path: str) -> None:
    answer = raw(server, f"GET {path} HTTP/1.1\r\n\r\n".encode())

    assert b"404" == answer.split(b" ")[1]
    assert b"root:" not in answer


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get"])
def test_no_request_changes_the_pages(server: StatusServer, method: str) -> None:
    before = [ask(server, path) for path in ("/status", "/targets", "/healthz", "/readyz")]

    for path in ("/status", "/stop", "/subscribe?symbol=BTCUSDT", "/healthz"):
        answer = raw(server, f"{method} {path} HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        assert not answer or b"405" == answer.split(b" ")[1]

    after = [ask(server, path) for path in ("/status", "/targets", "/healthz", "/readyz")]
    assert before == after


def test_a_taken_port_is_rejected_with_its_holder(server: StatusServer) -> None:
    port = int(server.address.rpartition(":")[2])

    with pytest.raises(TakenError) as error:
        StatusServer("127.0.0.1", port, CollectorRegistry())

    assert f"prometheus.port: 127.0.0.1:{port} is taken by process {os.getpid()} (" in str(
        error.value
    )


def test_an_address_of_another_host_is_rejected() -> None:
    with pytest.raises(TakenError, match=r"^prometheus\.port: 192\.0\.2\.1:0 cannot be bound"):
        StatusServer("192.0.2.1", 0, CollectorRegistry())
