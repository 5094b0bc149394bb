"""The receiving end of the metrics socket: which topics it gets, and how each is marked."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from bybit_pipeline.shared.bus.subscriber import (
    MetricSubscriber,
    ReceivedMetric,
    SubscriberCounts,
)
from bybit_pipeline.shared.errors import ConfigError, NoPipelineError
from bybit_pipeline.shared.wire import codec

DEADLINE_S = 5.0
END = "trades.linear.END"


class Publisher:
    """The forwarder's end of the metrics socket."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> None:
        self.context = context
        self.socket = context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        try:
            self.socket.bind(endpoint)
        except zmq.ZMQError:
            self.socket.close()
            raise
        self.endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def subscription(self) -> bytes:
        """Wait for the next subscription (``1`` and its prefix) or its end (``0``)."""
        assert self.socket.poll(int(DEADLINE_S * 1000))
        return self.socket.recv()

    def send(self, topic: str, **payload: Any) -> None:
        """Publish one message."""
        self.socket.send_multipart([topic.encode(), codec.encode_map(payload)])


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def publisher(context: "zmq.Context[zmq.Socket[bytes]]") -> Publisher:
    return Publisher(context, "tcp://127.0.0.1:*")


@pytest.fixture
def subscriber(publisher: Publisher) -> Iterator[MetricSubscriber]:
    """A subscriber of everything, whose subscription has arrived."""
    with MetricSubscriber(publisher.endpoint) as subscriber:
        subscriber.subscribe_prefix("")
        assert b"\x01" == publisher.subscription()
        yield subscriber


def received(subscriber: MetricSubscriber, *, until: str = END) -> list[ReceivedMetric]:
    """Everything before the first message of the topic ``until``."""
    metrics: list[ReceivedMetric] = []
    deadline = time.monotonic() + DEADLINE_S
    while not metrics or metrics[-1].topic != until:
        assert time.monotonic() < deadline
        subscriber.socket.poll(100)
        metrics += subscriber.receive()
    return metrics[:-1]


def wait_for(condition: Callable[[], bool], subscriber: MetricSubscriber) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        subscriber.monitor.poll(20)


def test_a_prefix_matches_every_topic_that_starts_with_it(publisher: Publisher) -> None:
    with MetricSubscriber(publisher.endpoint) as subscriber:
        subscriber.subscribe_prefix("trades.")
        publisher.subscription()
        for topic in ("orderbook.linear.A", "trades.linear.A", "trades.spot.B", END):
            publisher.send(topic)
        assert ["trades.linear.A", "trades.spot.B"] == [m.topic for m in received(subscriber)]


def test_a_topic_matches_exactly(publisher: Publisher) -> None:
    with MetricSubscriber(publisher.endpoint) as subscriber:
        for topic in ("trades.linear.BTC", END):
            subscriber.subscribe(topic)
            publisher.subscription()
        for topic in ("trades.linear.BTC", "trades.linear.BTCPERP", "trades.linear.ETH", END):
            publisher.send(topic)
        assert ["trades.linear.BTC"] == [m.topic for m in received(subscriber)]


def test_an_unsubscribed_topic_no_longer_arrives(publisher: Publisher) -> None:
    with MetricSubscriber(publisher.endpoint) as subscriber:
        for topic in ("trades.linear.A", END):
            subscriber.subscribe(topic)
            publisher.subscription()
        subscriber.unsubscribe("trades.linear.A")
        publisher.send("trades.linear.A")
        publisher.send(END)
        assert [] == received(subscriber)


def test_a_topic_subscribed_again_has_missed_nothing(publisher: Publisher) -> None:
    with MetricSubscriber(publisher.endpoint) as subscriber:
        for topic in ("trades.linear.A", END):
            subscriber.subscribe(topic)
            publisher.subscription()
        publisher.send("trades.linear.A", epoch="e", seq=1)
        publisher.send(END)
        received(subscriber)
        subscriber.unsubscribe("trades.linear.A")
        subscriber.subscribe("trades.linear.A")
        assert b"\x00trades.linear.A" == publisher.subscription()
        assert b"\x01trades.linear.A" == publisher.subscription()
        publisher.send("trades.linear.A", epoch="e", seq=9)
        publisher.send(END)
        assert [("trades.linear.A", 0)] == [(m.topic, m.missed) for m in received(subscriber)]


def test_repeats_are_marked_and_missed_messages_counted(
    publisher: Publisher, subscriber: MetricSubscriber
) -> None:
    for epoch, seq in (("e", 1), ("e", 1), ("e", 4), ("f", 2)):
        publisher.send("trades.linear.A", epoch=epoch, seq=seq)
    publisher.send("process.x", state="up")
    publisher.send("process.x", state="up")
    publisher.send(END)
    assert [
        ("trades.linear.A", False, 0),
        ("trades.linear.A", True, 0),
        ("trades.linear.A", False, 2),
        ("trades.linear.A", False, 0),
        ("process.x", False, 0),
        ("process.x", False, 0),
    ] == [(m.topic, m.is_repeat, m.missed) for m in received(subscriber)]
    assert SubscriberCounts(messages=7, missed=2) == subscriber.counts


