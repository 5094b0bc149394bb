"""A local book is live, or states the reason why it is not, and requests resyncs."""

from typing import Any

import pytest
from msgspec.structs import replace

from bybit_pipeline.processes.orderbook.manager import OrderBookManager
from bybit_pipeline.shared.settings.config import DensityConfig
from bybit_pipeline.shared.wire.gaps import BookGap
from bybit_pipeline.shared.wire.messages import BookMessage, Source
from tests.orderbook.build import delta, link, snapshot, trade, trades_message
from tests.orderbook.managed import BTC, CONNECTOR, ETH, LAST_MS, local_book, managed, state


def counted(manager: OrderBookManager) -> dict[str, int]:
    """Return the counts of invalidated books by reason, without zeros."""
    return {reason: number for reason, number in manager.counts.invalidated.items() if number}


# -- states ----------------------------------------------------------------------------------------


def test_a_book_is_syncing_until_its_first_snapshot() -> None:
    manager = OrderBookManager()
    manager.subscribe(BTC)
    assert ("syncing", "starting") == state(manager)
    assert not manager.apply(BTC, delta(9))
    assert ("syncing", "starting") == state(manager)
    assert 1 == manager.counts.ignored
    assert manager.apply(BTC, snapshot(10))
    assert ("live", None) == state(manager)


