"""The pictures in the terminal, drawn from fixed messages."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from bybit_pipeline.shared.wire import codec
from bybit_pipeline.supervisor.tui.event_log import Feed
from bybit_pipeline.supervisor.tui.formatting import (
    Column,
    amount,
    balance,
    bar,
    duration,
    grid,
    number,
    source_text,
)
from bybit_pipeline.supervisor.tui.market_table import DOWN, UP, Choices, market_lines
from bybit_pipeline.supervisor.tui.market_view import watch_picture
from bybit_pipeline.supervisor.tui.overview import overview, shares
from bybit_pipeline.supervisor.tui.rates import Rates
from bybit_pipeline.supervisor.tui.state import SOURCE_S, Board, decimals

WALL = {
    "side": "bid",
    "price": 83766.0,
    "size": 40.5,
    "strength": 9.2,
    "distance_bps": 0.4,
    "eaten_ratio": 0.25,
    "pulled_ratio": 0.0,
    "age_ms": 12_000,
}
BOOK: dict[str, Any] = {
    "kind": "orderbook",
    "category": "linear",
    "symbol": "BTCUSDT",
    "state": "live",
    "reason": None,
    "source": "live",
    "best_bid": 83766.3,
    "best_ask": 83766.4,
    "mid_price": 83766.35,
    "weighted_mid": 83766.36,
    "spread": 0.1,
    "spread_bps": 0.0119,
    "imbalance": {"10": -0.25},
    "densities": [WALL],
    "bids": [[83766.3, 1.0], [83766.0, 40.5], [83765.9, 2.0]],
    "asks": [[83766.4, 3.0], [83766.5, 0.5]],
}
STALE = {
    **BOOK,
    "state": "stale",
    "reason": "gap",
    "best_bid": None,
    "best_ask": None,
    "mid_price": None,
    "weighted_mid": None,
    "spread": None,
    "spread_bps": None,
    "imbalance": None,
    "densities": [],
    "bids": [],
    "asks": [],
}
WINDOW = {
    "tpm": 1234.0,
    "vol_delta": -1.5,
    "coverage_s": 60.0,
    "buy_share": 0.4,
    "vwap": 83760.5,
    "volume": 12.0,
    "low": 83700.0,
    "high": 83800.0,
    "turnover": 1.5e6,
}
TRADES: dict[str, Any] = {
    "kind": "trades",
    "category": "linear",
    "symbol": "BTCUSDT",
    "state": "live",
    "source": "live",
    "last_price": 83766.3,
    "last_size": 0.012,
    "last_side": "Sell",
    "last_trade_id": "a",
    "match_ts_ms": 1_700_000_000_123,
    "cvd": 2.0,
    "tps": 8.6,
    "windows": {"60s": WINDOW},
}


def board_of(*payloads: dict[str, Any], markets: tuple[str, ...] = (), now: float = 0.0) -> Board:
    board = Board(markets)
    for payload in payloads:
        board.update(payload, now)
    return board


def table(
    board: Board,
    choices: Choices | None = None,
    *,
    now: float = 0.0,
    width: int = 300,
    height: int = 50,
) -> list[str]:
    lines = market_lines(board, choices or Choices(), now, width=width, height=height)
    return [line.plain for line in lines]


def picture(
    board: Board,
    choices: Choices | None = None,
    *,
    now: float = 0.0,
    width: int = 120,
    height: int = 40,
) -> str:
    lines = watch_picture(board, choices or Choices(), now, width=width, height=height)
    return "\n".join(line.plain for line in lines)


# -- one picture without a terminal ------------------------------------------------------------


def test_a_market_is_one_row_of_its_book_and_its_trades() -> None:
    [_, row] = board_of(BOOK, TRADES).plain()
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


def test_what_is_not_known_is_a_dash_and_never_zero() -> None:
    [_, row] = board_of({**STALE, "densities": None}).plain()
    assert ["linear:BTCUSDT", "stale", *"–––––––––", "LIVE"] == row.plain.split()


def test_only_wanted_markets_are_shown() -> None:
    board = Board(("spot:BTCUSDT", "ETHUSDT"))
    for category in ("spot", "linear"):
        for symbol in ("BTCUSDT", "ETHUSDT"):
            board.update({**BOOK, "category": category, "symbol": symbol})

    rows = [line.plain.split()[0] for line in board.plain()[1:]]
    assert ["linear:ETHUSDT", "spot:BTCUSDT", "spot:ETHUSDT"] == rows


def test_other_kinds_of_messages_are_no_markets() -> None:
    assert 0 == len(
        board_of({"kind": "process", "process": "trades-0"}, {**BOOK, "kind": "density"})
    )


# -- the table ---------------------------------------------------------------------------------


def test_the_table_shows_the_nearest_wall_of_each_side() -> None:
    far = {**WALL, "price": 83700.0, "distance_bps": 8.0}
    gone = {**WALL, "price": 83766.2, "distance_bps": 0.1, "size": 0.0}
    [_, row] = table(board_of({**BOOK, "densities": [far, gone, WALL]}, TRADES))

    assert "40.500 @ 83,766.0  0.4bp" in row
    assert "83,700" not in row
    assert "83,766.2" not in row


@pytest.mark.parametrize("name", ["60s", "5m", "1h"])
def test_a_window_not_yet_seen_whole_is_said_to_be_a_part(name: str) -> None:
    window = {**WINDOW, "coverage_s": 12.0}
    [_, row] = table(board_of(BOOK, {**TRADES, "windows": {name: window}}))

    assert {"≥1,234", "~-1.500"} <= set(row.split())


def test_a_market_that_nothing_is_heard_of_is_silent_whatever_it_said_last() -> None:
    board = board_of(BOOK, TRADES, now=10.0)

    assert "live" in table(board, now=12.9)[1]
    assert "silent 3s" in table(board, now=13.0)[1]


def test_the_reason_stands_beside_the_state() -> None:
    assert "stale gap" in table(board_of(STALE, TRADES))[1]


def test_markets_that_do_not_fit_are_counted() -> None:
    board = board_of(*({**BOOK, "symbol": f"S{count}"} for count in range(10)))

    assert ["linear:S0", "linear:S1", "…"] == [
        line.split()[0] for line in table(board, height=4)[1:]
    ]
    assert "… 8 more" == table(board, height=4)[-1]


def some_markets() -> Board:
    prices = {"A": 5.0, "B": None, "C": 20.0, "D": 10.0}
    return board_of(*({**TRADES, "symbol": s, "last_price": p} for s, p in prices.items()))


@pytest.mark.parametrize(
    ("keys", "order"),
    [("", "ABCD"), ("1", "DCBA"), ("r", "DCBA"), ("3", "CDAB"), ("33", "ADCB"), ("31", "ABCD")],
)
def test_number_keys_sort_and_unknown_values_are_last_either_way(keys: str, order: str) -> None:
    board, choices = some_markets(), Choices()
    for key in keys:
        choices.press(key, choices.ordered(board, 0.0))

    assert order == "".join(market.symbol for market in choices.ordered(board, 0.0))


def test_the_head_says_which_key_sorts_and_how_it_is_sorted() -> None:
    choices = Choices()
    choices.press("5", [])

    head = table(some_markets(), choices)[0]
    assert "1 market " in head
    assert "5 tpm▼" in head


def test_arrows_mark_a_market_and_enter_shows_it_alone() -> None:
    board, choices = some_markets(), Choices()
    for key in (DOWN, DOWN, DOWN, UP, "\r"):
        choices.press(key, choices.ordered(board, 0.0))

    assert "linear:B" == choices.opened
    assert picture(board, choices).startswith("linear:B ")
    choices.press("\x1b", [])
    assert "4 markets" in picture(board, choices)


def test_the_marked_market_is_always_in_sight() -> None:
    board = board_of(*({**BOOK, "symbol": f"S{count}"} for count in range(10)))
    choices = Choices()
    for _ in range(7):
        choices.press(DOWN, choices.ordered(board, 0.0))

    lines = table(board, choices, height=5)
    assert "linear:S6" in lines[3]
    assert "… 4 above, 3 more" == lines[4]


def test_q_ends_it() -> None:
    choices = Choices()
    choices.press("q", [])
    assert choices.is_over


# -- one market --------------------------------------------------------------------------------


def test_the_ladder_has_asks_above_bids() -> None:
    lines = picture(board_of(BOOK, TRADES, markets=("BTCUSDT",)), width=50).splitlines()
    prices = [word for line in lines[3:] for word in line.split() if word.startswith("83,76")]

    assert ["83,766.5", "83,766.4", "83,766.3", "83,766.0", "83,765.9"] == prices


def test_bars_are_as_long_as_the_sizes() -> None:
    book = {**BOOK, "densities": [], "bids": [[10.0, 4.0], [9.0, 2.0]], "asks": [[11.0, 1.0]]}
    lines = picture(board_of(book, markets=("BTCUSDT",)), width=49).splitlines()
    lengths = {line.split()[1]: line.count("█") for line in lines if "█" in line}

    assert lengths["4.000"] == 2 * lengths["2.000"] == 4 * lengths["1.000"] > 0


def test_a_wall_is_marked_in_the_ladder() -> None:
    lines = picture(board_of(BOOK, TRADES, markets=("BTCUSDT",)), width=50).splitlines()
    [marked] = [line for line in lines if "◆" in line]

    assert ["◆", "83,766.0", "40.500"] == marked.split()[:3]
    assert marked.rstrip().endswith("9x 12s")


def test_a_book_that_is_not_live_has_no_ladder_but_a_reason() -> None:
    text = picture(board_of(BOOK, STALE, TRADES, markets=("BTCUSDT",)))

    assert "no book to trust (stale: gap)" in text
    assert "◆" not in text
    assert "83,766.4" not in text


def test_the_tape_has_each_trade_once_newest_first() -> None:
    board = board_of(
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
    tape = [line.split()[-3:] for line in picture(board).splitlines() if ".123" in line]

    assert [["buy", "83,770.0", "7.000"], ["sell", "83,766.3", "0.012"]] == tape


def numbers_of(trades: dict[str, Any]) -> tuple[str, list[str]]:
    """``tps`` and the words of the windows' lines in the picture of one market."""
    lines = picture(board_of(BOOK, {**TRADES, **trades}, markets=("BTCUSDT",)), width=240)
    [tps] = [line.split("tps ")[1].split()[0] for line in lines.splitlines() if "tps " in line]
    names = (f"{name} " for name in trades["windows"])
    words = [
        line[line.index(name) :].split()[:3]
        for name in names
        for line in lines.splitlines()
        if f"   {name}" in line
    ]
    return tps, [word for line in words for word in line]


