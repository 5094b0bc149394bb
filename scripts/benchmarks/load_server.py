"""
The load server: Bybit's handshake, subscriptions and pings, then prepared frames at a given rate.

``python -m scripts.benchmarks.load_server --symbols 10 --messages 20000 --rate 3000`` prints one
JSON object per line: ``listening`` (with the port), ``subscribed`` (whenever every stream has a
subscriber), ``ready`` after the command ``prepare`` on its standard input, and ``done`` after the
command ``start`` (messages sent, start and end time, lateness). It serves any number of
connections. A frame is sent to the connection that has subscribed its topic last.

The server must not influence what is measured. Before the start it lays out the frames in one
buffer per connection; sending then only overwrites a few digits and makes one ``send`` call for all
frames that are due. Its own cost is in the report of every run. A slow client makes it late but
causes no loss, because TCP does not lose data: a missing message was lost by the client.
"""

import argparse
import json
import socket
import sys
import threading
import time
from bisect import bisect_right
from dataclasses import asdict, dataclass, field
from typing import Any

from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from scripts.benchmarks.child import report_event
from scripts.benchmarks.load import (
    START_MS,
    TIME_DIGITS,
    Frame,
    Load,
    LoadSpec,
    make_load,
    websocket_frame,
)

BURST = 256
"""Frames per send at full speed."""
TICK_S = 0.0002
"""Frames that are due within this time are sent together."""
MARK_DIGITS = 8


@dataclass
class FrameBuffer:
    """The frames of one connection, laid out in a buffer whose digits are overwritten."""

    buffer: bytearray
    order: list[int]
    """Position of each frame in the sending order over all connections."""
    ends: list[int]
    stamps: list[tuple[int, ...]]
    frames: list[Frame]
    starts: list[int]

    @classmethod
    def of(cls, numbered: list[tuple[int, Frame]]) -> "FrameBuffer":
        """Lay out frames that are numbered by their position in the sending order."""
        frames = [frame for _, frame in numbered]
        starts, ends, stamps, at = [], [], [], 0
        for frame in frames:
            starts.append(at)
            stamps.append(tuple(at + offset for offset in frame.stamps))
            at += len(frame.data)
            ends.append(at)
        buffer = bytearray().join(frame.data for frame in frames)
        return cls(buffer, [number for number, _ in numbered], ends, stamps, frames, starts)

    def write_round(self, turn: int, first: int, last: int) -> None:
        """Write ``u``, ``seq`` and trade ids of a round into the frames ``first`` to ``last``."""
        buffer, mark = self.buffer, f"{turn:0{MARK_DIGITS}x}".encode()
        for start, frame in zip(self.starts[first:last], self.frames[first:last], strict=True):
            for counter in frame.counters:
                text = str(counter.value + turn * counter.step).encode()
                at = start + counter.offset
                buffer[at : at + len(text)] = text
            for offset in frame.marks:
                buffer[start + offset : start + offset + MARK_DIGITS] = mark

    def write_time(self, first: int, last: int, now_ms: bytes) -> None:
        """Write the time into the frames ``first`` to ``last``."""
        buffer = self.buffer
        for offsets in self.stamps[first:last]:
            for at in offsets:
                buffer[at : at + TIME_DIGITS] = now_ms


@dataclass
class LoadConnection:
    """A connection: its socket and its frames."""

    sock: socket.socket
    lock: threading.Lock = field(default_factory=threading.Lock)
    buffer: FrameBuffer | None = None
    sent: int = 0
    """Frames of the current round that have been sent."""
    lost: bool = False

    def send(self, data: bytes | memoryview) -> None:
        """Send data completely, never inside another frame."""
        with self.lock:
            self.sock.sendall(data)

    def send_due(self, turn: int, due: int, now_ms: bytes | None) -> None:
        """Send the frames of a round with positions below ``due`` in the sending order."""
        assert self.buffer is not None
        last = bisect_right(self.buffer.order, due - 1, self.sent)
        if last == self.sent or self.lost:
            return
        if turn:
            self.buffer.write_round(turn, self.sent, last)
        if now_ms is not None:
            self.buffer.write_time(self.sent, last, now_ms)
        start = self.buffer.ends[self.sent - 1] if self.sent else 0
        try:
            with memoryview(self.buffer.buffer) as view:
                self.send(view[start : self.buffer.ends[last - 1]])
        except OSError:
            self.lost = True
        self.sent = last


