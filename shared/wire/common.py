"""
Field types of the metric records, and the fields that every market metric has.

Decides units and ranges. The units reach users: ``scripts/make_schema`` writes them into
``docs/schema`` and into the tables of ``docs/reference/wire-format.md``.
"""

from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from msgspec import Meta, Struct, UnsetType

from bybit_pipeline.shared.wire.messages import SCHEMA_VERSION, Category, Source


def _unit(unit: str) -> dict[str, Any]:
    return {"unit": unit}


Price = Annotated[float, Meta(gt=0, extra_json_schema=_unit("quote currency"))]
PriceStep = Annotated[float, Meta(gt=0, extra_json_schema=_unit("quote currency"))]
Notional = Annotated[float, Meta(ge=0, extra_json_schema=_unit("quote currency"))]
Size = Annotated[float, Meta(ge=0, extra_json_schema=_unit("size"))]
SignedSize = Annotated[float, Meta(extra_json_schema=_unit("size"))]
Share = Annotated[float, Meta(ge=0, le=1)]
Balance = Annotated[float, Meta(ge=-1, le=1)]
Ratio = Annotated[float, Meta(ge=0)]
Rate = Annotated[float, Meta(ge=0)]
Bps = Annotated[float, Meta(ge=0, extra_json_schema=_unit("basis points"))]
Seconds = Annotated[float, Meta(ge=0, extra_json_schema=_unit("s"))]
Millis = Annotated[int, Meta(ge=0, extra_json_schema=_unit("ms"))]
Nanos = Annotated[int, Meta(ge=0, extra_json_schema=_unit("ns"))]
Bytes = Annotated[int, Meta(ge=0, extra_json_schema=_unit("bytes"))]
Lag = Annotated[float, Meta(extra_json_schema=_unit("s"))]
"""Not bounded: the clock may have been set back between the two times."""
RoundTrip = Annotated[float, Meta(ge=0, extra_json_schema=_unit("ms"))]
Slowdown = Annotated[float, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Number = Annotated[int, Meta(ge=1)]

PriceAndSize = tuple[Price, Size]

T = TypeVar("T")
OrAbsent: TypeAlias = T | UnsetType
"""A field that some messages lack. Its default is ``UNSET``, which is not written to the wire."""


class MetricRecord(Struct, kw_only=True, frozen=True, gc=False):
    """
    A msgpack map with named fields; a reader ignores fields that it does not know.

    ``gc=False``: no record can be part of a reference cycle, so the collector need not track it.
    """


class MarketMetric(MetricRecord, frozen=True, kw_only=True):
    """The fields of every metric of a market."""

    # A measure has the default None: a metric without data needs only these fields and its state.

    v: Annotated[Literal[1], Meta(description="Schema version.")] = SCHEMA_VERSION
    kind: str
    category: Annotated[Category, Meta(description="Bybit's product category.")]
    symbol: Annotated[str, Meta(description="Bybit's symbol.")]
    source: Annotated[
        Source,
        Meta(description="`live`: prices of Bybit. `sim` and `replay`: not live prices."),
    ]
    process: Annotated[str, Meta(description="Name of the process that published the message.")]
    epoch: Annotated[
        str,
        Meta(
            description="Changes when the worker restarts, when the source changes, and when the "
            "exchange's time was wrong. Discard all data of the previous epoch."
        ),
    ]
    seq: Annotated[
        Number,
        Meta(
            description="Increases by 1 with every message of this topic and epoch. A jump means "
            "missed messages."
        ),
    ]
    match_ts_ms: Annotated[
        Millis | None,
        Meta(description="Matching engine's time of the newest input; null without input."),
    ] = None
    exchange_ts_ms: Annotated[
        Millis | None,
        Meta(description="Time when Bybit pushed the newest input; null without input."),
    ] = None
    recv_ts_ns: Annotated[
        Nanos | None,
        Meta(
            description="Time when our websocket received the newest input, our clock; null "
            "without input."
        ),
    ] = None
    alive_ts_ns: Annotated[
        Nanos | None,
        Meta(
            description="Time when the exchange was last heard on the connection of this stream, "
            "our clock: any message, also the answer to a ping; null if it was not heard."
        ),
    ] = None
    publish_ts_ns: Annotated[
        Nanos, Meta(description="Time when this message was published, our clock.")
    ]
