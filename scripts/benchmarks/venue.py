"""
The load server: Bybit's handshake, subscriptions and pings, then ready-made frames at a set rate.

``python -m scripts.benchmarks.venue --symbols 10 --messages 20000 --rate 3000`` prints one JSON
object a line: ``listening`` (with the port), ``subscribed`` (whenever every stream has a
subscriber), after ``lay out`` on its standard input ``ready``, and after ``go`` ``done`` (sent,
when it began and ended, how late it was). It serves any number of connections; a frame goes to the
connection that subscribed its topic last.

It must not be what is measured: frames are laid out in one buffer a connection before the start,
and sending is overwriting a few digits and one ``send`` for everything that is due. What it costs
is in the report of every run. A client that cannot keep up makes it late, never lossy: TCP does not
lose, so a lost message was lost by the client.
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

from scripts.benchmarks.frames import (
    START_MS,
    TIME_DIGITS,
    Frame,
    Load,
    LoadSpec,
    make_load,
    websocket_frame,
)

BURST = 256
"""Frames in one go at full speed."""
TICK_S = 0.0002
"""The finest pace: frames that fall due within it are sent together."""
MARK_DIGITS = 8


def say(event: str, **fields: Any) -> None:
    """One line of the report on standard output."""
    print(json.dumps({"event": event, **fields}), flush=True)


@dataclass
class Round:
    """One connection's frames, laid out in a buffer whose digits are overwritten in place."""

    buffer: bytearray
    order: list[int]
    """Place of each frame in the order of sending over all connections."""
    ends: list[int]
    stamps: list[tuple[int, ...]]
    frames: list[Frame]
    starts: list[int]

    @classmethod
    def of(cls, numbered: list[tuple[int, Frame]]) -> "Round":
        """Lay out frames that are numbered by their place in the order of sending."""
        frames = [frame for _, frame in numbered]
        starts, ends, stamps, at = [], [], [], 0
        for frame in frames:
            starts.append(at)
            stamps.append(tuple(at + offset for offset in frame.stamps))
            at += len(frame.data)
            ends.append(at)
        buffer = bytearray().join(frame.data for frame in frames)
        return cls(buffer, [number for number, _ in numbered], ends, stamps, frames, starts)

    def number(self, turn: int, first: int, last: int) -> None:
        """Write ``u``, ``seq`` and trade ids of the ``turn``-th round, from 0, into some frames."""
        buffer, mark = self.buffer, f"{turn:0{MARK_DIGITS}x}".encode()
        for start, frame in zip(self.starts[first:last], self.frames[first:last], strict=True):
            for counter in frame.counters:
                text = str(counter.value + turn * counter.step).encode()
                at = start + counter.offset
                buffer[at : at + len(text)] = text
            for offset in frame.marks:
                buffer[start + offset : start + offset + MARK_DIGITS] = mark

    def stamp(self, first: int, last: int, now_ms: bytes) -> None:
        """Write the time into the frames from ``first`` up to ``last``."""
        buffer = self.buffer
        for places in self.stamps[first:last]:
            for at in places:
                buffer[at : at + TIME_DIGITS] = now_ms


@dataclass
class Client:
    """A connection: its socket, what it subscribed, and what it is being sent."""

    sock: socket.socket
    topics: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    round: Round | None = None
    sent: int = 0
    lost: bool = False

    def send(self, data: bytes | memoryview) -> None:
        """Send everything, between two frames."""
        with self.lock:
            self.sock.sendall(data)

    def send_due(self, turn: int, due: int, now_ms: bytes | None) -> None:
        """Send the frames of a round that come before place ``due`` in the order of sending."""
        assert self.round is not None
        last = bisect_right(self.round.order, due - 1, self.sent)
        if last == self.sent or self.lost:
            return
        if turn:
            self.round.number(turn, self.sent, last)
        if now_ms is not None:
            self.round.stamp(self.sent, last, now_ms)
        start = self.round.ends[self.sent - 1] if self.sent else 0
        try:
            with memoryview(self.round.buffer) as view:
                self.send(view[start : self.round.ends[last - 1]])
        except OSError:
            self.lost = True
        self.sent = last


