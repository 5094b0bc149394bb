"""The orderbook worker: the content and the time of what it publishes."""

from itertools import pairwise

import pytest

from bybit_pipeline.shared.runtime.scheduling import MIN_BATCH, TICKS_MAX
from bybit_pipeline.shared.wire.topics import market_topic
from tests.clock import FakeClock
from tests.orderbook.build import (
    ASKS,
    BIDS,
    MEASURES,
    delta,
    link,
    snapshot,
    trades_message,
)
from tests.orderbook.managed import local_book
from tests.orderbook.worker import (
    BTC,
    BTC_TRADES,
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
    scrape,
)

# -- payloads --------------------------------------------------------------------------------------


def test_a_live_book_is_published_with_every_documented_field() -> None:
    worker = make_worker()
    message = snapshot(10)
    metrics = give(worker, message)
    (payload,) = books(metrics)
    assert b"orderbook.linear.BTCUSDT" in [metric.topic for metric in metrics]
    assert HEADER | MEASURES | {"reason"} == payload.keys()
    assert (1, "orderbook", "orderbook-0") == (payload["v"], payload["kind"], payload["process"])
    assert (
        "linear",
        "BTCUSDT",
        "sim",
    ) == (payload["category"], payload["symbol"], payload["source"])
    assert ("live", None, 1) == (payload["state"], payload["reason"], payload["seq"])
    assert isinstance(payload["epoch"], str)
    assert (10, 100) == (payload["update_id"], payload["sequence"])
    assert message.match_ts_ms == payload["match_ts_ms"]
    assert message.exchange_ts_ms == payload["exchange_ts_ms"]
    assert message.recv_ts_ns == payload["recv_ts_ns"]
    assert worker.clock.time_ns() == payload["publish_ts_ns"]
    assert (100.0, 3.0) == (payload["best_bid"], payload["best_ask_size"])
    assert [list(level) for level in BIDS] == payload["bids"]
    assert [list(level) for level in ASKS] == payload["asks"]
    assert {"1", "5", "10", "50"} == payload["imbalance"].keys()
    assert {"10", "25", "50", "100"} == payload["depth"].keys()
    assert {"10000", "100000"} == payload["impact"].keys()


def test_a_stale_book_is_published_without_any_number() -> None:
    worker = make_worker()
    give(worker, snapshot(10))
    (payload,) = books(give(worker, delta(12)))
    assert ("stale", "gap", 2) == (payload["state"], payload["reason"], payload["seq"])
    lists = {"bids", "asks", "densities"}
    assert {name: [] if name in lists else None for name in MEASURES} == {
        name: payload[name] for name in MEASURES
    }
    assert [None] * 3 == [payload[name] for name in ("match_ts_ms", "exchange_ts_ms", "recv_ts_ns")]


def test_nothing_is_published_before_the_source_is_known() -> None:
    worker = make_worker()
    assert [] == due(worker)
    assert [] == list(worker.publish_all())


def test_a_book_without_a_snapshot_is_published_as_syncing_once_the_source_is_known() -> None:
    worker = make_worker()
    states = [(p["state"], p["reason"]) for p in books(give(worker, link("connected"), LINK))]
    assert [("syncing", "starting")] * 2 == states


def test_order_flow_covers_one_publish_interval() -> None:
    clock = FakeClock(START_S)
    worker = make_worker(clock)
    give(worker, snapshot(10))
    flows = []
    for update_id, bid_size in ((11, 3.0), (12, 4.0), (13, 2.0)):
        give(worker, delta(update_id, bids=[(100.0, bid_size)]))
        if update_id != 11:
            clock.now_s += 0.1
            flows += [payload["ofi"] for payload in books(due(worker))]
    assert [3.0, -2.0] == flows


def test_order_flow_never_spans_an_invalid_book() -> None:
    clock = FakeClock(START_S)
    worker = make_worker(clock)
    give(worker, snapshot(10))
    give(worker, delta(11, bids=[(100.0, 50.0)]))
    give(worker, delta(13))
    (live,) = books(give(worker, snapshot(20, bids=[(100.0, 7.0)])))
    assert 0.0 == live["ofi"]


def test_order_flow_is_null_when_it_is_turned_off() -> None:
    worker = make_worker(ofi=False)
    assert books(give(worker, snapshot(10)))[0]["ofi"] is None


