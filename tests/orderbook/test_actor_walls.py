"""The orderbook worker publishes the walls of its books."""

import pytest
from msgspec.structs import replace

from bybit_pipeline.processes.orderbook.actor import OrderbookWorker
from bybit_pipeline.processes.orderbook.walls.tracker import ARRIVAL_MS
from bybit_pipeline.processes.orderbook.walls.verdict import FALL_MS
from bybit_pipeline.shared.bybit import PUSH_PERIOD_MS
from bybit_pipeline.shared.wire.messages import (
    BookMessage,
    TradesMessage,
)
from bybit_pipeline.shared.wire.topics import link_topic
from tests.clock import FakeClock
from tests.orderbook.build import (
    delta,
    link,
    snapshot,
    trade,
    trades_message,
)
from tests.orderbook.worker import (
    BTC_TRADES,
    DENSITY,
    ETH,
    HEADER,
    LINK,
    START_S,
    WALL,
    assignment,
    books,
    due,
    give,
    make_worker,
    of_kind,
    payload_of,
)


def test_a_wall_is_published_as_an_event_and_in_the_book() -> None:
    worker = make_worker()
    metrics = give(worker, snapshot(10, bids=WALL))
    (event,) = of_kind(metrics, "density")
    (book,) = books(metrics)
    assert HEADER | DENSITY | {"event"} == event.keys()
    assert ("detected", 99.9, 20.0) == (event["event"], event["price"], event["size"])
    assert (1, "live", book["epoch"]) == (event["seq"], event["state"], event["epoch"])
    (listed,) = book["densities"]
    assert {name: event[name] for name in DENSITY} == listed


def fall(sold: float) -> tuple[BookMessage, TradesMessage]:
    """Return the message in which the wall falls to 2, and a trade that took part of it."""
    fell = delta(11, bids=[(99.9, 2.0)])
    assert fell.match_ts_ms is not None
    return fell, trades_message(trade(fell.match_ts_ms - 3, "Sell", 99.9, sold))


def test_an_eaten_wall_is_published_with_the_size_that_trades_took() -> None:
    clock = FakeClock(START_S)
    worker = make_worker(clock)
    give(worker, snapshot(10, bids=WALL))
    fell, sold = fall(18.0)
    assert [] == give(worker, sold, BTC_TRADES)
    give(worker, fell)
    clock.now_s += 0.1
    (event,) = of_kind(due(worker), "density")
    assert ("eaten", 0.9, 18.0) == (event["event"], event["eaten_ratio"], event["traded_size"])
    assert event["uncertain"] is False


INTERVAL_S = 0.1
GRACE_S = (PUSH_PERIOD_MS[50] + ARRIVAL_MS) / 1_000


def events_while_quiet(
    worker: OrderbookWorker, clock: FakeClock, within_s: float
) -> dict[str, float]:
    """Return the events while nothing arrives, and the seconds until each was published."""
    began, reported = clock.now_s, {}
    while clock.now_s < began + within_s:
        clock.now_s += worker.scheduler.tick_s
        for event in of_kind(due(worker), "density"):
            reported[event["event"]] = clock.now_s - began
    return reported


def test_a_pulled_wall_is_reported_in_time_even_if_the_book_does_not_change_again() -> None:
    clock = FakeClock(START_S)
    worker = make_worker(clock)
    give(worker, snapshot(10, bids=WALL))
    give(worker, delta(11, bids=[(99.9, 0.0)]))
    reported = events_while_quiet(worker, clock, 1.0)
    assert {"pulled"} == reported.keys()
    assert GRACE_S < reported["pulled"] <= GRACE_S + INTERVAL_S + 2 * worker.scheduler.tick_s
    assert [] == books(due(worker))


def test_a_wall_that_fell_by_trades_is_reported_as_eaten_in_time_in_a_quiet_book() -> None:
    clock = FakeClock(START_S)
    worker = make_worker(clock)
    give(worker, snapshot(10, bids=WALL))
    fell, sold = fall(11.0)
    give(worker, sold, BTC_TRADES)
    give(worker, fell)
    reported = events_while_quiet(worker, clock, 10.0)
    assert {"eaten"} == reported.keys()
    assert FALL_MS / 1_000 < reported["eaten"] <= FALL_MS / 1_000 + 2.2 * INTERVAL_S


def test_a_trade_that_explains_a_decrease_is_reported_within_an_interval() -> None:
    clock = FakeClock(START_S)
    worker = make_worker(clock)
    give(worker, snapshot(10, bids=WALL))
    fell, sold = fall(18.0)
    give(worker, fell)
    assert {} == events_while_quiet(worker, clock, 0.15)
    give(worker, sold, BTC_TRADES)
    reported = events_while_quiet(worker, clock, 1.0)
    assert {"eaten"} == reported.keys()
    assert reported["eaten"] <= INTERVAL_S, "published before the grace period ends"


