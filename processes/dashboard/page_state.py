"""
What the page shows: the last value of every market and process, and what happened lately.

Decides what a row of the market table holds, which markets and processes are gone, what is an
event, and what a browser has not seen yet. Nothing is queued for anybody: everything carries the
version of the board at which it last changed, and a browser asks for what is newer than what it
has. A slow one thus skips versions and costs no memory. Pure: messages and times come in.

Whenever the metrics cannot be trusted to be current (``lose``) every number is dropped at once;
names stay, so that the page can say of what nothing is known. A market's age is that of its
worker's last word, not of its last change: a book in which nothing changes is published again only
when it does, but its trades are published once a second, and its worker is reported as often.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from bybit_pipeline.processes.dashboard.gaps import Ledger
from bybit_pipeline.processes.dashboard.history import History, Point
from bybit_pipeline.shared.settings.config import window_seconds

FeedState = Literal["starting", "live", "lost", "silent"]
"""Of the metrics socket: ``lost`` is a broken connection, ``silent`` one on which nothing comes."""

WALLS_MAX = 200
NOTICES_MAX = 100
CHARTED_MARKETS_MAX = 1_000
"""Markets beyond it are in the table, without a history."""
SILENT_MS = 3_000
"""The trades of a market are published once a second; nothing for so long, and nothing is known."""
ROUNDS_BEFORE_GONE = 3
"""Rounds of ``process.*`` messages, one a second, that do not mention a market that is gone."""
SUPERVISOR = "supervisor"
HEAD_FIELDS = ("state", "reason", "epoch", "seq", "process")
ADDED_BY_SUPERVISOR = ("ready", "reasons", "version", "network", "started_ts_ms")

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
    """How much of the board a browser has seen; all zeros is nothing."""

    generation: int = 0
    version: int = 0


class Market:
    """The last messages of one market and its row."""

    __slots__ = ("book", "history", "misses", "name", "row", "trades", "version")

    def __init__(self, name: str, history: History | None) -> None:
        self.name = name
        self.trades: Payload | None = None
        self.book: Payload | None = None
        self.history = history
        self.row = msgspec.Raw(b"{}")
        self.version = 0
        self.misses = 0


class Board:
    """
    Everything that the page can show.

    Args:
        window: The trade window of the table and the charts, such as ``60s``.
        levels: The level count of their imbalance, such as ``10``.
        links: Addresses that the page mentions, by name.
    """

    def __init__(self, window: str, levels: str, links: Mapping[str, str] | None = None) -> None:
        self.window = window
        self._window_s = window_seconds(window) if window else None
        self.levels = levels
        self.version = 1
        self.generation = 1
        self.feed: FeedState = "starting"
        self.feed_since_ms = 0
        self._links = dict(links or {})
        self._markets: dict[str, Market] = {}
        self._processes: dict[str, dict[str, Any]] = {}
        self._topics: dict[str, frozenset[str]] = {}
        """Markets that each connector says it has."""
        self._supervisor: dict[str, Any] = {}
        self._processes_version = 0
        self._ledger = Ledger()
        self._walls: deque[dict[str, Any]] = deque(maxlen=WALLS_MAX)
        self._notices: deque[dict[str, Any]] = deque(maxlen=NOTICES_MAX)
        self._round: tuple[Any, Any] = (None, None)

    # -- what comes in ---------------------------------------------------------------------------

    def take(self, payload: Payload, now_ms: int) -> None:
        """Take over one message of the metrics socket; kinds that are not shown are left out."""
        kind = payload.get("kind")
        self.version += 1
        if kind in ("trades", "orderbook"):
            self._take_market(kind, payload)
        elif kind == "process":
            self._take_process(payload, now_ms)
        elif kind == "gap":
            self._ledger.note(payload, version=self.version, now_ms=now_ms)
        elif kind == "density":
            wall = {key: payload.get(key) for key in WALL_FIELDS}
            self._walls.append(wall | {"version": self.version, "ts_ms": now_ms})

    def take_ledger(self, gaps: Sequence[Payload], now_ms: int) -> None:
        """Take over the gaps that the workers remember, oldest first."""
        self.version += 1
        for gap in gaps:
            self._ledger.note(gap, version=self.version, now_ms=now_ms)

    def live(self, now_ms: int) -> None:
        """Metrics arrive."""
        self._set_feed("live", now_ms)

    def lose(self, state: FeedState, now_ms: int) -> None:
        """Metrics no longer arrive: forget every number."""
        if self.feed == state:
            return
        self._set_feed(state, now_ms)
        for market in self._markets.values():
            market.trades = market.book = None
            self._renew(market)
        for process in self._processes.values():
            process.update(dict.fromkeys(set(process) - {"process", "role"}), state="unknown")
        self._processes_version = self.version
        self._supervisor = {}
        self._topics = {}

    def drop_silent(self, now_ms: int) -> None:
        """Forget the trades of markets whose worker no longer speaks of them."""
        for market in self._markets.values():
            trades = market.trades
            if trades is None or trades["state"] not in ("live", "warming"):
                continue
            if now_ms - trades["publish_ts_ns"] // 1_000_000 > SILENT_MS:
                self.version += 1
                kept = {key: trades.get(key) for key in (*HEAD_FIELDS, "source", "publish_ts_ns")}
                market.trades = {**kept, "state": "silent"}
                self._renew(market)

    def sample(self, now_ms: int) -> None:
        """Add a point to the history of every market; about once a second."""
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
                market.history.sample(point)

    def _take_market(self, kind: str, payload: Payload) -> None:
        name = f"{payload['category']}.{payload['symbol']}"
        market = self._markets.get(name)
        if market is None:
            is_charted = len(self._markets) < CHARTED_MARKETS_MAX
            market = self._markets[name] = Market(name, History() if is_charted else None)
        market.misses = 0
        if kind == "trades":
            market.trades = payload
            if market.history is not None:
                market.history.trade(self.version, payload)
        else:
            market.book = payload
        self._renew(market)

    def _renew(self, market: Market) -> None:
        market.row = msgspec.Raw(msgspec.json.encode(self._row(market)))
        market.version = self.version

    def _row(self, market: Market) -> dict[str, Any]:
        """The market in the table; numbers of a book that is not live are null already."""
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
            "book": _head(market.book, self.feed),
            "trades": _head(market.trades, self.feed),
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
            self._notice(level, name, text, now_ms)
        if payload.get("role") == "connector":
            topics = payload.get("topics") or {}
            category = name.split("-")[1]
            self._topics[name] = frozenset(f"{category}.{_market_of(topic)}" for topic in topics)
        if name == SUPERVISOR:
            self._take_supervisor(payload, now_ms)

    def _take_supervisor(self, payload: Payload, now_ms: int) -> None:
        """The first message of a round: whoever was not in the round before it is gone."""
        source, known = payload.get("source"), self._supervisor.get("source")
        if known is not None and source != known:
            level = "info" if source == "live" else "bad"
            self._notice(level, SUPERVISOR, f"source changed from {known} to {source}", now_ms)
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
        Drop the markets that no connector has any more.

        The metrics socket does not say that a topic has ended. Its worker falls silent about it,
        and its connector no longer lists it; both together, for some rounds, mean it is gone.
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

    def _notice(self, level: str, subject: str, text: str, now_ms: int) -> None:
        notice = {"level": level, "subject": subject, "text": text, "ts_ms": now_ms}
        self._notices.append({**notice, "version": self.version})

    def _set_feed(self, state: FeedState, now_ms: int) -> None:
        if self.feed == state:
            return
        self.version += 1
        if state != "live":
            self._notice("bad", "metrics socket", f"{state}: nothing is known", now_ms)
        elif self.feed != "starting":
            self._notice("info", "metrics socket", "metrics arrive again", now_ms)
        self.feed, self.feed_since_ms = state, now_ms

    # -- what goes out ---------------------------------------------------------------------------

    def update(self, cursor: Cursor, selected: str, now_ms: int) -> tuple[Cursor, dict[str, Any]]:
        """
        What a browser has not seen, as a map for JSON, and what it has seen after that.

        Args:
            cursor: What it has seen. Of another generation than ours: everything is sent, and it
                must forget what it had (``full``).
            selected: The market whose book, trades and history it shows; empty for none.
            now_ms: Our clock, against which the page measures ages.
        """
        is_full = cursor.generation != self.generation
        seen = 0 if is_full else cursor.version
        update: dict[str, Any] = {
            "full": is_full,
            "version": self.version,
            "now_ms": now_ms,
            "feed": {"state": self.feed, "since_ms": self.feed_since_ms},
            "rows": [market.row for market in self._markets.values() if market.version > seen],
            "gaps": self._ledger.since(seen),
            "walls": [wall for wall in self._walls if wall["version"] > seen],
            "notices": [notice for notice in self._notices if notice["version"] > seen],
        }
        if is_full:
            update |= {"window": self.window, "levels": self.levels, "links": self._links}
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
            points, prints = market.history.since(seen) if market.history else ([], [])
            update["points"] = [point[1:] for point in points]
            update["prints"] = [trade[1:] for trade in prints]
        return Cursor(self.generation, self.version), update


def _head(payload: Payload | None, feed: FeedState) -> dict[str, Any]:
    """What identifies a message, says whether it can be trusted, and how old it is."""
    if payload is None:
        state = "none" if feed in ("live", "starting") else "lost"
        return {**dict.fromkeys(HEAD_FIELDS), "state": state, "heard_ms": None, "changed_ms": None}
    changed_ns = payload.get("recv_ts_ns")
    return {
        **{key: payload.get(key) for key in HEAD_FIELDS},
        "heard_ms": payload["publish_ts_ns"] // 1_000_000,
        "changed_ms": None if changed_ns is None else changed_ns // 1_000_000,
    }


def _market_of(topic: str) -> str:
    """The symbol, or for trades of options the base coin, of an exchange topic."""
    return topic.rpartition(".")[2]


def _changes(before: Payload, after: Payload) -> list[tuple[str, str]]:
    """What is worth telling about a process that said one thing and now says another."""
    if before.get("state") in (None, "unknown"):
        return []
    told = []
    if before["state"] != after["state"]:
        level = "info" if after["state"] == "up" else "bad"
        told.append((level, f"{before['state']} → {after['state']}"))
    elif before["pid"] != after["pid"] and after["pid"] is not None:
        told.append(("bad", f"replaced: process {before['pid']} is now {after['pid']}"))
    if before["connected"] is not None and after["connected"] is not None:
        if before["connected"] and not after["connected"]:
            told.append(("bad", "disconnected from the exchange"))
        elif after["connected"] and not before["connected"]:
            told.append(("info", "connected to the exchange"))
        elif (before["reconnects"] or 0) < (after["reconnects"] or 0):
            told.append(("bad", f"reconnected, {after['reconnects']} times so far"))
    return told
