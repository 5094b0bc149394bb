"""
The synthetic market: seeded order flow over one book per instrument.

Decides what happens in the made market and when; knows nothing of topics, text or sockets. Time
comes in as milliseconds. What happens to an instrument depends on the seed, its name and the time
it was opened, not on the size of the steps and not on the other instruments.

Each instrument has two Poisson processes. A *book event* moves a hidden fair price (a random walk
tethered to the start price), lets makers follow it, changes some levels, and keeps walls: large
levels that are placed, fed, attacked and eaten by takers, or pulled. A *trade event* is a taker
order that consumes what rests at the prices it prints at. Prices are ticks, sizes are lots.
"""

import heapq
import math
from collections.abc import Iterable
from random import Random
from typing import Final, NamedTuple, Protocol

from bybit_pipeline.processes.simulator.market.instruments import Instrument
from bybit_pipeline.processes.simulator.market.order_book import Book, Ladder
from bybit_pipeline.shared.wire.messages import Category, Side

InstrumentKey = tuple[Category, str]

LEVELS: Final = 1_100
"""Levels kept on each side, so that a 1000-level window always has a margin."""
LEVELS_SLACK: Final = 60
GAP_RATIO: Final = 1e-5
"""Mean distance of neighbouring levels over the price, but at least one tick."""
VOLATILITY: Final = 2e-5
"""Of the fair price over its start, per square root of a second."""
TETHER_S: Final = 1_800.0
"""Time constant that pulls the fair price back to the start price."""
BOOK_RATE_MAX: Final = 200.0
"""Book events a second beyond which more of them change no more messages."""
WALLS_MAX: Final = 3
WALL_EVERY_BOOK_EVENTS: Final = 900
WALL_LIFE_S: Final = 25.0
WALL_MEDIANS: Final = (9.0, 22.0)
"""Size of a wall over the median level size, between these."""
FILLS_MAX: Final = 3
SWEEP_MAX: Final = 4
"""Levels one taker order may consume whole."""

TABLE_BITS: Final = 10
_TABLE = Random("sizes and depths")
SIZES: Final = tuple(_TABLE.lognormvariate(0.0, 0.55) for _ in range(1 << TABLE_BITS))
"""Level sizes over their median: log-normal, so that one in thousands reaches seven medians."""
DEPTHS: Final = tuple(
    int(_TABLE.expovariate(1 / 14) if _TABLE.random() < 0.9 else _TABLE.uniform(0, 1050))
    for _ in range(1 << TABLE_BITS)
)
"""How many levels from the touch a change happens: mostly near, now and then anywhere."""


class Fill(NamedTuple):
    """One trade as it is printed."""

    match_ts_ms: int
    sequence: int
    side: Side
    ticks: int
    lots: int
    number: int
    """Counts the trades of the instrument; names them together with ``noise``."""
    noise: int
    """128 random bits for a trade id."""
    direction: str
    """Against the trade before: ``PlusTick``, ``MinusTick``, or those after ``Zero``."""
    is_block: bool = False
    is_rpi: bool = False


class Match(NamedTuple):
    """What one taker order led to."""

    instrument: Instrument
    fills: tuple[Fill, ...]


class Flow(Protocol):
    """What makes things happen to one instrument."""

    state: "State"
    next_ms: float
    """When ``step`` is due next; infinity when nothing will happen by itself."""

    def step(self, activity: float, /) -> Match | None:
        """Let what is due at ``next_ms`` happen, and move ``next_ms``."""
        ...

    def resume(self, now_ms: int, activity: float, /) -> None:
        """Go on at ``now_ms`` after a time in which nobody looked."""
        ...


