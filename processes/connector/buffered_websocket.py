"""
Reading websocket frames through one large buffer: the socket end of the hot path.

Decides how bytes of an open websocket become complete text messages; knows nothing of Bybit.
websocket-client reads header, length and payload of every frame with its own ``recv`` calls, which
costs 12 us a frame. Here one ``recv_into`` takes whatever the kernel has, and the frames that make
up the stream (unmasked text, in one piece, complete in the buffer) are cut out of it directly, in
0.5 us. Every other frame (control, fragmented, binary, 64 KiB and longer) is rare and is read by
the library from the same buffer, once it is complete there.

RFC 6455, section 5, is what ``_whole_frame`` checks; a violation fails the connection.
"""

import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import websocket
from websocket import ABNF

from bybit_pipeline.processes.connector.protocol import MAX_FRAME_BYTES

BUFFER_BYTES = 256 * 1024
TICK_S = 0.25
"""How long ``receive`` waits when nothing arrives."""
SEND_TIMEOUT_S = 0.5
"""How long a peer may leave no room for our few bytes before it counts as dead."""

_TEXT_IN_ONE_PIECE = 0x81
_RESERVED_BITS = 0x70
_CONTROL_BIT = 0x08
_FINAL_BIT = 0x80
_MASK_BIT = 0x80
_CONTROL_MAX = 125
_NO_STATUS = 1005

_EXPECTED = (OSError, websocket.WebSocketException)


class FrameTooLarge(websocket.WebSocketException):
    """A message above ``MAX_FRAME_BYTES``; ``size`` is what it announced."""

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"a message of {size} bytes; at most {MAX_FRAME_BYTES}")


