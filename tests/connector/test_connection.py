"""Opening a connection, and the reason of every failure."""

import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from bybit_pipeline.processes.connector.connection import (
    Connection,
    failure_name,
    failure_reason,
)

DEADLINE_S = 10.0


def responding(response: bytes) -> tuple[socket.socket, str]:
    """A server that sends the same response on every connection."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve_all() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                connection.recv(4096)
                connection.sendall(response)
                connection.close()

    threading.Thread(target=serve_all, daemon=True).start()
    return server, f"ws://127.0.0.1:{server.getsockname()[1]}/"


def close_listener(server: socket.socket) -> None:
    with suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
    server.close()


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "forbidden"),
        (b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\nno", "rate_limited"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "server_error"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "handshake"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "handshake"),
        (b"HTTP/1.1 301 Moved\r\nlocation: ws://127.0.0.1:1/\r\n\r\n", "handshake"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "handshake"),
        (b"HTTP/1.1 429 x\r\ncontent-length: many\r\n\r\n", "handshake"),
        (b"noise\r\n\r\n", "handshake"),
        (b"\xff\xfe\r\n\r\n", "handshake"),
        (b"", "closed"),
    ],
)
def test_every_response_that_is_not_an_upgrade_has_a_reason(response: bytes, reason: str) -> None:
    server, url = responding(response)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the reason counts
        Connection(url).open(DEADLINE_S)
    close_listener(server)
    assert reason == failure_reason(caught.value), repr(caught.value)


@pytest.mark.parametrize(
    ("response", "name"),
    [(b"HTTP/1.1 403 Forbidden\r\n\r\n", "403"), (b"noise\r\n\r\n", "handshake")],
)
def test_people_see_the_http_status(response: bytes, name: str) -> None:
    server, url = responding(response)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the name counts
        Connection(url).open(DEADLINE_S)
    close_listener(server)
    assert name == failure_name(caught.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ws://no-such-host.invalid/", "dns"),
        ("ws://127.0.0.1:1/", "refused"),
    ],
)
def test_a_missing_host_has_a_reason(url: str, reason: str) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the reason counts
        Connection(url).open(DEADLINE_S)
    assert reason == failure_reason(caught.value)


def test_a_server_that_does_not_respond_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = Connection(f"ws://127.0.0.1:{server.getsockname()[1]}/")
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the reason counts
            connection.open(0.05)
    assert "timeout" == failure_reason(caught.value)


def test_an_untrusted_certificate_is_rejected(certificate: tuple[Path, Path]) -> None:
    server = tls_server(*certificate)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the reason counts
        Connection(f"wss://localhost:{server.getsockname()[1]}/").open(DEADLINE_S)
    assert "tls" == failure_reason(caught.value)
    close_listener(server)


def test_a_certificate_of_another_host_is_rejected(certificate: tuple[Path, Path]) -> None:
    """Also if it is trusted: its owner could pose as Bybit."""
    server = tls_server(*certificate)
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch") as caught:
        Connection(f"wss://127.0.0.1:{server.getsockname()[1]}/", tls=trusting).open(DEADLINE_S)
    assert "tls" == failure_reason(caught.value)
    close_listener(server)


def tls_server(cert: Path, key: Path) -> socket.socket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = socket.create_server(("127.0.0.1", 0))

    def serve_all() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                with suppress(OSError):
                    context.wrap_socket(connection, server_side=True)
                connection.close()

    threading.Thread(target=serve_all, daemon=True).start()
    return server
