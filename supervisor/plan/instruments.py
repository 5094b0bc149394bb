"""
Bybit's instrument lists over REST: the requests to make, and what the responses contain. Pure.

Decides how pages follow each other, which instruments can be subscribed, how they rank by turnover,
and which responses are rejected. Knows no sockets: bytes come in.

    {"retCode":0,"retMsg":"OK","result":{"category":"linear","list":[{"symbol":"BTCUSDT",
     "status":"Trading", ...}],"nextPageCursor":"first%3DBTCUSDT%26last%3DBTCUSDT"},"time":1735}

https://bybit-exchange.github.io/docs/v5/market/instrument,
https://bybit-exchange.github.io/docs/v5/market/tickers
"""

import math
import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args
from urllib.parse import quote

import msgspec

from bybit_pipeline.shared.bybit import RATE_LIMITED_CODE, SYMBOL
from bybit_pipeline.shared.wire.messages import Category

PAGE_LIMIT = 1000
"""Instruments per page; the most that Bybit allows."""
PAGES_MAX = 20
"""Pages per list; the longest list has a few thousand instruments."""
MISSING_MAX = 3
"""
Instruments, or half of a list if that is more, that a plausible response may lack.

For a list compared with the one before, and for tickers compared with their list.
"""

Failure = Literal[
    "unreachable",
    "timeout",
    "forbidden",
    "rate_limited",
    "status",
    "too_large",
    "unreadable",
    "refused",
    "endless",
    "empty",
    "implausible",
]
FAILURES: tuple[Failure, ...] = get_args(Failure)


class InstrumentListError(Exception):
    """A list that cannot be fetched or is rejected; ``failure`` is the label of its counter."""

    def __init__(self, failure: Failure, text: str) -> None:
        self.failure = failure
        super().__init__(text)


@dataclass(frozen=True)
class InstrumentQuery:
    """One instrument list to fetch."""

    category: Category
    base_coin: str = ""
    """For options, which Bybit lists by base coin; else empty."""
    has_turnover: bool = False
    """True to rank the symbols by turnover, for which the tickers are fetched too."""

    @property
    def key(self) -> tuple[Category, str]:
        """Category and base coin, which identify the list."""
        return self.category, self.base_coin

    def __str__(self) -> str:
        return f"{self.category} {self.base_coin}".rstrip()


@dataclass(frozen=True)
class InstrumentList:
    """The symbols that can be subscribed; highest turnover first if the query asked for it."""

    symbols: tuple[str, ...]
    skipped: int = 0
    """Number of instruments whose symbols this pipeline cannot represent."""


class _Auction(msgspec.Struct):
    phase: str = msgspec.field(default="", name="curAuctionPhase")


class _Instrument(msgspec.Struct):
    symbol: str
    status: str
    is_pre_listing: bool = msgspec.field(default=False, name="isPreListing")
    pre_listing: _Auction | None = msgspec.field(default=None, name="preListingInfo")

    def can_be_subscribed(self) -> bool:
        """True if it trades; during pre-listing, only in the phase of continuous trading."""
        if self.status != "Trading":
            return False
        phase = self.pre_listing.phase if self.pre_listing else ""
        return not self.is_pre_listing or phase == "ContinuousTrading"


class _Ticker(msgspec.Struct):
    symbol: str
    turnover: str = msgspec.field(name="turnover24h")
    last_price: str = msgspec.field(default="", name="lastPrice")


class _Instruments(msgspec.Struct):
    category: str
    list: list[_Instrument]
    cursor: str = msgspec.field(default="", name="nextPageCursor")


class _Tickers(msgspec.Struct):
    category: str
    list: list[_Ticker]


class _Response(msgspec.Struct):
    code: int = msgspec.field(name="retCode")
    message: str = msgspec.field(default="", name="retMsg")
    result: msgspec.Raw = msgspec.Raw(b"null")


_FIELD = re.compile(r"at `(\$.{,100}?)`$")
"""Place of the wrong value in an error of msgspec, such as ``$.list[...].symbol``."""
_Page = TypeVar("_Page", _Instruments, _Tickers)


