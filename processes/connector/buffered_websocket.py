"""
Read websocket frames through one large buffer: the socket end of the hot path.

Turns the bytes of an open websocket into complete messages. Must not know Bybit.

websocket-client reads header, length and payload of each frame with separate ``recv`` calls, which
takes over 20 times as long. Here one ``recv_into`` takes all bytes that the kernel has, and common
frames are cut out of the buffer directly: unmasked text in one piece, up to 64 KiB. All other
frames (control, fragmented, binary, longer) are rare: the library reads them from the same buffer
when they are complete there.

``_whole_frame`` checks frames by RFC 6455, section 5. A violation fails the connection.
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
"""Size of the buffer; it grows only while a longer message is being received."""
TICK_S = 0.25
"""How long ``receive`` waits when nothing arrives."""
SEND_TIMEOUT_S = 0.5
"""How long a send may block on a full socket before the peer counts as dead."""

_TEXT_IN_ONE_PIECE = 0x81
_RESERVED_BITS = 0x70
_CONTROL_BIT = 0x08
_FINAL_BIT = 0x80
_MASK_BIT = 0x80
_CONTROL_MAX = 125
_NO_STATUS = 1005

_EXPECTED = (OSError, websocket.WebSocketException)


class FrameTooLarge(websocket.WebSocketException):
    """A message above ``MAX_FRAME_BYTES``; ``size`` is the length in its header, in bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"a message of {size} bytes; at most {MAX_FRAME_BYTES} are accepted")


class ClosedByServer(websocket.WebSocketException):
    """The server sent a close frame; ``code`` is 1005 if the frame has none."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"closed by the server: {code} {reason}".rstrip())


class BufferedWebSocket(websocket.WebSocket):
    """
    A websocket that is read with ``receive`` instead of ``recv``.

    One thread reads; any thread may ``send``. ``connect`` is the library's; call ``start_reading``
    after it.

    Args:
        time_ns: Wall clock that stamps received messages.
    """

    def __init__(self, *, time_ns: Callable[[], int] = time.time_ns) -> None:
        # The JSON decoder rejects text that is not UTF-8. The library's own check would take longer
        # than everything else in this file.
        super().__init__(skip_utf8_validation=True)
        self.recv_ts_ns = 0
        """
        Wall clock of the last socket read with bytes: the receive time of all messages that
        ``receive`` returned.
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
            # OpenSSL does not allow two threads in one connection: no thread waits inside it, and a
            # lock keeps reads and writes apart.
            self.sock.settimeout(0)
            self._read_some = self._read_tls
        else:
            # Timeouts of the kernel: with Python's own, every recv would be preceded by a poll.
            self.sock.settimeout(None)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(TICK_S))
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(SEND_TIMEOUT_S))

    def receive(self) -> list[bytes]:
        """
        Wait for bytes, up to ``TICK_S``; return the text messages that are now complete, in order.

        Answers the server's pings. A failure is raised by the next call, so that the messages
        before it are not lost.

        Raises:
            ClosedByServer: The server sent a close frame.
            FrameTooLarge: The header of a message announces too many bytes.
            websocket.WebSocketException: The connection ended, or the server violated the protocol.
            OSError: The network failed.
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
        """The complete messages in the buffer; moves ``_start`` behind the last complete frame."""
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
        End of the frame at ``_start`` in the buffer; None if it is not complete yet.

        Raises:
            websocket.WebSocketProtocolException: If a server must not send such a frame.
            FrameTooLarge: If the frame, or the message that it continues, is too large.
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
        """Read one complete frame with the library; opcode and bytes of a message it completes."""
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
        with suppress(*_EXPECTED):  # the connection ends in any case
            self.send_close(websocket.STATUS_NORMAL if code == _NO_STATUS else code)
        raise ClosedByServer(code, payload[2:].decode(errors="replace"))

    def _recv(self, bufsize: int) -> bytes:
        """Give the library its bytes from the buffer, which holds the whole frame."""
        stop = self._start + bufsize
        assert stop <= self._end, "the library reads complete frames only"
        data = bytes(self._view[self._start : stop])
        self._start = stop
        return data

    def _make_room(self) -> None:
        """Move the incomplete frame to the front; grow for a long one, shrink when it was read."""
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
        """Read into the buffer; return the number of bytes, 0 after ``TICK_S`` without any."""
        try:
            return self._read_into(self._connected_socket())
        except BlockingIOError:
            return 0

    def _read_tls(self) -> int:
        """Like ``_read_plain``, but wait outside of OpenSSL and return 0 when the wait ends."""
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
        """Send for the library, which holds its send lock and passes bytes."""
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
    error: Exception = websocket.WebSocketTimeoutException("the peer does not read")
    return error


def _wait_for(sock: socket.socket, event: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(timeout_s * 1000))


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
