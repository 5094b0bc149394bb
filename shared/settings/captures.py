"""
Recorded captures: reading their lines, their receive times, and what they hold.

A capture is a text file of raw exchange messages, one JSON object a line, in arrival order:
``NAME.jsonl``, or ``NAME.data`` as in Bybit's own archives, either of them also with ``.gz``.
Beside it may lie ``NAME.recv.txt`` (seconds since 1970, line n for line n) or ``NAME.recv_ns.txt``
(nanoseconds). Acks and pongs in a capture are not market data and have no topic. Broken lines are
skipped and counted. Files are read as they are needed, never whole.
"""

import gzip
import zlib
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgspec

from bybit_pipeline.shared.bybit import (
    CATEGORIES,
    INVERSE_SYMBOL,
    TRADES_PREFIX,
    parse_exchange_topic,
)
from bybit_pipeline.shared.errors import EX_USAGE, PipelineError
from bybit_pipeline.shared.wire.messages import Category

SUFFIXES: Final = (".jsonl", ".data")


class CaptureError(PipelineError):
    """A capture that cannot be read or holds no market data."""

    exit_code = EX_USAGE


class CaptureLine(NamedTuple):
    """One message of a capture."""

    number: int
    """Of the line in the file, from 1."""
    recv_ts_ns: int | None
    """Receive time, None without a file of receive times or with a broken line in it."""
    message: dict[str, Any]
    raw: bytes
    """The line as recorded, without its end."""

    @property
    def topic(self) -> str | None:
        """The topic of a data message, None for acks and pongs."""
        topic = self.message.get("topic")
        return topic if isinstance(topic, str) and "data" in self.message else None

    @property
    def exchange_ts_ms(self) -> int | None:
        """The exchange's ``ts``."""
        ts = self.message.get("ts")
        return ts if isinstance(ts, int) else None


class CaptureReader:
    """
    The messages of a capture in order; iterate it once, or use it again from the start.

    ``skipped`` counts the broken lines of the latest pass, up to where it is.

    Raises:
        CaptureError: If the file cannot be opened, or on reading, when it is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.skipped = 0
        try:
            self._open(self.path).close()
        except OSError as error:
            raise self._error(error) from error

    def __iter__(self) -> Iterator[CaptureLine]:
        self.skipped = 0
        try:
            with closing(self._open(self.path)) as lines, closing(self._recv_times()) as times:
                for number, line in enumerate(lines, start=1):
                    recv_ts_ns = next(times, None)
                    raw = line.strip()
                    if not raw:
                        continue
                    message = _decoded(raw)
                    if message is None:
                        self.skipped += 1
                    else:
                        yield CaptureLine(number, recv_ts_ns, message, raw)
        except (OSError, EOFError, zlib.error) as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> CaptureError:
        reason = getattr(error, "strerror", None) or str(error)
        return CaptureError(f"capture {self.path}: {reason}")

    def _open(self, path: Path) -> IO[bytes] | gzip.GzipFile:
        return gzip.open(path) if path.suffix == ".gz" else path.open("rb")

    def _recv_times(self) -> Generator[int | None]:
        """Receive times in nanoseconds, one a line; None for a line that is not a number."""
        name = capture_name(self.path)
        for suffix, decimals in ((".recv_ns.txt", 0), (".recv.txt", 9)):
            beside = self.path.with_name(name + suffix)
            if beside.exists():
                with beside.open("rb") as lines:
                    for line in lines:
                        yield _nanoseconds(line.strip().decode("ascii", "replace"), decimals)
                return


@dataclass(frozen=True)
class CaptureInfo:
    """What a capture holds."""

    path: Path
    category: Category
    depths: dict[str, tuple[int, ...]]
    """Recorded book depths by symbol, smallest first."""
    trade_symbols: tuple[str, ...]
    """Symbols with trades; of options the contracts that the rows name."""
    topics: dict[str, int]
    """Messages by topic, acks and pongs left out."""
    messages: int
    """All data messages."""
    control: int
    """Acks, pongs and other messages without a topic."""
    skipped: int
    """Broken lines."""
    first_ts_ms: int | None
    last_ts_ms: int | None
    """Of the exchange's ``ts``: the smallest and the largest."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols with a book or trades, sorted."""
        return tuple(sorted({*self.depths, *self.trade_symbols}))


