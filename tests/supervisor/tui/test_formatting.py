"""Numbers, states and tables as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bybit_pipeline.supervisor.tui.formatting import (
    Column,
    amount,
    balance,
    bar,
    duration,
    grid,
    number,
    source_text,
)
from bybit_pipeline.supervisor.tui.state import decimals


@pytest.mark.parametrize(
    ("source", "is_highlighted"), [("live", False), ("sim", True), ("replay", True)]
)
def test_a_source_that_is_not_live_is_highlighted(source: str, is_highlighted: bool) -> None:
    assert is_highlighted == ("on red" in str(source_text(source).style))


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (None, 2, "–"),
        (1234.5, 1, "1,234.5"),
        (0.02869, None, "0.02869"),
        (65110.35, None, "65110.35"),
    ],
)
def test_numbers_are_readable(value: float | None, digits: int | None, text: str) -> None:
    assert text == number(value, digits)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0.000"),
        (0.00001, "1e-05"),
        (0.505, "0.505"),
        (133.171, "133.17"),
        (-12345.6, "-12,345.6"),
        (123456.0, "123.46k"),
        (1_290_000.0, "1.29M"),
        (3e9, "3.00G"),
    ],
)
def test_amounts_are_short(value: float | None, text: str) -> None:
    assert text == amount(value)


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (45.9, "45s"), (61, "0:01:01"), (90061, "1d 01:01")]
)
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert text == duration(seconds)


@pytest.mark.parametrize(
    ("price", "count"), [(65110.0, 0), (1923.13, 2), (0.00012, 5), (1e-05, 5), (None, 0)]
)
def test_decimals_of_a_price(price: float | None, count: int) -> None:
    assert count == decimals(price)


def test_a_number_that_does_not_fit_is_omitted_and_never_truncated() -> None:
    columns = [Column("a"), Column("b", is_right=True, rank=1), Column("c", rank=2)]
    lines = grid(columns, [["x", "123456789", "yz"]], 10)

    assert ["a  c", "x  yz"] == [line.plain for line in lines]


@given(value=st.floats(-1, 1))
def test_a_balance_leans_to_the_larger_side(value: float) -> None:
    left, _, right = balance(value, 4).plain.partition("│")

    assert (value < 0) == ("■" in left)
    assert (value > 0) == ("■" in right)


@pytest.mark.parametrize(("ratio", "text"), [(0.0, ""), (0.5, "██"), (1.0, "████"), (0.03125, "▏")])
def test_the_length_of_a_bar(ratio: float, text: str) -> None:
    assert text == bar(ratio, 4)