class Venue:
    """The server: accepts, answers, and sends the load once told to."""

    def __init__(self, load: Load, *, rate: float, total: int, port: int = 0) -> None:
        self.load = load
        self.rate = rate
        self.total = total
        self.resubscribed = 0
        self.ended = threading.Semaphore(0)
        """Released once for every connection that ends."""
        self.complete = threading.Event()
        """Set once every stream has been subscribed: there is nothing to lay out before."""
        self._owner: dict[str, Client] = {}
        self._clients: list[Client] = []
        self._lock = threading.Lock()
        self._started = False
        self._wanted = {("book", s) for s in load.symbols} | {("trade", s) for s in load.symbols}
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port: int = self._listener.getsockname()[1]

    def accept_forever(self) -> None:
        """One thread a connection: they read little."""
        while True:
            sock, _ = self._listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = Client(sock)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def lay_out(self) -> None:
        """Put what each connection will be sent into one buffer, which takes a while."""
        shares: dict[int, list[tuple[int, Frame]]] = {}
        owners: dict[int, Client] = {}
        for number, frame in enumerate(self.load.frames):
            owner = self._owner[f"{'book' if frame.is_book else 'trade'}.{frame.symbol}"]
            owners[id(owner)] = owner
            shares.setdefault(id(owner), []).append((number, frame))
        now_ms = b"%d" % (time.time_ns() // 1_000_000)
        for key, client in owners.items():
            client.round, client.sent = Round.of(shares[key]), 0
            client.round.stamp(0, len(shares[key]), now_ms)
        self._clients = list(owners.values())

    def play(self) -> dict[str, Any]:
        """Send the load, which has been laid out, and report on it."""
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
        """How far to send next; at a set rate, once it is time."""
        if not self.rate:
            return min(until, sent + BURST)
        while True:
            elapsed = time.monotonic() - began
            due = min(until, int(elapsed * self.rate) + 1)
            if due > sent:
                return due
            time.sleep(max(TICK_S, sent / self.rate - elapsed))

    # -- what a client says ------------------------------------------------------------------------

    def _serve(self, client: Client) -> None:
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

    def _flush(self, client: Client, protocol: ServerProtocol) -> None:
        for data in protocol.data_to_send():
            if data:
                client.send(data)
            else:  # the closing handshake is over
                client.sock.shutdown(socket.SHUT_WR)

    def _answer(self, client: Client, request: dict[str, Any]) -> None:
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

    def _subscribe(self, client: Client, topic: str) -> None:
        stream = _stream(topic)
        kind, _, symbol = stream.partition(".")
        if kind == "book":
            client.send(self._snapshot(symbol))
        with self._lock:
            self._owner[stream] = client
            complete = len(self._owner) == len(self._wanted)
        if complete:
            self.complete.set()
            say("subscribed", streams=len(self._wanted))

    def _snapshot(self, symbol: str) -> bytes:
        """The book before the first delta; a new one during the run is not served (a failure)."""
        now_ms = str(time.time_ns() // 1_000_000)
        return self.load.snapshots[symbol].replace(str(START_MS).encode(), now_ms.encode())


def _stream(topic: str) -> str:
    """``book.SYMBOL`` of an order book of any depth (cryptofeed asks for 200), ``trade.SYMBOL``."""
    kind, _, rest = topic.partition(".")
    return f"book.{rest.partition('.')[2]}" if kind == "orderbook" else f"trade.{rest}"


def main() -> None:
    """Serve one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1] if __doc__ else None)
    parser.add_argument("--symbols", type=int, default=10)
    parser.add_argument("--messages", type=int, default=20_000, help="in all")
    parser.add_argument("--round", type=int, default=100_000, help="at most, before repeating")
    parser.add_argument("--rate", type=float, default=0.0, help="messages/s; 0: full speed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    load = make_load(load_spec(options.symbols, options.messages, options.round, options.seed))
    venue = Venue(load, rate=options.rate, total=options.messages, port=options.port)
    threading.Thread(target=venue.accept_forever, daemon=True).start()
    say("listening", port=venue.port, mean_bytes=load.mean_bytes, spec=asdict(load.spec))
    for line in sys.stdin:
        if line.strip() == "lay out":
            venue.lay_out()
            say("ready")
        elif line.strip() == "go":
            say("done", **venue.play())


def load_spec(symbols: int, messages: int, round_size: int, seed: int) -> LoadSpec:
    """One round if the messages fit into it, else rounds that join."""
    if messages <= round_size:
        return LoadSpec(symbols=symbols, messages=messages, seed=seed)
    return LoadSpec(symbols=symbols, messages=round_size, seed=seed, is_round=True)


if __name__ == "__main__":
    main()
