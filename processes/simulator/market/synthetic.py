"""
The synthetic market as topics: snapshots, deltas with consecutive ``u``, trades, activity.

Decides when a topic pushes and what its message holds; ``frames`` writes the text, ``market`` makes
the events. A book topic pushes at most once a push period and only when its window changed.
"""

import datetime as dt
import math
from collections.abc import Iterable, Mapping
from random import Random
from typing import Final

from bybit_pipeline.processes.simulator.feed import Listed, Outgoing, TopicKey
from bybit_pipeline.processes.simulator.market.encoder import book_frame, trade_frames
from bybit_pipeline.processes.simulator.market.instruments import (
    Instrument,
    base_coin,
    catalogue,
    daily_turnover,
    instrument_named,
)
from bybit_pipeline.processes.simulator.market.order_book import Window
from bybit_pipeline.processes.simulator.market.order_flow import (
    InstrumentKey,
    Market,
    Match,
    State,
    book_rate,
)
from bybit_pipeline.processes.simulator.market.scenario import (
    AnyAction,
    Delist,
    List,
    ListAction,
    MarketAction,
    ScriptedFlow,
)
from bybit_pipeline.shared.wire.messages import Category

PUSH_PERIOD_MS: Final[Mapping[str, Mapping[int, int]]] = {
    **{
        category: {1: 10, 50: 20, 200: 100, 1000: 200} for category in ("spot", "linear", "inverse")
    },
    "option": {25: 20, 100: 100},
}
LEVEL_1_REPEAT_MS: Final = 3_000
TOUCH_SHARE: Final = 0.3
"""Share of book events that change the best level, for the arithmetic of ``rate``."""
ACTIVITY_BOUNDS: Final = (1e-4, 1e4)
CATCH_UP_MAX_MS: Final = 1_000
"""After a longer pause, as of a suspended machine, the market goes on without catching up."""


