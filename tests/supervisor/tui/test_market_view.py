"""The screen of ``watch``: one market, or what is missing."""

from typing import Any

import pytest

from bybit_pipeline.supervisor.tui.state import TableState
from tests.supervisor.tui.payloads import (
    BOOK,
    STALE,
    TRADES,
    WINDOW,
    screen_of,
    table_of,
)


def test_the_ladder_has_asks_above_bids() -> None:
    lines = screen_of(table_of(BOOK, TRADES, markets=("BTCUSDT",)), width=50).splitlines()
    prices = [word for line in lines[3:] for word in line.split() if word.startswith("83,76")]

    assert ["83,766.5", "83,766.4", "83,766.3", "83,766.0", "83,765.9"] == prices


def test_bars_are_proportional_to_the_sizes() -> None:
    book = {**BOOK, "densities": [], "bids": [[10.0, 4.0], [9.0, 2.0]], "asks": [[11.0, 1.0]]}
    lines = screen_of(table_of(book, markets=("BTCUSDT",)), width=49).splitlines()
    lengths = {line.split()[1]: line.count("█") for line in lines if "█" in line}

    assert lengths["4.000"] == 2 * lengths["2.000"] == 4 * lengths["1.000"] > 0


def test_a_wall_is_marked_in_the_ladder() -> None:
    lines = screen_of(table_of(BOOK, TRADES, markets=("BTCUSDT",)), width=50).splitlines()
    [marked] = [line for line in lines if "◆" in line]

    assert ["◆", "83,766.0", "40.500"] == marked.split()[:3]
    assert marked.rstrip().endswith("9x 12s")


def test_a_book_that_is_not_live_shows_its_reason_and_no_ladder() -> None:
    text = screen_of(table_of(BOOK, STALE, TRADES, markets=("BTCUSDT",)))

    assert "the book is stale (gap)" in text
    assert "◆" not in text
    assert "83,766.4" not in text


def test_recent_trades_are_listed_once_newest_first() -> None:
    table = table_of(
        TRADES,
        TRADES,
        {
            **TRADES,
            "last_trade_id": "b",
            "last_side": "Buy",
            "last_price": 83770.0,
            "last_size": 7.0,
        },
        markets=("BTCUSDT",),
    )
    trades = [line.split()[-3:] for line in screen_of(table).splitlines() if ".123" in line]

    assert [["buy", "83,770.0", "7.000"], ["sell", "83,766.3", "0.012"]] == trades


def numbers_of(trades: dict[str, Any]) -> tuple[str, list[str]]:
    """``tps`` and the first words of each window's line, for one market."""
    lines = screen_of(table_of(BOOK, {**TRADES, **trades}, markets=("BTCUSDT",)), width=240)
    [tps] = [line.split("tps ")[1].split()[0] for line in lines.splitlines() if "tps " in line]
    names = (f"{name} " for name in trades["windows"])
    words = [
        line[line.index(name) :].split()[:3]
        for name in names
        for line in lines.splitlines()
        if f"   {name}" in line
    ]
    return tps, [word for line in words for word in line]


def test_numbers_of_a_partly_observed_window_are_marked_for_one_market_too() -> None:
    short, long = {**WINDOW, "coverage_s": 9.8}, {**WINDOW, "coverage_s": 12.0}
    warming = {"state": "warming", "windows": {"10s": short, "1m": long}}
    assert ("8.6", ["10s", "1,234", "-1.500", "1m", "≥1,234", "~-1.500"]) == numbers_of(warming)

    starting = {"state": "warming", "windows": {"10s": {**WINDOW, "coverage_s": 3.0}}}
    assert ("≥8.6", ["10s", "≥1,234", "~-1.500"]) == numbers_of(starting)


@pytest.mark.parametrize(("state", "tps"), [("warming", "≥8.6"), ("live", "8.6")])
def test_tps_is_marked_by_the_state_if_its_window_is_not_published(state: str, tps: str) -> None:
    assert tps == numbers_of({"state": state, "windows": {"60s": WINDOW}})[0]


def test_a_market_without_data_is_named() -> None:
    assert "no data yet for FOO" in screen_of(TableState(["FOO"]))
    assert "no data yet for any market" in screen_of(TableState())


def test_a_market_without_data_is_named_beside_the_others() -> None:
    ether = {**BOOK, "symbol": "ETHUSDT"}
    wanted = ("BTCUSDT", "linear:ETHUSDT", "spot:BTCUSDT", "FOO")
    table = table_of(BOOK, ether, markets=wanted)

    assert "2 markets  no data yet for spot:BTCUSDT, FOO" in screen_of(table)
    assert "no data" not in screen_of(table_of(BOOK, ether))
