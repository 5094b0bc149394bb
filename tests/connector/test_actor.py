"""A real connector process between an exchange, a market bus subscriber and a supervisor."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import zmq

from bybit_pipeline.shared.bus.market import MarketSubscriber, Received
from bybit_pipeline.shared.bus.sockets import ipc_endpoint
from bybit_pipeline.shared.settings.config import ConnectorConfig
from bybit_pipeline.shared.settings.specs import ConnectorSpec, Stream, write_spec
from bybit_pipeline.shared.wire.codec import decode_map, encode_map
from bybit_pipeline.shared.wire.messages import (
    BookMessage,
    Category,
    LinkEvent,
    LinkMessage,
    Source,
    Trade,
    TradesMessage,
)
from bybit_pipeline.shared.wire.topics import link_topic
from tests.connector.venue import DEADLINE_S, Venue, book_text, trade_text, until

NAME = "connector-linear-0"
LINK = link_topic(NAME)
QUICK = ConnectorConfig(
    ping_interval_s=0.2, ack_timeout_s=0.5, backoff_initial_s=0.05, backoff_max_s=0.1
)
BTC = Stream(kind="book", category="linear", symbol="BTCUSDT", depth=50)
ETH = Stream(kind="book", category="linear", symbol="ETHUSDT", depth=50)
BTC_TRADES = Stream(kind="trade", category="linear", symbol="BTCUSDT")


def link_of(received: Received) -> tuple[str, str, tuple[str, ...]]:
    """Event, reason and topics of a link message; empty for other messages."""
    message = received.message
    if isinstance(message, LinkMessage):
        return message.event, message.reason, message.topics
    return "", "", ()


class Harness:
    """A connector process with its subscriber and its supervisor."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.bind(f"ipc://{directory}/control")
        self.open = ipc_endpoint(f"{directory}/market")
        self._feed = ipc_endpoint(f"{directory}/feed")
        self.subscriber = MarketSubscriber(self._context, "everything-0")
        self.subscriber.connect(NAME, self._feed)
        self.received: list[Received] = []
        self._unseen: deque[Received] = deque()
        self.process: subprocess.Popen[str] | None = None

    def start(
        self,
        url: str,
        *streams: Stream,
        source: Source = "live",
        listens: bool = True,
        settings: ConnectorConfig = QUICK,
        program: Sequence[str] = ("-m", "bybit_pipeline.processes.connector"),
    ) -> None:
        category: Category = streams[0].category if streams else "linear"
        spec = ConnectorSpec(
            process=NAME,
            role="connector",
            run_dir=str(self._directory),
            control=f"ipc://{self._directory}/control",
            log_format="json",
            category=category,
            url=url,
            source=source,
            market_endpoint=self.open,
            feed_endpoint=self._feed,
            streams=list(streams),
            settings=settings,
        )
        path = self._directory / "spec.json"
        write_spec(spec, path)
        if listens:
            self.listen(LINK, *(stream.topic_bytes for stream in streams))
        self.process = subprocess.Popen(
            [sys.executable, *program, str(path)],
            stderr=subprocess.PIPE,
            text=True,
        )

    def listen(self, *topics: bytes) -> None:
        for topic in topics:
            self.subscriber.subscribe(topic, NAME)

    # -- the market bus --------------------------------------------------------------------------

    def wait(self, condition: Callable[[Received], bool]) -> Received:
        """The next message that meets a condition; skips all before it."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            while self._unseen:
                received = self._unseen.popleft()
                self.received.append(received)
                if condition(received):
                    return received
            if self.subscriber.socket.poll(50):
                self._unseen.extend(self.subscriber.receive(1000))
        raise AssertionError(f"not received; last were {self.received[-5:]}")

    def book(self, update_id: int) -> BookMessage:
        received = self.wait(lambda r: getattr(r.message, "update_id", None) == update_id)
        assert isinstance(received.message, BookMessage)
        return received.message

    def link(self, event: LinkEvent, reason: str = "") -> LinkMessage:
        received = self.wait(lambda r: link_of(r)[:2] == (event, reason))
        assert isinstance(received.message, LinkMessage)
        return received.message

    # -- control ---------------------------------------------------------------------------------

    def reported(
        self, kind: str, condition: Callable[[dict[str, Any]], Any] = bool
    ) -> dict[str, Any]:
        """The next control message of a kind that meets a condition."""
        while self._router.poll(int(DEADLINE_S * 1000)):
            message = decode_map(self._router.recv_multipart()[1])
            if message["type"] == kind and condition(message):
                return message
        raise AssertionError(f"no such {kind} message")

    def status(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        message = self.reported("heartbeat", lambda m: "status" in m and condition(m["status"]))
        status: dict[str, Any] = message["status"]
        return status

    def command(self, kind: str, **fields: Any) -> None:
        self._router.send_multipart([NAME.encode(), encode_map({"type": kind, **fields})])

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float, str]:
        """Stop the process; exit code, seconds until it ended, and log."""
        assert self.process is not None
        started = time.monotonic()
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, time.monotonic() - started, errors

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        self._context.destroy(linger=0)


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path)
    yield harness
    harness.close()


@pytest.fixture
def venue() -> Iterator[Venue]:
    venue = Venue()
    yield venue
    venue.close()


def as_map(stream: Stream) -> dict[str, Any]:
    return {
        "kind": stream.kind,
        "category": stream.category,
        "symbol": stream.symbol,
        "depth": stream.depth,
    }


def test_data_is_published_in_order_with_a_sequence_per_topic(
    venue: Venue, harness: Harness
) -> None:
    harness.start(venue.url, BTC, BTC_TRADES, ETH)
    assert {"market": harness.open} == harness.reported("ready")["endpoints"]
    assert () == harness.link("connected").topics
    snapshot = harness.book(1)
    assert snapshot.is_snapshot
    harness.book(2)
    venue.push(book_text("BTCUSDT", 2, kind="delta"), trade_text("BTCUSDT", "BTCUSDT"))
    delta = harness.book(2)
    trades = harness.wait(lambda r: isinstance(r.message, TradesMessage)).message
    session = snapshot.session
    now_ns = time.time_ns()
    assert now_ns - 60e9 < delta.recv_ts_ns <= now_ns
    assert delta == BookMessage(
        1,
        "live",
        session,
        2,
        delta.recv_ts_ns,
        1790134716101,
        1790134716094,
        False,
        50,
        2,
        1,
        ((100.0, 1.0),),
        ((101.0, 2.0),),
    )
    assert trades == TradesMessage(
        1,
        "live",
        session,
        1,
        trades.recv_ts_ns,
        1791365008335,
        (Trade(1791365008334, "Buy", 100.0, 1.0, "0", None, False, False),),
    )
    links = [received for received in harness.received if received.topic == LINK]
    assert [
        (1, "connected", ()),
        (2, "subscribed", ("book.linear.BTCUSDT", "book.linear.ETHUSDT", "trade.linear.BTCUSDT")),
    ] == [(link.message.bus_sequence, *link_of(link)[::2]) for link in links]
    assert {NAME: 0} == harness.subscriber.lost


def test_it_connects_when_its_workers_listen_so_that_they_receive_the_first_snapshot(
    venue: Venue, harness: Harness
) -> None:
    harness.start(venue.url, BTC, listens=False)
    harness.reported("ready")
    assert [] == venue.connections
    harness.listen(LINK, BTC.topic_bytes)
    harness.link("connected")
    assert harness.book(1).is_snapshot


def test_without_workers_it_connects_after_a_while(venue: Venue, harness: Harness) -> None:
    harness.start(venue.url, BTC, listens=False)
    assert harness.status(lambda s: s["connected"])["session"] > 10**12
    assert "workers not ready, connecting" in harness.stop()[2]


def test_a_lost_connection_is_announced_at_once_and_a_new_session_follows(
    venue: Venue, harness: Harness
) -> None:
    harness.start(venue.url, BTC)
    first = harness.book(1)
    venue.connections[0].socket.shutdown(socket.SHUT_RDWR)
    assert first.session == harness.link("disconnected", "closed").session
    assert 1 == harness.link("connected").bus_sequence
    second = harness.book(2)
    assert second.session > first.session
    assert 1 == second.bus_sequence
    status = harness.status(lambda s: s["reconnects"])
    assert 1 == status["reconnects"]


def test_commands_subscribe_unsubscribe_and_resync(venue: Venue, harness: Harness) -> None:
    harness.start(venue.url, BTC)
    harness.book(1)
    harness.listen(ETH.topic_bytes)
    harness.command("subscribe", streams=[as_map(ETH), as_map(BTC_TRADES)])
    assert harness.book(2).is_snapshot
    harness.wait(lambda r: "trade.linear.BTCUSDT" in link_of(r)[2])

    def is_resynced() -> bool:
        harness.command("resync", topic="book.linear.ETHUSDT", reason="gap")
        return ["orderbook.50.ETHUSDT"] in venue.asked("unsubscribe")

    until(is_resynced)
    assert ("book.linear.ETHUSDT",) == harness.link("unsubscribed", "resync").topics
    assert harness.book(3).is_snapshot
    harness.command("unsubscribe", streams=[as_map(BTC), as_map(BTC_TRADES)])
    assert ("book.linear.BTCUSDT",) == harness.link("unsubscribed", "asked").topics
    assert ("trade.linear.BTCUSDT",) == harness.link("unsubscribed", "asked").topics
    status = harness.status(lambda s: s["topics"] == {"orderbook.50.ETHUSDT": "delivering"})
    assert 0 == status["reconnects"]


def test_a_change_of_the_source_starts_a_new_session(harness: Harness) -> None:
    sim, live = Venue(), Venue()
    live.update_id = 100
    harness.start(sim.url, BTC, source="sim")
    assert "sim" == harness.book(1).source
    harness.command("source", source="live", url=live.url)
    assert "sim" == harness.link("disconnected", "source_change").source
    assert "live" == harness.link("connected").source
    assert "live" == harness.book(101).source
    status = harness.status(lambda s: s["source"] == "live")
    assert live.url == status["url"]
    harness.stop()
    sim.close()
    live.close()


def test_unreadable_trades_are_announced_in_their_place(venue: Venue, harness: Harness) -> None:
    harness.start(venue.url, BTC, BTC_TRADES)
    harness.book(1)
    good = trade_text("BTCUSDT", "BTCUSDT")
    venue.push(good, good.replace('"p": "100"', '"p": "nan"'), good)

    def is_trades(received: Received) -> bool:
        return received.topic == BTC_TRADES.topic_bytes

    before = harness.wait(is_trades)
    assert ("trade.linear.BTCUSDT",) == harness.link("missed", "number").topics
    after = harness.wait(is_trades)
    assert [0, 0] == [before.lost, after.lost]
    assert ("trade.linear.BTCUSDT",) == harness.link("subscribed").topics


def test_status_and_counters_show_what_happened(venue: Venue, harness: Harness) -> None:
    nope = Stream(kind="book", category="linear", symbol="NOPEUSDT", depth=50)
    venue.refused.add("orderbook.50.NOPEUSDT")
    harness.start(venue.url, BTC, nope, BTC_TRADES)
    prometheus = harness.reported("ready")["prometheus"]
    rejected = harness.link("rejected", "refused")
    assert ("book.linear.NOPEUSDT",) == rejected.topics
    harness.book(1)
    venue.push("{", trade_text("BTCUSDT", "BTCUSDT"))
    status = harness.status(lambda s: s["trade_messages"] and s["ping_rtt_ms"])
    assert {
        "orderbook.50.BTCUSDT": "delivering",
        "orderbook.50.NOPEUSDT": "rejected",
        "publicTrade.BTCUSDT": "delivering",
    } == status["topics"]
    assert "handler not found" in status["rejected"]["orderbook.50.NOPEUSDT"]
    assert ["orderbook.50.NOPEUSDT"] == status["refused_topics"]
    assert abs(status["last_message_ts_ms"] - time.time() * 1000) < 60_000
    with urllib.request.urlopen(f"http://{prometheus}/metrics", timeout=DEADLINE_S) as answer:
        lines = answer.read().decode().splitlines()
    label = f'connector="{NAME}"'
    for line in (
        f"bybit_pipeline_connector_connected{{{label}}} 1.0",
        f'bybit_pipeline_connector_connects_total{{{label},result="ok"}} 1.0',
        f'bybit_pipeline_connector_connects_total{{{label},result="error"}} 0.0',
        f'bybit_pipeline_connector_reconnects_total{{{label},reason="dead_peer"}} 0.0',
        f'bybit_pipeline_connector_messages_total{{{label},stream="trade"}} 1.0',
        f'bybit_pipeline_connector_messages_total{{{label},stream="book"}} 1.0',
        f'bybit_pipeline_connector_frames_invalid_total{{{label},reason="json"}} 1.0',
        f'bybit_pipeline_connector_topics{{{label},state="rejected"}} 1.0',
        f'bybit_pipeline_connector_topics{{{label},state="delivering"}} 2.0',
        f'bybit_pipeline_exchange_latency_seconds_count{{{label},stream="trade"}} 1.0',
        f'bybit_pipeline_exchange_latency_seconds_count{{{label},stream="book"}} 0.0',
    ):
        assert line in lines
    assert any(line.startswith("bybit_pipeline_connector_ping_rtt_seconds_sum") for line in lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_promptly_and_announces_it(
    venue: Venue, harness: Harness, number: signal.Signals
) -> None:
    harness.start(venue.url, BTC)
    harness.book(1)
    code, seconds, errors = harness.stop(number)
    assert 0 == code
    assert seconds < 1.5
    assert harness.link("disconnected", "stopped")
    assert "Traceback" not in errors


def test_it_stops_promptly_while_it_waits_for_the_next_attempt(harness: Harness) -> None:
    settings = ConnectorConfig(backoff_initial_s=60.0)
    harness.start("ws://127.0.0.1:1/", BTC, settings=settings)
    assert harness.status(lambda s: s["reconnects"])["connected"] is False
    code, seconds, _ = harness.stop()
    assert 0 == code
    assert seconds < 1.5


def test_an_option_connector_publishes_each_contract_on_its_own_topic(harness: Harness) -> None:
    venue = Venue()
    call, put = "BTC-30OCT26-0.4-C-USDT", "BTC-30OCT26-0.4-P-USDT"
    streams = [Stream(kind="trade", category="option", symbol=symbol) for symbol in (call, put)]
    harness.start(venue.url, *streams)
    harness.link("subscribed")
    venue.push(trade_text("BTC", call, put, call))
    counts = []
    for _ in streams:
        received = harness.wait(lambda r: isinstance(r.message, TradesMessage))
        assert isinstance(received.message, TradesMessage)
        counts.append((received.topic, len(received.message.trades)))
    assert [
        (f"trade.option.{call}\0".encode(), 2),
        (f"trade.option.{put}\0".encode(), 1),
    ] == counts
    assert [["publicTrade.BTC"]] == venue.asked("subscribe")
    harness.stop()
    venue.close()


def test_the_log_has_one_line_per_event_and_none_per_message(
    venue: Venue, harness: Harness
) -> None:
    harness.start(venue.url, BTC)
    harness.book(1)
    for update_id in range(2, 200):
        venue.push(book_text("BTCUSDT", update_id, kind="delta"))
    harness.book(199)
    events = [json.loads(line)["event"] for line in harness.stop()[2].splitlines()]
    assert [
        "starting",
        "ready",
        "websocket connected",
        "topics subscribed",
        "stopping",
        "stopped",
    ] == events


BUGGY = """
import sys
from bybit_pipeline.processes.connector.actor import ConnectorActor
from bybit_pipeline.shared.runtime.actor import main
from bybit_pipeline.shared.settings.specs import ConnectorSpec

def broken(*_):
    raise KeyError("a bug of ours")

ConnectorActor._publish_book = broken
sys.exit(main(ConnectorActor, ConnectorSpec))
"""


def test_a_bug_in_the_socket_thread_is_announced_logged_once_and_ends_with_70(
    venue: Venue, harness: Harness
) -> None:
    harness.start(venue.url, BTC, program=["-c", BUGGY])
    assert harness.link("disconnected", "bug")
    assert harness.process is not None
    _, errors = harness.process.communicate(timeout=DEADLINE_S)
    assert 70 == harness.process.returncode
    assert 1 == errors.count("KeyError: 'a bug of ours'")
