"""Which messages speak of the same gap."""

from bybit_pipeline.processes.dashboard.gaps import Ledger
from tests.dashboard.payloads import gap, trades_gap


def noted(*payloads: dict[str, object]) -> list[tuple[object, ...]]:
    ledger = Ledger()
    for version, payload in enumerate(payloads, start=1):
        ledger.note(payload, version=version, now_ms=version)
    return [
        (entry["gap_id"], entry["closed_ts_ns"], entry["is_superseded"])
        for entry in ledger.since(0)
    ]


def test_the_end_of_a_gap_closes_its_entry() -> None:
    assert [(1, 9, False)] == noted(gap(1, 5), gap(1, 5, 9))


def test_a_gap_told_twice_is_one_entry() -> None:
    assert [(1, 9, False)] == noted(gap(1, 5, 9), gap(1, 5, 9))


def test_the_same_number_after_a_restart_is_another_gap() -> None:
    assert [(1, 9, False), (1, 20, False)] == noted(gap(1, None, 9), gap(1, None, 20))


def test_an_open_gap_whose_worker_died_ends_with_the_next_one_of_its_topic() -> None:
    assert [(3, None, True), (1, None, False)] == noted(gap(3, 5), gap(1, 8))


def test_gaps_of_other_topics_leave_an_open_one_alone() -> None:
    other = gap(1, 8, symbol="ETHUSDT")
    assert [(3, None, False), (1, None, False)] == noted(gap(3, 5), other)


def test_the_ledger_is_bounded() -> None:
    ledger = Ledger(limit=3)
    for number in range(10):
        ledger.note(gap(number, number, number), version=number, now_ms=0)

    assert [7, 8, 9] == [entry["gap_id"] for entry in ledger.since(-1)]


def is_open(*payloads: dict[str, object]) -> list[bool]:
    ledger = Ledger()
    for version, payload in enumerate(payloads):
        ledger.note(payload, version=version, now_ms=version)
    return [entry["is_open"] for entry in ledger.since(-1)]


def test_a_gap_of_trades_ends_by_the_time_of_the_exchange_alone() -> None:
    opened, closed = trades_gap(1, "opened"), trades_gap(1, "closed", 3_000)

    assert [True] == is_open(opened)
    assert [False] == is_open(opened, closed)
    assert [False] == is_open(opened, closed, trades_gap(1, "completed", 3_000))
    assert [False, True] == is_open(opened, closed, trades_gap(2, "opened"))


def test_a_gap_of_a_book_that_is_followed_no_longer_is_not_open() -> None:
    assert [False] == is_open(gap(1, 5, event="opened"), gap(1, 5, event="closed"))
