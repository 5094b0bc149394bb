"""The record of one topic, of one request, and of an event of a topic. Pure."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from bybit_pipeline.processes.connector.protocol import Op
from bybit_pipeline.shared.wire.process_status import TopicState

EventKind = Literal["subscribed", "unsubscribed", "rejected", "unanswered", "silent", "reconnect"]


class Event(NamedTuple):
    """
    An event of a topic.

    - ``subscribed``: data of the topic can arrive from here on.
    - ``unsubscribed``: no data for a while; the reason is ``resync``. There is no event for a call
      of ``unsubscribe``.
    - ``rejected``: the reason is ``refused`` (by Bybit, with its text in ``detail``), ``no_ack``,
      ``no_data`` or ``full`` (no room on the connection).
    - ``unanswered``: a request got no ack in time and is sent again.
    - ``silent``: a confirmed book got no snapshot in time and is subscribed again.
    - ``reconnect``: this connection no longer serves the topic; a new connection may.
    """

    kind: EventKind
    topic: str
    reason: str = ""
    detail: str = ""


Phase = Literal[
    "queued", "subscribing", "confirmed", "delivering", "unsubscribing", "leaving", "rejected"
]

PUBLIC_STATE: dict[Phase, TopicState] = {
    "queued": "pending",
    "subscribing": "pending",
    "confirmed": "confirmed",
    "delivering": "delivering",
    "unsubscribing": "pending",
    "leaving": "pending",
    "rejected": "rejected",
}


@dataclass(slots=True)
class Topic:
    name: str
    is_book: bool
    phase: Phase = "queued"
    is_alone: bool = False
    """Sent in a request of its own, because Bybit may refuse it and the others with it."""
    is_announced: bool = False
    was_served: bool = False
    """Has delivered data since the last forced reconnect."""
    is_wanted_again: bool = False
    """Subscribed again while its unsubscribe request is under way."""
    unanswered: int = 0
    """Requests without an ack since the last success."""
    unserved: int = 0
    """Subscriptions without a snapshot since the last success."""
    deadline: float | None = None
    """When the snapshot is overdue."""
    resync_at: float | None = None
    """When the requested resync may start; None if none is requested."""
    resynced_at: float = float("-inf")
    """When the last resync started."""
    snapshot_at: float = float("-inf")
    """When the last snapshot arrived."""
    is_final: bool = False
    """Rejected because Bybit has no such topic."""
    rejections: int = 0
    """Rejections since the last success."""
    retry_at: float | None = None
    """When the rejected topic is asked for again; None if it is not."""
    reason: str = ""
    """Why it is rejected."""


@dataclass(slots=True)
class Request:
    op: Op
    topics: list[Topic]
    sent_at: float
    answered: set[str] = field(default_factory=set)

    def open_topics(self) -> list[Topic]:
        return [topic for topic in self.topics if topic.name not in self.answered]