def test_the_walls_of_a_book_without_trades_are_uncertain() -> None:
    worker = make_worker()
    (event,) = of_kind(give(worker, snapshot(10, bids=WALL), ETH), "density")
    assert event["uncertain"] is True


def test_the_walls_of_a_book_that_becomes_stale_are_removed() -> None:
    worker = make_worker()
    give(worker, snapshot(10, bids=WALL))
    metrics = give(worker, delta(14))
    (event,) = of_kind(metrics, "density")
    assert ("removed", 20.0, "stale") == (event["event"], event["size"], event["state"])
    assert [] == books(metrics)[0]["densities"]


def test_trades_may_be_assigned_before_or_after_their_book() -> None:
    worker = make_worker(None, assignment("BTCUSDT", "trade"), assignment("BTCUSDT"))
    (event,) = of_kind(give(worker, snapshot(10, bids=WALL)), "density")
    assert event["uncertain"] is False
    worker = make_worker(None, assignment("ETHUSDT"))
    worker.assign(assignment("ETHUSDT", "trade"))
    (event,) = of_kind(give(worker, snapshot(10, bids=WALL), ETH), "density")
    assert event["uncertain"] is False


def test_walls_are_uncertain_once_the_trades_are_unassigned() -> None:
    worker = make_worker()
    worker.unassign(BTC_TRADES)
    (event,) = of_kind(give(worker, snapshot(10, bids=WALL)), "density")
    assert event["uncertain"] is True


def test_only_a_disconnect_of_the_trades_own_connector_makes_walls_uncertain() -> None:
    other = "connector-linear-1"
    worker = make_worker(
        None,
        assignment("BTCUSDT"),
        replace(assignment("BTCUSDT", "trade"), connector=other),
        replace(assignment("ETHUSDT"), connector="connector-linear-2"),
    )
    (event,) = of_kind(give(worker, snapshot(10, bids=WALL)), "density")
    assert event["uncertain"] is False
    uncertain = []
    for connector in ("connector-linear-2", other):
        give(worker, link("disconnected"), link_topic(connector))
        for book in books(list(worker.publish_all())):
            uncertain += [wall["uncertain"] for wall in book["densities"]]
    assert [False, True] == uncertain


def test_the_baseline_of_a_new_source_ignores_the_old_one() -> None:
    worker = make_worker()
    give(worker, snapshot(10, bids=[(level[0], level[1] * 1000) for level in WALL]))
    metrics = give(worker, snapshot(5, bids=WALL, source="live"))
    events = [(event["event"], event["strength"]) for event in of_kind(metrics, "density")]
    assert [("removed", 20.0), ("detected", 20.0)] == events


@pytest.mark.parametrize("is_link_first", [False, True])
def test_walls_and_gaps_end_in_the_epoch_of_their_source(is_link_first: bool) -> None:
    worker = make_worker()
    (before,) = books(give(worker, snapshot(10, bids=WALL)))
    metrics = []
    if is_link_first:
        metrics += give(worker, link("connected", source="live", session=2), LINK)
    metrics += give(worker, snapshot(5, bids=WALL, source="live", session=2))
    reported = [
        (p["kind"], p["event"], p["source"], p["epoch"] == before["epoch"], p["state"])
        for p in map(payload_of, metrics)
        if p["kind"] != "orderbook" and p["symbol"] == "BTCUSDT"
    ]
    assert [
        ("density", "removed", "sim", True, "stale"),
        ("gap", "opened", "sim", True, "stale"),
        ("density", "detected", "live", False, "live"),
        ("gap", "closed", "live", False, "live"),
    ] == reported
    decoded = [payload_of(metric) for metric in metrics]
    numbers = {(p["kind"], p["epoch"] == before["epoch"]): p["seq"] for p in decoded}
    assert 2 == numbers["density", True]
    assert 1 == numbers["density", False]


def test_books_without_a_source_use_up_no_publish_quota() -> None:
    clock = FakeClock(START_S)
    without_source = [
        replace(assignment(f"C{number}USDT"), connector="connector-linear-1")
        for number in range(10)
    ]
    worker = make_worker(clock, *without_source, assignment("BTCUSDT"))
    give(worker, snapshot(10))
    assert [] == list(worker.on_connector_gone("connector-linear-1"))
    for update in range(11, 16):
        clock.now_s += INTERVAL_S
        give(worker, delta(update))
        assert [update] == [book["update_id"] for book in books(due(worker))]
