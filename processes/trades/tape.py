"""
The trade tape: all state of the trades of one symbol from one source.

Decides when observation begins, stops and resumes, what time it is at the exchange, and which
trades count. Reads no clock: ``our_ns`` and ``now_ns`` are times of one clock of ours that never
steps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from msgspec.structs import replace

from bybit_pipeline.processes.trades.coverage import Coverage
from bybit_pipeline.processes.trades.dedup import RecentIds
from bybit_pipeline.processes.trades.session import MAX_AHEAD_MS, Session
from bybit_pipeline.processes.trades.window import TradeWindows
from bybit_pipeline.shared.fixed_point import PLAUSIBLE_MAX, PLAUSIBLE_MIN, is_plausible
from bybit_pipeline.shared.freshness.link import LinkDoubt
from bybit_pipeline.shared.freshness.silence import SilenceDetector
from bybit_pipeline.shared.wire.gaps import (
    GapLedger,
    TradesGap,
    TradesGapEventName,
    TradesGapReason,
)
from bybit_pipeline.shared.wire.messages import Category, Source, Trade, TradesMessage
from bybit_pipeline.shared.wire.trades import TradesReason, TradesState

TPS_WINDOW_MS = 10_000
"""Window of ``tps``, configured or not."""
HELD_UP_MS = 3_000
"""Longest delay of a message on its way from the exchange that may pass unnoticed."""
SILENCE_MESSAGES = 50
"""Messages of a symbol after which a silence can be suspicious."""
DEDUP_HORIZON_MS = 300_000
DEDUP_MAX_IDS = 100_000


@dataclass(slots=True)
class TradeCounts:
    """Counts over the trades of all tapes since the process started."""

    taken: int = 0
    duplicates: int = 0
    invalid: int = 0
    """Trades ignored because price, size or time was implausible."""


class GapNote(NamedTuple):
    """A change of a gap that has to be published, and the ``generation`` of the gap's tape."""

    event: TradesGapEventName
    gap: TradesGap
    generation: int


