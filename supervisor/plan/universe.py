"""
The universe: every symbol that the pipeline follows, by name or by pattern. Pure.

Decides which streams are wanted, and how a new instrument list changes them. A symbol that was
named stays even if it is not listed. A symbol that only a pattern matches joins and leaves with the
list. If several entries want the same topic, the named symbol has precedence, then the first
pattern.
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


def make_stream(
    kind: StreamChoice, category: Category, symbol: str, depth: int, stale_after_s: float = 0.0
) -> Stream:
    """The stream for one entry of ``streams`` in the configuration."""
    return Stream(
        kind="trade" if kind == "trades" else "book",
        category=category,
        symbol=symbol,
        depth=0 if kind == "trades" else depth,
        stale_after_s=stale_after_s,
    )


@dataclass(frozen=True, kw_only=True)
class ResolvedPattern:
    """A pattern, and the listed symbols that it matches."""

    category: Category
    pattern: Pattern
    streams: tuple[StreamChoice, ...]
    depth: int
    stale_after_s: float = 0.0
    symbols: tuple[str, ...] = ()
    problem: str = ""
    """Why ``symbols`` may be out of date; empty if they are not, or before the first list."""
    resolved_ts_ms: int | None = None
    """Time of the last good list by our clock; None if the source in force has sent none."""

    @property
    def name(self) -> str:
        """The pattern with its category: ``linear:*USDT``."""
        return f"{self.category}:{self.pattern.text}"

    @property
    def query(self) -> InstrumentQuery:
        """The instrument list that it is matched with."""
        base_coin = self.pattern.base_coin(self.category)
        return InstrumentQuery(self.category, base_coin, has_turnover=self.pattern.top > 0)

    @property
    def state(self) -> State:
        """``resolved`` if the symbols are up to date; see ``problem`` for ``outdated``."""
        if self.resolved_ts_ms is None:
            return "unresolved"
        return "outdated" if self.problem else "resolved"

    def matches(self, category: Category, symbol: str) -> bool:
        """True if the symbol has the form of the pattern, whatever its turnover."""
        return category == self.category and self.pattern.fits(symbol)

    def resolved(
        self, instruments: InstrumentList, *, symbols_max: int, now_ms: int
    ) -> "ResolvedPattern":
        """The pattern with the symbols of a new list, or with the reason why it keeps its own."""
        symbols = tuple(chosen(self.pattern, instruments.symbols, self.symbols))
        if len(symbols) > symbols_max:
            problem = f"matches {len(symbols)} symbols; instruments.symbols_max is {symbols_max}"
            return dataclasses.replace(self, problem=problem)
        if not symbols:
            problem = f"none of the {len(instruments.symbols)} listed symbols matches"
            return dataclasses.replace(self, symbols=(), problem=problem, resolved_ts_ms=None)
        return dataclasses.replace(self, symbols=symbols, problem="", resolved_ts_ms=now_ms)


@dataclass(frozen=True, kw_only=True)
class Universe:
    """The symbols and patterns that the pipeline follows."""

    named: tuple[Stream, ...] = ()
    patterns: tuple[ResolvedPattern, ...] = ()
    excluded: frozenset[tuple[Category, str]] = frozenset()
    """Symbols that were unsubscribed by name although a pattern matches them."""

    def streams(self) -> list[Stream]:
        """The wanted streams, each topic once."""
        wanted = {stream.topic: stream for stream in self.named}
        for pattern in self.patterns:
            for symbol in pattern.symbols:
                if (pattern.category, symbol) not in self.excluded:
                    for kind in pattern.streams:
                        stream = make_stream(
                            kind,
                            pattern.category,
                            symbol,
                            pattern.depth,
                            pattern.stale_after_s,
                        )
                        wanted.setdefault(stream.topic, stream)
        return list(wanted.values())

    def queries(self) -> list[InstrumentQuery]:
        """The instrument lists that the patterns are matched with, each once."""
        found: dict[tuple[Category, str], InstrumentQuery] = {}
        for query in sorted((pattern.query for pattern in self.patterns), key=str):
            has_turnover = query.has_turnover or (
                query.key in found and found[query.key].has_turnover
            )
            found[query.key] = dataclasses.replace(query, has_turnover=has_turnover)
        return list(found.values())

    # -- subscribe and unsubscribe ---------------------------------------------------------------

    def with_named(self, streams: Iterable[Stream]) -> "Universe":
        """Add streams by name; ignore those that are named already."""
        named = {stream.topic: stream for stream in self.named}
        for stream in streams:
            named.setdefault(stream.topic, stream)
        back = {(stream.category, stream.symbol) for stream in named.values()}
        return dataclasses.replace(self, named=tuple(named.values()), excluded=self.excluded - back)

    def without_named(self, streams: Iterable[Stream]) -> "Universe":
        """Remove streams by name; those that a pattern matches stay."""
        removed = set(streams)
        named = tuple(stream for stream in self.named if stream not in removed)
        return dataclasses.replace(self, named=named)

    def without_symbol(self, category: Category, symbol: str) -> "Universe":
        """Remove a symbol, even if a pattern matches it."""
        market = (category, symbol)
        named = tuple(s for s in self.named if (s.category, s.symbol) != market)
        excluded = self.excluded | (
            {market} if any(p.matches(category, symbol) for p in self.patterns) else set()
        )
        return dataclasses.replace(self, named=named, excluded=excluded)

    def with_pattern(self, pattern: ResolvedPattern) -> "Universe":
        """Add a pattern; if it is there already, only bring back its excluded symbols."""
        back = {market for market in self.excluded if pattern.matches(*market)}
        is_known = pattern.name in {other.name for other in self.patterns}
        patterns = self.patterns if is_known else (*self.patterns, pattern)
        return dataclasses.replace(self, patterns=patterns, excluded=self.excluded - back)

    def without_pattern(self, name: str) -> "Universe":
        """Remove a pattern; symbols that are named or that another pattern matches stay."""
        patterns = tuple(pattern for pattern in self.patterns if pattern.name != name)
        excluded = frozenset(
            market for market in self.excluded if any(p.matches(*market) for p in patterns)
        )
        return dataclasses.replace(self, patterns=patterns, excluded=excluded)

    # -- instrument lists ------------------------------------------------------------------------

    def with_list(
        self, query: InstrumentQuery, instruments: InstrumentList, *, symbols_max: int, now_ms: int
    ) -> "Universe":
        """Match the patterns of a query with a new list."""

        def resolve(pattern: ResolvedPattern) -> ResolvedPattern:
            if pattern.query.has_turnover and not query.has_turnover:
                return pattern  # it was added after the list was requested
            return pattern.resolved(instruments, symbols_max=symbols_max, now_ms=now_ms)

        return self._each(query, resolve)

    def with_problem(self, query: InstrumentQuery, problem: str) -> "Universe":
        """Record why a list is missing; the symbols stay as they are."""
        return self._each(query, lambda p: dataclasses.replace(p, problem=problem))

    def unresolved(self) -> "Universe":
        """Mark every pattern as unresolved, for a new source; its symbols stay until its list."""
        patterns = tuple(
            dataclasses.replace(pattern, problem="", resolved_ts_ms=None)
            for pattern in self.patterns
        )
        return dataclasses.replace(self, patterns=patterns)

    def _each(
        self, query: InstrumentQuery, change: Callable[[ResolvedPattern], ResolvedPattern]
    ) -> "Universe":
        patterns = tuple(
            change(pattern) if pattern.query.key == query.key else pattern
            for pattern in self.patterns
        )
        return dataclasses.replace(self, patterns=patterns)


def configured_universe(markets: Iterable[MarketConfig]) -> Universe:
    """The symbols and patterns of the market tables, in their order."""
    universe = Universe()
    for market in markets:
        for word in market.symbols:
            universe = _with_word(universe, market, word)
    return universe


def _with_word(universe: Universe, market: MarketConfig, word: str) -> Universe:
    if is_pattern(word):
        patterns = (*universe.patterns, unresolved_pattern(market, word))
        return dataclasses.replace(universe, patterns=patterns)
    return universe.with_named(symbol_streams(market, word))


def symbol_streams(market: MarketConfig, symbol: str) -> list[Stream]:
    """The streams of a symbol, with the settings of a market table."""
    return [
        make_stream(kind, market.category, symbol, market.depth, market.stale_after_s)
        for kind in market.streams
    ]


def unresolved_pattern(market: MarketConfig, text: str) -> ResolvedPattern:
    """
    A pattern without symbols, with the settings of a market table.

    Raises:
        ValueError: If the text is not a pattern.
    """
    pattern = parse_pattern(text, market.category)
    return ResolvedPattern(
        category=market.category,
        pattern=pattern,
        streams=market.streams,
        depth=market.depth,
        stale_after_s=market.stale_after_s,
    )
