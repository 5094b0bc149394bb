"""Placement of streams on connectors and workers."""

import json
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from bybit_pipeline.shared.settings.config import Config
from bybit_pipeline.shared.settings.specs import (
    Stream,
)
from bybit_pipeline.supervisor.plan.names import exchange_topic
from bybit_pipeline.supervisor.plan.plan import Plan
from tests.supervisor.plan.plans import (
    CONFIGS,
    STREAMS,
    empty_plan,
    market,
    plan_of,
    topics_by_connector,
)

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


def test_a_market_with_many_topics_gets_more_connectors_and_keeps_symbols_together() -> None:
    plan = plan_of(
        connector={"topics_per_socket": 3}, market=[market("linear", ["AUSDT", "BUSDT", "CUSDT"])]
    )

    assert {
        "connector-linear-0": ["orderbook.50.AUSDT", "publicTrade.AUSDT"],
        "connector-linear-1": ["orderbook.50.BUSDT", "publicTrade.BUSDT"],
        "connector-linear-2": ["orderbook.50.CUSDT", "publicTrade.CUSDT"],
    } == topics_by_connector(plan)


def test_a_single_stream_fills_the_room_left_by_pairs() -> None:
    plan = plan_of(
        connector={"topics_per_socket": 3},
        market=[
            market("linear", ["AUSDT", "BUSDT"]),
            market("linear", ["CUSDT"], streams=["trades"]),
        ],
    )

    assert "publicTrade.CUSDT" in topics_by_connector(plan)["connector-linear-0"]


def test_a_limit_of_one_topic_per_socket_separates_trades_and_book() -> None:
    plan = plan_of(
        connector={"topics_per_socket": 1}, market=[market("linear", ["AUSDT", "BUSDT"])]
    )

    assert [1, 1, 1, 1] == [len(topics) for topics in topics_by_connector(plan).values()]


def test_all_option_trades_of_a_base_coin_stay_on_one_connector() -> None:
    """They are one topic of the exchange, even if the books need several connectors."""
    contracts = [f"BTC-26MAR27-{strike}000-C" for strike in range(10, 17)]
    plan = plan_of(
        connector={"topics_per_socket": 3},
        market=[market("option", contracts, 25), market("option", ["ETH-26MAR27-4000-P"], 25)],
    )

    homes = {p.connector for p in plan.placements if exchange_topic(p.stream) == "publicTrade.BTC"}
    assert {"connector-option-0"} == homes
    assert 4 == len(plan.connectors)


def test_the_length_of_its_topics_limits_a_connector_too() -> None:
    """Bybit allows 21,000 characters of topics per connection."""
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


def test_adding_present_streams_changes_nothing() -> None:
    before = plan_of()

    assert before == before.with_streams([placement.stream for placement in before.placements])


# -- properties --------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.booleans(), st.lists(st.sampled_from(STREAMS), max_size=20)), max_size=6
)


@settings(max_examples=150, deadline=None)
@given(CONFIGS, st.lists(st.sampled_from(STREAMS), unique=True), STEPS)
def test_every_stream_stays_on_one_connector_and_one_worker_through_all_changes(
    config: Config, first: list[Stream], steps: list[tuple[bool, list[Stream]]]
) -> None:
    plan = empty_plan(config).with_streams(first)
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
