"""
Recorded captures: their lines, receive times and contents.

A capture is a text file of raw exchange messages in arrival order, one JSON object per line:
``NAME.jsonl``, or ``NAME.data`` as in Bybit's own archives, both also with ``.gz``. A file beside
it may contain the receive times, line n for line n: ``NAME.recv.txt`` (seconds since 1970) or
``NAME.recv_ns.txt`` (nanoseconds). Acks and pongs are not market data and have no topic. Lines
that cannot be used are skipped and counted. Files are read line by line, never as a whole.
"""

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgspec

from bybit_pipeline.shared.bybit import (
    BOOK_PREFIX,
    CATEGORIES,
    INVERSE_SYMBOL,
    SYMBOL,
    TRADES_PREFIX,
    parse_exchange_topic,
)
from bybit_pipeline.shared.errors import EX_USAGE, PipelineError
from bybit_pipeline.shared.wire.messages import Category

SUFFIXES: Final = (".jsonl", ".data")
GZIP_MAGIC: Final = b"\x1f\x8b"
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
TIMES_MS: Final = range(10**13)
"""Plausible times of the exchange, up to 2286."""
MAGIC_BYTES: Final = 8
START_BYTES: Final = 4096
"""Bytes of a file without market data that are looked at to name its format."""


class CaptureError(PipelineError):
    """A capture that cannot be read or contains no market data."""

    exit_code = EX_USAGE


class CaptureLine(NamedTuple):
    """One message of a capture."""

    number: int
    """Number of the line in the file, from 1."""
    recv_ts_ns: int | None
    """Receive time; None without a file of receive times, or if its line is broken."""
    message: dict[str, Any]
    raw: bytes
    """The line as recorded, without the line end."""

    @property
    def topic(self) -> str | None:
        """Topic of a data message; None for acks and pongs."""
        topic = self.message.get("topic")
        return topic if isinstance(topic, str) and "data" in self.message else None

    @property
    def exchange_ts_ms(self) -> int | None:
        """Time of the exchange (``ts``); None if there is none, or an impossible one."""
        ts = self.message.get("ts")
        return ts if isinstance(ts, int) and ts in TIMES_MS else None


class CaptureReader:
    """
    Iterates over the messages of a capture in order; each iteration starts at the first line.

    Attributes:
        skipped: Lines that cannot be used, so far in the latest iteration.
        first_skipped: Number of the first of them; None if there is none.

    Raises:
        CaptureError: If the file cannot be opened or is packed, or, while iterating, is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.skipped = 0
        self.first_skipped: int | None = None
        try:
            with self.path.open("rb") as file:
                start = file.read(MAGIC_BYTES)
        except OSError as error:
            raise self._error(error) from error
        for magic, words in _PACKED.items():
            if start.startswith(magic):
                raise CaptureError(f"capture {self.path}: it is {words}")

    def __iter__(self) -> Iterator[CaptureLine]:
        self.skipped, self.first_skipped = 0, None
        try:
            with closing(self._open(self.path)) as lines, closing(self._recv_times()) as times:
                for number, line in enumerate(lines, start=1):
                    recv_ts_ns = next(times, None)
                    raw = line.removeprefix(BYTE_ORDER_MARK).strip()
                    if not raw:
                        continue
                    message = _decoded(raw)
                    if message is None:
                        self.skipped += 1
                        self.first_skipped = self.first_skipped or number
                    else:
                        yield CaptureLine(number, recv_ts_ns, message, raw)
        except (OSError, EOFError, zlib.error) as error:
            raise self._error(error) from error

    def start(self) -> bytes:
        """Return the start of the file, for an error about its format."""
        with closing(self._open(self.path)) as file:
            return file.read(START_BYTES)

    def _error(self, error: Exception) -> CaptureError:
        reason = getattr(error, "strerror", None) or "the file is damaged"
        return CaptureError(f"capture {self.path}: {reason}")

    def _open(self, path: Path) -> IO[bytes] | gzip.GzipFile:
        file = path.open("rb")
        is_compressed = path.suffix == ".gz" or file.peek(2)[:2] == GZIP_MAGIC
        return gzip.open(file) if is_compressed else file

    def _recv_times(self) -> Generator[int | None]:
        """Yield the receive time of every line in nanoseconds; None for a line without a number."""
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
    """Contents of a capture."""

    path: Path
    category: Category
    depths: dict[str, tuple[int, ...]]
    """Recorded book depths by symbol, in ascending order."""
    trade_symbols: tuple[str, ...]
    """Symbols with trades; for options the contracts in the rows."""
    topics: dict[str, int]
    """Number of messages by topic, without acks and pongs."""
    messages: int
    """Number of data messages."""
    control: int
    """Number of acks, pongs and other messages without a topic."""
    skipped: int
    """Number of lines that cannot be used."""
    first_ts_ms: int | None
    last_ts_ms: int | None
    """Smallest and largest time of the exchange (``ts``)."""
    first_skipped: int | None = None
    """Number of the first line that cannot be used."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols with a book or trades, in alphabetical order."""
        return tuple(sorted({*self.depths, *self.trade_symbols}))


