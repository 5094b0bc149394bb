"""
The subscriptions of one connector, topic by topic. Pure: time comes in, in monotonic seconds.

Decides which requests to send and when, what Bybit's acks and refusals mean, when a topic counts as
rejected, how one book is resynced without touching the other topics, and which data frames are
admitted. Must not know sockets, threads or the market bus.

The life of a topic on one connection:

    queued -> subscribing -> confirmed -> delivering
                  |              |            |  resync
                  v              v            v
              rejected       (silent)    unsubscribing -> queued -> …

Bybit refuses a whole request for one bad topic and names only the first bad one. After a refusal
the named topic is rejected and the others are sent again; if none is named, each one alone.

A rejected topic is asked for again after a while, with growing pauses: the failure may pass. Only a
topic that Bybit does not have stays rejected, until the next connection.

A second ``subscribe`` of a topic brings no snapshot. So a resync unsubscribes the topic, waits for
the ack and subscribes it again.

Usage: call an ``on_`` method, then send what ``take_requests`` returns and act on ``take_events``.
"""

from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import Literal, get_args

from bybit_pipeline.processes.connector.protocol import Ack, Op, request_text
from bybit_pipeline.processes.connector.topics.refusals import (
    is_already_subscribed,
    is_final,
    refused_topic,
    retry_delay_s,
)
from bybit_pipeline.processes.connector.topics.topic import (
    PUBLIC_STATE,
    Event,
    EventKind,
    Request,
    Topic,
)
from bybit_pipeline.shared.bybit import (
    TOPIC_CHARACTERS_MAX,
    TOPICS_PER_REQUEST_MAX,
    parse_exchange_topic,
    topic_characters,
)
from bybit_pipeline.shared.wire.process_status import TopicState

TOPIC_STATES: tuple[TopicState, ...] = get_args(TopicState)

Admission = Literal["pass", "unexpected", "unknown"]
RejectReason = Literal["refused", "no_ack", "no_data", "full"]

MAX_TRIES = 3
"""Requests without an ack, or subscriptions without a snapshot, before a topic is rejected."""
RESYNC_INTERVAL_S = 1.0
"""Shortest time between two resyncs of a topic; requests in between are merged into the next."""
RESYNC_SETTLE_S = 0.5
"""A resync requested this soon after a snapshot is ignored: the snapshot answers it."""
RETRY_REJECTED_S = 60.0
"""Shortest time after which a resync request subscribes a rejected topic again."""
TEXT_MAX = 200
"""Characters of Bybit's text that are kept as the reason of a rejection."""