# -- times -----------------------------------------------------------------------------------------


def test_books_that_changed_together_are_spread_over_the_publish_interval() -> None:
    clock = FakeClock(START_S)
    names = [f"S{number}USDT" for number in range(40)]
    worker = make_worker(clock, *[assignment(name) for name in names])
    topics = [market_topic("book", "linear", name) for name in names]
    for topic in topics:
        give(worker, snapshot(10), topic)
    clock.now_s += 0.5
    for topic in topics:
        give(worker, delta(11), topic)
    ticks = [[payload["symbol"] for payload in books(due(worker))] for _ in range(TICKS_MAX)]
    assert [MIN_BATCH] * 13 + [1] + [0] * 6 == [len(tick) for tick in ticks]
    assert sorted(names) == sorted(symbol for tick in ticks for symbol in tick)


def test_changes_are_published_once_per_interval_and_a_quiet_book_once_a_second() -> None:
    clock = FakeClock(START_S)
    worker = make_worker(clock, publish_interval_ms=100)
    give(worker, snapshot(10))
    published = []
    for update_id in range(11, 111):  # one change every 10 ms, for a second
        clock.now_s += 0.01
        assert [] == give(worker, delta(update_id, bids=[(100.0, float(update_id))]))
        published += books(due(worker))
    assert len(published) in (9, 10)  # multiples of 0.01 do not add up exactly
    clock.now_s += 0.1
    published += books(due(worker))
    for _ in range(10):
        clock.now_s += 0.1
        published += books(due(worker))
    assert len(published) in (10, 11, 12)
    assert list(range(2, 2 + len(published))) == [payload["seq"] for payload in published]


@pytest.mark.parametrize("publish_interval_ms", [100, 5_000])
def test_a_book_is_published_once_a_second_whatever_the_interval_and_its_walls(
    publish_interval_ms: int,
) -> None:
    """Its walls are judged whenever somebody trades, which publishes nothing by itself."""
    clock = FakeClock(START_S)
    worker = make_worker(clock, publish_interval_ms=publish_interval_ms)
    give(worker, snapshot(10, bids=WALL))
    published = [clock.now_s]
    for _ in range(200):
        clock.now_s += 0.02
        local_book(worker.manager).walls_due = 0.0
        if books(due(worker)):
            published.append(clock.now_s)
    assert max(after - before for before, after in pairwise([*published, clock.now_s])) < 1.0


def test_a_change_after_a_pause_is_published_at_the_next_tick() -> None:
    clock = FakeClock(START_S)
    worker = make_worker(clock)
    give(worker, snapshot(10))
    clock.now_s += 5.0
    give(worker, delta(11))
    assert [11] == [payload["update_id"] for payload in books(due(worker))]


def test_a_state_change_is_published_at_once_and_affects_no_other_book() -> None:
    worker = make_worker()
    give(worker, snapshot(10))
    give(worker, snapshot(10), ETH)
    (stale,) = books(give(worker, delta(14)))
    assert ("BTCUSDT", "stale") == (stale["symbol"], stale["state"])
    (live,) = books(give(worker, snapshot(20)))
    assert ("BTCUSDT", "live", 20) == (live["symbol"], live["state"], live["update_id"])


def test_missed_messages_on_the_bus_make_the_book_stale() -> None:
    worker = make_worker()
    give(worker, snapshot(10))
    (payload,) = books(give(worker, delta(11), lost=2))
    assert ("stale", "bus_gap") == (payload["state"], payload["reason"])


def test_a_disconnect_makes_every_book_stale_at_once() -> None:
    worker = make_worker()
    give(worker, snapshot(10))
    give(worker, snapshot(10), ETH)
    metrics = books(give(worker, link("disconnected"), LINK))
    assert [
        ("BTCUSDT", "stale", "disconnected"),
        ("ETHUSDT", "stale", "disconnected"),
    ] == [(p["symbol"], p["state"], p["reason"]) for p in metrics]


def test_a_new_source_starts_a_new_epoch_that_counts_from_one() -> None:
    worker = make_worker()
    (before,) = books(give(worker, snapshot(10)))
    (change,) = books(give(worker, delta(11, source="live")))
    assert ("stale", "source_change") == (change["state"], change["reason"])
    assert ("live", 1) == (change["source"], change["seq"])
    assert change["epoch"] != before["epoch"]
    (after,) = books(give(worker, snapshot(5, source="live")))
    assert ("live", 2, change["epoch"]) == (after["source"], after["seq"], after["epoch"])


