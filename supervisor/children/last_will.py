"""
What subscribers are told about the markets of a worker that is gone. Pure.

The forwarder keeps the last message of every topic for who comes late, and the last one of a
worker that died says ``live``. So the supervisor publishes on the same topics that nothing is
known (``stale``, ``process_down``), at once and again and again until a successor is on its way:
what the worker had sent may still be under way, and a forwarder may have been restarted.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from bybit_pipeline.shared.settings.specs import Stream
from bybit_pipeline.shared.wire.shapes import no_book, no_trades, stale_head
from bybit_pipeline.shared.wire.topics import metric_topic
from bybit_pipeline.supervisor.plan.names import role_of
from bybit_pipeline.supervisor.plan.plan import Plan

REASON = "process_down"
SECOND_S = 0.3
"""
When it is said for the second time: after what the worker had sent has arrived, and before the
shortest delay of a restart.
"""
AGAIN_S = 1.0

KINDS = {"trade": "trades", "book": "orderbook"}


class Metric(NamedTuple):
    """One message for the metrics socket."""

    topic: bytes
    payload: dict[str, Any]


class _Absence:
    """One worker's time away."""

    def __init__(self, epoch: str, now: float) -> None:
        self.epoch = epoch
        self.due = now
        self.is_told = False
        self.sequences: Counter[bytes] = Counter()


class LastWill:
    """
    Remembers who is gone and what has been said about it.

    Args:
        epoch_base: Makes the epochs of this supervisor different from everybody's.
    """

    def __init__(self, epoch_base: str) -> None:
        self._base = epoch_base
        self._absences: dict[str, _Absence] = {}
        self._count = 0

    def repeat(self) -> None:
        """Say everything once more with the next ``due``: the forwarder has forgotten it."""
        for absence in self._absences.values():
            absence.due = float("-inf")

    def due(self, plan: Plan, down: Collection[str], now: float, now_ns: int) -> Iterator[Metric]:
        """
        What has to be said now.

        Args:
            plan: Who has which market.
            down: The workers that were started once and do not run now.
            now: Monotonic clock, in seconds.
            now_ns: Wall clock.
        """
        for name in [name for name in self._absences if name not in down]:
            del self._absences[name]
        for name in down:
            if name not in self._absences:
                self._count += 1
                epoch = f"{name}-down-{self._base}-{self._count}"
                self._absences[name] = _Absence(epoch, now)
            absence = self._absences[name]
            if absence.due <= now:
                absence.due = now + (AGAIN_S if absence.is_told else SECOND_S)
                absence.is_told = True
                yield from _messages(plan, name, absence, now_ns)


def own_streams(plan: Plan, worker: str) -> Iterator[Stream]:
    """The streams that a worker publishes metrics of, not those that it only reads."""
    kind = "trade" if role_of(worker) == "trades" else "book"
    for assignment in plan.assignments_of(worker):
        if assignment.stream.kind == kind:
            yield assignment.stream


def _messages(plan: Plan, worker: str, absence: _Absence, now_ns: int) -> Iterator[Metric]:
    settings = plan.config.trades
    for stream in own_streams(plan, worker):
        kind = KINDS[stream.kind]
        topic = metric_topic(kind, stream.category, stream.symbol)
        absence.sequences[topic] += 1
        head = stale_head(
            kind,
            stream.category,
            stream.symbol,
            source=plan.source,
            process=worker,
            epoch=absence.epoch,
            seq=absence.sequences[topic],
            publish_ts_ns=now_ns,
        )
        fields = (
            no_book(REASON)
            if kind == "orderbook"
            else no_trades(
                REASON,
                windows=settings.windows,
                quantiles=settings.quantiles,
                with_volatility=settings.volatility,
            )
        )
        yield Metric(topic, head | fields)