def test_what_was_seen_in_part_is_marked_in_the_picture_of_one_market_too() -> None:
    short, long = {**WINDOW, "coverage_s": 9.8}, {**WINDOW, "coverage_s": 12.0}
    warming = {"state": "warming", "windows": {"10s": short, "1m": long}}
    assert ("8.6", ["10s", "1,234", "-1.500", "1m", "≥1,234", "~-1.500"]) == numbers_of(warming)

    starting = {"state": "warming", "windows": {"10s": {**WINDOW, "coverage_s": 3.0}}}
    assert ("≥8.6", ["10s", "≥1,234", "~-1.500"]) == numbers_of(starting)


@pytest.mark.parametrize(("state", "tps"), [("warming", "≥8.6"), ("live", "8.6")])
def test_tps_goes_by_the_state_where_its_window_is_not_published(state: str, tps: str) -> None:
    assert tps == numbers_of({"state": state, "windows": {"60s": WINDOW}})[0]


def test_a_symbol_that_nothing_is_heard_of_is_named() -> None:
    assert "nothing heard of FOO yet" in picture(Board(["FOO"]))
    assert "nothing heard of any market yet" in picture(Board())


def test_it_is_named_beside_others_that_are_heard() -> None:
    ether = {**BOOK, "symbol": "ETHUSDT"}
    wanted = ("BTCUSDT", "linear:ETHUSDT", "spot:BTCUSDT", "FOO")
    board = board_of(BOOK, ether, markets=wanted)

    assert "2 markets  nothing heard of spot:BTCUSDT, FOO yet" in picture(board)
    assert "nothing heard" not in picture(board_of(BOOK, ether))


