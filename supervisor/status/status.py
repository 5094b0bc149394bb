"""
The status of a pipeline, and whether it is ready: from what children said to what users read.

Decides the shape of ``status --json`` (contract section 2) and what *ready* means. Pure.

Ready means: every process is up and none is flapping; every topic is confirmed and, if it is a
book, delivering; no book has been out of ``live`` for longer than ``NOT_LIVE_S``. A trades topic
counts as served once it is confirmed, because nothing comes until somebody trades, and a market
where nobody does must not make the pipeline unready for ever.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from bybit_pipeline.shared.bybit import TRADES_PREFIX
from bybit_pipeline.supervisor.children.restart import ExitReason
from bybit_pipeline.supervisor.plan.names import exchange_topic
from bybit_pipeline.supervisor.plan.plan import Plan

NOT_LIVE_S = 10.0
REASON_NAMES_MAX = 5
"""How many names one reason lists before it only counts."""


class HeartbeatStatus(msgspec.Struct, frozen=True):
    """
    What the supervisor relies on in a heartbeat's status, whatever else it holds.

    ``topics``, ``rejected`` and ``refused_topics`` are a connector's, by the exchange's topic;
    ``books`` and ``not_live`` an orderbook worker's, by state and by bus topic. Whoever says one
    of these means this by it.
    """

    connected: bool = False
    topics: dict[str, Literal["pending", "confirmed", "delivering", "rejected"]] = {}
    rejected: dict[str, str] = {}
    refused_topics: list[str] = []
    last_message_ts_ms: int | None = None
    books: dict[str, int] = {}
    not_live: dict[str, float] = {}
    lost: int = 0
    lag_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class ProcessView:
    """One process, the supervisor included, as the status shows it."""

    process: str
    role: str
    pid: int | None
    state: str
    is_up: bool
    is_flapping: bool
    restarts: Mapping[ExitReason, int]
    """By reason."""
    uptime_s: float | None
    cpu_seconds: float | None
    rss_bytes: int | None
    prometheus: str
    """``host:port``, empty while it is not up."""
    exit_code: int | None
    status: Mapping[str, Any]
    """What its last heartbeat said."""

    def summary(self) -> dict[str, Any]:
        """Its entry in ``processes``, and the common part of its ``process.NAME`` message."""
        return {
            "process": self.process,
            "role": self.role,
            "pid": self.pid,
            "state": self.state,
            "restarts": sum(self.restarts.values()),
            "restarts_by_reason": dict(self.restarts),
            "uptime_s": None if self.uptime_s is None else round(self.uptime_s, 3),
            "cpu_seconds": self.cpu_seconds,
            "rss_bytes": self.rss_bytes,
            "prometheus": self.prometheus or None,
            "exit_code": self.exit_code,
        }


def connector_entries(plan: Plan, views: Iterable[ProcessView]) -> list[dict[str, Any]]:
    """
    The connectors: what they say, laid over what the plan expects of them.

    A topic that its connector does not mention yet is ``pending``; one that it still mentions and
    that the plan has no longer is left out.
    """
    entries = []
    for view in views:
        if view.role != "connector":
            continue
        planned = [exchange_topic(stream) for stream in plan.streams_of(view.process)]
        said = dict(view.status)
        states = said.get("topics", {})
        topics = {topic: states.get(topic, "pending") for topic in planned}
        rejected = {t: why for t, why in said.get("rejected", {}).items() if t in topics}
        entries.append(
            {
                "process": view.process,
                "url": plan.connector_url(view.process),
                "connected": False,
                "session": None,
                "reconnects": 0,
                "ping_rtt_ms": None,
                "last_message_ts_ms": None,
                **said,
                "topics": topics,
                "rejected": rejected,
                "refused_topics": [t for t in said.get("refused_topics", ()) if t in topics],
            }
        )
    return entries


def pattern_entries(plan: Plan) -> list[dict[str, Any]]:
    """
    The patterns: what they stand for, and why that may not be what it should be.

    An ``unresolved`` one has not been compared with a list of the source in force, an ``outdated``
    one not lately.
    """
    return [
        {
            "pattern": choice.name,
            "state": choice.state,
            "reason": choice.problem or None,
            "resolved_ts_ms": choice.resolved_ts_ms,
            "symbols": list(choice.symbols),
        }
        for choice in plan.universe.patterns
    ]


def book_counts(plan: Plan, views: Iterable[ProcessView]) -> dict[str, int]:
    """Books by state; those of a worker that is not up are ``syncing``."""
    counts: Counter[str] = Counter(syncing=0, live=0, stale=0)
    for view in views:
        if view.role != "orderbook":
            continue
        if "books" in view.status:
            counts.update(view.status["books"])
        else:
            books = [a for a in plan.assignments_of(view.process) if a.stream.kind == "book"]
            counts["syncing"] += len(books)
    return dict(counts)


def unready_reasons(
    plan: Plan,
    views: Iterable[ProcessView],
    connectors: Iterable[Mapping[str, Any]],
    not_live_s: Mapping[str, float],
) -> list[str]:
    """
    Why the pipeline is not ready, for people; empty when it is.

    Args:
        plan: The plan in force.
        views: All processes.
        connectors: As ``connector_entries`` gives them.
        not_live_s: Books that are not ``live``, by bus topic, and for how many seconds.
    """
    return [
        *_process_reasons(views),
        *(reason for entry in connectors for reason in _topic_reasons(entry)),
        *_book_reasons(not_live_s),
        *([] if plan.url else ["simulator: has no address yet"]),
        *_pattern_reasons(plan),
    ]


def _process_reasons(views: Iterable[ProcessView]) -> Iterator[str]:
    for view in views:
        if not view.is_up or view.is_flapping:
            yield f"{view.process}: {view.state}"


def _topic_reasons(entry: Mapping[str, Any]) -> Iterator[str]:
    if not entry["connected"]:
        yield f"{entry['process']}: not connected to {entry['url']}"
        return
    for state in ("pending", "rejected"):
        topics = [topic for topic, is_in in entry["topics"].items() if is_in == state]
        if topics:
            yield f"{entry['process']}: {state}: {_names(topics)}"
    silent = [
        topic
        for topic, state in entry["topics"].items()
        if state == "confirmed" and not topic.startswith(TRADES_PREFIX)
    ]
    if silent:
        yield f"{entry['process']}: confirmed but not delivering: {_names(silent)}"


def _book_reasons(not_live_s: Mapping[str, float]) -> Iterator[str]:
    late = {topic: seconds for topic, seconds in not_live_s.items() if seconds >= NOT_LIVE_S}
    if late:
        yield f"books not live for {max(late.values()):.0f} s: {_names(list(late))}"


def _pattern_reasons(plan: Plan) -> Iterator[str]:
    for choice in plan.universe.patterns:
        if choice.state == "unresolved":
            yield f"{choice.name}: {choice.problem or 'the list of instruments is not there yet'}"


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:REASON_NAMES_MAX])
    more = len(names) - REASON_NAMES_MAX
    return f"{shown} and {more} more" if more > 0 else shown
