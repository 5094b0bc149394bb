"""Scenarios: every action happens at its time, and nothing else happens."""

import datetime as dt
import json
from typing import Any

import pytest

from bybit_pipeline.processes.simulator.market.instruments import instrument_named
from bybit_pipeline.processes.simulator.market.scenario import ScenarioError, parse_scenario
from bybit_pipeline.processes.simulator.market.synthetic import SyntheticFeed
from tests.naive import NaiveBook

START_MS = 1_786_310_817_000
BTC = instrument_named("linear", "BTCUSDT", dt.date(2026, 8, 9))
BOOK = {"at_ms": 0, "do": "book", "mid": 50_000, "levels": 5, "size": 1, "step_ticks": 10}


class Subscriber:
    """A subscriber of the book and the trades of BTCUSDT."""

    def __init__(self, *actions: dict[str, Any]) -> None:
        text = "\n".join(json.dumps({"symbol": "BTCUSDT", **action}) for action in actions)
        self.feed = SyntheticFeed([BTC], scenario=parse_scenario(text))
        self.book = NaiveBook()
        self.messages: list[Any] = []
        self.trades: list[Any] = []
        self.book.apply(json.loads(self.feed.join(("linear", "orderbook.50.BTCUSDT"), START_MS)[0]))
        self.feed.join(("linear", "publicTrade.BTCUSDT"), START_MS)
        self._now_ms = START_MS

    def run(self, until_ms: int) -> None:
        """Poll every 10 ms up to a time in milliseconds after the start."""
        while self._now_ms <= START_MS + until_ms:
            for _, payload in self.feed.poll(self._now_ms):
                message = json.loads(payload)
                if message["topic"].startswith("publicTrade"):
                    self.trades += message["data"]
                else:
                    self.messages.append(message)
                    self.book.apply(message)
            self._now_ms += 10


def test_the_book_changes_only_by_the_scenario() -> None:
    """Five levels on each side, ten ticks apart, are still there an hour later."""
    client = Subscriber(BOOK)
    client.run(100)
    bids, asks = client.book.best(50)
    assert [[50_000.0 - n, 1.0] for n in range(5)] == bids
    assert [[50_001.0 + n, 1.0] for n in range(5)] == asks
    quiet = len(client.messages)
    client.run(60_000)
    assert quiet == len(client.messages)
    assert not client.trades


def test_a_wall_is_placed_refilled_eaten_and_pulled_on_time() -> None:
    """Only eating prints trades, with the match time of the book."""
    wall = {"side": "ask", "price": 50_001.0}
    client = Subscriber(
        BOOK,
        {"at_ms": 1000, "do": "place", **wall, "size": 20},
        {"at_ms": 2000, "do": "feed", **wall, "size": 5},
        {"at_ms": 3000, "do": "eat", **wall, "size": 10, "trades": 4},
        {"at_ms": 4000, "do": "pull", **wall, "size": 5},
        {"at_ms": 5000, "do": "pull", **wall},
    )
    sizes = []
    for until_ms in (900, 1100, 2100, 3100, 4100, 5100):
        client.run(until_ms)
        sizes.append(client.book.asks.get(50_001.0))
    assert [1.0, 20.0, 25.0, 15.0, 10.0, None] == sizes
    assert [("Buy", "50001.00", "2.500", START_MS + 3000)] * 4 == [
        (row["S"], row["p"], row["v"], row["T"]) for row in client.trades
    ]
    assert START_MS + 3000 in {message["cts"] for message in client.messages}


def test_eating_a_wall_trades_the_better_levels_first() -> None:
    """Two levels of size one are traded before the wall."""
    client = Subscriber(
        BOOK,
        {"at_ms": 100, "do": "place", "side": "bid", "price": 49_998.0, "size": 30},
        {"at_ms": 500, "do": "eat", "side": "bid", "price": 49_998.0},
    )
    client.run(600)
    assert [("50000.00", "1.000"), ("49999.00", "1.000"), ("49998.00", "30.000")] == [
        (row["p"], row["v"]) for row in client.trades
    ]
    assert {"Sell"} == {row["S"] for row in client.trades}
    assert max(client.book.bids) == 49_997.0


