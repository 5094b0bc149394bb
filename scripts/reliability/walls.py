"""
Walls of recorded books: ``scripts/walls CAPTURE…``.

Replays each capture through the books and the wall tracker of an orderbook worker, without
processes and as fast as possible, and prints how many walls each book has at a time and how many
events per minute. Every setting of ``[density]`` is an option, so that settings for a market of
your own can be chosen from a capture of it.

With ``--depth N`` a deeper book is reduced to the messages that a stream of depth N would have
sent: the best N levels per side, at the pace of the recording.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec.structs import fields, replace

from bybit_pipeline.processes.connector.protocol import BookUpdate, InvalidFrame, decode
from bybit_pipeline.processes.orderbook.book import OrderBook
from bybit_pipeline.processes.orderbook.local_book import LocalBook
from bybit_pipeline.processes.orderbook.manager import OrderBookManager
from bybit_pipeline.shared.settings.captures import CaptureError, CaptureReader, describe_capture
from bybit_pipeline.shared.settings.config import DensityConfig, OrderbookConfig
from bybit_pipeline.shared.wire.messages import BookMessage, Level, TradesMessage
from bybit_pipeline.shared.wire.orderbook import WallEventName

EVENTS: tuple[WallEventName, ...] = get_args(WallEventName)
WALLS_LIMIT = 20
"""Walls per book at a time that the default settings are to stay within."""
EVENTS_LIMIT = 30
"""Events per minute and book that the default settings are to stay within."""


class Reducer:
    """Turns the messages of a deep book into those of a stream of ``depth`` levels."""

    def __init__(self, recorded_depth: int, depth: int) -> None:
        self._book = OrderBook(recorded_depth)
        self._depth = depth
        self._update_id = 1
        self._shown: dict[str, dict[float, float]] = {}

    def reduce(self, message: BookMessage) -> BookMessage | None:
        """Return the message of the shallow stream; None if nothing changed there."""
        self._book.apply(message)
        changes = [
            self._changes(side.name, side.levels(self._depth), is_snapshot=message.is_snapshot)
            for side in (self._book.bid_side, self._book.ask_side)
        ]
        if not any(changes):
            return None
        self._update_id += 1
        bids, asks = changes
        return replace(message, depth=self._depth, update_id=self._update_id, bids=bids, asks=asks)

    def _changes(self, side: str, levels: list[Level], *, is_snapshot: bool) -> tuple[Level, ...]:
        before, now = self._shown.get(side, {}), dict(levels)
        self._shown[side] = now
        if is_snapshot:
            return tuple(levels)
        deleted = [(price, 0.0) for price in before if price not in now]
        changed = [(price, size) for price, size in levels if before.get(price) != size]
        return (*deleted, *changed)


class WallCount(msgspec.Struct):
    """The walls of one book of a capture."""

    capture: str
    symbol: str
    depth: int
    events: dict[str, int]
    seconds: float = 0.0
    updates: int = 0
    walls_total: int = 0
    walls_max: int = 0

    @property
    def walls_mean(self) -> float:
        """Walls at a time, on average over the updates."""
        return self.walls_total / max(1, self.updates)

    @property
    def events_per_minute(self) -> float:
        """Events of all kinds per minute, including those of the walls of the first snapshot."""
        return sum(self.events.values()) * 60 / self.seconds if self.seconds else 0.0

    def update(self, book: LocalBook, now_s: float) -> None:
        """Judge the walls as the worker does once per publish interval."""
        book.update_walls(now_s)
        for event in book.walls.take_events():
            self.events[event.event] += 1
        walls = len(book.walls.records())
        self.updates += 1
        self.walls_total += walls
        self.walls_max = max(self.walls_max, walls)


def count_walls(
    path: Path, settings: DensityConfig, *, depth: int | None = None, interval_ms: int = 100
) -> list[WallCount]:
    """
    Replay a capture and return the walls of each of its books.

    Args:
        path: The capture, of any depths; books of depth 1 are skipped.
        settings: Definition of a wall.
        depth: Depth to which deeper books are reduced; None keeps them, and shallower ones are
            skipped.
        interval_ms: Publish interval, at which walls are judged.
    """
    manager = OrderBookManager(OrderbookConfig(), settings)
    reducers: dict[tuple[str, int], Reducer] = {}
    counts: dict[str, WallCount] = {}
    began_ms: dict[str, int] = {}
    judged_ms: dict[str, int] = {}
    for symbol, message in _messages(path):
        if isinstance(message, TradesMessage):
            manager.apply_trades(symbol, message)
            continue
        recorded = message.depth
        if recorded == 1 or (depth is not None and recorded < depth):
            continue
        if depth is not None and recorded > depth:
            reducer = reducers.setdefault((symbol, recorded), Reducer(recorded, depth))
            reduced = reducer.reduce(message)
            if reduced is None:
                continue
            message = reduced
        now_ms = message.exchange_ts_ms
        book = manager.subscribe(symbol, depth=message.depth)
        if book.book.depth != message.depth:
            raise SystemExit(f"{path}: {symbol} was recorded at several depths; give --depth")
        count = counts.setdefault(
            symbol, WallCount(path.name, symbol, message.depth, dict.fromkeys(EVENTS, 0))
        )
        manager.advance(now_ms / 1_000)
        manager.apply(symbol, message)
        count.seconds = (now_ms - began_ms.setdefault(symbol, now_ms)) / 1_000
        if now_ms - judged_ms.get(symbol, 0) >= interval_ms:
            judged_ms[symbol] = now_ms
            count.update(book, manager.now)
    return list(counts.values())


def _messages(path: Path) -> Iterator[tuple[str, BookMessage | TradesMessage]]:
    """Yield symbol and message of each recorded frame, as a connector publishes them."""
    category = describe_capture(path).category
    sequence = 0
    for line in CaptureReader(path):
        if line.topic is None:
            continue
        try:
            decoded = decode(line.raw, category, line.recv_ts_ns or 0)
        except InvalidFrame:
            continue  # tickers and klines are no trades and no book
        for item in [decoded] if isinstance(decoded, BookUpdate) else decoded:
            sequence += 1
            yield item.symbol, item.record("replay", 1, sequence)  # type: ignore[union-attr]


# -- the command line ------------------------------------------------------------------------------

COLUMNS = ("capture", "symbol", "depth", "seconds", "walls", "most", *EVENTS, "per minute")


def table(counts: Iterable[WallCount]) -> Iterator[str]:
    """Yield the lines of the table; an asterisk marks what exceeds the limit."""
    rows = [
        (
            count.capture,
            count.symbol,
            str(count.depth),
            f"{count.seconds:.0f}",
            f"{count.walls_mean:.1f}",
            f"{count.walls_max}{'*' * (count.walls_max > WALLS_LIMIT)}",
            *(str(count.events[event]) for event in EVENTS),
            f"{count.events_per_minute:.1f}{'*' * (count.events_per_minute > EVENTS_LIMIT)}",
        )
        for count in counts
    ]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    for row in (COLUMNS, *rows):
        texts = [text.ljust(width) for text, width in zip(row[:2], widths, strict=False)]
        texts += [text.rjust(width) for text, width in zip(row[2:], widths[2:], strict=True)]
        yield "  ".join(texts)


def parser() -> argparse.ArgumentParser:
    """Return the parser; the settings of ``[density]`` are options with their usual defaults."""
    options = argparse.ArgumentParser(
        prog="scripts/walls", description=(__doc__ or "").splitlines()[1]
    )
    options.add_argument("captures", nargs="+", type=Path, metavar="CAPTURE")
    options.add_argument("--depth", type=int, help="reduce deeper books to this depth")
    options.add_argument(
        "--interval-ms", type=int, default=100, help="publish interval (default 100)"
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the counts there")
    for field in fields(DensityConfig):
        options.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            help=f"density.{field.name} (default {field.default:g})",
        )
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay the captures and print the table."""
    options = parser().parse_args(arguments)
    caller = Path(os.environ.get("WALLS_CALLER", "."))
    given: dict[str, Any] = {
        field.name: getattr(options, field.name) for field in fields(DensityConfig)
    }
    settings = msgspec.convert(given, DensityConfig)
    try:
        counts = [
            count
            for path in options.captures
            for count in count_walls(
                caller / path, settings, depth=options.depth, interval_ms=options.interval_ms
            )
        ]
    except CaptureError as error:
        sys.exit(f"scripts/walls: {error}")
    if not counts:
        sys.exit("scripts/walls: no book of that depth in these captures")
    print(*table(counts), sep="\n")
    if options.json is not None:
        (caller / options.json).write_bytes(msgspec.json.encode(counts) + b"\n")


if __name__ == "__main__":
    main()