class Subscriptions:
    """
    The subscriptions of one connector, over all its connections.

    Args:
        ack_timeout_s: Longest time to an ack, and from there to the snapshot of a book.
    """

    def __init__(self, *, ack_timeout_s: float) -> None:
        self.flowing: set[str] = set()
        """
        Topics whose data is admitted without asking ``on_data``. The socket thread reads this set
        without a lock.
        """
        self.unexpected = 0
        """Data frames dropped because their topic waits for a snapshot or was unsubscribed."""
        self.unanswered = 0
        """Requests without an ack in time."""
        self.unmatched = 0
        """Acks that match no pending request."""
        self._ack_timeout_s = ack_timeout_s
        self._topics: dict[str, Topic] = {}
        self._pending: dict[str, Request] = {}
        self._ids = count(1)
        self._is_connected = False
        self._requests: deque[str] = deque()
        self._events: deque[Event] = deque()

    # -- commands --------------------------------------------------------------------------------

    def subscribe(self, topics: Iterable[str], now: float) -> None:
        """
        Subscribe these topics, now and on later connections.

        Raises:
            ValueError: If one is not a topic of trades or books.
        """
        for name in topics:
            topic = self._topics.get(name)
            if topic is None:
                is_book = parse_exchange_topic(name).kind == "book"
                self._topics[name] = Topic(name, is_book)
            elif topic.phase == "rejected":
                self._queue(topic, is_alone=True)
            elif topic.phase == "leaving":
                topic.is_wanted_again = True
        self._send_queued(now)

    def unsubscribe(self, topics: Iterable[str], now: float) -> None:
        """Unsubscribe these topics; unknown ones are ignored."""
        leaving = []
        for name in topics:
            topic = self._topics.get(name)
            if topic is None:
                continue
            topic.is_wanted_again = False
            if topic.phase == "leaving":
                continue
            self.flowing.discard(name)
            if self._is_connected and self._may_be_served(topic):
                topic.phase = "leaving"
                leaving.append(topic)
            else:
                del self._topics[name]
        self._send("unsubscribe", leaving, now)

    def resync(self, name: str, now: float) -> bool:
        """
        Request a new snapshot of one book; False if the topic is not subscribed.

        The next ``on_time`` sends all requested resyncs together. A request while a resync is under
        way, or within ``RESYNC_SETTLE_S`` after its snapshot, changes nothing. Two resyncs of a
        topic are at least ``RESYNC_INTERVAL_S`` apart. A rejected topic is subscribed again, but
        not more often than every ``RETRY_REJECTED_S``. Trades have no snapshot: nothing happens.
        """
        topic = self._topics.get(name)
        if topic is None:
            return False
        if topic.is_book and topic.phase == "delivering" and topic.resync_at is None:
            if now - topic.snapshot_at < RESYNC_SETTLE_S:
                return True
            topic.resync_at = max(now, topic.resynced_at + RESYNC_INTERVAL_S)
        elif topic.phase == "rejected" and now - topic.resynced_at >= RETRY_REJECTED_S:
            topic.resynced_at = now
            topic.unserved = topic.unanswered = 0
            self._queue(topic, is_alone=True)
        return True

    # -- input -----------------------------------------------------------------------------------

    def on_connected(self, now: float) -> None:
        """Subscribe everything; topics that Bybit does not have go in requests of their own."""
        self._is_connected = True
        for topic in self._topics.values():
            self._queue(topic, is_alone=topic.phase == "rejected" and topic.is_final)
        self._send_queued(now)

    def on_disconnected(self) -> None:
        """Forget all pending requests; ``on_connected`` sends new ones."""
        self._is_connected = False
        self._pending.clear()
        self._requests.clear()
        self.flowing.clear()
        for topic in list(self._topics.values()):
            if topic.phase == "leaving" and not topic.is_wanted_again:
                del self._topics[topic.name]
            elif topic.phase != "rejected":
                self._queue(topic, is_alone=False)
            topic.is_wanted_again = topic.is_announced = False
            topic.unanswered = topic.unserved = topic.rejections = 0

    def on_ack(self, ack: Ack, now: float) -> None:
        """Act on an ack or a refusal, of any category."""
        if ack.succeeded or ack.failed:
            self._on_topics_ack(ack, now)
        else:
            self._on_request_ack(ack, now)
        self._send_queued(now)

    def on_data(self, name: str, is_snapshot: bool, now: float) -> Admission:
        """
        Decide about a data frame of a topic that is not in ``flowing``.

        ``pass``: hand it on. ``unexpected``: drop it, as its topic waits for a snapshot or was
        unsubscribed; a worker would take it for the continuation of something. ``unknown``: the
        topic was never subscribed.
        """
        topic = self._topics.get(name)
        if topic is None:
            return "unknown"
        is_expected = topic.phase in ("subscribing", "confirmed", "delivering", "rejected")
        if not is_expected or (topic.is_book and not is_snapshot):
            self.unexpected += 1
            return "unexpected"
        self._deliver(topic, now)
        return "pass"

    def on_time(self, now: float) -> None:
        """Act on everything that is due or overdue; call it several times a second."""
        if not self._is_connected:
            return
        for req_id, request in list(self._pending.items()):
            if now - request.sent_at >= self._ack_timeout_s:
                del self._pending[req_id]
                self._on_unanswered(request, now)
        for topic in list(self._topics.values()):
            if topic.deadline is not None and topic.deadline <= now:
                self._on_unserved(topic, now)
            elif topic.retry_at is not None and topic.retry_at <= now:
                topic.unserved = topic.unanswered = 0
                self._queue(topic, is_alone=True)
        self._start_resyncs(now)
        self._send_queued(now)

    # -- output ----------------------------------------------------------------------------------

    def take_requests(self) -> list[str]:
        """The requests to send, in this order."""
        requests = list(self._requests)
        self._requests.clear()
        return requests

    def take_events(self) -> list[Event]:
        """The events since the last call, in order."""
        events = list(self._events)
        self._events.clear()
        return events

    def states(self) -> dict[str, TopicState]:
        """The state of every subscribed topic."""
        return {
            name: PUBLIC_STATE[topic.phase]
            for name, topic in self._topics.items()
            if topic.phase != "leaving" or topic.is_wanted_again
        }

    def rejected(self) -> dict[str, str]:
        """The rejected topics, each with its reason."""
        return {
            name: topic.reason for name, topic in self._topics.items() if topic.phase == "rejected"
        }

    def refused(self) -> list[str]:
        """The rejected topics that Bybit does not have; all others are asked for again."""
        return [
            name
            for name, topic in self._topics.items()
            if topic.phase == "rejected" and topic.is_final
        ]

    # -- acks ------------------------------------------------------------------------------------

    def _on_request_ack(self, ack: Ack, now: float) -> None:
        """One ack for a whole request: spot, linear and inverse."""
        req_id = ack.req_id or self._oldest(ack.op)
        request = self._pending.pop(req_id, None)
        if request is None:
            self.unmatched += 1
            return
        topics = request.open_topics()
        if ack.success or request.op == "unsubscribe":
            # Bybit refuses an unsubscribe only if the topic is not subscribed.
            for topic in topics:
                self._on_granted(topic, request.op, now)
            return
        named = refused_topic(ack.text)
        offender = next((topic for topic in topics if topic.name == named), None)
        if offender is None and len(topics) == 1:
            offender = topics[0]
        for topic in topics:
            if topic is offender:
                self._on_refused(topic, ack.text, now)
            elif topic.phase == "subscribing":
                topic.unanswered = 0
                self._queue(topic, is_alone=offender is None)

    def _on_topics_ack(self, ack: Ack, now: float) -> None:
        """An ack on options names topics, not the request: take each topic's oldest request."""
        for name, is_granted in (
            *((name, True) for name in ack.succeeded),
            *((name, False) for name in ack.failed),
        ):
            request = self._oldest_with(name)
            if request is None:
                self.unmatched += 1
                continue
            request.answered.add(name)
            topic = next(topic for topic in request.topics if topic.name == name)
            if is_granted or request.op == "unsubscribe":
                self._on_granted(topic, request.op, now)
            else:
                self._on_refused(topic, ack.text or "in failTopics", now)
        for req_id, request in list(self._pending.items()):
            if not request.open_topics():
                del self._pending[req_id]

    def _on_granted(self, topic: Topic, op: Op, now: float) -> None:
        if op == "unsubscribe":
            self._on_unsubscribed(topic)
        elif topic.phase == "subscribing":
            topic.phase = "confirmed"
            topic.unanswered = 0
            topic.deadline = now + self._ack_timeout_s if topic.is_book else None
            if not topic.is_book:
                topic.rejections = 0
            self._announce(topic)

    def _on_refused(self, topic: Topic, text: str, now: float) -> None:
        if is_already_subscribed(text):
            self._on_granted(topic, "subscribe", now)
        elif topic.phase != "leaving":
            self._reject(topic, "refused", text, now)

    def _on_unsubscribed(self, topic: Topic) -> None:
        self.flowing.discard(topic.name)
        if topic.phase == "unsubscribing":
            self._emit("unsubscribed", topic, "resync")
            topic.is_announced = False
            self._queue(topic, is_alone=topic.is_alone)
        elif topic.phase == "leaving" and topic.is_wanted_again:
            self._topics[topic.name] = Topic(topic.name, topic.is_book)
        elif topic.phase == "leaving":
            self._topics.pop(topic.name, None)

    # -- time ------------------------------------------------------------------------------------

    def _on_unanswered(self, request: Request, now: float) -> None:
        self.unanswered += 1
        for topic in request.open_topics():
            if request.op == "unsubscribe":
                # The unsubscribe may have worked: the subscribe that follows will show.
                self._on_unsubscribed(topic)
            elif topic.phase == "subscribing":
                topic.unanswered += 1
                if topic.unanswered >= MAX_TRIES:
                    self._reject(topic, "no_ack", f"no ack after {MAX_TRIES} requests", now)
                else:
                    self._emit("unanswered", topic)
                    self._queue(topic, is_alone=topic.is_alone)

    def _on_unserved(self, topic: Topic, now: float) -> None:
        """A confirmed book got no snapshot: subscribe again, later reconnect or reject it."""
        topic.deadline = None
        topic.unserved += 1
        if topic.unserved < MAX_TRIES:
            self._emit("silent", topic)
            topic.phase = "delivering"
            topic.resync_at = now
        elif topic.was_served:
            topic.was_served = False
            self._emit("reconnect", topic, "resync")
        else:
            self._reject(topic, "no_data", "confirmed without a snapshot", now)

    def _start_resyncs(self, now: float) -> None:
        due = [
            topic
            for topic in self._topics.values()
            if topic.phase == "delivering"
            and topic.resync_at is not None
            and topic.resync_at <= now
        ]
        for topic in due:
            topic.phase = "unsubscribing"
            topic.resync_at = None
            topic.resynced_at = now
        self._send("unsubscribe", due, now)

    # -- steps -----------------------------------------------------------------------------------

    def _deliver(self, topic: Topic, now: float) -> None:
        topic.phase = "delivering"
        topic.was_served = True
        topic.is_alone = False
        topic.unanswered = topic.unserved = topic.rejections = 0
        topic.deadline = topic.retry_at = None
        topic.snapshot_at = now
        topic.reason = ""
        self.flowing.add(topic.name)
        self._announce(topic)

    def _reject(self, topic: Topic, reason: RejectReason, text: str, now: float) -> None:
        topic.phase = "rejected"
        topic.is_final = reason == "refused" and is_final(text)
        topic.rejections += 1
        is_retried = not topic.is_final and reason != "full"
        topic.retry_at = now + retry_delay_s(topic.rejections) if is_retried else None
        topic.reason = text[:TEXT_MAX] or reason
        topic.deadline = topic.resync_at = None
        topic.is_announced = False
        self.flowing.discard(topic.name)
        self._emit("rejected", topic, reason, topic.reason)

    def _announce(self, topic: Topic) -> None:
        if not topic.is_announced:
            topic.is_announced = True
            self._emit("subscribed", topic)

    def _emit(self, kind: EventKind, topic: Topic, reason: str = "", detail: str = "") -> None:
        self._events.append(Event(kind, topic.name, reason, detail))

    def _queue(self, topic: Topic, *, is_alone: bool) -> None:
        topic.phase = "queued"
        topic.is_alone = is_alone
        topic.deadline = topic.resync_at = topic.retry_at = None
        topic.reason = ""

    def _may_be_served(self, topic: Topic) -> bool:
        return topic.phase not in ("queued", "rejected")

    def _send_queued(self, now: float) -> None:
        """Send every queued topic for which this connection has room; reject the others."""
        if not self._is_connected:
            return
        queued = [topic for topic in self._topics.values() if topic.phase == "queued"]
        room = TOPIC_CHARACTERS_MAX - topic_characters(
            topic.name for topic in self._topics.values() if self._may_be_served(topic)
        )
        fitting = []
        for topic in queued:
            room -= topic_characters([topic.name])
            if room < 0:
                self._reject(topic, "full", f"topics exceed {TOPIC_CHARACTERS_MAX} characters", now)
            else:
                topic.phase = "subscribing"
                fitting.append(topic)
        self._send("subscribe", [topic for topic in fitting if not topic.is_alone], now)
        for topic in fitting:
            if topic.is_alone:
                self._send("subscribe", [topic], now)

    def _send(self, op: Op, topics: list[Topic], now: float) -> None:
        for start in range(0, len(topics), TOPICS_PER_REQUEST_MAX):
            batch = topics[start : start + TOPICS_PER_REQUEST_MAX]
            req_id = str(next(self._ids))
            self._pending[req_id] = Request(op, batch, now)
            self._requests.append(request_text(op, req_id, [topic.name for topic in batch]))

    def _oldest(self, op: Op | None) -> str:
        """Id of the oldest request with this op, or empty: acks of spot may have no id."""
        matching = (id_ for id_, request in self._pending.items() if op in (None, request.op))
        return next(matching, "")

    def _oldest_with(self, name: str) -> Request | None:
        for request in self._pending.values():
            if any(topic.name == name for topic in request.open_topics()):
                return request
        return None
