"""
The topics of the synthetic market: snapshots, deltas with consecutive ``u``, and trades.

Decides when a topic sends a message and what the message contains. ``order_flow`` makes the events
and ``encoder`` writes the text. A book topic sends at most one message per push period, and only
if its window has changed.

Push periods are written here again on purpose: a mistake in ``shared/bybit.py`` must not be in the
simulated exchange as well.
"""

import math
from collections.abc import Iterable, Mapping
from random import Random
from typing import Final

from bybit_pipeline.processes.simulator.feed import ListedInstrument, OutgoingMessage, TopicKey
from bybit_pipeline.processes.simulator.market.encoder import encode_book, encode_trades
from bybit_pipeline.processes.simulator.market.instruments import (
    Instrument,
    InstrumentKey,
    base_coin,
    daily_turnover,
)
from bybit_pipeline.processes.simulator.market.order_book import BookWindow
from bybit_pipeline.processes.simulator.market.order_flow import (
    InstrumentState,
    Match,
    SyntheticMarket,
    book_rate,
)
from bybit_pipeline.processes.simulator.market.scenario import (
    AnyAction,
    DelistInstrument,
    ListAction,
    ListInstrument,
    MarketAction,
    ScenarioFlow,
)
from bybit_pipeline.shared.wire.messages import Category

PUSH_PERIOD_MS: Final[Mapping[str, Mapping[int, int]]] = {
    **{
        category: {1: 10, 50: 20, 200: 100, 1000: 200} for category in ("spot", "linear", "inverse")
    },
    "option": {25: 20, 100: 100},
}
LEVEL_1_REPEAT_MS: Final = 3_000
"""Interval at which the exchange repeats an unchanged best price."""
TOUCH_SHARE: Final = 0.3
"""Share of book events that change the best level; used to meet a requested rate."""
ACTIVITY_BOUNDS: Final = (1e-4, 1e4)
CATCH_UP_MAX_MS: Final = 1_000
"""After a longer pause, such as a suspended machine, the market skips the missed time."""


class BookTopic:
    """One ``orderbook`` topic: its window, its update id and its next message."""

    def __init__(self, topic: str, depth: int, state: InstrumentState, update_id: int) -> None:
        self.topic = topic
        self.depth = depth
        self.update_id = update_id
        self._state = state
        self._instrument = state.instrument
        self.instrument: InstrumentKey = state.instrument.key
        self._window = BookWindow(state.book, depth)
        self._period_ms = PUSH_PERIOD_MS[state.instrument.category][depth]
        self._match_ts_ms = state.book.match_ts_ms
        self._sequence = state.book.sequence
        self._pushed_ms = 0

    def close(self) -> None:
        """Stop watching the book."""
        self._window.close()

    def snapshot(self, now_ms: int) -> bytes:
        """Return the window as its subscribers know it; the next delta continues it."""
        return self._frame(now_ms, is_snapshot=True, bids=None, asks=None)

    def push(self, now_ms: int) -> bytes | None:
        """Return the next message if one is due, else None."""
        since = now_ms - self._pushed_ms
        if since < self._period_ms:
            return None
        window = self._window
        if window.is_touched:
            bids, asks = window.bids.changes(), window.asks.changes()
            if bids or asks:
                self.update_id += 1
                self._record(self._state.book.match_ts_ms, self._state.book.sequence, now_ms)
                if self.depth == 1:
                    return self.snapshot(now_ms)
                return self._frame(now_ms, is_snapshot=False, bids=bids, asks=asks)
        if self.depth == 1 and since >= LEVEL_1_REPEAT_MS:
            self._record(now_ms, max(self._sequence + 1, self._state.book.sequence), now_ms)
            return self.snapshot(now_ms)
        return None

    def event_rate(self, activity: float) -> float:
        """Return the events per second that change this window, at an activity."""
        rate = book_rate(self._instrument, activity) + self._instrument.trade_rate * activity
        return rate * (TOUCH_SHARE if self.depth == 1 else 1.0)

    def start(self, now_ms: int) -> None:
        """Begin the first push period, after the first snapshot."""
        self._pushed_ms = now_ms

    def _record(self, match_ts_ms: int, sequence: int, now_ms: int) -> None:
        self._match_ts_ms, self._sequence, self._pushed_ms = match_ts_ms, sequence, now_ms

    def _frame(
        self,
        now_ms: int,
        *,
        is_snapshot: bool,
        bids: Iterable[tuple[int, int]] | None,
        asks: Iterable[tuple[int, int]] | None,
    ) -> bytes:
        return encode_book(
            self._instrument,
            self.topic,
            depth=self.depth,
            is_snapshot=is_snapshot,
            exchange_ts_ms=now_ms,
            match_ts_ms=self._match_ts_ms,
            update_id=self.update_id,
            sequence=self._sequence,
            bids=self._window.bids.levels() if bids is None else bids,
            asks=self._window.asks.levels() if asks is None else asks,
        )


