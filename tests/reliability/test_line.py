"""Network faults and a hostile server: the pipeline recovers and no number is wrong."""

from collections.abc import Callable
from functools import partial

import pytest

from scripts.reliability.fault_proxy import BINARY, CONTINUATION, PING, FaultProxy, frame
from scripts.reliability.rig import CONNECTOR, QUICK, Rig
from tests.system.conftest import Start
from tests.system.pipeline import until

BOOK = b'{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1,"data":'
TRADE = b'{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1,"data":'


@pytest.mark.parametrize(
    ("fault", "reason", "within_s"),
    [
        (FaultProxy.reset, "reset", 1.0),
        (FaultProxy.hang_up, "closed", 1.0),
        (FaultProxy.cut, "closed", 1.0),
        (lambda proxy: proxy.close_with(1000), "closed", 1.0),
        (lambda proxy: proxy.close_with(1012), "closed", 1.0),
        (FaultProxy.freeze, "dead_peer", 2.5),
    ],
    ids=["reset", "1006", "end inside a frame", "1000", "1012", "half open"],
)
def test_a_broken_connection_is_reported_and_replaced(
    rig: Rig, fault: Callable[[FaultProxy], None], reason: str, within_s: float
) -> None:
    rig.until_live()
    before = rig.by_reason("connector_reconnects_total")

    fault(rig.proxy)

    stale = rig.until_seen(lambda m: m["kind"] == "orderbook" and m["state"] == "stale", "stale")
    assert stale["reason"] == "disconnected"
    until(lambda: rig.by_reason("connector_reconnects_total") - before, "counted", within_s)
    assert {reason} == set(rig.by_reason("connector_reconnects_total") - before)
    rig.until_live()
    assert rig.oracle.wrong == []


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("403", "forbidden"),
        ("429", "rate_limited"),
        ("502", "server_error"),
        ("404", "handshake"),
        ("301", "handshake"),
        ("garbage", "handshake"),
    ],
)
def test_a_rejected_handshake_is_reported_and_retried(rig: Rig, mode: str, reason: str) -> None:
    rig.until_live()
    before = rig.by_reason("connector_reconnects_total")
    rig.proxy.mode = mode

    rig.proxy.reset()

    until(lambda: (rig.by_reason("connector_reconnects_total") - before)[reason], mode, 15)
    assert {reason, "reset"} == set(rig.by_reason("connector_reconnects_total") - before)
    until(lambda: rig.pipeline.http("/readyz")[0] == 503, "not ready", 5)
    rig.proxy.mode = "pass"
    rig.until_live()
    assert rig.oracle.wrong == []


def test_a_handshake_that_never_ends_is_given_up(rig: Rig, start: Start) -> None:
    """No answer, or an endless header sent byte by byte; both side by side to wait only once."""
    rig.until_live()
    before = rig.by_reason("connector_reconnects_total")
    other = FaultProxy("ws://127.0.0.1:1/v5/public/linear")
    rig.proxy.mode, other.mode = "silent", "drip"
    other.start()
    dripped = start("--source", "live", "--url", other.url, config=QUICK)
    attempts = len(rig.proxy.attempts)
    rig.proxy.reset()
    until(lambda: len(rig.proxy.attempts) > attempts, "the next attempt", 5)
    rig.proxy.mode = "pass"  # for those after it

    until(lambda: (rig.by_reason("connector_reconnects_total") - before)["timeout"], "silent", 15)
    until(
        lambda: dripped.total(CONNECTOR, "connector_reconnects_total", '"timeout"') >= 1,
        "drip",
        15,
    )

    assert {"timeout", "reset"} == set(rig.by_reason("connector_reconnects_total") - before)
    assert 1 == dripped.total(CONNECTOR, "connector_reconnects_total")
    rig.until_live()
    dripped.stop()
    other.stop()


def book(body: bytes) -> bytes:
    """Return a delta with this data."""
    return frame(BOOK + body + b',"cts":1}')


