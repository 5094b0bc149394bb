"""Messages as Bybit sends them, and malformed ones."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bybit_pipeline.processes.connector.protocol import (
    INVALID_REASONS,
    MAX_FRAME_BYTES,
    UNUSABLE_ROWS_MAX,
    Ack,
    BookUpdate,
    InvalidFrame,
    Pong,
    TradeBatch,
    decode,
    ping_text,
    request_text,
    salvage,
)
from bybit_pipeline.processes.connector.topics.refusals import (
    is_already_subscribed,
    is_final,
    refused_topic,
)
from bybit_pipeline.shared.wire.messages import Category, Trade

RECV_NS = 1_790_134_716_200_000_000
TRADE_ID = "68bc1c35-dcc0-58e8-a4c5-f59a6b790814"


def book_frame(**changes: Any) -> dict[str, Any]:
    data = {
        "s": "BTCUSDT",
        "b": [["86723.40", "0.194"]],
        "a": [["86723.50", "0"]],
        "u": 7,
        "seq": 9,
    }
    frame = {
        "topic": "orderbook.50.BTCUSDT",
        "type": "delta",
        "ts": 1790134716101,
        "data": data,
        "cts": 1790134716094,
    }
    data.update({key: changes.pop(key) for key in list(changes) if key in data})
    return frame | changes


def trade_frame(**changes: Any) -> dict[str, Any]:
    row = {
        "T": 1791365008334,
        "s": "BTCUSDT",
        "S": "Buy",
        "v": "0.001",
        "p": "83766.30",
        "L": "PlusTick",
        "i": TRADE_ID,
        "BT": False,
        "RPI": True,
        "seq": 821670598155,
    }
    row.update({key: changes.pop(key) for key in list(changes) if key in row})
    frame = {
        "topic": "publicTrade.BTCUSDT",
        "type": "snapshot",
        "ts": 1791365008335,
        "data": [row],
    }
    return frame | changes


def decode_object(frame: Any, category: Category = "linear") -> Any:
    return decode(json.dumps(frame, separators=(",", ":")).encode(), category, RECV_NS)


def decode_or_none(raw: bytes, category: Category) -> Any:
    """The content of a frame, None if it is rejected with a known reason."""
    try:
        return decode(raw, category, RECV_NS)
    except InvalidFrame as error:
        if error.reason not in INVALID_REASONS:
            raise
        return None


def reason_of(raw: bytes, category: Category = "linear") -> str:
    with pytest.raises(InvalidFrame) as caught:
        decode(raw, category, RECV_NS)
    assert caught.value.reason in INVALID_REASONS
    return caught.value.reason


def reason_of_object(frame: Any, category: Category = "linear") -> str:
    return reason_of(json.dumps(frame).encode(), category)


# -- books ---------------------------------------------------------------------------------------


def test_a_book_delta_is_decoded_into_numbers() -> None:
    expected = BookUpdate(
        RECV_NS,
        1790134716101,
        1790134716094,
        False,
        50,
        7,
        9,
        ((86723.4, 0.194),),
        ((86723.5, 0.0),),
        "BTCUSDT",
        "orderbook.50.BTCUSDT",
    )
    assert expected == decode_object(book_frame())


def test_key_order_does_not_matter() -> None:
    frame = book_frame()
    assert decode_object(frame) == decode_object(dict(reversed(frame.items())))


def test_a_book_of_2023_has_neither_match_time_nor_sequence() -> None:
    frame = book_frame()
    del frame["cts"]
    del frame["data"]["seq"]
    update = decode_object(frame)
    assert (None, None) == (update.match_ts_ms, update.sequence)


def test_a_match_time_of_zero_is_absent() -> None:
    assert decode_object(book_frame(cts=0)).match_ts_ms is None


def test_an_empty_option_book_is_a_snapshot_without_levels() -> None:
    frame = book_frame(
        id="orderbook.25.XRP-30OCT26-0.4-P-USDT-3-1680652790918",
        topic="orderbook.25.XRP-30OCT26-0.4-P-USDT",
        type="snapshot",
        s="XRP-30OCT26-0.4-P-USDT",
        b=[],
        a=[],
        u=0,
    )
    update = decode_object(frame, "option")
    assert ((), (), 0, True, 25) == (
        update.bids,
        update.asks,
        update.update_id,
        update.is_snapshot,
        update.depth,
    )
    assert "XRP-30OCT26-0.4-P-USDT" == update.symbol


@pytest.mark.parametrize(
    "price",
    [
        "nan",
        "NaN",
        "inf",
        "Infinity",
        "-Infinity",
        "-1",
        "",
        "0x1",
        "1e400",
        "0",
        "0.0",
        "-0",
        "1,5",
        "+1",
        " 1",
        "1 ",
        "1_0",
        "1e-400",
        "null",
        "true",
        "one",
        "9999999999999999999",
        None,
        True,
        [],
        {},
        -1,
        0,
        "1.",
        ".5",
        "1\u0661",
    ],
)
def test_a_price_that_is_not_a_positive_number_is_rejected(price: object) -> None:
    assert "number" == reason_of_object(book_frame(b=[[price, "1"]]))
    assert "number" == reason_of_object(trade_frame(p=price))


@pytest.mark.parametrize(
    "size", ["-1", "-0.5", "nan", "inf", "", "1e400", "1e19", None, "x", False]
)
def test_a_size_that_is_not_a_number_is_rejected(size: object) -> None:
    assert "number" == reason_of_object(book_frame(a=[["1", size]]))
    assert "number" == reason_of_object(trade_frame(v=size))


def test_a_trade_of_size_zero_is_rejected() -> None:
    assert "number" == reason_of_object(trade_frame(v="0"))


@pytest.mark.parametrize(
    "number", [b"1e400", b"-1e400", b"NaN", b"Infinity", b"-Infinity", b"1" * 400]
)
def test_json_numbers_out_of_range_are_rejected(number: bytes) -> None:
    raw = json.dumps(book_frame(b=[["PRICE", "1"]])).encode().replace(b'"PRICE"', number)
    assert reason_of(raw) in ("number", "json")


@pytest.mark.parametrize(
    "changes",
    [
        {"ts": 1790134716},
        {"ts": 1790134716101000},
        {"ts": -1},
        {"ts": None},
        {"ts": 1.5},
        {"cts": -1},
        {"u": -1},
        {"u": 2**63},
        {"u": "x"},
        {"seq": -4},
    ],
)
def test_times_and_ids_out_of_range_are_rejected(changes: dict[str, Any]) -> None:
    assert reason_of_object(book_frame(**changes)) in ("number", "schema")


@pytest.mark.parametrize(
    "changes",
    [
        {"b": [["1"]]},
        {"b": [["1", "2", "3"]]},
        {"b": [["1", "2"], "x"]},
        {"b": None},
        {"b": "1"},
        {"type": "update"},
        {"type": None},
        {"data": None},
        {"data": 5},
        {"data": []},
        {"s": 5},
        {"b": [["1", "1"]] * 10_001},
    ],
)
def test_a_book_of_another_shape_is_rejected(changes: dict[str, Any]) -> None:
    assert "schema" == reason_of_object(book_frame(**changes))


def test_a_book_of_another_symbol_is_rejected() -> None:
    assert "symbol" == reason_of_object(book_frame(s="ETHUSDT"))


def test_a_missing_field_is_rejected() -> None:
    for key in ("s", "b", "a", "u"):
        frame = book_frame()
        del frame["data"][key]
        assert "schema" == reason_of_object(frame)
    frame = book_frame()
    del frame["ts"]
    assert "schema" == reason_of_object(frame)


# -- trades --------------------------------------------------------------------------------------


def test_trades_are_decoded_into_records() -> None:
    trade = Trade(1791365008334, "Buy", 83766.3, 0.001, TRADE_ID, 821670598155, False, True)
    batch = TradeBatch(RECV_NS, 1791365008335, (trade,), "BTCUSDT", "publicTrade.BTCUSDT")
    assert [batch] == decode_object(trade_frame())


def test_a_spot_trade_id_keeps_every_digit() -> None:
    [batch] = decode_object(trade_frame(i="2290000001225843671"), "spot")
    assert "2290000001225843671" == batch.trades[0].trade_id


def test_fields_added_in_2025_may_be_absent() -> None:
    frame = trade_frame()
    del frame["data"][0]["seq"], frame["data"][0]["RPI"]
    [batch] = decode_object(frame)
    assert (None, False) == (batch.trades[0].sequence, batch.trades[0].is_rpi)


def test_option_trades_are_split_by_contract_in_order() -> None:
    call, put = "BTC-28APR23-29500-C", "BTC-28APR23-29500-P"
    frame = trade_frame(topic="publicTrade.BTC")
    row = frame["data"][0]
    frame["data"] = [row | {"s": s, "i": i} for s, i in ((call, "1"), (put, "2"), (call, "3"))]
    batches = decode_object(frame, "option")
    assert [(call, ["1", "3"]), (put, ["2"])] == [
        (batch.symbol, [trade.trade_id for trade in batch.trades]) for batch in batches
    ]


def test_trades_of_another_symbol_are_rejected() -> None:
    assert "symbol" == reason_of_object(trade_frame(s="ETHUSDT"))
    assert "symbol" == reason_of_object(trade_frame(s="ETH-1-C", topic="publicTrade.BTC"), "option")


def test_an_empty_list_of_trades_gives_no_batch() -> None:
    assert [] == decode_object(trade_frame(data=[]))


@pytest.mark.parametrize(
    "changes", [{"S": "buy"}, {"S": None}, {"i": ""}, {"i": 7}, {"i": "x" * 200}]
)
def test_a_trade_of_another_shape_is_rejected(changes: dict[str, Any]) -> None:
    assert "schema" == reason_of_object(trade_frame(**changes))


# -- control messages ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"success":true,"ret_msg":"subscribe","conn_id":"c","req_id":"10001","op":"subscribe"}',
            Ack(True, "subscribe", "10001", "subscribe"),
        ),
        (
            '{"success":true,"ret_msg":"subscribe","conn_id":"c","op":"subscribe"}',
            Ack(True, "subscribe", "", "subscribe"),
        ),
        (
            '{"success":true,"ret_msg":"unsubscribe","op":"unsubscribe"}',
            Ack(True, "unsubscribe", "", "unsubscribe"),
        ),
        (
            '{"success":true,"ret_msg":"","conn_id":"c","req_id":"","op":"subscribe"}',
            Ack(True, "subscribe", "", ""),
        ),
        (
            '{"success":true,"ret_msg":"","conn_id":"c","req_id":"3","op":"unsubscribe"}',
            Ack(True, "unsubscribe", "3", ""),
        ),
        (
            '{"success":false,"ret_msg":"error:handler not found,topic:orderbook.50.NOPEUSDT",'
            '"conn_id":"c","req_id":"e1","op":"subscribe"}',
            Ack(False, "subscribe", "e1", "error:handler not found,topic:orderbook.50.NOPEUSDT"),
        ),
        (
            '{"success":false,"ret_msg":"args size \\u003e10","conn_id":"c","op":"subscribe"}',
            Ack(False, "subscribe", "", "args size >10"),
        ),
        (
            '{"success":true,"conn_id":"c","data":{"failTopics":[],"successTopics":'
            '["orderbook.100.BTC-6JAN23-18000-C"]},"type":"COMMAND_RESP"}',
            Ack(True, None, "", "", ("orderbook.100.BTC-6JAN23-18000-C",)),
        ),
        (
            '{"success":false,"conn_id":"c","data":{"failTopics":["x"],"successTopics":["y"]},'
            '"type":"COMMAND_RESP"}',
            Ack(False, None, "", "", ("y",), ("x",)),
        ),
        ('{"success":true,"ret_msg":"pong","conn_id":"c","op":"ping"}', Pong("")),
        ('{"success":true,"ret_msg":"pong","conn_id":"c","req_id":"7","op":"ping"}', Pong("7")),
        ('{"args":["1672916271846"],"op":"pong"}', Pong("")),
        ('{"req_id":"test","op":"pong","args":["1675418560633"],"conn_id":"c"}', Pong("test")),
        ('{"success":true,"ret_msg":"pong","op":"pong","req_id":5}', Pong("5")),
    ],
)
def test_every_shape_of_control_message_is_decoded(text: str, expected: Ack | Pong) -> None:
    assert expected == decode(text.encode(), "spot", RECV_NS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"success":false,"ret_msg":"error:invalid op","op":"x"}', "control"),
        ('{"success":false,"ret_msg":"Failed to decode incoming data: EOF"}', "control"),
        ('{"success":true,"ret_msg":"","op":"auth","conn_id":"c"}', "control"),
        ('{"op":"subscribe"}', "control"),
        ("{}", "control"),
        ('{"type":"COMMAND_RESP","data":{"failTopics":[1]}}', "schema"),
        ('{"op":5}', "schema"),
        ("[]", "schema"),
        ("7", "schema"),
        ("", "json"),
        ("{", "json"),
        ('{"op":"pong"} x', "json"),
        ('{"topic":"tickers.BTCUSDT","type":"snapshot","data":{"symbol":"BTCUSDT"}}', "topic"),
        ('{"topic":"orderbook.rpi.BTCUSDT","data":{}}', "topic"),
        ('{"topic":"orderbook.50.","data":{}}', "topic"),
        ('{"topic":"publicTrade","data":[]}', "topic"),
        ('{"topic":"orderbook.50.BTCUSDT","op":"pong"}', "schema"),
    ],
)
def test_other_messages_are_rejected_with_a_reason(text: str, reason: str) -> None:
    assert reason == reason_of(text.encode())


# -- hostile input -------------------------------------------------------------------------------


def test_text_that_is_not_utf8_is_rejected_also_in_unused_fields() -> None:
    raw = json.dumps(book_frame(note="NOTE")).encode().replace(b"NOTE", b"\xff\xfe")
    assert "utf8" == reason_of(raw)


def test_text_beyond_ascii_is_accepted() -> None:
    assert decode(json.dumps(book_frame(note="日本"), ensure_ascii=False).encode(), "linear", 1)


def test_deep_nesting_is_rejected() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    raw = json.dumps(book_frame(note="NOTE")).encode().replace(b'"NOTE"', deep)
    assert "nesting" == reason_of(raw)
    assert "nesting" == reason_of(b'{"x":' + deep + b"}")
    assert reason_of(deep) in ("schema", "nesting")


def test_a_frame_above_the_limit_is_rejected_without_decoding() -> None:
    assert "size" == reason_of(b" " * (MAX_FRAME_BYTES + 1))


def test_the_last_one_of_duplicate_keys_counts() -> None:
    raw = json.dumps(book_frame()).encode().replace(b'"u": 7', b'"u": 6, "u": 8')
    update = decode(raw, "linear", RECV_NS)
    assert isinstance(update, BookUpdate)
    assert 8 == update.update_id


KEYS = ["s", "b", "a", "u", "seq", "T", "S", "v", "p", "i", "BT", "op", "type", "data", "ts"]
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["1", "-1", "0", "nan", "1e400", "BTCUSDT", "Buy", "snapshot", "delta"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=12,
)


@given(
    frame=st.sampled_from([book_frame, trade_frame]),
    changes=st.dictionaries(
        st.sampled_from([*KEYS, "topic", "cts", "ret_msg", "success"]),
        JSON_VALUES | st.lists(st.lists(JSON_VALUES, max_size=3), max_size=3),
        max_size=4,
    ),
    category=st.sampled_from(["linear", "option"]),
)
def test_a_changed_frame_gives_a_valid_record_or_is_rejected(
    frame: Any, changes: dict[str, Any], category: Category
) -> None:
    decoded = decode_or_none(json.dumps(frame(**changes)).encode(), category)
    if isinstance(decoded, BookUpdate):
        for price, size in (*decoded.bids, *decoded.asks):
            assert 0 < price < 1e16
            assert 0 <= size < 1e19
    elif isinstance(decoded, list):
        for batch in decoded:
            for trade in batch.trades:
                assert 0 < trade.price < 1e16
                assert 0 < trade.size < 1e19


@given(
    raw=st.binary(max_size=200)
    | st.text(max_size=200).map(str.encode)
    | JSON_VALUES.map(lambda value: json.dumps(value).encode())
)
def test_random_bytes_are_rejected(raw: bytes) -> None:
    assert isinstance(decode_or_none(raw, "linear"), Ack | Pong | None)


@given(data=st.data())
def test_a_frame_with_a_changed_byte_is_valid_or_rejected(data: st.DataObject) -> None:
    raw = bytearray(json.dumps(data.draw(st.sampled_from([book_frame(), trade_frame()]))).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    decoded = decode_or_none(bytes(raw), "linear")
    assert isinstance(decoded, BookUpdate | list | None)


# -- what is usable of a rejected message --------------------------------------------------------


def salvage_object(frame: Any, category: Category = "linear") -> Any:
    raw = json.dumps(frame).encode()
    reason_of(raw, category)
    return salvage(raw, category, RECV_NS)


@pytest.mark.parametrize("more", [["0"], [0], [None], [{"x": [1]}], ["0", "1", "2"]])
def test_additional_elements_of_a_level_are_ignored(more: list[Any]) -> None:
    for changes in (
        {"b": [["86723.40", "0.194", *more]]},
        {"b": [["86723.40", "0.194"], ["86723.30", "0", *more]]},
        {"a": [["86723.50", "0", *more]], "type": "snapshot"},
    ):
        plain: dict[str, Any] = {
            key: [level[:2] for level in value] if isinstance(value, list) else value
            for key, value in changes.items()
        }
        expected = decode_object(book_frame(**plain))
        assert expected == salvage_object(book_frame(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"b": [["86723.40", "nan", "0"]]},
        {"b": [["86723.40"]]},
        {"b": [["86723.40", "1", "0"]], "u": -1},
        {"b": [["86723.40", "1", "0"]], "s": "ETHUSDT"},
        {"b": [["86723.40", "1", "0"]], "ts": 5},
        {"b": {"86723.40": "1"}},
        {"b": "none"},
    ],
)
def test_a_book_with_another_fault_is_unusable(changes: dict[str, Any]) -> None:
    assert salvage_object(book_frame(**changes)) is None


def trades_frame(*changes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A message of one trade per argument, each with its changes and numbered by its id."""
    rows = [trade_frame(**{"i": str(n), **each})["data"][0] for n, each in enumerate(changes)]
    return trade_frame() | {"data": rows} | fields


