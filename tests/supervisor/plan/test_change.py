"""The steps that turn a running plan into the next one."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from bybit_pipeline.shared.settings.config import Config
from bybit_pipeline.shared.settings.specs import Stream
from bybit_pipeline.supervisor.plan.change import change
from bybit_pipeline.supervisor.plan.plan import Plan
from bybit_pipeline.supervisor.plan.universe import make_stream
from tests.supervisor.plan.plans import CONFIGS, STREAMS, empty_plan, market, plan_of

BTC, ETH, SOL = (
    [make_stream(kind, "linear", symbol, 50) for kind in ("trades", "orderbook")]
    for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT")
)


def test_a_new_symbol_is_assigned_to_its_workers_and_subscribed() -> None:
    before = plan_of()
    step = change(before, before.with_streams(SOL))

    assert [
        ("trades-0", "assign", "trade.linear.SOLUSDT"),
        ("orderbook-0", "assign", "trade.linear.SOLUSDT"),
        ("orderbook-0", "assign", "book.linear.SOLUSDT"),
    ] == [
        (worker, command["type"], _topic(command["assignment"]["stream"]))
        for worker, command in step.readers
    ]
    [(connector, command)] = step.subscribe
    assert "connector-linear-0" == connector
    assert {"type": "subscribe", "streams": [msgspec.to_builtins(s) for s in SOL]} == command
    assert () == (*step.start, *step.stop, *step.unsubscribe)


def test_a_symbol_that_does_not_fit_gets_a_new_connector() -> None:
    before = plan_of(connector={"topics_per_socket": 4})
    step = change(before, before.with_streams(SOL))

    assert ("connector-linear-1",) == step.start
    assert () == step.subscribe
    assert {"ipc:///run/x/linear-1.feed"} == {
        command["assignment"]["endpoint"] for _, command in step.readers
    }


def test_a_removed_symbol_is_unsubscribed_and_unassigned_from_its_workers() -> None:
    before = plan_of()
    step = change(before, before.without_streams([stream.topic for stream in ETH]))

    [(connector, command)] = step.unsubscribe
    assert "connector-linear-0" == connector
    assert {"trade.linear.ETHUSDT", "book.linear.ETHUSDT"} == {
        _topic(stream) for stream in command["streams"]
    }
    assert {
        ("trades-0", "trade.linear.ETHUSDT"),
        ("orderbook-0", "trade.linear.ETHUSDT"),
        ("orderbook-0", "book.linear.ETHUSDT"),
    } == {(worker, command["topic"]) for worker, command in step.readers}
    assert () == (*step.start, *step.stop, *step.subscribe)


def test_a_connector_without_topics_is_stopped() -> None:
    before = plan_of()
    after = before.without_streams([stream.topic for stream in (*BTC, *ETH)])

    assert ("connector-linear-0",) == change(before, after).stop
    assert ["forwarder", "trades-0", "orderbook-0"] == after.processes


def test_the_worker_of_a_book_that_joins_its_trades_reads_them_too() -> None:
    before = plan_of(market=[market("linear", ["BTCUSDT"], streams=["trades"])])
    step = change(before, before.with_streams(BTC))

    assert {
        ("orderbook-0", "trade.linear.BTCUSDT"),
        ("orderbook-0", "book.linear.BTCUSDT"),
    } == {(worker, _topic(command["assignment"]["stream"])) for worker, command in step.readers}


@settings(max_examples=100, deadline=None)
@given(CONFIGS, st.lists(st.sampled_from(STREAMS), unique=True), st.lists(st.sampled_from(STREAMS)))
def test_a_change_leads_to_the_same_state_as_a_fresh_start_of_the_new_plan(
    config: Config, first: list[Stream], second: list[Stream]
) -> None:
    before = empty_plan(config).with_streams(first)
    removed = [stream.topic for stream in first[::2]]
    after = before.without_streams(removed).with_streams(second)

    running = _state(before)
    step = change(before, after)
    for connector, command in step.unsubscribe:
        running[connector] -= {_topic(stream) for stream in command["streams"]}
    for connector in step.stop:
        del running[connector]
    for worker, command in step.readers:
        if command["type"] == "assign":
            running[worker].add(_topic(command["assignment"]["stream"]))
        else:
            running[worker].discard(command["topic"])
    for connector in step.start:
        running[connector] = {stream.topic for stream in after.streams_of(connector)}
    for connector, command in step.subscribe:
        running[connector] |= {_topic(stream) for stream in command["streams"]}

    assert _state(after) == running


def _state(plan: Plan) -> dict[str, set[str]]:
    state = {name: {s.topic for s in plan.streams_of(name)} for name in plan.connectors}
    for worker in plan.workers:
        state[worker] = {a.stream.topic for a in plan.assignments_of(worker)}
    return state


def _topic(stream: dict[str, Any]) -> str:
    return msgspec.convert(stream, Stream).topic
