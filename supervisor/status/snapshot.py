"""
Snapshots of the pipeline: status, scrape targets, ``process.NAME`` messages and counters.

Combines the plan and the children into one ``Snapshot``, from which everything else is served.
``status`` decides the meaning of *ready*.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any, get_args

from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.runtime.telemetry import Samples, Telemetry
from bybit_pipeline.shared.wire.messages import SCHEMA_VERSION, Source
from bybit_pipeline.shared.wire.process_status import ExitReason
from bybit_pipeline.supervisor.children.child import Child
from bybit_pipeline.supervisor.children.children import Children
from bybit_pipeline.supervisor.children.process import usage
from bybit_pipeline.supervisor.status.feed import feed
from bybit_pipeline.supervisor.status.status import (
    ProcessView,
    book_counts,
    connector_entries,
    not_live_books,
    pattern_entries,
    unready_reasons,
)

SUPERVISOR = "supervisor"
PIPELINE_FIELDS = ("ready", "reasons", "feed", "version", "network", "started_ts_ms")
"""Fields of the status that the supervisor's own ``process.NAME`` message repeats."""
OVERDUE_S = 1.5
"""Age of a snapshot, in seconds, from which on the supervisor counts as silent."""
SOURCES: tuple[Source, ...] = get_args(Source)
EXIT_REASONS: tuple[ExitReason, ...] = get_args(ExitReason)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The state of a pipeline at one moment; call ``as_of`` to use it later."""

    status: dict[str, Any] = field(default_factory=dict)
    """As ``status --json`` prints it."""
    targets: list[dict[str, Any]] = field(default_factory=list)
    """The scrape targets, in the form of Prometheus' HTTP service discovery."""
    is_ready: bool = False
    reasons: list[str] = field(default_factory=list)
    """Why the pipeline is not ready."""
    made_at: float = math.inf
    """Time when it was made, in monotonic seconds."""
    is_passing: bool = False
    """True if readiness changes without further news: a book that is not live may be late soon."""

    def as_of(self, now: float) -> "Snapshot":
        """
        This snapshot, or one that is not ready if it is too old to be true.

        The supervisor makes a new one every second. It is older while the supervisor hangs, and
        just after the supervisor was suspended.
        """
        if now - self.made_at < OVERDUE_S:
            return self
        reasons = [f"{SUPERVISOR}: silent for {now - self.made_at:.0f} s", *self.reasons]
        status = {**self.status, "ready": False, "reasons": reasons} if self.status else {}
        return replace(self, status=status, is_ready=False, reasons=reasons)


