"""
The state of the page: the last values of every market and process, and recent events. Pure.

Decides what a row of the market table contains, which markets and processes are gone, what is an
event, and what a browser has not seen yet. There are no queues: every item carries the version of
the page at which it last changed, and a browser asks for the items newer than its own version. A
slow browser skips versions and costs no memory.

When the metrics cannot be current (``lose``) every number is dropped at once; the names stay. The
age of a market is the time since its worker last published it, not since its last change.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from bybit_pipeline.processes.dashboard.gaps import PageGaps
from bybit_pipeline.processes.dashboard.history import History, Point
from bybit_pipeline.shared.settings.config import window_seconds
from bybit_pipeline.shared.wire.overdue import VIEW_OVERDUE_S, without_numbers

MetricsState = Literal["starting", "live", "lost", "silent"]
"""State of the metrics socket. ``lost``: not connected; ``silent``: connected, but no messages."""

WALLS_MAX = 200
EVENTS_MAX = 100
CHARTED_MARKETS_MAX = 1_000
"""Markets beyond this number are in the table, but have no charts."""
SILENT_S = VIEW_OVERDUE_S
"""Every market is published once per second; after this silence its numbers are not current."""
SUPERVISOR_SILENT_S = 2.0
"""The same for the status of the processes."""
UNSUBSCRIBED = "unsubscribed"
ROUNDS_BEFORE_GONE = 3
"""Rounds of ``process.*`` messages, one per second, without a market before it is removed."""
SUPERVISOR = "supervisor"
HEAD_FIELDS = ("state", "reason", "epoch", "seq", "process")
ADDED_BY_SUPERVISOR = ("feed", "ready", "reasons", "version", "network", "started_ts_ms")

COMPLETENESS_FIELDS = ("category", "symbol", "trades_percent", "book_percent")
WALL_FIELDS = (
    "category",
    "symbol",
    "source",
    "event",
    "side",
    "price",
    "size",
    "peak_size",
    "strength",
    "eaten_ratio",
    "pulled_ratio",
    "distance_bps",
    "age_ms",
)
PROCESS_FIELDS = (
    "process",
    "role",
    "state",
    "pid",
    "restarts",
    "uptime_s",
    "cpu_seconds",
    "rss_bytes",
    "lag_s",
    "lost",
    "connected",
    "failure",
    "next_attempt_ts_ms",
    "reconnects",
    "ping_rtt_ms",
    "exit_code",
    "url",
    "books",
    "not_live",
    "seq",
    "epoch",
    "publish_ts_ns",
)

Payload = Mapping[str, Any]


class Cursor(NamedTuple):
    """The version of the page that a browser has; all zeros for none."""

    generation: int = 0
    version: int = 0


class PageMarket:
    """The last messages of one market, and its row in the table."""

    __slots__ = ("book", "history", "misses", "name", "received", "row", "trades", "version")

    def __init__(self, name: str, history: History | None) -> None:
        self.name = name
        self.trades: Payload | None = None
        self.book: Payload | None = None
        self.received: dict[str, float] = {}
        """When the last message of each kind was received, in monotonic seconds."""
        self.history = history
        self.row = msgspec.Raw(b"{}")
        self.version = 0
        self.misses = 0


class PageState:
    """
    Everything that the page can show.

    Args:
        window: The trade window of the table and the charts, such as ``60s``.
        levels: The level count of their imbalance, such as ``10``.

    Attributes:
        version: Grows with every change.
        generation: Grows when something was removed; a browser then gets everything again.
        metrics: State of the metrics socket.
        metrics_since_ms: Time of its last change.
    """

    def __init__(self, window: str, levels: str) -> None:
        self.window = window
        self._window_s = window_seconds(window) if window else None
        self.levels = levels
        self.version = 1
        self.generation = 1
        self.metrics: MetricsState = "starting"
        self.metrics_since_ms = 0
        self._markets: dict[str, PageMarket] = {}
        self._processes: dict[str, dict[str, Any]] = {}
        self._topics: dict[str, frozenset[str]] = {}
        """Markets by connector, as the connectors report them."""
        self._supervisor: dict[str, Any] = {}
        self._supervisor_at = 0.0
        self._processes_version = 0
        self._gaps = PageGaps()
        self._walls: deque[dict[str, Any]] = deque(maxlen=WALLS_MAX)
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS_MAX)
        self._round: tuple[Any, Any] = (None, None)
        self._completeness: list[dict[str, Any]] = []
        self._completeness_version = 0

    # -- input -----------------------------------------------------------------------------------

    def take(self, payload: Payload, now_ms: int, now: float = 0.0) -> None:
        """
        Take in a message of the metrics socket; kinds that are not shown are ignored.

        Args:
            payload: The message.
            now_ms: Current time, wall clock.
            now: Current time in monotonic seconds, from which silence is measured.
        """
        kind = payload.get("kind")
        self.version += 1
        if kind in ("trades", "orderbook"):
            self._take_market(kind, payload, now)
        elif kind == "process":
            self._take_process(payload, now_ms)
            if payload["process"] == SUPERVISOR:
                self._supervisor_at = now
        elif kind == "gap":
            self._gaps.take(payload, version=self.version, now_ms=now_ms)
        elif kind == "density":
            wall = {key: payload.get(key) for key in WALL_FIELDS}
            self._walls.append(wall | {"version": self.version, "ts_ms": now_ms})

    def take_gaps(self, gaps: Sequence[Payload], now_ms: int) -> None:
        """Take in gaps of the ledger, oldest first."""
        self.version += 1
        for gap in gaps:
            self._gaps.take(gap, version=self.version, now_ms=now_ms)

    def take_completeness(self, days: Sequence[Payload]) -> None:
        """Take in the completeness of the present day, by market."""
        rows = [{key: day.get(key) for key in COMPLETENESS_FIELDS} for day in days]
        if rows != self._completeness:
            self.version += 1
            self._completeness, self._completeness_version = rows, self.version

    def set_live(self, now_ms: int) -> None:
        """Metrics arrive."""
        self._set_metrics("live", now_ms)

    def lose(self, state: MetricsState, now_ms: int) -> None:
        """Metrics no longer arrive: drop every number."""
        if self.metrics == state:
            return
        self._set_metrics(state, now_ms)
        for market in self._markets.values():
            market.trades = market.book = None
            self._update_row(market)
        self._lose_processes()

    def _lose_processes(self) -> None:
        """Drop what the supervisor said about the pipeline and its processes."""
        for process in self._processes.values():
            process.update(dict.fromkeys(set(process) - {"process", "role"}), state="unknown")
        self._processes_version = self.version
        self._supervisor = {}
        self._topics = {}

    def drop_silent(self, now: float) -> None:
        """Drop the numbers of books and trades that are no longer published, each on its own."""
        for market in self._markets.values():
            book, trades = _silenced(market, "orderbook", now), _silenced(market, "trades", now)
            if book is not market.book or trades is not market.trades:
                self.version += 1
                market.book, market.trades = book, trades
                self._update_row(market)
        if self._supervisor and now - self._supervisor_at >= SUPERVISOR_SILENT_S:
            self.version += 1
            self._lose_processes()

    def sample(self, now_ms: int) -> None:
        """Add a point to the history of every market; call about once per second."""
        self.version += 1
        for market in self._markets.values():
            if market.history is not None:
                book, trades = market.book or {}, market.trades or {}
                point = Point(
                    self.version,
                    now_ms,
                    book.get("mid_price"),
                    self._window(trades).get("vol_delta"),
                    (book.get("imbalance") or {}).get(self.levels),
                )
                market.history.add_point(point)

    def _take_market(self, kind: str, payload: Payload, now: float) -> None:
        name = f"{payload['category']}.{payload['symbol']}"
        market = self._markets.get(name)
        if market is None:
            is_charted = len(self._markets) < CHARTED_MARKETS_MAX
            market = self._markets[name] = PageMarket(name, History() if is_charted else None)
        market.misses = 0
        market.received[kind] = now
        if payload.get("reason") == UNSUBSCRIBED:
            self._end_stream(market, kind)
            return
        if kind == "trades":
            market.trades = payload
            if market.history is not None:
                market.history.add_trade(self.version, payload)
        else:
            market.book = payload
        self._update_row(market)

    def _end_stream(self, market: PageMarket, kind: str) -> None:
        """Forget a stream that was unsubscribed, and its market with the last of them."""
        if kind == "trades":
            market.trades = None
        else:
            market.book = None
        self._update_row(market)
        if market.book is None and market.trades is None:
            del self._markets[market.name]
            self.generation += 1

    def _update_row(self, market: PageMarket) -> None:
        market.row = msgspec.Raw(msgspec.json.encode(self._row(market)))
        market.version = self.version

    def _row(self, market: PageMarket) -> dict[str, Any]:
        """The row of a market; the numbers of a book that is not live are null in its message."""
        category, _, symbol = market.name.partition(".")
        trades, book = market.trades or {}, market.book or {}
        window = self._window(trades)
        walls = book.get("densities") or []
        nearest = min(walls, key=lambda wall: wall["distance_bps"], default=None)
        return {
            "name": market.name,
            "category": category,
            "symbol": symbol,
            "source": book.get("source") or trades.get("source"),
            "book": _head(market.book, self.metrics),
            "trades": _head(market.trades, self.metrics),
            "price": trades.get("last_price"),
            "side": trades.get("last_side"),
            "best_bid": book.get("best_bid"),
            "best_ask": book.get("best_ask"),
            "mid_price": book.get("mid_price"),
            "spread": book.get("spread"),
            "spread_bps": book.get("spread_bps"),
            "imbalance": (book.get("imbalance") or {}).get(self.levels),
            "tpm": window.get("tpm"),
            "vol_delta": window.get("vol_delta"),
            "volume": window.get("volume"),
            "coverage_s": window.get("coverage_s"),
            "window_s": self._window_s,
            "walls": len(walls) if book.get("state") == "live" else None,
            "wall": nearest
            and {key: nearest[key] for key in ("side", "price", "size", "distance_bps")},
        }

    def _window(self, trades: Payload) -> Payload:
        window: Payload = (trades.get("windows") or {}).get(self.window) or {}
        return window

    # -- processes -------------------------------------------------------------------------------

    def _take_process(self, payload: Payload, now_ms: int) -> None:
        name = str(payload["process"])
        before = self._processes.get(name, {})
        after = {key: payload.get(key) for key in PROCESS_FIELDS}
        self._processes[name] = after
        self._processes_version = self.version
        for level, text in _changes(before, after):
            self._add_event(level, name, text, now_ms)
        if payload.get("role") == "connector":
            topics = payload.get("topics") or {}
            category = name.split("-")[1]
            self._topics[name] = frozenset(f"{category}.{_market_of(topic)}" for topic in topics)
        if name == SUPERVISOR:
            self._take_supervisor(payload, now_ms)

    def _take_supervisor(self, payload: Payload, now_ms: int) -> None:
        """Begin a round of process messages; drop the processes missing from the last round."""
        source, known = payload.get("source"), self._supervisor.get("source")
        if known is not None and source != known:
            level = "info" if source == "live" else "bad"
            self._add_event(level, SUPERVISOR, f"source changed from {known} to {source}", now_ms)
        self._supervisor = {key: payload.get(key) for key in (*ADDED_BY_SUPERVISOR, "source")}
        previous, self._round = self._round, (payload.get("epoch"), payload.get("seq"))
        gone = [
            name
            for name, process in self._processes.items()
            if (process["epoch"], process["seq"]) not in (previous, self._round)
            and previous[0] == self._round[0]
        ]
        for name in gone:
            del self._processes[name]
            self._topics.pop(name, None)
        self._drop_markets()

    def _drop_markets(self) -> None:
        """
        Drop the markets that are no longer published and that no connector lists.

        The metrics socket does not report the end of a topic. So a market is gone after
        ``ROUNDS_BEFORE_GONE`` rounds in which both are true.
        """
        connectors = [p for p in self._processes.values() if p["role"] == "connector"]
        if not all(p["state"] == "up" and self._topics.get(p["process"]) for p in connectors):
            return
        listed = frozenset[str]().union(*self._topics.values())
        for market in list(self._markets.values()):
            category, _, symbol = market.name.partition(".")
            if market.name in listed or f"{category}.{symbol.split('-')[0]}" in listed:
                continue
            market.misses += 1
            if market.misses > ROUNDS_BEFORE_GONE:
                del self._markets[market.name]
                self.generation += 1

    def _add_event(self, level: str, subject: str, text: str, now_ms: int) -> None:
        event = {"level": level, "subject": subject, "text": text, "ts_ms": now_ms}
        self._events.append({**event, "version": self.version})

    def _set_metrics(self, state: MetricsState, now_ms: int) -> None:
        if self.metrics == state:
            return
        self.version += 1
        if state != "live":
            self._add_event("bad", "metrics socket", f"{state}: no current numbers", now_ms)
        elif self.metrics != "starting":
            self._add_event("info", "metrics socket", "metrics arrive again", now_ms)
        self.metrics, self.metrics_since_ms = state, now_ms

    # -- output ----------------------------------------------------------------------------------

    def update(self, cursor: Cursor, selected: str, now_ms: int) -> tuple[Cursor, dict[str, Any]]:
        """
        The changes that a browser has not seen.

        Args:
            cursor: The version that the browser has. For another generation than the current one
                everything is sent, and the browser discards what it has (``full``).
            selected: The market whose book, trades and history it shows; empty for none.
            now_ms: Current time, from which the page measures ages.

        Returns:
            The version that the browser has then, and the changes as a map for JSON.
        """
        is_full = cursor.generation != self.generation
        seen = 0 if is_full else cursor.version
        update: dict[str, Any] = {
            "full": is_full,
            "version": self.version,
            "now_ms": now_ms,
            "metrics": {"state": self.metrics, "since_ms": self.metrics_since_ms},
            "rows": [market.row for market in self._markets.values() if market.version > seen],
            "gaps": self._gaps.since(seen),
            "walls": [wall for wall in self._walls if wall["version"] > seen],
            "events": [event for event in self._events if event["version"] > seen],
        }
        if is_full:
            update |= {"window": self.window, "levels": self.levels}
        if is_full or self._completeness_version > seen:
            update["completeness"] = self._completeness
        if is_full or self._processes_version > seen:
            update |= {
                "pipeline": dict(self._supervisor),
                "processes": [dict(process) for process in self._processes.values()],
            }
        market = self._markets.get(selected)
        if market is not None:
            if market.version > seen:
                update["market"] = {
                    "name": market.name,
                    "trades": market.trades,
                    "orderbook": market.book,
                }
            points, trades = market.history.since(seen) if market.history else ([], [])
            update["points"] = [point[1:] for point in points]
            update["chart_trades"] = [trade[1:] for trade in trades]
        return Cursor(self.generation, self.version), update


def _silenced(market: PageMarket, kind: str, now: float) -> Payload | None:
    """The last message of a kind, without its numbers if it is too old to be believed."""
    payload = market.trades if kind == "trades" else market.book
    if payload is None or payload["state"] not in ("live", "warming"):
        return payload
    if now - market.received[kind] < SILENT_S:
        return payload
    return without_numbers(payload) | {"state": "silent", "reason": None}


def _head(payload: Payload | None, metrics: MetricsState) -> dict[str, Any]:
    """Identity, state and times of a message."""
    if payload is None:
        state = "none" if metrics in ("live", "starting") else "lost"
        return {
            **dict.fromkeys(HEAD_FIELDS),
            "state": state,
            "published_ms": None,
            "changed_ms": None,
            "heard_ms": None,
        }
    changed_ns, heard_ns = payload.get("recv_ts_ns"), payload.get("alive_ts_ns")
    return {
        **{key: payload.get(key) for key in HEAD_FIELDS},
        "published_ms": payload["publish_ts_ns"] // 1_000_000,
        "changed_ms": None if changed_ns is None else changed_ns // 1_000_000,
        "heard_ms": None if heard_ns is None else heard_ns // 1_000_000,
    }


def _market_of(topic: str) -> str:
    """The symbol of an exchange topic; for trades of options the base coin."""
    return topic.rpartition(".")[2]


def _changes(before: Payload, after: Payload) -> list[tuple[str, str]]:
    """Level and text of the events between two messages of a process."""
    if before.get("state") in (None, "unknown"):
        return []
    events = []
    if before["state"] != after["state"]:
        level = "info" if after["state"] == "up" else "bad"
        events.append((level, f"{before['state']} → {after['state']}"))
    elif before["pid"] != after["pid"] and after["pid"] is not None:
        events.append(("bad", f"replaced: process {before['pid']} by {after['pid']}"))
    if before["connected"] is not None and after["connected"] is not None:
        if before["connected"] and not after["connected"]:
            events.append(("bad", "disconnected from the exchange"))
        elif after["connected"] and not before["connected"]:
            events.append(("info", "connected to the exchange"))
        elif (before["reconnects"] or 0) < (after["reconnects"] or 0):
            events.append(("bad", f"reconnected, {after['reconnects']} times in total"))
    return events
