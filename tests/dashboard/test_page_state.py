"""The state of the page: rows, removals, events, and the changes since a browser's version."""

import json
from typing import Any

import msgspec

from bybit_pipeline.processes.dashboard.page_state import (
    CHARTED_MARKETS_MAX,
    ROUNDS_BEFORE_GONE,
    SILENT_S,
    SUPERVISOR_SILENT_S,
    Cursor,
    PageState,
)
from tests.dashboard.payloads import book, density, gap, process, stale_book, trades

NAME = "linear.BTCUSDT"


def make_page(*payloads: dict[str, Any]) -> PageState:
    page = PageState("60s", "10")
    page.set_live(0)
    for payload in payloads:
        page.take(payload, 0)
    return page


def ask(page: PageState, cursor: Cursor = Cursor(), selected: str = "") -> tuple[Cursor, Any]:  # noqa: B008
    cursor, update = page.update(cursor, selected, 5)
    return cursor, json.loads(msgspec.json.encode(update))


def identity(head: dict[str, Any]) -> tuple[Any, ...]:
    return head["state"], head["reason"], head["epoch"], head["seq"]


def test_a_row_combines_the_book_and_the_trades_of_a_market() -> None:
    _, update = ask(make_page(book(), trades()))

    (row,) = update["rows"]
    assert (NAME, 100.5, 0.5, 49.9) == (row["name"], row["price"], row["spread"], row["spread_bps"])
    assert (12.0, -1.5, -0.25) == (row["tpm"], row["vol_delta"], row["imbalance"])
    assert {"side": "bid", "price": 99.0, "size": 50.0, "distance_bps": 15.0} == row["wall"]
    assert ("live", None, "e-1", 1) == identity(row["book"])


def test_a_book_that_is_not_live_has_no_numbers_in_its_row() -> None:
    _, update = ask(make_page(book(), stale_book()))

    (row,) = update["rows"]
    assert ("stale", "gap", "e-1", 2) == identity(row["book"])
    for key in ("mid_price", "best_bid", "best_ask", "spread", "imbalance", "wall", "walls"):
        assert row[key] is None, key


def test_a_browser_gets_only_the_changes_since_its_version() -> None:
    page = make_page(book(), trades(), book("ETHUSDT"), density(1), gap(1, 5))
    cursor, first = ask(page)

    page.take(book("ETHUSDT", 2, best_bid=1.0), 0)
    cursor, second = ask(page, cursor)
    _, third = ask(page, cursor)

    assert first["full"]
    assert not second["full"]
    assert ["linear.ETHUSDT"] == [row["name"] for row in second["rows"]]
    assert [[], [], [], []] == [second[key] for key in ("walls", "gaps", "events")] + [
        third["rows"]
    ]


def test_only_the_selected_market_comes_with_its_book_trades_and_history() -> None:
    page = make_page(book(), trades(), book("ETHUSDT"))
    page.sample(10_000)

    cursor, update = ask(page, selected=NAME)
    page.sample(11_000)
    _, later = ask(page, cursor, selected=NAME)

    assert [[100.0, 3.0]] == update["market"]["orderbook"]["bids"]
    assert "t1" == update["market"]["trades"]["last_trade_id"]
    assert [[10_000, 100.25, -1.5, -0.25]] == update["points"]
    assert [[1_000, 100.5, 2.0, True]] == update["chart_trades"]
    assert [[11_000, 100.25, -1.5, -0.25]] == later["points"]
    assert [] == later["chart_trades"]
    assert "market" not in later


def test_a_row_says_when_it_was_published_and_when_it_changed() -> None:
    """A quiet market is published every second although nothing has changed."""
    quiet: dict[str, Any] = {"publish_ts_ns": 90_000_000_000, "recv_ts_ns": 20_000_000_000}
    _, update = ask(make_page(book(recv_ts_ns=None), trades(**quiet)))

    (row,) = update["rows"]
    assert (90_000, 20_000) == (row["trades"]["published_ms"], row["trades"]["changed_ms"])
    assert (0, None) == (row["book"]["published_ms"], row["book"]["changed_ms"])


def test_books_and_trades_lose_their_numbers_in_time_each_on_its_own() -> None:
    """Trades are no sign of life of a book."""
    page = make_page()
    page.take(book(), 0, 10.0)
    page.take(trades(), 0, 11.0)
    cursor, _ = ask(page, selected=NAME)

    page.drop_silent(10.0 + SILENT_S - 0.01)
    cursor, in_time = ask(page, cursor, NAME)
    page.drop_silent(10.01 + SILENT_S)
    cursor, without_book = ask(page, cursor, NAME)
    page.drop_silent(11.01 + SILENT_S)
    _, without_both = ask(page, cursor, NAME)

    assert [] == in_time["rows"]
    (row,) = without_book["rows"]
    assert ("silent", None, "e-1", 1) == identity(row["book"])
    assert [None] * 4 == [row[key] for key in ("best_bid", "mid_price", "imbalance", "wall")]
    assert ("live", 100.5) == (row["trades"]["state"], row["price"])
    (row,) = without_both["rows"]
    assert ("silent", None, "e-1", 1) == identity(row["trades"])
    assert [None] * 4 == [row[key] for key in ("price", "tpm", "vol_delta", "coverage_s")]
    assert without_both["market"]["trades"]["last_price"] is None
    assert [] == without_both["market"]["orderbook"]["bids"]


def test_the_status_is_unknown_once_the_supervisor_is_silent() -> None:
    page = make_page()
    page.take(process("supervisor", 1, ready=True), 0, 10.0)
    page.take(process("trades-0", 1), 0, 10.0)

    page.drop_silent(10.01 + SUPERVISOR_SILENT_S)

    _, update = ask(page)
    assert {} == update["pipeline"]
    assert {"unknown"} == {entry["state"] for entry in update["processes"]}