class LoadServer:
    """Accepts connections, answers requests, and sends the load on request."""

    def __init__(self, load: Load, *, rate: float, total: int, port: int = 0) -> None:
        self.load = load
        self.rate = rate
        self.total = total
        self.resubscribed = 0
        self.ended = threading.Semaphore(0)
        """Released once for every connection that ends."""
        self.complete = threading.Event()
        """Set when every stream has a subscriber; ``prepare`` needs that."""
        self._owner: dict[str, LoadConnection] = {}
        self._clients: list[LoadConnection] = []
        self._lock = threading.Lock()
        self._started = False
        self._wanted = {("book", s) for s in load.symbols} | {("trade", s) for s in load.symbols}
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port: int = self._listener.getsockname()[1]

    def accept_forever(self) -> None:
        """Accept connections in an endless loop, with one thread for each."""
        while True:
            sock, _ = self._listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = LoadConnection(sock)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def prepare(self) -> None:
        """Lay out the frames of each connection in one buffer, which takes a while."""
        frames: dict[int, list[tuple[int, Frame]]] = {}
        owners: dict[int, LoadConnection] = {}
        for number, frame in enumerate(self.load.frames):
            owner = self._owner[f"{'book' if frame.is_book else 'trade'}.{frame.symbol}"]
            owners[id(owner)] = owner
            frames.setdefault(id(owner), []).append((number, frame))
        now_ms = b"%d" % (time.time_ns() // 1_000_000)
        for key, client in owners.items():
            client.buffer, client.sent = FrameBuffer.of(frames[key]), 0
            client.buffer.write_time(0, len(frames[key]), now_ms)
        self._clients = list(owners.values())

    def send_load(self) -> dict[str, Any]:
        """Send the prepared load and return a report."""
        clients, self._started = self._clients, True
        began, cpu = time.monotonic(), time.process_time()
        sent, late_max, late = 0, 0.0, 0.0
        size = len(self.load.frames)
        for turn in range(-(-self.total // size)):
            if turn:
                for client in clients:
                    client.sent = 0
            until = min(self.total, (turn + 1) * size)
            while sent < until:
                sent = self._due(sent, until, began)
                now_ms = b"%d" % (time.time_ns() // 1_000_000) if self.rate else None
                for client in clients:
                    client.send_due(turn, sent - turn * size, now_ms)
                if self.rate:
                    late = time.monotonic() - began - sent / self.rate
                    late_max = max(late_max, late)
        return {
            "sent": sent,
            "began_s": began,
            "ended_s": time.monotonic(),
            "late_max_s": late_max,
            "late_end_s": late,
            "cpu_s": time.process_time() - cpu,
            "disconnected": sum(client.lost for client in clients),
            "resubscribed": self.resubscribed,
        }

    def _due(self, sent: int, until: int, began: float) -> int:
        """Return the position up to which to send; at a given rate, wait until it is due."""
        if not self.rate:
            return min(until, sent + BURST)
        while True:
            elapsed = time.monotonic() - began
            due = min(until, int(elapsed * self.rate) + 1)
            if due > sent:
                return due
            time.sleep(max(TICK_S, sent / self.rate - elapsed))

    # -- requests ----------------------------------------------------------------------------------

    def _serve(self, client: LoadConnection) -> None:
        protocol = ServerProtocol()
        try:
            while data := client.sock.recv(65_536):
                protocol.receive_data(data)
                for event in protocol.events_received():
                    if isinstance(event, Request):
                        protocol.send_response(protocol.accept(event))
                    elif isinstance(event, WebSocketFrame) and event.opcode is Opcode.TEXT:
                        self._flush(client, protocol)
                        self._answer(client, json.loads(bytes(event.data)))
                self._flush(client, protocol)
        except OSError:
            pass
        finally:
            client.lost = True
            client.sock.close()
            self.ended.release()

    def _flush(self, client: LoadConnection, protocol: ServerProtocol) -> None:
        for data in protocol.data_to_send():
            if data:
                client.send(data)
            else:  # the closing handshake is over
                client.sock.shutdown(socket.SHUT_WR)

    def _answer(self, client: LoadConnection, request: dict[str, Any]) -> None:
        op = request.get("op")
        reply: dict[str, Any] = {"success": True, "ret_msg": "", "conn_id": "bench"}
        reply |= {"req_id": str(request.get("req_id", "")), "op": op}
        if op == "ping":
            reply["ret_msg"] = "pong"
        client.send(websocket_frame(json.dumps(reply, separators=(",", ":")).encode()))
        if op == "subscribe":
            for topic in request["args"]:
                self._subscribe(client, topic)
        elif op == "unsubscribe":
            with self._lock:
                for topic in request["args"]:
                    self._owner.pop(_stream(topic), None)
                    self.resubscribed += self._started

    def _subscribe(self, client: LoadConnection, topic: str) -> None:
        stream = _stream(topic)
        kind, _, symbol = stream.partition(".")
        if kind == "book":
            client.send(self._snapshot(symbol))
        with self._lock:
            self._owner[stream] = client
            complete = len(self._owner) == len(self._wanted)
        if complete:
            self.complete.set()
            report_event("subscribed", streams=len(self._wanted))

    def _snapshot(self, symbol: str) -> bytes:
        """Return the book before the first delta. Asking for it during the run is a failure."""
        now_ms = str(time.time_ns() // 1_000_000)
        return self.load.snapshots[symbol].replace(str(START_MS).encode(), now_ms.encode())


def _stream(topic: str) -> str:
    """Return ``trade.SYMBOL``, or ``book.SYMBOL`` for any depth (cryptofeed asks for 200)."""
    kind, _, rest = topic.partition(".")
    return f"book.{rest.partition('.')[2]}" if kind == "orderbook" else f"trade.{rest}"


def main() -> None:
    """Serve the connections of one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1] if __doc__ else None)
    parser.add_argument("--symbols", type=int, default=10)
    parser.add_argument("--messages", type=int, default=20_000, help="messages in total")
    parser.add_argument("--round", type=int, default=100_000, help="messages before they repeat")
    parser.add_argument("--rate", type=float, default=0.0, help="per second; 0 is full speed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    load = make_load(load_spec(options.symbols, options.messages, options.round, options.seed))
    server = LoadServer(load, rate=options.rate, total=options.messages, port=options.port)
    threading.Thread(target=server.accept_forever, daemon=True).start()
    report_event("listening", port=server.port, mean_bytes=load.mean_bytes, spec=asdict(load.spec))
    for line in sys.stdin:
        if line.strip() == "prepare":
            server.prepare()
            report_event("ready")
        elif line.strip() == "start":
            report_event("done", **server.send_load())


def load_spec(symbols: int, messages: int, round_size: int, seed: int) -> LoadSpec:
    """Return one round if the messages fit into it, else a round that can be repeated."""
    if messages <= round_size:
        return LoadSpec(symbols=symbols, messages=messages, seed=seed)
    return LoadSpec(symbols=symbols, messages=round_size, seed=seed, is_round=True)


if __name__ == "__main__":
    main()
