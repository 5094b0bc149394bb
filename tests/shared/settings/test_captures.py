"""Reading and describing recorded captures."""

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from bybit_pipeline.shared.settings.captures import (
    CaptureError,
    CaptureReader,
    capture_name,
    describe_capture,
)

LINEAR_BOOK = {
    "topic": "orderbook.50.AAAUSDT",
    "type": "snapshot",
    "ts": 2000,
    "data": {"s": "AAAUSDT", "b": [["1.0", "2"]], "a": [["1.1", "0"]], "u": 1, "seq": 5},
    "cts": 1999,
}
SPOT_BOOK = {
    "topic": "orderbook.50.AAAUSDT",
    "ts": 1000,
    "type": "snapshot",
    "data": {"s": "AAAUSDT", "b": [["1.0", "2"]], "a": [], "u": 1, "seq": 5},
    "cts": 999,
}
LEVEL_1 = {**SPOT_BOOK, "topic": "orderbook.1.AAAUSDT"}
LINEAR_ACK = {"success": True, "ret_msg": "", "conn_id": "c", "req_id": "", "op": "subscribe"}
SPOT_ACK = {"success": True, "ret_msg": "subscribe", "conn_id": "c", "op": "subscribe"}


def trade(symbol: str, **more: Any) -> dict[str, Any]:
    """A trade message with one row."""
    row = {"T": 1, "s": symbol, "S": "Buy", "v": "1", "p": "2", "i": "3", **more}
    return {"topic": f"publicTrade.{symbol}", "type": "snapshot", "ts": 3000, "data": [row]}


def write(path: Path, *messages: object) -> Path:
    """A capture with these messages; text is written as it is."""
    lines = [each if isinstance(each, str) else json.dumps(each) for each in messages]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize(
    ("name", "messages", "category"),
    [
        ("x.jsonl", [trade("AAAUSDT", L="PlusTick")], "linear"),
        ("spot.jsonl", [trade("AAAUSDT", L="PlusTick")], "linear"),
        ("x.jsonl", [trade("BTCUSD", L="PlusTick")], "inverse"),
        ("x.jsonl", [trade("BTCUSDU26", L="PlusTick")], "inverse"),
        ("x.jsonl", [trade("BTCUSD", L="PlusTick"), trade("AUSDT", L="PlusTick")], "linear"),
        ("x.jsonl", [trade("BTC-24MAR27", L="PlusTick")], "linear"),
        ("x.jsonl", [trade("AAAUSDT")], "spot"),
        ("x.jsonl", [trade("BTC-1JAN27-1-C", iv="0.5")], "option"),
        ("x.jsonl", [{**SPOT_BOOK, "id": "orderbook.25.X-1-2"}], "option"),
        ("x.jsonl", [LINEAR_BOOK], "linear"),
        ("x.jsonl", [SPOT_BOOK], "spot"),
        ("x.jsonl", [LINEAR_ACK, LEVEL_1], "linear"),
        ("x.jsonl", [SPOT_ACK, LEVEL_1], "spot"),
        ("x.jsonl", [LEVEL_1], "linear"),
        ("my_spot_day.jsonl", [LEVEL_1], "spot"),
        ("my_Inverse_day.data", [LEVEL_1], "inverse"),
        ("my_option_day.jsonl.gz", [LEVEL_1], "option"),
    ],
)
def test_the_category_is_concluded_from_the_content_then_from_the_name(
    tmp_path: Path, name: str, messages: list[Any], category: str
) -> None:
    """No message names its category."""
    assert category == describe_capture(write(tmp_path / name, *messages)).category


def test_a_description_counts_topics_symbols_depths_and_times(tmp_path: Path) -> None:
    """Acks and broken lines are counted separately."""
    path = write(
        tmp_path / "x.jsonl",
        LINEAR_ACK,
        LINEAR_BOOK,
        {**LINEAR_BOOK, "type": "delta"},
        {**LINEAR_BOOK, "topic": "orderbook.200.AAAUSDT", "ts": 1500},
        trade("BBBUSDT", L="PlusTick"),
        '{"topic":"orderbook.50.AAAUSDT","ty',
        "[1,2]",
        "",
        {**LINEAR_BOOK, "data": {"b": [["one", "2"]], "a": []}},
    )
    info = describe_capture(path)
    assert {"AAAUSDT": (50, 200)} == info.depths
    assert info.trade_symbols == ("BBBUSDT",)
    assert info.symbols == ("AAAUSDT", "BBBUSDT")
    assert info.topics == {
        "orderbook.50.AAAUSDT": 2,
        "orderbook.200.AAAUSDT": 1,
        "publicTrade.BBBUSDT": 1,
    }
    assert (info.messages, info.control, info.skipped) == (4, 1, 3)
    assert (info.first_ts_ms, info.last_ts_ms) == (1500, 3000)


