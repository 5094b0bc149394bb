"""
Scatter and gather: requests fanned out to every worker and answered together. Pure.

A request is complete when every worker has answered, or after ``GATHER_S``; the result then names
the workers that have not. Knows no sockets; time is passed in.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

GATHER_S = 2.0
"""Time limit for the answers of the workers, in seconds."""
OPEN_MAX = 100
"""Requests that wait for workers at a time; further ones are rejected."""


class GatheredGaps(NamedTuple):
    """The joined answers to one request."""

    receiver: bytes
    request_id: str | int
    gaps: list[dict[str, Any]]
    """The gaps of all workers that have answered, oldest first."""
    silent: list[str]
    """Workers that have not answered in time."""


class _OpenRequest:
    def __init__(
        self, receiver: bytes, request_id: str | int, workers: set[str], deadline: float
    ) -> None:
        self.receiver = receiver
        self.request_id = request_id
        self.waiting = workers
        self.deadline = deadline
        self.gaps: list[dict[str, Any]] = []

    def result(self) -> GatheredGaps:
        gaps = sorted(self.gaps, key=lambda gap: gap.get("start_ms") or 0)
        return GatheredGaps(self.receiver, self.request_id, gaps, sorted(self.waiting))


class Gather:
    """The open requests, by the number that the workers repeat in their answers."""

    def __init__(self) -> None:
        self._open: dict[int, _OpenRequest] = {}
        self._last = 0

    def start(
        self, receiver: bytes, request_id: str | int, workers: Iterable[str], now: float
    ) -> int | None:
        """Open a request to these workers; return its number, None if too many are open."""
        if len(self._open) >= OPEN_MAX:
            return None
        self._last += 1
        request = _OpenRequest(receiver, request_id, set(workers), now + GATHER_S)
        self._open[self._last] = request
        return self._last

    def add(self, number: object, worker: str, gaps: object) -> bool:
        """Add the answer of a worker; False if it was not asked or its answer is no list."""
        request = self._open.get(number) if isinstance(number, int) else None
        if request is None or worker not in request.waiting or not isinstance(gaps, list):
            return False
        request.waiting.discard(worker)
        request.gaps += [gap for gap in gaps if isinstance(gap, dict)]
        return True

    def due(self, now: float) -> list[GatheredGaps]:
        """The results that are complete or have timed out, each once."""
        done = [n for n, r in self._open.items() if not r.waiting or now >= r.deadline]
        return [self._open.pop(number).result() for number in done]