class SyntheticFeed:
    """
    The topics of a synthetic market; a ``MarketFeed``.

    Args:
        instruments: The listed instruments.
        seed: Random seed; the same seed and subscriptions give the same messages.
        rate: Approximate messages per second over all subscribed topics; None for natural rates.
        scenario: Actions of instruments that perform them and nothing else, and actions on the
            list of instruments. An instrument whose first list action is ``list`` is not listed
            before it.
    """

    is_elastic = False

    def __init__(
        self,
        instruments: Iterable[Instrument],
        *,
        seed: int = 1,
        rate: float | None = None,
        scenario: Iterable[AnyAction] = (),
    ) -> None:
        self.market = SyntheticMarket(instruments, seed=seed)
        self._seed = seed
        self._rate = rate
        self._is_activity_stale = False
        self._polled_ms: int | None = None
        self._actions: dict[InstrumentKey, list[MarketAction]] = {}
        self._scenario_flows: dict[InstrumentKey, ScenarioFlow] = {}
        self._books: dict[TopicKey, BookTopic] = {}
        self._trades: dict[TopicKey, tuple[InstrumentKey, ...]] = {}
        self._topic_counts: dict[InstrumentKey, int] = {}
        self._update_ids: dict[TopicKey, int] = {}
        self._listed = {
            key: daily_turnover(instrument) for key, instrument in self.market.instruments.items()
        }
        self._list_actions: list[tuple[float, ListAction]] = []
        """List actions by time: relative to the first poll before it, absolute after it."""
        for action in scenario:
            if isinstance(action, ListInstrument | DelistInstrument):
                self._list_actions.append((action.at_ms, action))
            else:
                self._actions.setdefault(action.key, []).append(action)
        self._list_actions.sort(key=lambda planned: planned[0])
        first = {action.key: action for _, action in reversed(self._list_actions)}
        for key, action in first.items():
            if isinstance(action, ListInstrument):
                del self._listed[key]
        for key in self._actions:
            self._make_scenario_flow(key, 0)  # reports a wrong price or size now

    # -- the market feed -------------------------------------------------------------------------

    def listed(self, category: Category) -> list[ListedInstrument]:
        """Return the listed instruments of a category, ordered by symbol."""
        found = []
        for key, turnover in self._listed.items():
            if key[0] == category:
                each = self.market.instruments[key]
                found.append(
                    ListedInstrument(
                        each.symbol,
                        each.base_coin,
                        turnover,
                        each.start_price,
                        each.tick.text(1),
                        each.lot.text(1),
                    )
                )
        return sorted(found)

    def serves(self, key: TopicKey) -> bool:
        """Return True if the topic names a listed instrument and a depth of its category."""
        return self._parse(key) is not None

    def join(self, key: TopicKey, now_ms: int) -> list[bytes]:
        """Add a subscriber; return a snapshot for a book and nothing for trades."""
        parsed = self._parse(key)
        if parsed is None:
            raise ValueError(f"unknown topic {key}")
        depth, instruments = parsed
        if depth is None:
            if key not in self._trades:
                self._trades[key] = instruments
                for instrument in instruments:
                    self._open(instrument, now_ms)
                self._is_activity_stale = True
            return []
        if key not in self._books:
            state = self._open(instruments[0], now_ms)
            update_id = self._update_ids.get(key) or Random(f"{self._seed}:{key}").randrange(
                10**6, 10**8
            )
            self._books[key] = BookTopic(key[1], depth, state, update_id + 1)
            self._books[key].start(now_ms)
            self._is_activity_stale = True
        return [self._books[key].snapshot(now_ms)]

    def leave(self, key: TopicKey) -> None:
        """Stop a topic, and pause its instrument after its last topic."""
        book = self._books.pop(key, None)
        if book is not None:
            book.close()
            self._update_ids[key] = book.update_id
            self._close(book.instrument)
        for instrument in self._trades.pop(key, ()):
            self._close(instrument)
        self._is_activity_stale = True

    def poll(self, now_ms: int) -> list[OutgoingMessage]:
        """Return the trades since the last poll, then the book messages that are due."""
        if self._polled_ms is None:
            self._list_actions = [(now_ms + at_ms, action) for at_ms, action in self._list_actions]
        if self._list_actions:
            self._perform_list_actions(now_ms)
        if self._is_activity_stale:
            self._set_activity()
        if self._polled_ms is not None and now_ms - self._polled_ms > CATCH_UP_MAX_MS:
            self.market.skip_to(now_ms)
        self._polled_ms = now_ms
        outgoing = []
        for match in self.market.advance(now_ms):
            key = self._trade_key(match)
            if key in self._trades:
                outgoing += [
                    OutgoingMessage(key, payload)
                    for payload in encode_trades(key[1], match, now_ms)
                ]
        for key, book in self._books.items():
            pushed = book.push(now_ms)
            if pushed is not None:
                outgoing.append(OutgoingMessage(key, pushed))
        return outgoing

    # -- the scenario ----------------------------------------------------------------------------

    def perform(self, actions: Iterable[AnyAction], now_ms: int) -> None:
        """
        Plan more actions; their times count from now.

        Raises:
            KeyError: If an instrument had no action at the start; give it a ``book`` action there.
        """
        for action in actions:
            if isinstance(action, ListInstrument | DelistInstrument):
                self._list_actions.append((now_ms + action.at_ms, action))
                self._list_actions.sort(key=lambda planned: planned[0])
                continue
            flow = self._scenario_flows[action.key]
            flow.add([action], now_ms)
            self.market.wake(action.key)

    # -- the list of instruments -----------------------------------------------------------------

    def list_instrument(self, instrument: Instrument, turnover: float | None = None) -> None:
        """List an instrument, or change the turnover of a listed one."""
        key = instrument.key
        self.market.instruments.setdefault(key, instrument)
        self._listed[key] = daily_turnover(instrument) if turnover is None else turnover

    def delist(self, key: InstrumentKey) -> None:
        """Remove an instrument from the list and stop its topics."""
        del self._listed[key]
        for topic in [topic for topic, book in self._books.items() if book.instrument == key]:
            self.leave(topic)
        self.leave((key[0], f"publicTrade.{key[1]}"))
        self.market.close(key)

    def _perform_list_actions(self, now_ms: int) -> None:
        while self._list_actions and self._list_actions[0][0] <= now_ms:
            action = self._list_actions.pop(0)[1]
            if isinstance(action, ListInstrument):
                self.list_instrument(self.market.instruments[action.key], action.turnover)
            elif action.key in self._listed:
                self.delist(action.key)

    # -- inside ----------------------------------------------------------------------------------

    def _parse(self, key: TopicKey) -> tuple[int | None, tuple[InstrumentKey, ...]] | None:
        """Return depth (None for trades) and instruments of a topic; None if it does not exist."""
        category, topic = key
        kind, _, rest = topic.partition(".")
        if kind == "orderbook":
            depth, _, symbol = rest.partition(".")
            if depth.isdecimal() and f"{int(depth)}" == depth:
                instrument = (category, symbol)
                if int(depth) in PUSH_PERIOD_MS[category] and instrument in self._listed:
                    return int(depth), (instrument,)
        elif kind == "publicTrade":
            if category == "option":
                contracts = tuple(
                    instrument
                    for instrument in self._listed
                    if instrument[0] == "option" and base_coin(instrument[1]) == rest
                )
                return (None, contracts) if contracts else None
            if (category, rest) in self._listed:
                return None, ((category, rest),)
        return None

    def _trade_key(self, match: Match) -> TopicKey:
        instrument = match.instrument
        is_option = instrument.category == "option"
        name = instrument.base_coin if is_option else instrument.symbol
        return (instrument.category, f"publicTrade.{name}")

    def _open(self, key: InstrumentKey, now_ms: int) -> InstrumentState:
        if key in self._actions and key not in self._scenario_flows:
            self._scenario_flows[key] = self._make_scenario_flow(key, now_ms)
            self.market.use(key, self._scenario_flows[key])
        self._topic_counts[key] = self._topic_counts.get(key, 0) + 1
        return self.market.open(key, now_ms)

    def _make_scenario_flow(self, key: InstrumentKey, now_ms: int) -> ScenarioFlow:
        return ScenarioFlow(
            self.market.instruments[key], self._actions[key], seed=self._seed, now_ms=now_ms
        )

    def _close(self, key: InstrumentKey) -> None:
        self._topic_counts[key] -= 1
        if not self._topic_counts[key]:
            self.market.close(key)

    def _set_activity(self) -> None:
        """Adjust the activity to the rate, after topics were added or removed."""
        self._is_activity_stale = False
        if self._rate is not None and (self._books or self._trades):
            self.market.set_activity(self._activity_for(self._rate))

    def _activity_for(self, rate: float) -> float:
        """Return the activity at which the subscribed topics send ``rate`` messages per second."""
        low, high = ACTIVITY_BOUNDS
        for _ in range(60):
            middle = math.sqrt(low * high)
            if self._expected_rate(middle) < rate:
                low = middle
            else:
                high = middle
        return high

    def _expected_rate(self, activity: float) -> float:
        """
        Return the messages per second of all subscribed topics at an activity.

        A book topic sends a message if at least one of its Poisson events fell into the period:
        ``(1 - exp(-rate * period)) / period``.
        """
        total = 0.0
        for (category, _), book in self._books.items():
            events = book.event_rate(activity)
            period_s = PUSH_PERIOD_MS[category][book.depth] / 1000
            total += -math.expm1(-events * period_s) / period_s
        for instruments in self._trades.values():
            for key in instruments:
                total += self.market.instruments[key].trade_rate * activity
        return total
