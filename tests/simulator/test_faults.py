"""The effect and frequency of every fault, and the role of the seed."""

import json
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from bybit_pipeline.processes.simulator.faults import (
    CORRUPTIONS,
    DEFAULT_EVERY,
    Faults,
    corrupted,
    make_fault,
    parse_fault,
)
from bybit_pipeline.processes.simulator.feed import TopicKey

BOOK: TopicKey = ("linear", "orderbook.50.BTCUSDT")
OTHER: TopicKey = ("linear", "orderbook.50.ETHUSDT")
TRADES: TopicKey = ("linear", "publicTrade.BTCUSDT")


def book_message(update_id: int, kind: str = "delta") -> bytes:
    """Return a book message."""
    data = {
        "s": "BTCUSDT",
        "b": [["10.0", "1"], ["9.0", "2"]],
        "a": [["11.0", "1"]],
        "u": update_id,
    }
    message = {"topic": BOOK[1], "type": kind, "ts": 1, "data": data, "cts": 1}
    return json.dumps(message, separators=(",", ":")).encode()


def trade_message() -> bytes:
    """Return a trade message."""
    row = {"T": 1, "s": "BTCUSDT", "S": "Buy", "v": "1", "p": "10.0", "i": "x"}
    message = {"topic": TRADES[1], "type": "snapshot", "ts": 1, "data": [row]}
    return json.dumps(message, separators=(",", ":")).encode()


def sent(faults: Faults, count: int, key: TopicKey = BOOK) -> list[Any]:
    """Return what subscribers receive of a snapshot with u=100 and ``count`` deltas."""
    frames = [book_message(100, "snapshot"), *(book_message(101 + n) for n in range(count))]
    return [json.loads(out) for frame in frames for out in faults.apply(key, frame)]


def update_ids(messages: list[Any]) -> list[int]:
    """Return the ``u`` of each message."""
    return [message["data"]["u"] for message in messages]


def faults_of(text: str) -> Faults:
    """Return the faults of one ``--fault`` option."""
    fault = parse_fault(text)
    return Faults({fault.name: fault})


def test_frames_pass_unchanged_without_faults() -> None:
    """The payload is neither parsed nor copied."""
    frame = book_message(1)
    assert [frame] == Faults().apply(BOOK, frame)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("drop:every=3", [100, 101, 103, 104, 106]),
        ("drop:every=3,after=3", [100, 101, 102, 103, 104, 106]),
        ("drop:every=2,times=1", [100, 102, 103, 104, 105, 106]),
        ("drop:every=2,topic=ETH", [100, 101, 102, 103, 104, 105, 106]),
        ("drop:every=2,stream=trade", [100, 101, 102, 103, 104, 105, 106]),
        ("duplicate:every=3", [100, 101, 102, 102, 103, 104, 105, 105, 106]),
        ("reorder:every=3,times=1", [100, 101, 103, 102, 104, 105, 106]),
        ("gap:every=3", [100, 101, 102, 104, 105, 106, 108]),
        ("gap:every=3,by=-10,times=1", [100, 101, 102, 93, 94, 95, 96]),
        ("reset:every=3", [100, 101, 102, 1, 104, 105, 1]),
        ("late_snapshot:by=2", [101, 102, 100, 103, 104, 105, 106]),
        ("silent_topic", []),
        ("silent_topic:topic=ETH", [100, 101, 102, 103, 104, 105, 106]),
    ],
)
def test_each_fault_changes_the_update_ids_of_a_book(fault: str, expected: list[int]) -> None:
    """The exchange sends a snapshot with u=100, then deltas 101 to 106."""
    assert expected == update_ids(sent(faults_of(fault), 6))


def test_injected_faults_are_counted_by_name() -> None:
    faults = faults_of("drop:every=2")
    sent(faults, 9)
    assert {"drop": 5} == faults.injected


def test_frames_are_counted_separately_for_each_topic() -> None:
    faults = faults_of("drop:every=3")
    alone = update_ids(sent(faults_of("drop:every=3"), 6))
    sent(faults, 4, OTHER)
    assert alone == update_ids(sent(faults, 6))


