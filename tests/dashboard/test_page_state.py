"""What the page is told: rows, what is gone, what is new since a browser last asked."""

import json
from typing import Any

import msgspec

from bybit_pipeline.processes.dashboard.page_state import (
    CHARTED_MARKETS_MAX,
    ROUNDS_BEFORE_GONE,
    SILENT_MS,
    Board,
    Cursor,
)
from tests.dashboard.payloads import book, density, gap, process, stale_book, trades

NAME = "linear.BTCUSDT"


def make_board(*payloads: dict[str, Any]) -> Board:
    board = Board("60s", "10")
    board.live(0)
    for payload in payloads:
        board.take(payload, 0)
    return board


def ask(board: Board, cursor: Cursor = Cursor(), selected: str = "") -> tuple[Cursor, Any]:  # noqa: B008
    cursor, update = board.update(cursor, selected, 5)
    return cursor, json.loads(msgspec.json.encode(update))


def identity(head: dict[str, Any]) -> tuple[Any, ...]:
    return head["state"], head["reason"], head["epoch"], head["seq"]


def test_a_row_holds_the_numbers_of_both_messages_of_a_market() -> None:
    _, update = ask(make_board(book(), trades()))

    (row,) = update["rows"]
    assert (NAME, 100.5, 0.5, 49.9) == (row["name"], row["price"], row["spread"], row["spread_bps"])
    assert (12.0, -1.5, -0.25) == (row["tpm"], row["vol_delta"], row["imbalance"])
    assert {"side": "bid", "price": 99.0, "size": 50.0, "distance_bps": 15.0} == row["wall"]
    assert ("live", None, "e-1", 1) == identity(row["book"])


def test_a_book_that_is_not_live_has_no_numbers_in_its_row() -> None:
    _, update = ask(make_board(book(), stale_book()))

    (row,) = update["rows"]
    assert ("stale", "gap", "e-1", 2) == identity(row["book"])
    for key in ("mid_price", "best_bid", "best_ask", "spread", "imbalance", "wall", "walls"):
        assert row[key] is None, key


def test_a_browser_is_told_only_what_has_changed_since() -> None:
    board = make_board(book(), trades(), book("ETHUSDT"), density(1), gap(1, 5))
    cursor, first = ask(board)

    board.take(book("ETHUSDT", 2, best_bid=1.0), 0)
    cursor, second = ask(board, cursor)
    _, third = ask(board, cursor)

    assert first["full"]
    assert not second["full"]
    assert ["linear.ETHUSDT"] == [row["name"] for row in second["rows"]]
    assert [[], [], [], []] == [second[key] for key in ("walls", "gaps", "notices")] + [
        third["rows"]
    ]


def test_only_the_selected_market_comes_with_its_book_trades_and_history() -> None:
    board = make_board(book(), trades(), book("ETHUSDT"))
    board.sample(10_000)

    cursor, update = ask(board, selected=NAME)
    board.sample(11_000)
    _, later = ask(board, cursor, selected=NAME)

    assert [[100.0, 3.0]] == update["market"]["orderbook"]["bids"]
    assert "t1" == update["market"]["trades"]["last_trade_id"]
    assert [[10_000, 100.25, -1.5, -0.25]] == update["points"]
    assert [[1_000, 100.5, 2.0, True]] == update["prints"]
    assert [[11_000, 100.25, -1.5, -0.25]] == later["points"]
    assert [] == later["prints"]
    assert "market" not in later


def test_when_a_market_was_heard_of_and_when_it_changed_are_two_things() -> None:
    """A quiet market is published every second; that makes neither its trades nor its book new."""
    quiet: dict[str, Any] = {"publish_ts_ns": 90_000_000_000, "recv_ts_ns": 20_000_000_000}
    _, update = ask(make_board(book(recv_ts_ns=None), trades(**quiet)))

    (row,) = update["rows"]
    assert (90_000, 20_000) == (row["trades"]["heard_ms"], row["trades"]["changed_ms"])
    assert (0, None) == (row["book"]["heard_ms"], row["book"]["changed_ms"])


def test_trades_that_nobody_speaks_of_any_more_lose_their_numbers() -> None:
    """Their worker hangs. A quiet book is not published and keeps its numbers."""
    board = make_board(book(), trades(publish_ts_ns=10_000_000_000))
    cursor, _ = ask(board, selected=NAME)

    board.drop_silent(10_000 + SILENT_MS)
    _, in_time = ask(board, cursor, NAME)
    board.drop_silent(10_001 + SILENT_MS)
    _, late = ask(board, cursor, NAME)

    assert [] == in_time["rows"]
    (row,) = late["rows"]
    assert ("silent", None, "e-1", 1) == identity(row["trades"])
    assert [None] * 4 == [row[key] for key in ("price", "tpm", "vol_delta", "coverage_s")]
    assert ("live", 100.25) == (row["book"]["state"], row["mid_price"])
    assert "last_price" not in late["market"]["trades"]


