"""
Last will: the messages that the supervisor publishes on behalf of a worker that died. Pure.

The forwarder sends the last message of every topic to late subscribers, and the last message of a
dead worker may still say ``live``. So the supervisor publishes on the same topics that nothing is
known (state ``stale``, reason ``process_down``). It repeats this until the worker runs again,
because messages of the worker may still be on their way and the forwarder may restart.
"""

from collections import Counter
from collections.abc import Collection, Iterator

from bybit_pipeline.shared.wire.last_will import WillHeader, orderbook_will, trades_will
from bybit_pipeline.shared.wire.metrics import Metric
from bybit_pipeline.shared.wire.topics import metric_topic
from bybit_pipeline.shared.wire.trades import unobserved_window
from bybit_pipeline.supervisor.plan.plan import Plan

FIRST_REPEAT_S = 0.3
"""
Delay of the first repetition, in seconds: longer than the last messages of the worker need to
arrive, shorter than the shortest delay of a restart.
"""
REPEAT_S = 1.0
"""Interval of all later repetitions, in seconds."""


class _Absence:
    """One period in which a worker does not run."""

    def __init__(self, epoch: str, now: float) -> None:
        self.epoch = epoch
        self.due = now
        self.is_published = False
        self.sequences: Counter[bytes] = Counter()


class LastWill:
    """
    The workers that are down, and the messages published for them so far.

    Args:
        epoch_base: Part of every epoch, different for every supervisor.
    """

    def __init__(self, epoch_base: str) -> None:
        self._base = epoch_base
        self._absences: dict[str, _Absence] = {}
        self._count = 0

    def repeat(self) -> None:
        """Publish everything again with the next ``due``, for a restarted forwarder."""
        for absence in self._absences.values():
            absence.due = float("-inf")

    def due(self, plan: Plan, down: Collection[str], now: float, now_ns: int) -> Iterator[Metric]:
        """
        Yield the metrics to publish now.

        Args:
            plan: Which worker has which market.
            down: The workers that were started before and do not run now.
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
                absence.due = now + (REPEAT_S if absence.is_published else FIRST_REPEAT_S)
                absence.is_published = True
                yield from _metrics(plan, name, absence, now_ns)


def _metrics(plan: Plan, worker: str, absence: _Absence, now_ns: int) -> Iterator[Metric]:
    settings = plan.config.trades
    window = unobserved_window(quantiles=settings.quantiles, with_volatility=settings.volatility)
    for stream in plan.own_streams(worker):
        kind = "trades" if stream.kind == "trade" else "orderbook"
        topic = metric_topic(kind, stream.category, stream.symbol)
        absence.sequences[topic] += 1
        header: WillHeader = {
            "category": stream.category,
            "symbol": stream.symbol,
            "source": plan.source,
            "process": worker,
            "epoch": absence.epoch,
            "seq": absence.sequences[topic],
            "publish_ts_ns": now_ns,
            "reason": "process_down",
        }
        windows = dict.fromkeys(settings.windows, window)
        is_trades = kind == "trades"
        record = trades_will(windows, **header) if is_trades else orderbook_will(**header)
        yield Metric(topic, record)
