"""
A scenario: timed actions on an otherwise quiet, deterministic book.

For tests that need to know exactly what happens: walls are placed, refilled, eaten and pulled at
known times. A scenario is a file of JSON lines, one action per line. Prices are in quote currency,
sizes as the exchange writes them, and ``at_ms`` counts from the first subscription of the symbol:

    {"at_ms": 0, "symbol": "BTCUSDT", "do": "book", "mid": 50000, "levels": 100, "size": 1.0}
    {"at_ms": 500, "symbol": "BTCUSDT", "do": "place", "side": "ask", "price": 50001.0, "size": 20}
    {"at_ms": 900, "symbol": "BTCUSDT", "do": "eat", "side": "ask", "price": 50001.0, "trades": 4}

``category`` is ``linear`` by default. The actions of one symbol happen in the order of their times,
at equal times in the order of the file. Pure apart from reading the file.

    book    mid, levels=200, size=None, step_ticks=1, pulse_ms=0: replaces the whole book by levels
            every ``step_ticks`` around ``mid``, all of one size (by default the instrument's
            median). With ``pulse_ms`` the second level of both sides changes by one lot and back at
            that interval, so that messages flow while nothing happens.
    place   side, price, size: sets a level to that size
    feed    side, price, size: adds that size to a level
    pull    side, price, size=None: removes that size from a level without a trade (default: all)
    eat     side, price, size=None, trades=1: takers trade that size of a level (default: all) in
            ``trades`` equal orders with one match time, after the levels at better prices
    set     side, price, size: like place; size 0 removes the level
    trade   side (Buy or Sell, the taker's), size, price=None: a taker order, up to a worst price
    print   side, price, size, is_rpi=false, is_block=false: a trade that does not change the book

Two more actions change the list of instruments (REST) and not the market. Their ``at_ms`` counts
from the start of the server:

    list    turnover=None: lists the symbol or changes its turnover of 24 hours (quote currency;
            contracts on inverse). The symbol is not listed before the first such action.
    delist  removes the symbol from the list; its subscribers receive nothing more
"""

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Literal

import msgspec

from bybit_pipeline.processes.simulator.market.instruments import (
    DecimalStep,
    Instrument,
    InstrumentKey,
)
from bybit_pipeline.processes.simulator.market.order_book import BookSide
from bybit_pipeline.processes.simulator.market.order_flow import InstrumentState, Match
from bybit_pipeline.shared.wire.messages import Category, Side

SideName = Literal["bid", "ask"]


class ScenarioError(ValueError):
    """A scenario that cannot be read, or an action that the market cannot perform."""


class Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do"):
    """The fields of every action."""

    symbol: str
    category: Category = "linear"
    at_ms: int = 0

    @property
    def key(self) -> InstrumentKey:
        """Category and symbol of the instrument."""
        return (self.category, self.symbol)


class SetBook(Action, frozen=True, tag="book"):
    """Replace the whole book."""

    mid: float
    levels: int = 200
    size: float | None = None
    step_ticks: int = 1
    pulse_ms: int = 0


class PlaceLevel(Action, frozen=True, tag="place"):
    """Set a level to a size."""

    side: SideName
    price: float
    size: float


class SetLevel(PlaceLevel, frozen=True, tag="set"):
    """Like ``place``."""


class AddSize(Action, frozen=True, tag="feed"):
    """Add to a level."""

    side: SideName
    price: float
    size: float


class PullSize(Action, frozen=True, tag="pull"):
    """Reduce a level by cancellation."""

    side: SideName
    price: float
    size: float | None = None


class EatSize(Action, frozen=True, tag="eat"):
    """Reduce a level by trades."""

    side: SideName
    price: float
    size: float | None = None
    trades: int = 1


class TakerOrder(Action, frozen=True, tag="trade"):
    """Send a taker order."""

    side: Side
    size: float
    price: float | None = None


class PrintTrade(Action, frozen=True, tag="print"):
    """Print a trade that does not change the book."""

    side: Side
    price: float
    size: float
    is_rpi: bool = False
    is_block: bool = False


class ListInstrument(Action, frozen=True, tag="list"):
    """List an instrument or change its turnover."""

    turnover: float | None = None


