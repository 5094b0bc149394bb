"""
The latest metrics by market, the tape of each, and their order in a table. Pure.

With hundreds of markets most messages are never looked at: a market keeps the newest of each kind
as it came and reads it when it is asked for.

Time comes in: a market of which nothing has been heard for ``SILENT_S`` is said to be silent,
whatever its last message claimed, because workers publish every market once a second.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rich.text import Text

from bybit_pipeline.shared.errors import CodecError
from bybit_pipeline.shared.settings.config import window_seconds
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.supervisor.tui.formatting import Cell, Column, grid, number, source_text, styled

NONE = "–"
SILENT_S = 3.0
FORGET_S = 60.0
SOURCE_S = 2.0
"""How old a source may be that is only mentioned in a head."""
TAPE_MAX = 200
PARTIAL_S = 0.5
"""A window that lacks less is not worth a mark."""
TPS_WINDOW_S = 10

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
        tape: The last trade of each message that was looked at, newest first.
        invalid: Messages that could not be read.
    """

    def __init__(self, category: str, symbol: str) -> None:
        self.category, self.symbol = category, symbol
        self.heard = float("-inf")
        self.invalid = 0
        self.tape: deque[Tick] = deque(maxlen=TAPE_MAX)
        self._read: dict[str, Payload] = {"orderbook": Nothing, "trades": Nothing}
        self._frames: dict[str, bytes] = {}
        self._unread: set[str] = set()
        self._price_digits = 0
        self._is_measured = True
        self._last_trade: Any = None
        self._last_source: tuple[float, str] = (float("-inf"), NONE)

    @property
    def book(self) -> Payload:
        """The newest ``orderbook.*`` message."""
        return self._newest("orderbook")

    @property
    def trades(self) -> Payload:
        """The newest ``trades.*`` message."""
        return self._newest("trades")

    @property
    def price_digits(self) -> int:
        """Decimals of its prices, as far as looked at."""
        book, _ = self.book, self.trades
        if not self._is_measured:
            self._is_measured = True
            prices = [price for price, _ in (*book.get("bids", ()), *book.get("asks", ()))]
            self._price_digits = max(self._price_digits, *map(decimals, prices), 0)
        return self._price_digits

    @property
    def name(self) -> str:
        """``category:SYMBOL``."""
        return f"{self.category}:{self.symbol}"

    @property
    def source(self) -> str:
        """Where the newest data come from."""
        newest = max((self.book, self.trades), key=lambda p: p.get("publish_ts_ns") or 0)
        return str((newest or self.book or self.trades).get("source", NONE))

    def source_lately(self, now: float) -> str:
        """The source as of now or ``SOURCE_S`` ago, which need not be read for every picture."""
        if now - self._last_source[0] >= SOURCE_S:
            self._last_source = now, self.source
        return self._last_source[1]

    def take(self, payload: Payload, now: float) -> None:
        """Take over one message."""
        self.heard = now
        self._unread.discard(payload["kind"])
        self._keep(payload)

    def take_frame(self, kind: str, frame: bytes, now: float) -> None:
        """Take over one message unread; a repeat, which is for somebody else, says nothing."""
        if self._frames.get(kind) == frame:
            return
        self.heard = now
        self._frames[kind] = frame
        self._unread.add(kind)

    def _newest(self, kind: str) -> Payload:
        if kind in self._unread:
            self._unread.discard(kind)
            try:
                self._keep({**codec.decode_map(self._frames[kind]), "kind": kind})
            except CodecError:
                self.invalid += 1
        return self._read[kind]

    def _keep(self, payload: Payload) -> None:
        self._read[payload["kind"]] = payload
        if payload["kind"] == "orderbook":
            self._is_measured = False
        else:
            self._price_digits = max(self._price_digits, decimals(payload.get("last_price")))
            self._note_trade(payload)

    def _note_trade(self, payload: Payload) -> None:
        trade_id = payload.get("last_trade_id")
        if trade_id is None or trade_id == self._last_trade:
            return
        self._last_trade = trade_id
        fields = (
            payload.get(key) for key in ("match_ts_ms", "last_side", "last_price", "last_size")
        )
        self.tape.appendleft(Tick(*fields))  # type: ignore[arg-type]

    def is_silent(self, now: float) -> bool:
        """True when nothing has been heard for too long to believe what is shown."""
        return now - self.heard >= SILENT_S

    def window(self, name: str) -> Payload:
        """The measures of one window; empty if there are none."""
        found: Payload = (self.trades.get("windows") or Nothing).get(name, Nothing)
        return found

    def is_partial(self, name: str) -> bool:
        """True while a window has not been observed for its whole length."""
        covered = self.window(name).get("coverage_s")
        return covered is not None and covered < window_seconds(name) - PARTIAL_S

    @property
    def is_tps_partial(self) -> bool:
        """The same of ``tps``, whose window may not be among those that are published."""
        windows = self.trades.get("windows") or Nothing
        own = next((name for name in windows if window_seconds(name) == TPS_WINDOW_S), None)
        return self.trades.get("state") != "live" if own is None else self.is_partial(own)

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
        self._wanted = frozenset(self.wanted)
        self._markets: dict[tuple[str, str], Market] = {}

    def update(self, payload: Payload, now: float = 0.0) -> None:
        """Take over one metric message that came at ``now``."""
        kind, category, symbol = (payload.get(key) for key in ("kind", "category", "symbol"))
        if kind not in ("trades", "orderbook") or not self._is_wanted(category, symbol):
            return
        self._market(str(category), str(symbol)).take(payload, now)

    def update_frame(self, topic: str, frame: bytes, now: float) -> None:
        """Take over one message, unread, of a topic ``kind.category.SYMBOL``."""
        kind, _, name = topic.partition(".")
        category, _, symbol = name.partition(".")
        if kind in ("trades", "orderbook") and self._is_wanted(category, symbol):
            self._market(category, symbol).take_frame(kind, frame, now)

    def _market(self, category: str, symbol: str) -> Market:
        market = self._markets.get((category, symbol))
        if market is None:
            market = self._markets[category, symbol] = Market(category, symbol)
        return market

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
    def unheard(self) -> list[str]:
        """What is wanted and nothing was heard of."""
        if not self.wanted:
            return [] if self._markets else ["any market"]
        heard = {name for market in self.markets for name in (market.symbol, market.name)}
        return [word for word in self.wanted if word not in heard]

    @property
    def window(self) -> str:
        """The window that tables show: ``60s``, else the first there is."""
        names = next(
            (list(m.trades["windows"]) for m in self._markets.values() if m.trades.get("windows")),
            ["60s"],
        )
        return "60s" if "60s" in names else names[0]

    @property
    def levels(self) -> str:
        """The level count whose imbalance tables show: the one closest to 10."""
        keys = next(
            (list(m.book["imbalance"]) for m in self._markets.values() if m.book.get("imbalance")),
            ["10"],
        )
        return min(keys, key=lambda key: abs(int(key) - 10))

    def plain(self) -> list[Text]:
        """The markets as lines without colour, one a row: what is printed without a terminal."""
        window, levels = self.window, self.levels
        titles = (
            "bid",
            "ask",
            "mid",
            "spread bps",
            "imbalance",
            "last",
            "tpm",
            f"delta {window}",
            "walls",
        )
        columns = [
            Column("market"),
            Column("book"),
            *(Column(title, is_right=True) for title in titles),
            Column("source"),
        ]
        rows: list[list[Cell]] = []
        for market in self.markets:
            book, trades, measures = market.book, market.trades, market.window(window)
            walls = book.get("densities")
            rows.append(
                [
                    market.name,
                    styled(str(book.get("state", NONE))),
                    number(book.get("best_bid")),
                    number(book.get("best_ask")),
                    number(book.get("mid_price")),
                    number(book.get("spread_bps"), 2),
                    number(market.imbalance(levels), 2),
                    number(trades.get("last_price")),
                    number(measures.get("tpm"), 0),
                    number(measures.get("vol_delta"), 3),
                    NONE if walls is None else str(len(walls)),
                    source_text(market.source),
                ]
            )
        return grid(columns, rows, 10_000)

    def _is_wanted(self, category: Any, symbol: Any) -> bool:
        return not self._wanted or bool({symbol, f"{category}:{symbol}"} & self._wanted)
