"""
The state behind a client: last values, wanted topics, messages that wait for iterations.

Decides which values are current. A value is not current once its topic has had no message for
``OVERDUE_S``, while older messages wait to be read, and in another process: a forked child has no
thread that reads. An old message that arrives late does not count as new. Knows nothing of threads'
or loops' waiting: the queues of ``queues`` do that.
"""

import os
import threading
import weakref
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from bybit_pipeline.shared.bus.metrics import METRIC_QUEUE
from bybit_pipeline.shared.bus.subscriber import (
    MetricSubscriber,
    ReceivedMetric,
    SubscriberCounts,
)
from bybit_pipeline.shared.client.publish_times import PublishTimes
from bybit_pipeline.shared.client.queues import MessageQueue
from bybit_pipeline.shared.client.values import Metric
from bybit_pipeline.shared.runtime.clock import SystemClock
from bybit_pipeline.shared.wire.messages import Source
from bybit_pipeline.shared.wire.overdue import OVERDUE_S, PERIODIC_KINDS, without_numbers

MARKET_KINDS = ("trades", "orderbook", "density", "gap")
PULSE_TOPIC = "process.forwarder"
"""
A topic that is always subscribed, so that messages arrive also from a quiet pipeline.

It is published once per second, even if no subscribed symbol exists.
"""
READ_S = 0.5
"""Longest time between two calls of ``read``, in seconds."""


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


class _Value(NamedTuple):
    """The last message of a topic, and when it was published, on our clock."""

    payload: dict[str, Any]
    at: float


class ClientState:
    """
    Last values, wanted topics and totals of one client.

    Args:
        monotonic: Monotonic clock, in seconds.

    Attributes:
        lifecycle: Held while the client opens or closes; the other lock may be taken inside.
        lock: Held by every method; hold it to do several things at once.
        dropped: Messages that iterations were too slow for.
    """

    def __init__(self, monotonic: Callable[[], float] = SystemClock.monotonic) -> None:
        self.lifecycle = threading.Lock()
        self.lock = threading.RLock()
        self.counts = SubscriberCounts()
        self.dropped = 0
        self._monotonic = monotonic
        self._pid = os.getpid()
        self._values: dict[str, _Value] = {}
        self._publish_times = PublishTimes()
        self._source: Source | None = None
        self._is_connected = False
        self._heard_at = float("-inf")
        """When the connection was made, or the newest message published."""
        self._emptied_at = float("-inf")
        """When the last ``read`` found no further message: no older one waits."""
        self._wanted: AbstractSet[str] | None = None
        """Topics to receive; None for all."""
        self._queues: weakref.WeakSet[MessageQueue] = weakref.WeakSet()
        """One per iteration; an abandoned iteration takes its queue with it."""

    # -- the user's side -------------------------------------------------------------------------

    @property
    def is_foreign(self) -> bool:
        """True in a child that was forked from the process of this client."""
        return self._pid != os.getpid()

    @property
    def is_connected(self) -> bool:
        """True while connected to a pipeline from which messages arrive."""
        return self._is_connected and self._is_current(self._heard_at)

    @property
    def source(self) -> Source | None:
        """Source of the last message about a market; None while no messages arrive."""
        return self._source if self.is_connected else None

    @property
    def topics(self) -> list[str]:
        """The topics that have a last message."""
        with self.lock:
            return list(self._values)

    def get(self, topic: str) -> dict[str, Any] | None:
        """
        The last message of a topic.

        If it is not current, a message about a market is stale and has no numbers, and one about a
        process counts as none. Events stay.
        """
        value = self._values.get(topic)
        return None if value is None else self._as_of_now(topic, value)

    def fork(self) -> "ClientState":
        """The state to begin with in a forked child: the wanted topics, and nothing received."""
        state = ClientState(self._monotonic)
        state._wanted = self._wanted
        return state

    def _as_of_now(self, topic: str, value: _Value) -> dict[str, Any] | None:
        kind = topic.partition(".")[0]
        if kind not in (*PERIODIC_KINDS, "process") or self._is_current(value.at):
            return value.payload
        return without_numbers(value.payload) if kind in PERIODIC_KINDS else None

    def _is_current(self, at: float) -> bool:
        oldest = self._monotonic() - OVERDUE_S
        return at > oldest and self._emptied_at > oldest and not self.is_foreign

    def subscribe(self, topics: AbstractSet[str]) -> SubscriptionChange:
        """Receive topics; the first call ends receiving everything."""
        with self.lock:
            is_first = self._wanted is None
            added = topics - (self._wanted or frozenset())
            self._wanted = (self._wanted or frozenset()) | topics
            if is_first:
                self._forget(set(self._values) - topics)
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
        subscriber.subscribe(PULSE_TOPIC)
        with self.lock:
            if self._wanted is None:
                subscriber.subscribe_prefix("")
            else:
                SubscriptionChange(added=self._wanted).apply(subscriber)

    def add_queue(self, queue: MessageQueue) -> None:
        """Put the last value of every topic, and from now on each new message, into a queue."""
        with self.lock:
            for topic, value in self._values.items():
                payload = self._as_of_now(topic, value)
                if payload is not None:
                    queue.put(Metric(topic, payload))
            self._queues.add(queue)

    # -- the socket's side -----------------------------------------------------------------------

    def read(self, subscriber: MetricSubscriber, limit: int) -> None:
        """
        Follow the connection and take in up to ``limit`` messages; never blocks.

        Call it whenever something has arrived, and every ``READ_S``.
        """
        if subscriber.follow_connection():
            self._receive(subscriber, METRIC_QUEUE)
            self._drop_values()
        if subscriber.is_connected and not self._is_connected:
            self._heard_at = self._emptied_at = self._monotonic()
        self._is_connected = subscriber.is_connected
        if self._receive(subscriber, limit) < limit:
            self._emptied_at = self._monotonic()

    def end(self) -> None:
        """Drop every value and end all iterations: the socket is closed."""
        with self.lock:
            self._is_connected = False
            self._drop_values()
            for queue in self._queues:
                queue.end()
            self._queues.clear()

    def _receive(self, subscriber: MetricSubscriber, limit: int) -> int:
        """Take in up to ``limit`` messages; return their number."""
        before = self.counts.messages
        now = self._monotonic()
        for metric in subscriber.receive(limit):
            with self.lock:
                self._take(metric, now)
        return self.counts.messages - before

    def _take(self, metric: ReceivedMetric, now: float) -> None:
        topic, payload = metric.topic, metric.payload
        at = self._publish_times.on_own_clock(payload.get("publish_ts_ns"), now)
        self._heard_at = max(self._heard_at, at)
        if self._wanted is not None and topic not in self._wanted:
            return  # unsubscribed while the message was on its way
        if metric.is_repeat:
            self._values.setdefault(topic, _Value(payload, at))
            return
        self._values[topic] = _Value(payload, at)
        if topic.partition(".")[0] in MARKET_KINDS:
            self._source = payload.get("source")
        for queue in self._queues:
            self.dropped += queue.put(Metric(topic, payload))

    def _drop_values(self) -> None:
        """Without a connection no value is current."""
        with self.lock:
            self._values.clear()
            self._publish_times = PublishTimes()
            self._source = None

    def _forget(self, topics: AbstractSet[str]) -> None:
        for topic in topics:
            self._values.pop(topic, None)
