"""Instruments: which there are, what they cost, how their numbers are written."""

import datetime as dt

import pytest

from bybit_pipeline.processes.simulator.market.instruments import (
    DecimalStep,
    catalogue,
    categories_of,
    instrument_named,
    option_price,
)
from bybit_pipeline.processes.simulator.market.synthetic import listing
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
    """Contracts keep trailing zeros, spot and options drop them, zero is always 0."""
    assert text == DecimalStep(step, is_trimmed=is_trimmed).text(count)


@pytest.mark.parametrize("category", ["spot", "linear"])
def test_the_catalogue_lists_some_thirty_well_known_symbols(category: Category) -> None:
    """Each once, the majors among them."""
    symbols = [instrument.symbol for instrument in catalogue(category, TODAY)]
    assert len(symbols) == len(set(symbols)) >= 30
    assert {"BTCUSDT", "ETHUSDT", "SOLUSDT"} <= set(symbols)


@pytest.mark.parametrize("today", [TODAY, dt.date(2027, 12, 31), dt.date(2026, 8, 7)])
def test_option_contracts_expire_after_the_given_day(today: dt.date) -> None:
    """The nearest expiry is one of the next seven days, never today."""
    contracts = catalogue("option", today)
    expiries = {
        dt.datetime.strptime(contract.symbol.split("-")[1], "%d%b%y").date()
        for contract in contracts
    }
    assert 0 < (min(expiries) - today).days <= 7
    assert {"BTC", "ETH"} == {contract.base_coin for contract in contracts}
    assert all(contract.start_price >= 20 * contract.tick.value for contract in contracts)


def test_a_call_costs_more_than_a_put_above_the_strike() -> None:
    """Put-call parity: call - put = spot - strike, without interest."""
    call = option_price(65_000, 60_000, 0.1, is_call=True)
    put = option_price(65_000, 60_000, 0.1, is_call=False)
    assert call - put == pytest.approx(5_000)
    assert put > 0


def test_an_unlisted_symbol_costs_what_its_coin_costs() -> None:
    """ETHUSDE is unknown, ETHEUR is an ether."""
    assert instrument_named("spot", "ETHEUR", TODAY).start_price == pytest.approx(1923, rel=0.01)


def test_an_unknown_coin_has_the_same_plausible_price_in_every_run() -> None:
    """The price comes from the name and is thousands of ticks."""
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
def test_impossible_names_are_refused(category: Category, symbol: str) -> None:
    """With a ValueError that names the symbol."""
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
def test_a_bare_symbol_belongs_to_the_categories_its_form_allows(
    symbol: str, categories: tuple[Category, ...]
) -> None:
    """Spot and linear share their names."""
    assert categories == categories_of(symbol)


def test_the_listing_is_what_is_named_and_the_catalogue_only_on_request() -> None:
    """Without the catalogue nothing else is there; with it nothing is there twice."""
    named: dict[Category, list[str]] = {"linear": ["BTCUSDT", "FOOUSDT"]}
    only = listing(named, with_catalogue=False, today=TODAY)
    assert ["BTCUSDT", "FOOUSDT"] == [instrument.symbol for instrument in only]
    everything = [
        (instrument.category, instrument.symbol)
        for instrument in listing(named, with_catalogue=True, today=TODAY)
    ]
    assert len(everything) == len(set(everything)) > 150
    assert ("linear", "FOOUSDT") in everything
