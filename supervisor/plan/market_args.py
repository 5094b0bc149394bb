"""
``[CATEGORY:]SYMBOL`` arguments of ``subscribe`` and ``unsubscribe``. Pure.

A pattern may stand in place of the symbol; see ``shared.settings.patterns``. A market that joins a
running pipeline gets the streams and the depth of the first market table of its category, or the
defaults if there is none.
"""

from collections.abc import Iterable
from typing import NamedTuple

from bybit_pipeline.shared.bybit import CATEGORIES, DEPTHS, SYMBOL
from bybit_pipeline.shared.errors import EX_USAGE, PipelineError
from bybit_pipeline.shared.settings.config import MarketConfig
from bybit_pipeline.shared.settings.patterns import is_pattern, parse_pattern
from bybit_pipeline.shared.settings.specs import Stream
from bybit_pipeline.shared.wire.messages import Category
from bybit_pipeline.supervisor.plan.plan import Plan
from bybit_pipeline.supervisor.plan.universe import symbol_streams, unresolved_pattern


class MarketError(PipelineError):
    """An argument that is not a market, or a market that is not subscribed."""

    exit_code = EX_USAGE


class MarketArg(NamedTuple):
    """A parsed argument."""

    category: Category
    name: str
    """A symbol or a pattern."""

    @property
    def is_pattern(self) -> bool:
        """True if it is a pattern."""
        return is_pattern(self.name)

    def __str__(self) -> str:
        return f"{self.category}:{self.name}"


def parse_market(word: str, *, categories: Iterable[Category] = ()) -> MarketArg:
    """
    Return the market that ``[CATEGORY:]SYMBOL`` or ``[CATEGORY:]PATTERN`` names.

    Args:
        word: As typed.
        categories: The configured ones. A word without a category belongs to the only one, or to
            ``linear`` if there are several or none.

    Raises:
        MarketError: If the word has another form.
    """
    first, _, rest = word.partition(":")
    for category in CATEGORIES:
        if first == category:
            break
    else:
        category, rest = _default_category(categories), word
    if SYMBOL.fullmatch(rest) or _is_valid_pattern(rest, category):
        return MarketArg(category, rest)
    raise MarketError(
        f"{word!r} is not a market; use [CATEGORY:]SYMBOL such as BTCUSDT or spot:BTCUSDT, "
        f"or [CATEGORY:]PATTERN such as 'linear:*USDT', CATEGORY one of {', '.join(CATEGORIES)}"
    )


def _default_category(categories: Iterable[Category]) -> Category:
    configured = set(categories)
    return configured.pop() if len(configured) == 1 else "linear"


def _is_valid_pattern(text: str, category: Category) -> bool:
    if not is_pattern(text):
        return False
    try:
        parse_pattern(text, category)
    except ValueError as error:
        raise MarketError(str(error)) from error
    return True


def subscribe(plan: Plan, words: Iterable[str]) -> Plan:
    """
    The plan with more markets; present ones stay as they are.

    Raises:
        MarketError: If a word is not a market.
    """
    universe = plan.universe
    for market in markets_of(plan, words):
        table = _market_table(plan, market.category)
        if market.is_pattern:
            universe = universe.with_pattern(unresolved_pattern(table, market.name))
        else:
            universe = universe.with_named(symbol_streams(table, market.name))
    return plan.with_universe(universe)


def unsubscribe(plan: Plan, words: Iterable[str]) -> Plan:
    """
    The plan without some markets; removing a pattern keeps symbols that are subscribed by name.

    Raises:
        MarketError: If a word is not a market, or the market is not subscribed.
    """
    universe = plan.universe
    for market in markets_of(plan, words):
        patterns = [pattern.name for pattern in plan.universe.patterns]
        is_there = str(market) in patterns if market.is_pattern else streams_of(plan, market)
        if not is_there:
            hint = f"; subscribed patterns: {', '.join(patterns)}" if market.is_pattern else ""
            raise MarketError(f"{market} is not subscribed{hint if patterns else ''}")
        if market.is_pattern:
            universe = universe.without_pattern(str(market))
        else:
            universe = universe.without_symbol(*market)
    return plan.with_universe(universe)


def markets_of(plan: Plan, words: Iterable[str]) -> list[MarketArg]:
    """
    The words as arguments for this pipeline.

    Raises:
        MarketError: If a word is not a market.
    """
    categories = [market.category for market in plan.config.market]
    return [parse_market(word, categories=categories) for word in words]


def streams_of(plan: Plan, market: MarketArg) -> list[Stream]:
    """The streams of one symbol in the plan."""
    streams = (placement.stream for placement in plan.placements)
    return [stream for stream in streams if (stream.category, stream.symbol) == market]


def _market_table(plan: Plan, category: Category) -> MarketConfig:
    tables = (market for market in plan.config.market if market.category == category)
    return next(tables, MarketConfig(category=category, depth=_default_depth(category)))


def _default_depth(category: Category) -> int:
    depths = DEPTHS[category]
    return MarketConfig().depth if MarketConfig().depth in depths else depths[0]
