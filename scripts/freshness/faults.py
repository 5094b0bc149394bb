"""The faults, and how long a number may still say ``live`` after each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from scripts.reliability.rig import CONNECTOR

How = Literal["kill", "stop", "freeze", "mute", "none"]
"""
Kill or stop a process; freeze the connection to the exchange without closing it; mute one topic;
none: a quiet market, in which nothing is wrong.
"""

VIEWS: Final = ("subscriber", "client", "page", "terminal", "readyz")
BEHIND_FORWARDER: Final = ("client", "page", "terminal", "readyz")
"""Without the forwarder a subscriber receives nothing, and so nothing wrong."""
OF_TRADES: Final = ("subscriber", "client", "page", "terminal")
"""``/readyz`` is about books: trades that pause are usual, and only presumed to be missing."""
STREAMS: Final = ("orderbook", "trades")

KILLED_S, HUNG_S, SILENT_S, MUTE_S, QUIET_S = 0.3, 1.5, 2.0, 3.0, 0.0
RETURN_S: Final = 2.0
"""Greatest age of live data after a fault has ended."""
READYZ_TOLERANCE_S: Final = 1.0
"""``/readyz`` tolerates a book that is not live for this long; a process that is not up, never."""
HOLD_S: Final = 3.0
"""Least time that a process is stopped: less than the heartbeat limit, more than ``RETURN_S``."""


@dataclass(frozen=True)
class Fault:
    """
    One row of the table.

    Attributes:
        limit_s: How long a number may still say live.
        how: What happens.
        process: The process that it happens to.
        streams: The streams whose numbers stop.
        views: The views that are judged.
    """

    limit_s: float
    how: How
    process: str = ""
    streams: tuple[str, ...] = STREAMS
    views: tuple[str, ...] = VIEWS

    def limit_of(self, view: str) -> float:
        """The limit of one view."""
        has_tolerance = view == "readyz" and self.how == "mute"
        return self.limit_s + (READYZ_TOLERANCE_S if has_tolerance else 0.0)


FAULTS: Final[Mapping[str, Fault]] = {
    "orderbook-killed": Fault(KILLED_S, "kill", "orderbook-0", ("orderbook",)),
    "trades-killed": Fault(KILLED_S, "kill", "trades-0", ("trades",)),
    "connector-killed": Fault(KILLED_S, "kill", CONNECTOR),
    "orderbook-hung": Fault(HUNG_S, "stop", "orderbook-0", ("orderbook",)),
    "trades-hung": Fault(HUNG_S, "stop", "trades-0", ("trades",)),
    "connector-hung": Fault(HUNG_S, "stop", CONNECTOR),
    "forwarder-killed": Fault(SILENT_S, "kill", "forwarder", views=BEHIND_FORWARDER),
    "forwarder-hung": Fault(SILENT_S, "stop", "forwarder", views=BEHIND_FORWARDER),
    "exchange-silent": Fault(SILENT_S, "freeze"),
    "book-silent": Fault(MUTE_S, "mute", streams=("orderbook",)),
    "trades-silent": Fault(MUTE_S, "mute", streams=("trades",), views=OF_TRADES),
    "quiet": Fault(QUIET_S, "none"),
}
