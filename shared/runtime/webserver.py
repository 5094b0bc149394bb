"""
A read-only HTTP server with bounded resources.

The number of connections is limited, and each has its own thread and a time limit. It answers GET
and HEAD; the content comes from the handler.
"""

import json
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, ClassVar

import structlog

log = structlog.get_logger()

CONNECTIONS_MAX = 32
CONNECTION_S = 5.0
"""Time limit from the connection to the last byte of the answer."""

Answer = tuple[HTTPStatus, str, bytes]
"""Status, content type and body."""


def error_answer(status: HTTPStatus, error: str) -> Answer:
    """Return an answer with an error message as JSON."""
    return status, "application/json", json.dumps({"error": error}).encode() + b"\n"


class BoundedServer(ThreadingHTTPServer):
    """
    Serves up to ``connections_max`` connections in threads; further ones are closed at once.

    Args:
        address: Host and port; port 0 lets the operating system choose.
        handler: Answers the requests of one connection.

    Raises:
        OSError: If the address cannot be bound.
    """

    connections_max: ClassVar[int] = CONNECTIONS_MAX
    connection_s: ClassVar[float] = CONNECTION_S
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.request_queue_size = self.connections_max
        self._free = threading.BoundedSemaphore(self.connections_max)
        self._ends: dict[Any, float] = {}
        """Deadline of each open connection, oldest first."""
        super().__init__(address, handler)

    def start(self, name: str, *, poll_s: float = 0.5) -> threading.Thread:
        """Serve in a thread of that name until ``shutdown``, which takes up to ``poll_s``."""
        thread = threading.Thread(target=self.serve_forever, args=(poll_s,), name=name, daemon=True)
        thread.start()
        return thread

    def on_turned_away(self) -> None:
        """Called when a connection is closed because there are too many."""

    def server_bind(self) -> None:
        """Bind without the host name lookup of ``HTTPServer``."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, unless there are too many connections."""
        if self._free.acquire(blocking=False):
            self._ends[request] = time.monotonic() + self.connection_s
            super().process_request(request, client_address)
        else:
            self.on_turned_away()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, then release the place of the connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._ends.pop(request, None)
            self._free.release()

    def service_actions(self) -> None:
        """Close connections past their deadline, even if the client still sends or reads slowly."""
        now = time.monotonic()
        for request, end in list(self._ends.items()):
            if end > now:
                break
            with suppress(OSError):  # already closed
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log a broken connection at debug level only: it is the client's business."""
        log.debug("http connection broken", client=str(client_address), exc_info=True)


class ReadOnlyHandler(BaseHTTPRequestHandler):
    """Answers GET and HEAD with the result of ``show``, rejects other methods, logs no requests."""

    timeout = CONNECTION_S
    server_version = "bybit-pipeline"
    sys_version = ""
    always: ClassVar[Mapping[str, str]] = {"Cache-Control": "no-store"}
    """Headers of every answer."""

    def show(self) -> Answer:
        """Return the answer for ``self.path``."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """Answer with the page."""
        self.send(*self.show())

    def do_HEAD(self) -> None:
        """Answer with the page's headers."""
        self.send(*self.show())

    def send_error(
        self,
        code: int,
        message: str | None = None,
        explain: str | None = None,  # noqa: ARG002
    ) -> None:
        """Answer an unreadable request, or a method other than GET and HEAD."""
        status = HTTPStatus(code)
        if status is HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self.send(*error_answer(status, message or status.phrase))

    def log_message(self, format: str, *arguments: Any) -> None:
        """Do not log requests."""

    def send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        """Send an answer; for HEAD without its body."""
        self.send_head(status, content_type, {"Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_head(self, status: HTTPStatus, content_type: str, more: Mapping[str, str]) -> None:
        """Send the headers of an answer."""
        headers = {"Content-Type": content_type, **more, **self.always}
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = "GET, HEAD"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
