"""
Local order book of one stream: its state, the reason if it is not live, its gap and its resyncs.

Decides how every message and link event changes the state, and when to request a snapshot. Knows no
other books. The caller passes the time: ``now`` is in seconds of the monotonic clock.
"""

from collections import deque
from collections.abc import Iterator
from math import inf
from typing import NamedTuple, get_args

from msgspec.structs import replace

from bybit_pipeline.processes.orderbook.book import BookInvalid, OrderBook
from bybit_pipeline.processes.orderbook.counts import Counts
from bybit_pipeline.processes.orderbook.measures import OrderFlow
from bybit_pipeline.processes.orderbook.walls.tracker import WallTracker
from bybit_pipeline.shared.freshness.link import LinkDoubt
from bybit_pipeline.shared.freshness.silence import SilenceDetector
from bybit_pipeline.shared.wire.gaps import BookGap, BookGapEventName, BookGapReason, GapLedger
from bybit_pipeline.shared.wire.messages import BookMessage, Category, Source, TradesMessage
from bybit_pipeline.shared.wire.orderbook import BookState

STATES: tuple[BookState, ...] = get_args(BookState)

START_DELAY_S = 0.5
"""Time for the first snapshot to arrive by itself before it is requested."""
SUBSCRIBED_DELAY_S = 2.0
"""The same after the exchange confirmed a subscription."""
CONNECTED_DELAY_S = 5.0
"""The same after a connection was opened."""
RETRY_INITIAL_S = 2.0
RETRY_MAX_S = 30.0
MAX_QUIET_MS = 60_000
"""Limit of the estimate of exchange time after a book's last message."""
MAX_AHEAD_MS = 60_000
"""Largest plausible step of exchange time between two messages, beyond the time that passed."""
MAX_BEHIND_MS = 3_600_000
"""Largest plausible step back of exchange time between two messages."""
SILENCE_MESSAGES = 6
"""Messages of a book after which a silence can be suspicious."""
GAP_NOTES_MAX = 16
"""Upper limit of the gap notes of a book; a message adds up to two."""


class GapNote(NamedTuple):
    """An event in the life of a gap, to be published."""

    event: BookGapEventName
    gap: BookGap