def parts_of(frame: Any, category: Category = "linear") -> list[str] | None:
    """The ids of the usable trades, a word for each part; None if there are none."""
    parts = salvage_object(frame, category)
    if parts is None:
        return None
    return ["".join(t.trade_id for batch in part for t in batch.trades) for part in parts]


BAD = {"p": "0"}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{}, BAD, {}], ["0", "2"]),
        ([BAD, {}, {}], ["", "12"]),
        ([{}, {}, BAD], ["01", ""]),
        ([{}, BAD, BAD, {}], ["0", "", "3"]),
        ([{}, {"v": "-1"}, {"S": "None"}, {"T": 5}, {"i": ""}], ["0", "", "", "", ""]),
        ([{}, {"s": "ETHUSDT"}, {}], ["0", "2"]),
        ([{}, {"s": 7}, {}], ["0", "2"]),
        ([{}] + [BAD] * UNUSABLE_ROWS_MAX, ["0"] + [""] * UNUSABLE_ROWS_MAX),
    ],
)
def test_an_unusable_trade_divides_the_usable_ones(
    rows: list[dict[str, Any]], expected: list[str]
) -> None:
    assert expected == parts_of(trades_frame(*rows))


@pytest.mark.parametrize(
    "frame",
    [
        trades_frame(BAD),
        trades_frame(BAD, BAD),
        trades_frame({}, *[BAD] * (UNUSABLE_ROWS_MAX + 1)),
        trades_frame({}, {}, ts=5),
        trades_frame({}, {}, topic="tickers.BTCUSDT"),
        trades_frame(*[{}] * 3, topic="publicTrade.ETHUSDT"),
        trade_frame(data=[7, None, "x"]),
        trade_frame(data={"0": {}}),
    ],
)
def test_a_message_without_usable_trades_is_unusable(frame: dict[str, Any]) -> None:
    assert parts_of(frame) is None


