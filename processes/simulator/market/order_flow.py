"""
The synthetic market: seeded order flow over one book per instrument.

Decides which events happen and when. Knows nothing of topics, text or sockets. Time is passed in,
in milliseconds. The events of an instrument depend on the seed, its name and the time when it was
opened, and neither on the size of the time steps nor on other instruments.

Each instrument has two Poisson processes. A *book event* moves a hidden fair price (a random walk
that is pulled back to the start price), lets makers follow it, changes some levels, and maintains
the walls: large levels that are placed, refilled, and then either eaten by takers or pulled. A
*trade event* is a taker order, whose trades reduce the levels that they match. Prices are ticks,
sizes are lots.
"""

import heapq
import math
from collections.abc import Iterable
from random import Random
from typing import Final, NamedTuple, Protocol

from bybit_pipeline.processes.simulator.market.instruments import Instrument, InstrumentKey
from bybit_pipeline.processes.simulator.market.order_book import BookSide, ExchangeBook
from bybit_pipeline.shared.wire.messages import Side

LEVELS: Final = 1_100
"""Levels kept on each side; a window of 1000 levels always has a margin."""
LEVELS_SLACK: Final = 60
GAP_RATIO: Final = 1e-5
"""Mean distance of neighbouring levels, relative to the price; at least one tick."""
VOLATILITY: Final = 2e-5
"""Volatility of the fair price, relative to the start price, per square root of a second."""
TETHER_S: Final = 1_800.0
"""Time constant of the pull back to the start price."""
BOOK_RATE_MAX: Final = 200.0
"""Book events per second above which more events would not cause more messages."""
WALLS_MAX: Final = 3
WALL_EVERY_BOOK_EVENTS: Final = 900
WALL_LIFE_S: Final = 25.0
WALL_MEDIANS: Final = (9.0, 22.0)
"""Smallest and largest size of a wall, in median level sizes."""
FILLS_MAX: Final = 3
SWEEP_MAX: Final = 4
"""Largest number of levels that one taker order may consume completely."""

TABLE_BITS: Final = 10
_TABLE = Random("sizes and depths")
SIZES: Final = tuple(_TABLE.lognormvariate(0.0, 0.55) for _ in range(1 << TABLE_BITS))
"""Level sizes in medians: log-normal, so that one in thousands reaches seven medians."""
DEPTHS: Final = tuple(
    int(_TABLE.expovariate(1 / 14) if _TABLE.random() < 0.9 else _TABLE.uniform(0, 1050))
    for _ in range(1 << TABLE_BITS)
)
"""Distance of changes from the touch, in levels: mostly near, sometimes anywhere."""


class Fill(NamedTuple):
    """One printed trade."""

    match_ts_ms: int
    sequence: int
    side: Side
    ticks: int
    lots: int
    number: int
    """Number of the trade within the instrument; with ``noise`` it identifies the trade."""
    noise: int
    """128 random bits for the trade id."""
    direction: str
    """Price direction: ``PlusTick``, ``MinusTick``, ``ZeroPlusTick`` or ``ZeroMinusTick``."""
    is_block: bool = False
    is_rpi: bool = False


class Match(NamedTuple):
    """The trades of one taker order."""

    instrument: Instrument
    fills: tuple[Fill, ...]


class OrderFlow(Protocol):
    """The source of the events of one instrument."""

    state: "InstrumentState"
    next_ms: float
    """Time of the next event; infinity if none is planned."""

    def step(self, activity: float, /) -> Match | None:
        """Perform the event that is due at ``next_ms``, and advance ``next_ms``."""
        ...

    def resume(self, now_ms: int, activity: float, /) -> None:
        """Continue at ``now_ms`` after a pause without subscribers."""
        ...


