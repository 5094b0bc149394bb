"""The Prometheus metrics of an orderbook worker."""

from collections.abc import Mapping
from typing import Literal, get_args

from bybit_pipeline.processes.orderbook.local_book import STATES
from bybit_pipeline.processes.orderbook.manager import OrderBookManager
from bybit_pipeline.processes.orderbook.market import METRIC_KINDS, BookMarket
from bybit_pipeline.shared.runtime.telemetry import Samples, Telemetry
from bybit_pipeline.shared.wire.orderbook import WallEventName


class OrderbookCounters:
    """
    Declare the metrics of a worker, and hold the counters that the worker increments.

    All other values are read from the manager and the markets, on the exporter's thread: each
    reader first copies what the worker's loop changes.

    Args:
        telemetry: The exporter.
        process: Name of the worker.
        manager: Source of counts and states.
        markets: Source of the gauges per symbol.
        per_symbol: True to export gauges per symbol.

    Attributes:
        trade_messages: Trades messages received.
        wall_events: Events of walls, by event.
        published: Messages published, by kind.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        process: str,
        manager: OrderBookManager,
        markets: Mapping[bytes, BookMarket],
        *,
        per_symbol: bool,
    ) -> None:
        self._process = process
        self._manager = manager
        self._markets = markets
        self.trade_messages = telemetry.counter(
            "worker_messages_total", "Market messages received.", process=process, stream="trade"
        )
        self.wall_events = {
            event: telemetry.counter(
                "densities_total", "Events of walls.", process=process, event=event
            )
            for event in get_args(WallEventName)
        }
        self.published = {
            kind: telemetry.counter(
                "metrics_published_total", "Messages published.", process=process, kind=kind
            )
            for kind in METRIC_KINDS
        }
        self._declare_books(telemetry)
        if per_symbol:
            self._declare_gauges(telemetry)

    def _declare_books(self, telemetry: Telemetry) -> None:
        process, counts = self._process, self._manager.counts
        telemetry.counters(
            "worker_messages_total",
            "Market messages received.",
            ("process", "stream"),
            lambda: [((process, "book"), counts.messages)],
        )
        telemetry.counters(
            "book_gaps_total",
            "Live books that were invalidated.",
            ("process", "reason"),
            lambda: [((process, reason), number) for reason, number in counts.invalidated.items()],
        )
        telemetry.counters(
            "book_resyncs_total",
            "Books for which a snapshot was requested, and those live after that.",
            ("process", "result"),
            lambda: [
                ((process, "requested"), counts.requested),
                ((process, "recovered"), counts.recovered),
            ],
        )
        telemetry.counters(
            "book_deltas_ignored_total",
            "Deltas without a snapshot to apply them to.",
            ("process",),
            lambda: [((process,), counts.ignored)],
        )
        telemetry.gauges("books", "Books by state.", ("process", "state"), self._states)

    def _declare_gauges(self, telemetry: Telemetry) -> None:
        labels = ("category", "symbol")
        telemetry.gauges(
            "mid_price",
            "Mid price, in quote currency.",
            labels,
            lambda: self._gauge("mid_price"),
        )
        telemetry.gauges(
            "spread_bps",
            "Spread, in basis points of the mid price.",
            labels,
            lambda: self._gauge("spread_bps"),
        )
        telemetry.gauges(
            "imbalance_ratio",
            "Imbalance of the best levels, in [-1, 1].",
            (*labels, "levels"),
            self._imbalances,
        )

    def _states(self) -> Samples:
        states = self._manager.states()
        return [((self._process, state), states[state]) for state in STATES]

    def _gauge(self, name: Literal["mid_price", "spread_bps"]) -> Samples:
        for market in list(self._markets.values()):
            value = getattr(market, name)
            if value is not None:
                yield (market.book.category, market.book.symbol), value

    def _imbalances(self) -> Samples:
        for market in list(self._markets.values()):
            for levels, value in (market.imbalance or {}).items():
                if value is not None:
                    yield (market.book.category, market.book.symbol, levels), value