def fetch_steps(query: InstrumentQuery) -> Generator[str, bytes, InstrumentList]:
    """
    The steps that fetch one list: yield paths to GET, receive the bodies, return the list.

        steps = fetch_steps(query)
        path = next(steps)
        while True: path = steps.send(get(path))      # StopIteration.value is the InstrumentList

    Raises:
        InstrumentListError: From ``send``, at the first response that is rejected.
    """
    instruments = yield from _pages(query)
    symbols = [each.symbol for each in instruments if each.can_be_subscribed()]
    usable = [symbol for symbol in symbols if SYMBOL.fullmatch(symbol)]
    if not usable:
        raise InstrumentListError("empty", f"the instrument list of {query} is empty")
    if query.has_turnover:
        path = f"/v5/market/tickers?category={query.category}{_base_coin(query)}"
        turnover = _turnover((yield path), query)
        if not any(turnover.get(symbol, 0) for symbol in usable):
            raise InstrumentListError("empty", f"the tickers of {query} have no turnover")
        missing = sum(symbol not in turnover for symbol in usable)
        if missing > _missing_max(len(usable)):
            text = f"the tickers of {query} lack {missing} of {len(usable)} instruments"
            raise InstrumentListError("implausible", text)
        usable.sort(key=lambda symbol: (-turnover.get(symbol, 0), symbol))
    return InstrumentList(tuple(dict.fromkeys(usable)), skipped=len(symbols) - len(usable))


def _pages(query: InstrumentQuery) -> Generator[str, bytes, list[_Instrument]]:
    """All pages; the last one has no cursor, or repeats the cursor that was sent."""
    first = f"/v5/market/instruments-info?category={query.category}&limit={PAGE_LIMIT}"
    first += _base_coin(query)
    found: dict[str, _Instrument] = {}
    seen: set[str] = set()
    cursor = ""
    for _ in range(PAGES_MAX):
        # Bybit sends the cursor percent-encoded; other characters must not end the parameter.
        parameter = f"&cursor={quote(cursor, safe='%')}" if cursor else ""
        page = _decode((yield first + parameter), _Instruments, query)
        found.update((instrument.symbol, instrument) for instrument in page.list)
        if not page.cursor or page.cursor == cursor:
            return list(found.values())
        cursor = page.cursor
        if cursor in seen:
            raise InstrumentListError("endless", f"the pages of {query} repeat")
        seen.add(cursor)
    raise InstrumentListError("endless", f"the list of {query} has more than {PAGES_MAX} pages")


def _turnover(body: bytes, query: InstrumentQuery) -> dict[str, float]:
    """
    Turnover of 24 hours by symbol, in quote currency.

    Bybit gives the turnover of inverse contracts in the base coin; the last price converts it.
    """
    turnover = {}
    for ticker in _decode(body, _Tickers, query).list:
        value = _number(ticker.turnover)
        if query.category == "inverse":
            value *= _number(ticker.last_price)
        turnover[ticker.symbol] = value
    return turnover


def _decode(body: bytes, kind: type[_Page], query: InstrumentQuery) -> _Page:
    try:
        response = msgspec.json.decode(body, type=_Response)
        if response.code == RATE_LIMITED_CODE:
            raise InstrumentListError("rate_limited", f"retCode {response.code}: too many requests")
        if response.code != 0:
            text = f"retCode {response.code}: {response.message[:100]!r}"
            raise InstrumentListError("refused", text)
        page = msgspec.json.decode(response.result, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        field = _FIELD.search(str(error))
        place = f": wrong value at {field[1]}" if field else ""
        text = f"the response is not an instrument list{place}"
        raise InstrumentListError("unreadable", text) from error
    if page.category != query.category:
        text = f"asked for {query.category}, got {page.category[:20]!r}"
        raise InstrumentListError("unreadable", text)
    return page


def _base_coin(query: InstrumentQuery) -> str:
    return f"&baseCoin={query.base_coin}" if query.base_coin else ""


def _number(text: str) -> float:
    """A positive number in text; 0 for anything else, as for a contract that never traded."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def missing_from(after: InstrumentList, before: InstrumentList) -> int:
    """Number of symbols that disappeared, if it suggests a broken response; else 0."""
    gone = len(set(before.symbols) - set(after.symbols))
    return gone if gone > _missing_max(len(before.symbols)) else 0


def _missing_max(size: int) -> int:
    return max(MISSING_MAX, size // 2)
