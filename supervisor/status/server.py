"""
The supervisor's HTTP server: counters, scrape targets, status, health and readiness.

Serves the latest ``Snapshot`` of the supervisor's loop and never waits for the loop. While the loop
hangs, the pipeline is not ready. Read-only; see ``bybit_pipeline.shared.runtime.webserver``.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from bybit_pipeline.shared.runtime.clock import SystemClock
from bybit_pipeline.shared.runtime.webserver import BoundedServer, ReadOnlyHandler
from bybit_pipeline.shared.settings.ports import host_port, taken
from bybit_pipeline.supervisor.status.snapshot import Snapshot

JSON = "application/json"
PAGES = ("/metrics", "/targets", "/status", "/healthz", "/readyz")


@dataclass(frozen=True, kw_only=True)
class Page:
    """One response."""

    status: HTTPStatus
    content_type: str
    body: bytes


class StatusServer:
    """
    The HTTP server, in threads of its own.

    The loop replaces ``snapshot``; requests read the current one.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 lets the operating system choose.
        registry: The counters.
        monotonic: The clock of the snapshots.

    Attributes:
        snapshot: The snapshot to serve.
        address: ``host:port`` of the server, with the bound port.

    Raises:
        TakenError: If the address cannot be bound.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        monotonic: Callable[[], float] = SystemClock.monotonic,
    ) -> None:
        self.snapshot = Snapshot()
        self._monotonic = monotonic
        self._registry = registry
        try:
            self._server = _Server((host, port), self)
        except OSError as error:
            raise taken("prometheus.port", host, port, error) from error
        self.address = host_port(host, self._server.server_port)
        self._thread = self._server.start("http", poll_s=0.05)

    @property
    def url(self) -> str:
        """URL of the server, without a path."""
        return f"http://{self.address}"

    def page(self, path: str) -> Page:
        """The response for a path without its query."""
        snapshot = self.snapshot.as_of(self._monotonic())
        if path == "/metrics":
            return Page(
                status=HTTPStatus.OK,
                content_type=CONTENT_TYPE_LATEST,
                body=generate_latest(self._registry),
            )
        if path == "/targets":
            return _json(HTTPStatus.OK, snapshot.targets)
        if path == "/status":
            return _json(HTTPStatus.OK, snapshot.status)
        if path == "/healthz":
            return _json(HTTPStatus.OK, {"healthy": True})
        if path == "/readyz":
            ready = HTTPStatus.OK if snapshot.is_ready else HTTPStatus.SERVICE_UNAVAILABLE
            return _json(ready, {"ready": snapshot.is_ready, "reasons": snapshot.reasons})
        return _json(HTTPStatus.NOT_FOUND, {"error": "no such page", "pages": PAGES})

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(BoundedServer):
    def __init__(self, address: tuple[str, int], owner: StatusServer) -> None:
        self.owner = owner
        super().__init__(address, _Handler)


class _Handler(ReadOnlyHandler):
    server: _Server

    def show(self) -> tuple[HTTPStatus, str, bytes]:
        """The page of the path, without its query."""
        page = self.server.owner.page(self.path.partition("?")[0])
        return page.status, page.content_type, page.body


def _json(status: HTTPStatus, value: Any) -> Page:
    return Page(status=status, content_type=JSON, body=json.dumps(value).encode() + b"\n")
