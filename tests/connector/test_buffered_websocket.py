"""Websocket frames read through one large buffer, compared with the library's own reading."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import pytest
import websocket
from hypothesis import given, settings
from hypothesis import strategies as st

from bybit_pipeline.processes.connector import buffered_websocket
from bybit_pipeline.processes.connector.buffered_websocket import (
    BufferedWebSocket,
    ClosedByServer,
    FrameTooLarge,
)
from bybit_pipeline.processes.connector.protocol import MAX_FRAME_BYTES

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def frame(payload: bytes, opcode: int = TEXT, *, final: bool = True, reserved: int = 0) -> bytes:
    """A frame as a server sends it."""
    first = bytes([final << 7 | reserved << 4 | opcode])
    if len(payload) < 126:
        return first + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return first + b"\x7e" + struct.pack("!H", len(payload)) + payload
    return first + b"\x7f" + struct.pack("!Q", len(payload)) + payload


def masked(payload: bytes) -> bytes:
    return websocket.ABNF.create_frame(payload, TEXT).format()


class Pair:
    """A buffered websocket and the server's end of its socket."""

    def __init__(self) -> None:
        self.server, client = socket.socketpair()
        self.client = BufferedWebSocket(time_ns=iter(range(1, 10**9)).__next__)
        self.client.sock = client
        self.client.connected = True
        self.client.start_reading()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages of one socket read of exactly these bytes."""
        if not data:
            return []
        self.server.sendall(data)
        return self.client.receive()

    def sent(self) -> bytes:
        """The bytes that the client has sent."""
        self.server.setblocking(False)
        with suppress(BlockingIOError):
            return self.server.recv(1 << 20)
        return b""

    def unread(self) -> bool:
        """Whether bytes wait in the client's socket."""
        assert self.client.sock is not None
        with suppress(BlockingIOError):
            return bool(self.client.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        return False

    def close(self) -> None:
        self.server.close()
        assert self.client.sock is not None
        self.client.sock.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


class Stock(websocket.WebSocket):
    """The library's websocket; it records the pings that it answers."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(skip_utf8_validation=True)
        self.sock = sock
        self.pings: list[bytes] = []

    def pong(self, payload: str | bytes = "") -> None:
        self.pings.append(payload if isinstance(payload, bytes) else payload.encode())

    def send_close(self, status: int = 1000, reason: str | bytes = b"") -> None:
        pass


def read_by_the_library(data: bytes) -> tuple[list[bytes], list[bytes], type[Exception] | None]:
    """Text messages, pings and error that the library itself reads from a whole stream."""
    server, client = socket.socketpair()
    stock = Stock(client)

    def write() -> None:
        with server, suppress(OSError):  # the reader may end first
            server.sendall(data)

    writer = threading.Thread(target=write)
    writer.start()
    messages: list[bytes] = []
    error: type[Exception] | None = None
    try:
        while True:
            opcode, payload = stock.recv_data()
            if opcode == CLOSE:
                break
            if opcode == TEXT:
                messages.append(payload)
    except websocket.WebSocketException as caught:
        error = type(caught)
    client.close()
    writer.join()
    return messages, stock.pings, error


def unmasked_replies(data: bytes) -> list[tuple[int, bytes]]:
    """Opcode and payload of every frame that a client sent."""
    replies = []
    while data:
        size = data[1] & 0x7F
        key, payload = data[2:6], data[6 : 6 + size]
        replies.append((data[0] & 15, bytes(b ^ key[i % 4] for i, b in enumerate(payload))))
        data = data[6 + size :]
    return replies


# -- the common case -----------------------------------------------------------------------------


def test_all_messages_of_one_read_have_its_receive_time(pair: Pair) -> None:
    assert [b"one", b"", b"x" * 300] == pair.feed(frame(b"one") + frame(b"") + frame(b"x" * 300))
    assert 1 == pair.client.recv_ts_ns
    pair.feed(frame(b"two"))
    assert 2 == pair.client.recv_ts_ns


def test_a_message_belongs_to_the_read_that_completes_it(pair: Pair) -> None:
    data = frame(b"x" * 300)
    assert [b"whole"] == pair.feed(frame(b"whole") + data[:100])
    assert [b"x" * 300] == pair.feed(data[100:])
    assert 2 == pair.client.recv_ts_ns


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 300_000, 1_000_000])
def test_messages_of_every_length_encoding_are_read(pair: Pair, size: int) -> None:
    data = frame(b"a") + frame(b"x" * size) + frame(b"b")
    writer = threading.Thread(target=pair.server.sendall, args=(data,))
    writer.start()
    messages: list[bytes] = []
    while len(messages) < 3:
        messages += pair.client.receive()
    writer.join()
    assert [b"a", b"x" * size, b"b"] == messages


def test_the_buffer_shrinks_after_a_long_message(pair: Pair) -> None:
    writer = threading.Thread(target=pair.server.sendall, args=(frame(b"x" * 3_000_000),))
    writer.start()
    while not pair.client.receive():
        pass
    writer.join()
    assert buffered_websocket.BUFFER_BYTES == len(pair.client._buffer)


def test_without_bytes_there_is_no_message_and_no_error(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffered_websocket, "TICK_S", 0.01)
    pair.client.start_reading()
    assert [] == pair.client.receive()
    assert 0 == pair.client.recv_ts_ns


# -- the rare frames -----------------------------------------------------------------------------


def test_a_ping_between_two_messages_is_answered(pair: Pair) -> None:
    assert [b"a", b"b"] == pair.feed(frame(b"a") + frame(b"hello", PING) + frame(b"b"))
    assert [(PONG, b"hello")] == unmasked_replies(pair.sent())


def test_an_unsolicited_pong_is_ignored(pair: Pair) -> None:
    assert [b"a"] == pair.feed(frame(b"", PONG) + frame(b"a") + frame(b"x", PONG))
    assert b"" == pair.sent()


def test_fragments_are_joined_also_with_a_ping_between_them(pair: Pair) -> None:
    data = (
        frame(b"ab", TEXT, final=False)
        + frame(b"p", PING)
        + frame(b"cd", CONTINUATION, final=False)
        + frame(b"", CONTINUATION)
        + frame(b"next")
    )
    assert [b"abcd", b"next"] == pair.feed(data)
    assert [(PONG, b"p")] == unmasked_replies(pair.sent())


def test_a_whole_message_inside_a_fragmented_one_fails_the_connection(pair: Pair) -> None:
    assert [] == pair.feed(frame(b"begun", TEXT, final=False))
    assert [] == pair.feed(frame(b"intruder"))
    with pytest.raises(websocket.WebSocketProtocolException):
        pair.client.receive()


def test_binary_messages_are_returned_separately_with_their_position(pair: Pair) -> None:
    data = frame(b"a", BINARY, final=False) + frame(b"b", CONTINUATION)
    assert [b"one", b"two"] == pair.feed(frame(b"x", BINARY) + frame(b"one") + data + frame(b"two"))
    assert [(0, b"x"), (1, b"ab")] == pair.client.binaries
    assert [b"three"] == pair.feed(frame(b"three"))
    assert [] == pair.client.binaries


def test_a_close_frame_ends_the_connection_after_the_messages_before_it(pair: Pair) -> None:
    closing = frame(struct.pack("!H", 1001) + b"maintenance", CLOSE)
    assert [b"last"] == pair.feed(frame(b"last") + closing + frame(b"never"))
    with pytest.raises(ClosedByServer) as caught:
        pair.client.receive()
    assert (1001, "maintenance") == (caught.value.code, caught.value.reason)
    assert [(CLOSE, struct.pack("!H", 1001))] == unmasked_replies(pair.sent())


def test_a_close_frame_without_a_code_is_1005(pair: Pair) -> None:
    pair.feed(frame(b"", CLOSE))
    with pytest.raises(ClosedByServer) as caught:
        pair.client.receive()
    assert 1005 == caught.value.code


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(masked(b"text"), id="masked"),
        pytest.param(frame(b"text", reserved=4), id="first reserved bit"),
        pytest.param(frame(b"text", reserved=2), id="second reserved bit"),
        pytest.param(frame(b"text", reserved=1), id="third reserved bit"),
        pytest.param(frame(b"text", 3), id="unknown data opcode"),
        pytest.param(frame(b"text", 11), id="unknown control opcode"),
        pytest.param(frame(b"text", CONTINUATION), id="nothing to continue"),
        pytest.param(frame(b"x" * 126, PING), id="long ping"),
        pytest.param(frame(b"x", PING, final=False), id="fragmented ping"),
        pytest.param(frame(b"x", CLOSE), id="half a close code"),
        pytest.param(frame(struct.pack("!H", 1005), CLOSE), id="reserved close code"),
        pytest.param(frame(b"a", TEXT, final=False) + frame(b"b", TEXT), id="two beginnings"),
    ],
)
def test_a_forbidden_frame_fails_the_connection(pair: Pair, data: bytes) -> None:
    assert [b"before"] == pair.feed(frame(b"before") + data + frame(b"after"))
    with pytest.raises(websocket.WebSocketProtocolException):
        pair.client.receive()


def test_a_masked_or_compressed_frame_is_rejected_before_it_is_complete(pair: Pair) -> None:
    pair.feed(frame(b"x" * 70_000, reserved=4)[:20])
    with pytest.raises(websocket.WebSocketProtocolException):
        pair.client.receive()


def test_a_message_that_is_too_large_is_rejected_by_its_header(pair: Pair) -> None:
    pair.feed(b"\x81\x7f" + struct.pack("!Q", MAX_FRAME_BYTES + 1))
    with pytest.raises(FrameTooLarge):
        pair.client.receive()


def test_the_limit_is_for_all_fragments_of_a_message_together(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffered_websocket, "MAX_FRAME_BYTES", 1000)
    pair.feed(frame(b"x" * 600, TEXT, final=False) + frame(b"x" * 600, CONTINUATION))
    with pytest.raises(FrameTooLarge) as caught:
        pair.client.receive()
    assert 1200 == caught.value.size


def test_the_end_of_the_stream_is_reported_after_the_last_message(pair: Pair) -> None:
    pair.server.sendall(frame(b"last") + frame(b"cut short")[:5])
    pair.server.close()
    assert [b"last"] == pair.client.receive()
    with pytest.raises(websocket.WebSocketConnectionClosedException):
        pair.client.receive()


def test_sending_to_a_peer_that_does_not_read_fails_after_a_timeout(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffered_websocket, "SEND_TIMEOUT_S", 0.05)
    pair.client.start_reading()
    with pytest.raises(websocket.WebSocketTimeoutException):
        pair.client.send("x" * 20_000_000)


# -- against the library -------------------------------------------------------------------------

PAYLOADS = st.binary(max_size=40) | st.sampled_from([b"x" * 125, b"y" * 126, b"z" * 70_000])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A stream of frames, a few of them invalid."""
    parts: list[bytes] = []
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["text"] * 6 + ["fragments", "ping", "pong", "binary", "bad"]))
        payload = draw(PAYLOADS)
        if kind == "fragments":
            parts.append(frame(payload, TEXT, final=False))
            if draw(st.booleans()):
                parts.append(frame(b"between", PING))
            parts.append(frame(draw(PAYLOADS), CONTINUATION))
        elif kind == "bad":
            parts.append(
                draw(
                    st.sampled_from(
                        [
                            frame(b"", CONTINUATION),
                            frame(b"r", reserved=4),
                            frame(b"o", 5),
                            frame(b"", TEXT, final=False) + frame(b"", TEXT),
                            frame(struct.pack("!H", 1000), CLOSE),
                        ]
                    )
                )
            )
        else:
            opcode = {"text": TEXT, "ping": PING, "pong": PONG, "binary": BINARY}[kind]
            parts.append(frame(payload[:125] if opcode in (PING, PONG) else payload, opcode))
    return b"".join(parts)


