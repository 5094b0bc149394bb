"""Topics of the synthetic market, as seen by a client that follows the exchange's rules."""

import datetime as dt
import json
from collections import Counter
from typing import Any

import pytest

from bybit_pipeline.processes.simulator.feed import TopicKey
from bybit_pipeline.processes.simulator.market.instruments import instrument_named
from bybit_pipeline.processes.simulator.market.synthetic import (
    LEVEL_1_REPEAT_MS,
    PUSH_PERIOD_MS,
    SyntheticFeed,
)
from bybit_pipeline.shared.wire.messages import Category
from tests.naive import NaiveBook

TODAY = dt.date(2026, 8, 9)
START_MS = 1_786_310_817_000
SYMBOLS: dict[Category, str] = {
    "linear": "BTCUSDT",
    "spot": "BTCUSDT",
    "inverse": "BTCUSD",
    "option": "BTC-14AUG26-65000-C-USDT",
}
BOOKS = [(category, depth) for category in SYMBOLS for depth in PUSH_PERIOD_MS[category]]


def feed(*, seed: int = 1, rate: float | None = None) -> SyntheticFeed:
    """Return a feed with one instrument per category."""
    instruments = [instrument_named(each, SYMBOLS[each], TODAY) for each in SYMBOLS]
    return SyntheticFeed(instruments, seed=seed, rate=rate)


def book_key(category: Category, depth: int) -> TopicKey:
    """Return the book topic of the category's instrument."""
    return (category, f"orderbook.{depth}.{SYMBOLS[category]}")


def received(source: SyntheticFeed, start_ms: int, end_ms: int) -> list[tuple[int, Any]]:
    """Poll every 10 ms; return ``(time, message)`` pairs."""
    return [
        (now_ms, json.loads(payload))
        for now_ms in range(start_ms, end_ms, 10)
        for _, payload in source.poll(now_ms)
    ]


def server_side(source: SyntheticFeed, category: Category, depth: int) -> Any:
    """Return the server's top levels in the form of a client's book."""
    instrument = source.market.instruments[(category, SYMBOLS[category])]
    book = source.market.open((category, SYMBOLS[category]), 0).book
    return tuple(
        [
            [float(instrument.tick.text(ticks)), float(instrument.lot.text(lots))]
            for ticks, lots in side.levels(depth)
        ]
        for side in (book.bids, book.asks)
    )


@pytest.mark.parametrize(("category", "depth"), BOOKS)
def test_a_naive_client_book_equals_the_servers_top_levels_at_every_message(
    category: Category, depth: int
) -> None:
    """``u`` is consecutive, and the book is never crossed or deeper than subscribed."""
    source = feed()
    key = book_key(category, depth)
    client = NaiveBook()
    client.apply(json.loads(source.join(key, START_MS)[0]))
    assert server_side(source, category, depth) == client.best(depth + 1)
    last_ms, messages = START_MS, 0
    for now_ms in range(START_MS + 10, START_MS + 30_000, 10):
        for _, payload in source.poll(now_ms):
            message = json.loads(payload)
            assert client.update_id + 1 == message["data"]["u"]
            assert message["type"] == ("snapshot" if depth == 1 else "delta")
            assert now_ms - last_ms >= PUSH_PERIOD_MS[category][depth]
            assert message["cts"] <= message["ts"] == now_ms
            client.apply(message)
            assert server_side(source, category, depth) == client.best(depth + 1)
            assert max(client.bids) < min(client.asks)
            last_ms, messages = now_ms, messages + 1
    assert messages > 20


def test_deltas_never_delete_a_level_that_a_client_does_not_have() -> None:
    """A common client would crash."""
    source = feed(seed=3)
    key = book_key("linear", 50)
    client = NaiveBook()
    client.apply(json.loads(source.join(key, START_MS)[0]))
    deletions = 0
    for _, message in received(source, START_MS, START_MS + 20_000):
        for side, rows in (
            (client.bids, message["data"]["b"]),
            (client.asks, message["data"]["a"]),
        ):
            deleted = [float(price) for price, size in rows if size == "0"]
            assert set(deleted) <= set(side)
            deletions += len(deleted)
        client.apply(message)
    assert deletions > 100


