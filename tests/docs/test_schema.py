"""
The published schemas, compared with every message of a running pipeline, also during faults.

The schemas allow unknown fields, so that subscribers keep working when fields are added. These
tests forbid them, so that every field is documented.
"""

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
import zmq
from jsonschema import Draft202012Validator

from bybit_pipeline.shared.wire import metrics
from scripts import schema as maker
from tests.system.pipeline import Payload, Pipeline, kill

CONFIG = """
[trades]
windows = ["2s", "10s", "300s"]

[density]
k = 3.0
min_share = 0.0
min_age_s = 0.0

[[market]]
category = "linear"
symbols = ["BTCUSDT", "ETHUSDT"]

[[market]]
category = "spot"
symbols = ["BTCUSDT"]

[[market]]
category = "inverse"
symbols = ["BTCUSD"]
"""
BOOK_MEASURES = [
    "update_id",
    "sequence",
    "best_bid",
    "best_bid_size",
    "best_ask",
    "best_ask_size",
    "mid_price",
    "spread",
    "spread_bps",
    "weighted_mid",
    "imbalance",
    "depth",
    "impact",
    "ofi",
]
SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schema"
KINDS = ("trades", "orderbook", "density", "gap", "process")
DEADLINE_S = 40.0


def load(name: str) -> dict[str, Any]:
    """Load a published schema and forbid fields that it does not name."""
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{name}.json").read_text())
    for definition in schema["$defs"].values():
        if "properties" in definition:
            definition["additionalProperties"] = False
    return schema


VALIDATORS = {kind: Draft202012Validator(load(kind)) for kind in KINDS}


def errors(payload: Payload) -> list[str]:
    """The errors of a message by the schema of its kind."""
    found = VALIDATORS[payload["kind"]].iter_errors(payload)
    return [f"{error.json_path}: {error.message}"[:300] for error in found]


Fact = tuple[str, ...]

AT_REST: set[Fact] = {
    ("orderbook", "live"),
    ("trades", "warming"),
    ("density", "live", "detected"),
    ("density", "live", "pulled"),
    ("gap", "book", "closed"),
    ("linear",),
    ("spot",),
    ("inverse",),
    ("supervisor",),
    ("forwarder",),
    ("trades",),
    ("orderbook",),
    ("connector",),
    ("simulator",),
}
WITHOUT_CONNECTOR: set[Fact] = {
    ("orderbook", "stale", "process_down"),
    ("trades", "stale", "process_down"),
    ("density", "stale", "removed"),
    ("gap", "book", "opened"),
    ("gap", "trades", "opened"),
    ("gap", "trades", "closed"),
}
WITHOUT_WORKERS: set[Fact] = {
    ("orderbook", "stale", "process_down"),
    ("trades", "stale", "process_down"),
}


def facts(payload: Payload) -> set[Fact]:
    """The facts of which a message is an example, such as a kind in a state."""
    kind, state = payload["kind"], payload["state"]
    found: set[Fact] = {(kind, state), (payload["role" if kind == "process" else "category"],)}
    if kind == "gap":
        found.add((kind, payload["stream"], payload["event"]))
    elif kind != "process":
        found.add((kind, state, payload.get("event") or str(payload["reason"])))
    return found


def collect(pipeline: Pipeline, wanted: set[Fact]) -> Iterator[tuple[str, Payload]]:
    """Yield messages until every wanted fact was seen, and for two seconds more."""
    missing, seconds = set(wanted), 0
    deadline = time.monotonic() + DEADLINE_S
    for message in pipeline.messages():
        topic = message.pop("topic")
        missing -= facts(message)
        seconds = 0 if missing else seconds + (topic == "process.supervisor")
        yield topic, message
        if seconds > 1:
            return
        assert time.monotonic() < deadline, f"not seen: {missing}\n{pipeline.log_tail()}"


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[str, Payload]]]:
    """All messages of a pipeline from its start on, while connector and workers are killed."""
    pipeline = Pipeline(tmp_path_factory.mktemp("schema"), "--source", "sim", config=CONFIG)
    try:
        heard = list(collect(pipeline, AT_REST))
        kill(pipeline.pid("connector-linear-0"))
        heard += collect(pipeline, WITHOUT_CONNECTOR)
        for worker in ("orderbook-0", "trades-0"):
            kill(pipeline.pid(worker))
        heard += collect(pipeline, WITHOUT_WORKERS)
        yield heard
    finally:
        pipeline.close()


