"""The client against a small exchange, over real sockets."""

import json
import os
import queue
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from bybit_pipeline.processes.connector.client import CHECK_S, BybitWebSocketClient
from bybit_pipeline.processes.connector.protocol import BookUpdate, TradeBatch
from bybit_pipeline.shared.settings.config import ConnectorConfig
from bybit_pipeline.shared.wire.messages import Category
from tests.connector.venue import DEADLINE_S, Venue, book_text, trade_text, until
from tests.shared.network.exits import ConnectProxy, listener, resolve, swallowing

QUICK = ConnectorConfig(
    ping_interval_s=0.2,
    pong_timeout_s=0.4,
    silence_timeout_s=30.0,
    ack_timeout_s=0.5,
    backoff_initial_s=0.05,
    backoff_max_s=0.2,
)


class Feed:
    """A client and its callbacks, in order."""

    def __init__(self, url: str, category: Category = "linear", **given: Any) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.books: list[BookUpdate] = []
        options: dict[str, Any] = {"settings": QUICK, "rng": Random(1)} | given
        self.client = BybitWebSocketClient(
            self.on_trade,
            self.on_orderbook,
            url=url,
            category=category,
            on_link=self.on_link,
            **options,
        )

    def on_trade(self, symbol: str, batch: TradeBatch) -> None:
        self.seen.append(("trade", symbol, len(batch.trades)))

    def on_orderbook(self, symbol: str, update: BookUpdate) -> None:
        self.books.append(update)
        self.seen.append(("book", symbol, update.update_id))

    def on_link(self, event: str, reason: str, streams: Any) -> None:
        self.seen.append((event, reason, *(f"{kind} {symbol}" for kind, symbol in streams)))

    def wait(self, *entry: Any) -> None:
        until(lambda: entry in self.seen, f"{entry}, only {self.seen}")

    def count(self, kind: str) -> int:
        return len([entry for entry in self.seen if entry[0] == kind])


@pytest.fixture
def venue() -> Iterator[Venue]:
    venue = Venue()
    yield venue
    venue.close()


@pytest.fixture
def make_feed() -> Iterator[Callable[..., Feed]]:
    feeds: list[Feed] = []

    def make(url: str, category: Category = "linear", **options: Any) -> Feed:
        feeds.append(Feed(url, category, **options))
        return feeds[-1]

    yield make
    for feed in feeds:
        assert feed.client.stop()


MakeFeed = Callable[..., Feed]


