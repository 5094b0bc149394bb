"""How configurations become processes, and what a running pipeline is told when they change."""

import json
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.settings.config import Config
from bybit_pipeline.shared.settings.specs import (
    ConnectorSpec,
    DashboardSpec,
    ForwarderSpec,
    OrderbookSpec,
    SimulatorSpec,
    Stream,
    TradesSpec,
)
from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.plan.change import change
from bybit_pipeline.supervisor.plan.names import exchange_topic
from bybit_pipeline.supervisor.plan.plan import Plan, make_plan
from bybit_pipeline.supervisor.plan.process_specs import make_spec
from bybit_pipeline.supervisor.plan.universe import make_stream

RUN_DIR = "/run/x"


def plan_of(**tables: Any) -> Plan:
    return make_plan(make_config(tables), run_dir=RUN_DIR)


def market(category: str, symbols: list[str], depth: int = 50, **more: Any) -> dict[str, Any]:
    return {"category": category, "symbols": symbols, "depth": depth, **more}


def topics_by_connector(plan: Plan) -> dict[str, list[str]]:
    return {
        name: sorted({exchange_topic(stream) for stream in plan.streams_of(name)})
        for name in plan.connectors
    }


# -- processes and where they connect ----------------------------------------------------------


def test_the_default_pipeline_has_one_process_of_each_kind() -> None:
    assert ["forwarder", "trades-0", "orderbook-0", "connector-linear-0"] == plan_of().processes


def test_the_dashboard_is_one_more_process_when_it_is_asked_for() -> None:
    plan = plan_of(
        dashboard={"enabled": True, "port": 0},
        trades={"windows": ["1m"]},
        orderbook={"imbalance_levels": [5]},
    )

    assert ["forwarder", "dashboard", "trades-0"] == plan.processes[:3]
    spec = make_spec(plan, "dashboard")
    assert isinstance(spec, DashboardSpec)
    assert ("127.0.0.1", 0) == (spec.host, spec.port)
    assert (("1m",), (5,)) == (spec.windows, spec.imbalance_levels)
    assert plan.config.metrics.endpoint == spec.metrics


def test_the_simulator_starts_before_the_connectors_when_it_is_asked_for() -> None:
    names = plan_of(source="sim").processes

    assert names.index("simulator") < names.index("connector-linear-0")


@pytest.mark.parametrize(
    ("tables", "source", "url", "has_simulator"),
    [
        ({}, "live", "wss://stream.bybit.com/v5/public/{category}", False),
        (
            {"source": "live", "network": "testnet"},
            "live",
            "wss://stream-testnet.bybit.com/v5/public/{category}",
            False,
        ),
        ({"source": "live", "url": "ws://h:1/{category}"}, "live", "ws://h:1/{category}", False),
        ({"source": "auto", "url": "ws://h:1/x"}, "live", "ws://h:1/x", False),
        ({"source": "sim"}, "sim", "", True),
        ({"source": "sim", "url": "ws://h:1/{category}"}, "sim", "ws://h:1/{category}", False),
        ({"source": "replay", "replay": {"capture": "/c.jsonl"}}, "replay", "", True),
        ({"source": "replay", "url": "ws://h:1/x"}, "replay", "ws://h:1/x", False),
    ],
)
def test_where_a_source_connects_and_how_it_is_labelled(
    tables: dict[str, Any], source: str, url: str, has_simulator: bool
) -> None:
    plan = plan_of(**tables)

    assert (source, url, has_simulator) == (plan.source, plan.url, plan.has_simulator)


def test_an_address_for_one_category_cannot_serve_two() -> None:
    with pytest.raises(ConfigError, match=r"^url: .*linear and spot; use .*\{category\}"):
        plan_of(
            url="ws://h:1/v5/public/linear", market=[market("linear", ["A"]), market("spot", ["A"])]
        )


def test_a_capture_cannot_be_played_to_another_address() -> None:
    with pytest.raises(ConfigError, match=r"^url: "):
        plan_of(source="replay", url="ws://h:1/x", replay={"capture": "/c.jsonl"})


# -- spreading over connectors -----------------------------------------------------------------


