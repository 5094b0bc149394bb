"""
The REST endpoints that a market data client needs: the exchange's response to one GET request.

Decides paging, parameters and response shapes of ``/v5/market/time``,
``/v5/market/instruments-info`` and ``/v5/market/tickers``. Pure: the list comes from a
``MarketFeed`` and the time from an argument.

    {"retCode":0,"retMsg":"OK","result":{"category":"linear","list":[...],
     "nextPageCursor":"first%3DAAVEUSDT%26last%3DXRPUSDT"},"retExtInfo":{},"time":1735809771618}

As on the exchange, spot always has a single page, options are those of BTC unless ``baseCoin``
names another coin, and a cursor is accepted both as it was returned and URL-encoded once more.
https://bybit-exchange.github.io/docs/v5/market/instrument. The wording of errors is not recorded
and therefore made up here.

Limits and codes are written here again on purpose: a mistake in ``shared/bybit.py`` must not be in
the simulated exchange as well.
"""

import http
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, get_args
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec

from bybit_pipeline.processes.simulator.faults import Fault
from bybit_pipeline.processes.simulator.feed import ListedInstrument, MarketFeed
from bybit_pipeline.shared.wire.messages import Category

PREFIX: Final = "/v5/market/"
LIMIT_DEFAULT: Final = 500
LIMIT_MAX: Final = 1000
PARAMS_ERROR: Final = 10001
TOO_MANY_VISITS: Final = 10006
CATEGORIES: Final[tuple[Category, ...]] = get_args(Category)
CONTRACT_TYPES: Final = {"linear": "LinearPerpetual", "inverse": "InversePerpetual"}


class RestResponse(NamedTuple):
    """Status and body of an HTTP response."""

    status: http.HTTPStatus
    body: bytes


class ParameterError(ValueError):
    """A request parameter that the exchange rejects."""


def is_rest(target: str) -> bool:
    """Return True if the request target is one of the REST API."""
    return target.startswith(PREFIX)


def respond(
    target: str, feed: MarketFeed, now_ms: int, *, fault: Fault | None = None
) -> RestResponse:
    """
    Return the response to a GET request.

    Args:
        target: Path and query of the request.
        feed: Source of the listed instruments.
        now_ms: The server's time.
        fault: A ``rest`` fault to inject.
    """
    if fault is not None and not fault.how:
        return RestResponse(http.HTTPStatus(fault.status), b"refused\n")
    if fault is not None and fault.how == "text":
        return RestResponse(http.HTTPStatus.OK, b"<html>come back later</html>")
    if fault is not None and fault.how == "code":
        return _envelope(TOO_MANY_VISITS, "Too many visits!", {}, now_ms)
    parts = urlsplit(target)
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    endpoints = {"time": _time, "instruments-info": _instruments, "tickers": _tickers}
    endpoint = endpoints.get(parts.path.removeprefix(PREFIX))
    if endpoint is None:
        return RestResponse(http.HTTPStatus.NOT_FOUND, b"404 page not found\n")
    try:
        result = endpoint(parameters, feed, now_ms)
    except ParameterError as error:
        return _envelope(PARAMS_ERROR, f"params error: {error}", {}, now_ms)
    if fault is not None:
        _damage(result, fault.how, parameters.get("cursor", ""))
    return _envelope(0, "OK", result, now_ms)