def capture_name(path: Path) -> str:
    """Return the name of a file without ``.gz`` and without ``.jsonl`` or ``.data``."""
    name = path.name.removesuffix(".gz")
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def describe_capture(path: str | Path) -> CaptureInfo:
    """
    Read a capture to its end and return a description.

    No message names its category, so it is concluded from the content: spot acks contain
    ``subscribe``, rows of contract trades have ``L``, option messages have ``id`` and their trades
    ``iv``, and in books deeper than one level spot writes ``ts`` before ``type``. Without any of
    these the name of the file decides; the default is linear.

    Raises:
        CaptureError: If the file cannot be read or contains no market data.
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
        fault = _format_of(reader.start()) or "it contains no market data"
        raise CaptureError(f"capture {path}: {fault}")
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
        first_skipped=reader.first_skipped,
    )


def book_topic_parts(topic: str) -> tuple[int, str] | None:
    """Return depth and symbol of ``orderbook.DEPTH.SYMBOL``; None for any other topic."""
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
    """
    Return True for a message that can be used.

    A symbol that no pipeline can subscribe, such as one in another script, is no reason to refuse
    the rest of a capture. Raises an error if the levels of a book are not numbers.
    """
    if not isinstance(message, dict):
        return False
    topic = str(message.get("topic", ""))
    if topic.startswith((TRADES_PREFIX, BOOK_PREFIX)):
        kind, depth, name = parse_exchange_topic(topic)
        if not SYMBOL.fullmatch(name) or (kind == "book" and depth < 1):
            return False
    if book_topic_parts(str(message.get("topic", ""))) and "data" in message:
        for level in (*message["data"]["b"], *message["data"]["a"]):
            float(level[0]), float(level[1])
    return True


_PACKED: Final = {
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first",
    b"\xfd7zXZ": "compressed with xz; unpack it first",
    b"BZh": "compressed with bzip2; unpack it first",
    b"PAR1": "a Parquet file, not messages as Bybit sends them",
    b"SQLite f": "an SQLite database, not messages as Bybit sends them",
}
_TIMED: Final = re.compile(rb"[\dT:.Z+-]{10,40}[:,\s]\s*[{\[]")
"""A time before a message, as in ``1723238817.58: {…`` and ``2026-08-09T21:26:57.583Z {…``."""
_TABLE: Final = re.compile(rb"[\w .-]+([,;\t][\w .-]+){2,}")


def _format_of(start: bytes) -> str | None:
    """Return words for the format of a file that contains no message; None if it is unknown."""
    line = start.removeprefix(BYTE_ORDER_MARK).lstrip().partition(b"\n")[0].strip()
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it is text in UTF-16; it must be UTF-8"
    if _TIMED.match(line):
        return (
            "its lines begin with a receive time, as cryptofeed and hftbacktest write them; "
            "move the times to a .recv.txt file beside it"
        )
    if line.startswith(b"["):
        return "it is a JSON array; it must have one message per line"
    if line.startswith(b"{"):
        return (
            "its lines are not messages of Bybit's v5 websocket, "
            'such as {"topic":"orderbook.50.BTCUSDT",…}'
        )
    if _TABLE.fullmatch(line):
        return "it is a table (CSV), not messages as Bybit sends them"
    return None


def _nanoseconds(text: str, decimals: int) -> int | None:
    """Return a decimal number with its point moved by ``decimals`` places; None if it is none."""
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
        symbols = (row.get("s") for row in rows if isinstance(row, dict))
        traded.update(each for each in symbols if isinstance(each, str) and SYMBOL.fullmatch(each))


def _vote(message: dict[str, Any], votes: Counter[str]) -> None:
    """Count the evidence of one message for its category."""
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
