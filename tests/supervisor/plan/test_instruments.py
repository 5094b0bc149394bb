"""Instrument lists: the requests for them, and the lists made of the responses."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from bybit_pipeline.supervisor.plan.instruments import (
    PAGES_MAX,
    InstrumentList,
    InstrumentListError,
    InstrumentQuery,
    fetch_steps,
    missing_from,
)

LINEAR = InstrumentQuery("linear")


def page(*symbols: str, cursor: str = "", category: str = "linear", **changes: Any) -> bytes:
    """A page of trading instruments; ``changes`` apply to all of them."""
    rows = [
        {"symbol": symbol, "status": "Trading", "isPreListing": False} | changes
        for symbol in symbols
    ]
    return response({"category": category, "list": rows, "nextPageCursor": cursor})


def tickers(category: str = "linear", **turnover: str) -> bytes:
    """Tickers with these turnovers, by symbol."""
    rows = [{"symbol": symbol, "turnover24h": value} for symbol, value in turnover.items()]
    return response({"category": category, "list": rows})


def response(result: Any, code: int = 0, message: str = "OK") -> bytes:
    """A response of the exchange."""
    return json.dumps({"retCode": code, "retMsg": message, "result": result, "time": 1}).encode()


def play(query: InstrumentQuery, bodies: Iterable[bytes]) -> tuple[InstrumentList, list[str]]:
    """The list that these bodies make, and the paths that were requested."""
    steps = fetch_steps(query)
    paths = [next(steps)]
    for body in bodies:
        try:
            paths.append(steps.send(body))
        except StopIteration as end:
            return end.value, paths
    raise AssertionError(f"requests more: {paths}")


def test_a_short_list_has_one_page() -> None:
    instruments, paths = play(LINEAR, [page("BTCUSDT", "ETHUSDT")])

    assert ("BTCUSDT", "ETHUSDT") == instruments.symbols
    assert ["/v5/market/instruments-info?category=linear&limit=1000"] == paths


def test_the_cursor_of_a_page_is_sent_unchanged_for_the_next_one() -> None:
    instruments, paths = play(LINEAR, [page("A", cursor="first%3DA%26last%3DA"), page("B")])

    assert ("A", "B") == instruments.symbols
    assert paths[0] + "&cursor=first%3DA%26last%3DA" == paths[1]


def test_a_cursor_cannot_add_parameters_or_break_the_request() -> None:
    _, paths = play(LINEAR, [page("A", cursor="x&category=spot y\r\nHost: z"), page("B")])

    assert paths[0] + "&cursor=x%26category%3Dspot%20y%0D%0AHost%3A%20z" == paths[1]


def test_a_page_that_repeats_the_sent_cursor_is_the_last() -> None:
    instruments, paths = play(LINEAR, [page("A", cursor="c"), page("B", cursor="c")])

    assert ("A", "B") == instruments.symbols
    assert 2 == len(paths)


@pytest.mark.parametrize(
    "cursors", [["a", "b", "a"], [f"c{number}" for number in range(PAGES_MAX + 1)]]
)
def test_endless_pages_are_rejected(cursors: list[str]) -> None:
    with pytest.raises(InstrumentListError) as error:
        play(LINEAR, [page(f"S{n}", cursor=cursor) for n, cursor in enumerate(cursors)])

    assert "endless" == error.value.failure


@pytest.mark.parametrize(
    ("changes", "is_in"),
    [
        ({}, True),
        ({"status": "PreLaunch"}, False),
        ({"status": "Delivering"}, False),
        ({"status": "Closed"}, False),
        ({"isPreListing": True}, False),
        ({"isPreListing": True, "preListingInfo": {"curAuctionPhase": "CallAuction"}}, False),
        ({"isPreListing": True, "preListingInfo": {"curAuctionPhase": "ContinuousTrading"}}, True),
        ({"preListingInfo": None}, True),
    ],
)
def test_only_instruments_that_trade_continuously_are_listed(
    changes: dict[str, Any], is_in: bool
) -> None:
    rows = [
        {"symbol": "BTCUSDT", "status": "Trading"},
        {"symbol": "X", "status": "Trading", **changes},
    ]
    instruments, _ = play(LINEAR, [response({"category": "linear", "list": rows})])

    assert is_in == ("X" in instruments.symbols)


def test_symbols_that_cannot_be_represented_are_skipped_and_counted() -> None:
    instruments, _ = play(LINEAR, [page("BTCUSDT", "币安人生USDT", "a b", "A" * 65)])

    assert InstrumentList(("BTCUSDT",), skipped=3) == instruments


def test_the_list_is_ranked_by_turnover_symbols_without_it_last() -> None:
    answers = [page("A", "B", "C", "D", "E"), tickers(A="5", B="1e3", C="", D="nan", X="9e9")]
    instruments, paths = play(InstrumentQuery("linear", has_turnover=True), answers)

    assert ("B", "A", "C", "D", "E") == instruments.symbols
    assert "/v5/market/tickers?category=linear" == paths[1]


def test_turnover_of_inverse_contracts_is_converted_at_the_last_price() -> None:
    rows = [
        {"symbol": "BTCUSD", "turnover24h": "2", "lastPrice": "60000"},
        {"symbol": "XRPUSD", "turnover24h": "5000", "lastPrice": "1"},
    ]
    answers = [
        page("XRPUSD", "BTCUSD", category="inverse"),
        response({"category": "inverse", "list": rows}),
    ]
    instruments, _ = play(InstrumentQuery("inverse", has_turnover=True), answers)

    assert ("BTCUSD", "XRPUSD") == instruments.symbols


def test_option_lists_are_requested_by_base_coin() -> None:
    answers = [page("ETH-1-C", category="option"), tickers("option", **{"ETH-1-C": "1"})]
    _, paths = play(InstrumentQuery("option", "ETH", has_turnover=True), answers)

    assert all("category=option" in path and "baseCoin=ETH" in path for path in paths)


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        (b"", "unreadable"),
        (b"<html>403</html>", "unreadable"),
        (b"\xff\xfe", "unreadable"),
        (b"[]", "unreadable"),
        (b"{}", "unreadable"),
        (b'{"retCode":0,"x":' + b"[" * 100_000, "unreadable"),
        (response(None), "unreadable"),
        (response({"category": "linear", "list": {}}), "unreadable"),
        (response({"category": "linear", "list": [{"symbol": "A"}]}), "unreadable"),
        (response({"category": "linear", "list": [{"symbol": 5, "status": "T"}]}), "unreadable"),
        (page("BTCUSDT", category="spot"), "unreadable"),
        (page("BTCUSDT")[:-40], "unreadable"),
        (page(), "empty"),
        (page("BTCUSDT", status="Closed"), "empty"),
        (response({}, 10006, "Too many visits!"), "rate_limited"),
        (response({}, 10001, "params error"), "refused"),
        (response(None, 10016, "x" * 10_000), "refused"),
    ],
)
def test_other_responses_fail_with_a_reason_and_one_short_line(body: bytes, failure: str) -> None:
    with pytest.raises(InstrumentListError) as error:
        play(LINEAR, [body])

    assert failure == error.value.failure
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("body", [tickers(), tickers(A="0"), tickers(X="5"), b"no"])
def test_tickers_without_turnover_are_rejected(body: bytes) -> None:
    with pytest.raises(InstrumentListError):
        play(InstrumentQuery("linear", has_turnover=True), [page("A"), body])


def test_tickers_of_few_instruments_are_rejected() -> None:
    """Busy symbols without a ticker would rank last."""
    steps = fetch_steps(InstrumentQuery("linear", has_turnover=True))
    next(steps)
    steps.send(page(*"ABCDEFGHIJ"))
    with pytest.raises(InstrumentListError, match="lack 6 of 10") as caught:
        steps.send(tickers(A="1", B="2", C="3", D="4"))
    assert "implausible" == caught.value.failure


@pytest.mark.parametrize(
    ("before", "after", "gone"), [(10, 10, 0), (10, 5, 0), (10, 4, 6), (4, 1, 0), (6, 2, 4)]
)
def test_a_list_that_lost_many_symbols_is_noticed(before: int, after: int, gone: int) -> None:
    symbols = tuple(f"S{number}" for number in range(10))

    old, new = InstrumentList(symbols[:before]), InstrumentList((*symbols[:after], "NEW"))
    assert gone == missing_from(new, old)
