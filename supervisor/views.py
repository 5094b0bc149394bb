"""
Tables in the terminal: the markets, and the whole pipeline while it runs.

Decides what a person sees at a glance. A source that is not live is said in a colour that nobody
overlooks. Absent numbers are dashes.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from supervisor.http import Snapshot
from supervisor.listen import Listener
from supervisor.rundir import is_alive
from supervisor.text import duration_text

NONE = "–"
MARKET_KINDS = ("trades.", "orderbook.")
REFRESH_S = 0.5
MARKET_ROWS_MAX = 40
PLAIN_WIDTH = 160
WINDOW = "60s"
STATE_STYLES = {
    "live": "green", "up": "green", "warming": "yellow", "starting": "yellow",
    "syncing": "yellow", "restarting": "yellow", "stale": "red", "flapping": "bold red",
    "failed": "bold red",
}  # fmt: skip

Payload = Mapping[str, Any]


class Board:
    """
    The latest metrics by market.

    Args:
        markets: Symbols, or ``category:SYMBOL``, to show; empty for all.
    """

    def __init__(self, markets: Iterable[str] = ()) -> None:
        self._wanted = frozenset(markets)
        self._latest: dict[tuple[str, str], dict[str, Payload]] = {}

    def update(self, payload: Payload) -> None:
        """Take over one metric message."""
        kind, category, symbol = (payload.get(key) for key in ("kind", "category", "symbol"))
        if kind not in ("trades", "orderbook") or not self._is_wanted(category, symbol):
            return
        self._latest.setdefault((str(category), str(symbol)), {})[str(kind)] = payload

    def __len__(self) -> int:
        return len(self._latest)

    def table(self, rows_max: int = MARKET_ROWS_MAX) -> Table:
        """The markets, one a row, sorted by name."""
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("market")
        table.add_column("book")
        for name in ("bid", "ask", "mid", "spread bps", "imbalance", "last", "tpm", "delta 60s",
                     "walls"):  # fmt: skip
            table.add_column(name, justify="right")
        table.add_column("source")
        markets = sorted(self._latest.items())
        for (category, symbol), kinds in markets[:rows_max]:
            table.add_row(f"{category}:{symbol}", *_market_cells(kinds))
        if len(markets) > rows_max:
            table.add_row(f"… {len(markets) - rows_max} more")
        return table

    def _is_wanted(self, category: Any, symbol: Any) -> bool:
        return not self._wanted or bool({symbol, f"{category}:{symbol}"} & self._wanted)


def _market_cells(kinds: Mapping[str, Payload]) -> list[Text | str]:
    book, trades = kinds.get("orderbook", {}), kinds.get("trades", {})
    window = (trades.get("windows") or {}).get(WINDOW, {})
    imbalance = book.get("imbalance") or {}
    source = str((book or trades).get("source", NONE))
    return [
        styled(str(book.get("state", NONE))),
        number(book.get("best_bid")),
        number(book.get("best_ask")),
        number(book.get("mid_price")),
        number(book.get("spread_bps"), digits=2),
        number(imbalance.get("10"), digits=2),
        number(trades.get("last_price")),
        number(window.get("tpm"), digits=0),
        number(window.get("vol_delta"), digits=3),
        str(len(book["densities"])) if book.get("densities") is not None else NONE,
        source_text(source),
    ]


def number(value: float | None, digits: int | None = None) -> str:
    """A number for people, a dash if there is none."""
    if value is None:
        return NONE
    return f"{value:,.{digits}f}" if digits is not None else f"{value:.10g}"


def styled(state: str) -> Text:
    """A state in its colour."""
    return Text(state, style=STATE_STYLES.get(state, ""))


def source_text(source: str) -> Text:
    """The source; loud when the data are not live."""
    if source in ("sim", "replay"):
        return Text(f" {source.upper()} ", style="bold white on red")
    return Text(source, style="green" if source == "live" else "")


def pipeline_view(snapshot: Snapshot, board: Board) -> Group:
    """The processes and the markets of a pipeline."""
    status = snapshot.status
    return Group(_headline(status), _processes(status), Text(), board.table())


def _headline(status: Mapping[str, Any]) -> Text:
    text = Text.assemble("bybit-pipeline  source ", source_text(status["source"]))
    if status["source"] == "sim":
        text.append("  made-up numbers, not the market ", style="bold red")
    text.append("  ready" if status["ready"] else "  not ready",
                style="green" if status["ready"] else "yellow")  # fmt: skip
    text.append(f"  metrics {status['metrics']}  http://{status['http']}", style="dim")
    for reason in status["reasons"][:5]:
        text.append(f"\n  {reason}", style="yellow")
    return text


def _processes(status: Mapping[str, Any]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("process", "state"):
        table.add_column(name)
    for name in ("uptime", "restarts", "cpu s", "rss MB"):
        table.add_column(name, justify="right")
    table.add_column("topics")
    topics = {entry["process"]: _topics(entry) for entry in status["connectors"]}
    for process in status["processes"]:
        rss = process["rss_bytes"]
        table.add_row(
            process["process"],
            styled(process["state"]),
            duration_text(process["uptime_s"]),
            str(process["restarts"]),
            number(process["cpu_seconds"], digits=1),
            number(None if rss is None else rss / 2**20, digits=0),
            topics.get(process["process"], ""),
        )
    return table


def _topics(connector: Mapping[str, Any]) -> str:
    states = list(connector["topics"].values())
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{counts}  {connector['url']}" if connector["connected"] else "not connected"


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
        self._thread = threading.Thread(target=self._run, name="view", daemon=True)

    def start(self) -> None:
        """Begin to draw."""
        self._thread.start()

    def stop(self) -> None:
        """Leave the last picture in the terminal."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        board = Board()
        listener: Listener | None = None
        with Live(auto_refresh=False, screen=False) as live:
            while not self._stopping.wait(0 if listener else REFRESH_S):
                snapshot = self._snapshot()
                if listener is None and _has_forwarder(snapshot):
                    metrics = snapshot.status["metrics"]
                    listener = Listener(metrics, list(MARKET_KINDS), keys=self._keys)
                if listener is not None:
                    _listen(listener, board, REFRESH_S)
                if snapshot.status:
                    live.update(pipeline_view(snapshot, board), refresh=True)
        if listener is not None:
            listener.close()


def _has_forwarder(snapshot: Snapshot) -> bool:
    """True once the address of the metrics is exact, which only the forwarder knows."""
    processes = snapshot.status.get("processes", [])
    return any(entry["role"] == "forwarder" and entry["state"] == "up" for entry in processes)


def watch(endpoint: str, markets: Iterable[str], *, pid: int, keys: str | None = None) -> None:
    """
    Show a table of markets: live on a terminal until interrupted, else one picture of now.

    Args:
        endpoint: The metrics socket.
        markets: What to show; empty for all.
        pid: Of the pipeline; the table ends with it.
        keys: Directory of the keys of the metrics socket, if it has any.
    """
    board, console = Board(markets), Console()
    with Listener(endpoint, list(MARKET_KINDS), keys=keys) as listener:
        if not console.is_terminal:
            _listen(listener, board, 2 * REFRESH_S)
            Console(width=PLAIN_WIDTH).print(board.table(rows_max=len(board)))
            return
        with Live(console=console, auto_refresh=False) as live:
            while is_alive(pid):
                _listen(listener, board, REFRESH_S)
                live.update(board.table(), refresh=True)


def _listen(listener: Listener, board: Board, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        for _, payload in listener.receive(int(left * 1000) + 1):
            board.update(payload)
