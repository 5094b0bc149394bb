"""A plain websocket client of the simulated exchange, and a server for it."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import websocket

from bybit_pipeline.processes.simulator.faults import Faults
from bybit_pipeline.processes.simulator.feed import MarketFeed
from bybit_pipeline.processes.simulator.market.instruments import default_instruments
from bybit_pipeline.processes.simulator.market.synthetic import SyntheticFeed
from bybit_pipeline.processes.simulator.server import ExchangeServer, ServerThread
from bybit_pipeline.shared.wire.messages import Category
from tests.simulator.test_instruments import TODAY

DEADLINE_S = 10.0
OPTION = "BTC-14AUG26-65000-C-USDT"


def full_feed(*, seed: int = 1, rate: float | None = 300) -> SyntheticFeed:
    """Return a feed with the default instruments of every category."""
    categories: tuple[Category, ...] = ("spot", "linear", "inverse", "option")
    instruments = [each for category in categories for each in default_instruments(category, TODAY)]
    return SyntheticFeed(instruments, seed=seed, rate=rate)


@contextmanager
def running(
    feed: MarketFeed | None = None, *, faults: Faults | None = None, **options: Any
) -> Iterator[ServerThread]:
    """Run a server in a thread; a crash of it fails the test."""
    thread = ServerThread(ExchangeServer(feed or full_feed(), faults=faults, **options))
    with thread:
        yield thread
    if thread.error is not None:
        raise thread.error


class Client:
    """One websocket connection to the simulated exchange."""

    def __init__(self, thread: ServerThread, category: str, **options: Any) -> None:
        url = thread.server.url.format(category=category)
        self.socket = websocket.create_connection(url, timeout=DEADLINE_S, **options)
        self.messages: list[Any] = []

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, **request: Any) -> None:
        """Send one request."""
        self.socket.send(json.dumps(request))

    def ask(self, **request: Any) -> Any:
        """Send one request and return the reply; earlier data is kept in ``messages``."""
        self.send(**request)
        return self.until(lambda message: "topic" not in message)

    def subscribe(self, *topics: str) -> Any:
        """Subscribe and return the ack."""
        return self.ask(op="subscribe", args=list(topics))

    def read(self) -> Any:
        """Return the next message."""
        message = json.loads(self.socket.recv())
        self.messages.append(message)
        return message

    def until(self, condition: Callable[[Any], bool]) -> Any:
        """Read messages until one satisfies a condition, and return it."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            message = self.read()
            if condition(message):
                return message
        raise TimeoutError(f"no such message among {len(self.messages)}")

    def until_topic(self, topic: str, count: int = 1) -> list[Any]:
        """Return the next ``count`` messages of a topic."""
        return [self.until(lambda message: message.get("topic") == topic) for _ in range(count)]
