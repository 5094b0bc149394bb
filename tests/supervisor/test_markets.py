"""``CATEGORY:SYMBOL`` words and the plan they ask for."""

import pytest

from shared.config import make_config
from supervisor.markets import MarketError, parse_market, subscribe, unsubscribe
from supervisor.plan import Plan, exchange_topic, make_plan


@pytest.fixture
def plan() -> Plan:
    """Linear at depth 200 without trades, spot with everything."""
    tables = [
        {"category": "linear", "symbols": ["BTCUSDT"], "depth": 200, "streams": ["orderbook"]},
        {"category": "spot", "symbols": ["BTCUSDT"], "depth": 50},
    ]
    return make_plan(make_config({"market": tables}), run_dir="/run/x")


def topics(plan: Plan) -> set[str]:
    return {f"{p.stream.category} {exchange_topic(p.stream)}" for p in plan.placements}


def test_a_market_joins_like_the_first_table_of_its_category(plan: Plan) -> None:
    new = topics(subscribe(plan, ["linear:ETHUSDT", "spot:ETHUSDT"])) - topics(plan)

    assert {"linear orderbook.200.ETHUSDT", "spot publicTrade.ETHUSDT",
            "spot orderbook.50.ETHUSDT"} == new  # fmt: skip


def test_a_market_of_a_new_category_joins_with_the_defaults(plan: Plan) -> None:
    new = topics(subscribe(plan, ["option:BTC-26MAR27-90000-C", "inverse:BTCUSD"])) - topics(plan)

    assert {
        "option publicTrade.BTC", "option orderbook.25.BTC-26MAR27-90000-C",
        "inverse publicTrade.BTCUSD", "inverse orderbook.50.BTCUSD",
    } == new  # fmt: skip


def test_a_market_leaves_with_all_its_streams_and_alone(plan: Plan) -> None:
    assert {"linear orderbook.200.BTCUSDT"} == topics(unsubscribe(plan, ["spot:BTCUSDT"]))


def test_a_market_that_is_not_there_cannot_leave(plan: Plan) -> None:
    with pytest.raises(MarketError, match=r"^linear:ETHUSDT is not subscribed$"):
        unsubscribe(plan, ["spot:BTCUSDT", "linear:ETHUSDT"])


@pytest.mark.parametrize(
    "word", ["", "BTCUSDT", "linear", "linear:", ":BTCUSDT", "linear:btcusdt", "margin:BTCUSDT",
             "linear:BTC USDT", "linear:A\x00B"],
)  # fmt: skip
def test_other_words_are_refused_with_what_is_allowed(word: str) -> None:
    with pytest.raises(MarketError, match="allowed: CATEGORY:SYMBOL such as linear:BTCUSDT"):
        parse_market(word)
