"""
Keeping patterns up to date: when lists are asked for, and what their answers change.

Decides when to ask and which answers are believed; what a pattern stands for is decided in
``universe``, how lists are had in ``client``. An answer that cannot be had or believed changes
nothing but what the status says. Knows no sockets but the client's; time comes in.
"""

import dataclasses
from collections import Counter

import structlog

from bybit_pipeline.shared.runtime.telemetry import Samples, Telemetry
from bybit_pipeline.shared.settings.config import ConnectorConfig, InstrumentsConfig
from bybit_pipeline.shared.wire.messages import Category
from bybit_pipeline.supervisor.plan.instruments import (
    FAILURES,
    InstrumentList,
    InstrumentListError,
    vanished,
)
from bybit_pipeline.supervisor.plan.names import fill_category
from bybit_pipeline.supervisor.plan.plan import Plan
from bybit_pipeline.supervisor.plan.universe import ResolvedPattern, Universe
from bybit_pipeline.supervisor.source.fallback import Link
from bybit_pipeline.supervisor.source.instruments_client import (
    InstrumentsClient,
    ListRequest,
    ListResponse,
)

log = structlog.get_logger()

NAMES_MAX = 10
"""So many symbols are named in one line of the log."""
HOPELESS = ("forbidden", "rate_limited")
"""Failures that asking again soon makes worse."""

ListKey = tuple[Category, str]
"""Category and base coin of a list."""


