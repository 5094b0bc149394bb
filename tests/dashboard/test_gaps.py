"""Which messages describe the same gap."""

from bybit_pipeline.processes.dashboard.gaps import PageGaps
from tests.dashboard.payloads import gap, trades_gap


def taken(*payloads: dict[str, object]) -> list[tuple[object, ...]]:
    gaps = PageGaps()
    for version, payload in enumerate(payloads, start=1):
        gaps.take(payload, version=version, now_ms=version)
    return [
        (entry["gap_id"], entry["closed_ts_ns"], entry["is_superseded"]) for entry in gaps.since(0)
    ]


def test_the_end_of_a_gap_closes_it() -> None:
    assert [(1, 9, False)] == taken(gap(1, 5), gap(1, 5, 9))


def test_a_gap_reported_twice_is_shown_once() -> None:
    assert [(1, 9, False)] == taken(gap(1, 5, 9), gap(1, 5, 9))


def test_a_ledger_that_has_not_heard_of_the_end_does_not_open_a_gap_again() -> None:
    assert [(1, 9, False)] == taken(gap(1, 5), gap(1, 5, 9), gap(1, 5))


def test_a_gap_that_the_ledger_repeats_is_not_sent_again() -> None:
    gaps = PageGaps()
    for version in (1, 2):
        gaps.take(gap(1, 5, 9), version=version, now_ms=version)

    assert [] == gaps.since(1)


def test_a_gap_left_open_by_a_dead_worker_is_superseded_by_the_next_one_of_its_topic() -> None:
    assert [(3, None, True), (1, None, False)] == taken(gap(3, 5), gap(1, 8))


def test_gaps_of_other_topics_do_not_supersede_an_open_one() -> None:
    other = gap(1, 8, symbol="ETHUSDT")
    assert [(3, None, False), (1, None, False)] == taken(gap(3, 5), other)


def test_the_number_of_gaps_is_bounded() -> None:
    gaps = PageGaps(limit=3)
    for number in range(10):
        gaps.take(gap(number, number, number), version=number, now_ms=0)

    assert [7, 8, 9] == [entry["gap_id"] for entry in gaps.since(-1)]


def is_open(*payloads: dict[str, object]) -> list[bool]:
    gaps = PageGaps()
    for version, payload in enumerate(payloads):
        gaps.take(payload, version=version, now_ms=version)
    return [entry["is_open"] for entry in gaps.since(-1)]


def test_a_gap_of_trades_is_closed_by_the_time_of_the_exchange() -> None:
    opened, closed = trades_gap(1, "opened"), trades_gap(1, "closed", 3_000)

    assert [True] == is_open(opened)
    assert [False] == is_open(opened, closed)
    assert [False] == is_open(opened, closed, trades_gap(1, "completed", 3_000))
    assert [False, True] == is_open(opened, closed, trades_gap(2, "opened"))


def test_a_gap_of_an_unsubscribed_book_is_not_open() -> None:
    assert [False] == is_open(gap(1, 5, event="opened"), gap(1, 5, event="closed"))
