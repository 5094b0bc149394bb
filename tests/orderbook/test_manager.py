"""The getters of the manager: answers by symbol, and none without a live book."""

from typing import Any

import pytest

from bybit_pipeline.processes.orderbook.manager import OrderBookManager
from bybit_pipeline.shared.settings.config import DensityConfig
from tests.orderbook.build import ASKS, BIDS, delta, snapshot, trade, trades_message
from tests.orderbook.managed import BTC, ETH, local_book, managed


def test_a_snapshot_has_levels_best_prices_mid_and_spread() -> None:
    book = managed(BTC).get_snapshot(BTC)
    assert book is not None
    assert "live" == book.state
    assert (list(BIDS), list(ASKS)) == (book.bids, book.asks)
    assert (100.0, 100.5, 100.25) == (book.best_bid, book.best_ask, book.mid_price)
    assert pytest.approx(0.5 / 100.25 * 10_000) == book.spread_bps


def test_imbalance_uses_the_requested_number_of_levels() -> None:
    manager = managed(BTC)
    assert (1 - 3) / 4 == manager.get_imbalance(BTC, levels=1)
    assert (7 - 15) / 22 == manager.get_imbalance(BTC)


def test_imbalance_is_none_for_more_levels_than_the_stream_has() -> None:
    manager = managed(BTC)
    assert manager.get_imbalance(BTC, levels=50) is not None
    assert manager.get_imbalance(BTC, levels=51) is None


@pytest.mark.parametrize(
    ("side", "bps", "expected"), [("bid", 50, 1.0), ("ask", 80, 8.0), ("bid", 10_000, 7.0)]
)
def test_aggregated_depth_adds_up_the_sizes_near_the_mid(
    side: Any, bps: float, expected: float
) -> None:
    assert expected == managed(BTC).get_aggregated_depth(BTC, side, range_bps=bps)


def test_an_unknown_side_is_rejected() -> None:
    manager = managed(BTC)
    with pytest.raises(ValueError, match="use bid or ask"):
        manager.get_aggregated_depth(BTC, "Buy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="use bid or ask"):
        manager.get_density_at_price(BTC, 100.0, "sell")  # type: ignore[arg-type]


def test_walls_are_found_by_symbol_and_by_price() -> None:
    manager = OrderBookManager(density=DensityConfig(k=3.0, min_age_s=0.0))
    manager.subscribe(BTC)
    manager.apply(BTC, snapshot(10, bids=[(100.0, 1.0), (99.9, 9.0), (99.8, 1.0), (99.7, 1.0)]))
    local_book(manager).walls.update(local_book(manager).book, 1_000_300)
    walls = manager.get_densities(BTC)
    assert walls is not None
    assert [("bid", 99.9, 9.0, 9.0)] == [
        (wall.side, wall.price, wall.size, wall.strength) for wall in walls
    ]
    assert walls[0] == manager.get_density_at_price(BTC, 99.95, "bid")
    assert manager.get_density_at_price(BTC, 99.95, "bid", tolerance_bps=1) is None
    assert manager.get_density_at_price(BTC, 99.95, "ask") is None


@pytest.mark.parametrize("case", ["unknown", "unsubscribed", "nothing received", "stale"])
def test_getters_return_none_without_a_live_book(case: str) -> None:
    manager = OrderBookManager() if case == "unknown" else managed(BTC)
    if case == "unsubscribed":
        assert manager.unsubscribe(BTC)
    elif case == "nothing received":
        manager.unsubscribe(BTC)
        manager.subscribe(BTC)
    elif case == "stale":
        manager.apply(BTC, delta(12))
    assert manager.get_imbalance(BTC) is None
    assert manager.get_aggregated_depth(BTC, "bid") is None
    assert manager.get_densities(BTC) is None
    assert manager.get_density_at_price(BTC, 100.0, "bid") is None
    found = manager.get_snapshot(BTC)
    if case == "stale":
        assert ("stale", "gap", None, [], [], None, None, None, None) == found
    else:
        assert found is None


def test_messages_of_an_unknown_symbol_change_nothing() -> None:
    manager = managed(BTC)
    assert not manager.apply(ETH, snapshot(10))
    manager.apply_trades(ETH, trades_message(trade(1, "Buy", 100.0, 1.0)))
    assert manager.get_snapshot(ETH) is None
    assert {("linear", BTC)} == manager.books.keys()


def test_an_unsubscribed_symbol_is_forgotten_with_its_gap() -> None:
    manager = managed(BTC)
    manager.apply(BTC, delta(12))
    assert manager.unsubscribe(BTC)
    assert not manager.unsubscribe(BTC)
    manager.apply(BTC, snapshot(20))
    assert manager.get_snapshot(BTC) is None
    assert ["starting"] == [gap.reason for gap in manager.ledger.gaps()]


def test_a_symbol_of_two_categories_has_two_books() -> None:
    manager = OrderBookManager()
    for category, price in (("spot", 50.0), ("linear", 60.0)):
        manager.subscribe(BTC, category)  # type: ignore[arg-type]
        manager.apply(BTC, snapshot(10, [(price, 1.0)], []), category)  # type: ignore[arg-type]
    spot, linear = manager.get_snapshot(BTC, "spot"), manager.get_snapshot(BTC)
    assert spot is not None
    assert linear is not None
    assert (50.0, 60.0) == (spot.best_bid, linear.best_bid)


def test_subscribing_again_keeps_the_book() -> None:
    manager = managed(BTC)
    book = local_book(manager)
    assert manager.subscribe(BTC) is book


def test_books_are_counted_by_state() -> None:
    manager = managed(BTC, ETH)
    manager.subscribe("SOLUSDT")
    manager.apply(ETH, delta(12))
    assert {"live": 1, "stale": 1, "syncing": 1} == manager.states()
