"""
What the pipeline is asked to follow: symbols by name, and patterns with what they stand for. Pure.

Decides which streams are wanted, and what a new list of instruments changes in that. A symbol that
was named stays whatever the list says; one that only a pattern stands for comes and goes with the
list. Where several ask for the same topic the named one comes first, then the first pattern.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from bybit_pipeline.shared.settings.config import MarketConfig, StreamChoice
from bybit_pipeline.shared.settings.patterns import Pattern, chosen, is_pattern, parse_pattern
from bybit_pipeline.shared.settings.specs import Stream
from bybit_pipeline.shared.wire.messages import Category
from bybit_pipeline.supervisor.plan.instruments import InstrumentList, InstrumentQuery

State = Literal["resolved", "outdated", "unresolved"]


def make_stream(choice: StreamChoice, category: Category, symbol: str, depth: int) -> Stream:
    """The stream for one word of ``streams`` in the configuration."""
    if choice == "trades":
        return Stream(kind="trade", category=category, symbol=symbol)
    return Stream(kind="book", category=category, symbol=symbol, depth=depth)


@dataclass(frozen=True, kw_only=True)
class ResolvedPattern:
    """A pattern, and the symbols that it stands for."""

    category: Category
    pattern: Pattern
    streams: tuple[StreamChoice, ...]
    depth: int
    symbols: tuple[str, ...] = ()
    problem: str = ""
    """Why ``symbols`` may not be what they should be; empty if they are, or nobody knows yet."""
    resolved_ts_ms: int | None = None
    """When they last were, by our clock; None if never in the source in force."""

    @property
    def name(self) -> str:
        """As people write it: ``linear:*USDT``."""
        return f"{self.category}:{self.pattern.text}"

    @property
    def query(self) -> InstrumentQuery:
        """The list that it queries."""
        base_coin = self.pattern.base_coin(self.category)
        return InstrumentQuery(self.category, base_coin, has_turnover=self.pattern.top > 0)

    @property
    def state(self) -> State:
        """Whether its symbols are those of the list."""
        if self.resolved_ts_ms is None:
            return "unresolved"
        return "outdated" if self.problem else "resolved"

    def stream(self, kind: StreamChoice, symbol: str) -> Stream:
        """One of its streams."""
        return make_stream(kind, self.category, symbol, self.depth)


@dataclass(frozen=True, kw_only=True)
class Universe:
    """Everything that is asked for."""

    named: tuple[Stream, ...] = ()
    patterns: tuple[ResolvedPattern, ...] = ()
    excluded: frozenset[tuple[Category, str]] = frozenset()
    """Symbols that were unsubscribed by name although a pattern stands for them."""

    def streams(self) -> list[Stream]:
        """The wanted streams, each topic once."""
        wanted = {stream.topic: stream for stream in self.named}
        for choice in self.patterns:
            for symbol in choice.symbols:
                if (choice.category, symbol) not in self.excluded:
                    for kind in choice.streams:
                        stream = choice.stream(kind, symbol)
                        wanted.setdefault(stream.topic, stream)
        return list(wanted.values())

    def queries(self) -> list[InstrumentQuery]:
        """The lists that the patterns query, each once."""
        found: dict[tuple[Category, str], InstrumentQuery] = {}
        for query in sorted((choice.query for choice in self.patterns), key=str):
            key = (query.category, query.base_coin)
            has_turnover = query.has_turnover or (key in found and found[key].has_turnover)
            found[key] = dataclasses.replace(query, has_turnover=has_turnover)
        return list(found.values())

    # -- what people ask for ---------------------------------------------------------------------

    def with_named(self, streams: Iterable[Stream]) -> "Universe":
        """With more streams by name; a second time changes nothing."""
        named = {stream.topic: stream for stream in self.named}
        for stream in streams:
            named.setdefault(stream.topic, stream)
        back = {(stream.category, stream.symbol) for stream in named.values()}
        return dataclasses.replace(self, named=tuple(named.values()), excluded=self.excluded - back)

    def without_named(self, streams: Iterable[Stream]) -> "Universe":
        """Without some of the streams by name; what a pattern stands for stays."""
        gone = set(streams)
        named = tuple(stream for stream in self.named if stream not in gone)
        return dataclasses.replace(self, named=named)

    def without_symbol(self, category: Category, symbol: str) -> "Universe":
        """Without a symbol, also where a pattern stands for it."""
        market = (category, symbol)
        named = tuple(s for s in self.named if (s.category, s.symbol) != market)
        is_covered = any(c.category == category and c.pattern.fits(symbol) for c in self.patterns)
        excluded = self.excluded | ({market} if is_covered else set())
        return dataclasses.replace(self, named=named, excluded=excluded)

    def with_pattern(self, choice: ResolvedPattern) -> "Universe":
        """With one more pattern; a second time only brings back what was left out of it."""
        back = {
            (category, symbol)
            for category, symbol in self.excluded
            if category == choice.category and choice.pattern.fits(symbol)
        }
        known = choice.name in {other.name for other in self.patterns}
        patterns = self.patterns if known else (*self.patterns, choice)
        return dataclasses.replace(self, patterns=patterns, excluded=self.excluded - back)

    def without_pattern(self, name: str) -> "Universe":
        """Without a pattern; what is named, or another pattern stands for, stays."""
        patterns = tuple(choice for choice in self.patterns if choice.name != name)
        excluded = frozenset(
            (category, symbol)
            for category, symbol in self.excluded
            if any(c.category == category and c.pattern.fits(symbol) for c in patterns)
        )
        return dataclasses.replace(self, patterns=patterns, excluded=excluded)

    # -- what lists say --------------------------------------------------------------------------

    def with_list(
        self, query: InstrumentQuery, instruments: InstrumentList, *, symbols_max: int, now_ms: int
    ) -> "Universe":
        """With what the patterns that query this list stand for now."""

        def settled(choice: ResolvedPattern) -> ResolvedPattern:
            if choice.query.has_turnover and not query.has_turnover:  # it came after the question
                return choice
            return _settled(choice, instruments, symbols_max, now_ms)

        return self._each(query, settled)

    def with_problem(self, query: InstrumentQuery, problem: str) -> "Universe":
        """With the reason why a list is not there; nothing comes or goes."""
        return self._each(query, lambda c: dataclasses.replace(c, problem=problem))

    def elsewhere(self) -> "Universe":
        """For another source, whose lists are not there yet; nothing comes or goes until then."""
        patterns = tuple(
            dataclasses.replace(choice, problem="", resolved_ts_ms=None) for choice in self.patterns
        )
        return dataclasses.replace(self, patterns=patterns)

    def _each(
        self, query: InstrumentQuery, change: Callable[[ResolvedPattern], ResolvedPattern]
    ) -> "Universe":
        key = (query.category, query.base_coin)
        patterns = tuple(
            change(choice) if (choice.query.category, choice.query.base_coin) == key else choice
            for choice in self.patterns
        )
        return dataclasses.replace(self, patterns=patterns)


def configured_universe(markets: Iterable[MarketConfig]) -> Universe:
    """What the market tables ask for, in their order."""
    universe = Universe()
    for market in markets:
        for symbol in market.symbols:
            universe = _with_word(universe, market, symbol)
    return universe


def _with_word(universe: Universe, market: MarketConfig, word: str) -> Universe:
    if is_pattern(word):
        patterns = (*universe.patterns, unresolved(market, word))
        return dataclasses.replace(universe, patterns=patterns)
    streams = [make_stream(k, market.category, word, market.depth) for k in market.streams]
    return universe.with_named(streams)


def unresolved(market: MarketConfig, text: str) -> ResolvedPattern:
    """
    A pattern that is followed like the symbols of a market table.

    Raises:
        ValueError: If the text is no pattern.
    """
    pattern = parse_pattern(text, market.category)
    return ResolvedPattern(
        category=market.category, pattern=pattern, streams=market.streams, depth=market.depth
    )


def _settled(
    choice: ResolvedPattern, instruments: InstrumentList, symbols_max: int, now_ms: int
) -> ResolvedPattern:
    symbols = tuple(chosen(choice.pattern, instruments.symbols, choice.symbols))
    if len(symbols) > symbols_max:
        problem = f"stands for {len(symbols)} symbols; instruments.symbols_max is {symbols_max}"
        return dataclasses.replace(choice, problem=problem)
    if not symbols:
        problem = f"none of the {len(instruments.symbols)} listed symbols is of this form"
        return dataclasses.replace(choice, symbols=(), problem=problem, resolved_ts_ms=None)
    return dataclasses.replace(choice, symbols=symbols, problem="", resolved_ts_ms=now_ms)
