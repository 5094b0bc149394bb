"""
The last minutes of one market, in bounded memory: what its charts show.

Decides what a point is. Samples are taken about once a second; a number that was not known then is
None and stays a hole in the line. Pure: time comes with the sample.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

HISTORY_S = 600
POINTS_MAX = HISTORY_S
TRADES_MAX = HISTORY_S


class Point(NamedTuple):
    """What was known of a market at one time; prices in quote currency."""

    version: int
    """Of the board when it was taken."""
    ts_ms: int
    mid_price: float | None
    vol_delta: float | None
    """Buy minus sell size over the window of the page."""
    imbalance: float | None
    """Of the levels of the page, in [-1, 1]."""


class Print(NamedTuple):
    """The last trade of one update; those between two updates are in the windows only."""

    version: int
    ts_ms: int
    price: float
    size: float
    is_buy: bool


class History:
    """The points and prints of one market, oldest first."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=POINTS_MAX)
        self._prints: deque[Print] = deque(maxlen=TRADES_MAX)
        self._trade_id: Any = None

    def sample(self, point: Point) -> None:
        """Add what is known now."""
        self._points.append(point)

    def trade(self, version: int, trades: Mapping[str, Any]) -> None:
        """Add the last trade of a ``trades.*`` message, if it is another than before."""
        trade_id, price, size = (trades.get(f"last_{key}") for key in ("trade_id", "price", "size"))
        if trade_id is None or price is None or size is None or trade_id == self._trade_id:
            return
        self._trade_id = trade_id
        is_buy = trades.get("last_side") == "Buy"
        self._prints.append(Print(version, trades["match_ts_ms"], price, size, is_buy))

    def since(self, version: int) -> tuple[list[Point], list[Print]]:
        """The points and prints that came after a version of the board."""
        points = [point for point in self._points if point.version > version]
        return points, [trade for trade in self._prints if trade.version > version]