# -- the whole pipeline ------------------------------------------------------------------------


def process(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "process": name,
        "role": name.split("-")[0],
        "state": "up",
        "pid": 1,
        "uptime_s": 60.0,
        "restarts": 0,
        "cpu_seconds": 1.0,
        "rss_bytes": 2**20,
        "counts": {},
        **changes,
    }


def status(**changes: Any) -> dict[str, Any]:
    connector = {
        "process": "connector-linear-0",
        "url": "ws://h",
        "connected": True,
        "reconnects": 0,
        "ping_rtt_ms": None,
        "last_message_ts_ms": None,
        "topics": {
            "publicTrade.A": "confirmed",
            "orderbook.50.A": "delivering",
            "orderbook.50.B": "pending",
        },
    }
    return {
        "source": "live",
        "version": "1",
        "ready": True,
        "reasons": [],
        "metrics": "tcp://m",
        "http": "h:1",
        "run_dir": "/run/x",
        "started_ts_ms": 0,
        "processes": [process("trades-0"), process("connector-linear-0")],
        "connectors": [connector],
    } | changes


def shown(
    state: dict[str, Any],
    board: Board | None = None,
    feed: Feed | None = None,
    *,
    width: int = 150,
    height: int = 45,
    **options: Any,
) -> list[str]:
    lines = overview(
        state,
        board or Board(),
        feed or Feed(),
        Rates(),
        Choices(),
        now=0.0,
        wall_s=60.0,
        width=width,
        height=height,
        **options,
    )
    return [line.plain for line in lines]


