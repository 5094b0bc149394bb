"""The tables in the terminal."""

from typing import Any

import pytest
from rich.console import Console, RenderableType

from supervisor.http import Snapshot
from supervisor.views import Board, number, pipeline_view, source_text

BOOK: dict[str, Any] = {
    "kind": "orderbook", "category": "linear", "symbol": "BTCUSDT", "state": "live",
    "source": "live", "best_bid": 83766.3, "best_ask": 83766.4, "mid_price": 83766.35,
    "spread_bps": 0.0119, "imbalance": {"10": -0.25}, "densities": [{}, {}],
}  # fmt: skip
TRADES: dict[str, Any] = {
    "kind": "trades", "category": "linear", "symbol": "BTCUSDT", "state": "live",
    "source": "live", "last_price": 83766.3,
    "windows": {"60s": {"tpm": 1234.0, "vol_delta": -1.5}},
}  # fmt: skip


def text_of(renderable: RenderableType) -> str:
    console = Console(width=160, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_a_market_is_one_row_of_its_book_and_its_trades() -> None:
    board = Board()
    board.update(BOOK)
    board.update(TRADES)

    [_, row] = text_of(board.table()).splitlines()
    assert ["linear:BTCUSDT", "live", "83766.3", "83766.4", "83766.35", "0.01", "-0.25",
            "83766.3", "1,234", "-1.500", "2", "live"] == row.split()  # fmt: skip


def test_what_is_not_known_is_a_dash_and_never_zero() -> None:
    board = Board()
    board.update({**BOOK, "state": "stale", "best_bid": None, "best_ask": None, "mid_price": None,
                  "spread_bps": None, "imbalance": None, "densities": None})  # fmt: skip

    [_, row] = text_of(board.table()).splitlines()
    assert ["linear:BTCUSDT", "stale", *"–––––––––", "live"] == row.split()


def test_only_wanted_markets_are_shown() -> None:
    board = Board(["spot:BTCUSDT", "ETHUSDT"])
    for category in ("spot", "linear"):
        for symbol in ("BTCUSDT", "ETHUSDT"):
            board.update({**BOOK, "category": category, "symbol": symbol})

    rows = [line.split()[0] for line in text_of(board.table()).splitlines()[1:]]
    assert ["linear:ETHUSDT", "spot:BTCUSDT", "spot:ETHUSDT"] == rows


def test_other_kinds_of_messages_are_no_markets() -> None:
    board = Board()
    board.update({"kind": "process", "process": "trades-0"})
    board.update({**BOOK, "kind": "density"})

    assert 0 == len(board)


def test_more_markets_than_rows_are_counted() -> None:
    board = Board()
    for count in range(10):
        board.update({**BOOK, "symbol": f"S{count}"})

    assert "… 7 more" in text_of(board.table(rows_max=3))


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


def test_the_pipeline_says_when_its_numbers_are_made_up() -> None:
    process = {"process": "trades-0", "state": "flapping", "uptime_s": None, "restarts": 7,
               "cpu_seconds": None, "rss_bytes": None}  # fmt: skip
    status = {"source": "sim", "ready": False, "reasons": ["trades-0: flapping"],
              "metrics": "tcp://m", "http": "h:1", "processes": [process],
              "connectors": []}  # fmt: skip

    text = text_of(pipeline_view(Snapshot(status=status), Board()))

    for expected in ("SIM", "made-up numbers, not the market", "not ready", "trades-0: flapping"):
        assert expected in text