def test_the_snapshot_of_a_late_subscriber_has_the_last_u() -> None:
    """The next delta fits the books of both subscribers."""
    source = feed()
    key = book_key("linear", 50)
    first, second = NaiveBook(), NaiveBook()
    first.apply(json.loads(source.join(key, START_MS)[0]))
    for _, message in received(source, START_MS, START_MS + 5_000):
        first.apply(message)
    second.apply(json.loads(source.join(key, START_MS + 5_000)[0]))
    assert first.update_id == second.update_id
    assert first.best(50) == second.best(50)
    messages = received(source, START_MS + 5_000, START_MS + 6_000)
    assert messages
    for _, message in messages:
        assert second.update_id + 1 == message["data"]["u"]
        first.apply(message)
        second.apply(message)
        assert first.best(51) == second.best(51)


def test_subscribing_again_gives_a_new_snapshot_with_a_later_u() -> None:
    """The ``u`` of a topic never decreases while the exchange runs."""
    source = feed()
    key = book_key("linear", 50)
    source.join(key, START_MS)
    last = received(source, START_MS, START_MS + 2_000)[-1][1]["data"]["u"]
    source.leave(key)
    assert [] == received(source, START_MS + 2_000, START_MS + 3_000)
    snapshot = json.loads(source.join(key, START_MS + 3_000)[0])
    assert snapshot["type"] == "snapshot"
    assert snapshot["data"]["u"] > last


def test_a_silent_level_1_topic_is_repeated_with_the_same_u() -> None:
    """Every three seconds without a change it is sent with a new ``ts`` and ``seq``."""
    instrument = instrument_named("linear", "SNTUSDT", TODAY)
    source = SyntheticFeed([instrument], seed=1, rate=0.001)
    snapshot = json.loads(source.join(("linear", "orderbook.1.SNTUSDT"), START_MS)[0])
    repeats = received(source, START_MS, START_MS + 10_000)
    assert [START_MS + LEVEL_1_REPEAT_MS * count for count in (1, 2, 3)] == [
        now_ms for now_ms, _ in repeats
    ]
    for _, repeat in repeats:
        assert repeat["data"]["u"] == snapshot["data"]["u"]
        assert repeat["data"]["b"] == snapshot["data"]["b"]
        assert repeat["data"]["seq"] > snapshot["data"]["seq"]


def test_deeper_topics_are_not_repeated() -> None:
    instrument = instrument_named("linear", "SNTUSDT", TODAY)
    source = SyntheticFeed([instrument], seed=1, rate=0.001)
    source.join(("linear", "orderbook.50.SNTUSDT"), START_MS)
    assert [] == received(source, START_MS, START_MS + 10_000)


def test_trades_are_ordered_by_match_time() -> None:
    """No match time is later than the ``ts`` of the message."""
    source = feed(rate=400)
    source.join(("linear", "publicTrade.BTCUSDT"), START_MS)
    messages = [message for _, message in received(source, START_MS, START_MS + 5_000)]
    assert len(messages) > 1000
    times = [row["T"] for message in messages for row in message["data"]]
    assert times == sorted(times)
    assert all(message["data"][-1]["T"] <= message["ts"] for message in messages)


def test_option_trades_share_a_topic_and_name_their_contract() -> None:
    """``publicTrade.BTC`` has the trades of every bitcoin contract."""
    instruments = [
        instrument_named("option", f"BTC-14AUG26-{strike}-C-USDT", TODAY)
        for strike in (64_000, 65_000)
    ]
    source = SyntheticFeed(instruments, seed=1, rate=50)
    assert not source.serves(("option", "publicTrade.BTC-14AUG26-64000-C-USDT"))
    source.join(("option", "publicTrade.BTC"), START_MS)
    messages = received(source, START_MS, START_MS + 5_000)
    assert {"publicTrade.BTC"} == {message["topic"] for _, message in messages}
    assert {each.symbol for each in instruments} == {
        row["s"] for _, message in messages for row in message["data"]
    }


