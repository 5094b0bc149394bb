"""Recorded captures as topics: on time, unchanged, and complete for late subscribers."""

import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bybit_pipeline.processes.simulator import rest
from bybit_pipeline.processes.simulator.factory import make_server
from bybit_pipeline.processes.simulator.feed import TopicKey
from bybit_pipeline.processes.simulator.playback import START_DELAY_MS, PlaybackFeed
from bybit_pipeline.shared.settings.captures import CaptureReader
from bybit_pipeline.shared.settings.specs import SimulatorSpec
from tests.naive import NaiveBook, read_capture

NOW_MS = 1_900_000_000_000
"""A time after every capture: the simulator's clock is unrelated to recorded times."""
REAL = [
    "linear_20260809_ob200_BTC_SOL.jsonl",
    "spot_20260809_ob200_ETH.jsonl",
    "linear_20241201_ob500_XRP.data",
    "linear_20250613_ob1_4symbols.jsonl",
]


def book(kind: str, ts: int, update_id: int, bids: list[list[str]]) -> dict[str, Any]:
    """Return a recorded book message."""
    data = {"s": "AAAUSDT", "b": bids, "a": [["9.0", "1"]], "u": update_id, "seq": update_id * 10}
    return {"topic": "orderbook.50.AAAUSDT", "type": kind, "ts": ts, "data": data, "cts": ts - 1}


def trade(ts: int) -> dict[str, Any]:
    """Return a recorded trade message."""
    row = {"T": ts, "s": "AAAUSDT", "S": "Buy", "v": "1", "p": "9.0", "L": "PlusTick", "i": str(ts)}
    return {"topic": "publicTrade.AAAUSDT", "type": "snapshot", "ts": ts, "data": [row]}


