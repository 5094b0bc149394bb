"""Symbols that a pattern selects."""

import time
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bybit_pipeline.shared.settings.patterns import (
    chosen,
    is_pattern,
    parse_pattern,
    slack,
    with_capitals,
)
from bybit_pipeline.shared.wire.messages import Category


@pytest.mark.parametrize(
    ("text", "fits", "does_not"),
    [
        ("*USDT", ["BTCUSDT", "USDT", "1000PEPEUSDT"], ["BTCUSDC", "BTCUSDT-21FEB25", "BTCUSDTX"]),
        ("BTC*", ["BTC", "BTCUSDT", "BTC-24MAR23"], ["ETHBTC", "1BTC"]),
        ("?TC*T", ["BTCUSDT", "LTCT"], ["TCUSDT", "BTCUSD"]),
        ("*-*-C", ["BTC-1-C", "A-B-D-C"], ["BTC-C", "BTC-1-P"]),
        ("B.C*", ["B.CX"], ["BXCX"]),
        ("*", ["A", "BTCUSDT"], []),
        ("top:3:turnover", ["BTCUSDT", "X"], []),
        ("top:3:turnover:*USDC", ["BTCUSDC"], ["BTCUSDT"]),
    ],
)
def test_a_form_is_matched_as_a_whole(text: str, fits: list[str], does_not: list[str]) -> None:
    pattern = parse_pattern(text, "linear")

    assert fits == [symbol for symbol in fits + does_not if pattern.fits(symbol)]


def test_a_form_of_many_stars_is_matched_quickly() -> None:
    pattern = parse_pattern("*A" * 31 + "*B", "linear")
    began = time.process_time()

    assert not pattern.fits("A" * 64)

    assert time.process_time() - began < 0.1


@pytest.mark.parametrize("text", ["*USDT", "BTC?", "top:5:turnover", "top:x"])
def test_patterns_are_recognised(text: str) -> None:
    assert is_pattern(text)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("btcusdt", "BTCUSDT"),
        ("BtcUsdt", "BTCUSDT"),
        ("spot:btcusdt", "spot:BTCUSDT"),
        ("btc-26mar27-90000-c", "BTC-26MAR27-90000-C"),
        ("*usdt", "*USDT"),
        ("linear:*usdt", "linear:*USDT"),
        ("top:20:turnover", "top:20:turnover"),
        ("top:20:turnover:*usdt", "top:20:turnover:*USDT"),
        ("linear:top:20:turnover:*usdt", "linear:top:20:turnover:*USDT"),
        ("topusdt", "TOPUSDT"),
        ("spot", "spot"),
        ("spot:", "spot:"),
        ("", ""),
    ],
)
def test_small_letters_become_capitals(typed: str, meant: str) -> None:
    assert meant == with_capitals(typed)


@pytest.mark.parametrize("text", ["BTCUSDT", "BTC-24MAR23", "TOPUSDT", ""])
def test_symbols_are_not_patterns(text: str) -> None:
    assert not is_pattern(text)


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("*usdt", "linear"),
        ("* USDT", "linear"),
        ("*" * 65, "linear"),
        ("*USDT\n", "linear"),
        ("top:0:turnover", "linear"),
        ("top:1001:turnover", "linear"),
        ("top:5", "linear"),
        ("top:5:volume", "linear"),
        ("top:5:turnover:", "linear"),
        ("top:-5:turnover", "linear"),
        ("top:5:turnover:*usdt", "linear"),
        ("top:5:turnover:*USDT:x", "linear"),
        ("*", "option"),
        ("*-C", "option"),
        ("top:5:turnover", "option"),
        ("?BTC-*", "option"),
    ],
)
def test_other_texts_are_rejected_with_what_is_allowed(text: str, category: Category) -> None:
    with pytest.raises(ValueError, match="; use "):
        parse_pattern(text, category)


@pytest.mark.parametrize(
    ("text", "coin"), [("BTC-*", "BTC"), ("ETH-*-C-USDT", "ETH"), ("top:9:turnover:SOL-*", "SOL")]
)
def test_a_pattern_for_options_starts_with_its_base_coin(text: str, coin: str) -> None:
    assert coin == parse_pattern(text, "option").base_coin("option")
    assert "" == parse_pattern(text, "linear").base_coin("linear")


RANKED = [f"S{number:02}" for number in range(1, 31)]
"""S01 has the highest turnover."""


@pytest.mark.parametrize(
    ("had", "expected"),
    [
        ([], RANKED[:20]),
        (RANKED[:20], RANKED[:20]),
        # 20 places have a slack of 2: members at places 21 and 22 stay ...
        ([*RANKED[:18], "S21", "S22"], [*RANKED[:18], "S21", "S22"]),
        ([*RANKED[:19], "S22"], [*RANKED[:19], "S22"]),
        # ... a member at place 23 does not ...
        ([*RANKED[:19], "S23"], RANKED[:20]),
        # ... and a symbol that climbs to place 18 or higher joins at once.
        ([*RANKED[:17], "S19", "S20", "S21"], [*RANKED[:20]]),
        (["S21", *RANKED[1:20]], RANKED[:20]),
        (["GONE", *RANKED[:19]], RANKED[:20]),
    ],
)
def test_the_highest_are_chosen_with_an_advantage_for_members(
    had: list[str], expected: list[str]
) -> None:
    assert expected == chosen(parse_pattern("top:20:turnover", "linear"), RANKED, had)


def test_all_are_chosen_when_fewer_than_wanted_exist() -> None:
    assert RANKED == chosen(parse_pattern("top:50:turnover", "linear"), RANKED)
    assert ["S03", "S13"] == chosen(parse_pattern("top:2:turnover:*3", "linear"), RANKED)


@given(st.integers(1, 40), st.permutations(RANKED), st.sets(st.sampled_from([*RANKED, "GONE"])))
def test_every_choice_is_full_listed_and_includes_the_first_places(
    size: int, ranked: list[str], had: Collection[str]
) -> None:
    found = chosen(parse_pattern(f"top:{size}:turnover", "linear"), ranked, had)

    assert min(size, len(ranked)) == len(found) == len(set(found))
    assert set(found) <= set(ranked[: size + slack(size)])
    assert set(ranked[: max(0, size - slack(size))]) <= set(found)
    assert found == chosen(parse_pattern(f"top:{size}:turnover", "linear"), ranked, found)
