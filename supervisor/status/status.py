"""
The status of a pipeline, and whether it is ready, from the plan and the heartbeats. Pure.

Decides the entries of ``status --json`` and the meaning of *ready*:

- every process is up and answers, and none is flapping;
- every topic is confirmed, and book topics deliver;
- no book has been out of ``live`` for longer than ``NOT_LIVE_S``, or at all for one of the
  ``REASONS_AT_ONCE``.

The status of a silent process is out of date: its books count as stale, and a connector counts as
not connected.

A trades topic need not deliver, because a market without trades would keep the pipeline from being
ready.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from bybit_pipeline.shared.bybit import TRADES_PREFIX
from bybit_pipeline.shared.wire.process_status import ExitReason, TopicState
from bybit_pipeline.supervisor.plan.names import exchange_topic
from bybit_pipeline.supervisor.plan.plan import Plan

NOT_LIVE_S = 1.0
"""Time that a book may be out of ``live``, in seconds, such as for a resync."""
REASONS_AT_ONCE = frozenset(("disconnected", "process_down", "process_silent", "silent"))
"""Reasons of an outage that concerns more than one book and does not pass by itself."""
REASON_NAMES_MAX = 5
"""Names that one reason lists; further ones are only counted."""


class HeartbeatStatus(msgspec.Struct, frozen=True):
    """
    The fields that the supervisor uses in the status of a heartbeat; others are passed on.

    Connectors send ``topics``, ``rejected`` and ``refused_topics``, by the exchange's topic.
    Orderbook workers send ``books``, by state, and ``not_live`` with the seconds and
    ``not_live_reasons``, by bus topic.
    """

    connected: bool = False
    failure: str | None = None
    next_attempt_ts_ms: int | None = None
    topics: dict[str, TopicState] = {}
    rejected: dict[str, str] = {}
    refused_topics: list[str] = []
    live_since_ts_ms: int | None = None
    last_message_ts_ms: int | None = None
    books: dict[str, int] = {}
    not_live: dict[str, float] = {}
    not_live_reasons: dict[str, str] = {}
    lost: int = 0
    lag_s: float | None = None


def status_error(status: object) -> str | None:
    """Why the status of a heartbeat does not fit ``HeartbeatStatus``; None if it does."""
    try:
        msgspec.convert(status, HeartbeatStatus)
    except msgspec.ValidationError as error:
        return str(error)[:200]
    return None


@dataclass(frozen=True, kw_only=True)
class ProcessView:
    """One process as the status shows it; the supervisor is one too."""

    process: str
    role: str
    pid: int | None
    state: str
    is_up: bool
    is_silent: bool
    is_flapping: bool
    restarts: Mapping[ExitReason, int]
    """Restarts by reason."""
    uptime_s: float | None
    cpu_seconds: float | None
    rss_bytes: int | None
    prometheus: str
    """``host:port``, empty while it is not up."""
    exit_code: int | None
    status: Mapping[str, Any]
    """Status in its last heartbeat that had one."""
    status_age_s: float
    """Seconds since that heartbeat."""

    def summary(self) -> dict[str, Any]:
        """The entry in ``processes``, which is also part of the ``process.NAME`` message."""
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


class NotLive(NamedTuple):
    """How long a book has been out of ``live``, and why."""

    seconds: float
    reason: str

    @property
    def matters(self) -> bool:
        """True if the pipeline is not ready because of it."""
        return self.seconds >= NOT_LIVE_S or self.reason in REASONS_AT_ONCE


def not_live_books(views: Iterable[ProcessView]) -> dict[str, NotLive]:
    """The books that are not ``live``, by bus topic, as the workers report; now, not then."""
    found = {}
    for view in views:
        if view.role == "orderbook":
            reasons = view.status.get("not_live_reasons", {})
            for topic, seconds in view.status.get("not_live", {}).items():
                found[topic] = NotLive(seconds + view.status_age_s, reasons.get(topic, ""))
    return found


def connector_entries(plan: Plan, views: Iterable[ProcessView]) -> list[dict[str, Any]]:
    """
    The entries in ``connectors``: the status of each, completed and limited by the plan.

    A planned topic that the connector has not reported yet is ``pending``. Topics that are no
    longer planned are left out.
    """
    entries = []
    for view in views:
        if view.role != "connector":
            continue
        planned = [exchange_topic(stream) for stream in plan.streams_of(view.process)]
        status = view.status
        states = status.get("topics", {})
        topics = {topic: states.get(topic, "pending") for topic in planned}
        rejected = {t: why for t, why in status.get("rejected", {}).items() if t in topics}
        entries.append(
            {
                "process": view.process,
                "url": plan.connector_url(view.process),
                "connected": False,
                "simulated": False,
                "failure": None,
                "failure_detail": None,
                "next_attempt_ts_ms": None,
                "session": None,
                "reconnects": 0,
                "ping_rtt_ms": None,
                "last_message_ts_ms": None,
                **status,
                **({"connected": False} if view.is_silent else {}),
                "topics": topics,
                "rejected": rejected,
                "refused_topics": [t for t in status.get("refused_topics", ()) if t in topics],
            }
        )
    return entries


def pattern_entries(plan: Plan) -> list[dict[str, Any]]:
    """
    The entries in ``patterns``: the symbols of each, and the reason if they may be out of date.

    ``unresolved``: not matched yet with an instrument list of the source in force. ``outdated``:
    the last list could not be used.
    """
    return [
        {
            "pattern": pattern.name,
            "state": pattern.state,
            "reason": pattern.problem or None,
            "resolved_ts_ms": pattern.resolved_ts_ms,
            "symbols": list(pattern.symbols),
        }
        for pattern in plan.universe.patterns
    ]


def book_counts(plan: Plan, views: Iterable[ProcessView]) -> dict[str, int]:
    """
    Number of books by state.

    The books of a worker that is not up count as ``syncing``, those of a silent one as ``stale``.
    """
    counts: Counter[str] = Counter(syncing=0, live=0, stale=0)
    for view in views:
        if view.role != "orderbook":
            continue
        if view.is_silent:
            counts["stale"] += sum(view.status.get("books", {}).values())
        elif "books" in view.status:
            counts.update(view.status["books"])
        else:
            books = [a for a in plan.assignments_of(view.process) if a.stream.kind == "book"]
            counts["syncing"] += len(books)
    return dict(counts)


def unready_reasons(
    plan: Plan,
    views: Collection[ProcessView],
    connectors: Iterable[Mapping[str, Any]],
    not_live: Mapping[str, NotLive],
) -> list[str]:
    """
    The reasons why the pipeline is not ready, for people; empty if it is.

    Args:
        plan: The plan in force.
        views: All processes.
        connectors: Result of ``connector_entries``.
        not_live: Result of ``not_live_books``.
    """
    silent = {view.process for view in views if view.is_silent}
    answering = (entry for entry in connectors if entry["process"] not in silent)
    return [
        *_process_reasons(views),
        *(reason for entry in answering for reason in _topic_reasons(entry)),
        *_book_reasons(not_live),
        *([] if plan.url else ["simulator: no address yet"]),
        *_pattern_reasons(plan),
    ]


def _process_reasons(views: Iterable[ProcessView]) -> Iterator[str]:
    for view in views:
        if not view.is_up or view.is_silent or view.is_flapping:
            yield f"{view.process}: {view.state}"


def _topic_reasons(entry: Mapping[str, Any]) -> Iterator[str]:
    if not entry["connected"]:
        why = f": {entry['failure']}" if entry.get("failure") else ""
        yield f"{entry['process']}: not connected to {entry['url']}{why}"
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


def _book_reasons(not_live: Mapping[str, NotLive]) -> Iterator[str]:
    late = {topic: book for topic, book in not_live.items() if book.matters}
    if late:
        seconds = max(book.seconds for book in late.values())
        why = ", ".join(sorted({book.reason for book in late.values() if book.reason}))
        books = f"books not live for {seconds:.0f} s"
        yield f"{books}{f' ({why})' if why else ''}: {_names(list(late))}"


def _pattern_reasons(plan: Plan) -> Iterator[str]:
    for pattern in plan.universe.patterns:
        if pattern.state == "unresolved":
            yield f"{pattern.name}: {pattern.problem or 'waiting for the instrument list'}"


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:REASON_NAMES_MAX])
    more = len(names) - REASON_NAMES_MAX
    return f"{shown} and {more} more" if more > 0 else shown
