"""When a question to all workers is answered, and with what."""

from bybit_pipeline.supervisor.status.gather import OPEN_MAX, PATIENCE_S, Gather


def gap(start_ms: int | None) -> dict[str, object]:
    return {"start_ms": start_ms}


def test_the_answer_comes_when_the_last_worker_has_spoken_in_order_of_time() -> None:
    inquiries = Gather()
    number = inquiries.ask(b"cli", 7, ["trades-0", "orderbook-0"], now=0.0)
    assert inquiries.take(number, "trades-0", [gap(5), gap(1)])
    assert inquiries.due(0.1) == []
    assert inquiries.take(number, "orderbook-0", [gap(3)])
    [answer] = inquiries.due(0.1)
    assert (answer.receiver, answer.request_id, answer.silent) == (b"cli", 7, [])
    assert answer.gaps == [gap(1), gap(3), gap(5)]
    assert inquiries.due(0.1) == []


def test_a_worker_that_does_not_answer_in_time_is_named() -> None:
    inquiries = Gather()
    number = inquiries.ask(b"cli", 1, ["trades-0", "orderbook-0"], now=0.0)
    inquiries.take(number, "trades-0", [gap(1)])
    assert inquiries.due(PATIENCE_S - 0.01) == []
    [answer] = inquiries.due(PATIENCE_S)
    assert answer.silent == ["orderbook-0"]
    assert answer.gaps == [gap(1)]


def test_without_workers_there_is_an_empty_answer_at_once() -> None:
    inquiries = Gather()
    inquiries.ask(b"cli", 1, [], now=0.0)
    assert [answer.gaps for answer in inquiries.due(0.0)] == [[]]


def test_nobody_answers_a_question_that_was_not_put_to_them() -> None:
    inquiries = Gather()
    number = inquiries.ask(b"cli", 1, ["trades-0"], now=0.0)
    assert not inquiries.take(number, "orderbook-0", [])
    assert not inquiries.take(99, "trades-0", [])
    assert not inquiries.take("1", "trades-0", [])
    assert not inquiries.take(number, "trades-0", "gaps")
    assert inquiries.take(number, "trades-0", [])
    assert not inquiries.take(number, "trades-0", []), "once is enough"


def test_questions_are_bounded() -> None:
    inquiries = Gather()
    for request in range(OPEN_MAX):
        assert inquiries.ask(b"cli", request, ["trades-0"], now=0.0) is not None
    assert inquiries.ask(b"cli", "one too many", ["trades-0"], now=0.0) is None
