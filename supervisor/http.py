"""
The supervisor's HTTP: counters, scrape targets, status, health and readiness.

Serves what the supervisor's loop left in a ``Snapshot``; never waits for the loop. Reading only:
GET and HEAD, a bounded number of connections, and a time limit for each.
"""

import json
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from supervisor.ports import taken

log = structlog.get_logger()

CONNECTIONS_MAX = 32
CONNECTION_S = 5.0
"""From the connection to the last byte of the answer, however busy the client keeps us."""
JSON = "application/json"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What the pages show."""

    status: dict[str, Any] = field(default_factory=dict)
    """As ``status --json``."""
    targets: list[dict[str, Any]] = field(default_factory=list)
    """As Prometheus' HTTP service discovery wants them."""
    is_ready: bool = False
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Page:
    """One answer."""

    status: HTTPStatus
    content_type: str
    body: bytes


class StatusServer:
    """
    The HTTP server, in threads of its own.

    The loop replaces ``snapshot``; requests read whatever is there.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 lets the operating system choose.
        registry: The counters.

    Raises:
        TakenError: If the address cannot be bound.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self.snapshot = Snapshot()
        self._registry = registry
        try:
            self._server = _Server((host, port), self)
        except OSError as error:
            raise taken("prometheus.port", host, port, error) from error
        self.address = f"{_bracketed(host)}:{self._server.server_port}"
        """``host:port`` as a client would write it."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="http", daemon=True
        )
        self._thread.start()

    def page(self, path: str) -> Page:
        """The answer for a path, without its query."""
        snapshot = self.snapshot
        if path == "/metrics":
            return Page(status=HTTPStatus.OK, content_type=CONTENT_TYPE_LATEST,
                        body=generate_latest(self._registry))  # fmt: skip
        if path == "/targets":
            return _json(HTTPStatus.OK, snapshot.targets)
        if path == "/status":
            return _json(HTTPStatus.OK, snapshot.status)
        if path == "/healthz":
            return _json(HTTPStatus.OK, {"healthy": True})
        if path == "/readyz":
            ready = HTTPStatus.OK if snapshot.is_ready else HTTPStatus.SERVICE_UNAVAILABLE
            return _json(ready, {"ready": snapshot.is_ready, "reasons": snapshot.reasons})
        pages = ["/metrics", "/targets", "/status", "/healthz", "/readyz"]
        return _json(HTTPStatus.NOT_FOUND, {"error": "no such page", "pages": pages})

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, address: tuple[str, int], owner: StatusServer) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.owner = owner
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._ends: dict[Any, float] = {}
        """When each open connection must be done, oldest first."""
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, without the look-up of our own name that ``HTTPServer`` does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if there are not too many already."""
        if self._free.acquire(blocking=False):
            self._ends[request] = time.monotonic() + CONNECTION_S
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._ends.pop(request, None)
            self._free.release()

    def service_actions(self) -> None:
        """End connections whose time is over: a byte now and then keeps no thread."""
        now = time.monotonic()
        for request, end in list(self._ends.items()):
            if end > now:
                break
            with suppress(OSError):  # gone by itself meanwhile
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Note a connection that broke off, which is the client's affair."""
        log.debug("http connection broke off", client=str(client_address), exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CONNECTION_S
    server_version = "bybit-pipeline"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with the page."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer with the page's headers."""
        self._answer(with_body=False)

    def send_error(
        self,
        code: int,
        message: str | None = None,
        explain: str | None = None,  # noqa: ARG002
    ) -> None:
        """Answer an unreadable request or another method than GET and HEAD."""
        status = HTTPStatus(code)
        if status is HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self._send(_json(status, {"error": message or status.phrase}), with_body=True)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not logged."""

    def _answer(self, *, with_body: bool) -> None:
        page = self.server.owner.page(self.path.partition("?")[0])
        self._send(page, with_body=with_body)

    def _send(self, page: Page, *, with_body: bool) -> None:
        self.send_response(page.status)
        if page.status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            self.wfile.write(page.body)


def _json(status: HTTPStatus, value: Any) -> Page:
    return Page(status=status, content_type=JSON, body=json.dumps(value).encode() + b"\n")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
