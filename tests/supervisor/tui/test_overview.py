"""The screen of ``up``: head, processes, markets, events and rates."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from bybit_pipeline.supervisor.tui.event_log import EventLog
from bybit_pipeline.supervisor.tui.market_table import ViewState
from bybit_pipeline.supervisor.tui.overview import overview, shares
from bybit_pipeline.supervisor.tui.rates import Rates
from bybit_pipeline.supervisor.tui.state import TableState
from tests.supervisor.tui.payloads import (
    BOOK,
    TRADES,
    gap,
    process,
    screen_of,
    status,
    table_of,
)


def shown(
    state: dict[str, Any],
    table: TableState | None = None,
    events: EventLog | None = None,
    *,
    width: int = 150,
    height: int = 45,
    **options: Any,
) -> list[str]:
    lines = overview(
        state,
        table or TableState(),
        events or EventLog(),
        Rates(),
        ViewState(),
        now=0.0,
        wall_s=60.0,
        width=width,
        height=height,
        **options,
    )
    return [line.plain for line in lines]


@pytest.mark.parametrize(
    ("source", "warning"),
    [("sim", "simulated, not real prices"), ("replay", "recorded, not current prices")],
)
@pytest.mark.parametrize("width", [60, 80, 220])
def test_the_first_line_warns_of_a_source_that_is_not_live(
    source: str, warning: str, width: int
) -> None:
    feed = {"kind": source, "host": None}
    head = shown(status(source=source, feed=feed), width=width)[0]

    assert source.upper() in head
    assert warning in head or width < 70


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("live", "LIVE"),
        ("waiting", "NO LIVE DATA YET"),
        ("offline", "NO CONNECTION"),
        ("custom", "h:9"),
        ("sim", "SIM  simulated"),
    ],
)
def test_live_is_only_shown_while_data_of_bybit_arrive(kind: str, text: str) -> None:
    head = shown(status(feed={"kind": kind, "host": "h:9"}))[0]

    assert text in head
    assert ("LIVE  " in head) == (kind == "live")


def test_without_a_connection_the_reason_and_the_next_attempt_are_shown() -> None:
    [link] = status()["connectors"]
    link |= {"connected": False, "failure": "403", "next_attempt_ts_ms": 72_000}
    text = "\n".join(shown(status(connectors=[link])))

    assert "NOT CONNECTED  403, next attempt in 12 s" in text


def test_progress_counts_topics_and_processes_until_the_pipeline_is_ready() -> None:
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
def test_the_screen_is_never_larger_than_the_terminal(
    width: int, height: int, processes: int, markets: int, events: int, is_ready: bool
) -> None:
    table, log = TableState(), EventLog()
    for count in range(markets):
        table.take({**BOOK, "symbol": f"S{count}"}, 0.0)
        table.take({**TRADES, "symbol": f"S{count}"}, 0.0)
    for count in range(events):
        log.take_message(gap(event="opened", symbol=f"S{count}"))
    state = status(
        ready=is_ready,
        reasons=[] if is_ready else ["a" * 90] * 7,
        source="sim",
        processes=[process(f"trades-{n}") for n in range(processes)],
    )

    for lines in (
        shown(state, table, log, width=width, height=height),
        screen_of(table, width=width, height=height).splitlines(),
        screen_of(TableState(["BTCUSDT"]), width=width, height=height).splitlines(),
        screen_of(
            table_of(BOOK, TRADES, markets=("BTCUSDT",)), width=width, height=height
        ).splitlines(),
    ):
        assert len(lines) <= height
        assert all(Text(line).cell_len <= width for line in lines)


def test_without_room_for_all_processes_those_in_trouble_are_shown_first() -> None:
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
def test_lines_are_shared_between_the_parts(free: int, given_lines: list[int]) -> None:
    assert given_lines == shares(free, (10, 20, 5), (5, 4, 3))


def test_a_stopping_pipeline_is_shown_as_stopping() -> None:
    assert "stopping" in shown(status(), is_stopping=True)[0]


def test_the_address_of_the_page_is_shown_beside_its_process() -> None:
    state = status(processes=[process("dashboard")], dashboard="http://127.0.0.1:9480")
    [line] = [line for line in shown(state, width=80) if line.startswith("dashboard ")]
    assert line.endswith("http://127.0.0.1:9480")

    starting = status(processes=[process("dashboard", state="starting")], dashboard=None)
    assert any(line.startswith("dashboard ") for line in shown(starting))


def counted(messages: int, **changes: Any) -> dict[str, Any]:
    worker = process("trades-0", counts={"messages": messages}, **changes)
    return status(processes=[worker])


def test_rates_are_over_the_last_ten_seconds() -> None:
    rates = Rates()
    for second in range(31):
        rates.take(counted(10 * second if second < 20 else 200 + 50 * (second - 20)), second)

    assert 50.0 == rates.messages("trades-0")


def test_a_restart_begins_a_new_measurement_of_rates() -> None:
    rates = Rates()
    rates.take(counted(1000), 0.0)
    rates.take(counted(1100), 5.0)
    assert 20.0 == rates.messages("trades-0")

    rates.take(counted(5, pid=2), 6.0)
    assert None is rates.messages("trades-0")
    rates.take(counted(25, pid=2), 8.0)
    assert 10.0 == rates.messages("trades-0")
