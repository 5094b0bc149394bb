"""
Last-value cache: the last message of every topic, in bounded memory.

Decides what counts as a metric, and which messages are kept. Payloads stay bytes and are never
decoded.
"""

import re
from typing import NamedTuple

MAX_TOPICS = 100_000
MAX_TOPIC_BYTES = 256
MAX_PAYLOAD_BYTES = 1024 * 1024
"""About 20 times the largest metric, a book with 1,000 published levels per side."""

_TOPIC = re.compile(rb"[a-z]+\.[!-~]+")


class Message(NamedTuple):
    """A metric as it travels: topic and msgpack map."""

    topic: bytes
    payload: bytes


def parse_message(topic: bytes, payload: bytes) -> Message | None:
    """
    Return a metric, or None for anything else.

    A topic is ``kind.name`` in printable ASCII. A payload starts like a msgpack map, or is empty,
    which removes the topic from the cache.
    """
    if len(topic) > MAX_TOPIC_BYTES or not _TOPIC.fullmatch(topic):
        return None
    if len(payload) > MAX_PAYLOAD_BYTES or (payload and not _starts_map(payload[0])):
        return None
    return Message(topic, payload)


def _starts_map(byte: int) -> bool:
    """Return True for the first byte of a msgpack fixmap, map 16 or map 32."""
    return 0x80 <= byte <= 0x8F or byte in (0xDE, 0xDF)


class LastValueCache:
    """
    The last message of each topic.

    Args:
        max_topics: Upper limit of the topics; messages of further topics are not kept.

    Attributes:
        refused: Number of messages that were not kept.
    """

    def __init__(self, max_topics: int = MAX_TOPICS) -> None:
        self.refused = 0
        self._max_topics = max_topics
        self._payloads: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        """Number of topics."""
        return len(self._payloads)

    def remember(self, message: Message) -> None:
        """Keep a message as the last one of its topic."""
        if message.topic in self._payloads or len(self._payloads) < self._max_topics:
            self._payloads[message.topic] = message.payload
        else:
            self.refused += 1

    def forget(self, topic: bytes) -> None:
        """Drop a topic that is no longer published."""
        self._payloads.pop(topic, None)

    def matching(self, prefix: bytes) -> list[Message]:
        """Return the messages whose topic starts with ``prefix``, oldest topic first."""
        return [
            Message(topic, payload)
            for topic, payload in self._payloads.items()
            if topic.startswith(prefix)
        ]