def test_a_restarted_worker_has_other_epochs() -> None:
    first, second = make_worker(FakeClock(1.0)), make_worker(FakeClock(2.0))
    epochs = {books(give(worker, snapshot(10)))[0]["epoch"] for worker in (first, second)}
    assert 2 == len(epochs)


def test_every_book_is_published_again_on_request() -> None:
    worker = make_worker()
    give(worker, snapshot(10))
    give(worker, snapshot(10), ETH)
    give(worker, delta(12), ETH)
    metrics = books(list(worker.publish_all()))
    assert [
        ("BTCUSDT", "live", 2),
        ("ETHUSDT", "stale", 3),
    ] == [(p["symbol"], p["state"], p["seq"]) for p in metrics]


# -- gaps ------------------------------------------------------------------------------------------


def test_a_gap_is_published_when_it_opens_and_when_it_closes() -> None:
    clock = FakeClock(START_S)
    worker = make_worker(clock)
    give(worker, snapshot(10))
    (opened,) = of_kind(give(worker, delta(14)), "gap")
    clock.now_s += 2.0
    (closed,) = of_kind(give(worker, snapshot(30)), "gap")
    assert opened.keys() == closed.keys() > HEADER | {"stream", "event", "reason", "gap_id"}
    assert ("opened", "gap", "book") == (opened["event"], opened["reason"], opened["stream"])
    assert (10, 14) == (opened["update_id_before"], opened["received_update_id"])
    assert (None, None) == (opened["update_id_after"], opened["duration_s"])
    assert "closed" == closed["event"]
    assert opened["gap_id"] == closed["gap_id"]
    assert (10, 30) == (closed["update_id_before"], closed["update_id_after"])
    assert (100, 300) == (closed["sequence_before"], closed["sequence_after"])
    assert pytest.approx(2.0) == closed["duration_s"]
    assert opened["seq"] + 1 == closed["seq"]


def test_the_first_gap_of_every_book_is_published_from_its_opening() -> None:
    worker = make_worker()
    metrics = [*give(worker, snapshot(10)), *give(worker, snapshot(10), ETH)]
    assert [
        ("BTCUSDT", "opened", "starting", 1),
        ("BTCUSDT", "closed", "starting", 2),
        ("ETHUSDT", "opened", "starting", 1),
        ("ETHUSDT", "closed", "starting", 2),
    ] == [(p["symbol"], p["event"], p["reason"], p["seq"]) for p in of_kind(metrics, "gap")]


# -- assignments -----------------------------------------------------------------------------------


def test_an_unassigned_symbol_is_no_longer_published_and_its_gauges_disappear() -> None:
    worker = make_worker()
    give(worker, snapshot(10))
    give(worker, snapshot(10), ETH)
    mid = 'mid_price{category="linear",symbol="BTCUSDT"}'
    assert 100.25 == scrape(worker)[mid]
    assert worker.unassign(BTC) is not None
    assert [] == give(worker, delta(11))
    assert [] == give(worker, snapshot(20))
    assert {"ETHUSDT"} == {p["symbol"] for p in books(list(worker.publish_all()))}
    assert not [name for name in scrape(worker) if "BTCUSDT" in name]
    assert {"syncing": 0, "live": 1, "stale": 0} == worker.status()["books"]


def test_the_final_metrics_of_a_live_book_remove_its_walls_and_contain_no_number() -> None:
    worker = make_worker()
    (before,) = books(give(worker, snapshot(10, bids=WALL)))
    metrics = list(worker.final_metrics(BTC))
    (event,) = of_kind(metrics, "density")
    (book,) = books(metrics)
    assert [] == of_kind(metrics, "gap")
    assert ("removed", 99.9, "stale") == (event["event"], event["price"], event["state"])
    assert ("stale", "unsubscribed") == (book["state"], book["reason"])
    assert (before["epoch"], before["seq"] + 1) == (book["epoch"], book["seq"])
    assert not [name for name in MEASURES if book[name] not in (None, [])]
    assert 0 == worker.status()["gaps"]
    worker.unassign(BTC)
    assert [] == give(worker, snapshot(20))


