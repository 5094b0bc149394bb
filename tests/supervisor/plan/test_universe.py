"""The followed symbols, by name and by pattern, as instrument lists arrive."""

from typing import Any

import pytest

from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.plan.change import change
from bybit_pipeline.supervisor.plan.instruments import InstrumentList, InstrumentQuery
from bybit_pipeline.supervisor.plan.plan import make_plan
from bybit_pipeline.supervisor.plan.universe import ResolvedPattern, Universe, configured_universe

LINEAR = InstrumentQuery("linear")
RANKED = InstrumentQuery("linear", has_turnover=True)


def select(*tables: dict[str, Any]) -> Universe:
    """The universe of market tables."""
    return configured_universe(make_config({"market": list(tables)}).market)


def listed(universe: Universe, *symbols: str, query: InstrumentQuery = LINEAR) -> Universe:
    """The universe after an instrument list."""
    return universe.with_list(query, InstrumentList(symbols), symbols_max=5, now_ms=7)


def books(universe: Universe) -> dict[str, int]:
    """Depth of the books, by symbol."""
    return {s.symbol: s.depth for s in universe.streams() if s.kind == "book"}


def only(universe: Universe) -> ResolvedPattern:
    """The only pattern."""
    [pattern] = universe.patterns
    return pattern


def test_symbols_of_a_pattern_join_and_leave_with_the_list_and_named_ones_stay() -> None:
    universe = select({"symbols": ["DEADUSDT", "*USDT"]})
    assert {"DEADUSDT": 50} == books(universe)

    for symbols in (["AUSDT", "BUSDT", "CUSDC"], ["BUSDT", "DUSDT", "DEADUSDT"], ["BUSDT"]):
        universe = listed(universe, *symbols)
        wanted = {symbol for symbol in symbols if symbol.endswith("USDT")}
        assert wanted | {"DEADUSDT"} == set(books(universe))


def test_a_topic_belongs_to_the_named_symbol_then_to_the_first_pattern() -> None:
    universe = select(
        {"symbols": ["AUSDT"], "depth": 1},
        {"symbols": ["B*"], "depth": 200},
        {"symbols": ["*USDT"], "depth": 50, "streams": ["orderbook"]},
    )
    universe = listed(universe, "AUSDT", "BUSDT", "CUSDT")

    assert {"AUSDT": 1, "BUSDT": 200, "CUSDT": 50} == books(universe)
    assert {"AUSDT", "BUSDT"} == {s.symbol for s in universe.streams() if s.kind == "trade"}


def test_a_pattern_may_have_trades_and_books_in_two_tables() -> None:
    universe = select(
        {"symbols": ["*USDT"], "streams": ["trades"]},
        {"symbols": ["*USDT"], "streams": ["orderbook"], "depth": 1},
    )

    assert 2 == len(listed(universe, "AUSDT").streams())


def test_a_symbol_that_moves_to_another_pattern_gets_its_depth() -> None:
    """Deep books for the busiest symbols, shallow ones for the rest."""
    plan = make_plan(
        make_config(
            {
                "market": [
                    {"symbols": ["top:1:turnover"], "depth": 200, "streams": ["orderbook"]},
                    {"symbols": ["*USDT"], "depth": 1, "streams": ["orderbook"]},
                ]
            }
        ),
        run_dir="/run/x",
    )
    before = plan.with_universe(listed(plan.universe, "AUSDT", "BUSDT", query=RANKED))
    after = before.with_universe(listed(before.universe, "BUSDT", "AUSDT", query=RANKED))

    step = change(before, after)
    assert {"AUSDT": 1, "BUSDT": 200} == {p.stream.symbol: p.stream.depth for p in after.placements}
    [(_, unsubscribed)], [(_, subscribed)] = step.unsubscribe, step.subscribe
    assert {("AUSDT", 200), ("BUSDT", 1)} == {
        (s["symbol"], s["depth"]) for s in unsubscribed["streams"]
    }
    assert {("AUSDT", 1), ("BUSDT", 200)} == {
        (s["symbol"], s["depth"]) for s in subscribed["streams"]
    }
    assert () == step.stop == step.start