def test_undecodable_messages_are_counted(
    publisher: Publisher, subscriber: MetricSubscriber
) -> None:
    publisher.socket.send_multipart([b"a"])
    publisher.socket.send_multipart([b"a", codec.encode_map({}), b"b"])
    publisher.socket.send_multipart([b"a", b"\xc1"])
    publisher.socket.send_multipart([b"\xff", codec.encode_map({})])
    publisher.send(END)
    assert [] == received(subscriber)
    assert 4 == subscriber.counts.invalid


def test_a_limit_bounds_what_is_received_at_once(
    publisher: Publisher, subscriber: MetricSubscriber
) -> None:
    for _ in range(5):
        publisher.send("a")
    publisher.send(END)
    received(subscriber)
    for _ in range(5):
        publisher.send("a")
    wait_for(lambda: bool(subscriber.socket.poll(0)), subscriber)
    assert 2 >= len(list(subscriber.receive(limit=2)))


def test_of_a_conflated_topic_only_the_newest_message_is_kept(publisher: Publisher) -> None:
    with MetricSubscriber(publisher.endpoint, conflated=["orderbook."]) as subscriber:
        subscriber.subscribe_prefix("")
        publisher.subscription()
        publisher.socket.send_multipart([b"orderbook.linear.A", b"\xc1"])
        for seq in (1, 5, 7):
            publisher.send("orderbook.linear.A", epoch="e", seq=seq)
        publisher.send("orderbook.linear.B", epoch="e", seq=3)
        publisher.send(END, epoch="e", seq=1)

        assert [] == received(subscriber)
        assert [("orderbook.linear.A", 7, False, 0), ("orderbook.linear.B", 3, False, 0)] == [
            (m.topic, m.payload["seq"], m.is_repeat, m.missed) for m in subscriber.latest()
        ]
        assert [] == list(subscriber.latest())
        assert (0, 0) == (subscriber.counts.invalid, subscriber.counts.missed)

        publisher.send("orderbook.linear.A", epoch="e", seq=7)
        publisher.send(END, epoch="e", seq=2)
        received(subscriber)
        assert [True] == [m.is_repeat for m in subscriber.latest()]


def connect(subscriber: MetricSubscriber) -> None:
    """Wait until the subscriber has noticed its connection."""
    wait_for(lambda: not subscriber.follow_connection() and subscriber.is_connected, subscriber)


def replace(publisher: Publisher, subscriber: MetricSubscriber) -> Publisher:
    """Another publisher at the same address, which has received the subscription."""
    publisher.socket.close()
    successors: list[Publisher] = []

    def is_bound() -> bool:
        with contextlib.suppress(zmq.ZMQError):  # the address is not free yet
            successors.append(Publisher(publisher.context, publisher.endpoint))
        return bool(successors)

    wait_for(is_bound, subscriber)
    [successor] = successors
    # Renewing subscriptions takes a turn of the subscriber's own socket.
    wait_for(lambda: not subscriber.socket.poll(0) and bool(successor.socket.poll(0)), subscriber)
    assert b"\x01" == successor.subscription()
    return successor


def test_a_lost_connection_is_reported_once(
    publisher: Publisher, subscriber: MetricSubscriber
) -> None:
    connect(subscriber)
    publisher.socket.close()
    wait_for(subscriber.follow_connection, subscriber)
    assert not subscriber.is_connected
    assert not subscriber.follow_connection()


def test_a_connection_that_was_lost_and_is_back_is_reported_too(
    publisher: Publisher, subscriber: MetricSubscriber
) -> None:
    """Values of both connections may be mixed by then, so the last ones are requested again."""
    connect(subscriber)
    successor = replace(publisher, subscriber)

    assert subscriber.follow_connection()
    assert subscriber.is_connected
    subscriber.socket.poll(0)
    assert [b"\x00", b"\x01"] == [successor.subscription(), successor.subscription()]


def test_last_values_can_be_requested_again(
    publisher: Publisher, subscriber: MetricSubscriber
) -> None:
    subscriber.request_last_values()
    assert [b"\x00", b"\x01"] == [publisher.subscription(), publisher.subscription()]


@pytest.mark.parametrize("endpoint", ["", "nowhere", "tcp://nowhere", "udp://127.0.0.1:1"])
def test_a_malformed_endpoint_is_rejected(endpoint: str) -> None:
    with pytest.raises(NoPipelineError, match="is not an endpoint; allowed: such as tcp:"):
        MetricSubscriber(endpoint)


def test_unusable_keys_are_rejected(publisher: Publisher) -> None:
    with pytest.raises(ConfigError, match="client\\.key"):
        MetricSubscriber(publisher.endpoint, keys="/nonexistent")