@pytest.mark.parametrize(
    ("source", "warning"),
    [("sim", "made-up numbers, not the market"), ("replay", "a recording, not the market now")],
)
@pytest.mark.parametrize("width", [60, 80, 220])
def test_a_source_that_is_not_live_is_the_first_thing_said(
    source: str, warning: str, width: int
) -> None:
    head = shown(status(source=source), width=width)[0]

    assert source.upper() in head
    assert warning in head or width < 70


def test_progress_counts_topics_and_processes_until_it_is_ready() -> None:
    processes = [process("trades-0", state="starting"), process("forwarder")]
    starting = status(ready=False, reasons=["trades-0: starting"], processes=processes)
    text = "\n".join(shown(starting))

    assert "2 of 3 confirmed, 1 delivering  processes 1 of 2 up" in text
    assert "  trades-0: starting" in text
    assert "confirmed, " not in "\n".join(shown(status())[:3])


@given(
    width=st.integers(10, 250),
    height=st.integers(1, 70),
    processes=st.integers(1, 40),
    markets=st.integers(0, 60),
    events=st.integers(0, 30),
    is_ready=st.booleans(),
)
def test_the_picture_never_is_larger_than_the_terminal(
    width: int, height: int, processes: int, markets: int, events: int, is_ready: bool
) -> None:
    board, feed = Board(), Feed()
    for count in range(markets):
        board.update({**BOOK, "symbol": f"S{count}"})
        board.update({**TRADES, "symbol": f"S{count}"})
    for count in range(events):
        feed.take_message(gap(event="opened", symbol=f"S{count}"))
    state = status(
        ready=is_ready,
        reasons=[] if is_ready else ["a" * 90] * 7,
        source="sim",
        processes=[process(f"trades-{n}") for n in range(processes)],
    )

    for lines in (
        shown(state, board, feed, width=width, height=height),
        picture(board, width=width, height=height).splitlines(),
        picture(Board(["BTCUSDT"]), width=width, height=height).splitlines(),
        picture(
            board_of(BOOK, TRADES, markets=("BTCUSDT",)), width=width, height=height
        ).splitlines(),
    ):
        assert len(lines) <= height
        assert all(Text(line).cell_len <= width for line in lines)


def test_when_there_is_no_room_processes_in_trouble_come_first() -> None:
    processes = [process(f"trades-{n}") for n in range(20)] + [
        process("orderbook-0", state="flapping")
    ]
    lines = shown(status(processes=processes), height=16)

    assert any(line.startswith("orderbook-0") for line in lines)
    assert any("more" in line for line in lines)