def capture_name(path: Path) -> str:
    """The file's name without ``.gz`` and without ``.jsonl`` or ``.data``."""
    name = path.name.removesuffix(".gz")
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def describe_capture(path: str | Path) -> CaptureInfo:
    """
    What a capture holds; reads all of it.

    The category is judged by content, which names it nowhere: spot acks say ``subscribe``, rows of
    contract trades carry ``L``, option messages carry ``id`` and their trades ``iv``, and in books
    deeper than one level spot writes ``ts`` before ``type``. Without any of these the file's name
    decides, and else it is linear.

    Raises:
        CaptureError: If the file cannot be read or holds no market data.
    """
    reader = CaptureReader(path)
    topics: Counter[str] = Counter()
    votes: Counter[str] = Counter()
    depths: dict[str, set[int]] = {}
    traded: set[str] = set()
    times: list[int] = []
    control = 0
    for line in reader:
        _vote(line.message, votes)
        topic = line.topic
        if topic is None:
            control += 1
            continue
        topics[topic] += 1
        _note_symbols(topic, line.message["data"], depths, traded)
        if line.exchange_ts_ms is not None:
            ts = line.exchange_ts_ms
            times = [min(ts, *times[:1]), max(ts, *times[1:])] if times else [ts, ts]
    if not topics:
        raise CaptureError(f"capture {path}: no market data in it")
    return CaptureInfo(
        path=reader.path,
        category=_category(votes, topics, reader.path),
        depths={symbol: tuple(sorted(found)) for symbol, found in sorted(depths.items())},
        trade_symbols=tuple(sorted(traded)),
        topics=dict(topics),
        messages=topics.total(),
        control=control,
        skipped=reader.skipped,
        first_ts_ms=times[0] if times else None,
        last_ts_ms=times[1] if times else None,
    )


def book_topic_parts(topic: str) -> tuple[int, str] | None:
    """Depth and symbol of ``orderbook.DEPTH.SYMBOL``, None for any other topic."""
    try:
        kind, depth, symbol = parse_exchange_topic(topic)
    except ValueError:
        return None
    return (depth, symbol) if kind == "book" else None


def _decoded(raw: bytes) -> dict[str, Any] | None:
    try:
        message = msgspec.json.decode(raw)
        return message if _is_whole(message) else None
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError, ValueError):
        return None


def _is_whole(message: Any) -> bool:
    """Whether it is a message at all; raises when the levels of a book are not numbers."""
    if not isinstance(message, dict):
        return False
    if book_topic_parts(str(message.get("topic", ""))) and "data" in message:
        for level in (*message["data"]["b"], *message["data"]["a"]):
            float(level[0]), float(level[1])
    return True


def _nanoseconds(text: str, decimals: int) -> int | None:
    """A decimal number, its point moved ``decimals`` places; None when it is not one."""
    whole, _, fraction = text.partition(".")
    if not whole.isdecimal() or (fraction and not fraction.isdecimal()):
        return None
    return int(whole + (fraction + "0" * decimals)[:decimals])


def _note_symbols(topic: str, data: Any, depths: dict[str, set[int]], traded: set[str]) -> None:
    book = book_topic_parts(topic)
    if book is not None:
        depths.setdefault(book[1], set()).add(book[0])
    elif topic.startswith(TRADES_PREFIX):
        rows = data if isinstance(data, list) else []
        traded.update(row["s"] for row in rows if isinstance(row, dict) and "s" in row)


def _vote(message: dict[str, Any], votes: Counter[str]) -> None:
    """Count what one message says about its category."""
    if message.get("type") == "COMMAND_RESP" or "id" in message:
        votes["option"] += 1
    elif message.get("op") == "subscribe" and message.get("success") is True:
        votes["spot" if message.get("ret_msg") == "subscribe" else "contract"] += 1
    topic, data = str(message.get("topic", "")), message.get("data")
    if topic.startswith(TRADES_PREFIX) and isinstance(data, list):
        for row in data:
            if isinstance(row, dict):
                votes["option" if "iv" in row else "contract" if "L" in row else "spot"] += 1
    book = book_topic_parts(topic)
    if book is not None and book[0] > 1 and "id" not in message and "type" in message:
        keys = list(message)
        if "ts" in keys:
            votes["spot" if keys.index("ts") < keys.index("type") else "contract"] += 1


def _category(votes: Counter[str], topics: Counter[str], path: Path) -> Category:
    order = ("option", "contract", "spot")
    best = max(order, key=lambda kind: votes[kind])
    if not votes[best]:
        return next((name for name in CATEGORIES if name in path.name.lower()), "linear")
    if best == "contract":
        symbols = [topic.rpartition(".")[2] for topic in topics]
        return "inverse" if all(map(INVERSE_SYMBOL.fullmatch, symbols)) else "linear"
    return "option" if best == "option" else "spot"
