"""
Streams that a command has asked for, until the exchange has answered. Pure.

A symbol of the configuration that the exchange refuses is a mistake that stays until somebody
corrects it: it is named, and the pipeline is not ready. One that a running pipeline is asked for is
refused to whoever asked, and leaves again. Only the exchange's own word counts: who got no answer,
or lost it with the connection, stays, and is asked for again.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bybit_pipeline.shared.settings.specs import Stream
from bybit_pipeline.supervisor.plan.names import exchange_topic
from bybit_pipeline.supervisor.plan.plan import Plan

ACCEPTED = ("confirmed", "delivering")
REFUSALS_MAX = 1_000
"""Refusals that are remembered for who asks; the oldest go first."""


class Answer(NamedTuple):
    """What is known of a topic: its state, and why it is rejected."""

    state: str
    reason: str = ""


class PendingSubscriptions:
    """The streams that are on trial, and the last ones that were refused; all by bus topic."""

    def __init__(self) -> None:
        self._open: dict[str, Stream] = {}
        self._refused: dict[str, Answer] = {}
        self._answers: dict[str, Answer] = {}
        """Of those that are open, as far as any has come."""

    def start(self, streams: Iterable[Stream]) -> None:
        """Put streams on trial that were not asked for by name before."""
        for stream in streams:
            self._open[stream.topic] = stream
            self._answers[stream.topic] = Answer("pending")
            self._refused.pop(stream.topic, None)

    def take(self, plan: Plan, connector: str, status: Mapping[str, Any]) -> list[Stream]:
        """
        Take in what a connector's heartbeat says; the streams that the exchange refuses.

        Each is given once, and is not on trial any longer; nor is one that the exchange accepts,
        or that nobody asks for by name any longer.
        """
        if not self._open:
            return []
        named = set(plan.universe.named)
        for stream in [stream for stream in self._open.values() if stream not in named]:
            self._end(stream)
        states, reasons = status.get("topics", {}), status.get("rejected", {})
        refused = []
        for stream in [s for s in plan.streams_of(connector) if self._open.get(s.topic) == s]:
            topic = exchange_topic(stream)
            answer = Answer(states.get(topic, "pending"), reasons.get(topic, ""))
            self._answers[stream.topic] = answer
            if topic in status.get("refused_topics", ()):
                refused.append(stream)
                self._end(stream)
                self._remember(stream.topic, answer)
            elif answer.state in ACCEPTED:
                self._end(stream)
        return refused

    def answer(self, topic: str) -> Answer | None:
        """What is known of a bus topic that is on trial or was refused; None of all others."""
        return self._answers.get(topic) or self._refused.get(topic)

    def _end(self, stream: Stream) -> None:
        del self._open[stream.topic], self._answers[stream.topic]

    def _remember(self, topic: str, answer: Answer) -> None:
        self._refused[topic] = answer
        if len(self._refused) > REFUSALS_MAX:
            del self._refused[next(iter(self._refused))]
