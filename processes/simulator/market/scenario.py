"""
A scripted market: timed actions on an otherwise quiet, deterministic book.

For tests that must know exactly what happens: walls are placed, fed, eaten and pulled at known
times. A script is a file of JSON lines, one action a line; prices are in quote currency, sizes as
the exchange writes them, ``at_ms`` counts from the first subscription of the symbol:

    {"at_ms": 0, "symbol": "BTCUSDT", "do": "book", "mid": 50000, "levels": 100, "size": 1.0}
    {"at_ms": 500, "symbol": "BTCUSDT", "do": "place", "side": "ask", "price": 50001.0, "size": 20}
    {"at_ms": 900, "symbol": "BTCUSDT", "do": "eat", "side": "ask", "price": 50001.0, "trades": 4}

``category`` is ``linear`` unless given. Actions of one symbol happen in the order of their times,
equal times in the order of the file. Pure: no sockets, no clock.

    book    mid, levels=200, size=None, step_ticks=1, pulse_ms=0: replaces the whole book: levels
            every ``step_ticks`` around ``mid``, all of one size (the median of the instrument by
            default). With ``pulse_ms`` the second level of both sides changes by one lot and back
            that often, so that messages flow while nothing happens.
    place   side, price, size: a level of that size, whatever was there
    feed    side, price, size: so much more at that level
    pull    side, price, size=None: so much less without a trade, by default all of it
    eat     side, price, size=None, trades=1: takers take so much of that level, by default all of
            it, in ``trades`` equal orders of one match time; what rests at better prices goes first
    set     side, price, size: as place; size 0 removes
    trade   side (Buy or Sell, the taker's), size, price=None: a taker order, to a worst price
    print   side, price, size, is_rpi=false, is_block=false: a trade that leaves the book alone

Two more concern the list of instruments (REST) and not the market, which goes on as it would; their
``at_ms`` counts from the start of the server:

    list    turnover=None: lists the symbol, which is not listed before the first such action, or
            changes its turnover of 24 hours (quote currency; inverse: contracts)
    delist  takes it off the list; who subscribes it hears nothing more
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Literal

import msgspec

from bybit_pipeline.processes.simulator.market.instruments import DecimalStep, Instrument
from bybit_pipeline.processes.simulator.market.order_book import Ladder
from bybit_pipeline.processes.simulator.market.order_flow import InstrumentKey, Match, State
from bybit_pipeline.shared.wire.messages import Category, Side

BookSide = Literal["bid", "ask"]


class ScriptError(ValueError):
    """A script that cannot be read, or an action the market cannot perform."""


class Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do"):
    """What every action has."""

    symbol: str
    category: Category = "linear"
    at_ms: int = 0

    @property
    def key(self) -> InstrumentKey:
        """The instrument it concerns."""
        return (self.category, self.symbol)


class SetBook(Action, frozen=True, tag="book"):
    """Replace the whole book."""

    mid: float
    levels: int = 200
    size: float | None = None
    step_ticks: int = 1
    pulse_ms: int = 0


class Place(Action, frozen=True, tag="place"):
    """A level of that size."""

    side: BookSide
    price: float
    size: float


class Set(Place, frozen=True, tag="set"):
    """As ``place``."""


class Feed(Action, frozen=True, tag="feed"):
    """So much more at a level."""

    side: BookSide
    price: float
    size: float


class Pull(Action, frozen=True, tag="pull"):
    """So much less at a level, by cancellation."""

    side: BookSide
    price: float
    size: float | None = None


class Eat(Action, frozen=True, tag="eat"):
    """So much less at a level, by trades."""

    side: BookSide
    price: float
    size: float | None = None
    trades: int = 1


class Take(Action, frozen=True, tag="trade"):
    """A taker order."""

    side: Side
    size: float
    price: float | None = None


class Print(Action, frozen=True, tag="print"):
    """A trade without an effect on the book."""

    side: Side
    price: float
    size: float
    is_rpi: bool = False
    is_block: bool = False


class List(Action, frozen=True, tag="list"):
    """List an instrument, or change its turnover."""

    turnover: float | None = None


class Delist(Action, frozen=True, tag="delist"):
    """Take an instrument off the list."""


ListAction = List | Delist
MarketAction = SetBook | Place | Set | Feed | Pull | Eat | Take | Print
AnyAction = MarketAction | ListAction

_decoder: msgspec.json.Decoder[AnyAction] = msgspec.json.Decoder(AnyAction)


def parse_script(text: str) -> list[AnyAction]:
    """
    The actions of a script, one a line; empty lines and lines that start with ``#`` are skipped.

    Raises:
        ScriptError: With the number of the first line that is not an action.
    """
    actions = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                actions.append(_decoder.decode(line))
            except msgspec.DecodeError as error:
                raise ScriptError(f"script line {number}: {error}") from error
    return actions


def read_script(path: str | Path) -> list[AnyAction]:
    """
    The actions of a script file.

    Raises:
        ScriptError: If the file cannot be read or a line is not an action.
    """
    try:
        return parse_script(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ScriptError(f"script {path}: {error}") from error


class ScriptedFlow:
    """
    One instrument that does what its script says and nothing else; a ``market.Flow``.

    Raises:
        ScriptError: At once for a price off the tick or a size off the lot, and when an action is
            performed for one the book does not allow (a level that crosses the book).
    """

    def __init__(
        self, instrument: Instrument, actions: Iterable[MarketAction], *, seed: int, now_ms: int
    ) -> None:
        self.instrument = instrument
        self.state = State(instrument, Random(f"{seed}:{instrument.symbol}:script"), now_ms)
        self.next_ms = math.inf
        self._planned: list[tuple[float, MarketAction]] = []
        self._pulse_ms = 0
        self._pulse_due = math.inf
        self._is_pulse_high = False
        self._set_book(SetBook(symbol=instrument.symbol, mid=instrument.start_price), now_ms)
        self.add(actions, now_ms)

    def add(self, actions: Iterable[MarketAction], now_ms: int) -> None:
        """Plan more actions, their ``at_ms`` counting from ``now_ms``."""
        new = [(float(now_ms + action.at_ms), action) for action in actions]
        for _, action in new:
            self._check_grid(action)
        self._planned = sorted([*self._planned, *new], key=lambda planned: planned[0])
        self._plan()

    def resume(self, _now_ms: int, _activity: float, /) -> None:
        """The script's time goes on while nobody looks; nothing is left out."""

    def step(self, _activity: float, /) -> Match | None:
        """Perform what is due next."""
        now_ms = int(self.next_ms)
        match = None
        if self._planned and self._planned[0][0] <= self._pulse_due:
            match = self._perform(self._planned.pop(0)[1], now_ms)
        else:
            self._pulse(now_ms)
        self._plan()
        return match

    def _plan(self) -> None:
        planned = self._planned[0][0] if self._planned else math.inf
        self.next_ms = min(planned, self._pulse_due)

    def _perform(self, action: MarketAction, now_ms: int) -> Match | None:
        match action:
            case SetBook():
                self._set_book(action, now_ms)
            case Eat():
                return self._eat(action, now_ms)
            case Take():
                return self.state.take(
                    action.side,
                    self._lots(action.size),
                    now_ms,
                    limit=None if action.price is None else self._ticks(action.price),
                )
            case Print():
                return self._print(action, now_ms)
            case Place():
                self._put(action, self._lots(action.size), now_ms)
            case Feed():
                self._put(action, self._resting(action) + self._lots(action.size), now_ms)
            case Pull():
                resting = self._resting(action)
                pulled = resting if action.size is None else self._lots(action.size)
                if not 0 < pulled <= resting:
                    raise ScriptError(f"{action}: only {resting} lots rest there")
                self._put(action, resting - pulled, now_ms)
        return None

    # -- actions ---------------------------------------------------------------------------------

    def _set_book(self, action: SetBook, now_ms: int) -> None:
        mid = self._ticks(action.mid)
        lots = self.instrument.median_lots if action.size is None else self._lots(action.size)
        for ladder in (self.state.book.bids, self.state.book.asks):
            for key in list(ladder.keys):
                ladder.put(key, 0)
            for level in range(action.levels):
                key = ladder.sign * mid + (level + (ladder.sign > 0)) * action.step_ticks
                if ladder.sign > 0 or key < 0:
                    ladder.put(key, lots)
        self._pulse_ms = action.pulse_ms
        self._pulse_due = now_ms + action.pulse_ms if action.pulse_ms else math.inf
        self._is_pulse_high = False
        self.state.stamp(now_ms)

    def _put(self, action: Place | Feed | Pull, lots: int, now_ms: int) -> None:
        ladder, key = self._ladder(action.side), self._key(action)
        book = self.state.book
        other = book.bids if ladder is book.asks else book.asks
        if lots and other.keys and key + other.keys[0] <= 0:
            raise ScriptError(f"{action}: would cross or lock the book")
        ladder.put(key, lots)
        self.state.stamp(now_ms)

    def _eat(self, action: Eat, now_ms: int) -> Match | None:
        resting = self._resting(action)
        lots = resting if action.size is None else self._lots(action.size)
        if not 0 < lots <= resting:
            raise ScriptError(f"{action}: only {resting} lots rest there")
        ladder, key = self._ladder(action.side), self._key(action)
        side: Side = "Buy" if action.side == "ask" else "Sell"
        better = sum(ladder.lots[better] for better in ladder.keys if better < key)
        matches = [self.state.take(side, better, now_ms)] if better else []
        matches += [
            self.state.take(side, part, now_ms) for part in _equal_parts(lots, action.trades)
        ]
        fills = tuple(fill for match in matches if match for fill in match.fills)
        return Match(self.instrument, fills)

    def _print(self, action: Print, now_ms: int) -> Match:
        fill = self.state.fill(
            action.side,
            self._ticks(action.price),
            self._lots(action.size),
            now_ms,
            sequence=self.state.book.sequence,
            is_block=action.is_block,
            is_rpi=action.is_rpi,
        )
        return Match(self.instrument, (fill,))

    def _pulse(self, now_ms: int) -> None:
        self._is_pulse_high = not self._is_pulse_high
        for ladder in (self.state.book.bids, self.state.book.asks):
            if len(ladder.keys) > 1:
                key = ladder.keys[1]
                ladder.put(key, max(1, ladder.lots[key] + (1 if self._is_pulse_high else -1)))
        self._pulse_due += self._pulse_ms
        self.state.stamp(now_ms)

    # -- numbers ---------------------------------------------------------------------------------

    def _ladder(self, side: BookSide) -> Ladder:
        return self.state.book.bids if side == "bid" else self.state.book.asks

    def _key(self, action: Place | Feed | Pull | Eat) -> int:
        return self._ticks(action.price) * self._ladder(action.side).sign

    def _resting(self, action: Feed | Pull | Eat) -> int:
        return self._ladder(action.side).lots.get(self._key(action), 0)

    def _ticks(self, price: float) -> int:
        return _steps(price, self.instrument.tick, "price")

    def _lots(self, size: float) -> int:
        return _steps(size, self.instrument.lot, "size")

    def _check_grid(self, action: MarketAction) -> None:
        """A wrong number in a script is said when it is read, not when it is due."""
        price = getattr(action, "price", None)
        size = getattr(action, "size", None)
        if price is not None:
            self._ticks(price)
        if size is not None:
            self._lots(size)


def _steps(value: float, step: DecimalStep, name: str) -> int:
    steps = value * step.per_unit
    if value < 0 or abs(steps - round(steps)) > 1e-6:
        raise ScriptError(f"{name} {value} is not a multiple of {step.value}")
    return round(steps)


def _equal_parts(whole: int, parts: int) -> Iterator[int]:
    """``whole`` in ``parts`` parts that differ by at most one; parts of zero are left out."""
    for index in range(parts):
        part = whole * (index + 1) // parts - whole * index // parts
        if part:
            yield part