def test_one_unusable_option_trade_costs_no_other_contract() -> None:
    names = ["BTC-30OCT26-65000-C-USDT", "ETH-30OCT26-65000-C-USDT", "BTC-30OCT26-65000-P-USDT"]
    frame = trades_frame(*[{"s": name} for name in names], topic="publicTrade.BTC")
    parts = salvage_object(frame, "option")
    assert [[names[0]], [names[2]]] == [[batch.symbol for batch in part] for part in parts]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"data":[}', b"\xff", b"[" * 5_000])
def test_nothing_is_usable_of_what_is_not_json(raw: bytes) -> None:
    assert salvage(raw, "linear", RECV_NS) is None


# -- requests -------------------------------------------------------------------------------------


def test_requests_have_the_documented_shape() -> None:
    assert {
        "req_id": "1-1",
        "op": "subscribe",
        "args": ["orderbook.50.BTCUSDT"],
    } == json.loads(request_text("subscribe", "1-1", ["orderbook.50.BTCUSDT"]))
    assert {"req_id": "p1", "op": "ping"} == json.loads(ping_text("p1"))


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("error:handler not found,topic:publicTrade.NOPE", "publicTrade.NOPE"),
        ("error:already subscribed,topic:orderbook.1.ETHUSDT", "orderbook.1.ETHUSDT"),
        ("Invalid symbol :[publicTrade.NOPEUSDT]", "publicTrade.NOPEUSDT"),
        ("args size >10", None),
        ("", None),
    ],
)
def test_the_refused_topic_is_taken_from_the_text(text: str, topic: str | None) -> None:
    assert topic == refused_topic(text)