@pytest.mark.parametrize(
    ("free", "given_lines"),
    [(100, [10, 20, 5]), (12, [5, 4, 3]), (15, [6, 5, 4]), (6, [2, 2, 2]), (0, [0, 0, 0])],
)
def test_each_part_has_its_share_of_the_lines(free: int, given_lines: list[int]) -> None:
    assert given_lines == shares(free, (10, 20, 5), (5, 4, 3))


def test_a_pipeline_that_stops_says_so() -> None:
    assert "stopping" in shown(status(), is_stopping=True)[0]


def test_the_address_of_the_page_stands_beside_its_process() -> None:
    state = status(processes=[process("dashboard")], dashboard="http://127.0.0.1:9480")
    [line] = [line for line in shown(state, width=80) if line.startswith("dashboard ")]
    assert line.endswith("http://127.0.0.1:9480")

    starting = status(processes=[process("dashboard", state="starting")], dashboard=None)
    assert any(line.startswith("dashboard ") for line in shown(starting))


# -- rates -------------------------------------------------------------------------------------


def counted(messages: int, **changes: Any) -> dict[str, Any]:
    worker = process("trades-0", counts={"messages": messages}, **changes)
    return status(processes=[worker])


def test_rates_are_over_the_last_ten_seconds() -> None:
    rates = Rates()
    for second in range(31):
        rates.take(counted(10 * second if second < 20 else 200 + 50 * (second - 20)), second)

    assert 50.0 == rates.messages("trades-0")


def test_nothing_is_said_about_rates_across_a_restart() -> None:
    rates = Rates()
    rates.take(counted(1000), 0.0)
    rates.take(counted(1100), 5.0)
    assert 20.0 == rates.messages("trades-0")

    rates.take(counted(5, pid=2), 6.0)
    assert None is rates.messages("trades-0")
    rates.take(counted(25, pid=2), 8.0)
    assert 10.0 == rates.messages("trades-0")


# -- events ------------------------------------------------------------------------------------


def gap(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "gap",
        "category": "linear",
        "symbol": "A",
        "stream": "book",
        "reason": "gap",
        "event": "opened",
        "duration_s": None,
        "publish_ts_ns": 10**9,
    } | changes


def wall(at_s: int, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "density",
        "category": "linear",
        "symbol": "A",
        "event": "detected",
        "publish_ts_ns": at_s * 10**9,
        "peak_size": 50.0,
        **WALL,
    } | changes


def told(feed: Feed) -> list[str]:
    return [f"{event.subject} {event.text}" for event in feed.latest(100)]


def test_restarts_reconnects_and_a_change_of_source_are_events() -> None:
    feed = Feed()
    feed.take_status(status(source="sim"), 1.0)
    assert [] == told(feed)

    after = status(processes=[process("trades-0", state="restarting", restarts=1)])
    [connector] = after["connectors"]
    after["connectors"] = [{**connector, "connected": False, "reconnects": 2}]
    feed.take_status(after, 2.0)

    assert {
        "pipeline sim -> live",
        "trades-0 died, restart 1",
        "trades-0 up -> restarting",
        "connector-linear-0 reconnect 2",
        "connector-linear-0 disconnected",
    } == set(told(feed))


def test_a_gap_is_told_when_it_opens_and_when_it_closes_but_not_the_first_of_all() -> None:
    feed = Feed()
    feed.take_message(gap(reason="starting"))
    feed.take_message(gap())
    feed.take_message(gap(event="closed", duration_s=1.42, publish_ts_ns=2 * 10**9))

    assert [
        "linear:A book whole again after 1.4 s (gap)",
        "linear:A book not trusted: gap",
    ] == told(feed)


def test_news_of_a_wall_replaces_its_older_news() -> None:
    feed = Feed()
    feed.take_message(wall(1))
    feed.take_message(wall(2, event="eaten"))

    assert ["linear:A bid wall eaten 50.000 @ 83766"] == told(feed)


def test_walls_never_push_everything_else_out_of_sight() -> None:
    feed = Feed()
    feed.take_message(gap())
    feed.take_message(gap(symbol="B"))
    for count in range(50):
        feed.take_message(wall(10 + count, price=100.0 + count))

    latest = feed.latest(6)
    assert 6 == len(latest)
    assert 2 == sum(event.tag == "gap" for event in latest)