def test_symbols_that_stay_are_not_touched() -> None:
    plan = make_plan(make_config({"market": [{"symbols": ["*USDT"]}]}), run_dir="/run/x")
    before = plan.with_universe(listed(plan.universe, "AUSDT", "BUSDT"))
    same = before.with_universe(listed(before.universe, "BUSDT", "AUSDT"))
    assert same.placements is before.placements

    step = change(before, before.with_universe(listed(before.universe, "BUSDT", "CUSDT")))
    commands = [command for _, command in (*step.unsubscribe, *step.readers, *step.subscribe)]
    assert "BUSDT" not in str(commands)
    assert {"AUSDT", "CUSDT"} <= {word for c in commands for word in str(c).split("'")}


def test_a_problem_changes_only_the_state_of_the_pattern() -> None:
    universe = listed(select({"symbols": ["*USDT"]}), "AUSDT")
    assert "resolved" == only(universe).state

    failed = universe.with_problem(LINEAR, "HTTP 403")
    assert universe.streams() == failed.streams()
    assert ("outdated", "HTTP 403") == (only(failed).state, only(failed).problem)
    assert "resolved" == only(listed(failed, "AUSDT")).state


def test_symbols_stay_in_a_new_source_until_its_list_arrives() -> None:
    universe = listed(select({"symbols": ["*USDT"]}), "AUSDT").unresolved()

    assert "unresolved" == only(universe).state
    assert {"AUSDT"} == set(books(universe))
    assert {"BUSDT"} == set(books(listed(universe, "BUSDT")))


def test_a_pattern_that_matches_too_many_symbols_keeps_the_ones_before() -> None:
    universe = listed(select({"symbols": ["*USDT"]}), "AUSDT")
    flooded = listed(universe, *(f"S{number}USDT" for number in range(6)))

    assert {"AUSDT"} == set(books(flooded))
    assert "matches 6 symbols; instruments.symbols_max is 5" in only(flooded).problem


def test_a_pattern_that_matches_nothing_reports_it() -> None:
    universe = listed(select({"symbols": ["*USDTT"]}), "AUSDT")

    assert "unresolved" == only(universe).state
    assert "none of the 1 listed symbols matches" == only(universe).problem


def test_every_list_is_queried_once_and_with_turnover_if_a_pattern_ranks() -> None:
    universe = select(
        {"symbols": ["*USDT", "top:3:turnover", "*USDC"]},
        {"category": "spot", "symbols": ["*BTC"]},
        {"category": "option", "depth": 25, "symbols": ["BTC-*", "ETH-*", "top:2:turnover:ETH-*"]},
    )

    queries = universe.queries()
    assert {
        RANKED,
        InstrumentQuery("spot"),
        InstrumentQuery("option", "BTC"),
        InstrumentQuery("option", "ETH", has_turnover=True),
    } == set(queries)
    assert 4 == len(queries)


def test_a_list_without_turnover_does_not_resolve_a_ranked_pattern() -> None:
    """The pattern was added while the list was on its way."""
    universe = listed(select({"symbols": ["top:2:turnover"]}), "AUSDT", "BUSDT")

    assert "unresolved" == only(universe).state
    assert not universe.streams()


@pytest.mark.parametrize("name", ["linear:*USDT", "linear:B*"])
def test_symbols_of_another_pattern_stay(name: str) -> None:
    universe = listed(select({"symbols": ["*USDT", "B*"]}), "AUSDT", "BUSDT", "BUSDC")

    rest = {"BUSDT", "BUSDC"} if name == "linear:*USDT" else {"AUSDT", "BUSDT"}
    assert rest == set(books(universe.without_pattern(name)))
