"""
The gap ledger of a running pipeline: the keeper on the supervisor's loop, the writer on its thread.

Translates between the plan and the ledger: specs of workers get the number of their gap ids and the
open gaps of their topics. Counters and the completeness of the present day are served from memory.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from bybit_pipeline.shared.runtime.clock import Clock
from bybit_pipeline.shared.runtime.telemetry import Samples, Telemetry
from bybit_pipeline.shared.settings.locations import absolute_state_dir
from bybit_pipeline.shared.settings.specs import (
    Assignment,
    OrderbookSpec,
    ProcessSpec,
    TradesSpec,
)
from bybit_pipeline.supervisor.ledger.ids import GapNumbers
from bybit_pipeline.supervisor.ledger.keeper import DownReason, LedgerKeeper
from bybit_pipeline.supervisor.ledger.progress_file import ProgressFile
from bybit_pipeline.supervisor.ledger.reader import LedgerReader
from bybit_pipeline.supervisor.ledger.rows import TopicKey, topic_key
from bybit_pipeline.supervisor.ledger.store import DAY_MS, LedgerStore
from bybit_pipeline.supervisor.ledger.summary import DayRow, summarize
from bybit_pipeline.supervisor.ledger.writer import NUMBERS, LedgerWriter
from bybit_pipeline.supervisor.plan.names import is_owner
from bybit_pipeline.supervisor.plan.plan import Plan
from bybit_pipeline.supervisor.run_dir import PROGRESS

log = structlog.get_logger()

LOAD_S = 3.0
"""Longest wait for the ledger at the start; without it nothing of earlier runs is continued."""
CLOSE_S = 0.4
"""Longest wait for the last rows at the end."""
UPDATE_S = 0.5
SUMMARY_S = 10.0
WAITING_MAX = 5_000
"""Unwritten gaps that one answer to a command line holds."""


class PipelineLedger:
    """
    The gap ledger of one pipeline.

    Args:
        plan: The first plan.
        clock: Wall and monotonic clock.
        telemetry: Registry of the counters.
        request_gaps: Asks the workers to report all their gaps again.
        writer: Makes the writer of the rows.

    Attributes:
        state_dir: Directory of the ledger, absolute.
        today: Completeness of every symbol on the present UTC day.
    """

    def __init__(
        self,
        plan: Plan,
        clock: Clock,
        telemetry: Telemetry,
        *,
        request_gaps: Callable[[], None] = lambda: None,
        writer: Callable[..., LedgerWriter] = LedgerWriter,
    ) -> None:
        self.state_dir = absolute_state_dir(plan.config.state_dir)
        self.today: tuple[DayRow, ...] = ()
        self._plan = plan
        self._clock = clock
        self._pipeline = plan.run_dir
        self._request_gaps = request_gaps
        self._lost_before = 0
        """Lost rows that workers have been asked for."""
        self._writer = writer(self.state_dir, self._pipeline, plan.config.ledger, clock)
        self._numbers = GapNumbers(lambda: self._writer.run_soon("numbers", self._reserve))
        self._is_complete = False
        """True once the topics of an earlier run that this one does not follow have ended."""
        self._summarized_at = float("-inf")
        self._updated_at = float("-inf")
        state = self._writer.start(wait_s=LOAD_S)
        if state is None:
            log.error("gap ledger not available, nothing continued", state_dir=self.state_dir)
        else:
            self._numbers.add(state.first_number, NUMBERS)
        self._keeper = LedgerKeeper(
            self._pipeline,
            plan.config.network,
            self._writer,
            state,
            last_id=self._numbers.next_base(NUMBERS),
            now=clock.monotonic(),
            now_ns=clock.time_ns(),
        )
        self._keeper.topics = _keys(plan)
        self._file = ProgressFile(Path(plan.run_dir) / PROGRESS, plan.config.network)
        saved = self._file.read()
        if saved is not None and saved.network == plan.config.network:
            self._keeper.continue_from(saved.topics)
        self._declare_counters(telemetry)

    # -- children --------------------------------------------------------------------------------

    def prepare(self, spec: ProcessSpec) -> None:
        """Complete the spec of a process that is about to start."""
        if isinstance(spec, TradesSpec | OrderbookSpec):
            self.on_down(spec.process, "process_down")
            spec.last_gap_id = self._numbers.next_base(NUMBERS)
            self._keeper.on_start(spec.process, spec.last_gap_id)
            spec.assignments = [self.adopt(spec.process, each) for each in spec.assignments]

    def adopt(self, worker: str, assignment: Assignment) -> Assignment:
        """Return the assignment with the open gap of its stream, if the worker owns the stream."""
        stream = assignment.stream
        if not is_owner(worker, stream):
            return assignment
        now, now_ns = self._clock.monotonic(), self._clock.time_ns()
        row = self._keeper.adopt(topic_key(stream), self._plan.source, now, now_ns)
        return assignment if row is None else msgspec.structs.replace(assignment, gap=row.gap())

    def on_down(self, worker: str, reason: DownReason) -> None:
        """Open the gaps of a worker that died; repeating it changes nothing."""
        keys = [topic_key(stream) for stream in self._plan.own_streams(worker)]
        now, now_ns = self._clock.monotonic(), self._clock.time_ns()
        opened = self._keeper.on_down(keys, reason, now, now_ns)
        self._keeper.on_dead(worker)
        if opened:
            log.warning("gaps opened", child=worker, reason=reason, topics=opened)

    def change_plan(self, plan: Plan) -> None:
        """Take the plan in force: topics that it no longer has are not missed."""
        before, after = self._keeper.topics, _keys(plan)
        self._plan = plan
        gone = set(before) - after
        if gone:
            self._keeper.unfollow(gone, self._clock.monotonic(), self._clock.time_ns())
        self._keeper.topics = after

    # -- messages and time -----------------------------------------------------------------------

    def on_gaps(self, worker: str, message: Mapping[str, Any]) -> bool:
        """Take the gaps that a worker reports; return False if the message is unusable."""
        return self._keeper.on_gaps(
            worker,
            message.get("base"),
            message.get("gaps"),
            self._clock.monotonic(),
            self._clock.time_ns(),
        )

    def on_progress(self, worker: str, message: Mapping[str, Any]) -> bool:
        """Take the progress of a worker; return False if the message is unusable."""
        return self._keeper.on_progress(worker, message.get("base"), message.get("topics"))

    def on_tick(self) -> None:
        """Do what is due; call it several times a second."""
        now = self._clock.monotonic()
        self._file.write(self._keeper.last_progress.values())
        if now - self._updated_at < UPDATE_S:
            return
        self._updated_at = now
        self._keeper.update(now, self._clock.time_ns())
        is_resolved = all(p.state != "unresolved" for p in self._plan.universe.patterns)
        if not self._is_complete and is_resolved:
            self._is_complete = True
            self._keeper.forget_earlier(self._plan.source, now, self._clock.time_ns())
        writer = self._writer
        if writer.rows_lost > self._lost_before and not (writer.rows_waiting or writer.error):
            self._lost_before = writer.rows_lost
            self._request_gaps()
        if now - self._summarized_at >= SUMMARY_S:
            self._summarized_at = now
            self._writer.run_soon("summary", self._summarize)

    def stop(self) -> None:
        """Note that the pipeline stops: what ends from now on is missed from the next start on."""
        self._keeper.is_stopping = True

    def close(self) -> None:
        """Write the last rows; do not wait long for a disk."""
        self._keeper.update(self._clock.monotonic(), self._clock.time_ns())
        if self._writer.close(within_s=CLOSE_S):
            self._file.close()

    # -- answers ---------------------------------------------------------------------------------

    def answer(self) -> dict[str, Any]:
        """Return the newest gaps, and what a reader of the file does not find there yet."""
        waiting = self._writer.waiting()[-WAITING_MAX:]
        return {
            "state_dir": self.state_dir,
            "pipeline": self._pipeline,
            "is_shared": bool(self._plan.config.state_dir),
            "error": self._writer.error or None,
            "gaps": list(self._keeper.rows()),
            "waiting": [msgspec.to_builtins(row) for row in waiting],
            "today": [msgspec.to_builtins(row) for row in self.today],
        }

    # -- on the writer's thread ------------------------------------------------------------------

    def _reserve(self, store: LedgerStore) -> None:
        self._numbers.add(store.reserve(NUMBERS), NUMBERS)

    def _summarize(self, _: LedgerStore) -> None:
        now_ms = self._clock.time_ns() // 1_000_000
        since_ms = now_ms // DAY_MS * DAY_MS
        with LedgerReader(self.state_dir) as reader:
            rows = summarize(
                reader.followed(since_ms, pipeline=self._pipeline),
                reader.gaps(since_ms, pipeline=self._pipeline),
                seen_ms=reader.seen_ms(),
                since_ms=since_ms,
                until_ms=now_ms,
            )
        source = self._plan.source
        self.today = tuple(row for row in rows if row.source == source)

    # -- counters --------------------------------------------------------------------------------

    def _declare_counters(self, telemetry: Telemetry) -> None:
        telemetry.counters(
            "untrusted_seconds_total",
            "Time in which a topic could not be trusted, also in earlier runs.",
            ("category", "symbol", "kind"),
            lambda: [
                ((key.category, key.symbol, key.stream), seconds)
                for key, seconds in self._keeper.untrusted(self._clock.monotonic()).items()
            ],
        )
        telemetry.gauges(
            "completeness_ratio",
            "Share of today's followed time (UTC) in which a topic could be trusted.",
            ("category", "symbol", "kind"),
            self._completeness,
        )
        writer = self._writer
        telemetry.counters(
            "ledger_rows_written_total", "Gaps written.", (), lambda: [((), writer.rows_written)]
        )
        telemetry.counters(
            "ledger_rows_lost_total", "Gaps not recorded.", (), lambda: [((), writer.rows_lost)]
        )
        telemetry.counters(
            "ledger_errors_total", "Failed writes.", (), lambda: [((), writer.errors)]
        )
        telemetry.gauges(
            "ledger_rows_waiting",
            "Gaps that could not be written yet.",
            (),
            lambda: [((), writer.rows_waiting)],
        )

    def _completeness(self) -> Samples:
        for row in self.today:
            for kind, percent in (("trades", row.trades_percent), ("book", row.book_percent)):
                if percent is not None:
                    yield (row.category, row.symbol, kind), percent / 100


def _keys(plan: Plan) -> frozenset[TopicKey]:
    return frozenset(topic_key(placement.stream) for placement in plan.placements)
