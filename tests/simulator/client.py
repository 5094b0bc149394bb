"""A plain websocket-client user of the simulated exchange, and the server it talks to."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import websocket

from bybit_pipeline.processes.simulator.faults import Faults
from bybit_pipeline.processes.simulator.feed import Feed
from bybit_pipeline.processes.simulator.market.instruments import catalogue
from bybit_pipeline.processes.simulator.market.synthetic import SyntheticFeed
from bybit_pipeline.processes.simulator.server import Server, ServerThread
from bybit_pipeline.shared.wire.messages import Category
from tests.simulator.test_instruments import TODAY

DEADLINE_S = 10.0
OPTION = "BTC-14AUG26-65000-C-USDT"


def full_feed(*, seed: int = 1, rate: float | None = 300) -> SyntheticFeed:
    """The catalogue of every category."""
    categories: tuple[Category, ...] = ("spot", "linear", "inverse", "option")
    instruments = [each for category in categories for each in catalogue(category, TODAY)]
    return SyntheticFeed(instruments, seed=seed, rate=rate)


@contextmanager
def running(
    feed: Feed | None = None, *, faults: Faults | None = None, **options: Any
) -> Iterator[ServerThread]:
    """A server in its thread; its unexpected end fails the test."""
    thread = ServerThread(Server(feed or full_feed(), faults=faults, **options))
    with thread:
        yield thread
    if thread.error is not None:
        raise thread.error


class Connection:
    """One websocket; ``until`` reads what comes until something has come."""

    def __init__(self, thread: ServerThread, category: str, **options: Any) -> None:
        url = thread.server.url.format(category=category)
        self.socket = websocket.create_connection(url, timeout=DEADLINE_S, **options)
        self.messages: list[Any] = []

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, **request: Any) -> None:
        """One request."""
        self.socket.send(json.dumps(request))

    def ask(self, **request: Any) -> Any:
        """The reply to one request; data that comes before it is kept in ``messages``."""
        self.send(**request)
        return self.until(lambda message: "topic" not in message)

    def subscribe(self, *topics: str) -> Any:
        """The ack of a subscription."""
        return self.ask(op="subscribe", args=list(topics))

    def read(self) -> Any:
        """The next message."""
        message = json.loads(self.socket.recv())
        self.messages.append(message)
        return message

    def until(self, wanted: Callable[[Any], bool]) -> Any:
        """The first message that is wanted."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            message = self.read()
            if wanted(message):
                return message
        raise TimeoutError(f"nothing of that kind among {len(self.messages)} messages")

    def until_topic(self, topic: str, count: int = 1) -> list[Any]:
        """The next ``count`` messages of a topic."""
        return [self.until(lambda message: message.get("topic") == topic) for _ in range(count)]