class ClosedByServer(websocket.WebSocketException):
    """The server sent a close frame; ``code`` is 1005 when it gave none."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"closed by the server: {code} {reason}".rstrip())


class BufferedWebSocket(websocket.WebSocket):
    """
    A websocket that is read with ``receive`` instead of ``recv``.

    One thread reads; any thread may ``send``. ``connect`` is the library's; call
    ``start_reading`` after it.
    """

    def __init__(self, *, time_ns: Callable[[], int] = time.time_ns) -> None:
        # The JSON decoder refuses text that is not UTF-8; the library's own check costs more than
        # everything else in this file.
        super().__init__(skip_utf8_validation=True)
        self.recv_ts_ns = 0
        """
        Wall clock of the last socket read that brought bytes. All messages that one ``receive``
        returns were complete then, so they share it.
        """
        self.binaries: list[tuple[int, bytes]] = []
        """
        Binary messages of the last ``receive``, each with the number of text messages before it.
        Bybit sends none.
        """
        self._time_ns = time_ns
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._fragments_bytes = 0
        self._failure: Exception | None = None
        self._read_some: Callable[[], int] = self._read_plain
        self._tls_lock = threading.Lock()

    def start_reading(self) -> None:
        """Prepare the connected socket for ``receive``."""
        assert self.sock is not None, "connected"
        if isinstance(self.sock, ssl.SSLSocket):
            # OpenSSL's connection object is not made for two threads at once: nobody waits inside
            # it, and reads and writes take turns.
            self.sock.settimeout(0)
            self._read_some = self._read_tls
        else:
            # Timeouts in the kernel, not in Python, which would poll before every recv.
            self.sock.settimeout(None)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(TICK_S))
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(SEND_TIMEOUT_S))

    def receive(self) -> list[bytes]:
        """
        Wait for bytes, at most ``TICK_S``; the text messages that are now complete, in order.

        Pings are answered on the way. What ends the connection is raised by the next call, after
        the messages that came before it.

        Raises:
            ClosedByServer: The server sent a close frame.
            FrameTooLarge: It announced a message that is too large.
            websocket.WebSocketException: The connection ended, or the server broke the protocol.
            OSError: The connection broke.
        """
        if self.binaries:
            self.binaries = []
        if self._failure is not None:
            raise self._failure
        size = self._read_some()
        if size == 0:
            return []
        self.recv_ts_ns = self._time_ns()
        self._end += size
        messages = self._cut()
        self._make_room()
        return messages

    # -- messages out of the buffer --------------------------------------------------------------

    def _cut(self) -> list[bytes]:
        """Every complete message of the buffer; moves ``_start`` behind the last whole frame."""
        messages: list[bytes] = []
        append, buffer, view = messages.append, self._buffer, self._view
        start, end = self._start, self._end
        is_fragmented = self.cont_frame.recving_frames is not None
        while end - start >= 4 and buffer[start] == _TEXT_IN_ONE_PIECE and not is_fragmented:
            size = buffer[start + 1]
            body = start + 2
            if size == 126:
                size = buffer[start + 2] << 8 | buffer[start + 3]
                body = start + 4
            elif size > 126:
                break
            if body + size > end:
                break
            start = body + size
            append(bytes(view[body:start]))
        self._start = start
        if start < end:
            try:
                while self._start < end and (stop := self._whole_frame()) is not None:
                    opcode, message = self._read_frame()
                    assert self._start == stop, "the library read exactly one frame"
                    if opcode == ABNF.OPCODE_TEXT:
                        append(message)
                    elif opcode == ABNF.OPCODE_BINARY:
                        self.binaries.append((len(messages), message))
            except _EXPECTED as error:
                self._failure = error
        return messages

    def _whole_frame(self) -> int | None:
        """
        Where the frame at ``_start`` ends; None if it is not complete yet.

        Raises:
            websocket.WebSocketProtocolException: If a server must not send it.
            FrameTooLarge: If it, or the message it continues, is too large.
        """
        buffer, start = self._buffer, self._start
        have = self._end - start
        if have < 2:
            return None
        first, second = buffer[start], buffer[start + 1]
        if first & _RESERVED_BITS:
            raise websocket.WebSocketProtocolException("a compressed or reserved frame")
        if second & _MASK_BIT:
            raise websocket.WebSocketProtocolException("a masked frame")
        size, header = second, 2
        if first & _CONTROL_BIT and (size > _CONTROL_MAX or not first & _FINAL_BIT):
            raise websocket.WebSocketProtocolException("a long or fragmented control frame")
        if size == 126:
            header = 4
        elif size == 127:
            header = 10
        if have < header:
            return None
        if header > 2:
            size = int.from_bytes(self._view[start + 2 : start + header], "big")
        if size + self._fragments_bytes > MAX_FRAME_BYTES:
            raise FrameTooLarge(size + self._fragments_bytes)
        return start + header + size if have >= header + size else None

    def _read_frame(self) -> tuple[int | None, bytes]:
        """Read one complete frame the library's way; opcode and bytes of what it completes."""
        frame: ABNF = self.frame_buffer.recv_frame()
        assert isinstance(frame.data, bytes), "received data is bytes"
        if frame.opcode == ABNF.OPCODE_PING:
            self.pong(frame.data)
        elif frame.opcode == ABNF.OPCODE_CLOSE:
            self._on_close(frame.data)
        elif frame.opcode != ABNF.OPCODE_PONG:
            return self._on_data_frame(frame)
        return None, b""

    def _on_data_frame(self, frame: ABNF) -> tuple[int | None, bytes]:
        self.cont_frame.validate(frame)
        self.cont_frame.add(frame)
        if not frame.fin:
            self._fragments_bytes += len(frame.data)
            return None, b""
        self._fragments_bytes = 0
        opcode, whole = self.cont_frame.extract(frame)
        return opcode, whole.data

    def _on_close(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], "big") if payload else _NO_STATUS
        with suppress(*_EXPECTED):  # a courtesy to a connection that is over
            self.send_close(websocket.STATUS_NORMAL if code == _NO_STATUS else code)
        raise ClosedByServer(code, payload[2:].decode(errors="replace"))

    def _recv(self, bufsize: int) -> bytes:
        """The library's source of bytes: the buffer, which holds the whole frame it reads."""
        stop = self._start + bufsize
        assert stop <= self._end, "the library reads complete frames only"
        data = bytes(self._view[self._start : stop])
        self._start = stop
        return data

    def _make_room(self) -> None:
        """Move the partial frame to the front; grow for a long one, shrink when it is read."""
        rest = self._end - self._start
        capacity = len(self._buffer)
        if rest == capacity:
            self._rebuffer(2 * capacity)
        elif rest < BUFFER_BYTES < capacity:
            self._rebuffer(BUFFER_BYTES)
        elif self._start:
            self._view[:rest] = self._view[self._start : self._end]
        self._start, self._end = 0, rest

    def _rebuffer(self, capacity: int) -> None:
        rest = self._view[self._start : self._end]
        self._buffer = bytearray(capacity)
        self._view = memoryview(self._buffer)
        self._view[: len(rest)] = rest

    # -- the socket ------------------------------------------------------------------------------

    def _read_plain(self) -> int:
        """Read into the buffer; the bytes read, 0 after ``TICK_S`` without any."""
        try:
            return self._read_into(self._connected_socket())
        except BlockingIOError:
            return 0

    def _read_tls(self) -> int:
        """As ``_read_plain``, but waits outside of OpenSSL and returns 0 when the wait is over."""
        sock = self._connected_socket()
        try:
            with self._tls_lock:
                return self._read_into(sock)
        except ssl.SSLWantReadError:
            _wait_for(sock, select.POLLIN, TICK_S)
            return 0

    def _read_into(self, sock: socket.socket) -> int:
        size = sock.recv_into(self._view[self._end :])
        if size == 0:
            raise websocket.WebSocketConnectionClosedException("connection lost")
        return size

    def _connected_socket(self) -> socket.socket:
        if self.sock is None:
            raise websocket.WebSocketConnectionClosedException("not connected")
        return self.sock

    def _send(self, data: str | bytes) -> int:
        """The library's way to the socket, always with bytes and with its send lock held."""
        assert isinstance(data, bytes)
        sock = self._connected_socket()
        while True:
            try:
                with self._tls_lock:
                    return sock.send(data)
            except BlockingIOError as error:
                raise _no_room() from error
            except ssl.SSLWantWriteError as error:
                if not _wait_for(sock, select.POLLOUT, SEND_TIMEOUT_S):
                    raise _no_room() from error


def _no_room() -> Exception:
    error: Exception = websocket.WebSocketTimeoutException("the peer takes no data")
    return error


def _wait_for(sock: socket.socket, event: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(timeout_s * 1000))


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