class InstrumentState:
    """The book of one instrument and its running numbers."""

    def __init__(self, instrument: Instrument, random: Random, now_ms: int) -> None:
        self.instrument = instrument
        self.random = random
        self.book = ExchangeBook(match_ts_ms=now_ms, sequence=random.randrange(10**11, 9 * 10**11))
        self._trades = random.randrange(10**6, 10**9)
        self._last_ticks = 0
        self._direction = "PlusTick"

    def stamp(self, now_ms: int) -> None:
        """Record a change of the book at ``now_ms``."""
        self.book.stamp(now_ms, self.next_sequence())

    def next_sequence(self) -> int:
        """Return a sequence number above all earlier ones; it skips some, as the exchange does."""
        return self.book.sequence + 1 + self.random.getrandbits(6)

    def print_trade(
        self,
        side: Side,
        ticks: int,
        lots: int,
        now_ms: int,
        *,
        sequence: int,
        is_block: bool = False,
        is_rpi: bool = False,
    ) -> Fill:
        """Return the print of one trade; the caller changes the book."""
        self._trades += 1
        if ticks != self._last_ticks:
            self._direction = "PlusTick" if ticks > self._last_ticks else "MinusTick"
        elif not self._direction.startswith("Zero"):
            self._direction = "Zero" + self._direction
        self._last_ticks = ticks
        return Fill(
            now_ms,
            sequence,
            side,
            ticks,
            lots,
            self._trades,
            self.random.getrandbits(128),
            self._direction,
            is_block,
            is_rpi,
        )

    def match_order(
        self, side: Side, lots: int, now_ms: int, *, limit: int | None = None, fills_max: int = 1
    ) -> Match | None:
        """
        Match a taker order with the book; every trade reduces its level at once.

        Args:
            side: Side of the taker.
            lots: Size of the order; the unmatched rest is cancelled.
            now_ms: Match time of the trades and of the book.
            limit: Worst price in ticks.
            fills_max: Largest number of maker orders per level.

        Returns:
            The trades, or None if nothing matched.
        """
        makers = self.book.asks if side == "Buy" else self.book.bids
        worst = None if limit is None else limit * makers.sign
        sequence = self.next_sequence()
        fills: list[Fill] = []
        while lots > 0 and makers.keys:
            key = makers.keys[0]
            if worst is not None and key > worst:
                break
            resting = makers.lots[key]
            taken = min(lots, resting)
            fills += [
                self.print_trade(side, key * makers.sign, part, now_ms, sequence=sequence)
                for part in self._parts(taken, fills_max)
            ]
            makers.put(key, resting - taken)
            lots -= taken
        if not fills:
            return None
        self.book.stamp(now_ms, sequence)
        return Match(self.instrument, tuple(fills))

    def _parts(self, lots: int, parts_max: int) -> Iterable[int]:
        """Split ``lots`` into up to ``parts_max`` maker orders."""
        while parts_max > 1 and lots > 1:
            part = self.random.randint(1, lots)
            yield part
            lots -= part
            parts_max -= 1
        if lots:
            yield lots


class PlacedWall:
    """A level that is much larger than its neighbours, and the plan for it."""

    __slots__ = ("attack_ms", "key", "pull_ms", "side")

    def __init__(self, side: BookSide, key: int, *, attack_ms: float, pull_ms: float) -> None:
        self.side = side
        self.key = key
        self.attack_ms = attack_ms
        self.pull_ms = pull_ms


