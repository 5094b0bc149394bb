"""
The last message of every topic, in bounded memory, and what counts as a message at all.

Decides what is remembered and what is refused. Payloads stay bytes: the forwarder decodes none.
"""

import re
from typing import NamedTuple

MAX_TOPICS = 100_000
MAX_TOPIC_BYTES = 256
MAX_PAYLOAD_BYTES = 1024 * 1024
"""Some twenty times the largest metric, a book of 1,000 published levels a side."""

_TOPIC = re.compile(rb"[a-z]+\.[!-~]+")


class Message(NamedTuple):
    """A metric as it travels: topic and msgpack map."""

    topic: bytes
    payload: bytes


def parse_message(topic: bytes, payload: bytes) -> Message | None:
    """
    A metric, or None for anything else; costs under a microsecond.

    A topic is ``kind.name`` in printable ASCII; a payload begins like a msgpack map, or is empty,
    which retires the topic.
    """
    if len(topic) > MAX_TOPIC_BYTES or not _TOPIC.fullmatch(topic):
        return None
    if len(payload) > MAX_PAYLOAD_BYTES or (payload and not _begins_like_map(payload[0])):
        return None
    return Message(topic, payload)


def _begins_like_map(byte: int) -> bool:
    """Msgpack's fixmap, map 16 and map 32."""
    return 0x80 <= byte <= 0x8F or byte in (0xDE, 0xDF)


class LastValueCache:
    """
    The last message of each topic, at most ``max_topics``.

    ``refused`` counts the messages of further topics, which are not remembered.
    """

    def __init__(self, max_topics: int = MAX_TOPICS) -> None:
        self.refused = 0
        self._max_topics = max_topics
        self._payloads: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        """Number of topics."""
        return len(self._payloads)

    def remember(self, message: Message) -> None:
        """Keep a message as the last of its topic."""
        if message.topic in self._payloads or len(self._payloads) < self._max_topics:
            self._payloads[message.topic] = message.payload
        else:
            self.refused += 1

    def forget(self, topic: bytes) -> None:
        """Drop a topic that is published no longer."""
        self._payloads.pop(topic, None)

    def matching(self, prefix: bytes) -> list[Message]:
        """What a subscription to ``prefix`` covers, in the order in which topics first came."""
        return [
            Message(topic, payload)
            for topic, payload in self._payloads.items()
            if topic.startswith(prefix)
        ]
