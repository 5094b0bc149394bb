"""
The exchange's list of instruments as REST gives it: what to ask, and what the answers say. Pure.

Decides how pages follow on each other, which instruments may be subscribed, how they rank by
turnover, and which answers are not believed. Knows no sockets: bytes come in.

    {"retCode":0,"retMsg":"OK","result":{"category":"linear","list":[{"symbol":"BTCUSDT",
     "status":"Trading", ...}],"nextPageCursor":"first%3DBTCUSDT%26last%3DBTCUSDT"},"time":1735}

https://bybit-exchange.github.io/docs/v5/market/instrument,
https://bybit-exchange.github.io/docs/v5/market/tickers
"""

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args
from urllib.parse import quote

import msgspec

from bybit_pipeline.shared.bybit import RATE_LIMITED_CODE, SYMBOL
from bybit_pipeline.shared.wire.messages import Category

PAGE_LIMIT = 1000
PAGES_MAX = 20
"""Of one list; the longest has a few thousand instruments."""
VANISHED_MIN = 3
"""
So many instruments may vanish from a list, or half of it, before it is asked for once more; and so
many may be without a ticker.
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
    """A list that cannot be had or not be believed: a word for counters and a text for people."""

    def __init__(self, failure: Failure, text: str) -> None:
        self.failure = failure
        super().__init__(text)


@dataclass(frozen=True)
class InstrumentQuery:
    """A list that is wanted."""

    category: Category
    base_coin: str = ""
    """Of options, whose list comes by base coin."""
    has_turnover: bool = False

    def __str__(self) -> str:
        return f"{self.category} {self.base_coin}".rstrip()


@dataclass(frozen=True)
class InstrumentList:
    """The symbols that may be subscribed; if turnover was asked for, the highest first."""

    symbols: tuple[str, ...]
    skipped: int = 0
    """Listed under names that this pipeline cannot write."""


class _Auction(msgspec.Struct):
    phase: str = msgspec.field(default="", name="curAuctionPhase")


class _Instrument(msgspec.Struct):
    symbol: str
    status: str
    is_pre_listing: bool = msgspec.field(default=False, name="isPreListing")
    pre_listing: _Auction | None = msgspec.field(default=None, name="preListingInfo")

    def may_be_subscribed(self) -> bool:
        """Trading, and if it is not listed for good, at least continuously."""
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


class _Envelope(msgspec.Struct):
    code: int = msgspec.field(name="retCode")
    message: str = msgspec.field(default="", name="retMsg")
    result: msgspec.Raw = msgspec.Raw(b"null")


_Page = TypeVar("_Page", _Instruments, _Tickers)


def ask(query: InstrumentQuery) -> Generator[str, bytes, InstrumentList]:
    """
    The dialogue that gets one list: yields paths to GET, takes the bodies, returns the instruments.

        asking = ask(query)
        path = next(asking)
        while True: path = asking.send(get(path))     # StopIteration.value is the InstrumentList

    Raises:
        InstrumentListError: From ``send``, at the first answer that is no part of a list.
    """
    instruments = yield from _pages(query)
    symbols = [each.symbol for each in instruments if each.may_be_subscribed()]
    usable = [symbol for symbol in symbols if SYMBOL.fullmatch(symbol)]
    if not usable:
        raise InstrumentListError("empty", f"the list of {query} is empty")
    if query.has_turnover:
        path = f"/v5/market/tickers?category={query.category}{_base_coin(query)}"
        turnover = _turnover((yield path), query)
        if not any(turnover.get(symbol, 0) for symbol in usable):
            raise InstrumentListError("empty", f"the tickers of {query} name no turnover")
        unranked = sum(symbol not in turnover for symbol in usable)
        if unranked > max(VANISHED_MIN, len(usable) // 2):
            text = f"the tickers of {query} lack {unranked} of {len(usable)} instruments"
            raise InstrumentListError("implausible", text)
        usable.sort(key=lambda symbol: (-turnover.get(symbol, 0), symbol))
    return InstrumentList(tuple(dict.fromkeys(usable)), skipped=len(symbols) - len(usable))


def _pages(query: InstrumentQuery) -> Generator[str, bytes, list[_Instrument]]:
    """All pages; a cursor that comes again is the end if it was the last one sent."""
    first = f"/v5/market/instruments-info?category={query.category}&limit={PAGE_LIMIT}"
    first += _base_coin(query)
    found: dict[str, _Instrument] = {}
    seen: set[str] = set()
    cursor = ""
    for _ in range(PAGES_MAX):
        # The cursor comes percent-encoded already; anything else in it must not end the parameter.
        page = _decode(
            (yield first + (f"&cursor={quote(cursor, safe='%')}" if cursor else "")),
            _Instruments,
            query,
        )
        found.update((instrument.symbol, instrument) for instrument in page.list)
        if not page.cursor or page.cursor == cursor:
            return list(found.values())
        cursor = page.cursor
        if cursor in seen:
            raise InstrumentListError("endless", f"the pages of {query} go in a circle")
        seen.add(cursor)
    raise InstrumentListError("endless", f"the list of {query} has more than {PAGES_MAX} pages")


def _turnover(body: bytes, query: InstrumentQuery) -> dict[str, float]:
    """
    Turnover of 24 hours by symbol, in quote currency.

    That of inverse contracts comes in the base coin: at the last price it can be compared.
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
        envelope = msgspec.json.decode(body, type=_Envelope)
        if envelope.code == RATE_LIMITED_CODE:
            raise InstrumentListError("rate_limited", f"retCode {envelope.code}: too many visits")
        if envelope.code != 0:
            text = f"retCode {envelope.code}: {envelope.message[:100]!r}"
            raise InstrumentListError("refused", text)
        page = msgspec.json.decode(envelope.result, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InstrumentListError(
            "unreadable", f"no list of instruments: {str(error)[:150]}"
        ) from error
    if page.category != query.category:
        text = f"asked for {query.category}, got {page.category[:20]!r}"
        raise InstrumentListError("unreadable", text)
    return page


def _base_coin(query: InstrumentQuery) -> str:
    return f"&baseCoin={query.base_coin}" if query.base_coin else ""


def _number(text: str) -> float:
    """A number in text; 0 for what is none, as of a contract that never traded."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def vanished(before: InstrumentList, after: InstrumentList) -> int:
    """How many symbols are gone, if it is so many that the answer may be broken; else 0."""
    gone = len(set(before.symbols) - set(after.symbols))
    return gone if gone > max(VANISHED_MIN, len(before.symbols) // 2) else 0
