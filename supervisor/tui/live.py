"""
``up`` and ``watch`` on a terminal: take in messages and keys, and draw a few times per second.

The only file of this folder that reads clocks and sockets.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable

import structlog
from rich.console import Console

from bybit_pipeline.shared.bus.subscriber import MetricSubscriber
from bybit_pipeline.shared.errors import NoPipelineError, PipelineError
from bybit_pipeline.shared.runtime.clock import SystemClock
from bybit_pipeline.shared.runtime.terminal import has_screen
from bybit_pipeline.supervisor.interrupts import Interrupts
from bybit_pipeline.supervisor.run_dir import is_alive
from bybit_pipeline.supervisor.status.snapshot import Snapshot
from bybit_pipeline.supervisor.tui.event_log import EventLog
from bybit_pipeline.supervisor.tui.market_table import PLAIN_WIDTH, ViewState, plain_table
from bybit_pipeline.supervisor.tui.market_view import watch_screen
from bybit_pipeline.supervisor.tui.overview import overview
from bybit_pipeline.supervisor.tui.rates import Rates
from bybit_pipeline.supervisor.tui.screen import Screen
from bybit_pipeline.supervisor.tui.state import TableState

log = structlog.get_logger()

MARKET_KINDS = ("trades.", "orderbook.", "process.supervisor")
EVENT_KINDS = ("gap.", "density.")
REFRESH_S = 0.25
DRAIN_S = 0.1
DRAIN_LIMIT = 20_000
"""Messages taken between two checks for keys."""
JOIN_S = 2.0
MISSING_S = 3.0
"""How long it listens at most, while a wanted market is missing."""
LISTEN_S = 1.0
"""How long ``watch`` without a terminal listens: every market is published once per second."""


class LiveView:
    """
    The pipeline on the terminal, drawn by a thread of its own.

    Args:
        snapshot: Returns the supervisor's latest snapshot; called by the thread.
        keys: Directory of the keys of the metrics socket, if it has any.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], *, keys: str | None = None) -> None:
        self._snapshot = snapshot
        self._keys = keys
        self._stopping = threading.Event()
        self._screen = Screen()
        self._table, self._events, self._rates = TableState(), EventLog(), Rates()
        self._view = ViewState()
        self._subscriber: MetricSubscriber | None = None
        self._seen: Snapshot | None = None
        self._thread = threading.Thread(target=self._run, name="view", daemon=True)

    def start(self) -> None:
        """Take over the terminal and start drawing."""
        self._screen.__enter__()
        self._thread.start()

    def stop(self) -> None:
        """Stop drawing and restore the terminal."""
        self._stopping.set()
        self._screen.interrupt()
        self._thread.join(JOIN_S)
        self._screen.__exit__()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._update()
                self._draw()
                self._wait()
        except OSError as error:  # the terminal was closed; the pipeline runs on until stopped
            log.warning("terminal closed", error=str(error))
        except Exception:
            log.exception("bug in the view")
        finally:
            if self._subscriber is not None:
                self._subscriber.close()

    def _update(self) -> None:
        """Take in a new snapshot and the latest messages."""
        snapshot, now = self._snapshot(), time.monotonic()
        if snapshot is not self._seen and snapshot.status:
            self._seen = snapshot
            self._events.take_status(snapshot.status, time.time())
            self._rates.take(snapshot.status, now)
            if self._subscriber is None and _has_forwarder(snapshot):
                endpoint = snapshot.status["metrics"]
                self._subscriber = subscribe(endpoint, MARKET_KINDS + EVENT_KINDS, self._keys)
            self._table.forget_silent(now)
        if self._subscriber is not None:
            take_markets(self._subscriber, self._table)

    def _draw(self) -> None:
        width, height = self._screen.size
        status = {} if self._seen is None else self._seen.as_of(SystemClock.monotonic()).status
        self._screen.draw(
            overview(
                status,
                self._table,
                self._events,
                self._rates,
                self._view,
                now=time.monotonic(),
                wall_s=time.time(),
                width=width,
                height=height,
                is_stopping=self._view.is_over,
            )
        )

    def _wait(self) -> None:
        """Wait for the next refresh or a key, and take in messages meanwhile."""
        deadline = time.monotonic() + REFRESH_S
        while (left := deadline - time.monotonic()) > 0 and not self._stopping.is_set():
            keys = self._screen.wait(min(left, DRAIN_S))
            for key in keys:
                self._view.press(key, self._view.ordered(self._table, time.monotonic()))
                if key in ("q", "Q"):
                    os.kill(os.getpid(), signal.SIGINT)
            if self._subscriber is not None:
                drain(self._subscriber, self._events)
            if keys:
                return