SOCKET_BYTES = 50_000
"""Less than the buffer of a socket, so that the test can write before it reads."""


def read_in_pieces(
    data: bytes, cuts: list[int]
) -> tuple[list[bytes], list[bytes], type[Exception] | None]:
    """The same, read by the buffered websocket from a stream in pieces."""
    pair = Pair()
    messages: list[bytes] = []
    error: type[Exception] | None = None
    cuts = [*(cut % (len(data) + 1) for cut in cuts), *range(0, len(data), SOCKET_BYTES)]
    edges = sorted({*cuts, len(data)})
    try:
        for start, stop in pairwise(edges):
            pair.server.sendall(data[start:stop])
            while pair.unread():
                messages += pair.client.receive()
        pair.server.shutdown(socket.SHUT_WR)
        while True:
            messages += pair.client.receive()
    except ClosedByServer:
        pass
    except websocket.WebSocketException as caught:
        error = type(caught)
    pings = [payload for opcode, payload in unmasked_replies(pair.sent()) if opcode == PONG]
    pair.close()
    return messages, pings, error


@settings(max_examples=200, deadline=None)
@given(data=streams(), cuts=st.lists(st.integers(0, 10_000), max_size=12))
def test_the_messages_equal_those_of_the_library_however_the_bytes_are_split(
    data: bytes, cuts: list[int]
) -> None:
    assert read_by_the_library(data) == read_in_pieces(data, cuts)
