"""The table of markets: rows, order and keys."""

import pytest

from bybit_pipeline.supervisor.tui.market_table import (
    DOWN,
    UP,
    ViewState,
    market_lines,
    plain_table,
)
from bybit_pipeline.supervisor.tui.state import TableState
from tests.supervisor.tui.payloads import BOOK, STALE, TRADES, WALL, WINDOW, screen_of, table_of


def rows_of(
    table: TableState,
    view: ViewState | None = None,
    *,
    now: float = 0.0,
    width: int = 300,
    height: int = 50,
) -> list[str]:
    lines = market_lines(table, view or ViewState(), now, width=width, height=height)
    return [line.plain for line in lines]


def test_a_market_is_one_row() -> None:
    [_, row] = plain_table(table_of(BOOK, TRADES))
    assert [
        "linear:BTCUSDT",
        "live",
        "83766.3",
        "83766.4",
        "83766.35",
        "0.01",
        "-0.25",
        "83766.3",
        "1,234",
        "-1.500",
        "1",
        "LIVE",
    ] == row.plain.split()


def test_an_unknown_number_is_a_dash_and_never_zero() -> None:
    [_, row] = plain_table(table_of({**STALE, "densities": None}))
    assert ["linear:BTCUSDT", "stale", *"–––––––––", "LIVE"] == row.plain.split()


def test_only_wanted_markets_are_shown() -> None:
    table = TableState(("spot:BTCUSDT", "ETHUSDT"))
    for category in ("spot", "linear"):
        for symbol in ("BTCUSDT", "ETHUSDT"):
            table.take({**BOOK, "category": category, "symbol": symbol}, 0.0)

    rows = [line.plain.split()[0] for line in plain_table(table)[1:]]
    assert ["linear:ETHUSDT", "spot:BTCUSDT", "spot:ETHUSDT"] == rows


def test_other_kinds_of_messages_are_ignored() -> None:
    assert 0 == len(
        table_of({"kind": "process", "process": "trades-0"}, {**BOOK, "kind": "density"})
    )


def test_the_table_shows_the_nearest_wall_of_each_side() -> None:
    far = {**WALL, "price": 83700.0, "distance_bps": 8.0}
    gone = {**WALL, "price": 83766.2, "distance_bps": 0.1, "size": 0.0}
    [_, row] = rows_of(table_of({**BOOK, "densities": [far, gone, WALL]}, TRADES))

    assert "40.500 @ 83,766.0  0.4bps" in row
    assert "83,700" not in row
    assert "83,766.2" not in row


@pytest.mark.parametrize("name", ["60s", "5m", "1h"])
def test_numbers_of_a_partly_observed_window_are_marked(name: str) -> None:
    window = {**WINDOW, "coverage_s": 12.0}
    [_, row] = rows_of(table_of(BOOK, {**TRADES, "windows": {name: window}}))

    assert {"≥1,234", "~-1.500"} <= set(row.split())


def test_a_market_without_messages_is_silent_whatever_its_last_state() -> None:
    table = table_of(BOOK, TRADES, now=10.0)

    table.expire(11.4)
    assert "live" in rows_of(table, now=11.4)[1]
    table.expire(13.0)

    row = rows_of(table, now=13.0)[1]
    assert "silent 3s" in row
    assert "83,7" not in row, "a frozen number is no number"
    assert "1,234" not in row


def test_books_and_trades_are_judged_separately() -> None:
    """Trades are no sign of life of a book."""
    table = table_of({**BOOK, "alive_ts_ns": 990 * 10**9}, TRADES, now=10.0)
    table.take({**BOOK, "alive_ts_ns": 999 * 10**9}, 10.0, 1_000.0)
    table.take({**TRADES, "alive_ts_ns": 1_001_500 * 10**6}, 12.0, 1_002.0)
    table.expire(12.0)

    row = rows_of(table, now=12.0)[1]
    assert "stale no_messages" in row
    assert "83,766.3" in row, "the last trade"
    assert "3.0 / 0.5" in row, "seconds since the exchange was heard, for book and trades"


def test_an_unsubscribed_market_leaves_at_once_without_an_alarm() -> None:
    table = table_of(BOOK, TRADES)
    ended = {"state": "stale", "reason": "unsubscribed"}

    table.take({**BOOK, **ended}, 0.0)
    assert "unsubscribed" not in rows_of(table)[1]
    table.take({**TRADES, **ended}, 0.0)

    assert 0 == len(table)


def test_a_rejected_market_is_no_alarm() -> None:
    row = rows_of(table_of({**STALE, "reason": "rejected"}, TRADES))[1]
    assert "rejected" in row
    assert "stale" not in row


@pytest.mark.parametrize(
    ("kind", "text"), [("live", "LIVE"), ("sim", "SIM"), ("custom", "h:9"), ("offline", "NO CONN")]
)
def test_the_source_of_live_messages_is_what_the_supervisor_knows(kind: str, text: str) -> None:
    table = table_of(BOOK, TRADES)
    table.take({"role": "supervisor", "kind": "process", "feed": {"kind": kind, "host": "h:9"}}, 0)
    table.expire(0.0)

    assert text in rows_of(table)[1]
    assert text in screen_of(table)


def test_the_reason_follows_the_state() -> None:
    assert "stale gap" in rows_of(table_of(STALE, TRADES))[1]


def test_markets_that_do_not_fit_are_counted() -> None:
    table = table_of(*({**BOOK, "symbol": f"S{count}"} for count in range(10)))

    assert ["linear:S0", "linear:S1", "…"] == [
        line.split()[0] for line in rows_of(table, height=4)[1:]
    ]
    assert "… 8 more" == rows_of(table, height=4)[-1]


def some_markets() -> TableState:
    prices = {"A": 5.0, "B": None, "C": 20.0, "D": 10.0}
    return table_of(*({**TRADES, "symbol": s, "last_price": p} for s, p in prices.items()))


@pytest.mark.parametrize(
    ("keys", "order"),
    [("", "ABCD"), ("1", "DCBA"), ("r", "DCBA"), ("3", "CDAB"), ("33", "ADCB"), ("31", "ABCD")],
)
def test_number_keys_sort_and_unknown_values_are_last_in_any_order(keys: str, order: str) -> None:
    table, view = some_markets(), ViewState()
    for key in keys:
        view.press(key, view.ordered(table, 0.0))

    assert order == "".join(market.symbol for market in view.ordered(table, 0.0))


def test_titles_show_the_keys_and_the_order() -> None:
    view = ViewState()
    view.press("5", [])

    head = rows_of(some_markets(), view)[0]
    assert "1 market " in head
    assert "5 tpm▼" in head


def test_arrows_mark_a_market_and_enter_opens_it() -> None:
    table, view = some_markets(), ViewState()
    for key in (DOWN, DOWN, DOWN, UP, "\r"):
        view.press(key, view.ordered(table, 0.0))

    assert "linear:B" == view.opened
    assert screen_of(table, view).startswith("linear:B ")
    view.press("\x1b", [])
    assert "4 markets" in screen_of(table, view)


def test_the_marked_market_is_always_visible() -> None:
    table = table_of(*({**BOOK, "symbol": f"S{count}"} for count in range(10)))
    view = ViewState()
    for _ in range(7):
        view.press(DOWN, view.ordered(table, 0.0))

    lines = rows_of(table, view, height=5)
    assert "linear:S6" in lines[3]
    assert "… 4 above, 3 more" == lines[4]


def test_q_quits() -> None:
    view = ViewState()
    view.press("q", [])
    assert view.is_over
