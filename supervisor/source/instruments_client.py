"""
Fetches instrument lists over REST, in a thread of the supervisor.

A thread, not a process: it makes a few requests every few minutes, and only the supervisor, which
owns the plan, needs the result. It shares nothing with the loop but one slot for a request and one
for its response, so a REST server that hangs delays nobody.
"""

import queue
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import urlsplit

import structlog

from bybit_pipeline.shared.network.dialer import Dialer
from bybit_pipeline.shared.network.tunnel import ProxyFailed
from bybit_pipeline.shared.runtime.wakeup import Wakeup
from bybit_pipeline.supervisor.plan.instruments import (
    Failure,
    InstrumentList,
    InstrumentListError,
    InstrumentQuery,
    fetch_steps,
)
from bybit_pipeline.supervisor.source.probe import is_answered

log = structlog.get_logger()

CONNECT_S = 10.0
"""Time limit of a connection, and of each piece of a response."""
LISTS_S = 60.0
"""Time limit of all lists of one request, all pages together."""
BODY_BYTES_MAX = 16 * 1024 * 1024
PIECE_BYTES = 64 * 1024
CLOSE_S = 0.1
AGENT = "bybit-pipeline"


@dataclass(frozen=True, kw_only=True)
class ListRequest:
    """Instrument lists to fetch."""

    url: str
    """REST address, without a path."""
    queries: tuple[InstrumentQuery, ...]
    websocket_url: str = ""
    """Websocket to probe if a list cannot be fetched; empty for none."""
    proxy: str = ""
    """``connector.proxy``."""


@dataclass(frozen=True, kw_only=True)
class ListResponse:
    """The lists of a request, and the errors of those that could not be fetched."""

    request: ListRequest
    lists: Mapping[InstrumentQuery, InstrumentList]
    errors: Mapping[InstrumentQuery, InstrumentListError]
    is_exchange_there: bool | None = None
    """Whether the websocket answers; None if it was not probed."""


class InstrumentsClient:
    """
    Fetches lists, one request at a time, and wakes the poll loop for each response.

    Attributes:
        wakeup: Set when a response is there; ``take`` clears it.
        is_busy: True from a request until its response is taken.
    """

    def __init__(self) -> None:
        self.wakeup = Wakeup()
        self.is_busy = False
        self._requests: queue.Queue[ListRequest | None] = queue.Queue(maxsize=2)
        self._responses: queue.Queue[ListResponse] = queue.Queue(maxsize=1)
        self._thread: threading.Thread | None = None

    def request(self, request: ListRequest) -> None:
        """Start to fetch these lists; only while the client is not busy."""
        assert not self.is_busy, "one request at a time"
        self.is_busy = True
        self._requests.put_nowait(request)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="instruments", daemon=True)
            self._thread.start()

    def take(self) -> ListResponse:
        """The response; only after the wakeup."""
        self.wakeup.clear()
        self.is_busy = False
        return self._responses.get_nowait()

    def close(self) -> None:
        """Stop; a running request is not awaited, its thread ends with the process."""
        self._requests.put_nowait(None)
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        self.wakeup.close()

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            try:
                response = get_lists(request)
            except Exception as error:
                log.exception("bug")
                bug = InstrumentListError("unreadable", f"bug: {error}")
                errors = dict.fromkeys(request.queries, bug)
                response = ListResponse(request=request, lists={}, errors=errors)
            self._responses.put(response)
            self.wakeup.set()


def get_lists(request: ListRequest) -> ListResponse:
    """Fetch the lists of a request, and probe the websocket if one is missing."""
    deadline = time.monotonic() + LISTS_S
    lists: dict[InstrumentQuery, InstrumentList] = {}
    errors: dict[InstrumentQuery, InstrumentListError] = {}
    for query in request.queries:
        try:
            lists[query] = get_list(request.url, query, deadline=deadline, proxy=request.proxy)
        except InstrumentListError as error:
            errors[query] = error
    is_there = None
    if errors and request.websocket_url:
        is_there = is_answered(request.websocket_url, proxy=request.proxy)
    return ListResponse(request=request, lists=lists, errors=errors, is_exchange_there=is_there)


def get_list(
    url: str,
    query: InstrumentQuery,
    *,
    deadline: float,
    proxy: str = "",
    connect_s: float = CONNECT_S,
    body_bytes_max: int = BODY_BYTES_MAX,
) -> InstrumentList:
    """
    Fetch one list, all pages.

    Args:
        url: REST address, without a path.
        query: The list to fetch.
        deadline: Time limit of the whole list, on the monotonic clock.
        proxy: ``connector.proxy``.
        connect_s: Time limit of a connection, and of each piece of a response.
        body_bytes_max: Largest response.

    Raises:
        InstrumentListError: If it cannot be fetched or is rejected.
    """
    steps = fetch_steps(query)
    path = next(steps)
    while True:
        body = _get(url + path, proxy, deadline, connect_s, body_bytes_max)
        try:
            path = steps.send(body)
        except StopIteration as end:
            instruments: InstrumentList = end.value
            return instruments


def _get(url: str, proxy: str, deadline: float, connect_s: float, body_bytes_max: int) -> bytes:
    """
    The body of a response.

    A redirect is an error: the exchange sends none, but a captive portal does.
    """
    dialer: Dialer | None = None
    try:
        dialer = Dialer(url, proxy=proxy)
        with dialer.open(connect_s, lambda sock: _request(url, sock)) as response:
            if not 200 <= response.status < 300:
                known: dict[int, Failure] = {403: "forbidden", 429: "rate_limited"}
                failure = known.get(response.status, "status")
                text = f"HTTP {response.status} {_line(response.reason)}".rstrip()
                raise InstrumentListError(failure, text)
            return _body(response, deadline, body_bytes_max)
    except ProxyFailed as error:
        raise InstrumentListError("unreachable", _line(error)) from error
    except TimeoutError as error:
        raise InstrumentListError("timeout", "no response in time") from error
    except (OSError, HTTPException, ValueError) as error:
        raise InstrumentListError("unreachable", _line(error)) from error
    finally:
        if dialer is not None:
            dialer.close()


def _request(url: str, sock: socket.socket) -> HTTPResponse:
    """Send the request on an open socket; the response with its body still to be read."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc)
    connection.sock = sock
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    host = parts.netloc.rpartition("@")[2]
    connection.request(
        "GET", path, headers={"Host": host, "User-Agent": AGENT, "Connection": "close"}
    )
    return connection.getresponse()


def _body(response: HTTPResponse, deadline: float, bytes_max: int) -> bytes:
    """The whole body, unless it is too large or too slow."""
    pieces = bytearray()
    while piece := response.read1(PIECE_BYTES):
        pieces += piece
        if len(pieces) > bytes_max:
            text = f"the response is larger than {bytes_max >> 20} MB"
            raise InstrumentListError("too_large", text)
        if time.monotonic() > deadline:
            text = f"the lists were not complete within {LISTS_S:g} s"
            raise InstrumentListError("timeout", text)
    if response.length:  # bytes of the announced length that are missing
        raise InstrumentListError("unreadable", "the response ends early")
    return bytes(pieces)


def _line(error: object) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:150]
