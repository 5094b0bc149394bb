"""
Counters for Prometheus that cost the hot path one attribute update.

``prometheus_client`` takes a lock for every increment. Here a counter is a plain ``Cell`` that its
owner updates, and a collector reads the cells during a scrape; one exporter per process. Names are
given without the prefix ``bybit_pipeline_``; docs/reference/prometheus.md lists them.

Scrapes run on the exporter's thread. A cell is one number, read in one step; the callback of a
gauge family must return a copy (``list(mapping.items())`` is one step too).
"""

import errno
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from bybit_pipeline.shared.runtime.webserver import BoundedServer, ReadOnlyHandler

PREFIX = "bybit_pipeline_"

LATENCY_BUCKETS_S = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.15,
    0.25,
    0.3,
    0.5,
    1.0,
    2.5,
    5.0,
)

Labels = dict[str, str]
Samples = Iterable[tuple[tuple[str, ...], float]]


class Cell:
    """The number of a counter or gauge; its owner writes ``value``."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Histogram:
    """Counts of observations by upper bound, in the unit of the name."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Count many observations, faster than one by one."""
        bounds, counts = self.bounds, self.counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.total += sum(values)

    def cumulative(self) -> list[tuple[str, float]]:
        """Return ``(upper bound, observations up to it)`` pairs, as Prometheus expects them."""
        running, pairs = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), list(self.counts), strict=True):
            running += count
            pairs.append((bound, float(running)))
        return pairs


@dataclass
class _Family:
    kind: Literal["counter", "gauge", "histogram"]
    documentation: str
    labels: tuple[str, ...]
    cells: dict[tuple[str, ...], Cell] = field(default_factory=dict)
    histograms: dict[tuple[str, ...], Histogram] = field(default_factory=dict)
    callback: Callable[[], Samples] | None = None


class Telemetry(Collector):
    """The counters of one process and its exporter."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._families: dict[str, _Family] = {}
        self.registry.register(self)

    def counter(self, name: str, documentation: str, **labels: str) -> Cell:
        """Return the cell of a counter, always the same; ``name`` ends with ``_total``."""
        return self._cell("counter", name, documentation, labels)

    def gauge(self, name: str, documentation: str, **labels: str) -> Cell:
        """Return the cell of a gauge."""
        return self._cell("gauge", name, documentation, labels)

    def histogram(
        self,
        name: str,
        documentation: str,
        bounds: Sequence[float] = LATENCY_BUCKETS_S,
        **labels: str,
    ) -> Histogram:
        """Return a histogram with the given upper bounds."""
        family = self._family("histogram", name, documentation, tuple(labels))
        return family.histograms.setdefault(tuple(labels.values()), Histogram(bounds))

    def gauges(
        self, name: str, documentation: str, labels: tuple[str, ...], read: Callable[[], Samples]
    ) -> None:
        """
        Add a gauge family that is read at each scrape.

        Args:
            name: Name without the prefix.
            documentation: The help line.
            labels: The label names.
            read: Returns ``(label values, value)`` pairs; called on the exporter's thread.
        """
        self._family("gauge", name, documentation, labels).callback = read

    def counters(
        self, name: str, documentation: str, labels: tuple[str, ...], read: Callable[[], Samples]
    ) -> None:
        """Add a counter family that is read at each scrape, like ``gauges``."""
        self._family("counter", name, documentation, labels).callback = read

    def remove(self, name: str, **labels: str) -> None:
        """Remove the cell with these label values, if it exists."""
        family = self._families.get(name)
        if family is not None:
            family.cells.pop(tuple(labels.values()), None)

    def collect(self) -> Iterator[Metric]:
        """Yield the families for ``prometheus_client``."""
        for name, family in list(self._families.items()):
            yield _exposed(PREFIX + name, family)

    def serve(self, host: str, port: int) -> int:
        """
        Start the exporter and return its port.

        If ``port`` is taken, the operating system chooses another: a restarted process requests the
        port of its predecessor.
        """
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        handler = type("Handler", (_Handler,), {"registry": self.registry})
        try:
            server = BoundedServer((host, port), handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port == 0:
                raise
            server = BoundedServer((host, 0), handler)
        server.start("exporter")
        return server.server_port

    def _cell(
        self, kind: Literal["counter", "gauge"], name: str, documentation: str, labels: Labels
    ) -> Cell:
        family = self._family(kind, name, documentation, tuple(labels))
        return family.cells.setdefault(tuple(labels.values()), Cell())

    def _family(
        self,
        kind: Literal["counter", "gauge", "histogram"],
        name: str,
        documentation: str,
        labels: tuple[str, ...],
    ) -> _Family:
        family = self._families.setdefault(name, _Family(kind, documentation, labels))
        if (family.kind, family.labels) != (kind, labels):
            raise ValueError(f"{name} is a {family.kind} with labels {family.labels}")
        return family


class _Handler(ReadOnlyHandler):
    """Answers every path with the counters, in the format requested by the scraper."""

    registry: CollectorRegistry

    def show(self) -> tuple[HTTPStatus, str, bytes]:
        """Return the counters."""
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        return HTTPStatus.OK, content_type, encode(self.registry)


def _exposed(name: str, family: _Family) -> Metric:
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, family.documentation, labels=family.labels)
        for labels, cells in list(family.histograms.items()):
            histogram.add_metric(labels, cells.cumulative(), cells.total)
        return histogram
    maker = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    plain = maker(name, family.documentation, labels=family.labels)
    for labels, cell in list(family.cells.items()):
        plain.add_metric(labels, cell.value)
    if family.callback is not None:
        for labels, value in family.callback():
            plain.add_metric(labels, value)
    return plain