def _has_forwarder(snapshot: Snapshot) -> bool:
    """True once the forwarder is up: only then is the metrics endpoint exact."""
    processes = snapshot.status.get("processes", [])
    return any(entry["role"] == "forwarder" and entry["state"] == "up" for entry in processes)


def subscribe(endpoint: str, prefixes: Iterable[str], keys: str | None) -> MetricSubscriber:
    """Subscribe to topics by prefix; markets are conflated, so each is decoded once per refresh."""
    subscriber = MetricSubscriber(endpoint, keys=keys, conflated=MARKET_KINDS)
    for prefix in prefixes:
        subscriber.subscribe_prefix(prefix)
    return subscriber


def drain(subscriber: MetricSubscriber, events: EventLog | None = None) -> None:
    """Take in the messages that wait: events go to the log, the others wait for a refresh."""
    subscriber.maintain()
    for metric in subscriber.receive(DRAIN_LIMIT):
        if events is not None and not metric.is_repeat:
            events.take_message(metric.payload)


def take_markets(subscriber: MetricSubscriber, table: TableState) -> None:
    """Take in the latest message of every market. A repeat is no sign of life."""
    now, wall_s = time.monotonic(), time.time()
    for metric in subscriber.latest():
        if not metric.is_repeat:
            table.take(metric.payload, now, wall_s)
    table.expire(now)


def watch(
    endpoint: str,
    markets: Iterable[str],
    interrupts: Interrupts,
    *,
    pid: int,
    keys: str | None = None,
) -> None:
    """
    Show markets: on a terminal until ``q``, otherwise once.

    Args:
        endpoint: The metrics socket.
        markets: Symbols, or ``category:SYMBOL``, to show; empty for all.
        interrupts: Signals that end every wait.
        pid: Process id of the supervisor.
        keys: Directory of the keys of the metrics socket, if it has any.

    Raises:
        NoPipelineError: If the pipeline stops meanwhile.
        PipelineError: If nothing was received for a market that should be shown once.
    """
    table = TableState(markets)
    with subscribe(endpoint, MARKET_KINDS, keys) as subscriber:
        if has_screen():
            _watch_live(subscriber, table, interrupts, pid)
        else:
            _listen(subscriber, table, interrupts)
            _print(table)


def _watch_live(
    subscriber: MetricSubscriber, table: TableState, interrupts: Interrupts, pid: int
) -> None:
    view = ViewState()
    with Screen() as screen:
        while not view.is_over:
            if not is_alive(pid):
                break
            drain(subscriber)
            take_markets(subscriber, table)
            now = time.monotonic()
            table.forget_silent(now)
            width, height = screen.size
            screen.draw(watch_screen(table, view, now, width=width, height=height))
            interrupts.wait(REFRESH_S, *screen.sources)
            for key in screen.wait(0):
                view.press(key, view.ordered(table, now))
    if not view.is_over:
        raise NoPipelineError("the pipeline has stopped")


def _listen(subscriber: MetricSubscriber, table: TableState, interrupts: Interrupts) -> None:
    """Listen for ``LISTEN_S``, or up to ``MISSING_S`` while a wanted market is missing."""
    started = time.monotonic()

    def left_s() -> float:
        return started + (MISSING_S if table.missing else LISTEN_S) - time.monotonic()

    while (left := left_s()) > 0:
        interrupts.wait(left, subscriber.socket, subscriber.monitor)
        drain(subscriber)
        take_markets(subscriber, table)


def _print(table: TableState) -> None:
    if len(table):
        console = Console(width=PLAIN_WIDTH, soft_wrap=True)
        for line in plain_table(table):
            console.print(line)
    if table.missing:
        hint = "; bybit-pipeline watch lists the markets of the pipeline" if table.wanted else ""
        raise PipelineError(f"no data for {', '.join(table.missing)}{hint}")
