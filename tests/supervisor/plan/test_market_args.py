"""Market arguments of ``subscribe`` and ``unsubscribe``, and the plans they lead to."""

from typing import Any

import pytest

from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.plan.instruments import InstrumentList
from bybit_pipeline.supervisor.plan.market_args import (
    MarketError,
    parse_market,
    subscribe,
    unsubscribe,
)
from bybit_pipeline.supervisor.plan.names import exchange_topic
from bybit_pipeline.supervisor.plan.plan import Plan, make_plan


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


def test_a_new_market_is_like_the_first_table_of_its_category(plan: Plan) -> None:
    new = topics(subscribe(plan, ["linear:ETHUSDT", "spot:ETHUSDT"])) - topics(plan)

    assert {
        "linear orderbook.200.ETHUSDT",
        "spot publicTrade.ETHUSDT",
        "spot orderbook.50.ETHUSDT",
    } == new


def test_a_market_of_a_new_category_has_the_defaults(plan: Plan) -> None:
    new = topics(subscribe(plan, ["option:BTC-26MAR27-90000-C", "inverse:BTCUSD"])) - topics(plan)

    assert {
        "option publicTrade.BTC",
        "option orderbook.25.BTC-26MAR27-90000-C",
        "inverse publicTrade.BTCUSD",
        "inverse orderbook.50.BTCUSD",
    } == new


def test_a_market_is_removed_with_all_its_streams_and_no_others(plan: Plan) -> None:
    assert {"linear orderbook.200.BTCUSDT"} == topics(unsubscribe(plan, ["spot:BTCUSDT"]))


def test_a_market_that_is_not_subscribed_cannot_be_removed(plan: Plan) -> None:
    with pytest.raises(MarketError, match=r"^linear:ETHUSDT is not subscribed$"):
        unsubscribe(plan, ["spot:BTCUSDT", "linear:ETHUSDT"])


@pytest.mark.parametrize(
    "word",
    [
        "",
        "linear",
        "linear:",
        ":BTCUSDT",
        "linear:btcusdt",
        "margin:BTCUSDT",
        "linear:BTC USDT",
        "linear:A\x00B",
        "btcusdt",
    ],
)
def test_other_words_are_rejected_with_what_is_allowed(word: str) -> None:
    with pytest.raises(MarketError, match=r"use \[CATEGORY:\]SYMBOL such as BTCUSDT"):
        parse_market(word)


# -- patterns ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "categories", "meaning"),
    [
        ("linear:*USDT", ["spot", "linear"], ("linear", "*USDT")),
        ("spot:top:50:turnover", ["linear"], ("spot", "top:50:turnover")),
        ("top:50:turnover", ["linear"], ("linear", "top:50:turnover")),
        ("top:50:turnover:*USDC", ["spot", "spot"], ("spot", "top:50:turnover:*USDC")),
        ("BTC-*", ["option"], ("option", "BTC-*")),
        ("top:50:turnover", ["spot", "inverse"], ("linear", "top:50:turnover")),
        ("SOLUSDT", [], ("linear", "SOLUSDT")),
        ("SOLUSDT", ["spot", "spot"], ("spot", "SOLUSDT")),
        ("SOLUSDT", ["spot", "inverse"], ("linear", "SOLUSDT")),
        ("inverse:BTCUSD", ["spot"], ("inverse", "BTCUSD")),
    ],
)
def test_a_word_without_a_category_belongs_to_the_only_one_else_to_linear(
    word: str, categories: Any, meaning: tuple[str, str]
) -> None:
    assert meaning == parse_market(word, categories=categories)


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("margin:*USDT", "is not a pattern"),
        ("linear:*usdt", "is not a pattern; use "),
        ("linear:top:5:volume", "is not a pattern"),
        ("option:*", r"has no base coin; use BTC-\*"),
    ],
)
def test_a_wrong_pattern_is_rejected_with_its_fault(word: str, error: str) -> None:
    with pytest.raises(MarketError, match=error):
        parse_market(word, categories=["spot", "linear"])


def resolved(plan: Plan, *symbols: str) -> Plan:
    """The plan after an instrument list."""
    universe = plan.universe
    for query in universe.queries():
        universe = universe.with_list(query, InstrumentList(symbols), symbols_max=10, now_ms=1)
    return plan.with_universe(universe)


def test_a_pattern_is_like_the_first_table_and_its_removal_keeps_named_symbols(plan: Plan) -> None:
    after = resolved(subscribe(plan, ["linear:*USDT"]), "BTCUSDT", "ETHUSDT", "BTCPERP")
    assert {"linear orderbook.200.ETHUSDT"} == topics(after) - topics(plan)

    assert topics(plan) == topics(unsubscribe(after, ["linear:*USDT"]))


def test_an_unsubscribed_symbol_stays_away_until_it_is_subscribed_again(plan: Plan) -> None:
    listed = ("BTCUSDT", "ETHUSDT", "XRPUSDT")
    following = resolved(subscribe(plan, ["linear:*USDT"]), *listed)

    without = resolved(unsubscribe(following, ["linear:ETHUSDT"]), *listed)
    assert {"linear orderbook.200.ETHUSDT"} == topics(following) - topics(without)
    for word in ("linear:ETHUSDT", "linear:*USDT"):
        assert topics(following) == topics(resolved(subscribe(without, [word]), *listed))


def test_a_pattern_that_is_not_subscribed_cannot_be_removed(plan: Plan) -> None:
    with pytest.raises(MarketError, match=r"^linear:\*USDT is not subscribed$"):
        unsubscribe(plan, ["linear:*USDT"])
    with pytest.raises(MarketError, match="subscribed patterns: spot:top:5:turnover"):
        unsubscribe(subscribe(plan, ["spot:top:5:turnover"]), ["linear:*USDT"])
