"""
Everything known about the trades of one symbol from one source.

Decides when observation begins, breaks off and resumes, what time it is at the exchange, and
which trades count. Reads no clock: our own time comes in as ``our_ns`` and ``now_ns``, of one
clock that does not step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from msgspec.structs import replace

from bybit_pipeline.processes.trades.coverage import Coverage
from bybit_pipeline.processes.trades.dedup import RecentIds
from bybit_pipeline.processes.trades.fixed_point import PLAUSIBLE_MAX, PLAUSIBLE_MIN, is_plausible
from bybit_pipeline.processes.trades.window import TradeWindows
from bybit_pipeline.shared.wire.gaps import (
    GapLedger,
    TradesGap,
    TradesGapEventName,
    TradesGapReason,
)
from bybit_pipeline.shared.wire.messages import Category, Source, Trade, TradesMessage
from bybit_pipeline.shared.wire.trades import TradesReason, TradesState

TPS_WINDOW_MS = 10_000
"""``tps`` counts over this window, configured or not."""
MAX_AHEAD_MS = 60_000
"""
A trade matched this much later than its message was sent is an error, and so is a message sent this
much later than it is at the exchange: it would move the time of every window forward for good, and
empty them.
"""
MAX_BEHIND_MS = 3_600_000
"""A message sent this much earlier than it is at the exchange: the time before was the error."""
DEDUP_HORIZON_MS = 300_000
DEDUP_MAX_IDS = 100_000


@dataclass(slots=True)
class TradeCounts:
    """What happened to the trades of all tapes, since the process began."""

    taken: int = 0
    duplicates: int = 0
    invalid: int = 0
    """With a price or size of no believable magnitude; left out."""


class GapNote(NamedTuple):
    """An event in the life of a gap, and the ``generation`` of the tape whose gap it is."""

    event: TradesGapEventName
    gap: TradesGap
    generation: int


class ExchangeClock:
    """
    The exchange's time: that of the newest message, going on with our clock since its receipt.

    Only differences of our clock are used, so a recording from months ago works the same, and the
    offset is taken anew from every message, so neither drift nor a step of our clock stays in it.
    The estimate is behind by the delay of the last message and may go back; who uses it keeps
    its own highest value.
    """

    __slots__ = ("_offset_ns",)

    def __init__(self) -> None:
        self._offset_ns: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether there was a message to take the time from."""
        return self._offset_ns is not None

    def observe(self, exchange_ts_ms: int, recv_ts_ns: int) -> None:
        """Take the time from a message."""
        self._offset_ns = exchange_ts_ms * 1_000_000 - recv_ts_ns

    def at_ms(self, our_ns: int) -> int | None:
        """The exchange's time when our clock shows ``our_ns``; None when not known."""
        return None if self._offset_ns is None else (our_ns + self._offset_ns) // 1_000_000

    def fits(self, exchange_ts_ms: int, our_ns: int) -> bool:
        """Whether a message may have been sent at that time; True when no time is known."""
        if self._offset_ns is None:
            return True
        ahead_ms = exchange_ts_ms - (our_ns + self._offset_ns) // 1_000_000
        return -MAX_BEHIND_MS <= ahead_ms <= MAX_AHEAD_MS

    def inherit(self, other: "ExchangeClock") -> None:
        """Take over the time of an earlier connection, unless there is one already."""
        if self._offset_ns is None:
            self._offset_ns = other._offset_ns


class Session:
    """One websocket connection, as far as trades show it: its time and its last sign of life."""

    __slots__ = ("__weakref__", "_doubted", "clock", "last_message_ms", "session_id")

    def __init__(self, session_id: int) -> None:
        self.session_id = session_id
        self.clock = ExchangeClock()
        self.last_message_ms: int | None = None
        self._doubted: ExchangeClock | None = None
        """The time by the last message, when that was not believed."""

    def confirms_a_jump(self, exchange_ts_ms: int, our_ns: int) -> bool:
        """
        Whether a message whose time does not fit agrees with the one before, which did not either.

        One such message is an error in it. Two that agree tell that the clock was wrong before, or
        that ours stood still, as it may while a machine sleeps.
        """
        before, self._doubted = self._doubted, ExchangeClock()
        self._doubted.observe(exchange_ts_ms, our_ns)
        return before is not None and before.fits(exchange_ts_ms, our_ns)

    def observe(self, exchange_ts_ms: int, our_ns: int) -> bool:
        """Take the time from a message; whether it was not known before."""
        is_first = not self.clock.is_known
        self.clock.observe(exchange_ts_ms, our_ns)
        self._doubted = None
        if self.last_message_ms is None or exchange_ts_ms > self.last_message_ms:
            self.last_message_ms = exchange_ts_ms
        return is_first


