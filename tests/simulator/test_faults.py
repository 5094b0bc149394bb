"""Faults: what each does to the frames, how often, and that the seed decides the rest."""

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


def book_frame(update_id: int, kind: str = "delta") -> bytes:
    """A book message."""
    data = {
        "s": "BTCUSDT",
        "b": [["10.0", "1"], ["9.0", "2"]],
        "a": [["11.0", "1"]],
        "u": update_id,
    }
    message = {"topic": BOOK[1], "type": kind, "ts": 1, "data": data, "cts": 1}
    return json.dumps(message, separators=(",", ":")).encode()


def trade_frame() -> bytes:
    """A trade message."""
    row = {"T": 1, "s": "BTCUSDT", "S": "Buy", "v": "1", "p": "10.0", "i": "x"}
    message = {"topic": TRADES[1], "type": "snapshot", "ts": 1, "data": [row]}
    return json.dumps(message, separators=(",", ":")).encode()


def sent(faults: Faults, count: int, key: TopicKey = BOOK) -> list[Any]:
    """What subscribers get of a snapshot with u=100 and ``count`` deltas."""
    frames = [book_frame(100, "snapshot"), *(book_frame(101 + n) for n in range(count))]
    return [json.loads(out) for frame in frames for out in faults.frames(key, frame)]


def update_ids(messages: list[Any]) -> list[int]:
    """The ``u`` of each message."""
    return [message["data"]["u"] for message in messages]


def one(text: str) -> Faults:
    """The faults of one option."""
    fault = parse_fault(text)
    return Faults({fault.name: fault})


def test_without_faults_frames_pass_as_they_are() -> None:
    """The same object: nothing is parsed or copied."""
    frame = book_frame(1)
    assert [frame] == Faults().frames(BOOK, frame)


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
def test_what_a_fault_does_to_the_update_ids_of_a_book(fault: str, expected: list[int]) -> None:
    """A snapshot with 100, then deltas 101 to 106."""
    assert expected == update_ids(sent(one(fault), 6))


def test_faults_are_counted_by_name() -> None:
    """As often as they happened, not as often as they could have."""
    faults = one("drop:every=2")
    sent(faults, 9)
    assert {"drop": 5} == faults.injected


def test_each_topic_counts_for_itself() -> None:
    """What happens to one does not depend on the others."""
    faults = one("drop:every=3")
    alone = update_ids(sent(one("drop:every=3"), 6))
    sent(faults, 4, OTHER)
    assert alone == update_ids(sent(faults, 6))


def test_a_snapshot_after_a_gap_continues_the_shifted_numbers() -> None:
    """A newcomer joins the shifted stream; a topic that everybody left starts anew."""
    faults = one("gap:every=1,times=1,by=5")
    sent(faults, 1)
    (snapshot,) = faults.frames(BOOK, book_frame(102, "snapshot"))
    assert json.loads(snapshot)["data"]["u"] == 107
    faults.forget(BOOK)
    (snapshot,) = faults.frames(BOOK, book_frame(103, "snapshot"))
    assert json.loads(snapshot)["data"]["u"] == 103


@pytest.mark.parametrize("how", CORRUPTIONS)
def test_a_corrupted_book_message_is_damaged_in_the_named_way(how: str) -> None:
    """Each so that a client that checks can tell."""
    damaged = corrupted(book_frame(5), how, Random(1))
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
def test_a_corrupted_trade_message_never_passes_for_a_whole_one(how: str) -> None:
    """Cut off where the named damage does not exist for trades."""
    damaged = corrupted(trade_frame(), how, Random(1))
    assert damaged != trade_frame()
    try:
        row = json.loads(damaged)["data"][0]
    except json.JSONDecodeError:
        assert how in ("text", "truncate", "cross")
    else:
        assert "x" in row["p"] + row["v"] or row["v"].startswith("-")


def test_the_seed_decides_what_chance_decides() -> None:
    """Same seed, same damage."""

    def run(seed: int) -> list[bytes]:
        faults = Faults({"corrupt": make_fault("corrupt", every=1)}, seed)
        return [out for n in range(20) for out in faults.frames(BOOK, book_frame(n))]

    assert run(1) == run(1)
    assert any(first != second for first, second in pairwise([run(1), run(2)]))


def test_faults_can_be_changed_while_running() -> None:
    """Set, set again, cleared; what a fault held back goes out with the next frame."""
    faults = Faults()
    faults.set("drop", every=1)
    assert [] == faults.frames(TRADES, trade_frame())
    faults.clear("drop")
    assert [trade_frame()] == faults.frames(TRADES, trade_frame())
    faults.set("reorder", every=1)
    assert [] == faults.frames(BOOK, book_frame(1))
    faults.clear()
    assert [2, 1] == [json.loads(out)["data"]["u"] for out in faults.frames(BOOK, book_frame(2))]


def test_every_fault_has_a_default_and_is_documented() -> None:
    """In the module's docstring, which is what the command line points to."""
    import bybit_pipeline.processes.simulator.faults as module

    for name in DEFAULT_EVERY:
        assert make_fault(name).every >= 1
        assert f"\n    {name} " in (module.__doc__ or "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("explode", "no fault 'explode'; allowed: drop,"),
        ("drop:every", "not key=value"),
        ("drop:every=often", "every"),
        ("drop:every=0", "counts from 1"),
        ("drop:by=3", "no parameter 'by'"),
        ("corrupt:how=badly", "allowed: text, price"),
        ("drop:stream=books", "allowed: book, trade"),
        ("stall:seconds=-1", "from 0"),
    ],
)
def test_an_impossible_fault_is_refused_with_what_is_allowed(text: str, reason: str) -> None:
    """One line for the command line."""
    with pytest.raises(ValueError, match=reason):
        parse_fault(text)
