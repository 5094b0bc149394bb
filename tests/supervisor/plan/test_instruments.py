"""What is asked for a list of instruments, and what the answers make of it."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from bybit_pipeline.supervisor.plan.instruments import (
    PAGES_MAX,
    InstrumentList,
    InstrumentListError,
    InstrumentQuery,
    ask,
    vanished,
)

LINEAR = InstrumentQuery("linear")


def page(*symbols: str, cursor: str = "", category: str = "linear", **changes: Any) -> bytes:
    """A page of instruments that trade; ``changes`` apply to all of them."""
    rows = [
        {"symbol": symbol, "status": "Trading", "isPreListing": False} | changes
        for symbol in symbols
    ]
    return envelope({"category": category, "list": rows, "nextPageCursor": cursor})


def tickers(category: str = "linear", **turnover: str) -> bytes:
    """Tickers with their turnover."""
    rows = [{"symbol": symbol, "turnover24h": value} for symbol, value in turnover.items()]
    return envelope({"category": category, "list": rows})


def envelope(result: Any, code: int = 0, message: str = "OK") -> bytes:
    """As the exchange wraps its answers."""
    return json.dumps({"retCode": code, "retMsg": message, "result": result, "time": 1}).encode()


def play(query: InstrumentQuery, bodies: Iterable[bytes]) -> tuple[InstrumentList, list[str]]:
    """The instruments that answers make, and what was asked."""
    asking = ask(query)
    paths = [next(asking)]
    for body in bodies:
        try:
            paths.append(asking.send(body))
        except StopIteration as end:
            return end.value, paths
    raise AssertionError(f"asks for more: {paths}")


def test_one_page_is_asked_for_and_taken() -> None:
    instruments, paths = play(LINEAR, [page("BTCUSDT", "ETHUSDT")])

    assert instruments.symbols == ("BTCUSDT", "ETHUSDT")
    assert paths == ["/v5/market/instruments-info?category=linear&limit=1000"]


def test_pages_are_followed_by_their_cursor_which_is_passed_on_as_it_is() -> None:
    instruments, paths = play(LINEAR, [page("A", cursor="first%3DA%26last%3DA"), page("B")])

    assert instruments.symbols == ("A", "B")
    assert paths[1] == paths[0] + "&cursor=first%3DA%26last%3DA"


def test_a_cursor_cannot_add_parameters_or_break_the_request() -> None:
    _, paths = play(LINEAR, [page("A", cursor="x&category=spot y\r\nHost: z"), page("B")])

    assert paths[1] == paths[0] + "&cursor=x%26category%3Dspot%20y%0D%0AHost%3A%20z"


def test_the_cursor_that_was_sent_coming_back_is_the_end() -> None:
    instruments, paths = play(LINEAR, [page("A", cursor="c"), page("B", cursor="c")])

    assert instruments.symbols == ("A", "B")
    assert len(paths) == 2


@pytest.mark.parametrize(
    "cursors", [["a", "b", "a"], [f"c{number}" for number in range(PAGES_MAX + 1)]]
)
def test_pages_without_end_are_given_up(cursors: list[str]) -> None:
    with pytest.raises(InstrumentListError) as error:
        play(LINEAR, [page(f"S{n}", cursor=cursor) for n, cursor in enumerate(cursors)])

    assert error.value.failure == "endless"


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
def test_only_what_trades_continuously_is_taken(changes: dict[str, Any], is_in: bool) -> None:
    rows = [
        {"symbol": "BTCUSDT", "status": "Trading"},
        {"symbol": "X", "status": "Trading", **changes},
    ]
    instruments, _ = play(LINEAR, [envelope({"category": "linear", "list": rows})])

    assert ("X" in instruments.symbols) is is_in


def test_symbols_that_cannot_be_written_are_left_out_and_counted() -> None:
    instruments, _ = play(LINEAR, [page("BTCUSDT", "币安人生USDT", "a b", "A" * 65)])

    assert instruments == InstrumentList(("BTCUSDT",), skipped=3)


def test_turnover_ranks_the_list_and_what_has_none_comes_last() -> None:
    answers = [page("A", "B", "C", "D", "E"), tickers(A="5", B="1e3", C="", D="nan", X="9e9")]
    instruments, paths = play(InstrumentQuery("linear", has_turnover=True), answers)

    assert instruments.symbols == ("B", "A", "C", "D", "E")
    assert paths[1] == "/v5/market/tickers?category=linear"


def test_turnover_of_inverse_contracts_is_compared_at_the_last_price() -> None:
    rows = [
        {"symbol": "BTCUSD", "turnover24h": "2", "lastPrice": "60000"},
        {"symbol": "XRPUSD", "turnover24h": "5000", "lastPrice": "1"},
    ]
    answers = [
        page("XRPUSD", "BTCUSD", category="inverse"),
        envelope({"category": "inverse", "list": rows}),
    ]
    instruments, _ = play(InstrumentQuery("inverse", has_turnover=True), answers)

    assert instruments.symbols == ("BTCUSD", "XRPUSD")


def test_lists_of_options_are_asked_for_by_base_coin() -> None:
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
        (envelope(None), "unreadable"),
        (envelope({"category": "linear", "list": {}}), "unreadable"),
        (envelope({"category": "linear", "list": [{"symbol": "A"}]}), "unreadable"),
        (envelope({"category": "linear", "list": [{"symbol": 5, "status": "T"}]}), "unreadable"),
        (page("BTCUSDT", category="spot"), "unreadable"),
        (page("BTCUSDT")[:-40], "unreadable"),
        (page(), "empty"),
        (page("BTCUSDT", status="Closed"), "empty"),
        (envelope({}, 10006, "Too many visits!"), "rate_limited"),
        (envelope({}, 10001, "params error"), "refused"),
        (envelope(None, 10016, "x" * 10_000), "refused"),
    ],
)
def test_an_answer_that_is_no_list_fails_with_a_word_and_one_short_line(
    body: bytes, failure: str
) -> None:
    with pytest.raises(InstrumentListError) as error:
        play(LINEAR, [body])

    assert error.value.failure == failure
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("body", [tickers(), tickers(A="0"), tickers(X="5"), b"no"])
def test_tickers_without_any_turnover_rank_nothing(body: bytes) -> None:
    with pytest.raises(InstrumentListError):
        play(InstrumentQuery("linear", has_turnover=True), [page("A"), body])


def test_tickers_of_a_part_of_the_instruments_rank_nothing() -> None:
    """Else those that have none would be the last of a ``top``, whatever they trade."""
    asking = ask(InstrumentQuery("linear", has_turnover=True))
    next(asking)
    asking.send(page(*"ABCDEFGHIJ"))
    with pytest.raises(InstrumentListError, match="lack 6 of 10") as caught:
        asking.send(tickers(A="1", B="2", C="3", D="4"))
    assert caught.value.failure == "implausible"


@pytest.mark.parametrize(
    ("before", "after", "gone"), [(10, 10, 0), (10, 5, 0), (10, 4, 6), (4, 1, 0), (6, 2, 4)]
)
def test_much_that_vanishes_at_once_is_noticed(before: int, after: int, gone: int) -> None:
    symbols = tuple(f"S{number}" for number in range(10))

    assert (
        vanished(InstrumentList(symbols[:before]), InstrumentList((*symbols[:after], "NEW")))
        == gone
    )