def test_an_unsubscribed_market_leaves_at_once() -> None:
    page = make_page(book(), trades())
    ended = {"state": "stale", "reason": "unsubscribed"}
    cursor, _ = ask(page)

    page.take(book(seq=2, **ended), 0)
    assert "none" == ask(page)[1]["rows"][0]["book"]["state"]
    page.take(trades(seq=2, **ended), 0)

    _, update = ask(page, cursor)
    assert update["full"]
    assert [] == update["rows"]


def test_a_row_says_when_the_exchange_was_heard_on_each_stream() -> None:
    page = make_page(book(alive_ts_ns=7_000_000), trades(alive_ts_ns=None))

    (row,) = ask(page)[1]["rows"]
    assert (7, None) == (row["book"]["heard_ms"], row["trades"]["heard_ms"])


def test_trades_that_are_stale_stay_stale() -> None:
    page = make_page(trades(state="stale", reason="process_down", publish_ts_ns=0))

    page.drop_silent(1_000.0)

    (row,) = ask(page)[1]["rows"]
    assert ("stale", "process_down", "e-1", 1) == identity(row["trades"])


def test_the_history_has_no_numbers_while_the_book_is_not_live() -> None:
    page = make_page(book(), trades())
    page.sample(1)
    page.take(stale_book(), 0)
    page.sample(2)

    _, update = ask(page, selected=NAME)

    assert [[1, 100.25, -1.5, -0.25], [2, None, -1.5, None]] == update["points"]


def test_without_metrics_every_number_is_dropped_and_the_names_stay() -> None:
    page = make_page(book(), trades(), process("supervisor", 1, ready=True))
    cursor, _ = ask(page)

    page.lose("lost", 9)
    _, update = ask(page, cursor, selected=NAME)

    (row,) = update["rows"]
    assert "lost" == row["book"]["state"] == row["trades"]["state"]
    known = {key for key, value in row.items() if value is not None}
    assert {"name", "category", "symbol", "book", "trades", "window_s"} == known
    assert {"name": NAME, "trades": None, "orderbook": None} == update["market"]
    assert {"state": "lost", "since_ms": 9} == update["metrics"]
    assert {} == update["pipeline"]
    assert ["unknown"] == [entry["state"] for entry in update["processes"]]


def test_a_process_that_left_the_plan_is_removed_in_the_second_round_without_it() -> None:
    page = make_page(process("supervisor", 1), process("trades-0", 1), process("trades-1", 1))
    for seq in (2, 3):
        page.take(process("supervisor", seq), 0)
        page.take(process("trades-0", seq), 0)

    _, update = ask(page)

    assert ["supervisor", "trades-0"] == [entry["process"] for entry in update["processes"]]


def rounds(page: PageState, topics: dict[str, str], count: int, *, start: int = 1) -> None:
    for seq in range(start, start + count):
        page.take(process("supervisor", seq), 0)
        page.take(process("connector-linear-0", seq, connected=True, topics=topics), 0)


def test_an_unsubscribed_market_leaves_the_table() -> None:
    page = make_page(book(), book("ETHUSDT"))
    topics = {"orderbook.50.BTCUSDT": "delivering", "orderbook.50.ETHUSDT": "delivering"}
    rounds(page, topics, 5)
    cursor, before = ask(page)

    rounds(page, {"orderbook.50.BTCUSDT": "delivering"}, ROUNDS_BEFORE_GONE + 2, start=6)
    _, after = ask(page, cursor)

    assert 2 == len(before["rows"])
    assert after["full"]
    assert [NAME] == [row["name"] for row in after["rows"]]


def test_markets_stay_while_their_connector_is_down() -> None:
    page = make_page(book())
    for seq in range(1, 20):
        page.take(process("supervisor", seq), 0)
        page.take(process("connector-linear-0", seq, state="restarting"), 0)

    assert 1 == len(ask(page)[1]["rows"])


def test_options_stay_although_their_trades_are_listed_by_base_coin() -> None:
    page = make_page({**trades("BTC-26DEC25-100000-C"), "category": "option"})
    for seq in range(1, 10):
        page.take(process("supervisor", seq), 0)
        topics = {"publicTrade.BTC": "confirmed"}
        page.take(process("connector-option-0", seq, connected=True, topics=topics), 0)

    assert 1 == len(ask(page)[1]["rows"])


def test_restarts_reconnects_and_changes_of_source_are_events() -> None:
    page = make_page(
        process("supervisor", 1), process("connector-linear-0", 1, connected=True, reconnects=0)
    )
    page.take(process("connector-linear-0", 2, connected=False, reconnects=0), 0)
    page.take(process("connector-linear-0", 3, connected=True, reconnects=1), 0)
    page.take(process("connector-linear-0", 4, state="restarting", pid=None), 0)
    page.take(process("supervisor", 5, source="sim"), 0)

    texts = [event["text"] for event in ask(page)[1]["events"]]

    assert [
        "disconnected from the exchange",
        "connected to the exchange",
        "up → restarting",
        "source changed from live to sim",
    ] == texts


def test_more_markets_than_charts_are_still_in_the_table() -> None:
    page = make_page(*(book(f"S{number}") for number in range(CHARTED_MARKETS_MAX + 1)))
    page.sample(1)
    last = f"linear.S{CHARTED_MARKETS_MAX}"

    _, update = ask(page, selected=last)

    assert CHARTED_MARKETS_MAX + 1 == len(update["rows"])
    assert [] == update["points"]
    assert last == update["market"]["name"]
