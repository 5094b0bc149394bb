"""A small exchange that speaks enough of Bybit's protocol, over real sockets."""

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from bybit_pipeline.shared.bybit import parse_exchange_topic

DEADLINE_S = 10.0


def until(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait until a condition holds, up to ``DEADLINE_S``; return its value."""
    deadline = time.monotonic() + DEADLINE_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not in time: {what or condition}"
        time.sleep(0.002)
    return result


def book_text(symbol: str, update_id: int, *, kind: str = "snapshot", depth: int = 50) -> str:
    return json.dumps(
        {
            "topic": f"orderbook.{depth}.{symbol}",
            "type": kind,
            "ts": 1790134716101,
            "data": {
                "s": symbol,
                "b": [["100", "1"]],
                "a": [["101", "2"]],
                "u": update_id,
                "seq": 1,
            },
            "cts": 1790134716094,
        }
    )


def trade_text(topic_name: str, *symbols: str) -> str:
    return json.dumps(
        {
            "topic": f"publicTrade.{topic_name}",
            "type": "snapshot",
            "ts": 1791365008335,
            "data": [
                {
                    "T": 1791365008334,
                    "s": symbol,
                    "S": "Buy",
                    "v": "1",
                    "p": "100",
                    "i": str(n),
                    "BT": False,
                }
                for n, symbol in enumerate(symbols)
            ],
        }
    )


class Venue:
    """An exchange; its attributes make it misbehave."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.acks = True
        self.pongs = True
        self.snapshots = True
        self.requests: list[dict[str, Any]] = []
        self.connections: list[ServerConnection] = []
        self.update_id = 0
        self._server = serve(self._serve, "127.0.0.1", 0, compression=None)
        self.port = self._server.socket.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/v5/public/linear"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _serve(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        with suppress(ConnectionClosed):
            for text in connection:
                self._answer(connection, json.loads(text))

    def _answer(self, connection: ServerConnection, request: dict[str, Any]) -> None:
        self.requests.append(request)
        if request["op"] == "ping":
            if self.pongs:
                connection.send(json.dumps({"success": True, "ret_msg": "pong", "op": "ping"}))
            return
        bad = [topic for topic in request["args"] if topic in self.refused]
        text = f"error:handler not found,topic:{bad[0]}" if bad else ""
        ack = {
            "success": not bad,
            "ret_msg": text,
            "conn_id": "c",
            "req_id": request["req_id"],
            "op": request["op"],
        }
        if self.acks:
            connection.send(json.dumps(ack))
        if request["op"] == "subscribe" and not bad and self.snapshots:
            for topic in request["args"]:
                kind, depth, name = parse_exchange_topic(topic)
                if kind == "book":
                    self.update_id += 1
                    connection.send(book_text(name, self.update_id, depth=depth))

    def push(self, *texts: str | bytes) -> None:
        """Send on the newest connection."""
        for text in texts:
            self.connections[-1].send(text)

    def asked(self, op: str) -> list[list[str]]:
        return [request["args"] for request in list(self.requests) if request["op"] == op]

    def close(self) -> None:
        self._server.shutdown()
        for connection in self.connections:
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
