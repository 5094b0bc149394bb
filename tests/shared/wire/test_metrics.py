"""The metric records: fields that are null, fields that are absent, and decoding."""

from typing import Any

import msgspec
import pytest

from bybit_pipeline.shared.wire.codec import decode_map, encode_map
from bybit_pipeline.shared.wire.metrics import KINDS, Density, MarketMetric, Orderbook, Trades, Wall
from bybit_pipeline.shared.wire.trades import unobserved_window

HEADER: dict[str, Any] = {
    "category": "linear",
    "symbol": "BTCUSDT",
    "source": "live",
    "process": "worker-0",
    "epoch": "epoch",
    "seq": 1,
    "publish_ts_ns": 9,
    "state": "stale",
    "reason": "process_down",
}
BOOK = Orderbook(**HEADER)
TRADES = Trades(**HEADER, windows={"60s": unobserved_window(quantiles=[0.5])})


@pytest.mark.parametrize("metric", [BOOK, TRADES])
def test_a_metric_without_measures_has_all_fields_and_no_number(metric: MarketMetric) -> None:
    payload = decode_map(encode_map(metric))

    assert (1, metric.kind) == (payload.pop("v"), payload.pop("kind"))
    assert HEADER == {name: payload.pop(name) for name in HEADER}
    assert set(metric.__struct_fields__) == {"v", "kind"} | HEADER.keys() | payload.keys()
    windows = payload.pop("windows", {})
    assert all(value in (None, []) for value in payload.values()), payload
    for window in windows.values():
        assert 0.0 == window.pop("coverage_s")
        assert {"0.5": None} == window.pop("size_quantiles")
        assert {None} == set(window.values())


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({}, set()),
        ({"quantiles": [0.5, 0.9]}, {"size_quantiles"}),
        ({"with_volatility": True}, {"realised_volatility"}),
    ],
)
def test_a_window_has_only_the_configured_optional_fields(
    options: dict[str, Any], fields: set[str]
) -> None:
    window = decode_map(encode_map(unobserved_window(**options)))

    assert fields == {"size_quantiles", "realised_volatility"} & window.keys()


@pytest.mark.parametrize("metric", [BOOK, TRADES])
def test_a_metric_is_decoded_by_the_first_word_of_its_topic(metric: MarketMetric) -> None:
    assert metric == msgspec.msgpack.decode(encode_map(metric), type=KINDS[metric.kind])


def test_unknown_fields_are_ignored() -> None:
    payload = {**decode_map(encode_map(BOOK)), "added_later": 1}

    assert BOOK == msgspec.msgpack.decode(encode_map(payload), type=Orderbook)


def test_a_wall_event_has_the_fields_and_types_of_its_wall() -> None:
    density = {field.name: field.type for field in msgspec.structs.fields(Density)}
    for field in msgspec.structs.fields(Wall):
        wall = msgspec.json.schema(field.type)
        assert msgspec.json.schema(density[field.name]).items() <= wall.items()