class DelistInstrument(Action, frozen=True, tag="delist"):
    """Remove an instrument from the list."""


ListAction = ListInstrument | DelistInstrument
MarketAction = (
    SetBook | PlaceLevel | SetLevel | AddSize | PullSize | EatSize | TakerOrder | PrintTrade
)
AnyAction = MarketAction | ListAction

_decoder: msgspec.json.Decoder[AnyAction] = msgspec.json.Decoder(AnyAction)


def parse_scenario(text: str) -> list[AnyAction]:
    """
    Parse a scenario, one action per line; empty lines and lines that start with ``#`` are skipped.

    Raises:
        ScenarioError: Names the first line that is not an action.
    """
    actions = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                actions.append(_decoder.decode(line))
            except msgspec.DecodeError as error:
                raise ScenarioError(f"scenario line {number}: {_explain(error)}") from error
    return actions


def _explain(error: msgspec.DecodeError) -> str:
    """Return the reason of an error in our own words."""
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return "not valid JSON"
    if field := re.search(r"field `(.+?)`", text):
        return f"unknown field {field[1]}" if "unknown" in text else f"{field[1]} is missing"
    path = re.search(r"`\$\.(.+)`", text)
    where = f"{path[1]}: " if path else ""
    value = re.search(r"value ('.*?')", text)
    return f"{where}{value[1]} is not allowed" if value else f"{where}a value of the wrong type"