class RandomOrderFlow:
    """Random order flow of one instrument; the module's docstring describes it."""

    def __init__(self, instrument: Instrument, random: Random, now_ms: int) -> None:
        self.state = InstrumentState(instrument, random, now_ms)
        self.next_ms = float(now_ms)
        self._random = random
        self._start = instrument.tick.count(instrument.start_price)
        self._gap = max(1.0, self._start * GAP_RATIO)
        self._median = instrument.median_lots
        self._fair = float(self._start)
        self._fair_ms = float(now_ms)
        self._walls: list[PlacedWall] = []
        self._next_book = self._next_trade = float(now_ms)
        for book_side in (self.state.book.bids, self.state.book.asks):
            self._fill_up(book_side)
        self.state.stamp(now_ms)

    def resume(self, now_ms: int, activity: float, /) -> None:
        """Continue at ``now_ms``; events that would have happened earlier are left out."""
        self._fair_ms = max(self._fair_ms, now_ms)
        self._next_book = now_ms + self._wait(book_rate(self.state.instrument, activity))
        self._next_trade = now_ms + self._wait(self.state.instrument.trade_rate * activity)
        self.next_ms = min(self._next_book, self._next_trade)

    def step(self, activity: float, /) -> Match | None:
        """Perform the next book or trade event."""
        if self._next_book <= self._next_trade:
            match = self._book_event(self._next_book)
            self._next_book += self._wait(book_rate(self.state.instrument, activity))
        else:
            match = self._trade_event(self._next_trade, activity)
            self._next_trade += self._wait(self.state.instrument.trade_rate * activity)
        self.next_ms = min(self._next_book, self._next_trade)
        return match

    # -- rates -----------------------------------------------------------------------------------

    def _wait(self, rate: float) -> float:
        """Draw the milliseconds to the next event of a Poisson process, ``rate`` per second."""
        return 1000.0 * self._random.expovariate(rate)

    # -- draws -----------------------------------------------------------------------------------

    def _size(self) -> int:
        draw = SIZES[self._random.getrandbits(TABLE_BITS)]
        return max(1, int(self._median * draw))

    def _step_away(self) -> int:
        if self._gap <= 1.0:
            return 1
        return 1 + int(self._random.expovariate(1 / (self._gap - 1 + 1e-9)))

    # -- book events -----------------------------------------------------------------------------

    def _book_event(self, now: float) -> Match | None:
        now_ms = int(now)
        self._move_fair(now)
        self._update_walls(now)
        match = self._follow_fair(now_ms)
        for _ in range(1 + self._random.getrandbits(2)):
            self._change_somewhere()
        book = self.state.book
        for book_side in (book.bids, book.asks):
            self._fill_up(book_side)
        self.state.stamp(now_ms)
        return match

    def _move_fair(self, now: float) -> None:
        seconds = (now - self._fair_ms) / 1000
        self._fair_ms = now
        pull = (self._start - self._fair) * min(1.0, seconds / TETHER_S)
        noise = self._start * VOLATILITY * math.sqrt(seconds) * self._random.gauss(0.0, 1.0)
        self._fair = max(2.0, self._fair + pull + noise)

    def _follow_fair(self, now_ms: int) -> Match | None:
        """Cancel levels that the fair price has passed, and improve the other side."""
        book = self.state.book
        sides: tuple[tuple[BookSide, BookSide, Side], ...] = (
            (book.asks, book.bids, "Buy"),
            (book.bids, book.asks, "Sell"),
        )
        for book_side, other, taker in sides:
            fair = self._fair * book_side.sign
            for _ in range(SWEEP_MAX):
                if len(book_side.keys) < 2 or book_side.keys[0] >= fair:
                    break
                if self._is_wall(book_side, book_side.keys[0]):
                    return self._attack(book_side, taker, now_ms)
                book_side.put(book_side.keys[0], 0)
                self._step_forward(other)
        if self._spread() > 1 + self._gap:
            lagging = book.bids if self._fair > self._middle() else book.asks
            self._step_forward(lagging)
        return None

    def _attack(self, book_side: BookSide, taker: Side, now_ms: int) -> Match | None:
        """Send a taker order into a wall at the touch."""
        resting = book_side.lots[book_side.keys[0]]
        lots = max(1, int(resting * self._random.uniform(0.2, 0.6)), self._median // 2)
        return self.state.match_order(
            taker, min(lots, resting), now_ms, limit=book_side.keys[0] * book_side.sign, fills_max=2
        )

    def _spread(self) -> int:
        book = self.state.book
        return book.asks.keys[0] + book.bids.keys[0]

    def _middle(self) -> float:
        book = self.state.book
        return (book.asks.keys[0] - book.bids.keys[0]) / 2

    def _step_forward(self, book_side: BookSide) -> None:
        """Improve the best price of a side, mostly to one tick from the other side."""
        room = self._spread() - 1
        if room < 1:
            return
        step = room if self._random.random() < 0.6 else self._random.randint(1, room)
        key = book_side.keys[0] - step
        if book_side.sign > 0 or key < 0:
            book_side.put(key, self._size())

    def _change_somewhere(self) -> None:
        bits = self._random.getrandbits(TABLE_BITS + 1)
        book = self.state.book
        book_side = book.asks if bits & 1 else book.bids
        keys = book_side.keys
        index = min(DEPTHS[bits >> 1], len(keys) - 1)
        key = keys[index]
        if self._is_wall(book_side, key):
            return
        draw = self._random.random()
        room = keys[index + 1] - key if index + 1 < len(keys) else 0
        if draw < 0.6 or not room:
            book_side.put(key, self._size())
        elif room > 1.5 * self._gap:
            book_side.put(
                key + self._random.randint(1, min(room - 1, int(2 * self._gap))), self._size()
            )
        elif draw > 0.8 and index:
            book_side.put(key, 0)

    def _fill_up(self, book_side: BookSide) -> None:
        """Keep the number of levels about constant, by changes at the far end."""
        keys = book_side.keys
        while len(keys) < LEVELS:
            key = (keys[-1] if keys else self._first_key(book_side) - 1) + self._step_away()
            if book_side.sign < 0 and key >= 0:
                return
            book_side.put(key, self._size())
        while len(keys) > LEVELS + LEVELS_SLACK:
            book_side.put(keys[-1], 0)

    def _first_key(self, book_side: BookSide) -> int:
        return self._start + 1 if book_side.sign > 0 else -self._start

    # -- walls -----------------------------------------------------------------------------------

    def _is_wall(self, book_side: BookSide, key: int) -> bool:
        return any(wall.key == key and wall.side is book_side for wall in self._walls)

    def _update_walls(self, now: float) -> None:
        for wall in list(self._walls):
            self._update_wall(wall, now)
        if len(self._walls) < WALLS_MAX and self._random.randrange(WALL_EVERY_BOOK_EVENTS) == 0:
            self._place_wall(now)

    def _update_wall(self, wall: PlacedWall, now: float) -> None:
        resting = wall.side.lots.get(wall.key, 0)
        if not resting:
            self._walls.remove(wall)
        elif now >= wall.pull_ms:
            self._walls.remove(wall)
            wall.side.put(wall.key, 0 if len(wall.side.keys) > 2 else self._size())
        elif now >= wall.attack_ms:
            self._fair = (wall.key + 2 * self._gap) * wall.side.sign
            wall.attack_ms = now + 250
        elif self._random.randrange(200) == 0:
            wall.side.put(wall.key, resting + max(1, resting // 4))

    def _place_wall(self, now: float) -> None:
        book = self.state.book
        book_side = book.asks if self._random.getrandbits(1) else book.bids
        if len(book_side.keys) < 8:
            return
        key = book_side.keys[self._random.randint(2, min(25, len(book_side.keys) - 1))]
        life_ms = 1000 * (3 + self._random.expovariate(1 / WALL_LIFE_S))
        is_attacked = self._random.random() < 0.5
        attack_ms = now + life_ms / 2 if is_attacked else math.inf
        pull_ms = now + life_ms + (60_000 if is_attacked else 0)
        self._walls.append(PlacedWall(book_side, key, attack_ms=attack_ms, pull_ms=pull_ms))
        book_side.put(key, int(self._median * self._random.uniform(*WALL_MEDIANS)))

    # -- trades ----------------------------------------------------------------------------------

    def _trade_event(self, now: float, activity: float) -> Match | None:
        """
        Send a taker order, biased towards the fair price.

        Orders get smaller as activity grows, so that takers never exhaust the makers.
        """
        book = self.state.book
        bias = (self._fair - self._middle()) / (4 * (self._spread() + self._gap))
        side: Side = "Buy" if self._random.random() < 0.5 + max(-0.35, min(0.35, bias)) else "Sell"
        book_side = book.asks if side == "Buy" else book.bids
        medians = 0.4 * SIZES[self._random.getrandbits(TABLE_BITS)] ** 2 / max(1.0, activity / 4)
        last = (
            book_side.keys[min(SWEEP_MAX, len(book_side.keys) - 2)]
            if len(book_side.keys) > 1
            else 0
        )
        if not last:
            return None
        return self.state.match_order(
            side,
            max(1, int(self._median * medians)),
            int(now),
            limit=last * book_side.sign,
            fills_max=1 + self._random.randrange(FILLS_MAX),
        )


def book_rate(instrument: Instrument, activity: float) -> float:
    """Return the book events per second at an activity, capped at ``BOOK_RATE_MAX``."""
    natural = instrument.book_rate
    return min(natural * activity, max(natural, BOOK_RATE_MAX))


class SyntheticMarket:
    """
    All instruments of the synthetic exchange; only open ones have events.

    Args:
        instruments: The listed instruments.
        seed: Random seed; the same seed gives the same events.
    """

    def __init__(self, instruments: Iterable[Instrument], *, seed: int) -> None:
        self.instruments: dict[InstrumentKey, Instrument] = {
            instrument.key: instrument for instrument in instruments
        }
        self.activity = 1.0
        """Factor of all rates; ``set_activity`` changes it."""
        self._seed = seed
        self._now_ms = 0
        self._flows: dict[InstrumentKey, OrderFlow] = {}
        self._open: set[InstrumentKey] = set()
        self._due: list[tuple[float, InstrumentKey]] = []

    def open(self, key: InstrumentKey, now_ms: int) -> InstrumentState:
        """Start or continue the order flow of one instrument."""
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = self._make_flow(key, now_ms)
        self._now_ms = max(self._now_ms, now_ms)
        if key not in self._open:
            self._open.add(key)
            flow.resume(now_ms, self.activity)
            heapq.heappush(self._due, (flow.next_ms, key))
        return flow.state

    def close(self, key: InstrumentKey) -> None:
        """Pause an instrument; its book stays as it is."""
        self._open.discard(key)
        self._due = [due for due in self._due if due[1] != key]
        heapq.heapify(self._due)

    def use(self, key: InstrumentKey, flow: OrderFlow) -> None:
        """Replace the random order flow of an instrument, before ``open``."""
        self._flows[key] = flow

    def advance(self, now_ms: int) -> list[Match]:
        """Perform all events up to and including ``now_ms``; return the trades, in order."""
        self._now_ms = max(self._now_ms, now_ms)
        due, matches = self._due, []
        while due and due[0][0] <= now_ms:
            key = due[0][1]
            flow = self._flows[key]
            match = flow.step(self.activity)
            if match is not None:
                matches.append(match)
            heapq.heapreplace(due, (flow.next_ms, key))
        return matches

    def set_activity(self, activity: float) -> None:
        """Change the rates from now on, also those of open instruments."""
        self.activity = activity
        self.skip_to(self._now_ms)

    def skip_to(self, now_ms: int) -> None:
        """
        Continue at ``now_ms``; events that would have happened earlier are left out.

        A Poisson process has no memory, so new waiting times change nothing else.
        """
        self._now_ms = max(self._now_ms, now_ms)
        for key in self._open:
            self._flows[key].resume(self._now_ms, self.activity)
        self._due = [(self._flows[key].next_ms, key) for key in sorted(self._open)]
        heapq.heapify(self._due)

    def wake(self, key: InstrumentKey) -> None:
        """Reschedule an instrument after a change of its flow's ``next_ms``."""
        if key in self._open:
            self._due = [due for due in self._due if due[1] != key]
            self._due.append((self._flows[key].next_ms, key))
            heapq.heapify(self._due)

    def _make_flow(self, key: InstrumentKey, now_ms: int) -> OrderFlow:
        random = Random(f"{self._seed}:{key[0]}:{key[1]}")
        return RandomOrderFlow(self.instruments[key], random, now_ms)