class Reporter:
    """
    Makes the snapshots of one supervisor.

    Args:
        clock: For uptimes and timestamps.
        telemetry: Registry of the counters about processes, source and readiness.
        address: ``host:port`` of the supervisor's HTTP server.

    Attributes:
        snapshot: The latest snapshot; any thread may read it.
        views: The processes of the latest snapshot, the supervisor first.
    """

    def __init__(self, clock: Clock, telemetry: Telemetry, *, address: str) -> None:
        self.snapshot = Snapshot()
        self.views: tuple[ProcessView, ...] = ()
        self._clock = clock
        self._address = address
        self._started = clock.monotonic()
        self._started_ts_ms = clock.time_ns() // 1_000_000
        self._source: Source | None = None
        self._sequence = 0
        self._version = metadata.version("bybit-pipeline")
        self._declare_counters(telemetry)

    def refresh(self, children: Children) -> Snapshot:
        """Make a new snapshot of the children and their plan."""
        plan = children.plan
        self._source = plan.source
        self.views = (self._own_view(), *map(self._view, children.by_name.values()))
        connectors = connector_entries(plan, self.views)
        not_live = not_live_books(self.views)
        reasons = unready_reasons(plan, self.views, connectors, not_live)
        status = {
            "version": self._version,
            "source": plan.source,
            "source_setting": plan.config.source,
            "feed": feed(plan, connectors),
            "network": plan.config.network,
            "started_ts_ms": self._started_ts_ms,
            "run_dir": plan.run_dir,
            "metrics": children.metrics,
            "http": self._address,
            "dashboard": children.dashboard or None,
            "ready": not reasons,
            "reasons": reasons,
            "processes": [{**view.summary(), "counts": dict(view.status)} for view in self.views],
            "connectors": connectors,
            "books": book_counts(plan, self.views),
            "patterns": pattern_entries(plan),
        }
        self.snapshot = Snapshot(
            status=status,
            targets=self._targets(),
            is_ready=not reasons,
            reasons=reasons,
            made_at=self._clock.monotonic(),
            is_passing=bool(not_live) and not reasons,
        )
        return self.snapshot

    def messages(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """
        Name and ``process.NAME`` payload of every process in the latest snapshot.

        The supervisor's payload comes first and also has ``PIPELINE_FIELDS``.
        """
        self._sequence += 1
        status = self.snapshot.status
        pipeline = {key: status[key] for key in PIPELINE_FIELDS if key in status}
        for view in self.views:
            yield (
                view.process,
                {
                    **(pipeline if view.process == SUPERVISOR else view.status),
                    **view.summary(),
                    "v": SCHEMA_VERSION,
                    "kind": "process",
                    "source": self._source,
                    "epoch": f"{SUPERVISOR}-{self._started_ts_ms:x}",
                    "seq": self._sequence,
                    "publish_ts_ns": self._clock.time_ns(),
                },
            )

    def addresses(self) -> dict[str, str]:
        """``host:port`` to scrape, by process, of those that are up."""
        return {view.process: view.prometheus for view in self.views if view.prometheus}

    def _own_view(self) -> ProcessView:
        return ProcessView(
            process=SUPERVISOR,
            role=SUPERVISOR,
            pid=os.getpid(),
            state="up",
            is_up=True,
            is_silent=False,
            is_flapping=False,
            restarts={},
            uptime_s=self._clock.monotonic() - self._started,
            prometheus=self._address,
            exit_code=None,
            status={},
            status_age_s=0.0,
            **_usage(os.getpid()),
        )

    def _view(self, child: Child) -> ProcessView:
        return ProcessView(
            process=child.name,
            role=child.role,
            pid=child.pid,
            state=child.state,
            is_up=child.is_up,
            is_silent=child.is_silent,
            is_flapping=child.is_flapping,
            restarts=dict(child.restarts),
            uptime_s=None if child.pid is None else self._clock.monotonic() - child.started,
            prometheus=child.prometheus,
            exit_code=child.exit_code,
            status=child.status,
            status_age_s=self._clock.monotonic() - child.status_at,
            **_usage(child.pid),
        )

    def _targets(self) -> list[dict[str, Any]]:
        return [
            {"targets": [view.prometheus], "labels": {"process": view.process, "role": view.role}}
            for view in self.views
            if view.prometheus
        ]

    # -- counters --------------------------------------------------------------------------------

    def _declare_counters(self, telemetry: Telemetry) -> None:
        telemetry.gauges(
            "process_up",
            "1 while a process is up and answers.",
            ("process",),
            lambda: [((view.process,), view.is_up and not view.is_silent) for view in self.views],
        )
        telemetry.gauges(
            "process_flapping",
            "1 while a process fails too often.",
            ("process",),
            lambda: [((view.process,), view.is_flapping) for view in self.views],
        )
        telemetry.counters(
            "process_restarts_total", "Restarts.", ("process", "reason"), self._restart_samples
        )
        telemetry.gauges(
            "source_info",
            "1 for the source in force.",
            ("source",),
            lambda: [((source,), source == self._source) for source in SOURCES],
        )
        telemetry.gauges(
            "pipeline_ready",
            "1 while the pipeline is ready, as in /readyz.",
            (),
            lambda: [((), self.snapshot.as_of(self._clock.monotonic()).is_ready)],
        )

    def _restart_samples(self) -> Samples:
        for view in self.views:
            for reason in EXIT_REASONS:
                yield (view.process, reason), view.restarts.get(reason, 0)


def _usage(pid: int | None) -> dict[str, Any]:
    used = None if pid is None else usage(pid)
    cpu_seconds, rss_bytes = used if used is not None else (None, None)
    return {"cpu_seconds": cpu_seconds, "rss_bytes": rss_bytes}