@pytest.mark.parametrize("name", ["x.jsonl", "x.data", "x.jsonl.gz", "x.data.gz"])
def test_all_formats_give_the_same_lines(tmp_path: Path, name: str) -> None:
    """Plain and compressed; the raw text is that of the line."""
    path = write(tmp_path / name, LINEAR_BOOK, trade("AAAUSDT"))
    lines = list(CaptureReader(path))
    assert [json.dumps(LINEAR_BOOK).encode(), json.dumps(trade("AAAUSDT")).encode()] == [
        line.raw for line in lines
    ]
    assert ["orderbook.50.AAAUSDT", "publicTrade.AAAUSDT"] == [line.topic for line in lines]
    assert "x" == capture_name(path)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "x.recv.txt",
            "1786310819.526357\n1\n2\n1786310820\n\n",
            [1786310819526357000, 1786310820000000000],
        ),
        ("x.recv_ns.txt", "1758841137168651303\n1\n2\n3\nsoon", [1758841137168651303, 3]),
    ],
)
def test_receive_times_belong_to_the_lines_with_the_same_number(
    tmp_path: Path, name: str, text: str, expected: list[int]
) -> None:
    """Empty and broken lines of the capture count too; a broken time is None."""
    path = tmp_path / "x.jsonl.gz"
    write(path, LINEAR_BOOK, "", "broken", trade("AAAUSDT"), LINEAR_BOOK, LINEAR_BOOK)
    (tmp_path / name).write_text(text)
    lines = list(CaptureReader(path))
    assert [*expected, None, None] == [line.recv_ts_ns for line in lines]
    assert [1, 4, 5, 6] == [line.number for line in lines]


def test_reading_again_starts_at_the_beginning(tmp_path: Path) -> None:
    """The count of broken lines starts at 0 too."""
    reader = CaptureReader(write(tmp_path / "x.jsonl", "broken", LINEAR_BOOK))
    assert [line.number for line in reader] == [line.number for line in reader] == [2]
    assert reader.skipped == 1


def test_a_capture_that_cannot_be_read_is_one_error_with_the_file(tmp_path: Path) -> None:
    """Missing, a directory, damaged compression, no market data."""
    damaged = write(tmp_path / "y.jsonl.gz", LINEAR_BOOK, *([trade("AAAUSDT")] * 50))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    not_gzip = tmp_path / "z.jsonl.gz"
    not_gzip.write_text("plain")
    empty = write(tmp_path / "w.jsonl", LINEAR_ACK)
    for path in (tmp_path / "none.jsonl", tmp_path, damaged, not_gzip, empty):
        with pytest.raises(CaptureError, match=path.name) as error:
            describe_capture(path)
        assert error.value.exit_code == 64


@pytest.mark.parametrize(
    "line",
    [
        {**LINEAR_BOOK, "topic": "orderbook.50.示例币USDT"},
        trade("示例币USDT"),
        {**LINEAR_BOOK, "topic": "orderbook.50.aaausdt"},
        {**LINEAR_BOOK, "topic": f"orderbook.50.{'A' * 65}"},
        {**LINEAR_BOOK, "topic": "orderbook.0.AAAUSDT"},
        {**LINEAR_BOOK, "topic": "orderbook.deep.AAAUSDT"},
        {**LINEAR_BOOK, "data": {"b": [["1.0"]], "a": []}},
        '{"topic":"orderbook.50.AAAUSDT","ty',
        "\x00\x01",
    ],
)
def test_a_line_that_cannot_be_used_costs_that_line(tmp_path: Path, line: object) -> None:
    info = describe_capture(write(tmp_path / "x.jsonl", LINEAR_BOOK, line, trade("BBBUSDT"), line))
    assert ("AAAUSDT", "BBBUSDT") == info.symbols
    assert (2, 2, 2) == (info.messages, info.skipped, info.first_skipped)


