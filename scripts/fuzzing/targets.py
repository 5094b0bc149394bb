"""
The fuzz targets: untrusted input for the code that reads it, which may raise only expected errors.

Each target takes bytes and returns nothing. Hypothesis runs them in the test suite, and
``scripts/fuzz`` runs them longer, with a fuzzer that is guided by branch coverage.
"""

import math
import tomllib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import websocket

from bybit_pipeline.processes.connector.buffered_websocket import BufferedWebSocket
from bybit_pipeline.processes.connector.missed_trades import trades_in
from bybit_pipeline.processes.connector.protocol import (
    BookUpdate,
    InvalidFrame,
    TradeBatch,
    decode,
    salvage,
)
from bybit_pipeline.processes.forwarder.last_value_cache import parse_message
from bybit_pipeline.shared.errors import CodecError, ConfigError, PipelineError
from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.shared.wire.messages import Category
from bybit_pipeline.supervisor.plan.market_args import parse_market
from bybit_pipeline.supervisor.plan.plan import make_plan
from bybit_pipeline.supervisor.status import router
from bybit_pipeline.supervisor.status.status import HeartbeatStatus

TOPICS = ["publicTrade.BTCUSDT", "publicTrade.ETHUSDT"]
CATEGORIES: tuple[Category, ...] = ("linear", "spot", "inverse", "option")


class Chunks(BufferedWebSocket):
    """A websocket that reads a byte string in pieces."""

    def __init__(self, data: bytes, piece: int) -> None:
        super().__init__(time_ns=lambda: 1)
        self._rest = data
        self._piece = piece
        self._read_some = self._take

    def _take(self) -> int:
        room = len(self._view) - self._end
        part = self._rest[: min(self._piece, room)]
        self._rest = self._rest[len(part) :]
        if not part:
            raise websocket.WebSocketConnectionClosedException("connection lost")
        self._view[self._end : self._end + len(part)] = part
        return len(part)

    def _send(self, data: str | bytes) -> int:
        return len(data)


def frames(data: bytes) -> None:
    """Read a stream of websocket frames in pieces of different sizes."""
    found = []
    for piece in (1 + (data[0] if data else 0) % 17, 1 << 16):
        stream, messages = Chunks(data, piece), []
        try:
            while True:
                messages.extend(stream.receive())
        except (OSError, websocket.WebSocketException):
            found.append(messages)
    assert found[0] == found[1], "the pieces must not change the messages"


def venue(data: bytes) -> None:
    """Decode one message of the exchange: all numbers are valid, or it is rejected."""
    assert set(trades_in(data[1:], TOPICS)) <= set(TOPICS)
    category = CATEGORIES[data[0] % 4] if data else "linear"
    try:
        decoded = decode(data[1:], category, 1)
    except InvalidFrame:
        usable = salvage(data[1:], category, 1)
        for part in usable if isinstance(usable, list) else (usable,):
            _check_numbers(part)
        return
    _check_numbers(decoded)


def _check_numbers(decoded: object) -> None:
    if isinstance(decoded, BookUpdate):
        for price, size in (*decoded.bids, *decoded.asks):
            assert 0 < price < math.inf
            assert 0 <= size < math.inf
    elif isinstance(decoded, list):
        for batch in decoded:
            assert isinstance(batch, TradeBatch)
            for trade in batch.trades:
                assert 0 < trade.price < math.inf
                assert 0 < trade.size < math.inf


def bus(data: bytes) -> None:
    """Decode a frame of the market bus and a metric for the forwarder."""
    for topic in (b"", b"book.linear.A\x00", b"trade.linear.A\x00", b"link.connector-linear-0\x00"):
        try:
            name, message = codec.decode_market(topic + data)
        except CodecError:
            continue
        assert codec.decode_market(name + codec.encode_record(message))[0] == name
    with suppress(CodecError):
        for name, record in codec.decode_bundle(data):
            codec.decode_record(name, record)
    topic, _, payload = data.partition(b"\x00")
    parse_message(topic, payload)
    parse_message(b"trades.linear.A", data)


def control(data: bytes) -> None:
    """Read a control message, up to the point where the supervisor acts on it."""
    envelope = router._read([b"trades-0", data])
    if not isinstance(envelope, router.Envelope):
        return
    with suppress(msgspec.ValidationError):
        msgspec.convert(envelope.message.get("status") or {}, HeartbeatStatus)
    arguments = envelope.message.get("arguments")
    if isinstance(arguments, dict) and isinstance(arguments.get("markets"), list):
        for word in arguments["markets"]:
            if isinstance(word, str):
                with suppress(PipelineError):
                    parse_market(word)


def configuration(data: bytes) -> None:
    """Read a configuration file: it gives a plan or one expected error."""
    try:
        tables: dict[str, Any] = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        return
    try:
        plan = make_plan(make_config(tables), run_dir="/tmp/run")
    except ConfigError:
        return
    assert plan.connect_quota * len(plan.connectors) <= 500


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": frames,
    "venue": venue,
    "bus": bus,
    "control": control,
    "configuration": configuration,
}

BOOK_RECORD = b"\x9d\x01\xa3sim\x01\x01\x01\x01\xc0\xc2\x32\x05\xc0\x90\x90"
SEEDS: dict[str, list[bytes]] = {
    "frames": [b"\x81\x02{}", b"\x01\x01{\x80\x01}", b"\x89\x01x\x88\x02\x03\xe8"],
    "venue": [
        b'\x00{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1700000000000,"data":{"s":'
        b'"BTCUSDT","b":[["1.5","2"]],"a":[],"u":5,"seq":1},"cts":1700000000000}',
        b'\x00{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1700000000000,"data":[{"T":'
        b'1700000000000,"s":"BTCUSDT","S":"Buy","v":"0.1","p":"1.5","i":"a","BT":false}]}',
        b'\x00{"success":true,"ret_msg":"pong","op":"ping","conn_id":"x"}',
        b'\x00{"success":true,"ret_msg":"","op":"subscribe","req_id":"1","conn_id":"x"}',
    ],
    "bus": [
        codec.encode_map({"v": 1}),
        codec.encode_bundle([b"book.linear.A\x00", BOOK_RECORD, b"trade.linear.A\x00", b"\x90"]),
        BOOK_RECORD,
    ],
    "control": [
        codec.encode_map({"type": "heartbeat", "process": "trades-0", "status": {"books": {}}}),
        codec.encode_map(
            {
                "type": "request",
                "id": 1,
                "command": "subscribe",
                "arguments": {"markets": ["linear:BTCUSDT"]},
            }
        ),
    ],
    "configuration": [
        b'source = "live"\n[[market]]\ncategory = "spot"\nsymbols = ["BTCUSDT"]\ndepth = 50\n',
        b"[connector]\ntopics_per_socket = 1\nbackoff_initial_s = 5.0\n[workers]\ntrades = 2\n",
    ],
}
