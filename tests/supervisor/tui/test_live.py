"""What the terminal takes from the metrics socket."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from bybit_pipeline.shared.bus.subscriber import MetricSubscriber
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.supervisor.tui.event_log import EventLog
from bybit_pipeline.supervisor.tui.live import drain, subscribe, take_markets
from bybit_pipeline.supervisor.tui.state import TableMarket, TableState
from tests.supervisor.tui.payloads import BOOK, TRADES, gap

DEADLINE_MS = 5_000


class Forwarder:
    """The forwarder's end of a metrics socket, and the terminal's end."""

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.bind("tcp://127.0.0.1:*")
        endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.subscriber: MetricSubscriber = subscribe(endpoint, [""], None)
        assert self._socket.poll(DEADLINE_MS)
        self._socket.recv()

    def send(self, *payloads: dict[str, Any]) -> None:
        """Publish messages."""
        for payload in payloads:
            topic = f"{payload['kind']}.{payload['category']}.{payload['symbol']}"
            self._socket.send_multipart([topic.encode(), codec.encode_map(payload)])

    def take(self, table: TableState, events: EventLog, until: Callable[[], object]) -> None:
        """Take in messages until a condition is true."""
        for _ in range(DEADLINE_MS // 10):
            self.subscriber.wait(10)
            drain(self.subscriber, events)
            take_markets(self.subscriber, table)
            if until():
                return
        raise AssertionError("the condition did not become true in time")

    def close(self) -> None:
        """Close both ends."""
        self.subscriber.close()
        self._context.destroy(linger=0)


@pytest.fixture
def forwarder() -> Iterator[Forwarder]:
    forwarder = Forwarder()
    yield forwarder
    forwarder.close()


def numbered(payload: dict[str, Any], seq: int, **changes: Any) -> dict[str, Any]:
    return {**payload, "epoch": "e", "seq": seq, **changes}


def test_messages_reach_the_table_and_the_event_log(forwarder: Forwarder) -> None:
    table, events = TableState(), EventLog()
    forwarder.send(numbered(BOOK, 1, best_bid=1.0), numbered(BOOK, 2), numbered(TRADES, 1))
    forwarder.send(numbered(gap(), 1), numbered(gap(), 1))

    forwarder.take(table, events, lambda: len(events) and table.get("linear:BTCUSDT"))

    market = table.get("linear:BTCUSDT")
    assert market is not None
    assert (83766.3, 83766.3) == (market.book["best_bid"], market.trades["last_price"])
    assert 1 == len(events), "the second message is a repeat"


def test_a_repeat_does_not_revive_a_silent_market(forwarder: Forwarder) -> None:
    """The forwarder sends last values again whenever somebody subscribes."""
    table, events = TableState(), EventLog()
    forwarder.send(numbered(BOOK, 1))
    forwarder.take(table, events, lambda: len(table))
    [market] = table.markets
    assert isinstance(market, TableMarket)
    received = market.received

    forwarder.send(numbered(BOOK, 1), numbered(gap(), 1))
    forwarder.take(table, events, lambda: len(events))

    assert received == market.received
