"""
The load: symbols, their books, and complete websocket frames in the shapes of Bybit's v5 API.

Pure and repeatable: the same ``LoadSpec`` gives the same bytes. Seven of ten messages are deltas of
``orderbook.50``, three are ``publicTrade``; a frame has about 370 bytes. A book always has exactly
50 levels per side, like Bybit's: an inserted level pushes the last one out, a deleted one lets the
next one in. Its ``update_id`` grows by one, and it is never crossed.

Every number that differs between two sendings has a fixed width and a known place, so that the load
server only overwrites digits: always the times, and when frames are sent again also ``u``, ``seq``
and trade ids. The last deltas of a round restore the first snapshot of every book, so that rounds
join without a gap.
"""

import random
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

DEPTH = 50
BOOK_SHARE = 0.7
START_MS = 1_790_000_000_000
FIRST_UPDATE = 1_000_000_000
FIRST_SEQUENCE = 100_000_000_000
TIME_DIGITS = 13
KNOWN = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "LINK", "AVAX", "LTC", "DOT")
CHANGES_PER_SIDE = (4, 5)
"""
Smallest and largest number of changed levels per side of a delta. With the deletions that
insertions cause, frames have about 370 bytes.
"""


def symbol_names(count: int) -> list[str]:
    """Return ``count`` linear symbols: well-known coins first, then numbered ones."""
    coins = [*KNOWN, *(f"C{number:03d}" for number in range(len(KNOWN), count))]
    return [f"{coin}USDT" for coin in coins[:count]]


@dataclass(frozen=True, kw_only=True)
class LoadSpec:
    """Specification of a load: symbols, depth of the books, messages per round, random seed."""

    symbols: int = 10
    depth: int = DEPTH
    messages: int = 20_000
    seed: int = 1
    is_round: bool = False
    """End with deltas that restore every snapshot, so that the round can be sent again."""


@dataclass
class Counter:
    """A decimal number in a frame that grows by ``step`` with every round."""

    offset: int
    value: int
    step: int = 0


@dataclass
class Frame:
    """
    One websocket frame with its header.

    Attributes:
        stamps: Offsets of 13-digit times.
        counters: Numbers that grow from round to round.
        marks: Offsets of eight hexadecimal digits of a trade id that contain the round number.
    """

    symbol: str
    is_book: bool
    data: bytes
    stamps: tuple[int, ...]
    counters: list[Counter] = field(default_factory=list)
    marks: tuple[int, ...] = ()
    trades: int = 0


@dataclass
class Load:
    """The frames of one round in sending order, and the snapshots sent before them."""

    spec: LoadSpec
    symbols: list[str]
    snapshots: dict[str, bytes]
    """Websocket frames by symbol, sent when a book is subscribed."""
    frames: list[Frame]
    touches: dict[str, tuple[float, float]]
    """Best bid and ask of every book after the last frame, to verify the book of a client."""

    @property
    def books(self) -> int:
        """Number of deltas in a round."""
        return sum(frame.is_book for frame in self.frames)

    @property
    def trade_messages(self) -> int:
        """Number of ``publicTrade`` messages in a round."""
        return len(self.frames) - self.books

    @property
    def trades(self) -> int:
        """Number of trades in a round."""
        return sum(frame.trades for frame in self.frames)

    @property
    def mean_bytes(self) -> float:
        """Mean length of a frame, header included."""
        return sum(len(frame.data) for frame in self.frames) / max(1, len(self.frames))


def make_load(spec: LoadSpec) -> Load:
    """Return the load of a specification."""
    draw = random.Random(spec.seed)
    markets = [_LoadMarket(name, draw, spec.depth) for name in symbol_names(spec.symbols)]
    snapshots = {market.symbol: websocket_frame(market.snapshot()) for market in markets}
    closing = markets if spec.is_round else []
    if spec.messages <= len(closing):
        raise ValueError(f"{spec.messages} messages cannot restore {len(closing)} books")
    frames = []
    for _ in range(spec.messages - len(closing)):
        market = markets[draw.randrange(len(markets))]
        frames.append(market.delta() if draw.random() < BOOK_SHARE else market.trade_message())
    frames += [market.restoring_delta() for market in closing]
    for market in markets:
        market.close_round()
    touches = {market.symbol: market.touch() for market in markets}
    return Load(spec, [market.symbol for market in markets], snapshots, frames, touches)


def websocket_frame(payload: bytes) -> bytes:
    """Return an unmasked, unfragmented text frame of a server (RFC 6455, section 5.2)."""
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 65_536:
        return b"\x81\x7e" + length.to_bytes(2, "big") + payload
    return b"\x81\x7f" + length.to_bytes(8, "big") + payload


