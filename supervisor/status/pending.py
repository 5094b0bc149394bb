"""
Pending subscriptions: streams that were subscribed at runtime, until the exchange answers. Pure.

A configured symbol that the exchange rejects is a mistake in the configuration: it stays, and the
pipeline is not ready until somebody corrects it. A symbol that was subscribed at runtime is removed
again. Only an explicit rejection by the exchange removes it; an unanswered subscription is retried.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bybit_pipeline.shared.settings.specs import Stream
from bybit_pipeline.supervisor.plan.names import exchange_topic
from bybit_pipeline.supervisor.plan.plan import Plan

ACCEPTED = ("confirmed", "delivering")
REJECTIONS_MAX = 1_000
"""Rejections that are remembered; the oldest is forgotten first."""


class TopicState(NamedTuple):
    """State of a topic, as in the status, and the exchange's reason if it is rejected."""

    state: str
    reason: str = ""


class PendingSubscriptions:
    """The pending streams, and the last rejected ones, by bus topic."""

    def __init__(self, *, rejections_max: int = REJECTIONS_MAX) -> None:
        self._rejections_max = rejections_max
        self._streams: dict[str, Stream] = {}
        self._states: dict[str, TopicState] = {}
        """Last known state of every pending stream."""
        self._rejections: dict[str, TopicState] = {}

    def start(self, streams: Iterable[Stream]) -> None:
        """Add streams that were not subscribed by name before."""
        for stream in streams:
            self._streams[stream.topic] = stream
            self._states[stream.topic] = TopicState("pending")
            self._rejections.pop(stream.topic, None)

    def update(self, plan: Plan, connector: str, status: Mapping[str, Any]) -> list[Stream]:
        """
        Take the status in a connector's heartbeat; return the newly rejected streams.

        A stream is no longer pending once it is rejected, accepted or unsubscribed.
        """
        if not self._streams:
            return []
        named = set(plan.universe.named)
        for stream in [stream for stream in self._streams.values() if stream not in named]:
            self._end(stream)
        states, reasons = status.get("topics", {}), status.get("rejected", {})
        rejected = []
        for stream in [s for s in plan.streams_of(connector) if self._streams.get(s.topic) == s]:
            topic = exchange_topic(stream)
            state = TopicState(states.get(topic, "pending"), reasons.get(topic, ""))
            self._states[stream.topic] = state
            if topic in status.get("refused_topics", ()):
                rejected.append(stream)
                self._end(stream)
                self._remember(stream.topic, state)
            elif state.state in ACCEPTED:
                self._end(stream)
        return rejected

    def state_of(self, topic: str) -> TopicState | None:
        """State of a bus topic that is pending or was rejected; None for all others."""
        return self._states.get(topic) or self._rejections.get(topic)

    def _end(self, stream: Stream) -> None:
        del self._streams[stream.topic], self._states[stream.topic]

    def _remember(self, topic: str, state: TopicState) -> None:
        self._rejections[topic] = state
        if len(self._rejections) > self._rejections_max:
            del self._rejections[next(iter(self._rejections))]