def test_each_category_has_its_own_connector_and_depths_share_one() -> None:
    plan = plan_of(
        market=[
            market("linear", ["BTCUSDT"], 50),
            market("spot", ["BTCUSDT"], 50),
            market("linear", ["ETHUSDT"], 200),
        ]
    )

    assert {
        "connector-linear-0": [
            "orderbook.200.ETHUSDT",
            "orderbook.50.BTCUSDT",
            "publicTrade.BTCUSDT",
            "publicTrade.ETHUSDT",
        ],
        "connector-spot-0": ["orderbook.50.BTCUSDT", "publicTrade.BTCUSDT"],
    } == topics_by_connector(plan)


def test_a_market_with_more_topics_gets_more_connectors_and_keeps_symbols_together() -> None:
    plan = plan_of(
        connector={"topics_per_socket": 3}, market=[market("linear", ["AUSDT", "BUSDT", "CUSDT"])]
    )

    assert {
        "connector-linear-0": ["orderbook.50.AUSDT", "publicTrade.AUSDT"],
        "connector-linear-1": ["orderbook.50.BUSDT", "publicTrade.BUSDT"],
        "connector-linear-2": ["orderbook.50.CUSDT", "publicTrade.CUSDT"],
    } == topics_by_connector(plan)


def test_a_single_stream_fills_the_room_that_pairs_left() -> None:
    plan = plan_of(
        connector={"topics_per_socket": 3},
        market=[
            market("linear", ["AUSDT", "BUSDT"]),
            market("linear", ["CUSDT"], streams=["trades"]),
        ],
    )

    assert "publicTrade.CUSDT" in topics_by_connector(plan)["connector-linear-0"]


def test_one_topic_a_socket_parts_trades_from_the_book() -> None:
    plan = plan_of(
        connector={"topics_per_socket": 1}, market=[market("linear", ["AUSDT", "BUSDT"])]
    )

    assert [1, 1, 1, 1] == [len(topics) for topics in topics_by_connector(plan).values()]


def test_all_option_trades_of_a_base_coin_stay_on_one_connector() -> None:
    """They are one topic of the exchange, however many connectors the books need."""
    contracts = [f"BTC-26MAR27-{strike}000-C" for strike in range(10, 17)]
    plan = plan_of(
        connector={"topics_per_socket": 3},
        market=[market("option", contracts, 25), market("option", ["ETH-26MAR27-4000-P"], 25)],
    )

    homes = {p.connector for p in plan.placements if exchange_topic(p.stream) == "publicTrade.BTC"}
    assert {"connector-option-0"} == homes
    assert 4 == len(plan.connectors)


def test_the_length_of_topic_names_limits_a_connector_too() -> None:
    """Bybit allows 21,000 characters of topics a connection."""
    symbols = [f"{number:03}{'X' * 60}" for number in range(300)]
    plan = plan_of(connector={"topics_per_socket": 900}, market=[market("linear", symbols)])

    for topics in list(topics_by_connector(plan).values())[:-1]:
        assert 20_000 < len(json.dumps(topics, separators=(",", ":"))) <= 21_000


# -- spreading over workers --------------------------------------------------------------------


def test_symbols_are_spread_evenly_over_the_workers_of_each_kind() -> None:
    plan = plan_of(
        workers={"trades": 2, "orderbook": 3},
        market=[market("linear", [f"{envelope}USDT" for envelope in "ABCDEFG"])],
    )

    owners = Counter(placement.workers[0] for placement in plan.placements)
    assert {
        "trades-0": 4,
        "trades-1": 3,
        "orderbook-0": 3,
        "orderbook-1": 2,
        "orderbook-2": 2,
    } == owners


def test_an_orderbook_worker_reads_the_trades_of_its_books() -> None:
    plan = plan_of(
        workers={"orderbook": 2},
        market=[market("linear", ["AUSDT", "BUSDT"])],
    )

    assert ["trade.linear.AUSDT", "book.linear.AUSDT"] == [
        assignment.stream.topic for assignment in plan.assignments_of("orderbook-0")
    ]
    assert ["trade.linear.AUSDT", "trade.linear.BUSDT"] == [
        assignment.stream.topic for assignment in plan.assignments_of("trades-0")
    ]


def test_a_book_without_trades_has_no_trades_to_read() -> None:
    plan = plan_of(market=[market("linear", ["AUSDT"], streams=["orderbook"])])

    assert ["book.linear.AUSDT"] == [
        assignment.stream.topic for assignment in plan.assignments_of("orderbook-0")
    ]
    assert [] == plan.assignments_of("trades-0")