def _time(_parameters: Mapping[str, str], _feed: MarketFeed, now_ms: int) -> dict[str, Any]:
    return {"timeSecond": str(now_ms // 1000), "timeNano": str(now_ms * 1_000_000)}


def _instruments(parameters: Mapping[str, str], feed: MarketFeed, _now_ms: int) -> dict[str, Any]:
    category = _category(parameters)
    found = _selected(parameters, category, feed)
    page, cursor = found, ""
    if category != "spot":
        page, cursor = _page(found, parameters)
    rows = [_instrument(category, each) for each in page]
    return {"category": category, "list": rows, "nextPageCursor": cursor}


def _page(
    found: list[ListedInstrument], parameters: Mapping[str, str]
) -> tuple[list[ListedInstrument], str]:
    """Return one page of instruments and the cursor of the next page, empty on the last one."""
    limit = parameters.get("limit", str(LIMIT_DEFAULT))
    if not limit.isdecimal() or not 1 <= int(limit) <= LIMIT_MAX:
        raise ParameterError(f"limit {limit}")
    cursor = parameters.get("cursor", "")
    last = dict(parse_qsl(unquote(cursor))).get("last", "")
    if cursor and not last:
        raise ParameterError("cursor")
    rest = [each for each in found if each.symbol > last]
    page = rest[: int(limit)]
    is_last = len(page) == len(rest)
    return page, "" if is_last else quote(f"first={page[0].symbol}&last={page[-1].symbol}")


def _instrument(category: Category, each: ListedInstrument) -> dict[str, Any]:
    quote_coin = each.symbol.removeprefix(each.base_coin) if category != "option" else "USDT"
    row: dict[str, Any] = {
        "symbol": each.symbol,
        "status": "Trading",
        "baseCoin": each.base_coin,
        "quoteCoin": quote_coin,
        "priceFilter": {"tickSize": each.tick},
        "lotSizeFilter": {"basePrecision" if category == "spot" else "qtyStep": each.lot},
    }
    if category in CONTRACT_TYPES:
        row |= {
            "contractType": CONTRACT_TYPES[category],
            "isPreListing": False,
            "preListingInfo": None,
        }
    return row


def _tickers(parameters: Mapping[str, str], feed: MarketFeed, _now_ms: int) -> dict[str, Any]:
    category = _category(parameters)
    if category == "option" and not {"baseCoin", "symbol"} & set(parameters):
        raise ParameterError("symbol or baseCoin is required")
    rows = [_ticker(category, each) for each in _selected(parameters, category, feed)]
    return {"category": category, "list": rows}


def _ticker(category: Category, each: ListedInstrument) -> dict[str, str]:
    """Return a ticker row; the turnover of inverse contracts is in the base coin."""
    in_base = each.turnover / each.price
    turnover, volume = each.turnover, in_base
    if category == "inverse":
        turnover, volume = in_base, each.turnover
    return {
        "symbol": each.symbol,
        "lastPrice": f"{each.price:.8f}",
        "turnover24h": f"{turnover:.8f}",
        "volume24h": f"{volume:.8f}",
    }


def _category(parameters: Mapping[str, str]) -> Category:
    category = parameters.get("category", "")
    if category not in CATEGORIES:
        raise ParameterError("Illegal category")
    return category


def _selected(
    parameters: Mapping[str, str], category: Category, feed: MarketFeed
) -> list[ListedInstrument]:
    base_coin = parameters.get("baseCoin") or ("BTC" if category == "option" else "")
    symbol = parameters.get("symbol", "")
    return [
        each
        for each in feed.listed(category)
        if (not symbol or each.symbol == symbol)
        and (symbol or not base_coin or each.base_coin == base_coin)
    ]


def _damage(result: dict[str, Any], how: str, cursor: str) -> None:
    if how == "empty":
        result["list"] = []
    elif how == "part":
        result["list"] = result["list"][: len(result["list"]) // 3]
    elif how == "loop" and "nextPageCursor" in result:
        here, there = "first=A&last=A", "first=B&last=B"
        result["nextPageCursor"] = quote(there if unquote(cursor) == here else here)


def _envelope(code: int, message: str, result: dict[str, Any], now_ms: int) -> RestResponse:
    envelope = {
        "retCode": code,
        "retMsg": message,
        "result": result,
        "retExtInfo": {},
        "time": now_ms,
    }
    return RestResponse(http.HTTPStatus.OK, msgspec.json.encode(envelope))
