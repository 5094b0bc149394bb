"""When a question to all workers is answered, and with what."""

from bybit_pipeline.supervisor.status.gather import OPEN_MAX, PATIENCE_S, Gather


def gap(start_ms: int | None) -> dict[str, object]:
    return {"start_ms": start_ms}


def test_the_answer_comes_when_the_last_worker_has_spoken_in_order_of_time() -> None:
    gather = Gather()
    number = gather.ask(b"cli", 7, ["trades-0", "orderbook-0"], now=0.0)
    assert gather.take(number, "trades-0", [gap(5), gap(1)])
    assert gather.due(0.1) == []
    assert gather.take(number, "orderbook-0", [gap(3)])
    [answer] = gather.due(0.1)
    assert (answer.receiver, answer.request_id, answer.silent) == (b"cli", 7, [])
    assert answer.gaps == [gap(1), gap(3), gap(5)]
    assert gather.due(0.1) == []


def test_a_worker_that_does_not_answer_in_time_is_named() -> None:
    gather = Gather()
    number = gather.ask(b"cli", 1, ["trades-0", "orderbook-0"], now=0.0)
    gather.take(number, "trades-0", [gap(1)])
    assert gather.due(PATIENCE_S - 0.01) == []
    [answer] = gather.due(PATIENCE_S)
    assert answer.silent == ["orderbook-0"]
    assert answer.gaps == [gap(1)]


def test_without_workers_there_is_an_empty_answer_at_once() -> None:
    gather = Gather()
    gather.ask(b"cli", 1, [], now=0.0)
    assert [answer.gaps for answer in gather.due(0.0)] == [[]]


def test_nobody_answers_a_question_that_was_not_put_to_them() -> None:
    gather = Gather()
    number = gather.ask(b"cli", 1, ["trades-0"], now=0.0)
    assert not gather.take(number, "orderbook-0", [])
    assert not gather.take(99, "trades-0", [])
    assert not gather.take("1", "trades-0", [])
    assert not gather.take(number, "trades-0", "gaps")
    assert gather.take(number, "trades-0", [])
    assert not gather.take(number, "trades-0", []), "once is enough"


def test_questions_are_bounded() -> None:
    gather = Gather()
    for request in range(OPEN_MAX):
        assert gather.ask(b"cli", request, ["trades-0"], now=0.0) is not None
    assert gather.ask(b"cli", "one too many", ["trades-0"], now=0.0) is None