def test_already_subscribed_differs_from_other_refusals() -> None:
    assert is_already_subscribed("error:already subscribed,topic:orderbook.1.ETHUSDT")
    assert not is_already_subscribed("error:handler not found,topic:orderbook.1.ETHUSDT")


# -- the recorded captures -----------------------------------------------------------------------


def decoded_counts(path: Path, category: Category) -> Counter[str]:
    counts: Counter[str] = Counter()
    for line in path.read_bytes().splitlines():
        try:
            decoded = decode(line, category, RECV_NS)
        except InvalidFrame as error:
            counts[f"{error.reason} {json.loads(line)['topic'].split('.')[0]}"] += 1
            continue
        if isinstance(decoded, BookUpdate):
            counts[f"{decoded.topic} {'snapshot' if decoded.is_snapshot else 'delta'}"] += 1
        elif isinstance(decoded, list):
            for batch in decoded:
                counts[batch.topic] += 1
                counts["trades"] += len(batch.trades)
        else:
            counts[type(decoded).__name__] += 1
    return counts


def test_the_linear_capture_decodes_completely(captures: Path) -> None:
    assert {
        "orderbook.200.BTCUSDT snapshot": 1,
        "orderbook.200.BTCUSDT delta": 413,
        "orderbook.200.SOLUSDT snapshot": 1,
        "orderbook.200.SOLUSDT delta": 382,
        "publicTrade.BTCUSDT": 16,
        "publicTrade.SOLUSDT": 57,
        "trades": 221,
        "Ack": 17,
        "topic tickers": 378,
        "topic kline": 47,
    } == decoded_counts(captures / "linear_20260809_ob200_BTC_SOL.jsonl", "linear")


