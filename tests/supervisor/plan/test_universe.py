"""What is followed, by name and by pattern, as lists of instruments come in."""

from typing import Any

import pytest

from bybit_pipeline.shared.settings.config import make_config
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
    """After a list."""
    return universe.with_list(query, InstrumentList(symbols), symbols_max=5, now_ms=7)


def books(universe: Universe) -> dict[str, int]:
    """Depth by symbol."""
    return {s.symbol: s.depth for s in universe.streams() if s.kind == "book"}


def only(universe: Universe) -> ResolvedPattern:
    """Its only pattern."""
    [choice] = universe.patterns
    return choice


def test_symbols_join_and_leave_with_the_list_and_named_ones_stay() -> None:
    universe = select({"symbols": ["DEADUSDT", "*USDT"]})
    assert books(universe) == {"DEADUSDT": 50}

    for symbols in (["AUSDT", "BUSDT", "CUSDC"], ["BUSDT", "DUSDT", "DEADUSDT"], ["BUSDT"]):
        universe = listed(universe, *symbols)
        wanted = {symbol for symbol in symbols if symbol.endswith("USDT")}
        assert set(books(universe)) == wanted | {"DEADUSDT"}


def test_each_topic_is_wanted_once_named_before_pattern_and_first_before_second() -> None:
    universe = select(
        {"symbols": ["AUSDT"], "depth": 1},
        {"symbols": ["B*"], "depth": 200},
        {"symbols": ["*USDT"], "depth": 50, "streams": ["orderbook"]},
    )
    universe = listed(universe, "AUSDT", "BUSDT", "CUSDT")

    assert books(universe) == {"AUSDT": 1, "BUSDT": 200, "CUSDT": 50}
    assert {s.symbol for s in universe.streams() if s.kind == "trade"} == {"AUSDT", "BUSDT"}


def test_the_same_pattern_may_have_trades_and_books_in_two_tables() -> None:
    universe = select(
        {"symbols": ["*USDT"], "streams": ["trades"]},
        {"symbols": ["*USDT"], "streams": ["orderbook"], "depth": 1},
    )

    assert len(listed(universe, "AUSDT").streams()) == 2


def test_who_moves_to_another_pattern_gets_its_depth() -> None:
    """Deep books for the busiest, shallow ones for the rest."""
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
    assert {p.stream.symbol: p.stream.depth for p in after.placements} == {"AUSDT": 1, "BUSDT": 200}
    [(_, unsubscribed)], [(_, subscribed)] = step.unsubscribe, step.subscribe
    assert {(s["symbol"], s["depth"]) for s in unsubscribed["streams"]} == {
        ("AUSDT", 200),
        ("BUSDT", 1),
    }
    assert {(s["symbol"], s["depth"]) for s in subscribed["streams"]} == {
        ("AUSDT", 1),
        ("BUSDT", 200),
    }
    assert step.stop == step.start == ()


def test_what_stays_is_not_touched() -> None:
    plan = make_plan(make_config({"market": [{"symbols": ["*USDT"]}]}), run_dir="/run/x")
    before = plan.with_universe(listed(plan.universe, "AUSDT", "BUSDT"))
    same = before.with_universe(listed(before.universe, "BUSDT", "AUSDT"))
    assert same.placements is before.placements

    step = change(before, before.with_universe(listed(before.universe, "BUSDT", "CUSDT")))
    commands = [command for _, command in (*step.unsubscribe, *step.readers, *step.subscribe)]
    assert "BUSDT" not in str(commands)
    assert {"AUSDT", "CUSDT"} <= {word for c in commands for word in str(c).split("'")}


def test_a_problem_changes_what_is_said_and_nothing_else() -> None:
    universe = listed(select({"symbols": ["*USDT"]}), "AUSDT")
    assert only(universe).state == "resolved"

    failed = universe.with_problem(LINEAR, "HTTP 403")
    assert failed.streams() == universe.streams()
    assert (only(failed).state, only(failed).problem) == ("outdated", "HTTP 403")
    assert only(listed(failed, "AUSDT")).state == "resolved"


def test_in_another_source_symbols_stay_until_its_list_is_there() -> None:
    universe = listed(select({"symbols": ["*USDT"]}), "AUSDT").elsewhere()

    assert only(universe).state == "unresolved"
    assert set(books(universe)) == {"AUSDT"}
    assert set(books(listed(universe, "BUSDT"))) == {"BUSDT"}


def test_a_pattern_of_too_many_is_not_followed_and_keeps_what_it_had() -> None:
    universe = listed(select({"symbols": ["*USDT"]}), "AUSDT")
    flooded = listed(universe, *(f"S{number}USDT" for number in range(6)))

    assert set(books(flooded)) == {"AUSDT"}
    assert "stands for 6 symbols; instruments.symbols_max is 5" in only(flooded).problem


def test_a_pattern_of_nothing_says_so() -> None:
    universe = listed(select({"symbols": ["*USDTT"]}), "AUSDT")

    assert only(universe).state == "unresolved"
    assert only(universe).problem == "none of the 1 listed symbols is of this form"


def test_lists_are_needed_once_each_and_with_turnover_if_anybody_ranks() -> None:
    universe = select(
        {"symbols": ["*USDT", "top:3:turnover", "*USDC"]},
        {"category": "spot", "symbols": ["*BTC"]},
        {"category": "option", "depth": 25, "symbols": ["BTC-*", "ETH-*", "top:2:turnover:ETH-*"]},
    )

    assert set(universe.queries()) == {
        RANKED,
        InstrumentQuery("spot"),
        InstrumentQuery("option", "BTC"),
        InstrumentQuery("option", "ETH", has_turnover=True),
    }
    assert len(universe.queries()) == 4


def test_a_list_without_turnover_ranks_nobody() -> None:
    """The pattern came while the list was on its way."""
    universe = listed(select({"symbols": ["top:2:turnover"]}), "AUSDT", "BUSDT")

    assert only(universe).state == "unresolved"
    assert not universe.streams()


@pytest.mark.parametrize("name", ["linear:*USDT", "linear:B*"])
def test_what_another_pattern_stands_for_stays(name: str) -> None:
    universe = listed(select({"symbols": ["*USDT", "B*"]}), "AUSDT", "BUSDT", "BUSDC")

    left = set(books(universe.without_pattern(name)))
    assert left == ({"BUSDT", "BUSDC"} if name == "linear:*USDT" else {"AUSDT", "BUSDT"})
