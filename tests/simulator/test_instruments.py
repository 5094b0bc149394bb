"""The listed instruments, their prices, and the text of their numbers."""

import datetime as dt

import pytest

from bybit_pipeline.processes.simulator.market.instruments import (
    DecimalStep,
    categories_of,
    default_instruments,
    instrument_named,
    make_instruments,
    option_price,
)
from bybit_pipeline.shared.wire.messages import Category

TODAY = dt.date(2026, 8, 9)


@pytest.mark.parametrize(
    ("step", "is_trimmed", "count", "text"),
    [
        ("0.10", False, 651142, "65114.20"),
        ("0.01", False, 192300, "1923.00"),
        ("0.001", False, 20, "0.020"),
        ("1", False, 23071, "23071"),
        ("5", True, 197, "985"),
        ("0.01", True, 192210, "1922.1"),
        ("0.00001", True, 32, "0.00032"),
        ("0.1", True, 650000, "65000"),
        ("0.0000010", False, 3514, "0.0035140"),
        ("0.10", False, 0, "0"),
    ],
)
def test_numbers_are_written_with_the_decimals_of_their_step(
    step: str, is_trimmed: bool, count: int, text: str
) -> None:
    """Contracts keep trailing zeros, spot and options drop them, and zero is always 0."""
    assert text == DecimalStep(step, is_trimmed=is_trimmed).text(count)


@pytest.mark.parametrize("category", ["spot", "linear"])
def test_each_category_has_default_instruments(category: Category) -> None:
    """Each is listed once, and the majors are among them."""
    symbols = [instrument.symbol for instrument in default_instruments(category, TODAY)]
    assert len(symbols) == len(set(symbols)) >= 30
    assert {"BTCUSDT", "ETHUSDT", "SOLUSDT"} <= set(symbols)


@pytest.mark.parametrize("today", [TODAY, dt.date(2027, 12, 31), dt.date(2026, 8, 7)])
def test_option_contracts_expire_after_today(today: dt.date) -> None:
    """The nearest expiry is within the next seven days."""
    contracts = default_instruments("option", today)
    expiries = {
        dt.datetime.strptime(contract.symbol.split("-")[1], "%d%b%y").date()
        for contract in contracts
    }
    assert 0 < (min(expiries) - today).days <= 7
    assert {"BTC", "ETH"} == {contract.base_coin for contract in contracts}
    assert all(contract.start_price >= 20 * contract.tick.value for contract in contracts)


def test_option_prices_obey_put_call_parity() -> None:
    """Without interest, call - put = spot - strike."""
    call = option_price(65_000, 60_000, 0.1, is_call=True)
    put = option_price(65_000, 60_000, 0.1, is_call=False)
    assert call - put == pytest.approx(5_000)
    assert put > 0


def test_an_unlisted_symbol_has_the_price_of_its_coin() -> None:
    assert instrument_named("spot", "ETHEUR", TODAY).start_price == pytest.approx(1923, rel=0.01)


def test_the_price_of_an_unknown_coin_is_the_same_in_every_run() -> None:
    """It is derived from the name and is thousands of ticks."""
    first, second = (instrument_named("linear", "FOOBARUSDT", TODAY) for _ in range(2))
    assert first.start_price == second.start_price
    assert 5_000 <= first.tick.count(first.start_price) <= 100_000
    assert first.median_lots >= 4


@pytest.mark.parametrize(
    ("category", "symbol"),
    [
        ("linear", "btcusdt"),
        ("linear", 'BTC"USDT'),
        ("linear", ""),
        ("option", "BTCUSDT"),
        ("option", "BTC-30FOO26-65000-C"),
        ("option", "BTC-31FEB27-65000-C"),
        ("option", "BTC-30OCT26-0-C"),
        ("spot", "BTC-30OCT26-65000-C"),
    ],
)
def test_the_error_of_an_impossible_symbol_names_it(category: Category, symbol: str) -> None:
    with pytest.raises(ValueError, match=repr(symbol)[1:-1] or "symbol"):
        instrument_named(category, symbol, TODAY)


@pytest.mark.parametrize(
    ("symbol", "categories"),
    [
        ("BTCUSDT", ("spot", "linear")),
        ("BTCUSD", ("inverse",)),
        ("BTCUSDU26", ("inverse",)),
        ("BTCPERP", ("spot", "linear")),
        ("BTC-24MAR27", ("linear",)),
        ("BTC-30OCT26-65000-C-USDT", ("option",)),
        ("XRP-30OCT26-0.4-P-USDT", ("option",)),
    ],
)
def test_the_form_of_a_symbol_decides_its_categories(
    symbol: str, categories: tuple[Category, ...]
) -> None:
    """Spot and linear share their symbols."""
    assert categories == categories_of(symbol)


def test_named_instruments_are_listed_with_the_default_ones_on_request() -> None:
    """No instrument is listed twice."""
    named: dict[Category, list[str]] = {"linear": ["BTCUSDT", "FOOUSDT"]}
    only = make_instruments(named, with_defaults=False, today=TODAY)
    assert ["BTCUSDT", "FOOUSDT"] == [instrument.symbol for instrument in only]
    everything = [
        (instrument.category, instrument.symbol)
        for instrument in make_instruments(named, with_defaults=True, today=TODAY)
    ]
    assert len(everything) == len(set(everything)) > 150
    assert ("linear", "FOOUSDT") in everything