INVALIDATING = {
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


@pytest.mark.parametrize(("reason", "message"), INVALIDATING.items())
def test_a_book_is_invalidated_by_the_message_itself_and_only_a_snapshot_restores_it(
    reason: str, message: BookMessage
) -> None:
    manager = managed(BTC, ETH)
    assert manager.apply(BTC, message) is True
    assert ("stale", reason) == state(manager)
    assert {reason: 1} == counted(manager)
    assert not manager.apply(
        BTC, delta(message.update_id + 1, session=message.session, source=message.source)
    )
    assert ("stale", reason) == state(manager)
    fresh = snapshot(50, session=message.session, source=message.source)
    assert manager.apply(BTC, fresh) is True
    assert ("live", None) == state(manager)
    assert ("live", None) == state(manager, ETH)


@pytest.mark.parametrize(
    ("step_ms", "elapsed_s", "source", "is_rejected"),
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
def test_an_implausible_step_of_exchange_time_invalidates_the_book_until_a_snapshot(
    step_ms: int, elapsed_s: float, source: Source, is_rejected: bool
) -> None:
    manager = OrderBookManager()
    manager.subscribe(BTC)
    manager.advance(5.0)
    manager.apply(BTC, snapshot(10, source=source))
    manager.advance(5.0 + elapsed_s)
    far = delta(11, match_ms=LAST_MS + step_ms, source=source)
    assert is_rejected == manager.apply(BTC, far)
    assert (("stale", "bad_time") if is_rejected else ("live", None)) == state(manager)
    manager.apply(BTC, snapshot(20, match_ms=LAST_MS + step_ms, source=source))
    manager.apply(BTC, delta(21, match_ms=LAST_MS + step_ms + 20, source=source))
    assert ("live", None) == state(manager)


def test_one_message_from_the_future_does_not_stop_the_walls() -> None:
    manager = managed(BTC, density=DensityConfig(k=3.0, min_age_s=0.0))
    bids = [(100.0, 1.0), (99.9, 1.0), (99.8, 1.0), (99.7, 1.0)]
    book = local_book(manager)
    manager.apply(BTC, delta(12))
    manager.apply(BTC, snapshot(15, bids=bids, match_ms=LAST_MS + 10**9))
    book.update_walls(manager.now)
    manager.apply(BTC, delta(16, match_ms=LAST_MS + 100))
    assert ("stale", "bad_time") == state(manager)
    bids = [(price, 1000 * size) for price, size in bids]
    manager.apply(BTC, snapshot(17, bids=bids, match_ms=LAST_MS + 200))
    book.update_walls(manager.now)
    assert [] == manager.get_densities(BTC)
    manager.apply(BTC, delta(18, [(99.9, 9_000.0)], match_ms=LAST_MS + 300))
    book.update_walls(manager.now)
    walls = manager.get_densities(BTC)
    assert walls is not None
    assert [(99.9, 9.0)] == [(wall.price, wall.strength) for wall in walls]


def test_missed_messages_on_the_bus_invalidate_the_book() -> None:
    manager = managed(BTC)
    assert manager.apply(BTC, delta(11), lost=1)
    assert ("stale", "bus_gap") == state(manager)


def test_a_snapshot_after_missed_messages_is_trusted_and_the_gap_is_recorded() -> None:
    manager = managed(BTC)
    manager.apply(BTC, snapshot(30), lost=3)
    assert ("live", None) == state(manager)
    assert ["starting", "bus_gap"] == [gap.reason for gap in manager.ledger.gaps()]


def test_a_bad_snapshot_never_makes_a_book_live() -> None:
    manager = managed(BTC)
    manager.apply(BTC, delta(12))
    assert manager.apply(BTC, snapshot(20, bids=[(200.0, 1.0)]))
    assert ("stale", "crossed") == state(manager)


def test_a_repeated_snapshot_of_depth_one_is_a_sign_of_life_and_no_change() -> None:
    manager = OrderBookManager()
    manager.subscribe(BTC, depth=1)
    quote: dict[str, Any] = {"bids": [(100.0, 1.0)], "asks": [(101.0, 1.0)], "depth": 1}
    manager.apply(BTC, snapshot(10, **quote))
    book = local_book(manager)
    book.is_changed = False
    assert not manager.apply(BTC, snapshot(10, **quote))
    assert not book.is_changed
    assert "live" == book.state
    manager.apply(BTC, snapshot(14, **quote))
    assert book.is_changed


def test_a_snapshot_of_depth_one_with_the_same_number_and_other_levels_is_a_change() -> None:
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
    assert "live" == book.source
    assert [(7.0, 1.0)] == book.book.bids()
    assert ["starting", "source_change"] == [gap.reason for gap in manager.ledger.gaps()]


# -- link events -----------------------------------------------------------------------------------


def test_a_disconnect_makes_every_book_of_that_connector_stale_at_once() -> None:
    manager = managed(BTC)
    manager.subscribe(ETH, connector="connector-linear-1")
    manager.apply(ETH, snapshot(10))
    changed = manager.on_link(CONNECTOR, link("disconnected"))
    assert [BTC] == [book.symbol for book in changed]
    assert ("stale", "disconnected") == state(manager)
    assert ("live", None) == state(manager, ETH)


def test_a_new_connection_without_a_disconnect_before_invalidates_the_book_too() -> None:
    manager = managed(BTC)
    assert [local_book(manager)] == manager.on_link(CONNECTOR, link("connected", session=2))
    assert ("stale", "disconnected") == state(manager)


def test_a_connector_that_dies_without_a_link_event_makes_its_books_stale_too() -> None:
    manager = managed(BTC)
    manager.subscribe(ETH, connector="connector-linear-1")
    manager.apply(ETH, snapshot(10))
    assert [local_book(manager)] == manager.on_link_lost(CONNECTOR, 1, "disconnected")
    assert ("stale", "disconnected") == state(manager)
    assert ("live", None) == state(manager, ETH)
    assert [] == manager.on_link_lost(CONNECTOR, 2, "disconnected")


@pytest.mark.parametrize("event", ["rejected", "unsubscribed"])
def test_a_rejected_or_unsubscribed_topic_makes_its_book_stale(event: Any) -> None:
    manager = managed(BTC, ETH)
    manager.on_link(CONNECTOR, link(event, "book.linear.BTCUSDT", "trade.linear.ETHUSDT"))
    assert ("stale", event) == state(manager)
    assert ("live", None) == state(manager, ETH)


def test_an_invalid_book_is_counted_once_until_it_is_live_again_whatever_reasons_follow() -> None:
    manager = managed(BTC)
    book_topic = "book.linear.BTCUSDT"

    manager.apply(BTC, delta(12))
    manager.on_link(CONNECTOR, link("unsubscribed", book_topic))  # the resync unsubscribes first
    manager.apply(BTC, snapshot(20, bids=[(300.0, 1.0)]))
    manager.on_link(CONNECTOR, link("disconnected"))
    manager.on_link(CONNECTOR, link("subscribed", source="live"))

    assert ("stale", "source_change") == state(manager)
    assert {"gap": 1} == counted(manager)
    manager.apply(BTC, snapshot(30, session=2, source="live"))
    manager.apply(BTC, delta(32, session=2, source="live"))
    assert {"gap": 2} == counted(manager)


def test_a_book_that_was_never_live_is_not_counted() -> None:
    manager = OrderBookManager()
    manager.subscribe(BTC, connector=CONNECTOR)
    manager.on_link(CONNECTOR, link("disconnected"))
    manager.on_link(CONNECTOR, link("rejected", "book.linear.BTCUSDT"))
    manager.apply(BTC, snapshot(20, bids=[(300.0, 1.0)]))
    assert ("syncing", "crossed") == state(manager)
    assert {} == counted(manager)


def test_a_link_of_another_source_starts_a_new_generation() -> None:
    manager = managed(BTC)
    before = local_book(manager).generation
    assert manager.on_link(CONNECTOR, link("subscribed", source="live"))
    assert ("stale", "source_change") == state(manager)
    assert local_book(manager).generation != before


@pytest.mark.parametrize(
    ("event", "is_uncertain"), [("none", True), ("subscribed", False), ("trades", False)]
)
def test_a_wall_is_uncertain_until_its_trades_are_subscribed_again(
    event: str, is_uncertain: bool
) -> None:
    manager = managed(BTC, density=DensityConfig(k=3.0, min_age_s=0.0))
    manager.on_link(CONNECTOR, link("connected", session=2))
    if event == "subscribed":
        manager.on_link(CONNECTOR, link("subscribed", "trade.linear.BTCUSDT", session=2))
    elif event == "trades":
        manager.apply_trades(BTC, trades_message(trade(1, "Buy", 100.5, 1.0), session=2))
    bids = [(100.0, 1.0), (99.9, 9.0), (99.8, 1.0), (99.7, 1.0)]
    manager.apply(BTC, snapshot(20, bids=bids, session=2))
    local_book(manager).update_walls(manager.now)
    walls = manager.get_densities(BTC)
    assert walls is not None
    assert [is_uncertain] == [wall.uncertain for wall in walls]


def test_walls_are_uncertain_while_trades_may_be_missing() -> None:
    manager = managed(BTC, density=DensityConfig(k=3.0, min_age_s=0.0))
    bids = [(100.0, 1.0), (99.9, 9.0), (99.8, 1.0), (99.7, 1.0)]
    manager.apply(BTC, snapshot(20, bids=bids))
    local_book(manager).update_walls(manager.now)
    manager.on_link(CONNECTOR, link("missed", "trade.linear.BTCUSDT"))
    walls = manager.get_densities(BTC)
    assert walls is not None
    assert ("live", None) == state(manager)
    assert [True] == [wall.uncertain for wall in walls]


def test_link_events_of_unknown_topics_are_ignored() -> None:
    manager = managed(BTC)
    assert [] == manager.on_link(CONNECTOR, link("rejected", "book.spot.NOPE"))


# -- resyncs ---------------------------------------------------------------------------------------


def due_times(manager: OrderBookManager, until: float) -> list[float]:
    """Return the times at which a resync is requested, checking ten times a second."""
    times = []
    for step in range(1, round(until * 10) + 1):
        manager.advance(step / 10)
        if manager.due_resyncs():
            times.append(step / 10)
    return times


def test_the_first_snapshot_of_a_new_book_is_requested_repeatedly() -> None:
    manager = OrderBookManager()
    manager.subscribe(BTC)
    assert [] == manager.due_resyncs()
    assert [0.5, 2.5, 6.5, 14.5, 30.5, 60.5, 90.5] == due_times(manager, 100)


def test_an_invalid_book_requests_its_own_topic_at_once_until_the_snapshot_arrives() -> None:
    manager = managed(BTC, ETH)
    manager.apply(BTC, delta(12))
    assert [("book.linear.BTCUSDT", "gap")] == manager.due_resyncs()
    assert [] == manager.due_resyncs()
    manager.advance(2.0)
    assert [("book.linear.BTCUSDT", "gap")] == manager.due_resyncs()
    manager.apply(BTC, snapshot(30))
    assert (1, 1) == (manager.counts.requested, manager.counts.recovered), (
        "two requests, one resync"
    )
    manager.advance(1000.0)
    assert [] == manager.due_resyncs()
    manager.apply(BTC, delta(32))
    assert [("book.linear.BTCUSDT", "gap")] == manager.due_resyncs()


def test_a_first_snapshot_that_was_not_requested_is_no_recovery() -> None:
    assert 0 == managed(BTC).counts.recovered


def test_at_a_cold_start_every_requested_book_recovers() -> None:
    """The worker requests before the connector is connected; the link events restart the wait."""
    manager = OrderBookManager()
    manager.subscribe(BTC, connector=CONNECTOR)
    manager.advance(0.6)
    assert [("book.linear.BTCUSDT", "starting")] == manager.due_resyncs()
    manager.on_link(CONNECTOR, link("connected"))
    manager.on_link(CONNECTOR, link("subscribed", "book.linear.BTCUSDT"))
    assert (1, 0) == (manager.counts.requested, manager.counts.recovered)
    manager.apply(BTC, snapshot(10))
    assert (1, 1) == (manager.counts.requested, manager.counts.recovered)


def test_a_request_repeated_after_a_reconnect_is_the_same_resync() -> None:
    manager = managed(BTC)
    manager.apply(BTC, delta(12))
    assert manager.due_resyncs()
    manager.on_link(CONNECTOR, link("connected", session=2))
    manager.advance(6.0)
    assert manager.due_resyncs()
    manager.apply(BTC, snapshot(20, session=2))
    assert (1, 1) == (manager.counts.requested, manager.counts.recovered)


def test_while_disconnected_the_connector_has_time_to_reconnect_by_itself() -> None:
    manager = managed(BTC)
    manager.on_link(CONNECTOR, link("disconnected"))
    assert [] == due_times(manager, 29.9)
    manager.on_link(CONNECTOR, link("connected", session=2))
    manager.on_link(CONNECTOR, link("subscribed", "book.linear.BTCUSDT", session=2))
    manager.advance(31.8)
    assert [] == manager.due_resyncs()
    manager.advance(31.9)
    assert [("book.linear.BTCUSDT", "disconnected")] == manager.due_resyncs()


# -- walls -----------------------------------------------------------------------------------------


def test_the_walls_of_a_slow_replay_follow_its_own_time() -> None:
    """At a tenth of the recorded speed, the trade that explains a decrease is a second late."""
    manager = OrderBookManager(density=DensityConfig(k=3.0, min_age_s=0.0))
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
    assert ["detected", "eaten"] == [event.event for event in book.walls.take_events()]


# -- gaps ------------------------------------------------------------------------------------------


def test_a_gap_has_the_numbers_before_it_and_once_closed_those_after_it() -> None:
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
        source="sim",
    )
    assert ("opened", expected) == opened
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
    assert ("closed", expected) == closed
    assert expected == manager.ledger.gaps()[-1]
    assert [] == book.take_gap_notes()


def test_every_gap_lasts_as_long_as_its_book_was_not_live() -> None:
    manager = managed(BTC)
    for lost_at, found_at in ((10.0, 13.0), (20.0, 21.5)):
        manager.advance(lost_at)
        manager.apply(BTC, delta(12))
        manager.advance(found_at)
        assert found_at - lost_at == local_book(manager).not_live_s(manager.now)
        manager.apply(BTC, snapshot(10))
    assert [3.0, 1.5] == [gap.duration_s for gap in manager.ledger.gaps()[1:]]


def test_a_gap_that_was_noticed_late_lasts_from_the_last_message_before_it() -> None:
    manager = managed(BTC)
    last = local_book(manager).book.last
    assert last is not None
    manager.advance(10.0)
    manager.on_link(CONNECTOR, link("disconnected"))
    manager.advance(11.0)

    manager.apply(BTC, replace(snapshot(40), exchange_ts_ms=last.exchange_ts_ms + 9_000))

    assert 9.0 == manager.ledger.gaps()[-1].duration_s


def test_a_gap_of_an_earlier_process_is_continued_and_ends_by_exchange_time() -> None:
    after = snapshot(40)
    before = earlier_gap(start_ms=after.exchange_ts_ms - 2_500)
    manager = OrderBookManager()
    book = manager.subscribe(BTC, gap=before)

    manager.apply(BTC, after)

    opened, closed = book.take_gap_notes()
    assert ("opened", before) == opened
    ended = replace(
        before,
        closed_ts_ns=after.recv_ts_ns,
        end_ms=after.exchange_ts_ms,
        update_id_after=40,
        sequence_after=400,
        duration_s=2.5,
    )
    assert ("closed", ended) == closed
    assert [ended] == manager.ledger.gaps()


def test_a_gap_of_live_data_is_not_closed_by_simulated_data() -> None:
    manager = OrderBookManager()
    book = manager.subscribe(BTC, gap=replace(earlier_gap(start_ms=5), source="live"))

    manager.apply(BTC, snapshot(40))

    assert ["starting"] == [gap.reason for gap in manager.ledger.gaps()]
    assert ["starting"] == [note.gap.reason for note in book.take_gap_notes("opened")]


def earlier_gap(start_ms: int) -> BookGap:
    """An open gap that another process has opened."""
    return BookGap(
        gap_id=77,
        category="linear",
        symbol=BTC,
        reason="process_down",
        opened_ts_ns=1,
        start_ms=start_ms,
        update_id_before=9,
        sequence_before=90,
        received_update_id=None,
        source="sim",
    )


def test_the_ledger_keeps_the_last_ten_thousand_gaps() -> None:
    manager = managed(BTC)
    update_id = 10
    for _ in range(10_005):
        manager.apply(BTC, delta(update_id + 2))
        update_id += 10
        manager.apply(BTC, snapshot(update_id))
    gaps = manager.ledger.gaps()
    assert 10_000 == len(gaps) == len(manager.ledger)
    assert update_id == gaps[-1].update_id_after


def test_a_second_reason_keeps_the_gap_open_and_is_shown() -> None:
    manager = managed(BTC)
    manager.apply(BTC, delta(12))
    manager.on_link(CONNECTOR, link("disconnected"))
    assert ("stale", "disconnected") == state(manager)
    assert ["starting", "gap"] == [gap.reason for gap in manager.ledger.gaps()]
