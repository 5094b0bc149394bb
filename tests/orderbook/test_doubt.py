"""A book whose link is doubted is stale, and live again without a snapshot once it is proven."""

from bybit_pipeline.processes.orderbook.manager import OrderBookManager
from tests.orderbook.build import delta, snapshot
from tests.orderbook.managed import BTC, CONNECTOR, ETH, local_book, managed, state


def doubted() -> OrderBookManager:
    manager = managed(BTC)
    manager.advance(5.0)
    assert [local_book(manager)] == manager.doubt_link(CONNECTOR, "process_silent")
    return manager


def test_a_doubted_link_makes_its_books_stale_at_once() -> None:
    manager = managed(BTC)
    manager.subscribe(ETH, connector="connector-linear-1")
    manager.apply(ETH, snapshot(10))
    manager.doubt_link(CONNECTOR, "silent")
    assert ("stale", "silent") == state(manager)
    assert ("live", None) == state(manager, ETH)


def test_a_stale_book_shows_no_numbers() -> None:
    manager = doubted()
    assert manager.get_imbalance(BTC) is None
    shown = manager.get_snapshot(BTC)
    assert shown is not None
    assert (None, [], None) == (shown.best_bid, shown.bids, shown.mid_price)


def test_messages_that_were_late_are_applied_and_the_book_returns_without_a_snapshot() -> None:
    manager = doubted()
    manager.apply(BTC, delta(11))
    manager.apply(BTC, delta(12))
    assert ("stale", "process_silent") == state(manager)
    assert [local_book(manager)] == manager.doubt_link(CONNECTOR, None)
    assert ("live", None) == state(manager)
    assert 12 == local_book(manager).book.update_id
    assert [] == manager.due_resyncs()


def test_an_outage_is_one_gap_from_the_last_message_before_to_the_last_one_made_up() -> None:
    manager = doubted()
    manager.apply(BTC, delta(11))
    manager.advance(8.0)
    manager.doubt_link(CONNECTOR, None)
    gap = manager.ledger.gaps()[-1]
    assert ("process_silent", 10, 11, 3.0, True) == (
        gap.reason,
        gap.update_id_before,
        gap.update_id_after,
        gap.duration_s,
        gap.complete,
    )
    assert 2 == len(manager.ledger.gaps()), "the start of the book, and this one"


def test_a_snapshot_does_not_make_a_doubted_book_live() -> None:
    manager = doubted()
    manager.apply(BTC, delta(13))
    assert ("stale", "gap") == state(manager)
    manager.apply(BTC, snapshot(20))
    assert ("stale", "process_silent") == state(manager)
    manager.doubt_link(CONNECTOR, None)
    assert ("live", None) == state(manager)
    assert 2 == len(manager.ledger.gaps()), "still the same outage"
    assert not manager.ledger.gaps()[-1].complete


def test_a_link_that_is_trusted_again_does_not_revive_a_book_without_a_snapshot() -> None:
    manager = doubted()
    manager.on_link_lost(CONNECTOR, 1, "process_down")
    manager.doubt_link(CONNECTOR, None)
    assert ("stale", "process_down") == state(manager)
    manager.apply(BTC, snapshot(30))
    assert ("live", None) == state(manager)
