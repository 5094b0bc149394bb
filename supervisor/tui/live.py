"""
``up`` and ``watch`` on a terminal: what comes in, the keys, and the picture a few times a second.

The only file of the views that reads clocks and sockets.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable

import structlog
from rich.console import Console

from bybit_pipeline.shared.errors import NoPipelineError, PipelineError
from bybit_pipeline.supervisor.cli.tail import Listener
from bybit_pipeline.supervisor.run_dir import is_alive
from bybit_pipeline.supervisor.status.server import Snapshot
from bybit_pipeline.supervisor.tui import has_terminal
from bybit_pipeline.supervisor.tui.event_log import Feed
from bybit_pipeline.supervisor.tui.market_table import Choices
from bybit_pipeline.supervisor.tui.market_view import watch_picture
from bybit_pipeline.supervisor.tui.overview import overview
from bybit_pipeline.supervisor.tui.rates import Rates
from bybit_pipeline.supervisor.tui.screen import Screen
from bybit_pipeline.supervisor.tui.state import SILENT_S, Board

log = structlog.get_logger()

MARKET_KINDS = ("trades.", "orderbook.")
EVENT_KINDS = ("gap.", "density.")
REFRESH_S = 0.25
DRAIN_S = 0.1
DRAIN_MAX = 40
"""At most so many times the listener is emptied between two looks at the keys."""
JOIN_S = 2.0
LISTEN_S = 1.0
"""How long one picture takes: every market is published at least once a second."""


class LiveView:
    """
    The pipeline in the terminal, drawn by a thread of its own.

    Args:
        snapshot: Gives the supervisor's latest snapshot; called on the thread.
        keys: Directory of the keys of the metrics socket, if it has any.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], *, keys: str | None = None) -> None:
        self._snapshot = snapshot
        self._keys = keys
        self._stopping = threading.Event()
        self._screen = Screen()
        self._board, self._feed, self._rates = Board(), Feed(), Rates()
        self._choices = Choices()
        self._listener: Listener | None = None
        self._seen: Snapshot | None = None
        self._thread = threading.Thread(target=self._run, name="view", daemon=True)

    def start(self) -> None:
        """Begin to draw."""
        self._screen.__enter__()
        self._thread.start()

    def stop(self) -> None:
        """Give the terminal back as it was."""
        self._stopping.set()
        self._screen.interrupt()
        self._thread.join(JOIN_S)
        self._screen.__exit__()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._look()
                self._draw()
                self._wait()
        except OSError as error:  # the terminal was closed; the pipeline goes on until told
            log.warning("the terminal is gone", error=str(error))
        except Exception:
            log.exception("bug in the view")
        finally:
            if self._listener is not None:
                self._listener.close()

    def _look(self) -> None:
        snapshot, now = self._snapshot(), time.monotonic()
        if snapshot is self._seen or not snapshot.status:
            return
        self._seen = snapshot
        self._feed.take_status(snapshot.status, time.time())
        self._rates.take(snapshot.status, now)
        if self._listener is None and _has_forwarder(snapshot):
            kinds = [*MARKET_KINDS, *EVENT_KINDS]
            self._listener = Listener(snapshot.status["metrics"], kinds, keys=self._keys)
        self._board.forget(now)

    def _draw(self) -> None:
        width, height = self._screen.size
        status = {} if self._seen is None else self._seen.status
        self._screen.draw(
            overview(
                status,
                self._board,
                self._feed,
                self._rates,
                self._choices,
                now=time.monotonic(),
                wall_s=time.time(),
                width=width,
                height=height,
                is_stopping=self._choices.is_over,
            )
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + REFRESH_S
        while (left := deadline - time.monotonic()) > 0 and not self._stopping.is_set():
            keys = self._screen.wait(min(left, DRAIN_S))
            for key in keys:
                self._choices.press(key, self._choices.ordered(self._board, time.monotonic()))
                if key in ("q", "Q"):
                    os.kill(os.getpid(), signal.SIGINT)
            if self._listener is not None:
                drain(self._listener, self._board, self._feed)
            if keys:
                return


def _has_forwarder(snapshot: Snapshot) -> bool:
    """True once the address of the metrics is exact, which only the forwarder knows."""
    processes = snapshot.status.get("processes", [])
    return any(entry["role"] == "forwarder" and entry["state"] == "up" for entry in processes)


def drain(listener: Listener, board: Board, feed: Feed | None = None) -> None:
    """Take over what has arrived, in a bounded time."""
    for _ in range(DRAIN_MAX):
        count = 0
        for topic, frame in listener.frames(0):
            count += 1
            if topic.startswith(MARKET_KINDS):
                board.update_frame(topic, frame, time.monotonic())
            elif feed is not None and (payload := listener.read(topic, frame)) is not None:
                feed.take_message(payload)
        if not count:
            return


def watch(endpoint: str, markets: Iterable[str], *, pid: int, keys: str | None = None) -> None:
    """
    Show markets: live on a terminal until ``q``, else one picture of now.

    Args:
        endpoint: The metrics socket.
        markets: What to show; empty for all.
        pid: Of the pipeline.
        keys: Directory of the keys of the metrics socket, if it has any.

    Raises:
        NoPipelineError: If the pipeline stops while it is watched.
        PipelineError: If the one picture lacks a market of which nothing was heard.
    """
    board = Board(markets)
    with Listener(endpoint, list(MARKET_KINDS), keys=keys) as listener:
        if not has_terminal():
            _listen(listener, board)
            _print(board)
            return
        with Screen() as screen:
            choices = Choices()
            while not choices.is_over:
                if not is_alive(pid):
                    break
                drain(listener, board)
                board.forget(time.monotonic())
                width, height = screen.size
                now = time.monotonic()
                screen.draw(watch_picture(board, choices, now, width=width, height=height))
                for key in screen.wait(REFRESH_S):
                    choices.press(key, choices.ordered(board, now))
    if not choices.is_over:
        raise NoPipelineError("the pipeline has stopped")


def _listen(listener: Listener, board: Board) -> None:
    """Listen for ``LISTEN_S``, and up to ``SILENT_S`` while nothing is heard of a wanted market."""
    began = time.monotonic()

    def left_s() -> float:
        return began + (SILENT_S if board.unheard else LISTEN_S) - time.monotonic()

    while (left := left_s()) > 0:
        for _, payload in listener.receive(int(left * 1000) + 1):
            board.update(payload, time.monotonic())


def _print(board: Board) -> None:
    if len(board):
        console = Console(width=10_000, soft_wrap=True)
        for line in board.plain():
            console.print(line)
    if board.unheard:
        hint = "; bybit-pipeline watch shows what the pipeline has" if board.wanted else ""
        raise PipelineError(f"nothing heard of {', '.join(board.unheard)}{hint}")
