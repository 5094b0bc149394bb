"""
The messages of the metrics socket as typed records.

The workers build these records and publish them as msgpack maps. ``docs/schema`` and the tables of
``docs/reference/wire-format.md`` are generated from them (``scripts/make_schema``). A Python
subscriber may decode with them:

    book = msgspec.msgpack.decode(payload, type=Orderbook)

Unknown fields are ignored, so a reader keeps working with a newer pipeline.
"""

from typing import Any, NamedTuple

from bybit_pipeline.shared.wire.common import MarketMetric
from bybit_pipeline.shared.wire.gaps import BookGapEvent, TradesGapEvent
from bybit_pipeline.shared.wire.orderbook import Density, Depth, Impact, Orderbook, Wall
from bybit_pipeline.shared.wire.process_status import (
    ConnectorStatus,
    DashboardStatus,
    Feed,
    ForwarderStatus,
    OrderbookStatus,
    ProcessMetric,
    SimulatorStatus,
    SupervisorStatus,
    TradesStatus,
    WorkerStatus,
)
from bybit_pipeline.shared.wire.trades import Trades, Window

__all__ = [
    "KINDS",
    "BookGapEvent",
    "ConnectorStatus",
    "DashboardStatus",
    "Density",
    "Depth",
    "Feed",
    "ForwarderStatus",
    "GapEvent",
    "Impact",
    "MarketMetric",
    "Metric",
    "Orderbook",
    "OrderbookStatus",
    "ProcessMetric",
    "ProcessStatus",
    "SimulatorStatus",
    "SupervisorStatus",
    "Trades",
    "TradesGapEvent",
    "TradesStatus",
    "Wall",
    "Window",
    "WorkerStatus",
]

GapEvent = BookGapEvent | TradesGapEvent
ProcessStatus = (
    SupervisorStatus
    | ForwarderStatus
    | DashboardStatus
    | TradesStatus
    | OrderbookStatus
    | ConnectorStatus
    | SimulatorStatus
)
KINDS: dict[str, Any] = {
    "trades": Trades,
    "orderbook": Orderbook,
    "density": Density,
    "gap": GapEvent,
    "process": ProcessStatus,
}
"""
The type to decode a payload with, by the first word of its topic. ``stream`` selects the record of
a gap, ``role`` the record of a process.
"""


class Metric(NamedTuple):
    """One message for the metrics socket."""

    topic: bytes
    payload: MarketMetric