def frame_payload(frame: bytes) -> bytes:
    """Return the payload of a frame of ``websocket_frame``."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


class _LoadMarket:
    """One symbol: its trades, and a book with exactly ``depth`` levels per side."""

    def __init__(self, symbol: str, draw: random.Random, depth: int) -> None:
        self.symbol = symbol
        self._depth = depth
        self._draw = draw
        self._decimals = draw.choice((2, 3, 4))
        self._size_decimals = draw.choice((1, 2, 3))
        self._update = FIRST_UPDATE
        self._sequence = FIRST_SEQUENCE
        self._counters: list[tuple[Counter, Counter | None]] = []
        middle = draw.randrange(200_000, 9_000_000)
        self._bids = _LoadSide(-1, self._levels(middle, -1))
        self._asks = _LoadSide(1, self._levels(middle + 1, 1))
        self._first = (dict(self._bids.sizes), dict(self._asks.sizes))

    def touch(self) -> tuple[float, float]:
        """Return best bid and best ask."""
        return float(self._price(self._bids.best)), float(self._price(self._asks.best))

    def snapshot(self) -> bytes:
        """Return the first message of the book."""
        bids = [(tick, self._bids.sizes[tick]) for tick in self._bids.best_first()]
        asks = [(tick, self._asks.sizes[tick]) for tick in self._asks.best_first()]
        text, _, _ = self._book_text("snapshot", bids, asks, self._update, self._sequence)
        return text.encode()

    def delta(self) -> Frame:
        """Return a delta: mostly new sizes, sometimes a new or deleted level or best price."""
        changes: tuple[dict[int, int], dict[int, int]] = ({}, {})
        for side, changed in zip((self._bids, self._asks), changes, strict=True):
            held = set(side.sizes)
            for _ in range(self._draw.randint(*CHANGES_PER_SIDE)):
                self._change(side, changed)
            for tick in [tick for tick, size in changed.items() if not size and tick not in held]:
                del changed[tick]  # added and deleted within this delta
        return self._delta_frame(*changes)

    def restoring_delta(self) -> Frame:
        """Return the delta that restores the first snapshot."""
        changes: list[dict[int, int]] = []
        for side, first in zip((self._bids, self._asks), self._first, strict=True):
            changed = {tick: 0 for tick in side.sizes if tick not in first}
            changed |= {tick: size for tick, size in first.items() if side.sizes.get(tick) != size}
            side.replace(first)
            changes.append(changed)
        return self._delta_frame(changes[0], changes[1])

    def trade_message(self) -> Frame:
        """Return a message with one to three trades at the touch."""
        draw, rows, count = self._draw, [], self._draw.choices((1, 2, 3), (4, 4, 2))[0]
        for _ in range(count):
            is_buy = draw.random() < 0.5
            self._sequence += draw.randint(1, 9)
            price = self._price(self._asks.best if is_buy else self._bids.best)
            rows.append(
                f'{{"T":{START_MS},"s":"{self.symbol}","S":"{"Buy" if is_buy else "Sell"}",'
                f'"v":"{self._size(self._draw_size())}","p":"{price}","L":"PlusTick",'
                f'"i":"00000000-{draw.getrandbits(16):04x}-5{draw.getrandbits(12):03x}-'
                f'a{draw.getrandbits(12):03x}-{draw.getrandbits(48):012x}","BT":false,'
                f'"RPI":false,"seq":{self._sequence}}}'
            )
        text = (
            f'{{"topic":"publicTrade.{self.symbol}","type":"snapshot","ts":{START_MS},'
            f'"data":[{",".join(rows)}]}}'
        )
        data = websocket_frame(text.encode())
        frame = Frame(self.symbol, False, data, _offsets(data, str(START_MS)), trades=count)
        frame.marks = tuple(at + 5 for at in _offsets(data, '"i":"00000000-'))
        frame.counters = [
            Counter(at + 6, int(data[at + 6 : at + 6 + 12])) for at in _offsets(data, '"seq":')
        ]
        self._counters += [(counter, None) for counter in frame.counters]
        return frame

    def close_round(self) -> None:
        """Set the growth per round of every counter."""
        updates, sequences = self._update - FIRST_UPDATE, self._sequence - FIRST_SEQUENCE
        for sequence, update in self._counters:
            sequence.step = sequences
            if update is not None:
                update.step = updates

    def _delta_frame(self, bids: dict[int, int], asks: dict[int, int]) -> Frame:
        self._update += 1
        self._sequence += self._draw.randint(1, 9)
        text, at_update, at_sequence = self._book_text(
            "delta", list(bids.items()), list(asks.items()), self._update, self._sequence
        )
        data = websocket_frame(text.encode())
        header = len(data) - len(text)
        update = Counter(at_update + header, self._update)
        sequence = Counter(at_sequence + header, self._sequence)
        self._counters.append((sequence, update))
        return Frame(self.symbol, True, data, _offsets(data, str(START_MS)), [update, sequence])

    def _book_text(
        self,
        kind: str,
        bids: list[tuple[int, int]],
        asks: list[tuple[int, int]],
        update: int,
        sequence: int,
    ) -> tuple[str, int, int]:
        head = (
            f'{{"topic":"orderbook.{self._depth}.{self.symbol}","type":"{kind}","ts":{START_MS},'
            f'"data":{{"s":"{self.symbol}","b":[{self._rows(bids)}],"a":[{self._rows(asks)}],"u":'
        )
        middle = f'{head}{update},"seq":'
        return f'{middle}{sequence}}},"cts":{START_MS}}}', len(head), len(middle)

    def _rows(self, levels: list[tuple[int, int]]) -> str:
        return ",".join(
            f'["{self._price(tick)}","{self._size(size) if size else "0"}"]'
            for tick, size in levels
        )

    def _change(self, side: "_LoadSide", changed: dict[int, int]) -> None:
        """Change one level of a side, and with it the last level of the book where needed."""
        chance = self._draw.random()
        index = min(int(self._draw.expovariate(1 / 8)), self._depth - 1)
        if chance < 0.8:
            tick = side.at(index)
            changed[tick] = side.set(tick, self._draw_size())
        elif chance < 0.9:
            tick = side.at(index)
            far = side.worst + side.sign * self._draw.randint(1, 3)
            changed[tick] = side.remove(tick)
            changed[far] = side.set(far, self._draw_size())
        else:
            free = self._free_tick(side, index)
            if free is not None:
                worst = side.worst
                changed[free] = side.set(free, self._draw_size())
                changed[worst] = side.remove(worst)

    def _free_tick(self, side: "_LoadSide", index: int) -> int | None:
        """Return a tick without a level: inside the spread at index 0, else behind that level."""
        if index == 0:
            tick = side.best - side.sign
            return tick if self._bids.best < tick < self._asks.best else None
        tick = side.at(index) + side.sign
        return tick if tick not in side.sizes and index < self._depth - 1 else None

    def _levels(self, start: int, sign: int) -> dict[int, int]:
        levels, tick = {}, start
        for _ in range(self._depth):
            levels[tick] = self._draw_size()
            tick += sign * self._draw.choice((1, 1, 2, 3))
        return levels

    def _draw_size(self) -> int:
        """Draw a size in the smallest units of the symbol; one in a few hundred is a wall."""
        return 1 + int(self._draw.lognormvariate(7, 1))

    def _price(self, tick: int) -> str:
        return f"{tick / 10**self._decimals:.{self._decimals}f}"

    def _size(self, units: int) -> str:
        return f"{units / 10**self._size_decimals:.{self._size_decimals}f}"


class _LoadSide:
    """Sizes by tick, and the ticks in order; ``sign`` is -1 for bids and 1 for asks."""

    def __init__(self, sign: int, sizes: dict[int, int]) -> None:
        self.sign = sign
        self.replace(sizes)

    def replace(self, sizes: dict[int, int]) -> None:
        self.sizes = dict(sizes)
        self._keys = sorted(tick * self.sign for tick in sizes)

    @property
    def best(self) -> int:
        return self._keys[0] * self.sign

    @property
    def worst(self) -> int:
        return self._keys[-1] * self.sign

    def at(self, index: int) -> int:
        return self._keys[index] * self.sign

    def best_first(self) -> Iterator[int]:
        return (key * self.sign for key in self._keys)

    def set(self, tick: int, size: int) -> int:
        if tick not in self.sizes:
            insort(self._keys, tick * self.sign)
        self.sizes[tick] = size
        return size

    def remove(self, tick: int) -> int:
        del self.sizes[tick]
        del self._keys[bisect_left(self._keys, tick * self.sign)]
        return 0


def _offsets(data: bytes, text: str) -> tuple[int, ...]:
    """Return all offsets of ``text`` in ``data``."""
    parts = data.split(text.encode())
    offset, offsets = 0, []
    for part, _ in pairwise(parts):
        offset += len(part)
        offsets.append(offset)
        offset += len(text)
    return tuple(offsets)
