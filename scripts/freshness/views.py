"""
The five views of a pipeline: a subscriber, the Python client, the page, the terminal, ``/readyz``.

Each runs in a thread and reports what it shows of every topic, as soon as it shows it. The page is
read from its stream, the terminal is drawn as text: what a person would read is what is judged.
"""

import contextlib
import json
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgpack
import zmq

from bybit_pipeline import PipelineClient
from bybit_pipeline.supervisor.tui.live import drain, subscribe, take_markets
from bybit_pipeline.supervisor.tui.market_view import market_screen
from bybit_pipeline.supervisor.tui.state import TableState
from scripts.freshness.judge import NOT_LIVE, Claim

See = Callable[[str, Claim], None]
"""Takes a topic and what is shown of it."""

LIVE = ("live", "warming")
"""States with current numbers: windows that are warming are not complete, but follow the market."""
CLIENT_S = 0.01
READYZ_S = 0.03
TERMINAL_S = 0.25
"""Refresh interval of the terminal."""
DRAIN_S = 0.1
READY = "readyz"


def claim_of(state: str | None, message: Mapping[str, Any]) -> Claim:
    """A state that is shown, with the times of the message behind it."""
    data_ms, alive_ns = message.get("exchange_ts_ms"), message.get("alive_ts_ns")
    return Claim(
        state in LIVE,
        None if data_ms is None else data_ms / 1000,
        None if alive_ns is None or message["kind"] != "trades" else alive_ns / 1e9,
    )


def row_claim(kind: str, head: Mapping[str, Any]) -> Claim:
    """
    A state that is shown in a row, which names the times of receiving and publishing.

    That the connection was alive when it was published is judged at the subscriber.
    """
    times = {"exchange_ts_ms": head["changed_ms"], "kind": kind}
    if head["published_ms"] is not None:
        times["alive_ts_ns"] = head["published_ms"] * 1_000_000
    return claim_of(head["state"], times)


class View:
    """
    One view in a thread of its own.

    Args:
        symbols: Symbols of the category ``linear``.
        see: Receives what the view shows.

    Attributes:
        failure: What ended the thread, if it ended by itself.
    """

    name: ClassVar[str]

    def __init__(self, symbols: list[str], see: See) -> None:
        self.failure: BaseException | None = None
        self._symbols = symbols
        self._see = see
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._main, name=self.name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join(10)

    @property
    def topics(self) -> list[str]:
        """The topics that the view shows."""
        return [f"{kind}.linear.{s}" for s in self._symbols for kind in ("orderbook", "trades")]

    def _main(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.failure = error

    def _run(self) -> None:
        raise NotImplementedError


class Subscriber(View):
    """The messages of the metrics socket, each when it is received."""

    name = "subscriber"

    def __init__(self, symbols: list[str], see: See, received: "zmq.Socket[bytes]") -> None:
        self._socket = received
        super().__init__(symbols, see)

    def _run(self) -> None:
        wanted = set(self.topics)
        while not self._stopping.is_set():
            if not self._socket.poll(50):
                continue
            frame, payload = self._socket.recv_multipart()
            topic = frame.decode()
            if topic in wanted:
                message = msgpack.unpackb(payload)
                self._see(topic, claim_of(message["state"], message))


class Client(View):
    """
    ``PipelineClient``, read a hundred times per second.

    Getters of trades do not say whether the trades are live; their message does.
    """

    name = "client"

    def __init__(self, symbols: list[str], see: See, endpoint: str) -> None:
        self._endpoint = endpoint
        super().__init__(symbols, see)

    def _run(self) -> None:
        with PipelineClient(self._endpoint) as client:
            while not self._stopping.wait(CLIENT_S):
                for topic in self.topics:
                    kind, _, symbol = topic.split(".")
                    state = (client.get_message(topic) or {}).get("state")
                    if kind == "orderbook":
                        book = client.get_snapshot(symbol)
                        state = None if book is None else book.state
                    message = client.get_message(topic) or {}
                    self._see(topic, claim_of(state, message))


class Page(View):
    """
    The page: the rows of its stream, and the messages of its selected market.

    Rows only say when their data were received. The selected market is the first.
    """

    name = "page"

    def __init__(self, symbols: list[str], see: See, url: str) -> None:
        self._address = urlsplit(url)
        super().__init__(symbols, see)

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(OSError):  # the dashboard restarts
                self._read()
            for topic in self.topics:
                self._see(topic, NOT_LIVE)
            self._stopping.wait(0.1)

    def _read(self) -> None:
        host, port = self._address.hostname, self._address.port
        assert host is not None
        assert port is not None
        with socket.create_connection((host, port), timeout=5) as stream:
            path = f"/events?market=linear.{self._symbols[0]}"
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            for line in stream.makefile("rb"):
                if self._stopping.is_set():
                    return
                if line.startswith(b"data: "):
                    self._take(json.loads(line[6:]))

    def _take(self, update: Mapping[str, Any]) -> None:
        if update["metrics"]["state"] != "live":
            for topic in self.topics:
                self._see(topic, NOT_LIVE)
            return
        for row in update["rows"]:
            for kind, head in (("orderbook", row["book"]), ("trades", row["trades"])):
                message = update.get("market", {})
                if row["name"] == message.get("name"):
                    claim = claim_of(head["state"], message[kind] or {})
                else:
                    claim = row_claim(kind, head)
                self._see(f"{kind}.{row['name']}", claim)


class Terminal(View):
    """``watch``: the head of a market's screen, drawn as often as on a terminal."""

    name = "terminal"

    def __init__(self, symbols: list[str], see: See, endpoint: str) -> None:
        self._endpoint = endpoint
        super().__init__(symbols, see)

    def _run(self) -> None:
        table = TableState()
        with subscribe(self._endpoint, ("trades.", "orderbook."), None) as subscriber:
            while not self._stopping.is_set():
                drain(subscriber)
                take_markets(subscriber, table)
                for symbol in self._symbols:
                    self._report(table, symbol)
                deadline = time.monotonic() + TERMINAL_S
                while time.monotonic() < deadline and not self._stopping.wait(DRAIN_S / 2):
                    drain(subscriber)

    def _report(self, table: TableState, symbol: str) -> None:
        market = table.get(f"linear:{symbol}")
        if market is None:
            return
        head = market_screen(market, time.monotonic(), width=200, height=3)[0].plain
        shown = re.search(r"book (\w+|–|-).*?trades (\w+|–|-)", head)
        assert shown is not None, f"no states in {head!r}"
        is_silent = "SILENT" in head
        for kind, state, message in (
            ("orderbook", shown[1], market.book),
            ("trades", shown[2], market.trades),
        ):
            claim = claim_of(None if is_silent else state, message)
            self._see(f"{kind}.linear.{symbol}", claim)


class Readyz(View):
    """``/readyz``: 200 says that everything is live."""

    name = "readyz"

    def __init__(self, symbols: list[str], see: See, url: str) -> None:
        self._url = f"{url}/readyz"
        super().__init__(symbols, see)

    @property
    def topics(self) -> list[str]:
        """One topic for everything."""
        return [READY]

    def _run(self) -> None:
        while not self._stopping.wait(READYZ_S):
            try:
                with urllib.request.urlopen(self._url, timeout=5) as answer:
                    is_ready = answer.status == 200
            except OSError:  # HTTPError is one
                is_ready = False
            self._see(READY, Claim(is_ready))