def test_a_taker_order_stops_at_its_worst_price() -> None:
    """The unmatched rest is cancelled."""
    client = Subscriber(
        BOOK, {"at_ms": 100, "do": "trade", "side": "Buy", "size": 9, "price": 50_002.0}
    )
    client.run(200)
    assert ["50001.00", "50002.00"] == [row["p"] for row in client.trades]
    assert min(client.book.asks) == 50_003.0


def test_a_printed_trade_does_not_change_the_book() -> None:
    """Examples are retail price improvement and block trades."""
    client = Subscriber(
        BOOK,
        {"at_ms": 100, "do": "print", "side": "Buy", "price": 50_001.0, "size": 3, "is_rpi": True},
    )
    client.run(50)
    before = client.book.best(50)
    client.run(300)
    assert [(True, False, "3.000")] == [(row["RPI"], row["BT"], row["v"]) for row in client.trades]
    assert before == client.book.best(50)


def test_a_pulse_keeps_messages_flowing() -> None:
    """The second levels change by one lot and back; the touch never changes."""
    client = Subscriber({**BOOK, "pulse_ms": 100})
    client.run(2_050)
    assert 18 <= len(client.messages) <= 22
    prices = {float(row[0]) for message in client.messages[1:] for row in message["data"]["b"]}
    assert {49_999.0} == prices


def test_actions_can_be_added_while_the_market_runs() -> None:
    """Their times count from the moment they are added."""
    client = Subscriber(BOOK)
    client.run(1000)
    extra = parse_scenario(
        '{"at_ms":50,"symbol":"BTCUSDT","do":"set","side":"ask","price":50001,"size":0}'
    )
    client.feed.perform(extra, START_MS + 1000)
    client.run(1200)
    assert 50_001.0 not in client.book.asks


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 1"),
        ('{"symbol":"BTCUSDT","do":"dance"}', "dance"),
        ('{"symbol":"BTCUSDT","do":"place","side":"ask","price":1}', "size"),
        ('{"symbol":"BTCUSDT","do":"pull","side":"left","price":1}', "left"),
        ('{"symbol":"BTCUSDT","do":"pull","side":"bid","price":1,"when":3}', "when"),
    ],
)
def test_the_error_of_a_line_that_is_no_action_names_the_reason(line: str, reason: str) -> None:
    with pytest.raises(ScenarioError, match=reason):
        parse_scenario(line)


@pytest.mark.parametrize(("price", "size"), [(50_000.05, 1.0), (50_000.0, 0.00005), (-1.0, 1.0)])
def test_prices_and_sizes_must_be_multiples_of_tick_and_lot(price: float, size: float) -> None:
    """The scenario is checked before the server starts."""
    with pytest.raises(ScenarioError, match="multiple"):
        Subscriber(
            BOOK, {"at_ms": 9000, "do": "place", "side": "bid", "price": price, "size": size}
        )


@pytest.mark.parametrize(
    "action",
    [
        {"do": "place", "side": "bid", "price": 50_001.0, "size": 1},
        {"do": "place", "side": "ask", "price": 49_000.0, "size": 1},
        {"do": "pull", "side": "ask", "price": 50_001.0, "size": 2},
        {"do": "eat", "side": "ask", "price": 60_000.0},
    ],
)
def test_an_action_that_the_book_does_not_allow_is_an_error(
    action: dict[str, Any],
) -> None:
    """A mistake in a test's scenario must not pass."""
    client = Subscriber(BOOK, {"at_ms": 100, **action})
    with pytest.raises(ScenarioError):
        client.run(200)


def test_a_symbol_of_any_name_can_have_a_scenario() -> None:
    """Its price follows from its name, and need not be a multiple of its tick."""
    for number in range(20):
        instrument = instrument_named("linear", f"Q{number}USDT", dt.date(2026, 8, 9))
        action = {"symbol": instrument.symbol, "do": "book", "mid": 50, "levels": 5}
        feed = SyntheticFeed([instrument], scenario=parse_scenario(json.dumps(action)))
        assert feed.join(("linear", f"orderbook.50.{instrument.symbol}"), START_MS)
