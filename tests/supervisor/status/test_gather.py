"""Requests fanned out to all workers: when they are answered, and with which gaps."""

from bybit_pipeline.supervisor.status.gather import GATHER_S, OPEN_MAX, Gather


def gap(start_ms: int | None) -> dict[str, object]:
    return {"start_ms": start_ms}


def test_the_result_is_due_with_the_last_answer_oldest_gap_first() -> None:
    gather = Gather()
    number = gather.start(b"cli", 7, ["trades-0", "orderbook-0"], now=0.0)
    assert gather.add(number, "trades-0", [gap(5), gap(1)])
    assert [] == gather.due(0.1)
    assert gather.add(number, "orderbook-0", [gap(3)])

    [result] = gather.due(0.1)

    assert (b"cli", 7, []) == (result.receiver, result.request_id, result.silent)
    assert [gap(1), gap(3), gap(5)] == result.gaps
    assert [] == gather.due(0.1)


def test_workers_that_do_not_answer_in_time_are_named() -> None:
    gather = Gather()
    number = gather.start(b"cli", 1, ["trades-0", "orderbook-0"], now=0.0)
    gather.add(number, "trades-0", [gap(1)])
    assert [] == gather.due(GATHER_S - 0.01)

    [result] = gather.due(GATHER_S)

    assert ["orderbook-0"] == result.silent
    assert [gap(1)] == result.gaps


def test_without_workers_the_result_is_empty_and_due_at_once() -> None:
    gather = Gather()
    gather.start(b"cli", 1, [], now=0.0)

    assert [[]] == [result.gaps for result in gather.due(0.0)]


def test_only_the_first_list_of_a_worker_that_was_asked_is_taken() -> None:
    gather = Gather()
    number = gather.start(b"cli", 1, ["trades-0"], now=0.0)

    assert not gather.add(number, "orderbook-0", [])
    assert not gather.add(99, "trades-0", [])
    assert not gather.add("1", "trades-0", [])
    assert not gather.add(number, "trades-0", "gaps")
    assert gather.add(number, "trades-0", [])
    assert not gather.add(number, "trades-0", [])


def test_the_number_of_open_requests_is_bounded() -> None:
    gather = Gather()
    for request in range(OPEN_MAX):
        assert gather.start(b"cli", request, ["trades-0"], now=0.0) is not None
    assert gather.start(b"cli", "one too many", ["trades-0"], now=0.0) is None
