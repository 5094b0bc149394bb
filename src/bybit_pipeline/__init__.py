"""
Live market data pipeline for Bybit.

The names below are the public Python interface; each is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import version

    from bybit_pipeline.processes.connector.client import BybitWebSocketClient
    from bybit_pipeline.processes.orderbook.manager import OrderBookManager
    from bybit_pipeline.processes.trades.aggregator import TradesAggregator
    from bybit_pipeline.shared.client import AsyncPipelineClient, PipelineClient

    __version__ = version("bybit-pipeline")

__all__ = [
    "AsyncPipelineClient",
    "BybitWebSocketClient",
    "OrderBookManager",
    "PipelineClient",
    "TradesAggregator",
    "__version__",
]

_MODULES = {
    "AsyncPipelineClient": "bybit_pipeline.shared.client",
    "BybitWebSocketClient": "bybit_pipeline.processes.connector.client",
    "OrderBookManager": "bybit_pipeline.processes.orderbook.manager",
    "PipelineClient": "bybit_pipeline.shared.client",
    "TradesAggregator": "bybit_pipeline.processes.trades.aggregator",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that importing the package costs nothing."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("bybit-pipeline")
    elif name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
