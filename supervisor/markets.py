"""
``CATEGORY:SYMBOL`` words of the command line, and the plan that they ask for. Pure.

A market that joins a running pipeline gets the streams and the depth of the first market table of
its category, else the defaults.
"""

from collections.abc import Iterable

from shared.config import CATEGORIES, DEPTHS, SYMBOL, MarketConfig
from shared.errors import EX_USAGE, PipelineError
from shared.messages import Category
from shared.specs import Stream
from supervisor.plan import Plan, make_stream, with_streams, without_streams


class MarketError(PipelineError):
    """A word that is not a market, or not one that the pipeline has."""

    exit_code = EX_USAGE


def parse_market(word: str) -> tuple[Category, str]:
    """
    Category and symbol of ``CATEGORY:SYMBOL``.

    Raises:
        MarketError: If it is not of that form.
    """
    category, _, symbol = word.partition(":")
    if category not in CATEGORIES or not SYMBOL.fullmatch(symbol):
        raise MarketError(
            f"{word!r} is not a market; allowed: CATEGORY:SYMBOL such as linear:BTCUSDT, "
            f"CATEGORY one of {', '.join(CATEGORIES)}"
        )
    return category, symbol


def subscribe(plan: Plan, words: Iterable[str]) -> Plan:
    """
    The plan with more markets; what it has already stays as it is.

    Raises:
        MarketError: If a word is not a market.
    """
    streams = [stream for word in words for stream in _streams(plan, *parse_market(word))]
    return with_streams(plan, streams)


def unsubscribe(plan: Plan, words: Iterable[str]) -> Plan:
    """
    The plan without some markets.

    Raises:
        MarketError: If a word is not a market, or the plan does not have it.
    """
    topics: list[str] = []
    for word in words:
        found = streams_of_market(plan, word)
        if not found:
            raise MarketError(f"{word} is not subscribed")
        topics.extend(stream.topic for stream in found)
    return without_streams(plan, topics)


def streams_of_market(plan: Plan, word: str) -> list[Stream]:
    """The streams that the plan has of a market."""
    market = parse_market(word)
    streams = (placement.stream for placement in plan.placements)
    return [stream for stream in streams if (stream.category, stream.symbol) == market]


def _streams(plan: Plan, category: Category, symbol: str) -> list[Stream]:
    fitting = (market for market in plan.config.market if market.category == category)
    default = MarketConfig(category=category, depth=_default_depth(category))
    table = next(fitting, default)
    return [make_stream(choice, category, symbol, table.depth) for choice in table.streams]


def _default_depth(category: Category) -> int:
    depths = DEPTHS[category]
    return MarketConfig().depth if MarketConfig().depth in depths else depths[0]
