"""
The latest metrics of every market. Pure.

Workers publish every market at least once a second. So a stream without messages for ``SILENT_S``
is stale and has no numbers, whatever its last message said. Books and trades are judged separately.
Time comes in as monotonic seconds (``now``).
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bybit_pipeline.shared.settings.config import window_seconds
from bybit_pipeline.shared.wire.overdue import VIEW_OVERDUE_S, without_numbers
from bybit_pipeline.supervisor.tui.formatting import NONE, number

SILENT_S = VIEW_OVERDUE_S
FORGET_S = 60.0
UNSUBSCRIBED = "unsubscribed"
RECENT_TRADES_MAX = 200
PARTIAL_S = 0.5
"""Missing coverage of a window that is too short to be marked."""
TPS_WINDOW_S = 10

Payload = Mapping[str, Any]
EMPTY: Payload = {}


class RecentTrade(NamedTuple):
    """The last trade of one message."""

    match_ts_ms: int
    side: str
    price: float
    size: float


class TableMarket:
    """
    The latest messages of one market.

    Attributes:
        book: The latest ``orderbook.*`` message; empty if there is none.
        trades: The latest ``trades.*`` message; empty if there is none.
        recent_trades: The last trade of each message, newest first.
        received: When the latest message was received, in monotonic seconds.
        feed: Where its data really come from, as the supervisor says; empty until then.
    """

    def __init__(self, category: str, symbol: str) -> None:
        self.category, self.symbol = category, symbol
        self.book = EMPTY
        self.trades = EMPTY
        self.recent_trades: deque[RecentTrade] = deque(maxlen=RECENT_TRADES_MAX)
        self.received = float("-inf")
        self.feed = EMPTY
        self._received: dict[str, float] = {}
        """The same for the latest message of each kind."""
        self._heard: dict[str, float | None] = {}
        """When the exchange was last heard on the stream of each kind."""
        self._price_digits = 0
        self._measured_book = EMPTY
        self._last_trade_id: Any = None

    def take(self, payload: Payload, now: float, wall_s: float | None = None) -> None:
        """Take in an ``orderbook.*`` or ``trades.*`` message; ``wall_s`` is our wall clock."""
        kind = payload["kind"]
        self.received = self._received[kind] = now
        alive_ns = payload.get("alive_ts_ns")
        known = alive_ns is not None and wall_s is not None
        self._heard[kind] = now - max(0.0, wall_s - alive_ns / 1e9) if known else None  # type: ignore[operator]
        if payload.get("reason") == UNSUBSCRIBED:
            self.forget(kind)
        elif payload["kind"] == "orderbook":
            self.book = payload
        else:
            self.trades = payload
            self._take_last_trade(payload)

    def forget(self, kind: str) -> None:
        """Forget a stream that was unsubscribed."""
        self._received.pop(kind, None)
        self._heard.pop(kind, None)
        if kind == "orderbook":
            self.book = EMPTY
        else:
            self.trades = EMPTY

    def expire(self, now: float) -> None:
        """Drop the numbers of a stream whose latest message is too old to be believed."""
        if self.book and self._is_overdue("orderbook", now):
            self.book = without_numbers(self.book)
        if self.trades and self._is_overdue("trades", now):
            self.trades = without_numbers(self.trades)

    def _is_overdue(self, kind: str, now: float) -> bool:
        return now - self._received.get(kind, now) >= SILENT_S

    def heard_s(self, kind: str, now: float) -> float | None:
        """Seconds since the exchange was last heard on a stream; None if it was not."""
        heard = self._heard.get(kind)
        return None if heard is None else max(0.0, now - heard)

    def _take_last_trade(self, payload: Payload) -> None:
        trade_id = payload.get("last_trade_id")
        if trade_id is None or trade_id == self._last_trade_id:
            return
        self._last_trade_id = trade_id
        self._price_digits = max(self._price_digits, decimals(payload.get("last_price")))
        keys = ("match_ts_ms", "last_side", "last_price", "last_size")
        self.recent_trades.appendleft(RecentTrade(*(payload.get(key) for key in keys)))  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """``category:SYMBOL``."""
        return f"{self.category}:{self.symbol}"

    @property
    def source(self) -> str:
        """Source of the newest data."""
        newest = max((self.book, self.trades), key=lambda p: p.get("publish_ts_ns") or 0)
        return str((newest or self.book or self.trades).get("source", NONE))

    @property
    def price_digits(self) -> int:
        """The most decimals that any price so far has had."""
        if self._measured_book is not self.book:  # measured when needed: a book has many prices
            self._measured_book = self.book
            levels = (*(self.book.get("bids") or ()), *(self.book.get("asks") or ()))
            self._price_digits = max([self._price_digits, *(decimals(p) for p, _ in levels)])
        return self._price_digits

    def price(self, value: float | None) -> str:
        """A price with as many decimals as this market uses."""
        return number(value, self.price_digits)

    def is_silent(self, now: float) -> bool:
        """True if no message of either stream is young enough to be believed."""
        return now - self.received >= SILENT_S

    def window(self, name: str) -> Payload:
        """The measures of one trade window; empty if there are none."""
        measures: Payload = (self.trades.get("windows") or EMPTY).get(name, EMPTY)
        return measures

    def is_partial(self, name: str) -> bool:
        """True if a trade window has not been observed for its full length."""
        coverage_s = self.window(name).get("coverage_s")
        return coverage_s is not None and coverage_s < window_seconds(name) - PARTIAL_S

    @property
    def is_tps_partial(self) -> bool:
        """The same for the window of ``tps``, which may not be published on its own."""
        windows = self.trades.get("windows") or EMPTY
        own = next((name for name in windows if window_seconds(name) == TPS_WINDOW_S), None)
        return self.trades.get("state") != "live" if own is None else self.is_partial(own)

    def imbalance(self, levels: str) -> float | None:
        """The imbalance of the best ``levels`` levels."""
        value: float | None = (self.book.get("imbalance") or EMPTY).get(levels)
        return value

    @property
    def walls(self) -> list[Payload]:
        """The tracked walls that have size left, nearest to the mid price first."""
        walls = [wall for wall in self.book.get("densities") or () if wall["size"] > 0]
        return sorted(walls, key=lambda wall: abs(wall["distance_bps"] or 0.0))

    def nearest_wall(self, side: str) -> Payload | None:
        """The tracked wall of one side that is nearest to the mid price."""
        return next((wall for wall in self.walls if wall["side"] == side), None)


def decimals(value: float | None) -> int:
    """Number of decimals of a parsed price; 0 for None."""
    if value is None:
        return 0
    mantissa, _, exponent = repr(value).partition("e")
    digits = len(mantissa.partition(".")[2].rstrip("0"))
    return max(0, digits - int(exponent or 0))


class TableState:
    """
    The markets of a table.

    Args:
        wanted: Symbols, or ``category:SYMBOL``, to show; empty for all.
    """

    def __init__(self, wanted: Iterable[str] = ()) -> None:
        self.wanted = tuple(wanted)
        self._wanted = frozenset(self.wanted)
        self._markets: dict[tuple[str, str], TableMarket] = {}
        self.feed = EMPTY

    def take(self, payload: Payload, now: float, wall_s: float | None = None) -> None:
        """
        Take in a metric message.

        Unwanted markets are ignored, and of ``process.*`` all but the feed of the supervisor.
        """
        if payload.get("role") == "supervisor":
            self.feed = payload.get("feed") or EMPTY
        kind, category, symbol = (payload.get(key) for key in ("kind", "category", "symbol"))
        if kind not in ("trades", "orderbook") or not self._is_wanted(category, symbol):
            return
        key = (str(category), str(symbol))
        market = self._markets.get(key)
        if market is None:
            market = self._markets[key] = TableMarket(*key)
        market.take(payload, now, wall_s)
        if not market.book and not market.trades:
            del self._markets[key]

    def expire(self, now: float) -> None:
        """Drop all numbers that are too old to be believed; call it before drawing."""
        for market in self._markets.values():
            market.feed = self.feed
            market.expire(now)

    def _is_wanted(self, category: Any, symbol: Any) -> bool:
        return not self._wanted or bool({symbol, f"{category}:{symbol}"} & self._wanted)

    def __len__(self) -> int:
        return len(self._markets)

    def get(self, name: str) -> TableMarket | None:
        """The market ``category:SYMBOL``."""
        category, _, symbol = name.partition(":")
        return self._markets.get((category, symbol))

    def forget_silent(self, now: float) -> None:
        """Remove markets that were silent for ``FORGET_S`` while others were not: unsubscribed."""
        if any(not market.is_silent(now) for market in self._markets.values()):
            for key in [k for k, m in self._markets.items() if now - m.received >= FORGET_S]:
                del self._markets[key]

    @property
    def markets(self) -> list[TableMarket]:
        """All markets, by name."""
        return [market for _, market in sorted(self._markets.items())]

    @property
    def missing(self) -> list[str]:
        """Wanted markets without any message yet."""
        if not self.wanted:
            return [] if self._markets else ["any market"]
        known = {name for market in self.markets for name in (market.symbol, market.name)}
        return [name for name in self.wanted if name not in known]

    @property
    def window(self) -> str:
        """The trade window that tables show: ``60s`` if it is published, otherwise the first."""
        names = next(
            (list(m.trades["windows"]) for m in self._markets.values() if m.trades.get("windows")),
            ["60s"],
        )
        return "60s" if "60s" in names else names[0]

    @property
    def levels(self) -> str:
        """The level count whose imbalance tables show: the published one closest to 10."""
        keys = next(
            (list(m.book["imbalance"]) for m in self._markets.values() if m.book.get("imbalance")),
            ["10"],
        )
        return min(keys, key=lambda key: abs(int(key) - 10))