def test_the_spot_capture_decodes_completely(captures: Path) -> None:
    assert {
        "orderbook.200.ETHUSDT snapshot": 1,
        "orderbook.200.ETHUSDT delta": 249,
        "publicTrade.ETHUSDT": 7,
        "trades": 9,
        "Ack": 7,
        "topic tickers": 40,
        "topic kline": 10,
    } == decoded_counts(captures / "spot_20260809_ob200_ETH.jsonl", "spot")


def test_the_archive_and_level_1_captures_decode_completely(captures: Path) -> None:
    assert {
        "orderbook.500.XRPUSDT snapshot": 1,
        "orderbook.500.XRPUSDT delta": 49,
    } == decoded_counts(captures / "linear_20241201_ob500_XRP.data", "linear")
    assert {
        "orderbook.1.BANDUSDT snapshot": 45,
        "orderbook.1.RADUSDT snapshot": 18,
        "orderbook.1.SNTUSDT snapshot": 107,
        "orderbook.1.AIOZUSDT snapshot": 28,
        "Ack": 4,
    } == decoded_counts(captures / "linear_20250613_ob1_4symbols.jsonl", "linear")


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("fixtures_linear_20250925_kinds.jsonl", "linear"),
        ("fixtures_linear_inverse_kinds_2023.jsonl", "linear"),
        ("fixtures_option_kinds_2023.jsonl", "option"),
        ("fixtures_spot_kinds_2023.jsonl", "spot"),
        ("docs_examples_public_topics.jsonl", "linear"),
    ],
)
def test_single_messages_of_every_kind_decode(
    captures: Path, name: str, category: Category
) -> None:
    others = {"topic tickers", "topic liquidation", "topic allLiquidation"}
    counts = decoded_counts(captures / name, category)
    assert {key for key in counts if " " in key and not key.startswith("orderbook")} <= others
    assert any(key.startswith("orderbook") for key in counts)
    assert any(key.startswith("publicTrade") for key in counts)