@pytest.mark.parametrize("rate", [20.0, 300.0, 3000.0])
def test_rate_sets_the_messages_per_second_over_all_topics(rate: float) -> None:
    """It is met within a quarter, from 20 to 3,000 messages per second."""
    source = feed(rate=rate)
    for key in (
        book_key("linear", 50),
        ("linear", "publicTrade.BTCUSDT"),
        book_key("spot", 200),
        ("spot", "publicTrade.BTCUSDT"),
    ):
        source.join(key, START_MS)
    seconds = 20 if rate < 1000 else 4
    messages = received(source, START_MS, START_MS + seconds * 1000)
    assert len(messages) / seconds == pytest.approx(rate, rel=0.25)
    assert server_side(source, "linear", 50)[0]


def test_the_market_skips_a_long_pause() -> None:
    """A machine suspended for a minute does not send the missed trades in one burst."""
    source = feed(rate=500)
    source.join(("linear", "publicTrade.BTCUSDT"), START_MS)
    assert len(received(source, START_MS, START_MS + 1_000)) > 300
    awake_ms = START_MS + 60_000
    burst = received(source, awake_ms, awake_ms + 100)
    assert len(burst) < 100
    assert all(row["T"] >= awake_ms for _, message in burst for row in message["data"])


def test_natural_rates_are_those_of_the_exchange() -> None:
    """A major has about 30 messages per second at 50 levels and about 10 at 200."""
    source = feed()
    source.join(book_key("linear", 50), START_MS)
    source.join(book_key("linear", 200), START_MS)
    counts = Counter(
        message["topic"].split(".")[1]
        for _, message in received(source, START_MS, START_MS + 20_000)
    )
    assert 25 < counts["50"] / 20 < 40
    assert 8 < counts["200"] / 20 <= 10


def test_the_same_seed_sends_the_same_bytes() -> None:
    """Trade ids and update ids are the same as well."""

    def run(seed: int) -> list[bytes]:
        source = feed(seed=seed)
        frames = source.join(book_key("spot", 50), START_MS)
        source.join(("spot", "publicTrade.BTCUSDT"), START_MS)
        for now_ms in range(START_MS, START_MS + 3_000, 10):
            frames += [payload for _, payload in source.poll(now_ms)]
        return frames

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize(
    ("category", "topic", "is_served"),
    [
        ("linear", "orderbook.50.BTCUSDT", True),
        ("linear", "orderbook.500.BTCUSDT", False),
        ("linear", "orderbook.050.BTCUSDT", False),
        ("linear", "orderbook.50.btcusdt", False),
        ("linear", "orderbook.50.NOPEUSDT", False),
        ("linear", "orderbook.50", False),
        ("linear", "publicTrade.BTCUSDT", True),
        ("linear", "publicTrade.", False),
        ("linear", "tickers.BTCUSDT", False),
        ("linear", "order", False),
        ("linear", "", False),
        ("spot", "orderbook.1.BTCUSDT", True),
        ("inverse", "orderbook.50.BTCUSDT", False),
        ("option", "orderbook.25.BTC-14AUG26-65000-C-USDT", True),
        ("option", "orderbook.50.BTC-14AUG26-65000-C-USDT", False),
        ("option", "publicTrade.BTC", True),
        ("option", "publicTrade.SOL", False),
    ],
)
def test_a_topic_needs_a_listed_instrument_and_a_depth_of_its_category(
    category: Category, topic: str, is_served: bool
) -> None:
    """Topic names are case-sensitive."""
    assert is_served == feed().serves((category, topic))
