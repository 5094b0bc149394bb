"""
Market messages that are too old to be believed. Pure.

Every ``trades.*`` and ``orderbook.*`` topic is published at least once per second. A reader that
receives none for longer cannot tell why: the forwarder may hang, or the connection may be dead. So
it must not show the numbers of the last message. Time is that of the reader's own monotonic clock.
"""

from collections.abc import Mapping
from typing import Any

OVERDUE_S = 1.9
"""
Time without a message, in seconds, after which the last one of a topic is not current.

Readers promise to notice it within 2 s; the rest is for their own delays.
"""
VIEW_OVERDUE_S = 1.45
"""
The same for a view, in seconds. It is drawn four times per second, so that both the last message
and its absence are noticed up to 0.25 s late.
"""
REASON = "no_messages"
PERIODIC_KINDS = ("trades", "orderbook")
"""Kinds of market messages that are published at least once per second."""

_KEPT_FIELDS = (
    "v",
    "kind",
    "category",
    "symbol",
    "source",
    "process",
    "epoch",
    "seq",
    "match_ts_ms",
    "exchange_ts_ms",
    "recv_ts_ns",
    "alive_ts_ns",
    "publish_ts_ns",
)


def without_numbers(payload: Mapping[str, Any], reason: str = REASON) -> dict[str, Any]:
    """
    A copy of a ``trades.*`` or ``orderbook.*`` message that is stale and says nothing else.

    Names, identity and times are kept. Numbers are None, lists empty, and windows keep their names.
    """
    blank = {
        key: value if key in _KEPT_FIELDS else [] if isinstance(value, list) else None
        for key, value in payload.items()
    }
    windows = payload.get("windows")
    if isinstance(windows, Mapping):
        blank["windows"] = {name: dict.fromkeys(window) for name, window in windows.items()}
    return blank | {"state": "stale", "reason": reason}