SKIPPED = {
    "not json": ("json", frame(b"{")),
    "empty": ("json", frame(b"")),
    "invalid utf-8": ("utf8", frame(b'{"topic":"\xff\xfe"}')),
    "a binary message": ("binary", frame(b"\x00\x01", BINARY)),
    "fragmented binary": (
        "binary",
        frame(b"{", BINARY, final=False) + frame(b"x", CONTINUATION),
    ),
    "16 MiB": ("json", frame(b" " * (16 << 20))),
    "nothing but brackets": ("schema", frame(b"[" * 200_000)),
    "deep nesting": ("nesting", book(b"[" * 5_000 + b"]" * 5_000)),
    "a number for a message": ("schema", frame(b"7")),
    "null": ("schema", frame(b"null")),
    "text": ("schema", frame(b'"x"')),
    "wrong types": ("number", book(b'{"s":7,"b":{},"a":[],"u":"x","seq":1}')),
    "an empty topic": ("topic", frame(b'{"topic":"","type":"delta","ts":1,"data":{}}')),
    "a topic in fragments": (
        "topic",
        frame(b'{"topic":', final=False) + frame(b'"","type":"delta","ts":1}', CONTINUATION),
    ),
    "a topic nobody asked for": (
        "topic",
        frame(
            b'{"topic":"orderbook.50.NOPEUSDT","type":"snapshot","ts":1700000000000,"data":'
            b'{"s":"NOPEUSDT","b":[["1","1"]],"a":[["2","1"]],"u":5,"seq":1},"cts":1700000000000}'
        ),
    ),
    "nan": ("number", book(b'{"s":"BTCUSDT","b":[["NaN","1"]],"a":[],"u":5,"seq":1}')),
    "infinity": ("number", book(b'{"s":"BTCUSDT","b":[["1e999","1"]],"a":[],"u":5,"seq":1}')),
    "a negative size": ("number", book(b'{"s":"BTCUSDT","b":[["1","-1"]],"a":[],"u":5,"seq":1}')),
    "a huge number": (
        "number",
        book(b'{"s":"BTCUSDT","b":[],"a":[],"u":' + b"9" * 400 + b',"seq":1}'),
    ),
    "a trade at nan": (
        "number",
        frame(TRADE + b'[{"T":1,"s":"BTCUSDT","S":"Buy","v":"1","p":"nan","i":"x","BT":false}]}'),
    ),
}


@pytest.mark.parametrize("name", SKIPPED)
def test_a_hostile_message_is_counted_and_skipped(rig: Rig, name: str) -> None:
    reason, data = SKIPPED[name]
    rig.until_live()
    pid, sessions = rig.pipeline.pid(CONNECTOR), rig.by_reason("connector_reconnects_total")
    before = rig.by_reason("connector_frames_invalid_total")

    rig.proxy.insert(data)

    until(lambda: rig.by_reason("connector_frames_invalid_total") - before, "counted", 5)
    assert {reason: 1} == rig.by_reason("connector_frames_invalid_total") - before
    assert pid == rig.pipeline.pid(CONNECTOR)
    assert sessions == rig.by_reason("connector_reconnects_total"), "the connection is kept"
    assert rig.oracle.wrong == []


HELD_NO_TRADES = (
    "deep nesting",
    "wrong types",
    "an empty topic",
    "a topic in fragments",
    "nan",
    "infinity",
    "a topic nobody asked for",
    "a negative size",
    "a huge number",
)


@pytest.mark.parametrize("name", SKIPPED)
def test_trades_that_a_hostile_message_may_have_held_are_a_gap_of_their_symbols(
    rig: Rig, name: str
) -> None:
    rig.until_live()
    until_traded(rig)

    rig.proxy.insert(SKIPPED[name][1])

    expected = {"BTCUSDT"} if name == "a trade at nan" else {"BTCUSDT", "ETHUSDT"}
    if name in HELD_NO_TRADES:
        rig.proxy.insert(SKIPPED["a trade at nan"][1])
        expected = {"BTCUSDT"}
    opened: dict[int, str] = {}
    closed: set[int] = set()

    def is_over() -> bool:
        gaps = [message for message in rig.listen() if message.get("stream") == "trades"]
        for gap in gaps:
            if gap["event"] == "opened":
                assert "bus_gap" == gap["reason"]
                opened[gap["gap_id"]] = gap["symbol"]
            elif gap["gap_id"] in opened and gap["event"] == "closed":
                closed.add(gap["gap_id"])
        return len(opened) >= len(expected) and opened.keys() == closed

    until(is_over, "a gap that closes", 10)
    assert expected == set(opened.values())
    assert 0 == rig.pipeline.total("trades-0", "bus_messages_lost_total")


def until_traded(rig: Rig) -> None:
    """Wait until both symbols have traded."""
    last = dict.fromkeys(("BTCUSDT", "ETHUSDT"))

    def is_known() -> bool:
        for message in rig.listen():
            if message["kind"] == "trades":
                last[message["symbol"]] = message["last_price"]
        return None not in last.values()

    until(is_known, "trades of both", 10)


REPLACED = {
    "over 16 MiB": ("too_large", frame(b" " * ((16 << 20) + 1))),
    "a terabyte announced": ("too_large", b"\x81\x7f" + (1 << 40).to_bytes(8, "big")),
    "compressed": ("protocol", frame(b"\xca\x48", reserved=0x40)),
    "masked": ("protocol", b"\x81\x81abcdx"),
    "unknown opcode": ("protocol", frame(b"x", 0x3)),
    "a continuation of nothing": ("protocol", frame(b"x", CONTINUATION)),
    "a long ping": ("protocol", frame(b"x" * 126, PING)),
    "a message inside another": ("protocol", frame(b"{", final=False) + frame(b"{}")),
}


