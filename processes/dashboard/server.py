"""
The dashboard's HTTP server: the files of the page, and a stream of updates per open page.

Read only: GET and HEAD of a fixed list of files, and of ``/events``. No request changes anything.
A request is refused unless its ``Host`` names this machine, so that a website cannot reach the
dashboard through a DNS name of its own. Apart from the path, nothing a browser sends is used.

Each stream has a thread that sends what its browser lacks, at most four times per second. While a
browser does not read, its thread waits in ``send``; after ``SEND_S`` the connection is closed.
"""

import math
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec

from bybit_pipeline.processes.dashboard.page_state import Cursor, PageState
from bybit_pipeline.shared.errors import TakenError
from bybit_pipeline.shared.runtime.webserver import (
    Answer,
    BoundedServer,
    ReadOnlyHandler,
    error_answer,
)
from bybit_pipeline.shared.settings.ports import host_port

STATIC = Path(__file__).parent / "static"
STREAMS_MAX = 16
CONNECTIONS_MAX = 64
REQUEST_S = 5.0
"""Time limit for a request to arrive."""
SEND_S = 10.0
"""Time limit for a browser that reads nothing."""
SEND_BUFFER = 256 * 1024
PAUSE_S = 0.25
"""Pause between two updates of a stream."""
HEARTBEAT_S = 0.5
"""Longest pause: an update without changes shows that the connection works."""

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
"""Names of this machine, with any port: a tunnel may use another one."""

REFUSALS = ("busy", "host", "method", "path", "slow")


@dataclass(frozen=True)
class File:
    """One file of the page."""

    content_type: str
    body: bytes


@dataclass
class Counts:
    """Totals of the server; written by many threads, under the server's lock."""

    streams: int = 0
    updates: int = 0
    refused: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REFUSALS, 0))


def read_files(directory: Path = STATIC) -> dict[str, File]:
    """The files that are served, by path; ``/`` is the page."""
    files = {
        f"/{path.relative_to(directory).as_posix()}": File(TYPES[path.suffix], path.read_bytes())
        for path in directory.rglob("*")
        if path.suffix in TYPES
    }
    return files | {"/": files["/index.html"]}


class Server:
    """
    The HTTP server, in threads of its own.

    To change the page, hold ``lock``, and call ``notify`` before releasing it.

    Args:
        host: Address of this machine to listen on.
        port: Port to listen on; 0 lets the operating system choose.
        page: The state of the page.
        now_ms: Returns the current time.

    Raises:
        TakenError: If the address cannot be bound.
    """

    def __init__(self, host: str, port: int, page: PageState, now_ms: Callable[[], int]) -> None:
        self.page = page
        self.counts = Counts()
        self.lock = threading.Lock()
        self.files = read_files()
        self._now_ms = now_ms
        self._condition = threading.Condition(self.lock)
        self._is_closed = False
        try:
            self._server = _Http((host, port), self)
        except OSError as error:
            text = f"dashboard.port: {host}:{port} cannot be bound: {error.strerror or error}"
            raise TakenError(text) from error
        self.url = f"http://{host_port(host, self._server.server_port)}"
        self._thread = self._server.start("http", poll_s=0.05)

    def notify(self) -> None:
        """Wake the streams after a change of the page; the caller holds the lock."""
        self._condition.notify_all()

    def close(self) -> None:
        """Stop serving; streams end."""
        with self.lock:
            self._is_closed = True
            self._condition.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def refuse(self, reason: str) -> None:
        """Count a refused request."""
        with self.lock:
            self.counts.refused[reason] += 1

    def open_stream(self) -> bool:
        """Register a stream; False if there are too many."""
        with self.lock:
            if self.counts.streams >= STREAMS_MAX or self._is_closed:
                return False
            self.counts.streams += 1
            return True

    def close_stream(self) -> None:
        """Unregister a stream."""
        with self.lock:
            self.counts.streams -= 1

    def next_update(self, cursor: Cursor, selected: str) -> tuple[Cursor, bytes] | None:
        """
        Wait for the next update of a stream and return it as JSON; None when the server closes.

        Waits for a change, at most ``HEARTBEAT_S``.
        """
        with self._condition:
            self._condition.wait_for(
                lambda: self._is_closed or self.page.version > cursor.version, HEARTBEAT_S
            )
            if self._is_closed:
                return None
            cursor, update = self.page.update(cursor, selected, self._now_ms())
            self.counts.updates += 1
        return cursor, msgspec.json.encode(update)

    def pause(self) -> None:
        """Wait for ``PAUSE_S``, or until the server closes."""
        with self._condition:
            self._condition.wait_for(lambda: self._is_closed, PAUSE_S)


class _Http(BoundedServer):
    connections_max = CONNECTIONS_MAX
    connection_s = math.inf  # a page is open for days

    def __init__(self, address: tuple[str, int], owner: Server) -> None:
        self.owner = owner
        super().__init__(address, _Handler)

    def on_turned_away(self) -> None:
        """Count a connection that was refused because there are too many."""
        self.owner.refuse("busy")


class _Handler(ReadOnlyHandler):
    server: _Http
    timeout = REQUEST_S
    always = HEADERS

    def do_GET(self) -> None:  # noqa: N802, the name that http.server looks for
        """Answer with a file or the stream."""
        parts = urlsplit(self.path)
        if parts.path == "/events" and self._names_this_machine():
            self._stream(parse_qs(parts.query).get("market", [""])[-1])
        else:
            super().do_GET()

    def show(self) -> Answer:
        """The requested file, or an error."""
        owner, path = self.server.owner, urlsplit(self.path).path
        if not self._names_this_machine():
            owner.refuse("host")
            return error_answer(HTTPStatus.FORBIDDEN, "use the name localhost or 127.0.0.1")
        if path not in owner.files:
            owner.refuse("path")
            return error_answer(HTTPStatus.NOT_FOUND, "no such page")
        file = owner.files[path]
        return HTTPStatus.OK, file.content_type, file.body

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a malformed request or an unsupported method; the latter is counted."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self.server.owner.refuse("method")
        super().send_error(code, message, explain)

    def _names_this_machine(self) -> bool:
        return LOCAL_HOST.fullmatch(self.headers.get("Host", "")) is not None

    def _stream(self, selected: str) -> None:
        """Send updates until the browser closes or stalls, or the server closes."""
        owner = self.server.owner
        if not owner.open_stream():
            owner.refuse("busy")
            error = f"{STREAMS_MAX} pages are open already"
            self.send(*error_answer(HTTPStatus.SERVICE_UNAVAILABLE, error))
            return
        try:
            self.send_head(HTTPStatus.OK, "text/event-stream", {"X-Accel-Buffering": "no"})
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            self.connection.settimeout(SEND_S)
            cursor = Cursor()
            while (step := owner.next_update(cursor, selected)) is not None:
                cursor, update = step
                self.wfile.write(b"data: " + update + b"\n\n")
                owner.pause()
        except TimeoutError:
            owner.refuse("slow")
        except ConnectionError:
            pass  # the browser was closed
        finally:
            self.close_connection = True
            owner.close_stream()
