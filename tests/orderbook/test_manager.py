"""A followed book is live, or says why not; users ask the manager by symbol."""

from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from bybit_pipeline.processes.orderbook.local_book import LocalBook
from bybit_pipeline.processes.orderbook.manager import OrderBookManager
from bybit_pipeline.shared.settings.config import DensityConfig
from bybit_pipeline.shared.wire.gaps import BookGap
from bybit_pipeline.shared.wire.messages import BookMessage, Source
from tests.orderbook.build import ASKS, BIDS, delta, link, snapshot, trade, trades_message

BTC, ETH = "BTCUSDT", "ETHUSDT"
CONNECTOR = "connector-linear-0"


def managed(*symbols: str, **fields: Any) -> OrderBookManager:
    """A manager that follows the symbols and has a snapshot of each."""
    manager = OrderBookManager(**fields)
    for symbol in symbols:
        manager.subscribe(symbol, connector=CONNECTOR, trades_connector=CONNECTOR)
        assert manager.apply(symbol, snapshot(10))
    return manager


def local_book(manager: OrderBookManager, symbol: str = BTC) -> LocalBook:
    return manager.books["linear", symbol]


def state(manager: OrderBookManager, symbol: str = BTC) -> tuple[str, str | None]:
    book = local_book(manager, symbol)
    return book.state, book.reason


# -- questions -------------------------------------------------------------------------------------


def test_a_snapshot_is_answered_with_best_prices_mid_and_spread() -> None:
    book = managed(BTC).get_snapshot(BTC)
    assert book is not None
    assert book.state == "live"
    assert (book.bids, book.asks) == (list(BIDS), list(ASKS))
    assert (book.best_bid, book.best_ask, book.mid_price) == (100.0, 100.5, 100.25)
    assert book.spread_bps == pytest.approx(0.5 / 100.25 * 10_000)


def test_imbalance_counts_as_many_levels_as_asked_for() -> None:
    manager = managed(BTC)
    assert manager.get_imbalance(BTC, levels=1) == (1 - 3) / 4
    assert manager.get_imbalance(BTC) == (7 - 15) / 22


def test_imbalance_is_unknown_for_more_levels_than_the_stream_carries() -> None:
    manager = managed(BTC)
    assert manager.get_imbalance(BTC, levels=50) is not None
    assert manager.get_imbalance(BTC, levels=51) is None


@pytest.mark.parametrize(
    ("side", "bps", "expected"), [("bid", 50, 1.0), ("ask", 80, 8.0), ("bid", 10_000, 7.0)]
)
def test_aggregated_depth_adds_up_the_sizes_near_the_mid(
    side: Any, bps: float, expected: float
) -> None:
    assert managed(BTC).get_aggregated_depth(BTC, side, range_bps=bps) == expected