class Discovery:
    """
    The lists behind the patterns of one pipeline.

    Args:
        settings: How often to ask, how many symbols a pattern may have.
        retries: How long to wait after a failure.
        telemetry: Where the counters are declared.
        client: Gets the lists.

    Attributes:
        client: Watch its ``reader`` and call ``take`` when it is readable.
        link: As of a connector, of a pipeline that has none: whether the exchange answers at all.
    """

    def __init__(
        self,
        settings: InstrumentsConfig,
        retries: ConnectorConfig,
        telemetry: Telemetry,
        *,
        client: InstrumentsClient | None = None,
    ) -> None:
        self.client = client or InstrumentsClient()
        self.link: Link | None = None
        self._settings = settings
        self._retries = retries
        self._url = ""
        self._due = 0.0
        self._pause_s = 0.0
        self._known: frozenset[str] = frozenset()
        """Names of the patterns that were asked for."""
        self._lists: dict[ListKey, InstrumentList] = {}
        self._suspect: set[ListKey] = set()
        self._said: dict[ListKey, str] = {}
        """The failure of each list as the log has it."""
        self._patterns: tuple[ResolvedPattern, ...] = ()
        self._results: Counter[str] = Counter()
        self._changes: Counter[str] = Counter()
        self._declare_counters(telemetry)

    def look(self, plan: Plan, now: float, *, asks_exchange: bool) -> Plan:
        """
        Ask for lists if it is time to; the plan, whose patterns are unresolved in a new source.

        Args:
            plan: The plan in force.
            now: On the monotonic clock.
            asks_exchange: Whether it matters if the exchange answers at all.
        """
        self._patterns = plan.universe.patterns
        names = frozenset(choice.name for choice in self._patterns)
        if not self._known <= names:
            self._known &= names
            self._forget_unused(plan)
        if not names or not plan.rest_url:
            return plan
        if plan.rest_url != self._url:
            plan = self._moved(plan)
        if names != self._known:
            self._due = now
        if now >= self._due and not self.client.is_busy:
            self._known = names
            self._due = now + self._settings.refresh_s
            self.client.ask(
                ListRequest(
                    url=self._url,
                    queries=tuple(plan.universe.queries()),
                    websocket_url=websocket_url(plan) if asks_exchange else "",
                )
            )
        return plan

    def take(self, plan: Plan, now: float, now_ms: int) -> Universe:
        """What is asked for after the client's answer."""
        answer = self.client.take()
        before = plan.universe
        if answer.request.url != plan.rest_url:  # the source changed meanwhile
            self._known = frozenset()
            return before
        if answer.is_exchange_there is not None:
            self.link = Link(now, answer.is_exchange_there)
        after, has_failed = self._believed(answer, before, now_ms)
        self._due = now + (self._pause(answer) if has_failed else self._settings.refresh_s)
        self._pause_s = self._pause_s if has_failed else 0.0
        self._tell(before, after)
        self._patterns = after.patterns
        return after

    def close(self) -> None:
        """Stop asking."""
        self.client.close()

    def _moved(self, plan: Plan) -> Plan:
        """Forget what another source listed."""
        self._url = plan.rest_url
        self._known = frozenset()
        self._pause_s = 0.0
        self._lists.clear()
        self._suspect.clear()
        self._said.clear()
        return dataclasses.replace(plan, universe=plan.universe.elsewhere())

    def _forget_unused(self, plan: Plan) -> None:
        """Forget the lists of patterns that are gone: once they are old they prove nothing."""
        needed = {(query.category, query.base_coin) for query in plan.universe.queries()}
        self._lists = {key: self._lists[key] for key in self._lists.keys() & needed}
        self._suspect &= needed
        self._said = {key: self._said[key] for key in self._said.keys() & needed}

    def _believed(
        self, answer: ListResponse, universe: Universe, now_ms: int
    ) -> tuple[Universe, bool]:
        """The universe after an answer, and whether a list of it is missing."""
        errors = dict(answer.errors)
        for query, instruments in answer.lists.items():
            key = (query.category, query.base_coin)
            gone = vanished(self._lists.get(key, instruments), instruments)
            if gone and key not in self._suspect:
                self._suspect.add(key)
                text = (
                    f"{gone} instruments are missing in the list of {query}; the next list decides"
                )
                errors[query] = InstrumentListError("implausible", text)
                continue
            self._suspect.discard(key)
            self._lists[key] = instruments
            self._results["ok"] += 1
            if self._said.pop(key, ""):
                log.info("list of instruments is back", list=str(query), url=self._url)
            universe = universe.with_list(
                query, instruments, symbols_max=self._settings.symbols_max, now_ms=now_ms
            )
        for query, error in errors.items():
            key = (query.category, query.base_coin)
            self._results[error.failure] += 1
            if self._said.get(key) != error.failure:
                self._said[key] = error.failure
                log.warning(
                    "no list of instruments, symbols stay as they are",
                    list=str(query),
                    url=self._url,
                    reason=error.failure,
                    error=str(error),
                )
            universe = universe.with_problem(query, f"{self._url}: {error}")
        return universe, bool(errors)

    def _pause(self, answer: ListResponse) -> float:
        """Seconds until the next attempt: doubling, and long at once where haste does harm."""
        if not answer.errors:  # what is not believed is not in a hurry
            return self._settings.refresh_s
        longest, shortest = self._retries.backoff_max_s, self._retries.backoff_initial_s
        if any(error.failure in HOPELESS for error in answer.errors.values()):
            self._pause_s = longest
        else:
            self._pause_s = min(max(shortest, 2 * self._pause_s), longest)
        return self._pause_s

    def _tell(self, before: Universe, after: Universe) -> None:
        """Say what comes and goes, a line a pattern."""
        for old, new in zip(before.patterns, after.patterns, strict=True):
            joined, left = set(new.symbols) - set(old.symbols), set(old.symbols) - set(new.symbols)
            self._changes["joined"] += len(joined)
            self._changes["left"] += len(left)
            if joined or left:
                log.info(
                    "symbols changed",
                    pattern=new.name,
                    symbols=len(new.symbols),
                    joined=_names(joined),
                    left=_names(left),
                )
            is_said = (new.query.category, new.query.base_coin) in self._said
            if new.problem not in ("", old.problem) and not is_said:
                log.warning("pattern is not followed", pattern=new.name, reason=new.problem)

    # -- counters --------------------------------------------------------------------------------

    def _declare_counters(self, telemetry: Telemetry) -> None:
        telemetry.counters(
            "instrument_lists_total",
            "Lists of instruments asked for.",
            ("result",),
            lambda: [((name,), self._results[name]) for name in ("ok", *FAILURES)],
        )
        telemetry.counters(
            "symbol_changes_total",
            "Symbols that joined or left patterns.",
            ("change",),
            lambda: [((name,), self._changes[name]) for name in ("joined", "left")],
        )
        telemetry.gauges(
            "pattern_symbols", "What a pattern stands for.", ("pattern",), self._symbol_samples
        )
        telemetry.gauges(
            "pattern_resolved",
            "1 while a pattern is up to date.",
            ("pattern",),
            self._resolved_samples,
        )

    def _symbol_samples(self) -> Samples:
        return {(choice.name,): len(choice.symbols) for choice in self._patterns}.items()

    def _resolved_samples(self) -> Samples:
        return {(choice.name,): choice.state == "resolved" for choice in self._patterns}.items()


def websocket_url(plan: Plan) -> str:
    """The websocket of the first pattern's category."""
    return fill_category(plan.url, plan.universe.patterns[0].category)


def _names(symbols: set[str]) -> str:
    named = sorted(symbols)
    more = len(named) - NAMES_MAX
    return " ".join(named[:NAMES_MAX]) + (f" and {more} more" if more > 0 else "")
