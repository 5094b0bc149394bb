"""
The last minutes of one market, in bounded memory, for its charts. Pure.

One point per second. A number that was unknown then is None, and stays missing in the chart.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

HISTORY_S = 600
POINTS_MAX = HISTORY_S
TRADES_MAX = HISTORY_S


class Point(NamedTuple):
    """The measures of a market at one time."""

    version: int
    """Version of the page when the point was taken."""
    ts_ms: int
    mid_price: float | None
    """In quote currency."""
    vol_delta: float | None
    """Buy minus sell size over the trade window of the page."""
    imbalance: float | None
    """Imbalance of the level count of the page, in [-1, 1]."""


class ChartTrade(NamedTuple):
    """The last trade of one message; trades between two messages are not in the chart."""

    version: int
    ts_ms: int
    price: float
    size: float
    is_buy: bool


class History:
    """The points and trades of one market, oldest first."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=POINTS_MAX)
        self._trades: deque[ChartTrade] = deque(maxlen=TRADES_MAX)
        self._trade_id: Any = None

    def add_point(self, point: Point) -> None:
        """Add a point."""
        self._points.append(point)

    def add_trade(self, version: int, trades: Mapping[str, Any]) -> None:
        """Add the last trade of a ``trades.*`` message, unless it has been added already."""
        trade_id, price, size = (trades.get(f"last_{key}") for key in ("trade_id", "price", "size"))
        if trade_id is None or price is None or size is None or trade_id == self._trade_id:
            return
        self._trade_id = trade_id
        is_buy = trades.get("last_side") == "Buy"
        self._trades.append(ChartTrade(version, trades["match_ts_ms"], price, size, is_buy))

    def since(self, version: int) -> tuple[list[Point], list[ChartTrade]]:
        """The points and trades that were added after a version of the page."""
        points = [point for point in self._points if point.version > version]
        return points, [trade for trade in self._trades if trade.version > version]