def test_a_side_that_does_not_exist_is_refused() -> None:
    manager = managed(BTC)
    with pytest.raises(ValueError, match="use bid or ask"):
        manager.get_aggregated_depth(BTC, "Buy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="use bid or ask"):
        manager.get_density_at_price(BTC, 100.0, "sell")  # type: ignore[arg-type]


def test_densities_are_answered_by_symbol_and_by_price() -> None:
    manager = OrderBookManager(density=DensityConfig(k=3.0))
    manager.subscribe(BTC)
    manager.apply(BTC, snapshot(10, bids=[(100.0, 1.0), (99.9, 9.0), (99.8, 1.0), (99.7, 1.0)]))
    local_book(manager).walls.update(local_book(manager).book, 1_000_300)
    walls = manager.get_densities(BTC)
    assert walls is not None
    assert [(wall.side, wall.price, wall.size, wall.strength) for wall in walls] == [
        ("bid", 99.9, 9.0, 9.0)
    ]
    assert manager.get_density_at_price(BTC, 99.95, "bid") == walls[0]
    assert manager.get_density_at_price(BTC, 99.95, "bid", tolerance_bps=1) is None
    assert manager.get_density_at_price(BTC, 99.95, "ask") is None


@pytest.mark.parametrize("case", ["unknown", "unsubscribed", "nothing received", "stale"])
def test_there_is_no_answer_about_a_book_that_is_not_there(case: str) -> None:
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
        assert found == ("stale", "gap", None, [], [], None, None, None, None)
    else:
        assert found is None


def test_messages_of_a_symbol_that_is_not_followed_change_nothing() -> None:
    manager = managed(BTC)
    assert not manager.apply(ETH, snapshot(10))
    manager.apply_trades(ETH, trades_message(trade(1, "Buy", 100.0, 1.0)))
    assert manager.get_snapshot(ETH) is None
    assert manager.books.keys() == {("linear", BTC)}


def test_an_unsubscribed_symbol_stays_forgotten_and_its_gap_with_it() -> None:
    manager = managed(BTC)
    manager.apply(BTC, delta(12))
    assert manager.unsubscribe(BTC)
    assert not manager.unsubscribe(BTC)
    manager.apply(BTC, snapshot(20))
    assert manager.get_snapshot(BTC) is None
    assert [gap.reason for gap in manager.ledger.gaps()] == ["starting"]


def test_a_symbol_of_two_categories_has_two_books() -> None:
    manager = OrderBookManager()
    for category, price in (("spot", 50.0), ("linear", 60.0)):
        manager.subscribe(BTC, category)  # type: ignore[arg-type]
        manager.apply(BTC, snapshot(10, [(price, 1.0)], []), category)  # type: ignore[arg-type]
    spot, linear = manager.get_snapshot(BTC, "spot"), manager.get_snapshot(BTC)
    assert spot is not None
    assert linear is not None
    assert (spot.best_bid, linear.best_bid) == (50.0, 60.0)


def test_following_a_book_again_keeps_it() -> None:
    manager = managed(BTC)
    book = local_book(manager)
    assert manager.subscribe(BTC) is book


# -- states ----------------------------------------------------------------------------------------


def test_a_book_is_syncing_until_its_first_snapshot() -> None:
    manager = OrderBookManager()
    manager.subscribe(BTC)
    assert state(manager) == ("syncing", "starting")
    assert not manager.apply(BTC, delta(9))
    assert state(manager) == ("syncing", "starting")
    assert manager.counts.ignored == 1
    assert manager.apply(BTC, snapshot(10))
    assert state(manager) == ("live", None)


DOUBTS = {
    "gap": delta(12),
    "duplicate": delta(10),
    "desync": delta(1),
    "crossed": delta(11, bids=[(101.0, 1.0)]),
    "too_deep": delta(11, asks=[(200.0 + step, 1.0) for step in range(48)]),
    "bad_levels": delta(11, bids=[(99.0, -1.0)]),
    "wrong_depth": delta(11, depth=200),
    "disconnected": delta(11, session=2),
    "source_change": delta(11, source="live"),
}


@pytest.mark.parametrize(("reason", "message"), DOUBTS.items())
def test_a_doubt_is_seen_on_the_very_message_and_only_a_snapshot_ends_it(
    reason: str, message: BookMessage
) -> None:
    manager = managed(BTC, ETH)
    assert manager.apply(BTC, message) is True
    assert state(manager) == ("stale", reason)
    assert {why for why, number in manager.counts.invalidated.items() if number} == {reason}
    assert not manager.apply(
        BTC, delta(message.update_id + 1, session=message.session, source=message.source)
    )
    assert state(manager) == ("stale", reason)
    fresh = snapshot(50, session=message.session, source=message.source)
    assert manager.apply(BTC, fresh) is True
    assert state(manager) == ("live", None)
    assert state(manager, ETH) == ("live", None)


LAST_MS = 1_000_200
"""Match time of the snapshot of ``managed``."""


@pytest.mark.parametrize(
    ("step_ms", "elapsed_s", "source", "is_leap"),
    [
        (60_000, 0.0, "sim", False),
        (60_001, 0.0, "sim", True),
        (100_000, 40.0, "live", False),
        (100_001, 40.0, "live", True),
        (-3_600_000, 0.0, "sim", False),
        (-3_600_001, 0.0, "sim", True),
        (10**12, 0.0, "replay", False),
        (-4_000_000, 0.0, "replay", False),
    ],
)
def test_a_leap_of_the_exchanges_time_is_a_doubt_and_the_next_snapshot_ends_it(
    step_ms: int, elapsed_s: float, source: Source, is_leap: bool
) -> None:
    manager = OrderBookManager()
    manager.subscribe(BTC)
    manager.advance(5.0)
    manager.apply(BTC, snapshot(10, source=source))
    manager.advance(5.0 + elapsed_s)
    far = delta(11, match_ms=LAST_MS + step_ms, source=source)
    assert manager.apply(BTC, far) == is_leap
    assert state(manager) == (("stale", "bad_time") if is_leap else ("live", None))
    manager.apply(BTC, snapshot(20, match_ms=LAST_MS + step_ms, source=source))
    manager.apply(BTC, delta(21, match_ms=LAST_MS + step_ms + 20, source=source))
    assert state(manager) == ("live", None)


def test_one_message_from_the_future_does_not_stop_the_walls() -> None:
    manager = managed(BTC, density=DensityConfig(k=3.0))
    bids = [(100.0, 1.0), (99.9, 1.0), (99.8, 1.0), (99.7, 1.0)]
    book = local_book(manager)
    manager.apply(BTC, delta(12))
    manager.apply(BTC, snapshot(15, bids=bids, match_ms=LAST_MS + 10**9))
    book.update_walls(manager.now)
    manager.apply(BTC, delta(16, match_ms=LAST_MS + 100))
    assert state(manager) == ("stale", "bad_time")
    bids = [(price, 1000 * size) for price, size in bids]
    manager.apply(BTC, snapshot(17, bids=bids, match_ms=LAST_MS + 200))
    book.update_walls(manager.now)
    assert manager.get_densities(BTC) == []
    manager.apply(BTC, delta(18, [(99.9, 9_000.0)], match_ms=LAST_MS + 300))
    book.update_walls(manager.now)
    walls = manager.get_densities(BTC)
    assert walls is not None
    assert [(wall.price, wall.strength) for wall in walls] == [(99.9, 9.0)]


def test_a_hole_on_the_bus_is_a_gap_like_any_other() -> None:
    manager = managed(BTC)
    assert manager.apply(BTC, delta(11), lost=1)
    assert state(manager) == ("stale", "bus_gap")


def test_a_snapshot_after_a_hole_on_the_bus_is_trusted_and_the_hole_is_in_the_ledger() -> None:
    manager = managed(BTC)
    manager.apply(BTC, snapshot(30), lost=3)
    assert state(manager) == ("live", None)
    assert [gap.reason for gap in manager.ledger.gaps()] == ["starting", "bus_gap"]


def test_a_bad_snapshot_never_makes_a_book_live() -> None:
    manager = managed(BTC)
    manager.apply(BTC, delta(12))
    assert manager.apply(BTC, snapshot(20, bids=[(200.0, 1.0)]))
    assert state(manager) == ("stale", "crossed")


def test_the_repeat_of_a_level_one_snapshot_is_a_sign_of_life_and_no_change() -> None:
    manager = OrderBookManager()
    manager.subscribe(BTC, depth=1)
    quote: dict[str, Any] = {"bids": [(100.0, 1.0)], "asks": [(101.0, 1.0)], "depth": 1}
    manager.apply(BTC, snapshot(10, **quote))
    book = local_book(manager)
    book.is_changed = False
    assert not manager.apply(BTC, snapshot(10, **quote))
    assert not book.is_changed
    assert book.state == "live"
    manager.apply(BTC, snapshot(14, **quote))
    assert book.is_changed


def test_a_level_one_snapshot_of_a_second_restart_is_a_change() -> None:
    manager = OrderBookManager()
    manager.subscribe(BTC, depth=1)
    manager.apply(BTC, snapshot(1, [(100.0, 1.0)], [(101.0, 1.0)], depth=1))
    book = local_book(manager)
    book.is_changed = False
    manager.apply(BTC, snapshot(1, [(100.0, 2.0)], [(101.0, 1.0)], depth=1))
    assert book.is_changed
    book.is_changed = False
    manager.apply(BTC, snapshot(1, [(100.0, 2.0)], [(102.0, 1.0)], depth=1))
    assert book.is_changed


def test_a_new_source_starts_a_new_generation_and_drops_the_book() -> None:
    manager = managed(BTC)
    before = local_book(manager).generation
    manager.apply(BTC, snapshot(5, [(7.0, 1.0)], [(8.0, 1.0)], source="live", session=9))
    book = local_book(manager)
    assert book.generation != before
    assert book.source == "live"
    assert book.book.bids() == [(7.0, 1.0)]
    assert [gap.reason for gap in manager.ledger.gaps()] == ["starting", "source_change"]


# -- the link --------------------------------------------------------------------------------------


def test_a_lost_link_makes_every_book_of_that_connector_stale_at_once() -> None:
    manager = managed(BTC)
    manager.subscribe(ETH, connector="connector-linear-1")
    manager.apply(ETH, snapshot(10))
    changed = manager.on_link(CONNECTOR, link("disconnected"))
    assert [book.symbol for book in changed] == [BTC]
    assert state(manager) == ("stale", "disconnected")
    assert state(manager, ETH) == ("live", None)


def test_a_new_connection_without_word_of_the_lost_one_is_a_doubt_too() -> None:
    manager = managed(BTC)
    assert manager.on_link(CONNECTOR, link("connected", session=2)) == [local_book(manager)]
    assert state(manager) == ("stale", "disconnected")


def test_a_connector_that_ends_without_a_word_makes_its_books_stale_as_well() -> None:
    manager = managed(BTC)
    manager.subscribe(ETH, connector="connector-linear-1")
    manager.apply(ETH, snapshot(10))
    assert manager.on_link_lost(CONNECTOR, 1) == [local_book(manager)]
    assert state(manager) == ("stale", "disconnected")
    assert state(manager, ETH) == ("live", None)
    assert manager.on_link_lost(CONNECTOR, 2) == []


@pytest.mark.parametrize("event", ["rejected", "unsubscribed"])
def test_a_topic_that_is_served_no_longer_makes_its_book_stale(event: Any) -> None:
    manager = managed(BTC, ETH)
    manager.on_link(CONNECTOR, link(event, "book.linear.BTCUSDT", "trade.linear.ETHUSDT"))
    assert state(manager) == ("stale", event)
    assert state(manager, ETH) == ("live", None)


def counted(manager: OrderBookManager) -> dict[str, int]:
    """Doubts by reason, without the zeros."""
    return {reason: number for reason, number in manager.counts.invalidated.items() if number}


def test_a_live_book_is_counted_once_however_the_reason_changes_until_it_is_live_again() -> None:
    manager = managed(BTC)
    book_topic = "book.linear.BTCUSDT"

    manager.apply(BTC, delta(12))
    manager.on_link(CONNECTOR, link("unsubscribed", book_topic))  # of the resync
    manager.apply(BTC, snapshot(20, bids=[(300.0, 1.0)]))
    manager.on_link(CONNECTOR, link("disconnected"))
    manager.on_link(CONNECTOR, link("subscribed", source="live"))

    assert state(manager) == ("stale", "source_change")
    assert counted(manager) == {"gap": 1}
    manager.apply(BTC, snapshot(30, session=2, source="live"))
    manager.apply(BTC, delta(32, session=2, source="live"))
    assert counted(manager) == {"gap": 2}


def test_a_book_that_was_never_live_is_not_counted() -> None:
    manager = OrderBookManager()
    manager.subscribe(BTC, connector=CONNECTOR)
    manager.on_link(CONNECTOR, link("disconnected"))
    manager.on_link(CONNECTOR, link("rejected", "book.linear.BTCUSDT"))
    manager.apply(BTC, snapshot(20, bids=[(300.0, 1.0)]))
    assert state(manager) == ("syncing", "crossed")
    assert counted(manager) == {}


def test_a_link_of_another_source_starts_a_new_generation() -> None:
    manager = managed(BTC)
    before = local_book(manager).generation
    assert manager.on_link(CONNECTOR, link("subscribed", source="live"))
    assert state(manager) == ("stale", "source_change")
    assert local_book(manager).generation != before


@pytest.mark.parametrize(
    ("news", "is_uncertain"), [("none", True), ("subscribed", False), ("trades", False)]
)
def test_a_wall_is_uncertain_until_its_trades_are_served_again(
    news: str, is_uncertain: bool
) -> None:
    manager = managed(BTC, density=DensityConfig(k=3.0))
    manager.on_link(CONNECTOR, link("connected", session=2))
    if news == "subscribed":
        manager.on_link(CONNECTOR, link("subscribed", "trade.linear.BTCUSDT", session=2))
    elif news == "trades":
        manager.apply_trades(BTC, trades_message(trade(1, "Buy", 100.5, 1.0), session=2))
    bids = [(100.0, 1.0), (99.9, 9.0), (99.8, 1.0), (99.7, 1.0)]
    manager.apply(BTC, snapshot(20, bids=bids, session=2))
    local_book(manager).update_walls(manager.now)
    walls = manager.get_densities(BTC)
    assert walls is not None
    assert [wall.uncertain for wall in walls] == [is_uncertain]


def test_walls_are_uncertain_while_trades_may_be_missing() -> None:
    manager = managed(BTC, density=DensityConfig(k=3.0))
    bids = [(100.0, 1.0), (99.9, 9.0), (99.8, 1.0), (99.7, 1.0)]
    manager.apply(BTC, snapshot(20, bids=bids))
    local_book(manager).update_walls(manager.now)
    manager.on_link(CONNECTOR, link("missed", "trade.linear.BTCUSDT"))
    walls = manager.get_densities(BTC)
    assert walls is not None
    assert state(manager) == ("live", None)
    assert [wall.uncertain for wall in walls] == [True]


def test_link_events_of_unknown_topics_are_ignored() -> None:
    manager = managed(BTC)
    assert manager.on_link(CONNECTOR, link("rejected", "book.spot.NOPE")) == []


# -- resyncs ---------------------------------------------------------------------------------------


def due_times(manager: OrderBookManager, until: float) -> list[float]:
    """When a resync is asked for, looking ten times a second."""
    times = []
    for step in range(1, round(until * 10) + 1):
        manager.advance(step / 10)
        if manager.due_resyncs():
            times.append(step / 10)
    return times


def test_a_new_book_asks_for_its_first_snapshot_again_and_again() -> None:
    manager = OrderBookManager()
    manager.subscribe(BTC)
    assert manager.due_resyncs() == []
    assert due_times(manager, 100) == [0.5, 2.5, 6.5, 14.5, 30.5, 60.5, 90.5]


def test_a_doubt_asks_at_once_for_that_topic_alone_and_stops_with_the_snapshot() -> None:
    manager = managed(BTC, ETH)
    manager.apply(BTC, delta(12))
    assert manager.due_resyncs() == [("book.linear.BTCUSDT", "gap")]
    assert manager.due_resyncs() == []
    manager.advance(2.0)
    assert manager.due_resyncs() == [("book.linear.BTCUSDT", "gap")]
    manager.apply(BTC, snapshot(30))
    assert (manager.counts.requested, manager.counts.recovered) == (1, 1), "asked twice"
    manager.advance(1000.0)
    assert manager.due_resyncs() == []
    manager.apply(BTC, delta(32))
    assert manager.due_resyncs() == [("book.linear.BTCUSDT", "gap")]


def test_the_first_snapshot_is_no_recovery_when_nobody_asked_for_it() -> None:
    assert managed(BTC).counts.recovered == 0


def test_at_a_cold_start_every_book_that_was_asked_for_recovers() -> None:
    """The worker asks before the connector has connected; its news of that put the clock back."""
    manager = OrderBookManager()
    manager.subscribe(BTC, connector=CONNECTOR)
    manager.advance(0.6)
    assert manager.due_resyncs() == [("book.linear.BTCUSDT", "starting")]
    manager.on_link(CONNECTOR, link("connected"))
    manager.on_link(CONNECTOR, link("subscribed", "book.linear.BTCUSDT"))
    assert (manager.counts.requested, manager.counts.recovered) == (1, 0)
    manager.apply(BTC, snapshot(10))
    assert (manager.counts.requested, manager.counts.recovered) == (1, 1)


def test_what_is_asked_again_after_a_reconnect_is_the_same_resync() -> None:
    manager = managed(BTC)
    manager.apply(BTC, delta(12))
    assert manager.due_resyncs()
    manager.on_link(CONNECTOR, link("connected", session=2))
    manager.advance(6.0)
    assert manager.due_resyncs()
    manager.apply(BTC, snapshot(20, session=2))
    assert (manager.counts.requested, manager.counts.recovered) == (1, 1)


def test_while_the_link_is_down_it_is_given_time_to_come_back_by_itself() -> None:
    manager = managed(BTC)
    manager.on_link(CONNECTOR, link("disconnected"))
    assert due_times(manager, 29.9) == []
    manager.on_link(CONNECTOR, link("connected", session=2))
    manager.on_link(CONNECTOR, link("subscribed", "book.linear.BTCUSDT", session=2))
    manager.advance(31.8)
    assert manager.due_resyncs() == []
    manager.advance(31.9)
    assert manager.due_resyncs() == [("book.linear.BTCUSDT", "disconnected")]


# -- silence ---------------------------------------------------------------------------------------


def play(manager: OrderBookManager, interval_s: float, until: float) -> int:
    """Deltas at a steady pace and a look once a second; how often the book was doubted."""
    doubts, update_id, next_message = 0, 10, interval_s
    for second in range(1, round(until) + 1):
        while next_message <= second:
            update_id += 1
            manager.advance(next_message)
            manager.apply(BTC, delta(update_id))
            next_message += interval_s
        manager.advance(float(second))
        doubts += len(manager.check_silence())
    return doubts


@pytest.mark.parametrize("interval_s", [0.02, 1.0, 5.0, 30.0])
def test_a_steady_book_is_never_silent_however_quiet(interval_s: float) -> None:
    assert play(managed(BTC), interval_s, 3000) == 0


@pytest.mark.parametrize(("interval_s", "limit_s"), [(0.05, 10), (1.0, 20), (5.0, 100)])
def test_a_book_is_silent_after_what_is_implausible_for_it(
    interval_s: float, limit_s: float
) -> None:
    manager = managed(BTC)
    assert play(manager, interval_s, 600) == 0
    silent_at = None
    for second in range(601, 1000):
        manager.advance(float(second))
        if manager.check_silence():
            silent_at = second - 600
            break
    assert silent_at is not None
    assert limit_s <= silent_at <= limit_s * 1.2 + 1
    assert state(manager) == ("stale", "silent")


def test_a_symbol_that_falls_quiet_is_suspected_less_and_less() -> None:
    manager = managed(BTC)
    play(manager, 0.1, 300)
    last = local_book(manager).book.update_id
    suspected = []
    for second in range(301, 3000):
        manager.advance(float(second))
        if manager.check_silence():
            suspected.append(second)
            manager.apply(BTC, snapshot(last))  # the resync shows that nothing was missed
    assert len(suspected) <= 6
    waits = [after - before for before, after in pairwise(suspected)]
    assert waits == sorted(waits)


def test_a_replay_may_end_in_silence() -> None:
    manager = OrderBookManager()
    manager.subscribe(BTC)
    manager.apply(BTC, snapshot(10, source="replay"))
    for update_id in range(11, 200):
        manager.advance(update_id / 10)
        manager.apply(BTC, delta(update_id, source="replay"))
        manager.check_silence()
    manager.advance(10_000.0)
    assert manager.check_silence() == []


def test_the_walls_of_a_slow_replay_wait_for_its_own_time() -> None:
    """Played at a tenth of its speed, the trade that explains a decrease is a second late."""
    manager = OrderBookManager(density=DensityConfig(k=3.0))
    manager.subscribe(BTC)
    bids = [(100.0, 1.0), (99.9, 20.0), (99.8, 1.0), (99.7, 1.0)]
    manager.apply(BTC, snapshot(10, bids=bids, source="replay"))
    book = local_book(manager)
    book.update_walls(0.0)
    manager.apply(BTC, delta(11, [(99.9, 0.0)], match_ms=LAST_MS + 100, source="replay"))
    for tenth in range(1, 11):
        manager.advance(tenth / 10)
        book.update_walls(manager.now)
        assert book.walls_due > manager.now
    sold = trade(LAST_MS + 50, "Sell", 99.9, 20.0)
    manager.apply_trades(BTC, trades_message(sold, source="replay"))
    assert book.walls_due <= manager.now
    book.update_walls(manager.now)
    assert [event.event for event in book.walls.take_events()] == ["detected", "eaten"]


# -- the ledger ------------------------------------------------------------------------------------


def test_a_gap_is_reported_when_it_opens_and_when_it_closes_with_the_numbers_on_both_sides() -> (
    None
):
    manager = managed(BTC)
    book = local_book(manager)
    book.take_gap_notes()
    manager.advance(5.0)
    gap_message = delta(14)
    manager.apply(BTC, gap_message)
    (opened,) = book.take_gap_notes()
    last, after = snapshot(10), snapshot(40)
    expected = BookGap(
        gap_id=2,
        category="linear",
        symbol=BTC,
        reason="gap",
        opened_ts_ns=gap_message.recv_ts_ns,
        start_ms=last.exchange_ts_ms,
        update_id_before=10,
        sequence_before=100,
        received_update_id=14,
    )
    assert opened == ("opened", expected)
    manager.advance(7.5)
    manager.apply(BTC, after)
    (closed,) = book.take_gap_notes()
    expected = replace(
        expected,
        closed_ts_ns=after.recv_ts_ns,
        end_ms=after.exchange_ts_ms,
        update_id_after=40,
        sequence_after=400,
        duration_s=2.5,
    )
    assert closed == ("closed", expected)
    assert manager.ledger.gaps()[-1] == expected
    assert book.take_gap_notes() == []


def test_untrusted_time_adds_up_and_goes_on_while_a_gap_is_open() -> None:
    manager = managed(BTC)
    manager.advance(10.0)
    manager.apply(BTC, delta(12))
    manager.advance(13.0)
    assert local_book(manager).untrusted_s(manager.now) == 3.0
    manager.apply(BTC, snapshot(20))
    manager.advance(20.0)
    assert local_book(manager).untrusted_s(manager.now) == 3.0
    manager.apply(BTC, delta(22))
    manager.advance(21.0)
    assert local_book(manager).untrusted_s(manager.now) == 4.0


def test_the_ledger_keeps_the_last_ten_thousand_gaps() -> None:
    manager = managed(BTC)
    update_id = 10
    for _ in range(10_005):
        manager.apply(BTC, delta(update_id + 2))
        update_id += 10
        manager.apply(BTC, snapshot(update_id))
    gaps = manager.ledger.gaps()
    assert len(gaps) == len(manager.ledger) == 10_000
    assert gaps[-1].update_id_after == update_id


def test_a_second_doubt_keeps_the_gap_open_and_shows_the_newer_reason() -> None:
    manager = managed(BTC)
    manager.apply(BTC, delta(12))
    manager.on_link(CONNECTOR, link("disconnected"))
    assert state(manager) == ("stale", "disconnected")
    assert [gap.reason for gap in manager.ledger.gaps()] == ["starting", "gap"]


def test_books_are_counted_by_state() -> None:
    manager = managed(BTC, ETH)
    manager.subscribe("SOLUSDT")
    manager.apply(ETH, delta(12))
    assert manager.states() == {"live": 1, "stale": 1, "syncing": 1}