class TradeTape:
    """
    The trades of one symbol: windows, coverage, last trade, gaps.

    Methods that yield ``GapNote`` do their work while they are iterated.

    Attributes:
        generation: Distinguishes a tape from the one it replaced, for example when the source
            changed.
        reason: Why the tape is not live, or was not live last.
        is_stale: True while trades are being missed.
        last_trade: The trade with the newest match time, if there was any.
        link_doubt: Reason for which the link is doubted: the trades are stale, but none is missed.
        exchange_ts_ms, recv_ts_ns: Times of the newest message, if there was any.
        received_ns: Time of the newest message by our steady clock; 0 if there was none.
        messages: Messages received.
    """

    def __init__(
        self,
        category: Category,
        symbol: str,
        *,
        windows_ms: Sequence[int],
        max_trades: int,
        ledger: GapLedger[TradesGap],
        counts: TradeCounts,
        generation: int = 0,
        reason: TradesReason = "starting",
        stale_after_s: float = 0.0,
    ) -> None:
        self.category: Category = category
        self.symbol = symbol
        self.source: Source | None = None
        self.generation = generation
        self.reason: TradesReason = reason
        self.longest_ms = max(*windows_ms, TPS_WINDOW_MS)
        self._max_trades = max_trades
        retention_ms = self.longest_ms
        self.windows = TradeWindows(
            retention_ms=retention_ms, is_inverse=category == "inverse", max_trades=max_trades
        )
        self.coverage = Coverage(retention_ms)
        self.session: Session | None = None
        self.last_trade: Trade | None = None
        self.exchange_ts_ms: int | None = None
        self.recv_ts_ns: int | None = None
        self.received_ns = 0
        self.messages = 0
        self.link_doubt: LinkDoubt | None = None
        self._stale_after_s = stale_after_s
        self._silence = SilenceDetector(stale_after_s, least_messages=SILENCE_MESSAGES)
        self._doubted: TradesGap | None = None
        """The open gap of a doubted link."""
        self._ids = RecentIds(max(retention_ms, DEDUP_HORIZON_MS), DEDUP_MAX_IDS)
        self.is_stale = False
        self._pending_since_ns: int | None = None
        """Start of observation by our clock, while the exchange's time is unknown."""
        self._ledger = ledger
        self._counts = counts
        self._gap: TradesGap | None = None
        """The latest gap, until the first trade after it arrived."""
        self._due_notes: list[GapNote] = []
        """Changes of gaps that no message or link event caused."""

    def continue_gap(self, gap: TradesGap) -> None:
        """Continue an open gap that an earlier process could not close."""
        self._due_notes.append(self._note("opened", gap))

    def set_source(self, source: Source | None) -> None:
        """Set the source; a gap of live data is not closed by simulated data."""
        self.source = source
        gap = self._gap
        if gap is not None and gap.end_ms is None and source not in (None, gap.source):
            self._ledger.leave_open(gap)
            self._gap = None
            self._due_notes.clear()

    @property
    def seen_ms(self) -> int | None:
        """Exchange time up to which the trades are known; None while trades are being missed."""
        if self.is_stale or self.link_doubt is not None or not self.coverage.is_observing:
            return None
        return None if self.session is None else self.session.last_message_ms

    def take_due_notes(self) -> list[GapNote]:
        """Return the changes of gaps that are not published yet."""
        notes, self._due_notes = self._due_notes, []
        return notes

    def successor(self, reason: TradesReason) -> "TradeTape":
        """Return an empty tape of the same symbol, to replace this one."""
        return TradeTape(
            self.category,
            self.symbol,
            windows_ms=[self.longest_ms],
            max_trades=self._max_trades,
            ledger=self._ledger,
            counts=self._counts,
            generation=self.generation + 1,
            reason=reason,
            stale_after_s=self._stale_after_s,
        )

    # -- time ------------------------------------------------------------------------------------

    def advance(self, now_ns: int) -> None:
        """Move the exchange's time to its value when our clock shows ``now_ns``."""
        now_ms = self._exchange_ms(now_ns)
        if now_ms is not None:
            self.windows.advance(now_ms)
            self._settle()

    def _settle(self) -> None:
        """
        Convert the start of observation to the exchange's time, once that is known.

        The message that shows the time may have been held up, so the start is put later by as much
        as may pass unnoticed, but not later than that message.
        """
        if self._pending_since_ns is None:
            return
        since_ms = self._exchange_ms(self._pending_since_ns)
        if since_ms is not None:
            self._pending_since_ns = None
            if self.session is not None and self.session.last_message_ms is not None:
                since_ms = min(self.session.last_message_ms, since_ms + HELD_UP_MS)
            self.windows.advance(since_ms)
            self.coverage.resume(since_ms)
            if self._gap is not None and self._gap.end_ms is None:
                self._due_notes.append(self._note("closed", _closed(self._gap, since_ms)))

    def _exchange_ms(self, our_ns: int) -> int | None:
        """
        Return the exchange's time when our clock shows ``our_ns``, or None if unknown.

        Between the messages of a recording no time passes, because it may be replayed at any speed,
        and nothing is observed after its end.
        """
        if self.session is None:
            return None
        if self.source == "replay":
            return self.session.last_message_ms
        return self.session.clock.at_ms(our_ns)

    # -- state -----------------------------------------------------------------------------------

    def state(self, now_ns: int | None = None) -> TradesState:
        """
        Return the state: ``stale`` while trades are being missed, ``live`` while the longest window
        is covered completely, ``warming`` otherwise.
        """
        if self.is_stale or self.link_doubt is not None:
            return "stale"
        return "live" if self.covered_ms(self.longest_ms, now_ns) == self.longest_ms else "warming"

    def covered_ms(self, window_ms: int, now_ns: int | None = None) -> int:
        """Return how much of a window was observed; by our clock while exchange time is unknown."""
        if self._pending_since_ns is not None:
            elapsed_ns = 0 if now_ns is None else now_ns - self._pending_since_ns
            return min(window_ms, max(0, elapsed_ns // 1_000_000 - HELD_UP_MS))
        if self.windows.now_ms is None:
            return 0
        return self.coverage.covered_ms(
            window_ms, self.windows.now_ms, complete_after_ms=self.windows.dropped_through_ms
        )

    def untrusted_s(self) -> float:
        """Return the time in which trades may have been missed since observation began."""
        if self.windows.now_ms is None:
            return 0.0
        return self.coverage.lost_ms(self.windows.now_ms) / 1_000

    # -- the link --------------------------------------------------------------------------------

    def join(self, session: Session) -> Iterator[GapNote]:
        """Switch to a session; observation over the previous one ends."""
        if self.session is session:
            return
        if self.session is not None:
            yield from self.interrupt("disconnected")
            session.clock.inherit(self.session.clock)
        self.session = session

    def resume(self, our_ns: int) -> Iterator[GapNote]:
        """Resume at ``our_ns``, when the exchange confirmed the subscription."""
        assert self.session is not None, "join before resume"
        self.is_stale = False
        if self.coverage.is_observing or self._pending_since_ns is not None:
            return
        at_ms = self._exchange_ms(our_ns)
        if at_ms is None:
            self._pending_since_ns = our_ns
        else:
            yield from self._observe_from(at_ms)

    def interrupt(self, reason: TradesGapReason) -> Iterator[GapNote]:
        """
        Stop observing: trades may have been missed since the session's last message.

        That message is the last proof that the connection worked; its end is noticed much later.
        """
        self.is_stale = True
        self.reason = reason
        self._pending_since_ns = None
        if self.session is not None and self.coverage.is_observing:
            yield self._open_gap(reason, self.session.last_message_ms)

    def doubt(self, doubt: LinkDoubt | None) -> Iterator[GapNote]:
        """
        Doubt the link, or trust it again.

        No trade is missed while the session lasts: those that are late are counted when they
        arrive. If the session ends, observation ended with its last message.
        """
        self.link_doubt = doubt
        if doubt is None:
            if self.messages:  # a pause of the whole link says nothing about this stream
                self._silence.restart(self.messages, self.received_ns / 1e9)
            gap, self._doubted = self._doubted, None
            if gap is not None:
                closed = _closed(gap, self._present_ms(gap.start_ms))
                yield self._ledger_note("closed", replace(closed, complete=True))
            return
        if self.is_stale:
            return
        self.reason = doubt
        if self._doubted is None and self.coverage.is_observing and self.session is not None:
            start_ms = self.session.last_message_ms
            if start_ms is not None:
                self._doubted = self._new_gap(doubt, start_ms)
                yield self._ledger_note("opened", self._doubted)

    def is_silent(self, our_ns: int) -> bool:
        """Return True if an observed tape has been silent for implausibly long."""
        if self.is_stale or self.source == "replay" or not self.coverage.is_observing:
            return False
        if self.link_doubt is not None:
            return False
        return self._silence.is_silent(self.messages, self.received_ns / 1e9, our_ns / 1e9)

    def interrupt_silent(self) -> Iterator[GapNote]:
        """Stop observing a silent tape: trades may have been missed since its last message."""
        self.is_stale, self.reason, self._pending_since_ns = True, "silent", None
        yield self._open_gap("silent", self._last_seen_ms())

    def miss(self, reason: TradesGapReason) -> Iterator[GapNote]:
        """Stop observing because a message is unusable: trades since the last one are missing."""
        self.is_stale = True
        self.reason = reason
        self._pending_since_ns = None
        if self.coverage.is_observing:
            yield self._open_gap(reason, self._last_seen_ms(), may_reach_back=True)

    def end(self, our_ns: int | None, *, true_ms: int | None = None) -> Iterator[GapNote]:
        """
        End the tape and its open gap; the numbers after the gap stay None.

        Args:
            our_ns: The present time of our clock; None for the time of the last ``advance``.
            true_ms: The exchange's present time, if the tape's own was wrong. A gap that starts
                later than this was opened by the wrong time, and ends by it.
        """
        if our_ns is not None:
            self.advance(our_ns)
        doubted, self._doubted = self._doubted, None
        if doubted is not None:
            yield self._ledger_note("closed", _closed(doubted, self._present_ms(doubted.start_ms)))
        gap, self._gap = self._gap, None
        if gap is not None and gap.end_ms is None:
            end_ms = self._present_ms(gap.start_ms)
            if true_ms is not None and true_ms >= gap.start_ms:
                end_ms = true_ms
            self.coverage.resume(end_ms)
            gap = _closed(gap, end_ms)
            self._ledger.put(gap)
            yield GapNote("closed", gap, self.generation)

    def _observe_from(self, at_ms: int, first: Trade | None = None) -> Iterator[GapNote]:
        """Observe from ``at_ms`` on; ``first`` is the trade that proves it, if one does."""
        self.windows.advance(at_ms)
        self.coverage.resume(at_ms)
        yield from self.take_due_notes()
        gap = self._gap
        if gap is not None and gap.end_ms is None:
            yield self._note("closed", _closed(_with_first(gap, first), at_ms))
            if first is not None:
                self._gap = None

    # -- trades ----------------------------------------------------------------------------------

    def apply(self, message: TradesMessage, lost: int) -> Sequence[GapNote]:
        """
        Apply a message of this tape's session, after ``Session.observe``.

        Args:
            message: The trades, oldest first.
            lost: Number of messages of this topic that were missed just before it.
        """
        notes: Sequence[GapNote] = ()
        if lost or self._gap is not None or not self.coverage.is_observing or self.is_stale:
            notes = list(self._resume_with(message, lost))
        self.messages += 1
        before, before_ms = self.last_trade, self.exchange_ts_ms
        self.exchange_ts_ms = message.exchange_ts_ms
        self.recv_ts_ns = message.recv_ts_ns
        self.windows.advance(message.exchange_ts_ms)
        if not self._add_all(message.trades, message.exchange_ts_ms + MAX_AHEAD_MS):
            since_ms = before.match_ts_ms if before else before_ms
            notes = [*notes, *self._note_rejected(since_ms, message.exchange_ts_ms)]
        return notes

    def _resume_with(self, message: TradesMessage, lost: int) -> Iterator[GapNote]:
        """Resume observing with a message, after a gap for the messages missed before it."""
        assert self.session is not None, "join before apply"
        first = message.trades[0] if message.trades else None
        self.is_stale = False
        if lost:
            self._pending_since_ns = None  # observation was interrupted since then
        self._settle()
        yield from self.take_due_notes()
        if lost and self.coverage.is_observing:
            self.reason = "bus_gap"
            yield self._open_gap("bus_gap", self._last_seen_ms(), may_reach_back=True)
        elif lost and (seen_ms := self._last_seen_ms()) is not None:
            self.coverage.reach_back(seen_ms)
        if not self.coverage.is_observing:
            at_ms = message.exchange_ts_ms
            if first is not None:
                at_ms = min(at_ms, first.match_ts_ms)
            yield from self._observe_from(at_ms, first)
        elif first is not None and self._gap is not None:
            yield self._note("completed", _with_first(self._gap, first))
            self._gap = None

    def _note_rejected(self, since_ms: int | None, until_ms: int) -> Iterator[GapNote]:
        """Record a closed gap between two times, because trades of a message were rejected."""
        self.reason = "bad_time"
        yield self._open_gap("bad_time", since_ms, may_reach_back=True)
        yield from self._observe_from(until_ms)

    def add_trade(self, trade: Trade) -> bool:
        """
        Add one trade without its message; return False for a duplicate.

        Raises:
            ValueError: If its price or size is not plausible (see ``fixed_point.is_plausible``).
        """
        if not (is_plausible(trade.price) and is_plausible(trade.size)):
            raise ValueError(f"trade with price {trade.price!r} and size {trade.size!r}")
        if not self.coverage.began:
            self.coverage.resume(trade.match_ts_ms)
        return self._add(trade)

    def _add_all(self, trades: Sequence[Trade], latest_ms: int) -> bool:
        """Add the trades of a message; return False if some were rejected."""
        dropped, rejected = self.windows.trades_dropped, self._counts.invalid
        for trade in trades:
            # Inlined is_plausible: this is called for every trade.
            if (
                PLAUSIBLE_MIN <= trade.price <= PLAUSIBLE_MAX
                and PLAUSIBLE_MIN <= trade.size <= PLAUSIBLE_MAX
                and trade.match_ts_ms <= latest_ms
            ):
                self._add(trade)
            else:
                self._counts.invalid += 1
        if self.windows.trades_dropped != dropped:
            self.reason = "overflow"
        return self._counts.invalid == rejected

    def _add(self, trade: Trade) -> bool:
        windows, match_ts_ms, last = self.windows, trade.match_ts_ms, self.last_trade
        if not self._ids.add(trade.trade_id, windows.now_ms or match_ts_ms):
            self._counts.duplicates += 1
            return False
        windows.add(match_ts_ms, trade.price, trade.size, is_buy=trade.side == "Buy")
        if last is None or match_ts_ms >= last.match_ts_ms:
            self.last_trade = trade
        self._counts.taken += 1
        return True

    # -- gaps ------------------------------------------------------------------------------------

    def _last_seen_ms(self) -> int | None:
        """Return the exchange time up to which no trade is missing, or None if unknown."""
        return self.last_trade.match_ts_ms if self.last_trade else self.exchange_ts_ms

    def _open_gap(
        self, reason: TradesGapReason, since_ms: int | None, *, may_reach_back: bool = False
    ) -> GapNote:
        """
        Open a gap.

        Args:
            reason: Cause of the gap.
            since_ms: Time since which trades may be missing; None for the start of observation.
            may_reach_back: True if ``since_ms`` may lie before an earlier gap, because messages
                were missed.
        """
        start_ms = self.coverage.interrupt(since_ms or 0)
        if may_reach_back and since_ms is not None:
            start_ms = self.coverage.reach_back(since_ms)
        doubted, self._doubted = self._doubted, None
        if doubted is not None:  # the same outage
            return self._note("opened", replace(doubted, start_ms=start_ms))
        return self._note("opened", self._new_gap(reason, start_ms))

    def _new_gap(self, reason: TradesGapReason, start_ms: int) -> TradesGap:
        last = self.last_trade
        return TradesGap(
            gap_id=self._ledger.new_id(),
            category=self.category,
            symbol=self.symbol,
            reason=reason,
            start_ms=start_ms,
            source=self.source,
            sequence_before=last.sequence if last else None,
            trade_id_before=last.trade_id if last else None,
        )

    def _present_ms(self, least_ms: int) -> int:
        """Return the exchange's present time, at least ``least_ms``."""
        return max(least_ms, self.windows.now_ms or 0)

    def _note(self, event: TradesGapEventName, gap: TradesGap) -> GapNote:
        self._gap = gap
        return self._ledger_note(event, gap)

    def _ledger_note(self, event: TradesGapEventName, gap: TradesGap) -> GapNote:
        self._ledger.put(gap)
        return GapNote(event, gap, self.generation)


def _closed(gap: TradesGap, end_ms: int) -> TradesGap:
    """Return the gap with its end."""
    end_ms = max(end_ms, gap.start_ms)
    return replace(gap, end_ms=end_ms, duration_s=(end_ms - gap.start_ms) / 1_000)


def _with_first(gap: TradesGap, first: Trade | None) -> TradesGap:
    """Return the gap with the numbers of the first trade after it, if that is known."""
    if first is None:
        return gap
    return replace(gap, sequence_after=first.sequence, trade_id_after=first.trade_id)
