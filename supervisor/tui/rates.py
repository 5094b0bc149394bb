"""Message rate and processor use of every process, from successive statuses. Pure."""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

SPAN_S = 10.0
"""Length of the window over which rates are measured."""
MIN_SPAN_S = 1.5
"""Shortest window for which a rate is shown."""


class Sample(NamedTuple):
    """The totals of a process in one status; ``at`` in monotonic seconds."""

    at: float
    messages: int | None
    cpu_s: float | None


def messages_of(process: Mapping[str, Any]) -> int | None:
    """Market messages that a process has handled; None for roles that handle none."""
    counts = process["counts"]
    match process["role"]:
        case "connector" if "book_messages" in counts:
            return int(counts["trade_messages"]) + int(counts["book_messages"])
        case "simulator" if "frames" in counts:
            return int(sum(counts["frames"].values()))
        case "trades" | "orderbook" | "forwarder" if "messages" in counts:
            return int(counts["messages"])
    return None


class Rates:
    """Rates over the last ``SPAN_S`` by process; a restart begins a new window."""

    def __init__(self) -> None:
        self._samples: dict[str, tuple[Any, deque[Sample]]] = {}

    def take(self, status: Mapping[str, Any], now: float) -> None:
        """Add the totals of a status; ``now`` in monotonic seconds."""
        before, self._samples = self._samples, {}
        for process in status["processes"]:
            name, pid = process["process"], process["pid"]
            was_pid, samples = before.get(name, (pid, deque()))
            if pid != was_pid:
                samples = deque()
            samples.append(Sample(now, messages_of(process), process["cpu_seconds"]))
            while now - samples[0].at > SPAN_S:
                samples.popleft()
            self._samples[name] = (pid, samples)

    def messages(self, process: str) -> float | None:
        """Messages per second; None until known."""
        return self._slope(process, "messages")

    def cpu(self, process: str) -> float | None:
        """Processor use; 1.0 is one processor."""
        return self._slope(process, "cpu_s")

    def _slope(self, process: str, field: str) -> float | None:
        _, samples = self._samples.get(process, (None, ()))
        known = [(s.at, getattr(s, field)) for s in samples if getattr(s, field) is not None]
        if len(known) < 2 or known[-1][0] - known[0][0] < MIN_SPAN_S:
            return None
        (began, first), (ended, last) = known[0], known[-1]
        return None if last < first else float(last - first) / (ended - began)
