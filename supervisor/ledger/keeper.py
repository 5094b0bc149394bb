"""
The open gaps and the followed topics of one pipeline, from the reports of its workers. Pure.

Decides which gaps there are: those that workers report, and those that no worker can report because
it died (``process_down``, ``process_silent``) or because the pipeline did not run (``stopped``). A
topic has one open gap at most. It is handed to the worker that is started next, which closes it
under the same id. ``now`` is in seconds of the monotonic clock, ``now_ns`` is our wall clock.

A topic is continued over restarts only within its source and network: simulated data between two
live runs neither interrupt nor continue live data.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from bybit_pipeline.shared.errors import CodecError
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.shared.wire.gaps import BookGap, TradesGap
from bybit_pipeline.shared.wire.messages import Source
from bybit_pipeline.shared.wire.progress import Progress
from bybit_pipeline.supervisor.ledger.rows import Followed, GapRow, TopicKey, make_row
from bybit_pipeline.supervisor.ledger.store import LedgerState

CLOSED_MAX = 20_000
"""Closed gaps whose repeated report is recognised."""
RECENT_MAX = 200

Origin = tuple[TopicKey, Source]
DownReason = Literal["process_down", "process_silent"]


class Sink(Protocol):
    """Takes the rows to write."""

    def put_gap(self, gap: GapRow) -> None:
        """Write a gap."""
        ...

    def put_followed(self, interval: Followed) -> None:
        """Write a followed interval."""
        ...


class _OpenGap(NamedTuple):
    row: GapRow
    since: float
    """Start on the monotonic clock."""


class LedgerKeeper:
    """
    The gaps of one pipeline while it runs.

    Args:
        pipeline, network: Name every row.
        sink: Takes the rows to write.
        state: What an earlier run has left.
        last_id: Number below the ids of the gaps that are opened here.

    Attributes:
        topics: The topics that are followed now; progress of others is ignored.
        is_stopping: True once the pipeline stops: what ends with it is no gap yet.
        recent: The newest gaps by id, oldest first.
        last_progress: The last progress of every running worker.
    """

    def __init__(
        self,
        pipeline: str,
        network: str,
        sink: Sink,
        state: LedgerState | None,
        *,
        last_id: int,
        now: float,
        now_ns: int,
    ) -> None:
        self.topics: Collection[TopicKey] = frozenset()
        self.is_stopping = False
        self.recent: dict[int, GapRow] = {}
        self._pipeline = pipeline
        self._network = network
        self._sink = sink
        self._last_id = last_id
        self._open: dict[int, _OpenGap] = {}
        self._closed: dict[int, float] = {}
        """Durations of closed gaps, to recognise a repeated report."""
        self._untrusted_s: dict[TopicKey, float] = {}
        self._exported_s: dict[TopicKey, float] = {}
        self._followed: dict[Origin, Followed] = {}
        self._earlier: dict[Origin, Followed] = {}
        """Followed by an earlier run and not continued yet."""
        self._bases: dict[str, int] = {}
        """The number of each running worker's ids."""
        self._progress: dict[str, bytes] = {}
        self.last_progress: dict[str, bytes] = {}
        if state is not None:
            self._continue(state, now, now_ns)

    def _continue(self, state: LedgerState, now: float, now_ns: int) -> None:
        self._untrusted_s.update(state.untrusted_s)
        self.recent = {row.gap_id: row for row in state.recent}
        for row in state.open_gaps:
            self._open[row.gap_id] = _OpenGap(row, _start(row, now, now_ns))
            self.recent[row.gap_id] = row
        for interval in state.followed:
            if interval.network == self._network:
                self._earlier[interval.key, interval.source] = interval

    def continue_from(self, saved: Iterable[Progress]) -> None:
        """Take progress of the last run that it could not write to the ledger any more."""
        for progress in saved:
            origin = (
                TopicKey(progress.stream, progress.category, progress.symbol),
                progress.source,
            )
            earlier = self._earlier.get(origin)
            if earlier is not None and earlier.end_ms < progress.at_ms:
                self._earlier[origin] = _moved(earlier, progress)

    # -- workers ---------------------------------------------------------------------------------

    def on_start(self, worker: str, base: int) -> None:
        """Note that a worker starts; messages of its predecessor are ignored from now on."""
        self._bases[worker] = base
        self._progress.pop(worker, None)

    def adopt(self, key: TopicKey, source: Source, now: float, now_ns: int) -> GapRow | None:
        """Return the open gap of a topic that a worker is about to follow, if there is one."""
        for gap in self._open.values():
            if gap.row.key == key and gap.row.source in (source, None):
                return gap.row
        earlier = self._earlier.pop((key, source), None)
        if earlier is None:
            return None
        self._followed[key, source] = earlier
        row = self._outage(earlier, "stopped", now_ns)
        self._put(row, _start(row, now, now_ns))
        return row

    def on_down(self, keys: Iterable[TopicKey], reason: DownReason, now: float, now_ns: int) -> int:
        """
        Open a gap for every topic of a dead worker that has none; return their number.

        Call it after everything that the worker had sent was taken.
        """
        self.update(now, now_ns)
        busy = {gap.row.key for gap in self._open.values()}
        wanted = {key for key in keys if key not in busy}
        opened = 0
        for (key, _), interval in self._latest(wanted):
            row = self._outage(interval, reason, now_ns)
            self._put(row, _start(row, now, now_ns))
            wanted.discard(key)
            opened += 1
        return opened

    def on_dead(self, worker: str) -> None:
        """Ignore messages of a worker that were still on their way when it died."""
        self._bases.pop(worker, None)
        self._progress.pop(worker, None)
        self.last_progress.pop(worker, None)

    def _latest(self, keys: Collection[TopicKey]) -> Iterator[tuple[Origin, Followed]]:
        """Yield the topics followed in this run, of each only the source followed last."""
        latest = {
            origin[0]: (origin, interval)
            for origin, interval in sorted(self._followed.items(), key=lambda item: item[1].end_ms)
            if origin[0] in keys
        }
        yield from latest.values()

    def _outage(
        self,
        before: Followed,
        reason: Literal["stopped", "process_down", "process_silent"],
        now_ns: int,
    ) -> GapRow:
        self._last_id += 1
        return GapRow(
            gap_id=self._last_id,
            pipeline=self._pipeline,
            source=before.source,
            network=self._network,
            stream=before.stream,
            category=before.category,
            symbol=before.symbol,
            reason=reason,
            start_ms=before.end_ms,
            opened_ts_ns=now_ns,
            update_id_before=before.update_id,
            sequence_before=before.sequence,
            trade_id_before=before.trade_id,
        )

    # -- reports ---------------------------------------------------------------------------------

    def on_gaps(self, worker: str, base: object, gaps: object, now: float, now_ns: int) -> bool:
        """
        Take gaps that a worker reports; return False if the report is unusable.

        Repeating a report changes nothing.
        """
        try:
            found = msgspec.convert(gaps, list[BookGap | TradesGap])
        except msgspec.ValidationError:
            return False
        self.update(now, now_ns)  # it was sent before
        is_current = self._bases.get(worker) == base
        for gap in found:
            known = self._open.get(gap.gap_id)
            is_new = known is None and gap.gap_id not in self._closed
            if is_new and (self.is_stopping or not is_current):
                continue
            row = make_row(gap, pipeline=self._pipeline, network=self._network)
            self._on_row(self._completed(row, known, now_ns), now, now_ns)
        return True

    def _completed(self, row: GapRow, known: _OpenGap | None, now_ns: int) -> GapRow:
        """Add what the worker does not know: our times of a gap of trades, an earlier run."""
        if row.opened_ts_ns is None and row.reason != "starting":
            row = replace(row, opened_ts_ns=known.row.opened_ts_ns if known else now_ns)
        if row.stream == "trades" and row.closed_ts_ns is None and row.end_ms is not None:
            row = replace(row, closed_ts_ns=now_ns)
        if row.reason == "starting" and row.source is not None and row.end_ms is not None:
            # Its source was not known when the worker started: see ``adopt``.
            earlier = self._earlier.pop((row.key, row.source), None)
            if earlier is not None and earlier.end_ms <= row.end_ms:
                self._followed[row.key, row.source] = earlier
                row = replace(
                    row,
                    reason="stopped",
                    start_ms=earlier.end_ms,
                    update_id_before=earlier.update_id,
                    sequence_before=earlier.sequence,
                    duration_s=(row.end_ms - earlier.end_ms) / 1_000,
                )
        return row

    def _on_row(self, row: GapRow, now: float, now_ns: int) -> None:
        if row.is_open:
            if row.gap_id not in self._closed:
                since = self._open[row.gap_id].since if row.gap_id in self._open else None
                self._put(row, _start(row, now, now_ns) if since is None else since)
            return
        self._put(row, now)

    def _put(self, row: GapRow, since: float) -> None:
        self.recent.pop(row.gap_id, None)
        self.recent[row.gap_id] = row
        if len(self.recent) > RECENT_MAX:
            del self.recent[next(iter(self.recent))]
        if row.is_open:
            self._open[row.gap_id] = _OpenGap(row, since)
        else:
            self._open.pop(row.gap_id, None)
            before_s = self._closed.get(row.gap_id, 0.0)
            duration_s = self._closed[row.gap_id] = max(before_s, row.duration_s or 0.0)
            if len(self._closed) > CLOSED_MAX:
                del self._closed[next(iter(self._closed))]
            total_s = self._untrusted_s.get(row.key, 0.0)
            self._untrusted_s[row.key] = total_s + duration_s - before_s
        self._sink.put_gap(row)

    # -- progress --------------------------------------------------------------------------------

    def on_progress(self, worker: str, base: object, packed: object) -> bool:
        """Keep the progress of a worker until it is needed; return False if it is unusable."""
        if not isinstance(packed, bytes):
            return False
        if self._bases.get(worker) == base:
            self._progress[worker] = self.last_progress[worker] = packed
        return True

    def update(self, now: float, now_ns: int) -> bool:
        """Move the ends of the followed topics; return False if some progress was unusable."""
        waiting, self._progress = self._progress, {}
        is_good = True
        for packed in waiting.values():
            try:
                for progress in codec.decode_progress(packed):
                    self._on_topic(progress, now, now_ns)
            except CodecError:
                is_good = False
        return is_good

    def _on_topic(self, progress: Progress, now: float, now_ns: int) -> None:
        key = TopicKey(progress.stream, progress.category, progress.symbol)
        if key not in self.topics:
            return
        origin = (key, progress.source)
        before = interval = self._followed.get(origin)
        if interval is None:
            interval = self._first_progress(origin, progress, now_ns, now)
        elif progress.at_ms < interval.start_ms:
            interval = self._new_interval(progress)
        self._followed[origin] = moved = _moved(interval, progress)
        if progress.source != "replay" and moved != before:  # a replay is never continued
            self._sink.put_followed(moved)
        if self._open:
            self._close_forgotten(progress, now_ns, now)

    def _first_progress(
        self, origin: Origin, progress: Progress, now_ns: int, now: float
    ) -> Followed:
        earlier = self._earlier.pop(origin, None)
        if earlier is None or earlier.end_ms > progress.at_ms:
            return self._new_interval(progress)
        row = self._outage(earlier, "stopped", now_ns)
        self._put(_ended(row, progress, now_ns), now)
        return earlier

    def _new_interval(self, progress: Progress) -> Followed:
        return Followed(
            pipeline=self._pipeline,
            source=progress.source,
            network=self._network,
            stream=progress.stream,
            category=progress.category,
            symbol=progress.symbol,
            start_ms=progress.at_ms,
            end_ms=progress.at_ms,
        )

    def _close_forgotten(self, progress: Progress, now_ns: int, now: float) -> None:
        """
        Close a gap whose topic makes progress: no worker has it any more.

        So it is for a gap of live data that simulated data followed, and after a lost report.
        """
        key = TopicKey(progress.stream, progress.category, progress.symbol)
        for gap in list(self._open.values()):
            if gap.row.key == key and gap.row.source in (progress.source, None):
                self._put(_ended(gap.row, progress, now_ns), now)

    # -- changes of the plan ---------------------------------------------------------------------

    def unfollow(self, keys: Collection[TopicKey], now: float, now_ns: int) -> None:
        """End topics that are no longer wanted: what is missing from now on is no gap."""
        self.update(now, now_ns)
        for intervals in (self._followed, self._earlier):
            for origin in [origin for origin in intervals if origin[0] in keys]:
                interval = intervals.pop(origin)
                if interval.source != "replay":
                    self._sink.put_followed(replace(interval, is_open=False))
        for gap in [gap for gap in self._open.values() if gap.row.key in keys]:
            duration_s = max(0.0, now - gap.since)
            self._put(replace(gap.row, closed_ts_ns=now_ns, duration_s=duration_s), now)

    def forget_earlier(self, source: Source, now: float, now_ns: int) -> None:
        """End the topics that an earlier run followed from this source and this one does not."""
        gone = {key for key, origin in self._earlier if origin == source and key not in self.topics}
        if gone:
            self.unfollow(gone, now, now_ns)

    # -- figures ---------------------------------------------------------------------------------

    def open_keys(self) -> set[TopicKey]:
        """Return the topics that have an open gap."""
        return {gap.row.key for gap in self._open.values()}

    def untrusted(self, now: float) -> Mapping[TopicKey, float]:
        """Return the seconds in which each topic could not be trusted; they never decrease."""
        totals = dict(self._untrusted_s)
        for gap in list(self._open.values()):
            key = gap.row.key
            totals[key] = totals.get(key, 0.0) + max(0.0, now - gap.since)
        for key, seconds in totals.items():
            self._exported_s[key] = max(seconds, self._exported_s.get(key, 0.0))
        return dict(self._exported_s)

    def rows(self) -> deque[dict[str, Any]]:
        """Return the newest gaps as maps, oldest first."""
        return deque(msgspec.to_builtins(row) for row in self.recent.values())


def _start(row: GapRow, now: float, now_ns: int) -> float:
    """Return the start of a gap on the monotonic clock; recordings have times of long ago."""
    if row.start_ms is None or row.source == "replay":
        return now
    return min(now, now - (now_ns / 1e9 - row.start_ms / 1e3))


def _moved(interval: Followed, progress: Progress) -> Followed:
    return replace(
        interval,
        end_ms=progress.at_ms,
        update_id=progress.update_id,
        sequence=progress.sequence,
        trade_id=progress.trade_id,
    )


def _ended(row: GapRow, progress: Progress, now_ns: int) -> GapRow:
    """Return a gap that ended with the progress of its topic, at the latest."""
    start_ms = progress.at_ms if row.start_ms is None else row.start_ms
    return replace(
        row,
        source=progress.source,
        end_ms=progress.at_ms,
        closed_ts_ns=now_ns,
        update_id_after=progress.update_id,
        sequence_after=progress.sequence,
        trade_id_after=progress.trade_id,
        duration_s=max(0, progress.at_ms - start_ms) / 1_000,
    )
