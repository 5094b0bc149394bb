"""
Progress of a worker: the last message applied of each topic that it can trust.

Workers send it to the supervisor several times a second, so that the start of an outage is known
even if the worker itself is gone.
"""

from typing import Literal

from msgspec import Struct

from bybit_pipeline.shared.wire.messages import Category, Source


class Progress(Struct, frozen=True, array_like=True, gc=False):
    """The last message applied of one topic, in exchange time."""

    stream: Literal["book", "trades"]
    category: Category
    symbol: str
    source: Source
    at_ms: int
    update_id: int | None = None
    sequence: int | None = None
    trade_id: str | None = None