def test_every_message_matches_its_schema(messages: list[tuple[str, Payload]]) -> None:
    """This includes faults. No message has a field that the schema does not name."""
    wrong = [(topic, found) for topic, payload in messages if (found := errors(payload))]
    assert not wrong, wrong[:3]


def test_typed_records_keep_every_field_of_a_message(
    messages: list[tuple[str, Payload]],
) -> None:
    """A Python subscriber may decode with the records of ``bybit_pipeline.shared.wire.metrics``."""
    decoders = {kind: msgspec.msgpack.Decoder(type_) for kind, type_ in metrics.KINDS.items()}
    for _, payload in messages:
        record = decoders[payload["kind"]].decode(msgpack.packb(payload))
        assert payload == msgpack.unpackb(msgspec.msgpack.encode(record))


def live_book(messages: list[tuple[str, Payload]]) -> Payload:
    """A live book with both sides."""
    for _, payload in messages:
        if payload["kind"] == "orderbook" and payload["state"] == "live":
            return payload
    raise AssertionError("no live book")


def a_window(messages: list[tuple[str, Payload]]) -> Payload:
    """A trades metric with a window that has sells."""
    for _, payload in messages:
        if payload["kind"] == "trades" and (payload["windows"]["10s"]["sell_volume"] or 0) > 0:
            return payload
    raise AssertionError("no trades")


@pytest.mark.parametrize("field", BOOK_MEASURES)
def test_a_measure_of_a_book_that_is_not_live_does_not_match_the_schema(
    messages: list[tuple[str, Payload]], field: str
) -> None:
    """All measures must be null then."""
    book = live_book(messages)
    stale = {
        **book,
        **dict.fromkeys((*BOOK_MEASURES, "match_ts_ms", "exchange_ts_ms", "recv_ts_ns")),
        **{name: [] for name in ("bids", "asks", "densities")},
        "state": "stale",
        "reason": "gap",
    }
    assert not errors(stale)
    assert book[field] is not None
    assert errors({**stale, field: book[field]})


@pytest.mark.parametrize("field", ["mid_price", "imbalance", "depth", "best_bid", "update_id"])
def test_a_live_book_without_a_measure_does_not_match_the_schema(
    messages: list[tuple[str, Payload]], field: str
) -> None:
    """No measure may be null then."""
    assert errors({**live_book(messages), field: None})


@pytest.mark.parametrize("field", maker.WINDOW_MEASURES)
def test_a_window_with_some_null_measures_does_not_match_the_schema(
    messages: list[tuple[str, Payload]], field: str
) -> None:
    """Either all or none of the measures of a window are null."""
    trades = a_window(messages)
    window = {**trades["windows"]["10s"], field: None}
    assert errors({**trades, "windows": {"10s": window}})


@pytest.mark.parametrize(
    ("kind", "field"),
    list(itertools.product(("trades", "orderbook"), ("epoch", "seq", "source", "v"))),
)
def test_a_message_without_a_common_field_does_not_match_the_schema(
    messages: list[tuple[str, Payload]], kind: str, field: str
) -> None:
    payload = next(payload for _, payload in messages if payload["kind"] == kind)
    assert errors({name: value for name, value in payload.items() if name != field})


def test_market_bus_frames_match_the_schema(pipeline: Pipeline) -> None:
    """The array after the topic, for trades, books, links and heartbeats."""
    schema = json.loads((SCHEMAS / "market-bus.json").read_text())
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.subscribe(b"")
    for endpoint in pipeline.endpoints()["market"].values():
        socket.connect(endpoint)
    seen = dict.fromkeys(("trade", "book", "link", "heartbeat"), 0)
    # A symbol that no command of the guides subscribes, since what is subscribed is not announced.
    pipeline.command("subscribe", "linear:ADAUSDT")
    try:
        while not all(seen.values()) or seen["book"] < 50:
            assert socket.poll(10_000), f"nothing more came after {seen}"
            topic, _, array = socket.recv().partition(b"\0")
            kind = topic.decode().partition(".")[0]
            of_kind = {**schema["topics"][f"{kind}.*"], "$defs": schema["$defs"]}
            Draft202012Validator(of_kind).validate(msgpack.unpackb(array))
            seen[kind] += 1
    finally:
        context.destroy(linger=0)
        pipeline.command("unsubscribe", "linear:ADAUSDT")


def test_schema_files_and_tables_are_up_to_date() -> None:
    for path, text in maker.files().items():
        assert text == path.read_text("utf-8"), f"{path.name}: run scripts/make_schema"
