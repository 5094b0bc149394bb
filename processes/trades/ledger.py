"""
The gap ledger of trades: every interval in which trades may have been missed.

Decides what a gap is and how its life is told; which events open and close one is in ``tape``.
"""

from typing import Literal, NamedTuple

import msgspec

GapReason = Literal["disconnected", "bus_gap", "unsubscribed", "rejected", "bad_time"]
GapEvent = Literal["opened", "closed", "completed"]
"""``closed``: observed again, or the tape has ended. ``completed``: the first trade after it is
known as well, when it was not at the close (a quiet symbol trades long after its link is back)."""

MAX_GAPS = 10_000


class Gap(NamedTuple):
    """
    One interval of exchange time in which trades of a symbol may have been missed.

    The numbers before and after are those of the last trade seen before and the first seen after:
    what is missing lies between them.
    """

    gap_id: int
    category: str
    symbol: str
    reason: GapReason
    start_ms: int
    end_ms: int | None = None
    sequence_before: int | None = None
    trade_id_before: str | None = None
    sequence_after: int | None = None
    trade_id_after: str | None = None


class GapNote(NamedTuple):
    """Something to tell about a gap, and the ``generation`` of the tape whose gap it is."""

    event: GapEvent
    gap: Gap
    generation: int


class GapLedger:
    """
    The last ``MAX_GAPS`` gaps, by ``gap_id``.

    Kept packed: few are ever read, and 10,000 of them take 2.4 MB in place of 5.
    """

    def __init__(self) -> None:
        self._gaps: dict[int, bytes] = {}
        self._last_id = 0

    def __len__(self) -> int:
        """Number of gaps kept."""
        return len(self._gaps)

    def new_id(self) -> int:
        """A number for the next gap, from 1."""
        self._last_id += 1
        return self._last_id

    def put(self, gap: Gap) -> None:
        """Record a gap, or what became of it."""
        self._gaps[gap.gap_id] = msgspec.msgpack.encode(gap)
        if len(self._gaps) > MAX_GAPS:
            del self._gaps[next(iter(self._gaps))]

    def gaps(self) -> list[Gap]:
        """The gaps that are kept, oldest first."""
        return [_decode(packed) for packed in self._gaps.values()]


_decode = msgspec.msgpack.Decoder(Gap).decode