def test_a_snapshot_after_a_gap_has_the_shifted_update_id() -> None:
    """A new subscriber joins the shifted stream; a topic without subscribers is reset."""
    faults = faults_of("gap:every=1,times=1,by=5")
    sent(faults, 1)
    (snapshot,) = faults.apply(BOOK, book_message(102, "snapshot"))
    assert json.loads(snapshot)["data"]["u"] == 107
    faults.discard_topic(BOOK)
    (snapshot,) = faults.apply(BOOK, book_message(103, "snapshot"))
    assert json.loads(snapshot)["data"]["u"] == 103


@pytest.mark.parametrize("how", CORRUPTIONS)
def test_a_corrupted_book_message_is_damaged_as_requested(how: str) -> None:
    """A client that checks its messages can detect every damage."""
    damaged = corrupted(book_message(5), how, Random(1))
    if how == "text":
        with pytest.raises(json.JSONDecodeError):
            json.loads(damaged)
        return
    data = json.loads(damaged)["data"]
    levels = data["b"] + data["a"]
    prices, sizes = [level[0] for level in levels], [level[1] for level in levels]
    if how == "cross":
        assert float(data["b"][0][0]) > float(data["a"][0][0])
    elif how == "truncate":
        assert len(levels) < 3
    elif how == "price":
        assert any(price.endswith("x") for price in prices)
    elif how == "size":
        assert any(size.endswith("x") for size in sizes)
    else:
        assert any(float(size) < 0 for size in sizes)


@pytest.mark.parametrize("how", CORRUPTIONS)
def test_a_corrupted_trade_message_is_never_valid(how: str) -> None:
    """It is cut in half if the requested damage does not exist for trades."""
    damaged = corrupted(trade_message(), how, Random(1))
    assert damaged != trade_message()
    try:
        row = json.loads(damaged)["data"][0]
    except json.JSONDecodeError:
        assert how in ("text", "truncate", "cross")
    else:
        assert "x" in row["p"] + row["v"] or row["v"].startswith("-")


def test_the_seed_decides_random_damage() -> None:

    def run(seed: int) -> list[bytes]:
        faults = Faults({"corrupt": make_fault("corrupt", every=1)}, seed)
        return [out for n in range(20) for out in faults.apply(BOOK, book_message(n))]

    assert run(1) == run(1)
    assert any(first != second for first, second in pairwise([run(1), run(2)]))


def test_faults_can_change_while_the_server_runs() -> None:
    """A frame that a cleared fault still holds is sent with the next frame."""
    faults = Faults()
    faults.set("drop", every=1)
    assert [] == faults.apply(TRADES, trade_message())
    faults.clear("drop")
    assert [trade_message()] == faults.apply(TRADES, trade_message())
    faults.set("reorder", every=1)
    assert [] == faults.apply(BOOK, book_message(1))
    faults.clear()
    assert [2, 1] == [json.loads(out)["data"]["u"] for out in faults.apply(BOOK, book_message(2))]


def test_every_fault_has_a_default_and_is_documented() -> None:
    """The command line refers to the docstring of the module."""
    import bybit_pipeline.processes.simulator.faults as module

    for name in DEFAULT_EVERY:
        assert make_fault(name).every >= 1
        assert f"\n    {name} " in (module.__doc__ or "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("explode", "unknown fault 'explode'; allowed: drop,"),
        ("drop:every", "not of the form key=value"),
        ("drop:every=often", "every=often; allowed: a whole number"),
        ("drop:every=0", "every must be at least 1"),
        ("drop:by=3", "unknown parameter 'by'"),
        ("corrupt:how=badly", "allowed: text, price"),
        ("drop:stream=books", "allowed: book, trade"),
        ("stall:seconds=-1", "at least 0"),
    ],
)
def test_the_error_of_an_invalid_fault_names_what_is_allowed(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_fault(text)
