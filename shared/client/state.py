"""
The state behind a client: last values, wanted topics, messages that wait for iterations.

Knows nothing of threads' or loops' waiting: the queues of ``queues`` do that.
"""

import threading
import weakref
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from bybit_pipeline.shared.bus.metrics import METRIC_QUEUE
from bybit_pipeline.shared.bus.subscriber import (
    MetricSubscriber,
    ReceivedMetric,
    SubscriberCounts,
)
from bybit_pipeline.shared.client.queues import MessageQueue
from bybit_pipeline.shared.client.values import Metric
from bybit_pipeline.shared.wire.messages import Source

MARKET_KINDS = ("trades", "orderbook", "density", "gap")


class SubscriptionChange(NamedTuple):
    """Subscriptions to add and to end at the socket."""

    added: AbstractSet[str] = frozenset()
    ended: AbstractSet[str] = frozenset()
    ends_all: bool = False
    """True for the first ``subscribe``, which ends receiving everything."""

    def apply(self, subscriber: MetricSubscriber) -> None:
        """Make the change at the socket."""
        for topic in self.added:
            subscriber.subscribe(topic)
        for topic in self.ended:
            subscriber.unsubscribe(topic)
        if self.ends_all:
            subscriber.unsubscribe_prefix("")


class ClientState:
    """
    Last values, wanted topics and totals of one client.

    Attributes:
        lifecycle: Held while the client opens or closes; the other lock may be taken inside.
        lock: Held by every method; hold it to do several things at once.
        values: The last message of every topic.
        source: Source of the last message about a market.
        is_connected: True while the metrics socket is connected.
        dropped: Messages that iterations were too slow for.
    """

    def __init__(self) -> None:
        self.lifecycle = threading.Lock()
        self.lock = threading.RLock()
        self.values: dict[str, dict[str, Any]] = {}
        self.counts = SubscriberCounts()
        self.source: Source | None = None
        self.is_connected = False
        self.dropped = 0
        self._wanted: AbstractSet[str] | None = None
        """Topics to receive; None for all."""
        self._queues: weakref.WeakSet[MessageQueue] = weakref.WeakSet()
        """One per iteration; an abandoned iteration takes its queue with it."""

    # -- the user's side -------------------------------------------------------------------------

    def subscribe(self, topics: AbstractSet[str]) -> SubscriptionChange:
        """Receive topics; the first call ends receiving everything."""
        with self.lock:
            is_first = self._wanted is None
            added = topics - (self._wanted or frozenset())
            self._wanted = (self._wanted or frozenset()) | topics
            if is_first:
                self._forget(set(self.values) - topics)
            return SubscriptionChange(added=added, ends_all=is_first)

    def unsubscribe(self, topics: AbstractSet[str]) -> SubscriptionChange:
        """Stop receiving topics and forget their values; without effect while all are received."""
        with self.lock:
            if self._wanted is None:
                return SubscriptionChange()
            ended = topics & self._wanted
            self._wanted -= ended
            self._forget(ended)
            return SubscriptionChange(ended=ended)

    def subscribe_wanted(self, subscriber: MetricSubscriber) -> None:
        """Make the subscriptions of a new socket."""
        with self.lock:
            if self._wanted is None:
                subscriber.subscribe_prefix("")
            else:
                SubscriptionChange(added=self._wanted).apply(subscriber)

    def add_queue(self, queue: MessageQueue) -> None:
        """Put the last value of every topic, and from now on each new message, into a queue."""
        with self.lock:
            for topic, payload in self.values.items():
                queue.put(Metric(topic, payload))
            self._queues.add(queue)

    # -- the socket's side -----------------------------------------------------------------------

    def read(self, subscriber: MetricSubscriber, limit: int) -> None:
        """Follow the connection and take in up to ``limit`` messages; never blocks."""
        if subscriber.follow_connection():
            self._receive(subscriber, METRIC_QUEUE)
            self._drop_values()
        self.is_connected = subscriber.is_connected
        self._receive(subscriber, limit)

    def end(self) -> None:
        """Drop every value and end all iterations: the socket is closed."""
        with self.lock:
            self.is_connected = False
            self._drop_values()
            for queue in self._queues:
                queue.end()
            self._queues.clear()

    def _receive(self, subscriber: MetricSubscriber, limit: int) -> None:
        for metric in subscriber.receive(limit):
            with self.lock:
                self._take(metric)

    def _take(self, metric: ReceivedMetric) -> None:
        topic, payload = metric.topic, metric.payload
        if self._wanted is not None and topic not in self._wanted:
            return  # unsubscribed while the message was on its way
        if metric.is_repeat:
            self.values.setdefault(topic, payload)
            return
        self.values[topic] = payload
        if topic.partition(".")[0] in MARKET_KINDS:
            self.source = payload.get("source")
        for queue in self._queues:
            self.dropped += queue.put(Metric(topic, payload))

    def _drop_values(self) -> None:
        """Without a connection no value is current."""
        with self.lock:
            self.values.clear()
            self.source = None

    def _forget(self, topics: AbstractSet[str]) -> None:
        for topic in topics:
            self.values.pop(topic, None)
