"""
Repeats and missed messages, derived from ``epoch`` and ``seq``. Pure.

A publisher numbers the messages of each topic: ``seq`` grows by one per message of an ``epoch``.
The forwarder sends last values again, to all subscribers, whenever somebody subscribes. So:

- a ``seq`` that is not above the last one of its epoch is a repeat;
- a ``seq`` more than one above it follows missed messages;
- the first message of an epoch is neither, whatever its ``seq``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

EPOCHS_KEPT = 4
"""
Epochs remembered per topic.

A topic with two publishers (``gap``) has two current epochs, and each is numbered on its own.
"""


class Arrival(NamedTuple):
    """How a message relates to the earlier ones of its topic and epoch."""

    is_repeat: bool
    missed: int
    """Messages missed just before this one."""


NEW = Arrival(is_repeat=False, missed=0)
REPEAT = Arrival(is_repeat=True, missed=0)


class SequenceTracker:
    """The last ``seq`` of every topic and epoch."""

    def __init__(self) -> None:
        self._last: dict[str, dict[str, int]] = {}

    def classify(self, topic: str, epoch: Any, seq: Any) -> Arrival:
        """Classify a message and remember its number. A message without numbers is always new."""
        if not isinstance(epoch, str) or not isinstance(seq, int):
            return NEW
        epochs = self._last.setdefault(topic, {})
        last = epochs.pop(epoch, None)
        if last is None:
            if len(epochs) == EPOCHS_KEPT:
                del epochs[next(iter(epochs))]
            epochs[epoch] = seq
            return NEW
        epochs[epoch] = max(seq, last)  # now the most recent of the epochs
        if seq <= last:
            return REPEAT
        return NEW if seq == last + 1 else Arrival(is_repeat=False, missed=seq - last - 1)

    def forget(self, is_forgotten: Callable[[str], bool]) -> None:
        """Forget the topics for which ``is_forgotten`` is true."""
        for topic in [topic for topic in self._last if is_forgotten(topic)]:
            del self._last[topic]