def test_the_final_metrics_of_a_stale_book_close_its_gap_without_an_end() -> None:
    clock = FakeClock(START_S)
    worker = make_worker(clock)
    give(worker, snapshot(10))
    (opened,) = of_kind(give(worker, delta(12)), "gap")
    clock.now_s += 3.0
    worker.on_turn()
    (closed,) = of_kind(list(worker.final_metrics(BTC)), "gap")
    assert ("closed", opened["gap_id"]) == (closed["event"], closed["gap_id"])
    assert ("gap", opened["start_ms"]) == (closed["reason"], closed["start_ms"])
    assert pytest.approx(3.0) == closed["duration_s"]
    for name in ("closed_ts_ns", "end_ms", "update_id_after", "sequence_after"):
        assert closed[name] is None


def test_a_topic_that_was_never_published_has_no_final_metrics() -> None:
    worker = make_worker()
    assert [] == list(worker.final_metrics(BTC))
    assert [] == list(worker.final_metrics(BTC_TRADES))
    assert [] == list(worker.final_metrics(b"book.linear.NOPE"))


def test_a_symbol_that_is_assigned_again_starts_a_new_epoch() -> None:
    worker = make_worker()
    (before,) = books(give(worker, snapshot(10)))
    worker.unassign(BTC)
    worker.assign(assignment("BTCUSDT"))
    (after,) = books(give(worker, snapshot(20)))
    assert 1 == after["seq"]
    assert after["epoch"] != before["epoch"]


def test_a_second_assignment_of_a_topic_changes_nothing() -> None:
    worker = make_worker()
    give(worker, snapshot(10))
    worker.assign(assignment("BTCUSDT"))
    assert 1 == worker.status()["books"]["live"]


# -- counters and status ---------------------------------------------------------------------------


def test_every_counter_counts_its_event() -> None:
    clock = FakeClock(START_S)
    worker = make_worker(clock)
    give(worker, snapshot(10))
    give(worker, delta(12))
    give(worker, delta(13))
    worker._on_resync_timer()
    clock.now_s += 1.5
    give(worker, snapshot(20, bids=WALL))
    give(worker, trades_message(), BTC_TRADES)
    found = scrape(worker)
    process = 'process="orderbook-0"'
    assert 4 == found[f'worker_messages_total{{{process},stream="book"}}']
    assert 1 == found[f'worker_messages_total{{{process},stream="trade"}}']
    assert 1 == found[f'book_gaps_total{{{process},reason="gap"}}']
    assert 0 == found[f'book_gaps_total{{{process},reason="crossed"}}']
    assert 1 == found[f'book_resyncs_total{{{process},result="requested"}}']
    assert 1 == found[f'book_resyncs_total{{{process},result="recovered"}}']
    assert 1 == found[f"book_deltas_ignored_total{{{process}}}"]
    assert 1 == found[f'books{{{process},state="live"}}']
    assert 1 == found[f'books{{{process},state="syncing"}}']
    assert 1 == found[f'densities_total{{event="detected",{process}}}']
    assert 3 == found[f'metrics_published_total{{kind="orderbook",{process}}}']
    assert pytest.approx(1.5) == worker.gap_ledger.gaps()[-1].duration_s


def test_gauges_per_symbol_show_live_books_and_can_be_turned_off() -> None:
    worker = make_worker()
    give(worker, snapshot(10))
    found = scrape(worker)
    assert 100.25 == found['mid_price{category="linear",symbol="BTCUSDT"}']
    assert found['spread_bps{category="linear",symbol="BTCUSDT"}'] > 0
    assert -0.5 == found['imbalance_ratio{category="linear",levels="1",symbol="BTCUSDT"}']
    give(worker, delta(12))
    assert not [name for name in scrape(worker) if name.startswith(("mid_price", "imbalance"))]
    worker = make_worker(per_symbol=False)
    give(worker, snapshot(10))
    assert not [name for name in scrape(worker) if name.startswith("mid_price")]


def test_the_status_names_the_books_that_are_not_live() -> None:
    clock = FakeClock(START_S)
    worker = make_worker(clock)
    give(worker, snapshot(10))
    clock.now_s += 2.5
    status = worker.status()
    assert {"syncing": 1, "live": 1, "stale": 0} == status["books"]
    assert {"book.linear.ETHUSDT": 2.5} == status["not_live"]
    assert 1 == status["messages"]