@pytest.mark.parametrize("name", REPLACED)
def test_a_broken_protocol_ends_the_connection(rig: Rig, name: str) -> None:
    reason, data = REPLACED[name]
    rig.until_live()
    pid, before = rig.pipeline.pid(CONNECTOR), rig.by_reason("connector_reconnects_total")

    rig.proxy.insert(data)

    until(lambda: rig.by_reason("connector_reconnects_total") - before, "replaced", 5)
    assert {reason} == set(rig.by_reason("connector_reconnects_total") - before)
    rig.until_live()
    assert pid == rig.pipeline.pid(CONNECTOR)
    assert rig.oracle.wrong == []


def test_after_all_faults_memory_is_bounded_and_every_book_was_right(rig: Rig) -> None:
    """With the smaller faults repeated a hundred times, memory does not grow."""
    rig.until_live()
    before = rig.memory_mb()[CONNECTOR]
    small = [data for _, data in SKIPPED.values() if len(data) < 1 << 20]
    for _ in range(100):
        rig.proxy.insert(b"".join(small))
    expected = 100 * len(small)
    until(
        lambda: sum(rig.by_reason("connector_frames_invalid_total").values()) >= expected, "all", 20
    )
    rig.until_live()
    until(lambda: rig.listen() and rig.oracle.checked > 100, "a hundred books compared", 30)
    assert rig.memory_mb()[CONNECTOR] - before < 20
    assert rig.oracle.wrong == []


# -- silences, each noticed by its own rule --------------------------------------------------------


def test_pongs_without_data_count_as_silence(rig: Rig) -> None:
    rig.until_live()
    before = rig.by_reason("connector_reconnects_total")
    rig.proxy.drops = lambda payload: b'"topic":' in payload

    until(lambda: rig.by_reason("connector_reconnects_total") - before, "noticed", 5)

    assert {"silence"} == set(rig.by_reason("connector_reconnects_total") - before)
    rig.proxy.drops = None
    rig.until_live()


def test_data_without_pongs_means_a_dead_peer(rig: Rig) -> None:
    rig.until_live()
    before = rig.by_reason("connector_reconnects_total")
    rig.proxy.drops = lambda payload: b"pong" in payload[:200]

    until(lambda: rig.by_reason("connector_reconnects_total") - before, "noticed", 5)

    assert {"dead_peer"} == set(rig.by_reason("connector_reconnects_total") - before)
    rig.proxy.drops = None
    rig.until_live()


def test_a_topic_that_is_confirmed_but_silent_is_reported(rig: Rig) -> None:
    rig.until_live()
    rig.proxy.drops = lambda payload: b'"orderbook.50.ETHUSDT"' in payload[:60]
    rig.proxy.reset()

    until(lambda: "orderbook.50.ETHUSDT" in rig.pipeline.http("/readyz")[1], "named", 10)

    until(
        lambda: (
            rig.pipeline.status()["connectors"][0]["topics"]["orderbook.50.BTCUSDT"] == "delivering"
        ),
        "the other topic is not disturbed",
        5,
    )
    rig.proxy.drops = None
    rig.proxy.reset()
    rig.until_live()


def test_missing_acknowledgements_are_reported(rig: Rig) -> None:
    rig.until_live()
    lost = rig.pipeline.total(CONNECTOR, "connector_acks_lost_total")
    rig.proxy.drops = lambda payload: b'"success"' in payload or b'"topic":' in payload[:20]
    rig.proxy.reset()

    until(lambda: rig.pipeline.total(CONNECTOR, "connector_acks_lost_total") > lost, "counted", 10)
    until(lambda: rig.pipeline.http("/readyz")[0] == 503, "not ready", 10)

    rig.proxy.drops = None
    rig.proxy.reset()
    rig.until_live()
    assert rig.oracle.wrong == []


# -- before anything is connected ------------------------------------------------------------------


def test_an_address_that_cannot_work_is_reported(rig: Rig, start: Start) -> None:
    """TLS to a port without TLS, and a host name that does not exist, side by side."""
    urls = {
        "tls": rig.proxy.url.replace("ws://", "wss://"),
        "dns": "ws://no-such-host.invalid/v5/public/linear",
    }
    pipelines = {
        reason: start("--source", "live", "--url", url, config=QUICK)
        for reason, url in urls.items()
    }
    for reason, pipeline in pipelines.items():
        reconnects = partial(pipeline.total, CONNECTOR, "connector_reconnects_total", f'"{reason}"')
        until(partial(has_two, reconnects), reason, 15)
        assert "not connected" in pipeline.http("/readyz")[1]
        pipeline.stop()


def has_two(count: Callable[[], float]) -> bool:
    """True once something has happened at least twice."""
    return count() >= 2