@pytest.mark.parametrize("symbol", ["示例币USDT", ["AAAUSDT"], 7, None, ""])
def test_a_trade_of_an_impossible_symbol_names_no_market(tmp_path: Path, symbol: object) -> None:
    row = trade("AAAUSDT")["data"][0]
    message = {**trade("AAAUSDT"), "data": [row, {**row, "s": symbol}, 7]}
    info = describe_capture(write(tmp_path / "x.jsonl", message))
    assert ("AAAUSDT",) == info.symbols


def test_an_impossible_time_does_not_hold_up_the_lines_after_it(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", LINEAR_BOOK, {**LINEAR_BOOK, "ts": 10**18})
    assert [2000, None] == [line.exchange_ts_ms for line in CaptureReader(path)]


def test_a_byte_order_mark_and_compression_without_its_suffix_are_recognised(
    tmp_path: Path,
) -> None:
    plain = write(tmp_path / "x.jsonl", LINEAR_BOOK).read_bytes()
    for data in (b"\xef\xbb\xbf" + plain, gzip.compress(plain)):
        (tmp_path / "y.jsonl").write_bytes(data)
        info = describe_capture(tmp_path / "y.jsonl")
        assert (1, 0) == (info.messages, info.skipped)


BOOK_LINE = json.dumps(LINEAR_BOOK).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04" + BOOK_LINE, "a zip archive"),
        (b"PK\x03\x04\n" + BOOK_LINE, "a zip archive"),  # stored without compression
        (b"\x28\xb5\x2f\xfd\x00", "compressed with zstd"),
        (lzma.compress(BOOK_LINE), "compressed with xz"),
        (bz2.compress(BOOK_LINE), "compressed with bzip2"),
        (b"PAR1\x00", "a Parquet file"),
        (b"SQLite format 3\x00", "an SQLite database"),
        (BOOK_LINE.decode().encode("utf-16"), "UTF-16"),
        (b"1723238817.58: " + BOOK_LINE, "a receive time"),
        (b"1723238817580000000 " + BOOK_LINE, "a receive time"),
        (b"2026-08-09T21:26:57.5830000Z " + BOOK_LINE, "a receive time"),
        (b"[" + BOOK_LINE + b"]", "a JSON array"),
        (b"timestamp,symbol,side,size\n1,BTCUSDT,Buy,1\n", "a table"),
        (b'{"stream":"btcusdt@depth","data":{}}\n', "not messages of Bybit"),
        (b"hello\n", "no market data"),
    ],
)
def test_the_format_of_another_recorder_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(data)
    with pytest.raises(CaptureError, match=words):
        describe_capture(tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    ("name", "category", "depths", "traded", "messages", "control"),
    [
        (
            "linear_20260809_ob200_BTC_SOL.jsonl",
            "linear",
            {"BTCUSDT": (200,), "SOLUSDT": (200,)},
            ("BTCUSDT", "SOLUSDT"),
            1295,
            17,
        ),
        ("spot_20260809_ob200_ETH.jsonl", "spot", {"ETHUSDT": (200,)}, ("ETHUSDT",), 307, 7),
        ("linear_20241201_ob500_XRP.data", "linear", {"XRPUSDT": (500,)}, (), 50, 0),
        (
            "linear_20250613_ob1_4symbols.jsonl",
            "linear",
            dict.fromkeys(("AIOZUSDT", "BANDUSDT", "RADUSDT", "SNTUSDT"), (1,)),
            (),
            198,
            4,
        ),
        (
            "fixtures_option_kinds_2023.jsonl",
            "option",
            {"BTC-30JUN23-45000-P": (25,), "SOL-28APR23-30-C": (25,)},
            ("BTC-28APR23-29500-C",),
            6,
            0,
        ),
    ],
)
def test_real_captures_are_described_as_in_their_readme(
    captures: Path,
    name: str,
    category: str,
    depths: dict[str, tuple[int, ...]],
    traded: tuple[str, ...],
    messages: int,
    control: int,
) -> None:
    """Category, symbols, depths and numbers of messages."""
    info = describe_capture(captures / name)
    assert (category, depths, traded) == (info.category, info.depths, info.trade_symbols)
    assert (messages, control, 0) == (info.messages, info.control, info.skipped)
