"""
Getting lists of instruments over REST, in a thread of the supervisor.

A thread and not a process of its own: it does a few requests in minutes, and only the supervisor,
which owns the plan, queries what comes out. It shares nothing with the loop but one place for a
request and one for its answer, so a REST that hangs costs nobody anything.
"""

import os
import queue
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import structlog

from bybit_pipeline.shared.settings.config import LOOPBACK
from bybit_pipeline.supervisor.plan.instruments import (
    Failure,
    InstrumentList,
    InstrumentListError,
    InstrumentQuery,
    ask,
)
from bybit_pipeline.supervisor.source.probe import is_answered

log = structlog.get_logger()

CONNECT_S = 10.0
"""Longest wait for a connection, and for each piece of an answer."""
LISTS_S = 60.0
"""Longest time for all lists of one request, all pages together."""
BODY_BYTES_MAX = 16 * 1024 * 1024
PIECE_BYTES = 64 * 1024
CLOSE_S = 0.1
AGENT = "bybit-pipeline"


@dataclass(frozen=True, kw_only=True)
class ListRequest:
    """Lists that are wanted."""

    url: str
    """Of the REST, without a path."""
    queries: tuple[InstrumentQuery, ...]
    websocket_url: str = ""
    """Asked whether it answers if a list cannot be had; empty: not asked."""


@dataclass(frozen=True, kw_only=True)
class ListResponse:
    """What came of a request."""

    request: ListRequest
    lists: Mapping[InstrumentQuery, InstrumentList]
    errors: Mapping[InstrumentQuery, InstrumentListError]
    is_exchange_there: bool | None = None
    """Whether the websocket answers; None if it was not asked."""


class InstrumentsClient:
    """
    Gets lists, one request at a time, and tells by a byte in a pipe that an answer is there.

    Attributes:
        reader: Becomes readable once for each answer.
        is_busy: True from a request until its answer was taken.
    """

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.is_busy = False
        self._requests: queue.Queue[ListRequest | None] = queue.Queue(maxsize=2)
        self._answers: queue.Queue[ListResponse] = queue.Queue(maxsize=1)
        self._thread: threading.Thread | None = None

    def ask(self, request: ListRequest) -> None:
        """Get these lists; only while it is not busy."""
        assert not self.is_busy, "one request at a time"
        self.is_busy = True
        self._requests.put_nowait(request)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="client", daemon=True)
            self._thread.start()

    def take(self) -> ListResponse:
        """The answer; after the reader became readable."""
        os.read(self.reader, 1)
        self.is_busy = False
        return self._answers.get_nowait()

    def close(self) -> None:
        """Stop; a request that is under way is not waited for and ends with the process."""
        self._requests.put_nowait(None)
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        if self._thread is None or not self._thread.is_alive():
            os.close(self.reader)
            os.close(self._writer)

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            try:
                answer = get_lists(request)
            except Exception as error:
                log.exception("bug")
                bug = InstrumentListError("unreadable", f"bug: {error}")
                errors = dict.fromkeys(request.queries, bug)
                answer = ListResponse(request=request, lists={}, errors=errors)
            self._answers.put(answer)
            os.write(self._writer, b"x")


def get_lists(request: ListRequest) -> ListResponse:
    """The lists of a request, or why each cannot be had."""
    deadline = time.monotonic() + LISTS_S
    lists: dict[InstrumentQuery, InstrumentList] = {}
    errors: dict[InstrumentQuery, InstrumentListError] = {}
    for query in request.queries:
        try:
            lists[query] = get_list(request.url, query, deadline=deadline)
        except InstrumentListError as error:
            errors[query] = error
    is_there = None
    if errors and request.websocket_url:
        is_there = is_answered(request.websocket_url)
    return ListResponse(request=request, lists=lists, errors=errors, is_exchange_there=is_there)


def get_list(url: str, query: InstrumentQuery, *, deadline: float) -> InstrumentList:
    """
    One list, all pages.

    Args:
        url: Of the REST, without a path.
        query: The list.
        deadline: On the monotonic clock.

    Raises:
        InstrumentListError: If it cannot be had.
    """
    opener = _opener(url)
    asking = ask(query)
    path = next(asking)
    while True:
        body = _get(opener, url + path, deadline)
        try:
            path = asking.send(body)
        except StopIteration as end:
            instruments: InstrumentList = end.value
            return instruments


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An exchange does not send us elsewhere; a captive portal does."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Verified TLS; the proxy of the environment, but not to this machine itself."""
    is_local = (urlsplit(url).hostname or "") in LOOPBACK
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({} if is_local else None),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        _NoRedirect,
    )


def _get(opener: urllib.request.OpenerDirector, url: str, deadline: float) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": AGENT})
    try:
        with opener.open(request, timeout=CONNECT_S) as answer:
            return _body(answer, deadline)
    except urllib.error.HTTPError as error:
        with error:
            known: dict[int, Failure] = {403: "forbidden", 429: "rate_limited"}
            failure = known.get(error.code, "status")
            raise InstrumentListError(
                failure, f"HTTP {error.code} {error.reason}".rstrip()
            ) from error
    except TimeoutError as error:
        raise InstrumentListError("timeout", "no answer in time") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise InstrumentListError("timeout", "no answer in time") from error
        raise InstrumentListError("unreachable", _line(error.reason)) from error
    except (OSError, HTTPException, ValueError) as error:
        raise InstrumentListError("unreachable", _line(error)) from error


def _body(answer: Any, deadline: float) -> bytes:
    """The whole body, as long as it is neither too large nor too slow."""
    pieces = bytearray()
    while piece := answer.read1(PIECE_BYTES):
        pieces += piece
        if len(pieces) > BODY_BYTES_MAX:
            raise InstrumentListError(
                "too_large", f"an answer of more than {BODY_BYTES_MAX >> 20} MB"
            )
        if time.monotonic() > deadline:
            raise InstrumentListError("timeout", f"lists not complete within {LISTS_S:g} s")
    if answer.length:  # of the bytes that were announced some are missing
        raise InstrumentListError("unreadable", "the answer breaks off")
    return bytes(pieces)


def _line(error: object) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:150]