def test_recorded_control_messages_are_decoded(captures: Path) -> None:
    lines = (captures / "fixtures_control_seen.jsonl").read_bytes().splitlines()
    kinds = [type(decode(line, "linear", RECV_NS)).__name__ for line in lines]
    assert ["Ack", "Pong", "Ack", "Ack", "Ack"] == kinds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("error:handler not found,topic:orderbook.50.NOPEUSDT", True),
        ("Invalid symbol :[publicTrade.NOPEUSDT]", True),
        ("invalid topic", True),
        ("symbol not exist", True),
        ("", False),
        ("error:internal server error", False),
        ("error:internal server error,topic:orderbook.50.BTCUSDT", False),
        ("Too many visits. Exceeded the API Rate Limit.", False),
        ("args size >10", False),
        ("service unavailable, please try again later", False),
        ("system maintenance", False),
    ],
)
def test_only_a_missing_symbol_or_topic_is_final(text: str, expected: bool) -> None:
    assert expected is is_final(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"success":false,"ret_msg":null,"req_id":"7","op":"subscribe"}',
            Ack(False, "subscribe", "7", ""),
        ),
        (
            '{"ret_code":10006,"ret_msg":"too many visits","req_id":"7","op":"subscribe"}',
            Ack(False, "subscribe", "7", "too many visits"),
        ),
        (
            '{"retCode":10016,"retMsg":"server error","req_id":"7","op":"subscribe"}',
            Ack(False, "subscribe", "7", "server error"),
        ),
        (
            '{"retCode":"0","retMsg":"OK","req_id":"7","op":"subscribe"}',
            Ack(True, "subscribe", "7", "OK"),
        ),
        (
            '{"success":false,"ret_msg":"error:busy","req_id":"7"}',
            Ack(False, None, "7", "error:busy"),
        ),
        (
            '{"success":false,"ret_msg":"busy","data":null,"type":"COMMAND_RESP"}',
            Ack(False, None, "", "busy"),
        ),
        (
            '{"data":{"failTopics":["t"],"successTopics":null},"type":"COMMAND_RESP"}',
            Ack(False, None, "", "", (), ("t",)),
        ),
    ],
)
def test_a_refusal_is_understood_in_every_shape(text: str, expected: Ack) -> None:
    assert expected == decode(text.encode(), "linear", 1)