class State:
    """One instrument's book and its running numbers; everything that changes goes through here."""

    def __init__(self, instrument: Instrument, random: Random, now_ms: int) -> None:
        self.instrument = instrument
        self.random = random
        self.book = Book(match_ts_ms=now_ms, sequence=random.randrange(10**11, 9 * 10**11))
        self._trades = random.randrange(10**6, 10**9)
        self._last_ticks = 0
        self._direction = "PlusTick"

    def stamp(self, now_ms: int) -> None:
        """Note a change of the book at ``now_ms``."""
        self.book.stamp(now_ms, self.next_sequence())

    def next_sequence(self) -> int:
        """A cross sequence above all before; it skips, as the exchange's does."""
        return self.book.sequence + 1 + self.random.getrandbits(6)

    def fill(
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
        """Print one trade; the book is the caller's."""
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

    def take(
        self, side: Side, lots: int, now_ms: int, *, limit: int | None = None, fills_max: int = 1
    ) -> Match | None:
        """
        Match a taker order with the book: every print reduces its level by its size at once.

        Args:
            side: The taker's.
            lots: Size of the order; what finds nothing to trade with is cancelled.
            now_ms: Match time of the trades and of the book.
            limit: Worst price in ticks.
            fills_max: At most so many maker orders a level.

        Returns:
            The trades, None when there was nothing to trade with.
        """
        ladder = self.book.asks if side == "Buy" else self.book.bids
        worst = None if limit is None else limit * ladder.sign
        sequence = self.next_sequence()
        fills: list[Fill] = []
        while lots > 0 and ladder.keys:
            key = ladder.keys[0]
            if worst is not None and key > worst:
                break
            resting = ladder.lots[key]
            taken = min(lots, resting)
            fills += [
                self.fill(side, key * ladder.sign, part, now_ms, sequence=sequence)
                for part in self._parts(taken, fills_max)
            ]
            ladder.put(key, resting - taken)
            lots -= taken
        if not fills:
            return None
        self.book.stamp(now_ms, sequence)
        return Match(self.instrument, tuple(fills))

    def _parts(self, lots: int, parts_max: int) -> Iterable[int]:
        """``lots`` split into up to ``parts_max`` maker orders."""
        while parts_max > 1 and lots > 1:
            part = self.random.randint(1, lots)
            yield part
            lots -= part
            parts_max -= 1
        if lots:
            yield lots


class Wall:
    """A level that is much larger than its neighbours, and what is planned for it."""

    __slots__ = ("attack_ms", "key", "ladder", "pull_ms")

    def __init__(self, ladder: Ladder, key: int, *, attack_ms: float, pull_ms: float) -> None:
        self.ladder = ladder
        self.key = key
        self.attack_ms = attack_ms
        self.pull_ms = pull_ms


class RandomFlow:
    """The order flow of one instrument; see the module's docstring."""

    def __init__(self, instrument: Instrument, random: Random, now_ms: int) -> None:
        self.state = State(instrument, random, now_ms)
        self.next_ms = float(now_ms)
        self._random = random
        self._start = instrument.tick.count(instrument.start_price)
        self._gap = max(1.0, self._start * GAP_RATIO)
        self._median = instrument.median_lots
        self._fair = float(self._start)
        self._fair_ms = float(now_ms)
        self._walls: list[Wall] = []
        self._next_book = self._next_trade = float(now_ms)
        for ladder in (self.state.book.bids, self.state.book.asks):
            self._fill_up(ladder)
        self.state.stamp(now_ms)

    def resume(self, now_ms: int, activity: float, /) -> None:
        """Go on at ``now_ms``: whatever would have happened before is left out."""
        self._fair_ms = max(self._fair_ms, now_ms)
        self._next_book = now_ms + self._wait(book_rate(self.state.instrument, activity))
        self._next_trade = now_ms + self._wait(self.state.instrument.trade_rate * activity)
        self.next_ms = min(self._next_book, self._next_trade)

    def step(self, activity: float, /) -> Match | None:
        """Let the next book or trade event happen."""
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
        """Milliseconds to the next event of a Poisson process with ``rate`` a second."""
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
        self._tend_walls(now)
        match = self._follow_fair(now_ms)
        for _ in range(1 + self._random.getrandbits(2)):
            self._change_somewhere()
        book = self.state.book
        for ladder in (book.bids, book.asks):
            self._fill_up(ladder)
        self.state.stamp(now_ms)
        return match

    def _move_fair(self, now: float) -> None:
        seconds = (now - self._fair_ms) / 1000
        self._fair_ms = now
        pull = (self._start - self._fair) * min(1.0, seconds / TETHER_S)
        noise = self._start * VOLATILITY * math.sqrt(seconds) * self._random.gauss(0.0, 1.0)
        self._fair = max(2.0, self._fair + pull + noise)

    def _follow_fair(self, now_ms: int) -> Match | None:
        """Makers on the side that the fair price has passed retreat; the others step forward."""
        book = self.state.book
        for ladder, other, side in (
            (book.asks, book.bids, "Buy"),
            (book.bids, book.asks, "Sell"),
        ):
            fair = self._fair * ladder.sign
            for _ in range(SWEEP_MAX):
                if len(ladder.keys) < 2 or ladder.keys[0] >= fair:
                    break
                if self._is_wall(ladder, ladder.keys[0]):
                    return self._attack(ladder, "Buy" if side == "Buy" else "Sell", now_ms)
                ladder.put(ladder.keys[0], 0)
                self._step_forward(other)
        if self._spread() > 1 + self._gap:
            lags = book.bids if self._fair > self._middle() else book.asks
            self._step_forward(lags)
        return None

    def _attack(self, ladder: Ladder, side: Side, now_ms: int) -> Match | None:
        """A taker order into a wall at the touch."""
        resting = ladder.lots[ladder.keys[0]]
        lots = max(1, int(resting * self._random.uniform(0.2, 0.6)), self._median // 2)
        return self.state.take(
            side, min(lots, resting), now_ms, limit=ladder.keys[0] * ladder.sign, fills_max=2
        )

    def _spread(self) -> int:
        book = self.state.book
        return book.asks.keys[0] + book.bids.keys[0]

    def _middle(self) -> float:
        book = self.state.book
        return (book.asks.keys[0] - book.bids.keys[0]) / 2

    def _step_forward(self, ladder: Ladder) -> None:
        """Improve the best price of a side, most often to one tick from the other side."""
        room = self._spread() - 1
        if room < 1:
            return
        step = room if self._random.random() < 0.6 else self._random.randint(1, room)
        key = ladder.keys[0] - step
        if ladder.sign > 0 or key < 0:
            ladder.put(key, self._size())

    def _change_somewhere(self) -> None:
        bits = self._random.getrandbits(TABLE_BITS + 1)
        book = self.state.book
        ladder = book.asks if bits & 1 else book.bids
        keys = ladder.keys
        index = min(DEPTHS[bits >> 1], len(keys) - 1)
        key = keys[index]
        if self._is_wall(ladder, key):
            return
        draw = self._random.random()
        room = keys[index + 1] - key if index + 1 < len(keys) else 0
        if draw < 0.6 or not room:
            ladder.put(key, self._size())
        elif room > 1.5 * self._gap:
            ladder.put(
                key + self._random.randint(1, min(room - 1, int(2 * self._gap))), self._size()
            )
        elif draw > 0.8 and index:
            ladder.put(key, 0)

    def _fill_up(self, ladder: Ladder) -> None:
        """Keep the number of levels about constant at the far end, where nobody looks."""
        keys = ladder.keys
        while len(keys) < LEVELS:
            key = (keys[-1] if keys else self._first_key(ladder) - 1) + self._step_away()
            if ladder.sign < 0 and key >= 0:
                return
            ladder.put(key, self._size())
        while len(keys) > LEVELS + LEVELS_SLACK:
            ladder.put(keys[-1], 0)

    def _first_key(self, ladder: Ladder) -> int:
        return self._start + 1 if ladder.sign > 0 else -self._start

    # -- walls -----------------------------------------------------------------------------------

    def _is_wall(self, ladder: Ladder, key: int) -> bool:
        return any(wall.key == key and wall.ladder is ladder for wall in self._walls)

    def _tend_walls(self, now: float) -> None:
        for wall in list(self._walls):
            self._tend(wall, now)
        if len(self._walls) < WALLS_MAX and self._random.randrange(WALL_EVERY_BOOK_EVENTS) == 0:
            self._place_wall(now)

    def _tend(self, wall: Wall, now: float) -> None:
        resting = wall.ladder.lots.get(wall.key, 0)
        if not resting:
            self._walls.remove(wall)
        elif now >= wall.pull_ms:
            self._walls.remove(wall)
            wall.ladder.put(wall.key, 0 if len(wall.ladder.keys) > 2 else self._size())
        elif now >= wall.attack_ms:
            self._fair = (wall.key + 2 * self._gap) * wall.ladder.sign
            wall.attack_ms = now + 250
        elif self._random.randrange(200) == 0:
            wall.ladder.put(wall.key, resting + max(1, resting // 4))

    def _place_wall(self, now: float) -> None:
        book = self.state.book
        ladder = book.asks if self._random.getrandbits(1) else book.bids
        if len(ladder.keys) < 8:
            return
        key = ladder.keys[self._random.randint(2, min(25, len(ladder.keys) - 1))]
        life_ms = 1000 * (3 + self._random.expovariate(1 / WALL_LIFE_S))
        is_attacked = self._random.random() < 0.5
        attack_ms = now + life_ms / 2 if is_attacked else math.inf
        pull_ms = now + life_ms + (60_000 if is_attacked else 0)
        self._walls.append(Wall(ladder, key, attack_ms=attack_ms, pull_ms=pull_ms))
        ladder.put(key, int(self._median * self._random.uniform(*WALL_MEDIANS)))

    # -- trades ----------------------------------------------------------------------------------

    def _trade_event(self, now: float, activity: float) -> Match | None:
        """
        A taker order; buyers and sellers lean towards the fair price.

        Orders get smaller as activity grows, so that takers never outrun the makers.
        """
        book = self.state.book
        lean = (self._fair - self._middle()) / (4 * (self._spread() + self._gap))
        side: Side = "Buy" if self._random.random() < 0.5 + max(-0.35, min(0.35, lean)) else "Sell"
        ladder = book.asks if side == "Buy" else book.bids
        share = 0.4 * SIZES[self._random.getrandbits(TABLE_BITS)] ** 2 / max(1.0, activity / 4)
        last = ladder.keys[min(SWEEP_MAX, len(ladder.keys) - 2)] if len(ladder.keys) > 1 else 0
        if not last:
            return None
        return self.state.take(
            side,
            max(1, int(self._median * share)),
            int(now),
            limit=last * ladder.sign,
            fills_max=1 + self._random.randrange(FILLS_MAX),
        )


def book_rate(instrument: Instrument, activity: float) -> float:
    """Book events a second at an activity, capped where more would change no more messages."""
    natural = instrument.book_rate
    return min(natural * activity, max(natural, BOOK_RATE_MAX))


class Market:
    """
    All instruments of the synthetic exchange; only opened ones move.

    Args:
        instruments: What is listed, by category and symbol.
        seed: Same seed, same events.
    """

    def __init__(self, instruments: Iterable[Instrument], *, seed: int) -> None:
        self.instruments: dict[InstrumentKey, Instrument] = {
            (instrument.category, instrument.symbol): instrument for instrument in instruments
        }
        self.activity = 1.0
        """Multiplies every rate; ``set_activity`` changes it."""
        self._seed = seed
        self._now_ms = 0
        self._flows: dict[InstrumentKey, Flow] = {}
        self._open: set[InstrumentKey] = set()
        self._due: list[tuple[float, InstrumentKey]] = []

    def open(self, key: InstrumentKey, now_ms: int) -> State:
        """Start, or go on with, the order flow of one instrument."""
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
        """Let an instrument rest; its book stays as it is."""
        self._open.discard(key)
        self._due = [due for due in self._due if due[1] != key]
        heapq.heapify(self._due)

    def use(self, key: InstrumentKey, flow: Flow) -> None:
        """Put a flow of one's own in the place of the random one, before ``open``."""
        self._flows[key] = flow

    def advance(self, now_ms: int) -> list[Match]:
        """Let everything happen that is due up to and with ``now_ms``; the trades, in order."""
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
        """Change the rates from now on, of what is open too."""
        self.activity = activity
        self.skip_to(self._now_ms)

    def skip_to(self, now_ms: int) -> None:
        """
        Leave out what has not happened up to ``now_ms`` and go on from there.

        A Poisson process has no memory: drawing the waiting times anew changes nothing else.
        """
        self._now_ms = max(self._now_ms, now_ms)
        for key in self._open:
            self._flows[key].resume(self._now_ms, self.activity)
        self._due = [(self._flows[key].next_ms, key) for key in sorted(self._open)]
        heapq.heapify(self._due)

    def wake(self, key: InstrumentKey) -> None:
        """Look again at a flow whose ``next_ms`` somebody moved."""
        if key in self._open:
            self._due = [due for due in self._due if due[1] != key]
            self._due.append((self._flows[key].next_ms, key))
            heapq.heapify(self._due)

    def _make_flow(self, key: InstrumentKey, now_ms: int) -> Flow:
        random = Random(f"{self._seed}:{key[0]}:{key[1]}")
        return RandomFlow(self.instruments[key], random, now_ms)