MESSAGES: list[object] = [
    {"success": True, "ret_msg": "", "conn_id": "c", "req_id": "", "op": "subscribe"},
    book("delta", 10_000, 6, [["7.0", "1"]]),
    book("snapshot", 10_100, 7, [["8.0", "1"], ["7.5", "2"]]),
    trade(10_300),
    book("delta", 10_500, 8, [["8.0", "0"], ["7.9", "3"]]),
    "broken",
    book("delta", 11_000, 9, [["7.0", "4"]]),
]
BOOK: TopicKey = ("linear", "orderbook.50.AAAUSDT")
TRADES: TopicKey = ("linear", "publicTrade.AAAUSDT")


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Return the path of a capture of one second."""
    path = tmp_path / "linear.jsonl"
    path.write_text(
        "\n".join(each if isinstance(each, str) else json.dumps(each) for each in MESSAGES)
    )
    return path


def due(feed: PlaybackFeed, offset_ms: int) -> list[Any]:
    """Return the messages of one poll, by its time since the start of the timeline."""
    return [json.loads(each.payload) for each in feed.poll(NOW_MS + START_DELAY_MS + offset_ms)]


def test_messages_are_sent_unchanged_at_their_recorded_intervals(capture: Path) -> None:
    """A book sends nothing before its first snapshot, and recorded acks are not sent."""
    feed = PlaybackFeed(capture)
    assert [] == feed.join(BOOK, NOW_MS)
    assert [] == feed.join(TRADES, NOW_MS)
    assert [] == feed.poll(NOW_MS + START_DELAY_MS - 1)
    assert [] == due(feed, 99)
    assert [MESSAGES[2]] == due(feed, 100)
    assert [] == due(feed, 299)
    assert [MESSAGES[3]] == due(feed, 300)
    assert [MESSAGES[4], MESSAGES[6]] == due(feed, 1000)


@pytest.mark.parametrize("speed", [0.5, 4.0, 1000.0])
def test_speed_multiplies_the_recorded_time(capture: Path, speed: float) -> None:
    feed = PlaybackFeed(capture, speed=speed)
    feed.join(TRADES, NOW_MS)
    assert [] == due(feed, int(299 / speed))
    assert [MESSAGES[3]] == due(feed, int(300 / speed) + 1)


def test_receive_times_decide_when_messages_are_due(capture: Path) -> None:
    """A message with an earlier receive time is due with its predecessor."""
    times = ["1.0", "5.000", "5.000", "5.040", "5.020", "", "9.000"]
    capture.with_name("linear.recv.txt").write_text("\n".join(times))
    feed = PlaybackFeed(capture)
    feed.join(TRADES, NOW_MS)
    feed.join(BOOK, NOW_MS)
    assert [MESSAGES[2]] == due(feed, 39)
    assert [MESSAGES[3], MESSAGES[4]] == due(feed, 40)
    assert [] == due(feed, 3999)
    assert [MESSAGES[6]] == due(feed, 4000)


def test_a_late_subscriber_gets_the_current_book(capture: Path) -> None:
    """It has the numbers of the last message, so that the next recorded delta continues it."""
    feed = PlaybackFeed(capture)
    feed.join(TRADES, NOW_MS)
    due(feed, 500)
    (payload,) = feed.join(BOOK, NOW_MS + START_DELAY_MS + 500)
    assert json.loads(payload) == {
        "topic": "orderbook.50.AAAUSDT",
        "type": "snapshot",
        "ts": 10_500,
        "data": {
            "s": "AAAUSDT",
            "b": [["7.9", "3"], ["7.5", "2"]],
            "a": [["9.0", "1"]],
            "u": 8,
            "seq": 80,
        },
        "cts": 10_499,
    }
    assert list(json.loads(payload)) == ["topic", "type", "ts", "data", "cts"]
    assert [9] == [message["data"]["u"] for message in due(feed, 1000)]


def test_after_the_end_new_subscribers_get_the_final_book(
    capture: Path,
) -> None:
    """The end is reported once, with the totals: five messages and one broken line."""
    reported: list[dict[str, Any]] = []
    feed = PlaybackFeed(capture, on_finish=reported.append)
    feed.join(TRADES, NOW_MS)
    for offset_ms in (1000, 1010, 1020):
        due(feed, offset_ms)
    (payload,) = feed.join(BOOK, NOW_MS + 60_000)
    assert [["7.9", "3"], ["7.5", "2"], ["7.0", "4"]] == json.loads(payload)["data"]["b"]
    assert [{"messages": 5, "topics": 2, "skipped": 1}] == reported
    assert feed.is_finished


def test_skipped_lines_are_reported_at_the_start(capture: Path) -> None:
    spec = SimulatorSpec(
        process="simulator", role="simulator", run_dir="", capture=str(capture), port=0
    )
    with capture_logs() as logs:
        make_server(spec)
    [line] = logs
    assert ("warning", 1, 6) == (line["log_level"], line["lines"], line["first_line"])


def test_only_recorded_topics_are_served(capture: Path) -> None:
    """Topics of other depths or of another category are not served."""
    feed = PlaybackFeed(capture)
    assert feed.serves(("linear", "orderbook.50.AAAUSDT"))
    assert not feed.serves(("spot", "orderbook.50.AAAUSDT"))
    assert not feed.serves(("linear", "orderbook.200.AAAUSDT"))
    assert PlaybackFeed(capture, category="inverse").serves(("inverse", "publicTrade.AAAUSDT"))


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_the_speed_must_be_above_zero(capture: Path, speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        PlaybackFeed(capture, speed=speed)


def test_one_poll_returns_a_limited_number_of_messages(tmp_path: Path) -> None:
    """A fast playback leaves time for other work and loses nothing."""
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps(trade(10_000 + n)) for n in range(2500)))
    feed = PlaybackFeed(path, speed=1e9)
    feed.join(TRADES, NOW_MS)
    assert [1000, 1000, 500, 0] == [len(due(feed, 10 + n)) for n in range(4)]


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("join_share", [0.0, 0.37, 0.8])
def test_real_captures_give_the_recorded_books_to_early_and_late_subscribers(
    captures: Path, name: str, join_share: float
) -> None:
    """The books of both equal the books from the file at every message."""
    path = captures / name
    feed = PlaybackFeed(path)
    topics = [topic for topic in feed.info.topics if topic.startswith("orderbook.")]
    truth: dict[tuple[str, int], Any] = {}
    books = {topic: NaiveBook() for topic in topics}
    for message in read_capture(path):
        if message["topic"] in books:
            books[message["topic"]].apply(message)
            truth[message["topic"], message["data"]["u"]] = books[message["topic"]].best(500)

    feed.join((feed.category, "unknown topic"), NOW_MS)
    length_ms = 50_000
    join_ms = int(length_ms * join_share)
    feed.poll(NOW_MS + START_DELAY_MS + join_ms)
    clients = {topic: NaiveBook() for topic in topics}
    compared = 0
    payloads = [
        payload
        for topic in topics
        for payload in feed.join((feed.category, topic), NOW_MS + START_DELAY_MS + join_ms)
    ]
    for offset_ms in range(join_ms, length_ms, 20):
        payloads += [each.payload for each in feed.poll(NOW_MS + START_DELAY_MS + offset_ms)]
        for payload in payloads:
            message = json.loads(payload)
            client = clients[message["topic"]]
            if message["type"] == "delta":
                assert client.update_id + 1 == message["data"]["u"]
            client.apply(message)
            assert truth[message["topic"], message["data"]["u"]] == client.best(500)
            compared += 1
        payloads = []
    assert feed.is_finished
    assert compared >= len(topics)
    assert {topic: book.best(500) for topic, book in books.items()} == {
        topic: client.best(500) for topic, client in clients.items()
    }


@pytest.mark.parametrize("name", REAL)
def test_real_captures_are_played_byte_for_byte(captures: Path, name: str) -> None:
    """A subscriber of every topic receives every data message, in the recorded order."""
    feed = PlaybackFeed(captures / name, speed=50)
    for topic in feed.info.topics:
        assert [] == feed.join((feed.category, topic), NOW_MS)
    played: list[bytes] = []
    for offset_ms in range(0, 1100, 10):
        played += [each.payload for each in feed.poll(NOW_MS + START_DELAY_MS + offset_ms)]
    recorded = [line.raw for line in CaptureReader(captures / name) if line.topic]
    assert len(recorded) == len(played)
    assert recorded == played


def test_a_capture_lists_its_symbols_without_turnover(capture: Path) -> None:
    """With equal turnovers ``top:5:turnover`` would select by the alphabet."""
    feed = PlaybackFeed(capture, category="linear")
    answer = rest.respond("/v5/market/tickers?category=linear", feed, NOW_MS)
    [row] = json.loads(answer.body)["result"]["list"]

    assert ("AAAUSDT", 0.0) == (row["symbol"], float(row["turnover24h"]))