# -- cells -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "is_loud"), [("live", False), ("sim", True), ("replay", True)])
def test_a_source_that_is_not_live_is_in_a_loud_colour(source: str, is_loud: bool) -> None:
    assert is_loud == ("on red" in str(source_text(source).style))


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (None, 2, "–"),
        (1234.5, 1, "1,234.5"),
        (0.02869, None, "0.02869"),
        (65110.35, None, "65110.35"),
    ],
)
def test_numbers_are_readable(value: float | None, digits: int | None, text: str) -> None:
    assert text == number(value, digits)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0.000"),
        (0.00001, "1e-05"),
        (0.505, "0.505"),
        (133.171, "133.17"),
        (-12345.6, "-12,345.6"),
        (123456.0, "123.46k"),
        (1_290_000.0, "1.29M"),
        (3e9, "3.00G"),
    ],
)
def test_amounts_are_short(value: float | None, text: str) -> None:
    assert text == amount(value)


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (45.9, "45s"), (61, "0:01:01"), (90061, "1d 01:01")]
)
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert text == duration(seconds)


@pytest.mark.parametrize(
    ("price", "count"), [(65110.0, 0), (1923.13, 2), (0.00012, 5), (1e-05, 5), (None, 0)]
)
def test_a_market_has_as_many_decimals_as_its_prices(price: float | None, count: int) -> None:
    assert count == decimals(price)


def test_a_number_that_does_not_fit_is_left_out_and_never_cut() -> None:
    columns = [Column("a"), Column("b", is_right=True, rank=1), Column("c", rank=2)]
    lines = grid(columns, [["x", "123456789", "yz"]], 10)

    assert ["a  c", "x  yz"] == [line.plain for line in lines]


@given(value=st.floats(-1, 1))
def test_a_balance_leans_to_the_side_that_is_larger(value: float) -> None:
    left, _, right = balance(value, 4).plain.partition("│")

    assert (value < 0) == ("■" in left)
    assert (value > 0) == ("■" in right)


@pytest.mark.parametrize(("share", "text"), [(0.0, ""), (0.5, "██"), (1.0, "████"), (0.03125, "▏")])
def test_a_bar_is_as_long_as_its_share(share: float, text: str) -> None:
    assert text == bar(share, 4)


def test_messages_are_read_only_when_their_market_is_looked_at() -> None:
    """Of hundreds of markets a few fit on the screen: the others cost next to nothing."""
    board = Board()
    newest = codec.encode_map({"state": "live", "best_bid": 2.5, "seq": 2, "source": "sim"})
    board.update_frame("orderbook.linear.BTCUSDT", b"never looked at", 1.0)
    board.update_frame("orderbook.linear.BTCUSDT", newest, 2.0)
    board.update_frame("orderbook.linear.ETHUSDT", b"\xc1", 2.0)
    board.update_frame("gap.linear.SOLUSDT", newest, 2.0)

    bitcoin, ether = board.markets
    assert ("sim", 2.5) == (bitcoin.source, bitcoin.book["best_bid"])
    assert (0, {}, 1) == (bitcoin.invalid, ether.book, ether.invalid)


def test_a_repeat_for_somebody_else_does_not_make_a_silent_market_heard() -> None:
    """The forwarder repeats last values whenever somebody subscribes."""
    board = Board()
    frame = codec.encode_map({"state": "live", "seq": 1})
    board.update_frame("trades.linear.BTCUSDT", frame, 1.0)
    board.update_frame("trades.linear.BTCUSDT", frame, 9.0)

    (market,) = board.markets
    assert market.is_silent(9.0)


def test_the_head_mentions_a_new_source_soon() -> None:
    board = Board()
    (old, new) = (codec.encode_map({"source": source, "seq": 1}) for source in ("live", "sim"))
    board.update_frame("trades.linear.BTCUSDT", old, 1.0)
    (market,) = board.markets
    assert "live" == market.source_lately(1.0)
    board.update_frame("trades.linear.BTCUSDT", new, 1.5)

    assert "sim" == market.source_lately(1.0 + SOURCE_S)
