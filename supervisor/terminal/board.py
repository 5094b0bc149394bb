"""
The latest metrics by market, the tape of each, and their order in a table. Pure.

Time comes in: a market of which nothing has been heard for ``SILENT_S`` is said to be silent,
whatever its last message claimed, because workers publish every market once a second.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rich.text import Text

from supervisor.terminal.cells import Cell, Column, grid, number, source_text, styled

NONE = "–"
SILENT_S = 3.0
FORGET_S = 60.0
TAPE_MAX = 200

Payload = Mapping[str, Any]
Nothing: Payload = {}


class Tick(NamedTuple):
    """The last trade of one message."""

    match_ts_ms: int
    side: str
    price: float
    size: float


class Market:
    """
    One market: the newest message of each kind.

    Attributes:
        heard: When the newest one came, in seconds of whoever calls.
        price_digits: Decimals of its prices, as far as seen.
        tape: The last trade of each message, newest first.
    """

    def __init__(self, category: str, symbol: str) -> None:
        self.category, self.symbol = category, symbol
        self.book: Payload = Nothing
        self.trades: Payload = Nothing
        self.heard = float("-inf")
        self.price_digits = 0
        self.tape: deque[Tick] = deque(maxlen=TAPE_MAX)
        self._last_trade: Any = None

    @property
    def name(self) -> str:
        """``category:SYMBOL``."""
        return f"{self.category}:{self.symbol}"

    @property
    def source(self) -> str:
        """Where the newest data come from."""
        newest = max((self.book, self.trades), key=lambda p: p.get("publish_ts_ns") or 0)
        return str((newest or self.book or self.trades).get("source", NONE))

    def take(self, payload: Payload, now: float) -> None:
        """Take over one message."""
        self.heard = now
        if payload["kind"] == "orderbook":
            self.book = payload
            prices = [price for price, _ in (*payload.get("bids", ()), *payload.get("asks", ()))]
        else:
            self.trades = payload
            prices = [payload.get("last_price")]
            self._note_trade(payload)
        self.price_digits = max(self.price_digits, *map(decimals, prices), 0)

    def _note_trade(self, payload: Payload) -> None:
        trade_id = payload.get("last_trade_id")
        if trade_id is None or trade_id == self._last_trade:
            return
        self._last_trade = trade_id
        fields = (payload.get(key) for key in ("match_ts_ms", "last_side", "last_price",
                                               "last_size"))  # fmt: skip
        self.tape.appendleft(Tick(*fields))  # type: ignore[arg-type]

    def is_silent(self, now: float) -> bool:
        """True when nothing has been heard for too long to believe what is shown."""
        return now - self.heard >= SILENT_S

    def window(self, name: str) -> Payload:
        """The measures of one window; empty if there are none."""
        found: Payload = (self.trades.get("windows") or Nothing).get(name, Nothing)
        return found

    def imbalance(self, levels: str) -> float | None:
        """The imbalance of the best levels."""
        value: float | None = (self.book.get("imbalance") or Nothing).get(levels)
        return value

    def price(self, value: float | None) -> str:
        """A price with as many decimals as this market has."""
        return number(value, self.price_digits)

    def nearest_wall(self, side: str) -> Payload | None:
        """The tracked wall of one side that is closest to the mid price."""
        return next((wall for wall in self.walls if wall["side"] == side), None)

    @property
    def walls(self) -> list[Payload]:
        """The tracked walls that stand, the closest to the mid price first."""
        standing = [wall for wall in self.book.get("densities") or () if wall["size"] > 0]
        return sorted(standing, key=lambda wall: abs(wall["distance_bps"] or 0.0))


def _with_capitals(word: str) -> str:
    category, colon, symbol = word.rpartition(":")
    return f"{category}{colon}{symbol.upper()}"


def decimals(value: float | None) -> int:
    """How many decimals a parsed price has; 0 for None."""
    if value is None:
        return 0
    mantissa, _, exponent = repr(value).partition("e")
    digits = len(mantissa.partition(".")[2].rstrip("0"))
    return max(0, digits - int(exponent or 0))


class Board:
    """
    The markets.

    Args:
        markets: Symbols, or ``category:SYMBOL``, to show; empty for all.
    """

    def __init__(self, markets: Iterable[str] = ()) -> None:
        self.wanted = tuple(markets)
        self._wanted = frozenset(map(_with_capitals, self.wanted))
        self._markets: dict[tuple[str, str], Market] = {}

    def update(self, payload: Payload, now: float = 0.0) -> None:
        """Take over one metric message that came at ``now``."""
        kind, category, symbol = (payload.get(key) for key in ("kind", "category", "symbol"))
        if kind not in ("trades", "orderbook") or not self._is_wanted(category, symbol):
            return
        key = (str(category), str(symbol))
        market = self._markets.get(key)
        if market is None:
            market = self._markets[key] = Market(*key)
        market.take(payload, now)

    def __len__(self) -> int:
        return len(self._markets)

    def get(self, name: str) -> Market | None:
        """The market ``category:SYMBOL``."""
        category, _, symbol = name.partition(":")
        return self._markets.get((category, symbol))

    def forget(self, now: float) -> None:
        """Drop markets that were silent for long while others are heard: unsubscribed ones."""
        if any(not market.is_silent(now) for market in self._markets.values()):
            for key in [k for k, m in self._markets.items() if now - m.heard >= FORGET_S]:
                del self._markets[key]

    @property
    def markets(self) -> list[Market]:
        """All, by name."""
        return [market for _, market in sorted(self._markets.items())]

    @property
    def window(self) -> str:
        """The window that tables show: ``60s``, else the first there is."""
        names = next((list(m.trades["windows"]) for m in self._markets.values()
                      if m.trades.get("windows")), ["60s"])  # fmt: skip
        return "60s" if "60s" in names else names[0]

    @property
    def levels(self) -> str:
        """The level count whose imbalance tables show: the one closest to 10."""
        keys = next((list(m.book["imbalance"]) for m in self._markets.values()
                     if m.book.get("imbalance")), ["10"])  # fmt: skip
        return min(keys, key=lambda key: abs(int(key) - 10))

    def plain(self) -> list[Text]:
        """The markets as lines without colour, one a row: what is printed without a terminal."""
        window, levels = self.window, self.levels
        titles = ("bid", "ask", "mid", "spread bps", "imbalance", "last", "tpm", f"delta {window}",
                  "walls")  # fmt: skip
        columns = [
            Column("market"), Column("book"), *(Column(title, is_right=True) for title in titles),
            Column("source"),
        ]  # fmt: skip
        rows: list[list[Cell]] = []
        for market in self.markets:
            book, trades, measures = market.book, market.trades, market.window(window)
            walls = book.get("densities")
            rows.append([
                market.name, styled(str(book.get("state", NONE))), number(book.get("best_bid")),
                number(book.get("best_ask")), number(book.get("mid_price")),
                number(book.get("spread_bps"), 2), number(market.imbalance(levels), 2),
                number(trades.get("last_price")), number(measures.get("tpm"), 0),
                number(measures.get("vol_delta"), 3),
                NONE if walls is None else str(len(walls)), source_text(market.source),
            ])  # fmt: skip
        return grid(columns, rows, 10_000)

    def _is_wanted(self, category: Any, symbol: Any) -> bool:
        return not self._wanted or bool({symbol, f"{category}:{symbol}"} & self._wanted)
