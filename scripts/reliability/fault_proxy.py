"""
A bad line: a TCP proxy in front of a websocket server, with everything a network does to one.

It knows where frames begin and end in what the server sends, so that it can count, leave out,
insert and cut them, and nothing else about them but a few words of Bybit's messages. The server is
reached untouched as long as no fault is on.
"""

import asyncio
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

Mode = str
"""
What happens to new connections: ``pass``, ``silent`` (accepted, never answered), ``reset``,
``garbage`` (an answer that is no HTTP), ``drip`` (a header without end, byte by byte), or an HTTP
status such as ``403``.
"""

TEXT, BINARY, CLOSE, PING, CONTINUATION = 0x1, 0x2, 0x8, 0x9, 0x0


def frame(payload: bytes, opcode: int = TEXT, *, final: bool = True, reserved: int = 0) -> bytes:
    """One websocket frame as a server sends it."""
    head = bytes([(0x80 if final else 0) | reserved | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return head + b"\x7e" + struct.pack("!H", len(payload)) + payload
    return head + b"\x7f" + struct.pack("!Q", len(payload)) + payload


def kind_of(payload: bytes | memoryview) -> str:
    """``book``, ``trade`` or ``other``, by the first words of a message."""
    start = bytes(payload[:24])
    if b'"orderbook.' in start:
        return "book"
    return "trade" if b'"publicTrade.' in start else "other"


class Line:
    """One connection through the proxy."""

    def __init__(self, down: asyncio.StreamWriter) -> None:
        self.down = down
        self.up: asyncio.StreamWriter | None = None
        self.is_open = False
        """The websocket is open."""
        self.is_frozen = False
        self.is_cut_next = False

    def break_off(self, *, with_reset: bool) -> None:
        """End it at once, with a TCP reset or in order."""
        for writer in (self.down, self.up):
            if writer is None:
                continue
            if with_reset and not writer.transport.is_closing():
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort() if with_reset else writer.close()


class BadLink:
    """
    The proxy, in a thread of its own.

    Args:
        upstream: The server's address, ``ws://HOST:PORT/PATH``.
        on_frame: Told of every data frame before it goes on; may return another payload, or an
            empty one to leave it out.

    Attributes:
        url: Where to connect instead.
        mode: See ``Mode``.
        leaves_out: Data frames, pongs and acks for which this is true do not pass.
        attempts: When connections came, by the monotonic clock.
        sent: Data frames handed to the client's socket, by kind.
        broken: Connections that a fault ended.
    """

    def __init__(
        self, upstream: str, *, on_frame: Callable[[bytes], bytes | None] | None = None
    ) -> None:
        parts = urlsplit(upstream)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._path = parts.path
        self._on_frame = on_frame
        self.url = ""
        self.mode: Mode = "pass"
        self.leaves_out: Callable[[bytes], bool] | None = None
        self.attempts: list[float] = []
        self.sent: Counter[str] = Counter()
        self.broken = 0
        self._lines: set[Line] = set()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bad link", daemon=True)

    def start(self) -> None:
        """Listen; ``url`` is set when this returns."""
        self._thread.start()
        assert self._started.wait(10), "the proxy did not start"

    def stop(self) -> None:
        """End every connection and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    # -- faults, from any thread -----------------------------------------------------------------

    @property
    def open_lines(self) -> int:
        """Open websockets."""
        return sum(line.is_open and not line.is_frozen for line in list(self._lines))

    def reset(self) -> None:
        """TCP reset on every connection."""
        self._do(lambda line: self._break(line, with_reset=True))

    def hang_up(self) -> None:
        """Close every connection without a word: what websockets call 1006."""
        self._do(lambda line: self._break(line, with_reset=False))

    def freeze(self) -> None:
        """Half open: nothing passes any more on the present connections, in either direction."""
        self._do(lambda line: setattr(line, "is_frozen", True))

    def cut(self) -> None:
        """End every connection in the middle of its next frame."""
        self._do(lambda line: setattr(line, "is_cut_next", True))

    def insert(self, data: bytes) -> int:
        """Bytes between two frames, on every connection that works; on how many."""
        return self._do(lambda line: line.down.write(data))

    def close_with(self, code: int) -> None:
        """A close frame from the server's side."""
        self.insert(frame(struct.pack("!H", code) + b"maintenance", CLOSE))

    def _do(self, action: Callable[[Line], Any]) -> int:
        done = threading.Event()
        lines: list[Line] = []

        def act() -> None:
            lines.extend(line for line in self._lines if line.is_open and not line.is_frozen)
            for line in lines:
                action(line)
            done.set()

        self._loop.call_soon_threadsafe(act)
        assert done.wait(10)
        return len(lines)

    def _break(self, line: Line, *, with_reset: bool) -> None:
        self.broken += 1
        line.break_off(with_reset=with_reset)

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.create_task(self._listen())
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=200)
        host, port = server.sockets[0].getsockname()[:2]
        self.url = f"ws://{host}:{port}{self._path}"
        self._started.set()

    async def _serve(self, reader: asyncio.StreamReader, down: asyncio.StreamWriter) -> None:
        self.attempts.append(time.monotonic())
        line = Line(down)
        self._lines.add(line)
        try:
            await self._answer(line, reader)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._lines.discard(line)
            line.break_off(with_reset=False)

    async def _answer(self, line: Line, reader: asyncio.StreamReader) -> None:
        match self.mode:
            case "pass":
                await self._pass(line, reader)
            case "reset":
                line.break_off(with_reset=True)
            case "silent":
                while await reader.read(65536):
                    pass
            case "garbage":
                line.down.write(b"\x16\x03\x01 nonsense \r\n\r\n" + bytes(range(256)))
                await line.down.drain()
            case "drip":
                for byte in b"HTTP/1.1 101 " + b"x" * 100_000:
                    line.down.write(bytes([byte]))
                    await line.down.drain()
                    await asyncio.sleep(0.1)
            case status:
                await reader.readuntil(b"\r\n\r\n")
                text = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n"
                line.down.write(text.encode())
                await line.down.drain()

    async def _pass(self, line: Line, reader: asyncio.StreamReader) -> None:
        up_reader, line.up = await asyncio.open_connection(*self._address)
        upwards = asyncio.create_task(self._upwards(line, reader))
        try:
            head = await up_reader.readuntil(b"\r\n\r\n")
            line.down.write(head)
            line.is_open = True
            await self._downwards(line, up_reader)
        finally:
            upwards.cancel()

    async def _upwards(self, line: Line, reader: asyncio.StreamReader) -> None:
        assert line.up is not None
        try:
            while data := await reader.read(65536):
                if not line.is_frozen:
                    line.up.write(data)
                    await line.up.drain()
        except OSError:
            pass
        line.break_off(with_reset=False)

    async def _downwards(self, line: Line, reader: asyncio.StreamReader) -> None:
        buffer = bytearray()
        while data := await reader.read(262144):
            if line.is_frozen:
                buffer.clear()
                continue
            buffer += data
            out, used = self._frames(line, buffer)
            del buffer[:used]
            line.down.write(out)
            if line.is_cut_next and out:
                self._break(line, with_reset=False)
                return
            await line.down.drain()

    def _frames(self, line: Line, buffer: bytearray) -> tuple[bytes, int]:
        """What goes on of the complete frames in ``buffer``, and how many bytes these were."""
        view, start, end, out = memoryview(buffer), 0, len(buffer), []
        while end - start >= 2:
            size, head = buffer[start + 1], 2
            if size == 126:
                head = 4
            elif size == 127:
                head = 10
            if end - start < head:
                break
            if head > 2:
                size = int.from_bytes(view[start + 2 : start + head], "big")
            stop = start + head + size
            if stop > end:
                break
            payload = bytes(view[start + head : stop])
            whole = view[start:stop]
            start = stop
            if line.is_cut_next:
                out.append(bytes(whole[: len(whole) // 2]))
                break
            passed = self._passed(payload, buffer[start - size - head] & 0x0F)
            if passed is payload:
                out.append(bytes(whole))
            elif passed is not None:
                out.append(frame(passed))
        view.release()
        return b"".join(out), start

    def _passed(self, payload: bytes, opcode: int) -> bytes | None:
        if self.leaves_out is not None and self.leaves_out(payload):
            return None
        if opcode == TEXT:
            kind = kind_of(payload)
            if kind != "other":
                changed = None if self._on_frame is None else self._on_frame(payload)
                if changed == b"":
                    return None
                self.sent[kind] += 1
                return payload if changed is None else changed
        return payload