class LocalBook:
    """
    The book of one stream and its sync state.

    A book is live while it is in sync and not doubted. A doubted book is stale, but still applies
    messages: if they prove to be complete and current, it is live again without a snapshot.

    Args:
        category, symbol: The market.
        depth: Levels per side of the stream.
        connector: Name of the connector whose link events concern the book.
        ledger: Receives the gaps.
        counts: Receives the counts.
        generations: Source of unique numbers.
        now: Seconds of the monotonic clock.
        walls: The walls of the book.
        trades_connector: Name of the connector whose link events concern the symbol's trades; None
            if the trades are not received.
        flow: Order flow imbalance; None if it is not computed.
        stale_after_s: Longest plausible silence in seconds; 0 to derive it from the stream.
        gap: An open gap that an earlier process could not close: this book continues it.

    Attributes:
        state, reason: As published; ``reason`` is None when live.
        is_synced: True from a snapshot until a message is missing or contradicts the book.
        generation: Unique number; changes with the source.
        messages: Messages received, applied or not.
        received_at: Monotonic time of the last message.
        walls_due: Monotonic time at which the walls have to be judged even if nothing more arrives.
        is_changed: True if there is something to publish; reset by the publisher.
        gap: The open gap; None when live.
    """

    __slots__ = (
        "_gap_notes",
        "_generations",
        "_is_continuous",
        "_is_requested",
        "_is_silent",
        "_ledger",
        "_link_doubt",
        "_resync_attempts",
        "_resync_due",
        "_silence",
        "_untrusted_since",
        "book",
        "category",
        "connector",
        "counts",
        "flow",
        "gap",
        "generation",
        "is_changed",
        "is_synced",
        "messages",
        "reason",
        "received_at",
        "session",
        "source",
        "state",
        "symbol",
        "topic",
        "trades_connector",
        "walls",
        "walls_due",
    )

    def __init__(
        self,
        category: Category,
        symbol: str,
        depth: int,
        connector: str,
        *,
        ledger: GapLedger[BookGap],
        counts: Counts,
        generations: Iterator[int],
        now: float,
        trades_connector: str | None = None,
        walls: WallTracker,
        flow: OrderFlow | None = None,
        stale_after_s: float = 0.0,
        gap: BookGap | None = None,
    ) -> None:
        self.category: Category = category
        self.symbol = symbol
        self.connector = connector
        self.trades_connector = trades_connector
        self.topic = f"book.{category}.{symbol}"
        self.book = OrderBook(depth)
        self.flow = flow
        self.walls = walls
        self.state: BookState = "syncing"
        self.reason: BookGapReason | None = "starting"
        self.generation = next(generations)
        self.source: Source | None = None
        self.session: int | None = None
        self.messages = 0
        self.received_at = 0.0
        self.walls_due = inf
        self.is_changed = False
        self.is_synced = False
        self.counts = counts
        self.gap: BookGap | None = None
        self._gap_notes: deque[GapNote] = deque(maxlen=GAP_NOTES_MAX)
        self._generations = generations
        self._ledger = ledger
        self._link_doubt: LinkDoubt | None = None
        self._is_silent = False
        """True from a suspicious silence of this stream to its next message."""
        self._silence = SilenceDetector(stale_after_s, least_messages=SILENCE_MESSAGES)
        self._untrusted_since: float | None = now
        self._resync_due: float | None = now + START_DELAY_S
        self._resync_attempts = 0
        self._is_continuous = False
        """True while no update is missing since the book was last live."""
        self._is_requested = False
        """True if a snapshot was requested since the book was last live."""
        if gap is None:
            self._open_gap("starting", None, None)
        else:
            self._note_gap("opened", gap)

    # -- messages --------------------------------------------------------------------------------

    def apply(self, message: BookMessage, now: float, lost: int = 0) -> bool:
        """
        Apply one message; return True if the state or its reason changed.

        Args:
            message: The next message of the topic.
            now: Seconds of the monotonic clock.
            lost: Number of messages of the topic that are missing just before this one.
        """
        self.messages += 1
        received_at, self.received_at = self.received_at, now
        if (
            not self.is_synced
            or lost
            or message.session != self.session
            or message.source != self.source
        ):
            return self._apply_out_of_sync(message, now, lost)
        book = self.book
        last = book.last
        assert last is not None, "a book in sync has a last message"
        step_ms = message.exchange_ts_ms - last.exchange_ts_ms
        if not 0 <= step_ms <= MAX_AHEAD_MS and self._is_implausible(step_ms, now - received_at):
            self.invalidate("bad_time", now, message.recv_ts_ns, message.update_id)
            return True
        try:
            book.apply(message)
        except BookInvalid as error:
            self.invalidate(error.reason, now, message.recv_ts_ns, message.update_id)
            return True
        if self._is_silent:
            if message.update_id - last.update_id in (0, 1):
                self._silence.learn_harmless(now - received_at, now)
            else:
                self._is_continuous = False  # a snapshot after missed updates
            self._is_silent = False
            self._resync_due = None
            return self._settle(now)
        if (
            message.update_id == last.update_id
            and message.depth == 1
            and message.bids == last.bids
            and message.asks == last.asks
        ):
            return False  # a quiet stream of depth 1 repeats its last message
        flow, walls = self.flow, self.walls
        if flow is not None:
            bids, asks = book.bid_side, book.ask_side
            flow.add(
                bids.best, bids.sizes.get(bids.best, 0.0), asks.best, asks.sizes.get(asks.best, 0.0)
            )
        if walls.tracked:
            walls.on_book(book)
        self.is_changed = True
        return False

    def on_trades(self, message: TradesMessage, lost: int = 0) -> None:
        """Attribute trades of the symbol to its walls; ``lost`` messages are missing before."""
        walls = self.walls
        if message.source == self.source:
            if lost:
                walls.on_trades_lost(message.trades[0].match_ts_ms if message.trades else 0)
            if not walls.has_trades and self.trades_connector is not None:
                walls.set_has_trades(True)  # they arrive, whether or not a link event said so
            if walls.on_trades(message.trades):
                self.walls_due = 0.0

    def update_walls(self, now: float) -> None:
        """Update the walls of a live book at the estimated present exchange time."""
        last = self.book.last
        if self.state != "live" or last is None:
            return
        if self.source == "replay":  # plays at any speed: its time is that of the last message
            self.walls.update(self.book, last.exchange_ts_ms)
            self.walls_due = inf
            return
        quiet_ms = min(int((now - self.received_at) * 1_000), MAX_QUIET_MS)
        self.walls.update(self.book, last.exchange_ts_ms + quiet_ms)
        # Plus a millisecond, because quiet_ms is rounded down.
        until_ms = self.walls.wake_ms - last.exchange_ts_ms + 1
        self.walls_due = self.received_at + until_ms / 1_000

    def follow_trades(self, connector: str | None) -> None:
        """Set the connector of the symbol's trades; None if they are not received."""
        self.trades_connector = connector
        self.walls.set_has_trades(connector is not None)

    def invalidate(
        self,
        reason: BookGapReason,
        now: float,
        recv_ts_ns: int | None = None,
        received_update_id: int | None = None,
        *,
        retry_in_s: float = 0.0,
    ) -> bool:
        """
        Stop trusting the book; return True if the state or its reason changed.

        A book that is not live keeps its open gap and takes the newer reason.

        Args:
            reason: The cause.
            now: Seconds of the monotonic clock.
            recv_ts_ns: When the message that caused it was received, by our clock.
            received_update_id: Update id of that message.
            retry_in_s: Time for a snapshot to arrive by itself before it is requested.
        """
        was_live, was_synced = self.state == "live", self.is_synced
        changed = was_live or self.reason != reason
        self.reason = reason
        self.is_changed = self.is_changed or changed
        if was_synced:
            self.is_synced = self._is_silent = self._is_continuous = False
            self.book.drop()
            self._resync_attempts = 0
            self._resync_due = now + retry_in_s
            if self.flow is not None:
                self.flow.reset()
            self.walls.drop()
            self.walls_due = inf
            if was_live:
                self._end_live(reason, now, recv_ts_ns, received_update_id)
        elif retry_in_s:
            self._resync_due = now + retry_in_s
        return changed

    def doubt_link(self, doubt: LinkDoubt | None, now: float) -> bool:
        """Set or clear the doubt about the link; return True if the state or its reason changed."""
        self._link_doubt = doubt
        if doubt is None:  # a pause of the whole link says nothing about this stream
            self._silence.restart(self.messages, now)
        return self._settle(now)

    def _settle(self, now: float) -> bool:
        """Make a book in sync live or stale as its doubts say; return True if that changed it."""
        if not self.is_synced:
            return False
        reason = self._link_doubt or ("silent" if self._is_silent else None)
        if reason is None:
            if self.state == "live":
                return False
            self._close_gap(now, is_complete=self._is_continuous)
            self.state, self.reason = "live", None
        else:
            if reason == self.reason:
                return False
            if self.state == "live":
                self._end_live(reason, now, None, None)
            self.reason = reason
        self.is_changed = True
        return True

    def _end_live(
        self,
        reason: BookGapReason,
        now: float,
        recv_ts_ns: int | None,
        received_update_id: int | None,
    ) -> None:
        self.state = "stale"
        self.counts.invalidated[reason] += 1
        self._untrusted_since = now
        self._is_continuous = self.is_synced
        self._open_gap(reason, recv_ts_ns, received_update_id)

    def expect_snapshot(self, now: float, within_s: float) -> None:
        """Request a snapshot only if none has arrived within ``within_s``."""
        if not self.is_synced:
            self._resync_due = now + within_s
            self._resync_attempts = 0

    def note_source(self, source: Source, now: float, recv_ts_ns: int) -> bool:
        """Drop the data of another source; return True if the state or its reason changed."""
        if source == self.source:
            return False
        is_first, self.source = self.source is None, source
        if is_first:
            self.is_changed = True
            if self.gap is not None and self.gap.source not in (source, None):
                # A gap of live data is not closed by simulated data.
                self._ledger.leave_open(self.gap)
                self._gap_notes.clear()
                self._open_gap("starting", None, None)
            return False
        self.session = None
        self.generation = next(self._generations)
        changed = self.invalidate("source_change", now, recv_ts_ns, retry_in_s=SUBSCRIBED_DELAY_S)
        self.walls.reset()
        return changed

    def check_silence(self, now: float) -> bool:
        """
        Doubt a book that has been silent for implausibly long; call it several times a second.

        Its next message may still continue it. A snapshot is requested if none comes soon.
        """
        if not self.is_synced or self._is_silent or self.source == "replay":
            return False
        if self._link_doubt is not None:
            return False
        if not self._silence.is_silent(self.messages, self.received_at, now):
            return False
        self._is_silent = True
        self._resync_due = now + SUBSCRIBED_DELAY_S
        self._resync_attempts = 0
        return self._settle(now)

    def is_resync_due(self, now: float) -> bool:
        """Return True if a snapshot is to be requested now; retries back off from 2 s to 30 s."""
        if self._resync_due is None or now < self._resync_due:
            return False
        wait = min(RETRY_MAX_S, RETRY_INITIAL_S * 2.0 ** min(self._resync_attempts, 10))
        self._resync_attempts += 1
        self._resync_due = now + wait
        if not self._is_requested:
            self._is_requested = True
            self.counts.requested += 1
        return True

    def not_live_s(self, now: float) -> float | None:
        """Return the seconds since the book was last live; None if it is live."""
        since = self._untrusted_since
        return None if since is None else max(0.0, now - since)

    def forget(self, now: float) -> None:
        """End the book because it was unsubscribed: its walls and its gap end too."""
        self.state, self.reason, self.is_synced = "stale", "unsubscribed", False
        self.book.drop()
        self.walls.drop()
        self.walls_due = inf
        if self.gap is not None:
            ended = replace(self.gap, duration_s=self.not_live_s(now))
            self._ledger.forget(ended)
            self._gap_notes.append(GapNote("closed", ended))
            self.gap = None

    def take_gap_notes(self, event: BookGapEventName | None = None) -> list[GapNote]:
        """Return the gap events since the last call, in order: all, or those of one kind."""
        taken = [note for note in self._gap_notes if event in (None, note.event)]
        for note in taken:
            self._gap_notes.remove(note)
        return taken

    # -- out of sync -----------------------------------------------------------------------------

    def _is_implausible(self, step_ms: int, elapsed_s: float) -> bool:
        """Return True if exchange time cannot have moved this far since the last message."""
        if self.source == "replay":
            return False  # plays at any speed, with the pauses of the recording
        return not -MAX_BEHIND_MS <= step_ms <= MAX_AHEAD_MS + elapsed_s * 1_000

    def _apply_out_of_sync(self, message: BookMessage, now: float, lost: int) -> bool:
        """Apply a message to a book out of sync, or one that the message itself invalidates."""
        was = (self.state, self.reason, self.generation)
        self.note_source(message.source, now, message.recv_ts_ns)
        if self.is_synced:
            if message.session != self.session:
                self.invalidate("disconnected", now, message.recv_ts_ns, message.update_id)
            elif lost:
                self.invalidate("bus_gap", now, message.recv_ts_ns, message.update_id)
        self.session = message.session
        if message.is_snapshot:
            try:
                self.book.apply(message)
            except BookInvalid as error:
                self.invalidate(error.reason, now, message.recv_ts_ns, message.update_id)
            else:
                self._on_synced(now)
        else:
            self.counts.ignored += 1
        return was != (self.state, self.reason, self.generation)

    def _on_synced(self, now: float) -> None:
        """Note that a snapshot was applied; the book is live unless its link is doubted."""
        self._silence.restart(self.messages, now)
        self.is_synced, self._is_silent = True, False
        if self._is_requested:
            self._is_requested = False
            self.counts.recovered += 1
        self._resync_attempts = 0
        self._resync_due = None
        self.is_changed = True
        if self.flow is not None:
            best_bid = self.book.best_bid or (0.0, 0.0)
            best_ask = self.book.best_ask or (self.book.ask_side.empty, 0.0)
            self.flow.add(*best_bid, *best_ask)
        self._settle(now)

    def _close_gap(self, now: float, *, is_complete: bool) -> None:
        """Close the open gap; the last message is the first one that is trusted again."""
        gap, last = self.gap, self.book.last
        assert gap is not None, "a book that is not live has an open gap"
        assert last is not None, "a book in sync has a last message"
        duration_s = self.not_live_s(now) or 0.0
        is_one_clock = gap.reason != "bad_time" and gap.source == last.source
        if gap.start_ms is not None and is_one_clock:  # it began before it was noticed
            duration_s = max(duration_s, (last.exchange_ts_ms - gap.start_ms) / 1_000)
        closed = replace(
            gap,
            source=gap.source or last.source,
            closed_ts_ns=last.recv_ts_ns,
            end_ms=last.exchange_ts_ms,
            update_id_after=last.update_id,
            sequence_after=last.sequence,
            duration_s=duration_s,
            complete=is_complete,
        )
        self._note_gap("closed", closed)
        self.gap = None
        self._untrusted_since = None

    def _open_gap(
        self, reason: BookGapReason, recv_ts_ns: int | None, received_update_id: int | None
    ) -> None:
        last = self.book.last
        gap = BookGap(
            gap_id=self._ledger.new_id(),
            category=self.category,
            symbol=self.symbol,
            reason=reason,
            opened_ts_ns=recv_ts_ns,
            start_ms=None if last is None else last.exchange_ts_ms,
            update_id_before=None if last is None else last.update_id,
            sequence_before=None if last is None else last.sequence,
            received_update_id=received_update_id,
            source=self.source,
        )
        self._note_gap("opened", gap)

    def _note_gap(self, event: BookGapEventName, gap: BookGap) -> None:
        self.gap = gap
        self._ledger.put(gap)
        self._gap_notes.append(GapNote(event, gap))