# -- specs -------------------------------------------------------------------------------------


def test_every_process_is_told_what_it_needs() -> None:
    plan = plan_of(source="sim", trades={"windows": ["5s"]}, density={"k": 9.0})
    specs = {name: make_spec(plan, name, prometheus_port=7) for name in plan.processes}

    connector = specs["connector-linear-0"]
    assert isinstance(connector, ConnectorSpec)
    assert "ipc:///run/x/linear-0.ipc" == connector.market_endpoint
    assert plan.streams_of("connector-linear-0") == connector.streams
    trades, orderbook = specs["trades-0"], specs["orderbook-0"]
    assert isinstance(trades, TradesSpec)
    assert isinstance(orderbook, OrderbookSpec)
    assert ("5s",) == trades.settings.windows
    assert 9.0 == orderbook.density.k
    assert "ipc:///run/x/linear-0.feed" == connector.feed_endpoint
    assert {connector.feed_endpoint} == {a.endpoint for a in orderbook.assignments}
    forwarder, simulator = specs["forwarder"], specs["simulator"]
    assert isinstance(forwarder, ForwarderSpec)
    assert isinstance(simulator, SimulatorSpec)
    assert trades.metrics_in == orderbook.metrics_in == forwarder.metrics_in
    assert {"linear": ["BTCUSDT", "ETHUSDT"]} == simulator.symbols
    assert {plan.control_endpoint} == {spec.control for spec in specs.values()}
    assert {7} == {spec.prometheus_port for spec in specs.values()}


def test_the_category_is_filled_into_the_address_of_each_connector() -> None:
    plan = plan_of(market=[market("linear", ["AUSDT"]), market("spot", ["AUSDT"])])

    for category in ("linear", "spot"):
        spec = make_spec(plan, f"connector-{category}-0")
        assert isinstance(spec, ConnectorSpec)
        assert f"wss://stream.bybit.com/v5/public/{category}" == spec.url


def test_a_replay_may_fall_silent_and_is_played_from_the_capture() -> None:
    plan = plan_of(source="replay", replay={"capture": "/c.jsonl", "speed": 50.0})
    connector, simulator = make_spec(plan, "connector-linear-0"), make_spec(plan, "simulator")

    assert isinstance(connector, ConnectorSpec)
    assert isinstance(simulator, SimulatorSpec)
    assert not connector.silence_matters
    assert ("/c.jsonl", 50.0) == (simulator.capture, simulator.speed)


def test_the_simulator_of_auto_does_not_play_a_capture() -> None:
    spec = make_spec(plan_of(source="auto"), "simulator")

    assert isinstance(spec, SimulatorSpec)
    assert "" == spec.capture


# -- changing ----------------------------------------------------------------------------------