def read_scenario(path: str | Path) -> list[AnyAction]:
    """
    Read a scenario file.

    Raises:
        ScenarioError: If the file cannot be read or a line is not an action.
    """
    try:
        return parse_scenario(Path(path).read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise ScenarioError(f"scenario {path}: not UTF-8 text") from error
    except OSError as error:
        raise ScenarioError(f"scenario {path}: {error.strerror}") from error


class ScenarioFlow:
    """
    The order flow of one instrument that performs its scenario and nothing else.

    Raises:
        ScenarioError: From the constructor for a price or size that is no multiple of tick or lot;
            from ``step`` for an action that the book does not allow, such as a level that crosses
            the book.
    """

    def __init__(
        self, instrument: Instrument, actions: Iterable[MarketAction], *, seed: int, now_ms: int
    ) -> None:
        self.instrument = instrument
        self.state = InstrumentState(
            instrument, Random(f"{seed}:{instrument.symbol}:script"), now_ms
        )
        self.next_ms = math.inf
        self._planned: list[tuple[float, MarketAction]] = []
        self._pulse_ms = 0
        self._pulse_due = math.inf
        self._is_pulse_high = False
        mid = instrument.tick.count(instrument.start_price) * instrument.tick.value
        self._set_book(SetBook(symbol=instrument.symbol, mid=mid), now_ms)
        self.add(actions, now_ms)

    def add(self, actions: Iterable[MarketAction], now_ms: int) -> None:
        """Plan more actions; their ``at_ms`` counts from ``now_ms``."""
        new = [(float(now_ms + action.at_ms), action) for action in actions]
        for _, action in new:
            self._check_grid(action)
        self._planned = sorted([*self._planned, *new], key=lambda planned: planned[0])
        self._plan()

    def resume(self, _now_ms: int, _activity: float, /) -> None:
        """Do nothing: the scenario continues without subscribers, and nothing is left out."""

    def step(self, _activity: float, /) -> Match | None:
        """Perform the next action or pulse."""
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
            case EatSize():
                return self._eat(action, now_ms)
            case TakerOrder():
                return self.state.match_order(
                    action.side,
                    self._lots(action.size),
                    now_ms,
                    limit=None if action.price is None else self._ticks(action.price),
                )
            case PrintTrade():
                return self._print(action, now_ms)
            case PlaceLevel():
                self._put(action, self._lots(action.size), now_ms)
            case AddSize():
                self._put(action, self._resting(action) + self._lots(action.size), now_ms)
            case PullSize():
                resting = self._resting(action)
                pulled = resting if action.size is None else self._lots(action.size)
                if not 0 < pulled <= resting:
                    raise ScenarioError(f"{_name(action)}: the level has only {resting} lots")
                self._put(action, resting - pulled, now_ms)
        return None

    # -- actions ---------------------------------------------------------------------------------

    def _set_book(self, action: SetBook, now_ms: int) -> None:
        mid = self._ticks(action.mid)
        lots = self.instrument.median_lots if action.size is None else self._lots(action.size)
        for book_side in (self.state.book.bids, self.state.book.asks):
            for key in list(book_side.keys):
                book_side.put(key, 0)
            for level in range(action.levels):
                key = book_side.sign * mid + (level + (book_side.sign > 0)) * action.step_ticks
                if book_side.sign > 0 or key < 0:
                    book_side.put(key, lots)
        self._pulse_ms = action.pulse_ms
        self._pulse_due = now_ms + action.pulse_ms if action.pulse_ms else math.inf
        self._is_pulse_high = False
        self.state.stamp(now_ms)

    def _put(self, action: PlaceLevel | AddSize | PullSize, lots: int, now_ms: int) -> None:
        book_side, key = self._book_side(action.side), self._key(action)
        book = self.state.book
        other = book.bids if book_side is book.asks else book.asks
        if lots and other.keys and key + other.keys[0] <= 0:
            raise ScenarioError(f"{_name(action)}: the level would cross or lock the book")
        book_side.put(key, lots)
        self.state.stamp(now_ms)

    def _eat(self, action: EatSize, now_ms: int) -> Match | None:
        resting = self._resting(action)
        lots = resting if action.size is None else self._lots(action.size)
        if not 0 < lots <= resting:
            raise ScenarioError(f"{_name(action)}: the level has only {resting} lots")
        book_side, key = self._book_side(action.side), self._key(action)
        side: Side = "Buy" if action.side == "ask" else "Sell"
        better = sum(book_side.lots[better] for better in book_side.keys if better < key)
        matches = [self.state.match_order(side, better, now_ms)] if better else []
        matches += [
            self.state.match_order(side, part, now_ms) for part in _equal_parts(lots, action.trades)
        ]
        fills = tuple(fill for match in matches if match for fill in match.fills)
        return Match(self.instrument, fills)

    def _print(self, action: PrintTrade, now_ms: int) -> Match:
        fill = self.state.print_trade(
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
        for book_side in (self.state.book.bids, self.state.book.asks):
            if len(book_side.keys) > 1:
                key = book_side.keys[1]
                book_side.put(key, max(1, book_side.lots[key] + (1 if self._is_pulse_high else -1)))
        self._pulse_due += self._pulse_ms
        self.state.stamp(now_ms)

    # -- numbers ---------------------------------------------------------------------------------

    def _book_side(self, side: SideName) -> BookSide:
        return self.state.book.bids if side == "bid" else self.state.book.asks

    def _key(self, action: PlaceLevel | AddSize | PullSize | EatSize) -> int:
        return self._ticks(action.price) * self._book_side(action.side).sign

    def _resting(self, action: AddSize | PullSize | EatSize) -> int:
        return self._book_side(action.side).lots.get(self._key(action), 0)

    def _ticks(self, price: float) -> int:
        return _steps(price, self.instrument.tick, "price")

    def _lots(self, size: float) -> int:
        return _steps(size, self.instrument.lot, "size")

    def _check_grid(self, action: MarketAction) -> None:
        """Check prices and sizes now and not when the action is due."""
        price = getattr(action, "price", None)
        size = getattr(action, "size", None)
        if price is not None:
            self._ticks(price)
        if size is not None:
            self._lots(size)


def _name(action: MarketAction) -> str:
    """Return a short name of an action, for errors."""
    return f"{action.__struct_config__.tag} of {action.symbol} at {action.at_ms} ms"


def _steps(value: float, step: DecimalStep, name: str) -> int:
    steps = value * step.per_unit
    if value < 0 or abs(steps - round(steps)) > 1e-6:
        raise ScenarioError(f"{name} {value:g}: allowed: multiples of {step.value:g}")
    return round(steps)


def _equal_parts(whole: int, parts: int) -> Iterator[int]:
    """Split ``whole`` into parts that differ by at most one; parts of zero are left out."""
    for index in range(parts):
        part = whole * (index + 1) // parts - whole * index // parts
        if part:
            yield part
