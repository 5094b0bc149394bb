"""
Questions of a command line that only the workers can answer: asked of all, answered in one.

Decides when a question is answered: when every worker that was asked has spoken, or after
``PATIENCE_S``, and then it says who has not. Knows no sockets; time comes in.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

PATIENCE_S = 2.0
OPEN_MAX = 100
"""Questions that wait for answers at a time; further ones are refused."""


class Answer(NamedTuple):
    """What goes back to who asked."""

    receiver: bytes
    request_id: str | int
    gaps: list[dict[str, Any]]
    silent: list[str]
    """Workers that did not answer in time."""


class _Question:
    def __init__(self, receiver: bytes, request_id: str | int, asked: set[str], due: float) -> None:
        self.receiver = receiver
        self.request_id = request_id
        self.waiting = asked
        self.due = due
        self.gaps: list[dict[str, Any]] = []

    def answer(self) -> Answer:
        gaps = sorted(self.gaps, key=lambda gap: gap.get("start_ms") or 0)
        return Answer(self.receiver, self.request_id, gaps, sorted(self.waiting))


class Gather:
    """The questions that are open, by a number that the workers repeat."""

    def __init__(self) -> None:
        self._open: dict[int, _Question] = {}
        self._last = 0

    def ask(
        self, receiver: bytes, request_id: str | int, workers: Iterable[str], now: float
    ) -> int | None:
        """Open a question to these workers; its number, or None if too many are open."""
        if len(self._open) >= OPEN_MAX:
            return None
        self._last += 1
        self._open[self._last] = _Question(receiver, request_id, set(workers), now + PATIENCE_S)
        return self._last

    def take(self, number: object, worker: str, gaps: object) -> bool:
        """What one worker says; False if nobody asked it, or it is no list of maps."""
        question = self._open.get(number) if isinstance(number, int) else None
        if question is None or worker not in question.waiting or not isinstance(gaps, list):
            return False
        question.waiting.discard(worker)
        question.gaps += [gap for gap in gaps if isinstance(gap, dict)]
        return True

    def due(self, now: float) -> list[Answer]:
        """The answers that are complete, or have waited long enough; each is given once."""
        done = [n for n, q in self._open.items() if not q.waiting or now >= q.due]
        return [self._open.pop(number).answer() for number in done]