BTC, ETH, SOL = (
    [make_stream(choice, "linear", symbol, 50) for choice in ("trades", "orderbook")]
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


def test_a_symbol_that_goes_is_unsubscribed_and_its_workers_forget_it() -> None:
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


def test_adding_what_is_there_changes_nothing() -> None:
    before = plan_of()

    assert before == before.with_streams(BTC)


def test_a_book_that_joins_its_trades_makes_its_worker_read_them() -> None:
    before = plan_of(market=[market("linear", ["BTCUSDT"], streams=["trades"])])
    step = change(before, before.with_streams(BTC))

    assert {
        ("orderbook-0", "trade.linear.BTCUSDT"),
        ("orderbook-0", "book.linear.BTCUSDT"),
    } == {(worker, _topic(command["assignment"]["stream"])) for worker, command in step.readers}


def _topic(stream: dict[str, Any]) -> str:
    return msgspec.convert(stream, Stream).topic


# -- properties --------------------------------------------------------------------------------

CATEGORY_SYMBOLS = {
    "linear": [f"{envelope}USDT" for envelope in "ABCDEFGHIJKLMNOP"],
    "spot": [f"{envelope}USDC" for envelope in "ABCDEFGH"],
    "option": [f"{base}-26MAR27-{k}000-C" for base in ("BTC", "ETH", "XRP") for k in range(1, 7)],
}
STREAMS = [
    make_stream(choice, category, symbol, 25 if category == "option" else 50)  # type: ignore[arg-type]
    for category, symbols in CATEGORY_SYMBOLS.items()
    for symbol in symbols
    for choice in ("trades", "orderbook")
]
CONFIGS = st.builds(
    lambda topics, trades, orderbook: make_config(
        {
            "connector": {"topics_per_socket": topics},
            "workers": {"trades": trades, "orderbook": orderbook},
        }
    ),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(1, 5),
)
STEPS = st.lists(
    st.tuples(st.booleans(), st.lists(st.sampled_from(STREAMS), max_size=20)), max_size=6
)


@settings(max_examples=150, deadline=None)
@given(CONFIGS, st.lists(st.sampled_from(STREAMS), unique=True), STEPS)
def test_every_stream_is_on_one_connector_and_one_worker_whatever_changes(
    config: Config, first: list[Stream], steps: list[tuple[bool, list[Stream]]]
) -> None:
    plan = make_plan(config, run_dir=RUN_DIR).without_streams(_default_topics()).with_streams(first)
    _check(plan, set(first))
    _check_even(plan)
    expected = set(first)
    for is_adding, streams in steps:
        before = plan
        if is_adding:
            plan = plan.with_streams(streams)
            expected |= set(streams)
        else:
            plan = plan.without_streams([stream.topic for stream in streams])
            expected -= set(streams)
        _check(plan, expected)
        _check_stable(before, plan)


@settings(max_examples=100, deadline=None)
@given(CONFIGS, st.lists(st.sampled_from(STREAMS), unique=True), st.lists(st.sampled_from(STREAMS)))
def test_carrying_out_a_change_gives_what_a_fresh_start_of_the_new_plan_has(
    config: Config, first: list[Stream], second: list[Stream]
) -> None:
    empty = make_plan(config, run_dir=RUN_DIR).without_streams(_default_topics())
    before = empty.with_streams(first)
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


def _default_topics() -> list[str]:
    return [placement.stream.topic for placement in plan_of().placements]


def _state(plan: Plan) -> dict[str, set[str]]:
    state = {name: {s.topic for s in plan.streams_of(name)} for name in plan.connectors}
    for worker in plan.workers:
        state[worker] = {a.stream.topic for a in plan.assignments_of(worker)}
    return state


def _check(plan: Plan, expected: set[Stream]) -> None:
    limit = plan.config.connector.topics_per_socket
    streams = [placement.stream for placement in plan.placements]
    assert expected == set(streams)
    assert len(streams) == len(set(streams))
    for name, topics in topics_by_connector(plan).items():
        assert 1 <= len(topics) <= limit
        assert {name.split("-")[1]} == {stream.category for stream in plan.streams_of(name)}
    home: dict[tuple[str, str], str] = {}
    for placement in plan.placements:
        topic = (placement.stream.category, exchange_topic(placement.stream))
        assert placement.connector == home.setdefault(topic, placement.connector)
        role = "trades" if placement.stream.kind == "trade" else "orderbook"
        assert role == placement.workers[0].split("-")[0]
    books = {
        (p.stream.category, p.stream.symbol): p.workers
        for p in plan.placements
        if p.stream.kind == "book"
    }
    for p in plan.placements:
        if p.stream.kind == "trade":
            assert p.workers[1:] == books.get((p.stream.category, p.stream.symbol), ())


def _check_even(plan: Plan) -> None:
    for role in ("trades", "orderbook"):
        names = [name for name in plan.workers if name.startswith(role)]
        load = Counter(placement.workers[0] for placement in plan.placements)
        assert max(load[name] for name in names) - min(load[name] for name in names) <= 1


def _check_stable(before: Plan, after: Plan) -> None:
    old = {p.stream: (p.connector, p.workers[0]) for p in before.placements}
    for p in after.placements:
        if p.stream in old:
            assert old[p.stream] == (p.connector, p.workers[0])


@pytest.mark.parametrize("symbols", [1, 40, 120, 300])
def test_all_connectors_together_stay_under_the_connections_that_bybit_allows(
    symbols: int,
) -> None:
    market = {"symbols": [f"T{number}USDT" for number in range(symbols)]}
    tables = {"source": "live", "market": [market], "connector": {"topics_per_socket": 15}}
    plan = make_plan(make_config(tables), run_dir="/tmp/x")

    assert len(plan.connectors) * plan.connect_quota <= 400 < 500
    assert plan.connect_quota <= 60