def test_data_arrives_after_connection_and_subscriptions_are_announced(
    venue: Venue, make_feed: MakeFeed
) -> None:
    feed = make_feed(venue.url)
    feed.client.subscribe_orderbook("BTCUSDT", 50)
    feed.client.subscribe_trades("BTCUSDT")
    feed.client.start()
    feed.wait("book", "BTCUSDT", 1)
    venue.push(trade_text("BTCUSDT", "BTCUSDT", "BTCUSDT"), book_text("BTCUSDT", 2, kind="delta"))
    feed.wait("book", "BTCUSDT", 2)
    assert [
        ("connected", ""),
        ("subscribed", "", "book BTCUSDT", "trade BTCUSDT"),
        ("book", "BTCUSDT", 1),
        ("trade", "BTCUSDT", 2),
        ("book", "BTCUSDT", 2),
    ] == feed.seen
    assert feed.client.connected
    assert {
        "orderbook.50.BTCUSDT": "delivering",
        "publicTrade.BTCUSDT": "delivering",
    } == feed.client.topics()
    assert [["orderbook.50.BTCUSDT", "publicTrade.BTCUSDT"]] == venue.asked("subscribe")
    now_ms = time.time_ns() // 1_000_000
    assert now_ms - 60_000 < feed.client.session <= now_ms
    assert abs(feed.books[0].recv_ts_ns // 1_000_000 - now_ms) < 60_000


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_a_forked_child_it_is_not_connected(venue: Venue, make_feed: MakeFeed) -> None:
    """The child has none of the threads: nothing arrives there."""
    feed = make_feed(venue.url)
    feed.client.start()
    until(lambda: feed.client.connected)
    pid = os.fork()
    if pid == 0:
        os._exit(int(feed.client.connected))
    assert 0 == os.waitpid(pid, 0)[1]
    assert feed.client.connected


def test_after_a_lost_connection_everything_is_subscribed_again(
    venue: Venue, make_feed: MakeFeed
) -> None:
    feed = make_feed(venue.url)
    feed.client.subscribe_orderbooks([("BTCUSDT", 50), ("ETHUSDT", 200)])
    feed.client.start()
    feed.wait("book", "ETHUSDT", 2)
    first = feed.client.session
    venue.connections[0].socket.shutdown(socket.SHUT_RDWR)
    feed.wait("book", "ETHUSDT", 4)
    assert [("disconnected", "closed"), ("connected", "")] == feed.seen[4:6]
    assert feed.client.session > first
    assert 1 == feed.client.counts.reconnects["closed"]
    assert 2 == feed.client.counts.connects


def test_a_close_frame_counts_as_closed(venue: Venue, make_feed: MakeFeed) -> None:
    feed = make_feed(venue.url)
    feed.client.start()
    feed.wait("connected", "")
    until(lambda: venue.connections)
    venue.connections[0].close(1012, "restart")
    feed.wait("disconnected", "closed")


def test_a_refused_topic_is_named_and_the_others_are_served(
    venue: Venue, make_feed: MakeFeed
) -> None:
    venue.refused.add("orderbook.50.NOPEUSDT")
    feed = make_feed(venue.url)
    feed.client.subscribe_orderbooks([("BTCUSDT", 50), ("NOPEUSDT", 50), ("ETHUSDT", 50)])
    feed.client.start()
    feed.wait("book", "ETHUSDT", 2)
    assert ("rejected", "refused", "book NOPEUSDT") in feed.seen
    assert "rejected" == feed.client.topics()["orderbook.50.NOPEUSDT"]
    assert "handler not found" in feed.client.rejected()["orderbook.50.NOPEUSDT"]


def test_a_connection_without_pongs_is_given_up_as_dead(venue: Venue, make_feed: MakeFeed) -> None:
    venue.pongs = False
    feed = make_feed(venue.url)
    feed.client.subscribe_orderbook("BTCUSDT", 50)
    feed.client.start()
    feed.wait("disconnected", "dead_peer")
    feed.wait("book", "BTCUSDT", 2)


def test_round_trips_are_measured_from_the_start(venue: Venue, make_feed: MakeFeed) -> None:
    times: list[float] = []
    feed = make_feed(venue.url, on_ping=times.append)
    feed.client.start()
    until(lambda: len(times) >= 2)
    assert all(0 < rtt < DEADLINE_S for rtt in times)
    assert feed.client.ping_rtt_s in times


def test_pongs_do_not_count_as_data(venue: Venue, make_feed: MakeFeed) -> None:
    settings = ConnectorConfig(
        ping_interval_s=0.05, silence_timeout_s=0.3, backoff_initial_s=0.05, backoff_max_s=0.1
    )
    feed = make_feed(venue.url, settings=settings)
    feed.client.subscribe_trades("BTCUSDT")
    feed.client.start()
    feed.wait("disconnected", "silence")
    assert 0 == feed.client.counts.reconnects["dead_peer"]


def test_a_silent_replay_keeps_its_connection(venue: Venue, make_feed: MakeFeed) -> None:
    settings = ConnectorConfig(ping_interval_s=0.05, silence_timeout_s=0.01)
    times: list[float] = []
    feed = make_feed(venue.url, settings=settings, silence_matters=False, on_ping=times.append)
    feed.client.subscribe_trades("BTCUSDT")
    feed.client.start()
    until(lambda: len(times) >= 5)
    assert 1 == feed.client.counts.connects


def test_a_resync_brings_a_snapshot_of_that_book_only(venue: Venue, make_feed: MakeFeed) -> None:
    feed = make_feed(venue.url)
    feed.client.subscribe_orderbooks([("BTCUSDT", 50), ("ETHUSDT", 50)])
    feed.client.start()
    feed.wait("book", "ETHUSDT", 2)
    assert not feed.client.resync_orderbook("XRPUSDT")

    def is_resynced() -> bool:
        # Repeated as by a worker: the first request may arrive too soon after the snapshot.
        assert feed.client.resync_orderbook("BTCUSDT")
        return ("book", "BTCUSDT", 3) in feed.seen

    until(is_resynced)
    assert [["orderbook.50.BTCUSDT"]] == venue.asked("unsubscribe")
    assert [
        ("unsubscribed", "resync", "book BTCUSDT"),
        ("subscribed", "", "book BTCUSDT"),
        ("book", "BTCUSDT", 3),
    ] == feed.seen[4:7]


def test_a_delta_before_its_snapshot_is_dropped(venue: Venue, make_feed: MakeFeed) -> None:
    venue.snapshots = False
    feed = make_feed(venue.url)
    feed.client.subscribe_orderbook("BTCUSDT", 50)
    feed.client.start()
    feed.wait("subscribed", "", "book BTCUSDT")
    venue.push(book_text("BTCUSDT", 7, kind="delta"), book_text("BTCUSDT", 8))
    feed.wait("book", "BTCUSDT", 8)
    assert ("book", "BTCUSDT", 7) not in feed.seen
    assert 1 == feed.client.unexpected_frames


def test_topics_are_added_and_removed_while_connected(venue: Venue, make_feed: MakeFeed) -> None:
    feed = make_feed(venue.url)
    feed.client.subscribe_orderbook("BTCUSDT", 50)
    feed.client.start()
    feed.wait("book", "BTCUSDT", 1)
    feed.client.subscribe_orderbook("ETHUSDT", 50)
    feed.wait("book", "ETHUSDT", 2)
    feed.client.unsubscribe_orderbook("BTCUSDT", "UNKNOWN")
    feed.wait("unsubscribed", "asked", "book BTCUSDT")
    venue.push(book_text("BTCUSDT", 3, kind="delta"), book_text("ETHUSDT", 4, kind="delta"))
    feed.wait("book", "ETHUSDT", 4)
    assert ("book", "BTCUSDT", 3) not in feed.seen
    assert {"orderbook.50.ETHUSDT": "delivering"} == feed.client.topics()


def test_option_trades_share_the_topic_of_their_coin(venue: Venue, make_feed: MakeFeed) -> None:
    call, put, other = "BTC-30OCT26-1-C", "BTC-30OCT26-1-P", "BTC-30OCT26-2-C"
    feed = make_feed(venue.url, "option")
    feed.client.subscribe_trades(call)
    feed.client.start()
    feed.wait("subscribed", "", f"trade {call}")
    feed.client.subscribe_trades(put)
    feed.wait("subscribed", "", f"trade {put}")
    venue.push(trade_text("BTC", call, other, put, call))
    feed.wait("trade", put, 1)
    assert ("trade", call, 2) in feed.seen
    assert ("trade", other, 1) not in feed.seen
    feed.client.unsubscribe_trades(call)
    feed.wait("unsubscribed", "asked", f"trade {call}")
    venue.push(trade_text("BTC", call, put, put))
    feed.wait("trade", put, 2)
    assert [] == venue.asked("unsubscribe")
    assert [["publicTrade.BTC"]] == venue.asked("subscribe")


def test_invalid_frames_are_counted_by_reason_and_skipped(
    venue: Venue, make_feed: MakeFeed
) -> None:
    feed = make_feed(venue.url)
    feed.client.subscribe_orderbook("BTCUSDT", 50)
    feed.client.start()
    feed.wait("book", "BTCUSDT", 1)
    bad_price = book_text("BTCUSDT", 2, kind="delta").replace('"100"', '"nan"')
    venue.push("{", bad_price, bad_price, book_text("XRPUSDT", 1), b"binary", '{"op":"what"}')
    venue.push(book_text("BTCUSDT", 3, kind="delta"))
    feed.wait("book", "BTCUSDT", 3)
    counted = {reason: n for reason, n in feed.client.counts.invalid.items() if n}
    assert {"json": 1, "number": 2, "topic": 1, "binary": 1, "control": 1} == counted
    assert 1 == feed.client.counts.connects


def trades_feed(venue: Venue, make_feed: MakeFeed) -> Feed:
    """A client that receives the trades of two symbols and the book of one."""
    feed = make_feed(venue.url)
    feed.client.subscribe_trades("BTCUSDT", "ETHUSDT")
    feed.client.subscribe_orderbook("BTCUSDT", 50)
    feed.client.start()
    feed.wait("book", "BTCUSDT", 1)
    return feed


def in_order(feed: Feed, *kinds: str) -> list[Any]:
    """The callbacks with trades and missed trades, and of further kinds."""
    entries = [entry for entry in feed.seen if entry[0] in ("trade", "missed", *kinds)]
    return [entry[0] if entry[0] == "trade" else entry for entry in entries]


BOTH = ("trade BTCUSDT", "trade ETHUSDT")


@pytest.mark.parametrize(
    ("unreadable", "reason", "missed"),
    [
        ("{", "json", BOTH),
        ("[]", "schema", BOTH),
        (b"\x00\x01", "binary", BOTH),
        (trade_text("ETHUSDT", "ETHUSDT").encode(), "binary", BOTH[1:]),
        (trade_text("ETHUSDT", "ETHUSDT")[:60], "json", BOTH[1:]),
        (trade_text("ETHUSDT", "ETHUSDT")[:16], "json", BOTH),
    ],
)
def test_missed_trades_are_announced_in_their_place(
    venue: Venue, make_feed: MakeFeed, unreadable: str | bytes, reason: str, missed: tuple[str, ...]
) -> None:
    feed = trades_feed(venue, make_feed)
    good = trade_text("BTCUSDT", "BTCUSDT")
    venue.push(good, unreadable, good, book_text("BTCUSDT", 2, kind="delta"))
    feed.wait("book", "BTCUSDT", 2)
    assert ["trade", ("missed", reason, *missed), "trade"] == in_order(feed)


@pytest.mark.parametrize(
    "harmless",
    [
        '{"op":"what"}',
        '{"success":"maybe","ret_msg":"pong?"}',
        book_text("BTCUSDT", 2, kind="delta")[:-9],
        book_text("BTCUSDT", 2, kind="delta").replace('"100"', '"nan"'),
        book_text("BTCUSDT", 2, kind="delta")[:-9].encode(),
        book_text("XRPUSDT", 1),
        trade_text("XRPUSDT", "XRPUSDT").replace('"100"', '"nan"'),
        '{"topic":"tickers.BTCUSDT","type":"snapshot","ts":1790134716101,"data":{}}',
    ],
)
def test_a_bad_message_without_trades_of_ours_is_not_announced(
    venue: Venue, make_feed: MakeFeed, harmless: str | bytes
) -> None:
    feed = trades_feed(venue, make_feed)
    venue.push(harmless, book_text("BTCUSDT", 3, kind="delta"))
    feed.wait("book", "BTCUSDT", 3)
    assert 1 == sum(feed.client.counts.invalid.values())
    assert [] == in_order(feed)


def test_missed_trades_are_announced_again_after_trades_arrived(
    venue: Venue, make_feed: MakeFeed
) -> None:
    feed = trades_feed(venue, make_feed)
    good = trade_text("BTCUSDT", "BTCUSDT")
    venue.push("{", "[", b"x", good, "{", "{", book_text("BTCUSDT", 2, kind="delta"))
    feed.wait("book", "BTCUSDT", 2)
    assert [("missed", "json", *BOTH), "trade", ("missed", "json", *BOTH)] == in_order(feed)


def test_missed_trades_are_announced_as_flowing_when_no_more_are_missed(
    venue: Venue, make_feed: MakeFeed
) -> None:
    feed = trades_feed(venue, make_feed)
    venue.push("{")
    feed.wait("missed", "json", *BOTH)
    assert 0 == feed.seen.count(("subscribed", "", *BOTH))
    feed.wait("subscribed", "", *BOTH)
    venue.push("{")
    until(lambda: feed.count("missed") == 2)
    feed.client.unsubscribe_trades("BTCUSDT")
    feed.wait("subscribed", "", BOTH[1])


def test_missed_trades_are_announced_again_after_they_were_announced_as_flowing(
    venue: Venue, make_feed: MakeFeed
) -> None:
    feed = trades_feed(venue, make_feed)
    venue.push("{")
    feed.wait("missed", "json", *BOTH)
    assert feed.client.announce_trades("ETHUSDT")
    feed.wait("subscribed", "", BOTH[1])
    venue.push("{")
    until(lambda: feed.count("missed") == 2)


def test_missed_trades_are_announced_again_on_a_new_connection(
    venue: Venue, make_feed: MakeFeed
) -> None:
    feed = trades_feed(venue, make_feed)
    venue.push("{")
    feed.wait("missed", "json", *BOTH)
    venue.connections[0].socket.shutdown(socket.SHUT_RDWR)
    feed.wait("book", "BTCUSDT", 2)
    venue.push("{")
    until(lambda: feed.count("missed") == 2)


def test_a_message_above_the_limit_ends_the_connection(
    venue: Venue, make_feed: MakeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "bybit_pipeline.processes.connector.buffered_websocket.MAX_FRAME_BYTES", 100_000
    )
    feed = make_feed(venue.url)
    feed.client.start()
    feed.wait("connected", "")
    until(lambda: venue.connections)
    venue.push("x" * 200_000)
    feed.wait("disconnected", "too_large")


def test_a_failed_attempt_is_shown_with_its_reason_and_the_time_of_the_next(
    make_feed: MakeFeed,
) -> None:
    settings = ConnectorConfig(backoff_initial_s=30.0, backoff_max_s=30.0)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"ws://127.0.0.1:{closed.getsockname()[1]}/"
    feed = make_feed(url, settings=settings)
    assert feed.client.counts.failure is None
    feed.client.start()
    failure = until(lambda: (f := feed.client.counts.failure) and f.next_attempt_ts_ms and f)
    assert "refused" == failure.name
    assert "ConnectionRefusedError" in failure.detail
    assert 20_000 < failure.next_attempt_ts_ms - time.time() * 1000 < 31_000


@pytest.mark.parametrize("value", ["60", "http-date"])
def test_a_server_that_limits_connections_decides_about_the_pause(
    make_feed: MakeFeed, value: str
) -> None:
    if value == "http-date":
        value = formatdate(time.time() + 60.0, usegmt=True)
    response = f"HTTP/1.1 429 Too Many Requests\r\nRetry-After: {value}\r\n\r\n".encode()

    def refuse(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(response)

    with listener(refuse) as port:
        feed = make_feed(f"ws://127.0.0.1:{port}/")
        feed.client.start()
        failure = until(lambda: (f := feed.client.counts.failure) and f.next_attempt_ts_ms and f)
        assert ("429", "HTTP 429 Too Many Requests") == (failure.name, failure.detail)
        assert 50_000 < failure.next_attempt_ts_ms - time.time() * 1000 < 61_000
        assert 1 == feed.client.counts.failed_connects


@pytest.mark.parametrize("from_environment", [True, False])
def test_it_connects_through_the_proxy(
    venue: Venue, make_feed: MakeFeed, monkeypatch: pytest.MonkeyPatch, from_environment: bool
) -> None:
    proxy = ConnectProxy(venue.port, credentials="me:pass")
    with listener(proxy) as port:
        url, settings = f"http://me:pass@127.0.0.1:{port}", QUICK
        if from_environment:
            monkeypatch.setenv("HTTP_PROXY", url)
        else:
            settings = msgspec.structs.replace(QUICK, proxy=url)
        feed = make_feed(f"ws://stream.invalid:{venue.port}/v5/public/linear", settings=settings)
        feed.client.subscribe_orderbook("BTCUSDT", 50)
        feed.client.start()
        feed.wait("book", "BTCUSDT", 1)
    assert {f"CONNECT stream.invalid:{venue.port} HTTP/1.1"} == set(proxy.requests)


def test_a_proxy_that_refuses_is_the_shown_reason(
    make_feed: MakeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listener(ConnectProxy(0, credentials="me:pass")) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        feed = make_feed("ws://stream.invalid/v5/public/linear")
        feed.client.start()
        failure = until(lambda: feed.client.counts.failure)
    assert "proxy" == failure.name
    assert "(HTTP_PROXY): refused the tunnel to stream.invalid:80: 407" in failure.detail


def test_it_connects_within_seconds_when_the_first_address_swallows_packets(
    venue: Venue, make_feed: MakeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    with swallowing() as first:
        resolve(monkeypatch, two_test=[first, venue.port])
        feed = make_feed(f"ws://two.test:{venue.port}/v5/public/linear")
        began = time.monotonic()
        feed.client.start()
        feed.wait("connected", "")
        assert time.monotonic() - began < 3.0


def test_an_open_connection_shows_no_failure_and_a_lost_one_its_reason(
    venue: Venue, make_feed: MakeFeed
) -> None:
    feed = make_feed(venue.url)
    feed.client.start()
    feed.wait("connected", "")
    until(lambda: venue.connections)
    assert feed.client.counts.failure is None
    venue.connections[0].close(1012, "restart")
    failure = until(lambda: feed.client.counts.failure)
    assert "closed" == failure.name
    until(lambda: feed.client.connected)
    assert feed.client.counts.failure is None


def test_a_change_of_the_source_connects_elsewhere_at_once(make_feed: MakeFeed) -> None:
    one, two = Venue(), Venue()
    slow = ConnectorConfig(backoff_initial_s=60.0)
    feed = make_feed(one.url, settings=slow, source="sim")
    feed.client.subscribe_orderbook("BTCUSDT", 50)
    feed.client.start()
    feed.wait("book", "BTCUSDT", 1)
    assert "sim" == feed.client.source
    first = feed.client.session
    feed.client.change_source(two.url, "live")
    until(lambda: feed.count("book") == 2)
    assert ("disconnected", "source_change") in feed.seen
    assert ("live", two.url) == (feed.client.source, feed.client.url)
    assert feed.client.session > first
    one.close()
    two.close()


def test_a_change_of_the_source_ends_the_wait_for_the_next_attempt(
    venue: Venue, make_feed: MakeFeed
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    feed = make_feed(f"ws://127.0.0.1:{port}/", settings=ConnectorConfig(backoff_initial_s=60.0))
    feed.client.start()
    until(lambda: feed.client.counts.reconnects["refused"])
    feed.client.change_source(venue.url, "live")
    feed.wait("connected", "")


# -- TLS, stopping and bugs -----------------------------------------------------------------------


def test_two_threads_read_and_write_one_tls_connection(
    certificate: tuple[Path, Path], make_feed: MakeFeed
) -> None:
    cert, key = certificate
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(cert, key)
    received: queue.SimpleQueue[str] = queue.SimpleQueue()

    def talk(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            for text in connection:
                request = json.loads(text)
                received.put(request["op"])
                if request["op"] == "ping":
                    connection.send('{"op":"pong"}')
                else:
                    for update_id in range(3000):
                        kind = "delta" if update_id else "snapshot"
                        connection.send(book_text("BTCUSDT", update_id, kind=kind))

    server = serve(talk, "127.0.0.1", 0, ssl=server_tls, compression=None)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    client_tls = ssl.create_default_context(cafile=str(cert))
    settings = ConnectorConfig(ping_interval_s=0.001)
    url = f"wss://localhost:{server.socket.getsockname()[1]}/"
    feed = make_feed(url, tls=client_tls, settings=settings)
    feed.client.subscribe_orderbook("BTCUSDT", 50)
    feed.client.start()
    feed.wait("book", "BTCUSDT", 2999)
    assert [update.update_id for update in feed.books] == list(range(3000))
    assert 1 == feed.client.counts.connects
    assert feed.client.stop()
    server.shutdown()
    thread.join()


def stop_promptly(client: BybitWebSocketClient) -> None:
    started = time.monotonic()
    assert client.stop()
    assert time.monotonic() - started < 3.0


def test_it_stops_promptly_while_it_reads(venue: Venue) -> None:
    feed = Feed(venue.url)
    feed.client.start()
    feed.wait("connected", "")
    stop_promptly(feed.client)
    assert ("disconnected", "stopped") == feed.seen[-1]
    assert not feed.client.connected


def test_it_stops_promptly_while_it_waits_for_the_next_attempt() -> None:
    feed = Feed("ws://127.0.0.1:1/", settings=ConnectorConfig(backoff_initial_s=60.0))
    feed.client.start()
    until(lambda: feed.client.counts.reconnects["refused"])
    stop_promptly(feed.client)


def test_it_stops_promptly_during_the_handshake() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        feed = Feed(f"ws://127.0.0.1:{server.getsockname()[1]}/")
        feed.client.start()
        connection, _ = server.accept()
        assert connection.recv(10)
        stop_promptly(feed.client)
        connection.close()


def test_it_stops_promptly_during_a_dns_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, released = threading.Event(), threading.Event()

    def look_up(*_args: object, **_options: object) -> list[Any]:
        asked.set()
        released.wait(DEADLINE_S)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    feed = Feed("ws://slow.invalid/")
    feed.client.start()
    assert asked.wait(DEADLINE_S)
    stop_promptly(feed.client)
    released.set()


def test_a_handshake_that_trickles_is_given_up_after_the_timeout() -> None:
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        feed = Feed(f"ws://127.0.0.1:{server.getsockname()[1]}/", connect_timeout_s=0.2)
        feed.client.start()
        connection, _ = server.accept()

        def drip() -> None:
            with suppress(OSError):
                for byte in b"HTTP/1.1 101 Switching Protocols\r\n" + b"x: y\r\n" * 10_000:
                    connection.sendall(bytes([byte]))
                    if done.wait(CHECK_S / 2):
                        return

        dripper = threading.Thread(target=drip)
        dripper.start()
        until(lambda: feed.client.counts.reconnects["timeout"])
        done.set()
        dripper.join()
        connection.close()
        assert feed.client.stop()


BUGGY = """
from bybit_pipeline.processes.connector.client import BybitWebSocketClient
import sys, time
def broken(symbol, update):
    raise KeyError("a bug of ours")
client = BybitWebSocketClient(broken, broken, url=sys.argv[1])
client.subscribe_orderbook("BTCUSDT", 50)
client.start()
time.sleep(30)
"""


def test_an_exception_in_a_callback_ends_the_process_with_70_and_one_traceback(
    venue: Venue,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUGGY, venue.url], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert 70 == done.returncode
    assert 1 == (done.stdout + done.stderr).count("KeyError: 'a bug of ours'")


# -- arguments -----------------------------------------------------------------------------------


def test_a_depth_out_of_range_is_rejected() -> None:
    client = BybitWebSocketClient(print, print)
    with pytest.raises(ValueError, match="depth 0"):
        client.subscribe_orderbook("BTCUSDT", 0)


def test_a_second_depth_of_a_symbol_is_rejected() -> None:
    client = BybitWebSocketClient(print, print)
    client.subscribe_orderbook("BTCUSDT", 50)
    client.subscribe_orderbook("BTCUSDT", 50)
    with pytest.raises(ValueError, match="subscribed at depth 50"):
        client.subscribe_orderbook("BTCUSDT", 200)
    assert {"orderbook.50.BTCUSDT": "pending"} == client.topics()
