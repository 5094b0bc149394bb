"""
Discovery: keeps the patterns of a plan up to date with the exchange's instrument lists.

Decides when to request lists and which responses are accepted. ``plan.universe`` decides which
symbols a pattern matches, and ``instruments_client`` fetches the lists. A failed or implausible
response leaves the universe unchanged; only the status shows it. Knows no sockets but the
client's; time is passed in.
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
    InstrumentQuery,
    missing_from,
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
"""Symbols that one log line names."""
RETRY_LATE = ("forbidden", "rate_limited")
"""Failures that an early retry makes worse."""

ListKey = tuple[Category, str]
"""Category and base coin of a list."""


class Discovery:
    """
    The instrument lists behind the patterns of one pipeline.

    Args:
        settings: Refresh interval and the limit of symbols per pattern.
        retries: Pauses after a failure.
        telemetry: Registry of the counters.
        client: Fetches the lists.

    Attributes:
        client: Call ``take`` after its ``wakeup``.
        link: Whether the exchange answers, for a pipeline without connectors; None if unknown.
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
        self._requested: frozenset[str] = frozenset()
        """Names of the patterns whose lists have been requested."""
        self._lists: dict[ListKey, InstrumentList] = {}
        self._suspects: set[ListKey] = set()
        """Lists whose last response was implausible; the next one decides."""
        self._failures: dict[ListKey, str] = {}
        """The failure of each list that was logged last."""
        self._patterns: tuple[ResolvedPattern, ...] = ()
        self._results: Counter[str] = Counter()
        self._changes: Counter[str] = Counter()
        self._declare_counters(telemetry)

    def request_if_due(self, plan: Plan, now: float, *, probes_exchange: bool) -> Plan:
        """
        Request lists if it is time to; return the plan, with unresolved patterns in a new source.

        Args:
            plan: The plan in force.
            now: Time on the monotonic clock.
            probes_exchange: True to learn whether the exchange answers at all if a list fails.
        """
        self._patterns = plan.universe.patterns
        names = frozenset(pattern.name for pattern in self._patterns)
        if not self._requested <= names:
            self._requested &= names
            self._forget_unused(plan)
        if not names or not plan.rest_url:
            return plan
        if plan.rest_url != self._url:
            plan = self._on_new_source(plan)
        if names != self._requested:
            self._due = now
        if now >= self._due and not self.client.is_busy:
            self._requested = names
            self._due = now + self._settings.refresh_s
            self.client.request(
                ListRequest(
                    url=self._url,
                    queries=tuple(plan.universe.queries()),
                    websocket_url=_websocket_url(plan) if probes_exchange else "",
                    proxy=self._retries.proxy,
                )
            )
        return plan

    def take(self, plan: Plan, now: float, now_ms: int) -> Universe:
        """Take the client's response; return the universe after it."""
        response = self.client.take()
        before = plan.universe
        if response.request.url != plan.rest_url:  # of an earlier source
            self._requested = frozenset()
            return before
        if response.is_exchange_there is not None:
            self.link = Link(now, response.is_exchange_there)
        after, has_failed = self._accept(response, before, now_ms)
        self._due = now + (self._pause(response) if has_failed else self._settings.refresh_s)
        self._pause_s = self._pause_s if has_failed else 0.0
        self._report_changes(before, after)
        self._patterns = after.patterns
        return after

    def close(self) -> None:
        """Stop the client."""
        self.client.close()

    def _on_new_source(self, plan: Plan) -> Plan:
        """Forget the lists of the source before."""
        self._url = plan.rest_url
        self._requested = frozenset()
        self._pause_s = 0.0
        self._lists.clear()
        self._suspects.clear()
        self._failures.clear()
        return dataclasses.replace(plan, universe=plan.universe.unresolved())

    def _forget_unused(self, plan: Plan) -> None:
        """Forget the lists of removed patterns: an old list proves nothing about a new one."""
        used = {query.key for query in plan.universe.queries()}
        self._lists = {key: self._lists[key] for key in self._lists.keys() & used}
        self._suspects &= used
        self._failures = {key: self._failures[key] for key in self._failures.keys() & used}

    def _accept(
        self, response: ListResponse, universe: Universe, now_ms: int
    ) -> tuple[Universe, bool]:
        """The universe after a response, and True if a list is missing or implausible."""
        errors = dict(response.errors)
        for query, instruments in response.lists.items():
            missing = missing_from(instruments, self._lists.get(query.key, instruments))
            if missing and query.key not in self._suspects:
                self._suspects.add(query.key)
                text = (
                    f"the list of {query} lacks {missing} instruments of the list before; "
                    f"accepted if the next list confirms it"
                )
                errors[query] = InstrumentListError("implausible", text)
                continue
            self._suspects.discard(query.key)
            self._lists[query.key] = instruments
            self._results["ok"] += 1
            if self._failures.pop(query.key, ""):
                log.info("instrument list available again", list=str(query), url=self._url)
            universe = universe.with_list(
                query, instruments, symbols_max=self._settings.symbols_max, now_ms=now_ms
            )
        for query, error in errors.items():
            self._report_failure(query, error)
            universe = universe.with_problem(query, f"{self._url}: {error}")
        return universe, bool(errors)

    def _report_failure(self, query: InstrumentQuery, error: InstrumentListError) -> None:
        """Count every failure; log it when it is another one than before."""
        self._results[error.failure] += 1
        if self._failures.get(query.key) != error.failure:
            self._failures[query.key] = error.failure
            log.warning(
                "instrument list unavailable, symbols unchanged",
                list=str(query),
                url=self._url,
                reason=error.failure,
                error=str(error),
            )

    def _pause(self, response: ListResponse) -> float:
        """Seconds until the next attempt: doubling, or the longest pause for ``RETRY_LATE``."""
        if not response.errors:  # an implausible list can wait
            return self._settings.refresh_s
        longest, shortest = self._retries.backoff_max_s, self._retries.backoff_initial_s
        if any(error.failure in RETRY_LATE for error in response.errors.values()):
            self._pause_s = longest
        else:
            self._pause_s = min(max(shortest, 2 * self._pause_s), longest)
        return self._pause_s

    def _report_changes(self, before: Universe, after: Universe) -> None:
        """Log and count the symbols that join and leave, one line per pattern."""
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
            is_reported = new.query.key in self._failures
            if new.problem not in ("", old.problem) and not is_reported:
                log.warning("pattern not resolved", pattern=new.name, reason=new.problem)

    # -- counters --------------------------------------------------------------------------------

    def _declare_counters(self, telemetry: Telemetry) -> None:
        telemetry.counters(
            "instrument_lists_total",
            "Instrument lists requested.",
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
            "pattern_symbols", "Symbols that match a pattern.", ("pattern",), self._symbol_samples
        )
        telemetry.gauges(
            "pattern_resolved",
            "1 while a pattern is up to date.",
            ("pattern",),
            self._resolved_samples,
        )

    def _symbol_samples(self) -> Samples:
        return {(pattern.name,): len(pattern.symbols) for pattern in self._patterns}.items()

    def _resolved_samples(self) -> Samples:
        return {(pattern.name,): pattern.state == "resolved" for pattern in self._patterns}.items()


def _websocket_url(plan: Plan) -> str:
    """The websocket of the first pattern's category."""
    return fill_category(plan.url, plan.universe.patterns[0].category)


def _names(symbols: set[str]) -> str:
    named = sorted(symbols)
    more = len(named) - NAMES_MAX
    return " ".join(named[:NAMES_MAX]) + (f" and {more} more" if more > 0 else "")