class Tape:
    """
    The trades of one symbol: windows, coverage, last trade, gaps.

    ``generation`` tells one tape of a symbol from the one that replaced it when the source
    changed. ``reason`` says why it is not live, or was not last. What yields ``GapNote``s acts
    while it is iterated.
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
        self._ids = RecentIds(max(retention_ms, DEDUP_HORIZON_MS), DEDUP_MAX_IDS)
        self.is_stale = False
        """Whether trades are known to be missed now."""
        self._pending_since_ns: int | None = None
        """Observed since this time of ours, while the exchange's time is still unknown."""
        self._ledger = ledger
        self._counts = counts
        self._gap: TradesGap | None = None
        """The latest gap, until the first trade after it is known."""

    def successor(self, reason: TradesReason) -> "Tape":
        """An empty tape of the same symbol, for which nothing counts that was told before."""
        return Tape(
            self.category,
            self.symbol,
            windows_ms=[self.longest_ms],
            max_trades=self._max_trades,
            ledger=self._ledger,
            counts=self._counts,
            generation=self.generation + 1,
            reason=reason,
        )

    # -- time ------------------------------------------------------------------------------------

    def advance(self, now_ns: int) -> None:
        """Let the exchange's time go on to where it is when our clock shows ``now_ns``."""
        now_ms = self._exchange_ms(now_ns)
        if now_ms is not None:
            self.windows.advance(now_ms)
            self._settle()

    def _settle(self) -> None:
        """Turn a start on our clock into one on the exchange's, once that is known."""
        if self._pending_since_ns is None:
            return
        since_ms = self._exchange_ms(self._pending_since_ns)
        if since_ms is not None:
            self._pending_since_ns = None
            self.windows.advance(since_ms)
            self.coverage.resume(since_ms)

    def _exchange_ms(self, our_ns: int) -> int | None:
        """
        The exchange's time when our clock shows ``our_ns``; None when not known.

        Between the messages of a recording no time passes: it may be played at any speed, and in
        what comes after its end nothing was observed.
        """
        if self.session is None:
            return None
        if self.source == "replay":
            return self.session.last_message_ms
        return self.session.clock.at_ms(our_ns)

    # -- state -----------------------------------------------------------------------------------

    def state(self, now_ns: int | None = None) -> TradesState:
        """
        ``stale`` while trades are being missed, ``live`` once the longest window is covered, and
        that of ``tps``.

        In between, and before anything is known, ``warming``.
        """
        if self.is_stale:
            return "stale"
        return "live" if self.covered_ms(self.longest_ms, now_ns) == self.longest_ms else "warming"

    def covered_ms(self, window_ms: int, now_ns: int | None = None) -> int:
        """How much of a window was observed; ``now_ns`` serves until exchange time is known."""
        if self._pending_since_ns is not None:
            elapsed_ns = 0 if now_ns is None else now_ns - self._pending_since_ns
            return min(window_ms, max(0, elapsed_ns // 1_000_000))
        if self.windows.now_ms is None:
            return 0
        return self.coverage.covered_ms(
            window_ms, self.windows.now_ms, complete_after_ms=self.windows.dropped_through_ms
        )

    def untrusted_s(self) -> float:
        """Seconds of exchange time in which trades may have been missed since the first was not."""
        if self.windows.now_ms is None:
            return 0.0
        return self.coverage.lost_ms(self.windows.now_ms) / 1_000

    # -- the link --------------------------------------------------------------------------------

    def join(self, session: Session) -> Iterator[GapNote]:
        """Trades come over this connection from now on; what was observed over another ended."""
        if self.session is session:
            return
        if self.session is not None:
            yield from self.interrupt("disconnected")
            session.clock.inherit(self.session.clock)
        self.session = session

    def resume(self, our_ns: int) -> Iterator[GapNote]:
        """The exchange confirmed the subscription at ``our_ns``: all trades are seen from then."""
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
        Trades are missed from now on, and may have been since the connection's last message.

        That message is the last proof that the link was alive; a dead one is noticed much later.
        """
        self.is_stale = True
        self.reason = reason
        self._pending_since_ns = None
        if self.session is not None and self.coverage.is_observing:
            yield self._open_gap(reason, self.session.last_message_ms)

    def miss(self, reason: TradesGapReason) -> Iterator[GapNote]:
        """A message that cannot be used: what was traded since the one before is missing."""
        self.is_stale = True
        self.reason = reason
        self._pending_since_ns = None
        if self.coverage.is_observing:
            yield self._open_gap(reason, self._last_seen_ms(), may_reach_back=True)

    def end(self, our_ns: int | None, *, true_ms: int | None = None) -> Iterator[GapNote]:
        """
        Nothing more is counted here; a gap that is open ends, and what came after stays unknown.

        Args:
            our_ns: Now; None: when the time was moved on last.
            true_ms: The exchange's time now, if it is not what was believed. A gap that began
                later than that began by the wrong time, and ends by it.
        """
        if our_ns is not None:
            self.advance(our_ns)
        gap, self._gap = self._gap, None
        if gap is not None and gap.end_ms is None:
            end_ms = max(gap.start_ms, self.windows.now_ms or 0)
            if true_ms is not None and true_ms >= gap.start_ms:
                end_ms = true_ms
            self.coverage.resume(end_ms)
            gap = _closed(gap, end_ms)
            self._ledger.put(gap)
            yield GapNote("closed", gap, self.generation)

    def _observe_from(self, at_ms: int, first: Trade | None = None) -> Iterator[GapNote]:
        """See every trade from ``at_ms`` on; ``first`` is the one that proves it, if one does."""
        self.windows.advance(at_ms)
        self.coverage.resume(at_ms)
        gap = self._gap
        if gap is not None and gap.end_ms is None:
            yield self._note("closed", _closed(_with_first(gap, first), at_ms))
            if first is not None:
                self._gap = None

    # -- trades ----------------------------------------------------------------------------------

    def apply(self, message: TradesMessage, lost: int) -> Sequence[GapNote]:
        """
        Take in a message of this tape's session, which has observed it.

        Args:
            message: The trades, oldest first.
            lost: How many messages of this topic are missing just before it.
        """
        notes: Sequence[GapNote] = ()
        if lost or self._gap is not None or not self.coverage.is_observing or self.is_stale:
            notes = list(self._resume_with(message, lost))
        before, before_ms = self.last_trade, self.exchange_ts_ms
        self.exchange_ts_ms = message.exchange_ts_ms
        self.recv_ts_ns = message.recv_ts_ns
        self.windows.advance(message.exchange_ts_ms)
        if not self._take_all(message.trades, message.exchange_ts_ms + MAX_AHEAD_MS):
            since_ms = before.match_ts_ms if before else before_ms
            notes = [*notes, *self._skip(since_ms, message.exchange_ts_ms)]
        return notes

    def _resume_with(self, message: TradesMessage, lost: int) -> Iterator[GapNote]:
        """Account for what was missed before a message."""
        assert self.session is not None, "join before apply"
        first = message.trades[0] if message.trades else None
        self.is_stale = False
        if lost:
            self._pending_since_ns = None  # not all was seen from there on
        self._settle()
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

    def _skip(self, since_ms: int | None, until_ms: int) -> Iterator[GapNote]:
        """Trades of a message were refused, so that some between two times are missing."""
        self.reason = "bad_time"
        yield self._open_gap("bad_time", since_ms, may_reach_back=True)
        yield from self._observe_from(until_ms)

    def add_trade(self, trade: Trade) -> bool:
        """
        Take in one trade without its message; whether it counted.

        Raises:
            ValueError: If its price or size is not a positive number of a believable magnitude.
        """
        if not (is_plausible(trade.price) and is_plausible(trade.size)):
            raise ValueError(f"trade with price {trade.price!r} and size {trade.size!r}")
        if not self.coverage.began:
            self.coverage.resume(trade.match_ts_ms)
        return self._take(trade)

    def _take_all(self, trades: Sequence[Trade], latest_ms: int) -> bool:
        """Take in the trades of a message; whether none had to be refused."""
        dropped, refused = self.windows.trades_dropped, self._counts.invalid
        for trade in trades:
            # Not is_plausible: the calls would cost 0.1 us a trade.
            if (
                PLAUSIBLE_MIN <= trade.price <= PLAUSIBLE_MAX
                and PLAUSIBLE_MIN <= trade.size <= PLAUSIBLE_MAX
                and trade.match_ts_ms <= latest_ms
            ):
                self._take(trade)
            else:
                self._counts.invalid += 1
        if self.windows.trades_dropped != dropped:
            self.reason = "overflow"
        return self._counts.invalid == refused

    def _take(self, trade: Trade) -> bool:
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
        """Exchange time up to which nothing is missing: of the last trade, if there was any."""
        return self.last_trade.match_ts_ms if self.last_trade else self.exchange_ts_ms

    def _open_gap(
        self, reason: TradesGapReason, since_ms: int | None, *, may_reach_back: bool = False
    ) -> GapNote:
        """
        Trades are missing from now on.

        Args:
            reason: Why.
            since_ms: Since when; None: since they are observed.
            may_reach_back: Messages were lost, also before they are observed without a break.
        """
        start_ms = self.coverage.interrupt(since_ms or 0)
        if may_reach_back and since_ms is not None:
            start_ms = self.coverage.reach_back(since_ms)
        last = self.last_trade
        gap = TradesGap(
            gap_id=self._ledger.new_id(),
            category=self.category,
            symbol=self.symbol,
            reason=reason,
            start_ms=start_ms,
            sequence_before=last.sequence if last else None,
            trade_id_before=last.trade_id if last else None,
        )
        return self._note("opened", gap)

    def _note(self, event: TradesGapEventName, gap: TradesGap) -> GapNote:
        self._gap = gap
        self._ledger.put(gap)
        return GapNote(event, gap, self.generation)


def _closed(gap: TradesGap, end_ms: int) -> TradesGap:
    return replace(gap, end_ms=end_ms, duration_s=(end_ms - gap.start_ms) / 1_000)


def _with_first(gap: TradesGap, first: Trade | None) -> TradesGap:
    """The gap with the first trade after it."""
    if first is None:
        return gap
    return replace(gap, sequence_after=first.sequence, trade_id_after=first.trade_id)
