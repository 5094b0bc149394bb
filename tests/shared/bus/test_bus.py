"""The buses over real sockets: sequences, missed messages, exact topics, bounded queues."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from bybit_pipeline.shared.bus.market import BUNDLE, MarketPublisher, MarketSubscriber, Received
from bybit_pipeline.shared.bus.metrics import BURST, MetricInbox, MetricPublisher
from bybit_pipeline.shared.bus.sockets import bind, ipc_endpoint
from bybit_pipeline.shared.errors import TakenError
from bybit_pipeline.shared.wire.codec import decode_map, decode_market, encode_bundle
from bybit_pipeline.shared.wire.messages import TradesMessage
from bybit_pipeline.shared.wire.topics import market_topic

BTC = market_topic("trade", "linear", "BTCUSDT")
BTC_PERP = market_topic("trade", "linear", "BTCUSDTPERP")
DEADLINE_MS = 5000


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


def trades(session: int, sequence: int) -> TradesMessage:
    return TradesMessage(1, "sim", session, sequence, 1, 1, ())


def connected_pair(
    context: zmq.Context[zmq.Socket[bytes]],
) -> tuple[MarketPublisher, MarketSubscriber]:
    publisher = market(context)
    return publisher, following(context, publisher, "trades-0", BTC)


def market(context: zmq.Context[zmq.Socket[bytes]]) -> MarketPublisher:
    return MarketPublisher(context, "tcp://127.0.0.1:*", "tcp://127.0.0.1:*")


def following(
    context: zmq.Context[zmq.Socket[bytes]], publisher: MarketPublisher, name: str, *topics: bytes
) -> MarketSubscriber:
    """A worker that follows topics and is known to the publisher."""
    subscriber = MarketSubscriber(context, name)
    subscriber.connect("connector-linear-0", publisher.feed_endpoint)
    for topic in topics:
        subscriber.subscribe(topic, "connector-linear-0")
    assert publisher.wait_for_workers(topics, 5) == set()
    return subscriber


def listening(
    context: zmq.Context[zmq.Socket[bytes]], publisher: MarketPublisher, topic: bytes
) -> zmq.Socket[bytes]:
    """Another subscriber, known to the publisher."""
    listener = context.socket(zmq.SUB)
    listener.subscribe(topic)
    listener.connect(publisher.endpoint)
    assert publisher._open.poll(DEADLINE_MS)
    publisher.drain_subscriptions()
    return listener


def receive(subscriber: MarketSubscriber, count: int) -> list[Received]:
    received: list[Received] = []
    while len(received) < count:
        assert subscriber.socket.poll(DEADLINE_MS), f"only {len(received)} of {count} arrived"
        received += subscriber.receive(count - len(received))
    return received


def test_a_subscription_matches_its_symbol_exactly(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    publisher, subscriber = connected_pair(context)
    publisher.publish(BTC_PERP, trades(1, 1))
    publisher.publish(BTC, trades(1, 1))
    assert [Received(BTC, trades(1, 1), 0)] == receive(subscriber, 1)


def test_sequences_run_from_one_per_topic_and_session(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    publisher, _ = connected_pair(context)
    assert [publisher.next_sequence(BTC) for _ in range(3)] == [1, 2, 3]
    assert publisher.next_sequence(BTC_PERP) == 1
    publisher.start_session()
    assert publisher.next_sequence(BTC) == 1


def test_missed_messages_are_counted_and_reported_with_the_next_message(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    publisher, subscriber = connected_pair(context)
    for sequence in (5, 6, 9):
        publisher.publish(BTC, trades(1, sequence))
    assert [0, 0, 2] == [received.lost for received in receive(subscriber, 3)]
    assert {"connector-linear-0": 2} == subscriber.lost


def test_a_new_session_that_does_not_start_at_one_has_missed_messages(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    publisher, subscriber = connected_pair(context)
    for session, sequence in ((1, 1), (2, 1), (3, 4)):
        publisher.publish(BTC, trades(session, sequence))
    assert [0, 0, 3] == [received.lost for received in receive(subscriber, 3)]


def test_unreadable_frames_are_counted_and_skipped(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    publisher, subscriber = connected_pair(context)
    publisher._feed.send(b"trades-0\0\xc1")
    publisher._feed.send(b"trades-0\0" + encode_bundle([BTC]))
    publisher._feed.send(b"trades-0\0" + encode_bundle([BTC, b"\xc1", b"", b"", BTC, b""]))
    publisher.publish(BTC, trades(1, 1))
    assert [Received(BTC, trades(1, 1), 0)] == receive(subscriber, 1)
    assert subscriber.invalid == 5


def test_waiting_messages_of_an_unsubscribed_topic_are_dropped(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    publisher, subscriber = connected_pair(context)
    other = market_topic("trade", "linear", "ETHUSDT")
    subscriber.subscribe(other, "connector-linear-0")
    assert publisher.wait_for_workers([other], 5) == set()
    publisher.publish(BTC, trades(1, 1))
    publisher.publish(other, trades(1, 1))
    subscriber.unsubscribe(BTC)
    assert [other] == [received.topic for received in receive(subscriber, 1)]
    assert subscriber.topics() == ["trade.linear.ETHUSDT"]


def test_waiting_for_workers_returns_the_topics_without_a_worker(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    publisher, _ = connected_pair(context)
    assert publisher.wait_for_workers([BTC, BTC_PERP], 0.05) == {BTC_PERP}


def test_a_batch_arrives_complete_and_in_order(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    publisher, subscriber = connected_pair(context)
    count = 2 * BUNDLE + 1
    for sequence in range(1, count + 1):
        publisher.collect(BTC, trades(1, sequence))
        publisher.collect(BTC_PERP, trades(1, sequence))
    publisher.flush()
    found = receive(subscriber, count)
    assert [received.message.bus_sequence for received in found] == list(range(1, count + 1))
    assert {received.lost for received in found} == {0}


def test_every_worker_receives_only_the_topics_it_follows(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    publisher = market(context)
    one = following(context, publisher, "orderbook-1", BTC)
    ten = following(context, publisher, "orderbook-10", BTC, BTC_PERP)
    for topic in (BTC, BTC_PERP):
        publisher.collect(topic, trades(1, 1))
    publisher.flush()
    assert [received.topic for received in receive(ten, 2)] == [BTC, BTC_PERP]
    assert [received.topic for received in receive(one, 1)] == [BTC]
    assert not one.socket.poll(50)


def test_an_ended_worker_is_dropped_and_its_successor_is_served(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    publisher, subscriber = connected_pair(context)
    subscriber.close()
    drain_until(publisher, lambda: bool(publisher.wait_for_workers([BTC], 0)))
    assert not publisher._bundles
    publisher.publish(BTC, trades(1, 1))
    successor = following(context, publisher, "trades-0", BTC)
    publisher.publish(BTC, trades(1, 2))
    [received] = receive(successor, 1)
    assert (received.message.bus_sequence, received.lost) == (2, 0)


@pytest.mark.parametrize(
    "parts",
    [[b"\x02" + BTC], [b"hello", b"\x01" + BTC], [b"\x02trades-0\0"], [b""], [b"\x00trades-0\0"]],
)
def test_frames_that_are_not_subscriptions_change_nothing(
    context: zmq.Context[zmq.Socket[bytes]], parts: list[bytes]
) -> None:
    publisher, subscriber = connected_pair(context)
    listener = listening(context, publisher, BTC)
    for endpoint in (publisher.endpoint, publisher.feed_endpoint):
        stranger = context.socket(zmq.XSUB)
        stranger.connect(endpoint)
        stranger.send_multipart(parts)
        stranger.send(b"\x01last\0last")
        drain_until(publisher, lambda: b"last" in subscriptions(publisher))
        stranger.close()
        drain_until(publisher, lambda: b"last" not in subscriptions(publisher))
    assert [BTC, BTC] == subscriptions(publisher)
    publisher.publish(BTC, trades(1, 1))
    assert listener.poll(DEADLINE_MS)
    assert len(receive(subscriber, 1)) == 1


def subscriptions(publisher: MarketPublisher) -> list[bytes]:
    """Return the subscriptions that the publisher knows, of both sockets."""
    return [topic.removeprefix(b"last\0") for topic in (*publisher._listeners, *publisher._routes)]


def drain_until(publisher: MarketPublisher, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_MS / 1_000
    while not condition():
        assert time.monotonic() < deadline, "not seen"
        publisher.drain_subscriptions()


def test_a_worker_name_without_topics_is_dropped(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    publisher = market(context)
    stranger = context.socket(zmq.SUB)
    stranger.connect(publisher.feed_endpoint)
    for text in (b"x\0", b"x\0" + BTC):
        stranger.subscribe(text)
    assert publisher.wait_for_workers([BTC], 5) == set()
    stranger.unsubscribe(b"x\0")
    stranger.subscribe(b"y\0" + BTC_PERP)
    assert publisher.wait_for_workers([BTC_PERP], 5) == set()
    publisher.publish(BTC, trades(1, 1))
    assert not any(bundle.parts for bundle in publisher._bundles.values())
    stranger.close()
    drain_until(publisher, lambda: not publisher._bundles and not publisher._routes)


def test_other_subscribers_receive_one_message_per_frame(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    publisher, subscriber = connected_pair(context)
    listener = listening(context, publisher, BTC)
    for topic in (BTC_PERP, BTC, BTC):
        publisher.collect(topic, trades(1, 1))
    publisher.flush()
    for _ in range(2):
        assert listener.poll(DEADLINE_MS)
        assert decode_market(listener.recv()) == (BTC, trades(1, 1))
    assert not listener.poll(50)
    assert len(receive(subscriber, 2)) == 2


def test_metrics_wait_for_a_forwarder_that_starts_later(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    endpoint = ipc_endpoint(str(tmp_path / "m"))
    publisher = MetricPublisher(context, endpoint)
    publisher.publish(b"trades.linear.BTCUSDT", {"seq": 1})
    inbox = MetricInbox(context, endpoint)
    assert inbox.socket.poll(DEADLINE_MS)
    [[topic, payload]] = list(inbox.receive(10))
    assert topic == b"trades.linear.BTCUSDT"
    assert decode_map(payload) == {"seq": 1}


def test_a_batch_of_metrics_arrives_complete_and_in_order(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    endpoint = ipc_endpoint(str(tmp_path / "m"))
    inbox = MetricInbox(context, endpoint)
    publisher = MetricPublisher(context, endpoint)
    count = 2 * BURST + 1
    publisher.publish_all((b"trades.linear.BTCUSDT", {"seq": seq}) for seq in range(count))
    seqs: list[int] = []
    while len(seqs) < count:
        assert inbox.socket.poll(DEADLINE_MS)
        seqs += [decode_map(payload)["seq"] for _, payload in inbox.receive(count)]
    assert seqs == list(range(count))


def test_metrics_that_find_the_queue_full_are_counted(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    publisher = MetricPublisher(context, ipc_endpoint(str(tmp_path / "nobody")), queue=5)
    for seq in range(20):
        publisher.publish(b"trades.linear.BTCUSDT", {"seq": seq})
    assert publisher.dropped == 15
    publisher.publish_all((b"trades.linear.BTCUSDT", {"seq": seq}) for seq in range(BURST + 2))
    assert publisher.dropped == 15 + BURST + 2


def test_the_error_for_a_taken_port_names_it(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    owner = context.socket(zmq.PUB)  # kept: a socket nobody holds is closed
    endpoint = bind(owner, "tcp://127.0.0.1:0")
    with pytest.raises(TakenError, match=endpoint):
        bind(context.socket(zmq.PUB), endpoint)


def test_a_socket_path_that_is_too_long_is_rejected() -> None:
    with pytest.raises(TakenError, match="at most 107"):
        ipc_endpoint("/tmp/" + "x" * 103)


def test_thousands_of_symbols_can_be_subscribed_at_once(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    publisher = market(context)
    topics = [market_topic("trade", "linear", f"COIN{number}USDT") for number in range(3_000)]
    following(context, publisher, "trades-0", *topics)


def test_a_connector_that_ends_silently_is_reported(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    publisher, subscriber = connected_pair(context)
    assert subscriber.hang_ups() == []
    publisher.close()
    assert subscriber.monitor.poll(DEADLINE_MS)
    assert subscriber.hang_ups() == ["connector-linear-0"]


def test_a_file_that_is_not_a_socket_is_not_replaced(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    file = tmp_path / "notes"
    file.write_text("keep me")
    with pytest.raises(TakenError, match="is not a socket"):
        bind(context.socket(zmq.XPUB), f"ipc://{file}")
    assert "keep me" == file.read_text()