def test_trades_that_were_stale_already_stay_so() -> None:
    board = make_board(trades(state="stale", reason="process_down", publish_ts_ns=0))

    board.drop_silent(1_000_000)

    (row,) = ask(board)[1]["rows"]
    assert ("stale", "process_down", "e-1", 1) == identity(row["trades"])


def test_the_history_has_a_hole_where_the_book_was_not_live() -> None:
    board = make_board(book(), trades())
    board.sample(1)
    board.take(stale_book(), 0)
    board.sample(2)

    _, update = ask(board, selected=NAME)

    assert [[1, 100.25, -1.5, -0.25], [2, None, -1.5, None]] == update["points"]


def test_a_lost_feed_takes_every_number_with_it_and_leaves_the_names() -> None:
    board = make_board(book(), trades(), process("supervisor", 1, ready=True))
    cursor, _ = ask(board)

    board.lose("lost", 9)
    _, update = ask(board, cursor, selected=NAME)

    (row,) = update["rows"]
    assert "lost" == row["book"]["state"] == row["trades"]["state"]
    known = {key for key, value in row.items() if value is not None}
    assert {"name", "category", "symbol", "book", "trades", "window_s"} == known
    assert {"name": NAME, "trades": None, "orderbook": None} == update["market"]
    assert {"state": "lost", "since_ms": 9} == update["feed"]
    assert {} == update["pipeline"]
    assert ["unknown"] == [entry["state"] for entry in update["processes"]]


def test_a_process_that_left_the_plan_is_gone_with_the_second_round_without_it() -> None:
    board = make_board(process("supervisor", 1), process("trades-0", 1), process("trades-1", 1))
    for seq in (2, 3):
        board.take(process("supervisor", seq), 0)
        board.take(process("trades-0", seq), 0)

    _, update = ask(board)

    assert ["supervisor", "trades-0"] == [entry["process"] for entry in update["processes"]]


def rounds(board: Board, topics: dict[str, str], count: int, *, start: int = 1) -> None:
    for seq in range(start, start + count):
        board.take(process("supervisor", seq), 0)
        board.take(process("connector-linear-0", seq, connected=True, topics=topics), 0)


def test_an_unsubscribed_market_leaves_the_table() -> None:
    board = make_board(book(), book("ETHUSDT"))
    topics = {"orderbook.50.BTCUSDT": "delivering", "orderbook.50.ETHUSDT": "delivering"}
    rounds(board, topics, 5)
    cursor, before = ask(board)

    rounds(board, {"orderbook.50.BTCUSDT": "delivering"}, ROUNDS_BEFORE_GONE + 2, start=6)
    _, after = ask(board, cursor)

    assert 2 == len(before["rows"])
    assert after["full"]
    assert [NAME] == [row["name"] for row in after["rows"]]


def test_markets_stay_while_their_connector_is_down_and_lists_nothing() -> None:
    board = make_board(book())
    for seq in range(1, 20):
        board.take(process("supervisor", seq), 0)
        board.take(process("connector-linear-0", seq, state="restarting"), 0)

    assert 1 == len(ask(board)[1]["rows"])


def test_options_whose_trades_come_by_base_coin_stay_in_the_table() -> None:
    board = make_board({**trades("BTC-26DEC25-100000-C"), "category": "option"})
    for seq in range(1, 10):
        board.take(process("supervisor", seq), 0)
        topics = {"publicTrade.BTC": "confirmed"}
        board.take(process("connector-option-0", seq, connected=True, topics=topics), 0)

    assert 1 == len(ask(board)[1]["rows"])


def test_restarts_reconnects_and_changes_of_source_become_notices() -> None:
    board = make_board(
        process("supervisor", 1), process("connector-linear-0", 1, connected=True, reconnects=0)
    )
    board.take(process("connector-linear-0", 2, connected=False, reconnects=0), 0)
    board.take(process("connector-linear-0", 3, connected=True, reconnects=1), 0)
    board.take(process("connector-linear-0", 4, state="restarting", pid=None), 0)
    board.take(process("supervisor", 5, source="sim"), 0)

    texts = [notice["text"] for notice in ask(board)[1]["notices"]]

    assert [
        "disconnected from the exchange",
        "connected to the exchange",
        "up → restarting",
        "source changed from live to sim",
    ] == texts


def test_more_markets_than_charts_are_still_in_the_table() -> None:
    board = make_board(*(book(f"S{number}") for number in range(CHARTED_MARKETS_MAX + 1)))
    board.sample(1)
    last = f"linear.S{CHARTED_MARKETS_MAX}"

    _, update = ask(board, selected=last)

    assert CHARTED_MARKETS_MAX + 1 == len(update["rows"])
    assert [] == update["points"]
    assert last == update["market"]["name"]
