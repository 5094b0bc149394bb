"""
A TCP proxy in front of a websocket server that injects the faults of a network and of a server.

It parses the frames that the server sends, so that it can count, drop, replace, insert and cut
them. Apart from frames it knows only a few words of Bybit's messages. Without a fault every byte
passes unchanged.
"""

import asyncio
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

Mode = str
"""
Treatment of new connections: ``pass``, ``silent`` (accepted but never answered), ``reset``,
``garbage`` (an answer that is not HTTP), ``drip`` (an endless header, byte by byte), or an HTTP
status such as ``403``.
"""

TEXT, BINARY, CLOSE, PING, CONTINUATION = 0x1, 0x2, 0x8, 0x9, 0x0


def frame(payload: bytes, opcode: int = TEXT, *, final: bool = True, reserved: int = 0) -> bytes:
    """Return one websocket frame of a server."""
    head = bytes([(0x80 if final else 0) | reserved | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return head + b"\x7e" + struct.pack("!H", len(payload)) + payload
    return head + b"\x7f" + struct.pack("!Q", len(payload)) + payload


def kind_of(payload: bytes | memoryview) -> str:
    """Return ``book``, ``trade`` or ``other`` by the first words of a message."""
    start = bytes(payload[:24])
    if b'"orderbook.' in start:
        return "book"
    return "trade" if b'"publicTrade.' in start else "other"


class ProxiedConnection:
    """One connection through the proxy: downstream to the client, upstream to the server."""

    def __init__(self, down: asyncio.StreamWriter) -> None:
        self.down = down
        self.up: asyncio.StreamWriter | None = None
        self.is_open = False
        """True once the websocket handshake has passed."""
        self.is_frozen = False
        self.is_cut_next = False

    def end(self, *, with_reset: bool) -> None:
        """End the connection at once, with a TCP reset or in order."""
        for writer in (self.down, self.up):
            if writer is None:
                continue
            if with_reset and not writer.transport.is_closing():
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort() if with_reset else writer.close()


class FaultProxy:
    """
    The proxy, in a thread of its own.

    Args:
        upstream: URL of the server, ``ws://HOST:PORT/PATH``.
        on_message: Called in the proxy's thread with the payload of every data message. It returns
            the payloads to send instead, or None to pass the message unchanged.

    Attributes:
        url: URL of the proxy.
        mode: Treatment of new connections; see ``Mode``.
        drops: If set, messages, pongs and acks for which it returns True are dropped.
        attempts: Times of all connection attempts, by the monotonic clock.
        sent: Number of data messages sent to clients, by kind.
        broken: Number of connections ended by a fault.
    """

    def __init__(
        self, upstream: str, *, on_message: Callable[[bytes], Sequence[bytes] | None] | None = None
    ) -> None:
        parts = urlsplit(upstream)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._path = parts.path
        self._on_message = on_message
        self.url = ""
        self.mode: Mode = "pass"
        self.drops: Callable[[bytes], bool] | None = None
        self.attempts: list[float] = []
        self.sent: Counter[str] = Counter()
        self.broken = 0
        self._connections: set[ProxiedConnection] = set()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)

    def start(self) -> None:
        """Start to listen; ``url`` is set when this returns."""
        self._thread.start()
        assert self._started.wait(10), "the proxy did not start"

    def stop(self) -> None:
        """End every connection and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    # -- faults, for any thread ------------------------------------------------------------------

    @property
    def open_connections(self) -> int:
        """Number of open websockets that are not frozen."""
        return sum(each.is_open and not each.is_frozen for each in list(self._connections))

    def reset(self) -> None:
        """Send a TCP reset on every connection."""
        self._for_each(lambda connection: self._break(connection, with_reset=True))

    def hang_up(self) -> None:
        """Close every connection without a close frame, which is code 1006 to a websocket."""
        self._for_each(lambda connection: self._break(connection, with_reset=False))

    def freeze(self) -> None:
        """Make every connection half open: nothing passes any more, in either direction."""
        self._for_each(lambda connection: setattr(connection, "is_frozen", True))

    def cut(self) -> None:
        """End every connection in the middle of its next frame."""
        self._for_each(lambda connection: setattr(connection, "is_cut_next", True))

    def insert(self, data: bytes) -> int:
        """Insert bytes between two frames of every connection; return the connections."""
        return self._for_each(lambda connection: connection.down.write(data))

    def close_with(self, code: int) -> None:
        """Send a close frame to every client."""
        self.insert(frame(struct.pack("!H", code) + b"maintenance", CLOSE))

    def _for_each(self, action: Callable[[ProxiedConnection], Any]) -> int:
        """Act on every working connection, in the proxy's thread; return their number."""
        done = threading.Event()
        found: list[ProxiedConnection] = []

        def act() -> None:
            found.extend(each for each in self._connections if each.is_open and not each.is_frozen)
            for connection in found:
                action(connection)
            done.set()

        self._loop.call_soon_threadsafe(act)
        assert done.wait(10)
        return len(found)

    def _break(self, connection: ProxiedConnection, *, with_reset: bool) -> None:
        self.broken += 1
        connection.end(with_reset=with_reset)

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
        connection = ProxiedConnection(down)
        self._connections.add(connection)
        try:
            await self._answer(connection, reader)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(connection)
            connection.end(with_reset=False)

    async def _answer(self, connection: ProxiedConnection, reader: asyncio.StreamReader) -> None:
        down = connection.down
        match self.mode:
            case "pass":
                await self._pass(connection, reader)
            case "reset":
                connection.end(with_reset=True)
            case "silent":
                while await reader.read(65536):
                    pass
            case "garbage":
                down.write(b"\x16\x03\x01 nonsense \r\n\r\n" + bytes(range(256)))
                await down.drain()
            case "drip":
                for byte in b"HTTP/1.1 101 " + b"x" * 100_000:
                    down.write(bytes([byte]))
                    await down.drain()
                    await asyncio.sleep(0.1)
            case status:
                await reader.readuntil(b"\r\n\r\n")
                text = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n"
                down.write(text.encode())
                await down.drain()

    async def _pass(self, connection: ProxiedConnection, reader: asyncio.StreamReader) -> None:
        up_reader, connection.up = await asyncio.open_connection(*self._address)
        upwards = asyncio.create_task(self._pass_up(connection, reader))
        try:
            head = await up_reader.readuntil(b"\r\n\r\n")
            connection.down.write(head)
            connection.is_open = True
            await self._pass_down(connection, up_reader)
        finally:
            upwards.cancel()

    async def _pass_up(self, connection: ProxiedConnection, reader: asyncio.StreamReader) -> None:
        assert connection.up is not None
        try:
            while data := await reader.read(65536):
                if not connection.is_frozen:
                    connection.up.write(data)
                    await connection.up.drain()
        except OSError:
            pass
        connection.end(with_reset=False)

    async def _pass_down(self, connection: ProxiedConnection, reader: asyncio.StreamReader) -> None:
        buffer = bytearray()
        while data := await reader.read(262144):
            if connection.is_frozen:
                buffer.clear()
                continue
            buffer += data
            out, used = self._process(connection, buffer)
            del buffer[:used]
            connection.down.write(out)
            if connection.is_cut_next and out:
                self._break(connection, with_reset=False)
                return
            await connection.down.drain()

    def _process(self, connection: ProxiedConnection, buffer: bytearray) -> tuple[bytes, int]:
        """Process the complete frames in ``buffer``; return the output and the bytes used."""
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
            opcode, payload = buffer[start] & 0x0F, bytes(view[start + head : stop])
            whole = bytes(view[start:stop])
            start = stop
            if connection.is_cut_next:
                out.append(whole[: len(whole) // 2])
                break
            replacement = self._replace(payload, opcode)
            out.extend([whole] if replacement is None else map(frame, replacement))
        view.release()
        return b"".join(out), start

    def _replace(self, payload: bytes, opcode: int) -> Sequence[bytes] | None:
        """Return the payloads to send instead of one, or None to pass its frame unchanged."""
        if self.drops is not None and self.drops(payload):
            return []
        kind = kind_of(payload) if opcode == TEXT else "other"
        if kind == "other":
            return None
        replacement = None if self._on_message is None else self._on_message(payload)
        self.sent[kind] += 1 if replacement is None else len(replacement)
        return replacement