class BookTopic:
    """One ``orderbook`` topic: its window, its update id, when it may push."""

    def __init__(self, topic: str, depth: int, state: State, update_id: int) -> None:
        self.topic = topic
        self.depth = depth
        self.update_id = update_id
        self._state = state
        self._instrument = state.instrument
        self.instrument: InstrumentKey = (state.instrument.category, state.instrument.symbol)
        self._window = Window(state.book, depth)
        self._period_ms = PUSH_PERIOD_MS[state.instrument.category][depth]
        self._match_ts_ms = state.book.match_ts_ms
        self._sequence = state.book.sequence
        self._pushed_ms = 0

    def close(self) -> None:
        """Stop watching the book."""
        self._window.close()

    def snapshot(self, now_ms: int) -> bytes:
        """The window as its subscribers know it, which the next delta continues."""
        return self._frame(now_ms, is_snapshot=True, bids=None, asks=None)

    def push(self, now_ms: int) -> bytes | None:
        """The next message when one is due, else None."""
        since = now_ms - self._pushed_ms
        if since < self._period_ms:
            return None
        window = self._window
        if window.is_touched:
            bids, asks = window.bids.changes(), window.asks.changes()
            if bids or asks:
                self.update_id += 1
                self._note(self._state.book.match_ts_ms, self._state.book.sequence, now_ms)
                if self.depth == 1:
                    return self.snapshot(now_ms)
                return self._frame(now_ms, is_snapshot=False, bids=bids, asks=asks)
        if self.depth == 1 and since >= LEVEL_1_REPEAT_MS:
            self._note(now_ms, max(self._sequence + 1, self._state.book.sequence), now_ms)
            return self.snapshot(now_ms)
        return None

    def event_rate(self, activity: float) -> float:
        """Events a second that change this window, at an activity."""
        rate = book_rate(self._instrument, activity) + self._instrument.trade_rate * activity
        return rate * (TOUCH_SHARE if self.depth == 1 else 1.0)

    def start(self, now_ms: int) -> None:
        """Somebody got the first snapshot at ``now_ms``."""
        self._pushed_ms = now_ms

    def _note(self, match_ts_ms: int, sequence: int, now_ms: int) -> None:
        self._match_ts_ms, self._sequence, self._pushed_ms = match_ts_ms, sequence, now_ms

    def _frame(
        self,
        now_ms: int,
        *,
        is_snapshot: bool,
        bids: Iterable[tuple[int, int]] | None,
        asks: Iterable[tuple[int, int]] | None,
    ) -> bytes:
        return book_frame(
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
    The topics of a synthetic market; a ``feed.Feed``.

    Args:
        instruments: What is listed.
        seed: Same seed, same subscriptions at the same times: same messages.
        rate: About so many messages a second over all subscribed topics; None for natural rates.
        script: Actions for instruments that shall do only what the script says, and for the list
            of instruments; one whose first action there lists it is not listed before.
    """

    is_elastic = False

    def __init__(
        self,
        instruments: Iterable[Instrument],
        *,
        seed: int = 1,
        rate: float | None = None,
        script: Iterable[AnyAction] = (),
    ) -> None:
        self.market = Market(instruments, seed=seed)
        self._seed = seed
        self._rate = rate
        self._is_activity_stale = False
        self._polled_ms: int | None = None
        self._script: dict[InstrumentKey, list[MarketAction]] = {}
        self._scripted: dict[InstrumentKey, ScriptedFlow] = {}
        self._books: dict[TopicKey, BookTopic] = {}
        self._trades: dict[TopicKey, tuple[InstrumentKey, ...]] = {}
        self._users: dict[InstrumentKey, int] = {}
        self._update_ids: dict[TopicKey, int] = {}
        self._listed = {
            key: daily_turnover(instrument) for key, instrument in self.market.instruments.items()
        }
        self._listings: list[tuple[float, ListAction]] = []
        """What is listed and delisted when; before the first poll, when after it."""
        for action in script:
            if isinstance(action, List | Delist):
                self._listings.append((action.at_ms, action))
            else:
                self._script.setdefault(action.key, []).append(action)
        self._listings.sort(key=lambda planned: planned[0])
        first = {action.key: action for _, action in reversed(self._listings)}
        for key, action in first.items():
            if isinstance(action, List):
                del self._listed[key]
        for key in self._script:
            self._scripted_flow(key, 0)  # a wrong number in the script is said now

    # -- feed.Feed -------------------------------------------------------------------------------

    def listed(self, category: Category) -> list[Listed]:
        """The list of a category, by symbol."""
        found = []
        for key, turnover in self._listed.items():
            if key[0] == category:
                each = self.market.instruments[key]
                found.append(
                    Listed(
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
        """Whether the topic names a listed instrument and a depth its category has."""
        return self._parse(key) is not None

    def join(self, key: TopicKey, now_ms: int) -> list[bytes]:
        """A snapshot for books, nothing for trades."""
        parsed = self._parse(key)
        if parsed is None:
            raise ValueError(f"no topic {key}")
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
        """Let the topic and, when it was the last one, its instrument rest."""
        book = self._books.pop(key, None)
        if book is not None:
            book.close()
            self._update_ids[key] = book.update_id
            self._close(book.instrument)
        for instrument in self._trades.pop(key, ()):
            self._close(instrument)
        self._is_activity_stale = True

    def poll(self, now_ms: int) -> list[Outgoing]:
        """The trades since the last poll, then the books that are due."""
        if self._polled_ms is None:
            self._listings = [(now_ms + at_ms, action) for at_ms, action in self._listings]
        if self._listings:
            self._perform_listings(now_ms)
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
                    Outgoing(key, payload) for payload in trade_frames(key[1], match, now_ms)
                ]
        for key, book in self._books.items():
            pushed = book.push(now_ms)
            if pushed is not None:
                outgoing.append(Outgoing(key, pushed))
        return outgoing

    # -- the script ------------------------------------------------------------------------------

    def perform(self, actions: Iterable[AnyAction], now_ms: int) -> None:
        """
        Plan more actions, their times counting from now, for instruments that have a script or
        for the list of instruments.

        Raises:
            KeyError: If the instrument has no script; give it an empty ``book`` action at start.
        """
        for action in actions:
            if isinstance(action, List | Delist):
                self._listings.append((now_ms + action.at_ms, action))
                self._listings.sort(key=lambda planned: planned[0])
                continue
            flow = self._scripted[action.key]
            flow.add([action], now_ms)
            self.market.wake(action.key)

    # -- the list of instruments -----------------------------------------------------------------

    def list_instrument(self, instrument: Instrument, turnover: float | None = None) -> None:
        """List one more instrument, or change the turnover of a listed one."""
        key = (instrument.category, instrument.symbol)
        self.market.instruments.setdefault(key, instrument)
        self._listed[key] = daily_turnover(instrument) if turnover is None else turnover

    def delist(self, key: InstrumentKey) -> None:
        """Take an instrument off the list; its topics fall silent and are served no longer."""
        del self._listed[key]
        for topic in [topic for topic, book in self._books.items() if book.instrument == key]:
            self.leave(topic)
        self.leave((key[0], f"publicTrade.{key[1]}"))
        self.market.close(key)

    def _perform_listings(self, now_ms: int) -> None:
        while self._listings and self._listings[0][0] <= now_ms:
            action = self._listings.pop(0)[1]
            if isinstance(action, List):
                self.list_instrument(self.market.instruments[action.key], action.turnover)
            elif action.key in self._listed:
                self.delist(action.key)

    # -- inside ----------------------------------------------------------------------------------

    def _parse(self, key: TopicKey) -> tuple[int | None, tuple[InstrumentKey, ...]] | None:
        """Depth (None for trades) and instruments of a topic, None when it is not served."""
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

    def _open(self, key: InstrumentKey, now_ms: int) -> State:
        if key in self._script and key not in self._scripted:
            self._scripted[key] = self._scripted_flow(key, now_ms)
            self.market.use(key, self._scripted[key])
        self._users[key] = self._users.get(key, 0) + 1
        return self.market.open(key, now_ms)

    def _scripted_flow(self, key: InstrumentKey, now_ms: int) -> ScriptedFlow:
        return ScriptedFlow(
            self.market.instruments[key], self._script[key], seed=self._seed, now_ms=now_ms
        )

    def _close(self, key: InstrumentKey) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            self.market.close(key)

    def _set_activity(self) -> None:
        """Fit the activity to the rate after topics came or went."""
        self._is_activity_stale = False
        if self._rate is not None and (self._books or self._trades):
            self.market.set_activity(self._activity_for(self._rate))

    def _activity_for(self, rate: float) -> float:
        """The activity at which the subscribed topics send ``rate`` messages a second."""
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
        Messages a second of all subscribed topics at an activity.

        A book topic pushes when at least one of its Poisson events fell into the push period:
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


def listing(
    symbols: Mapping[Category, Iterable[str]], *, with_catalogue: bool, today: dt.date
) -> list[Instrument]:
    """
    The instruments to list: those named, and the catalogue on request.

    Raises:
        ValueError: If a name cannot be one of its category.
    """
    instruments: dict[InstrumentKey, Instrument] = {}
    categories: tuple[Category, ...] = ("spot", "linear", "inverse", "option")
    for category in categories:
        if with_catalogue:
            for instrument in catalogue(category, today):
                instruments[(category, instrument.symbol)] = instrument
        for symbol in symbols.get(category, ()):
            if (category, symbol) not in instruments:
                instruments[(category, symbol)] = instrument_named(category, symbol, today)
    return list(instruments.values())
