"""The orderbook worker: what it publishes, when, and over real sockets."""

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from msgspec.structs import replace
from prometheus_client import generate_latest

from bybit_pipeline.processes.orderbook.actor import OrderbookWorker
from bybit_pipeline.processes.orderbook.walls.tracker import ARRIVAL_MS
from bybit_pipeline.processes.orderbook.walls.verdict import FALL_MS
from bybit_pipeline.shared.bus.market import MarketPublisher, Received
from bybit_pipeline.shared.bus.metrics import MetricInbox
from bybit_pipeline.shared.bybit import PUSH_PERIOD_MS
from bybit_pipeline.shared.runtime.clock import Clock, SystemClock
from bybit_pipeline.shared.runtime.scheduling import MIN_BATCH, TICKS_MAX
from bybit_pipeline.shared.settings.config import DensityConfig, OrderbookConfig
from bybit_pipeline.shared.settings.specs import Assignment, OrderbookSpec, Stream
from bybit_pipeline.shared.wire.codec import decode_map, encode_map
from bybit_pipeline.shared.wire.messages import (
    BookMessage,
    LinkMessage,
    MarketMessage,
    TradesMessage,
)
from bybit_pipeline.shared.wire.metrics import Metric
from bybit_pipeline.shared.wire.topics import link_topic, market_topic
from tests.naive import NaiveBook, read_capture
from tests.orderbook.build import (
    ASKS,
    BIDS,
    MEASURES,
    delta,
    link,
    recorded_book,
    recorded_trades,
    snapshot,
    trade,
    trades_message,
)

CONNECTOR = "connector-linear-0"
BTC = market_topic("book", "linear", "BTCUSDT")
BTC_TRADES = market_topic("trade", "linear", "BTCUSDT")
ETH = market_topic("book", "linear", "ETHUSDT")
LINK = link_topic(CONNECTOR)
DEADLINE_MS = 10_000
START_NS = 1_000_207_000_000
"""When the first snapshot of ``build`` has just been received."""

HEADER = {
    "v",
    "kind",
    "category",
    "symbol",
    "source",
    "process",
    "epoch",
    "seq",
    "state",
    "match_ts_ms",
    "exchange_ts_ms",
    "recv_ts_ns",
    "publish_ts_ns",
}
DENSITY = {
    "side",
    "price",
    "size",
    "initial_size",
    "peak_size",
    "strength",
    "eaten_ratio",
    "pulled_ratio",
    "traded_size",
    "cancelled_size",
    "refilled_size",
    "distance_bps",
    "first_seen_ms",
    "age_ms",
    "uncertain",
}


@dataclasses.dataclass
class FakeClock:
    """Time that the test moves."""

    now_s: float = START_NS / 1e9

    def time_ns(self) -> int:
        return round(self.now_s * 1_000) * 1_000_000

    def monotonic(self) -> float:
        return self.now_s


def assignment(
    symbol: str, kind: Any = "book", endpoint: str = "ipc:///nowhere", depth: int = 50
) -> Assignment:
    depth = depth if kind == "book" else 0
    stream = Stream(kind=kind, category="linear", symbol=symbol, depth=depth)
    return Assignment(stream=stream, connector=CONNECTOR, endpoint=endpoint)


def make_worker(
    clock: Clock | None = None, *assignments: Assignment, per_symbol: bool = True, **fields: Any
) -> OrderbookWorker:
    spec = OrderbookSpec(
        process="orderbook-0",
        role="orderbook",
        run_dir="/nowhere",
        metrics_in=fields.pop("metrics_in", "ipc:///nowhere"),
        control=fields.pop("control", ""),
        assignments=list(assignments)
        or [assignment("BTCUSDT"), assignment("ETHUSDT"), assignment("BTCUSDT", "trade")],
        settings=OrderbookConfig(**fields),
        density=DensityConfig(k=3.0),
        per_symbol=per_symbol,
    )
    return OrderbookWorker(spec, clock=clock or FakeClock())


def give(
    worker: OrderbookWorker, message: MarketMessage, topic: bytes = BTC, lost: int = 0
) -> list[Metric]:
    worker.manager.advance(worker.clock.monotonic())
    return list(worker.on_message(Received(topic, message, lost)))


def due(worker: OrderbookWorker) -> list[Metric]:
    worker.manager.advance(worker.clock.monotonic())
    return list(worker.publish_due())


def payload_of(metric: Metric) -> dict[str, Any]:
    """The payload as a subscriber decodes it."""
    return decode_map(encode_map(metric.payload))


def of_kind(metrics: Iterable[Metric], kind: str) -> list[dict[str, Any]]:
    return [payload for payload in map(payload_of, metrics) if payload["kind"] == kind]


def books(metrics: Iterable[Metric]) -> list[dict[str, Any]]:
    return of_kind(metrics, "orderbook")


def scrape(worker: OrderbookWorker) -> dict[str, float]:
    lines = generate_latest(worker.telemetry.registry).decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name.removeprefix("bybit_pipeline_"): float(value) for name, _, value in samples}


# -- payloads --------------------------------------------------------------------------------------


def test_a_live_book_is_published_with_every_field_of_the_contract() -> None:
    worker = make_worker()
    message = snapshot(10)
    metrics = give(worker, message)
    (payload,) = books(metrics)
    assert b"orderbook.linear.BTCUSDT" in [metric.topic for metric in metrics]
    assert payload.keys() == HEADER | MEASURES | {"reason"}
    assert (payload["v"], payload["kind"], payload["process"]) == (1, "orderbook", "orderbook-0")
    assert (payload["category"], payload["symbol"], payload["source"]) == (
        "linear",
        "BTCUSDT",
        "sim",
    )
    assert (payload["state"], payload["reason"], payload["seq"]) == ("live", None, 1)
    assert isinstance(payload["epoch"], str)
    assert (payload["update_id"], payload["sequence"]) == (10, 100)
    assert payload["match_ts_ms"] == message.match_ts_ms
    assert payload["exchange_ts_ms"] == message.exchange_ts_ms
    assert payload["recv_ts_ns"] == message.recv_ts_ns
    assert payload["publish_ts_ns"] == worker.clock.time_ns()
    assert (payload["best_bid"], payload["best_ask_size"]) == (100.0, 3.0)
    assert payload["bids"] == [list(level) for level in BIDS]
    assert payload["asks"] == [list(level) for level in ASKS]
    assert payload["imbalance"].keys() == {"1", "5", "10", "50"}
    assert payload["depth"].keys() == {"10", "25", "50", "100"}
    assert payload["impact"].keys() == {"10000", "100000"}


def test_a_stale_book_is_published_without_any_number() -> None:
    worker = make_worker()
    give(worker, snapshot(10))
    (payload,) = books(give(worker, delta(12)))
    assert (payload["state"], payload["reason"], payload["seq"]) == ("stale", "gap", 2)
    lists = {"bids", "asks", "densities"}
    assert {name: [] if name in lists else None for name in MEASURES} == {
        name: payload[name] for name in MEASURES
    }
    assert [payload[name] for name in ("match_ts_ms", "exchange_ts_ms", "recv_ts_ns")] == [None] * 3


def test_nothing_is_published_before_the_source_is_known() -> None:
    worker = make_worker()
    assert due(worker) == []
    assert list(worker.publish_all()) == []


def test_a_book_without_a_snapshot_is_published_as_syncing_once_the_source_is_known() -> None:
    worker = make_worker()
    states = [(p["state"], p["reason"]) for p in books(give(worker, link("connected"), LINK))]
    assert states == [("syncing", "starting")] * 2


def test_order_flow_is_that_of_the_publish_interval() -> None:
    clock = FakeClock()
    worker = make_worker(clock)
    give(worker, snapshot(10))
    flows = []
    for update_id, bid_size in ((11, 3.0), (12, 4.0), (13, 2.0)):
        give(worker, delta(update_id, bids=[(100.0, bid_size)]))
        if update_id != 11:
            clock.now_s += 0.1
            flows += [payload["ofi"] for payload in books(due(worker))]
    assert flows == [3.0, -2.0]


def test_order_flow_never_spans_a_doubt() -> None:
    clock = FakeClock()
    worker = make_worker(clock)
    give(worker, snapshot(10))
    give(worker, delta(11, bids=[(100.0, 50.0)]))
    give(worker, delta(13))
    (live,) = books(give(worker, snapshot(20, bids=[(100.0, 7.0)])))
    assert live["ofi"] == 0.0


def test_no_order_flow_is_computed_when_it_is_not_wanted() -> None:
    worker = make_worker(ofi=False)
    assert books(give(worker, snapshot(10)))[0]["ofi"] is None


# -- when ------------------------------------------------------------------------------------------


def test_books_that_changed_together_are_published_in_turns_and_none_waits_for_long() -> None:
    clock = FakeClock()
    names = [f"S{number}USDT" for number in range(40)]
    worker = make_worker(clock, *[assignment(name) for name in names])
    topics = [market_topic("book", "linear", name) for name in names]
    for topic in topics:
        give(worker, snapshot(10), topic)
    clock.now_s += 1.0
    for topic in topics:
        give(worker, delta(11), topic)
    turns = [[payload["symbol"] for payload in books(due(worker))] for _ in range(TICKS_MAX)]
    assert [MIN_BATCH] * 13 + [1] + [0] * 6 == [len(turn) for turn in turns]
    assert sorted(names) == sorted(symbol for turn in turns for symbol in turn)


def test_changes_are_published_once_an_interval_and_silence_is_not() -> None:
    clock = FakeClock()
    worker = make_worker(clock, publish_interval_ms=100)
    give(worker, snapshot(10))
    published = []
    for update_id in range(11, 111):  # one change every 10 ms, for a second
        clock.now_s += 0.01
        assert give(worker, delta(update_id, bids=[(100.0, float(update_id))])) == []
        published += books(due(worker))
    assert len(published) in (9, 10)  # hundredths of a second do not add up exactly
    clock.now_s += 0.1
    due(worker)
    for _ in range(10):
        clock.now_s += 0.1
        assert due(worker) == []
    assert [payload["seq"] for payload in published] == list(range(2, 2 + len(published)))


def test_a_change_after_a_pause_is_published_with_the_next_tick() -> None:
    clock = FakeClock()
    worker = make_worker(clock)
    give(worker, snapshot(10))
    clock.now_s += 5.0
    give(worker, delta(11))
    assert [payload["update_id"] for payload in books(due(worker))] == [11]


def test_a_state_change_does_not_wait_for_the_interval_and_touches_no_other_book() -> None:
    worker = make_worker()
    give(worker, snapshot(10))
    give(worker, snapshot(10), ETH)
    (stale,) = books(give(worker, delta(14)))
    assert (stale["symbol"], stale["state"]) == ("BTCUSDT", "stale")
    (live,) = books(give(worker, snapshot(20)))
    assert (live["symbol"], live["state"], live["update_id"]) == ("BTCUSDT", "live", 20)


def test_a_hole_on_the_bus_makes_the_book_stale() -> None:
    worker = make_worker()
    give(worker, snapshot(10))
    (payload,) = books(give(worker, delta(11), lost=2))
    assert (payload["state"], payload["reason"]) == ("stale", "bus_gap")


def test_a_lost_link_makes_every_book_stale_at_once() -> None:
    worker = make_worker()
    give(worker, snapshot(10))
    give(worker, snapshot(10), ETH)
    metrics = books(give(worker, link("disconnected"), LINK))
    assert [(p["symbol"], p["state"], p["reason"]) for p in metrics] == [
        ("BTCUSDT", "stale", "disconnected"),
        ("ETHUSDT", "stale", "disconnected"),
    ]


def test_a_new_source_starts_a_new_epoch_from_one() -> None:
    worker = make_worker()
    (before,) = books(give(worker, snapshot(10)))
    (change,) = books(give(worker, delta(11, source="live")))
    assert (change["state"], change["reason"]) == ("stale", "source_change")
    assert (change["source"], change["seq"]) == ("live", 1)
    assert change["epoch"] != before["epoch"]
    (after,) = books(give(worker, snapshot(5, source="live")))
    assert (after["source"], after["seq"], after["epoch"]) == ("live", 2, change["epoch"])


def test_a_restarted_worker_has_other_epochs() -> None:
    first, second = make_worker(FakeClock(1.0)), make_worker(FakeClock(2.0))
    epochs = {books(give(worker, snapshot(10)))[0]["epoch"] for worker in (first, second)}
    assert len(epochs) == 2


def test_everything_is_said_again_when_asked_to() -> None:
    worker = make_worker()
    give(worker, snapshot(10))
    give(worker, snapshot(10), ETH)
    give(worker, delta(12), ETH)
    metrics = books(list(worker.publish_all()))
    assert [(p["symbol"], p["state"], p["seq"]) for p in metrics] == [
        ("BTCUSDT", "live", 2),
        ("ETHUSDT", "stale", 3),
    ]


# -- gaps ------------------------------------------------------------------------------------------


def test_a_gap_is_published_when_it_opens_and_when_it_closes() -> None:
    clock = FakeClock()
    worker = make_worker(clock)
    give(worker, snapshot(10))
    (opened,) = of_kind(give(worker, delta(14)), "gap")
    clock.now_s += 2.0
    (closed,) = of_kind(give(worker, snapshot(30)), "gap")
    assert opened.keys() == closed.keys() > HEADER | {"stream", "event", "reason", "gap_id"}
    assert (opened["event"], opened["reason"], opened["stream"]) == ("opened", "gap", "book")
    assert (opened["update_id_before"], opened["received_update_id"]) == (10, 14)
    assert (opened["update_id_after"], opened["duration_s"]) == (None, None)
    assert closed["event"] == "closed"
    assert closed["gap_id"] == opened["gap_id"]
    assert (closed["update_id_before"], closed["update_id_after"]) == (10, 30)
    assert (closed["sequence_before"], closed["sequence_after"]) == (100, 300)
    assert closed["duration_s"] == pytest.approx(2.0)
    assert closed["seq"] == opened["seq"] + 1


def test_the_first_gap_of_every_book_is_published_from_its_opening() -> None:
    worker = make_worker()
    metrics = [*give(worker, snapshot(10)), *give(worker, snapshot(10), ETH)]
    assert [
        ("BTCUSDT", "opened", "starting", 1),
        ("BTCUSDT", "closed", "starting", 2),
        ("ETHUSDT", "opened", "starting", 1),
        ("ETHUSDT", "closed", "starting", 2),
    ] == [(p["symbol"], p["event"], p["reason"], p["seq"]) for p in of_kind(metrics, "gap")]


# -- walls -----------------------------------------------------------------------------------------

WALL = [(100.0, 1.0), (99.9, 20.0), (99.8, 1.0), (99.7, 1.0)]


def test_a_wall_is_told_as_an_event_and_listed_in_the_book() -> None:
    worker = make_worker()
    metrics = give(worker, snapshot(10, bids=WALL))
    (event,) = of_kind(metrics, "density")
    (book,) = books(metrics)
    assert event.keys() == HEADER | DENSITY | {"event"}
    assert (event["event"], event["price"], event["size"]) == ("detected", 99.9, 20.0)
    assert (event["seq"], event["state"], event["epoch"]) == (1, "live", book["epoch"])
    (listed,) = book["densities"]
    assert listed == {name: event[name] for name in DENSITY}


def fall(sold: float) -> tuple[BookMessage, TradesMessage]:
    """The wall falls to 2; the trade that took part of it."""
    fell = delta(11, bids=[(99.9, 2.0)])
    assert fell.match_ts_ms is not None
    return fell, trades_message(trade(fell.match_ts_ms - 3, "Sell", 99.9, sold))


def test_an_eaten_wall_is_told_with_the_trades_that_ate_it() -> None:
    clock = FakeClock()
    worker = make_worker(clock)
    give(worker, snapshot(10, bids=WALL))
    fell, sold = fall(18.0)
    assert give(worker, sold, BTC_TRADES) == []
    give(worker, fell)
    clock.now_s += 0.1
    (event,) = of_kind(due(worker), "density")
    assert (event["event"], event["eaten_ratio"], event["traded_size"]) == ("eaten", 0.9, 18.0)
    assert event["uncertain"] is False


INTERVAL_S = 0.1
GRACE_S = (PUSH_PERIOD_MS[50] + ARRIVAL_MS) / 1_000


def told_after(worker: OrderbookWorker, clock: FakeClock, within_s: float) -> dict[str, float]:
    """The events of a quiet time, and how many seconds it took for each to be told."""
    began, told = clock.now_s, {}
    while clock.now_s < began + within_s:
        clock.now_s += worker.scheduler.tick_s
        for event in of_kind(due(worker), "density"):
            told[event["event"]] = clock.now_s - began
    return told


def test_a_pulled_wall_is_told_in_time_even_if_nothing_more_happens_to_the_book() -> None:
    clock = FakeClock()
    worker = make_worker(clock)
    give(worker, snapshot(10, bids=WALL))
    give(worker, delta(11, bids=[(99.9, 0.0)]))
    told = told_after(worker, clock, 1.0)
    assert told.keys() == {"pulled"}
    assert GRACE_S < told["pulled"] <= GRACE_S + INTERVAL_S + 2 * worker.scheduler.tick_s
    assert books(due(worker)) == []


def test_a_wall_that_fell_by_trades_is_told_eaten_in_time_in_a_book_that_went_quiet() -> None:
    clock = FakeClock()
    worker = make_worker(clock)
    give(worker, snapshot(10, bids=WALL))
    fell, sold = fall(11.0)
    give(worker, sold, BTC_TRADES)
    give(worker, fell)
    told = told_after(worker, clock, 10.0)
    assert told.keys() == {"eaten"}
    assert FALL_MS / 1_000 < told["eaten"] <= FALL_MS / 1_000 + 2.2 * INTERVAL_S


def test_a_trade_that_explains_a_decrease_is_told_with_the_next_turn() -> None:
    clock = FakeClock()
    worker = make_worker(clock)
    give(worker, snapshot(10, bids=WALL))
    fell, sold = fall(18.0)
    give(worker, fell)
    assert told_after(worker, clock, 0.15) == {}
    give(worker, sold, BTC_TRADES)
    told = told_after(worker, clock, 1.0)
    assert told.keys() == {"eaten"}
    assert told["eaten"] <= INTERVAL_S, "not only when the grace period is over"


def test_the_walls_of_a_book_without_trades_are_uncertain() -> None:
    worker = make_worker()
    (event,) = of_kind(give(worker, snapshot(10, bids=WALL), ETH), "density")
    assert event["uncertain"] is True


def test_the_walls_of_a_book_that_becomes_stale_are_removed() -> None:
    worker = make_worker()
    give(worker, snapshot(10, bids=WALL))
    metrics = give(worker, delta(14))
    (event,) = of_kind(metrics, "density")
    assert (event["event"], event["size"], event["state"]) == ("removed", 20.0, "stale")
    assert books(metrics)[0]["densities"] == []


def test_trades_may_be_assigned_before_or_after_their_book() -> None:
    worker = make_worker(None, assignment("BTCUSDT", "trade"), assignment("BTCUSDT"))
    (event,) = of_kind(give(worker, snapshot(10, bids=WALL)), "density")
    assert event["uncertain"] is False
    worker = make_worker(None, assignment("ETHUSDT"))
    worker.assign(assignment("ETHUSDT", "trade"))
    (event,) = of_kind(give(worker, snapshot(10, bids=WALL), ETH), "density")
    assert event["uncertain"] is False


def test_without_its_trades_a_book_keeps_its_walls_uncertain() -> None:
    worker = make_worker()
    worker.unassign(BTC_TRADES)
    (event,) = of_kind(give(worker, snapshot(10, bids=WALL)), "density")
    assert event["uncertain"] is True


def test_only_the_loss_of_the_trades_own_link_makes_walls_uncertain() -> None:
    other = "connector-linear-1"
    worker = make_worker(
        None,
        assignment("BTCUSDT"),
        msgspec.structs.replace(assignment("BTCUSDT", "trade"), connector=other),
        msgspec.structs.replace(assignment("ETHUSDT"), connector="connector-linear-2"),
    )
    (event,) = of_kind(give(worker, snapshot(10, bids=WALL)), "density")
    assert event["uncertain"] is False
    uncertain = []
    for connector in ("connector-linear-2", other):
        give(worker, link("disconnected"), link_topic(connector))
        for book in books(list(worker.publish_all())):
            uncertain += [wall["uncertain"] for wall in book["densities"]]
    assert uncertain == [False, True]


def test_walls_of_a_new_source_are_measured_by_that_source_alone() -> None:
    worker = make_worker()
    give(worker, snapshot(10, bids=[(level[0], level[1] * 1000) for level in WALL]))
    metrics = give(worker, snapshot(5, bids=WALL, source="live"))
    events = [(event["event"], event["strength"]) for event in of_kind(metrics, "density")]
    assert events == [("removed", 20.0), ("detected", 20.0)]


@pytest.mark.parametrize("is_told_by_link", [False, True])
def test_what_a_change_of_source_ends_is_told_in_the_old_epoch(is_told_by_link: bool) -> None:
    worker = make_worker()
    (before,) = books(give(worker, snapshot(10, bids=WALL)))
    metrics = []
    if is_told_by_link:
        metrics += give(worker, link("connected", source="live", session=2), LINK)
    metrics += give(worker, snapshot(5, bids=WALL, source="live", session=2))
    told = [
        (p["kind"], p["event"], p["source"], p["epoch"] == before["epoch"], p["state"])
        for p in map(payload_of, metrics)
        if p["kind"] != "orderbook" and p["symbol"] == "BTCUSDT"
    ]
    assert told == [
        ("density", "removed", "sim", True, "stale"),
        ("gap", "opened", "sim", True, "stale"),
        ("density", "detected", "live", False, "live"),
        ("gap", "closed", "live", False, "live"),
    ]
    decoded = [payload_of(metric) for metric in metrics]
    numbers = {(p["kind"], p["epoch"] == before["epoch"]): p["seq"] for p in decoded}
    assert numbers["density", True] == 2
    assert numbers["density", False] == 1


def test_books_of_a_connector_that_died_before_it_spoke_take_nobody_elses_turn() -> None:
    clock = FakeClock()
    unheard = [
        replace(assignment(f"C{number}USDT"), connector="connector-linear-1")
        for number in range(10)
    ]
    worker = make_worker(clock, *unheard, assignment("BTCUSDT"))
    give(worker, snapshot(10))
    assert list(worker.on_connector_gone("connector-linear-1")) == []
    for update in range(11, 16):
        clock.now_s += INTERVAL_S
        give(worker, delta(update))
        assert [book["update_id"] for book in books(due(worker))] == [update]


# -- topics come and go ----------------------------------------------------------------------------


def test_an_unassigned_symbol_publishes_nothing_more_and_its_gauges_disappear() -> None:
    worker = make_worker()
    give(worker, snapshot(10))
    give(worker, snapshot(10), ETH)
    mid = 'mid_price{category="linear",symbol="BTCUSDT"}'
    assert scrape(worker)[mid] == 100.25
    assert worker.unassign(BTC) is not None
    assert give(worker, delta(11)) == []
    assert give(worker, snapshot(20)) == []
    assert {p["symbol"] for p in books(list(worker.publish_all()))} == {"ETHUSDT"}
    assert not [name for name in scrape(worker) if "BTCUSDT" in name]
    assert worker.status()["books"] == {"syncing": 0, "live": 1, "stale": 0}


def test_the_final_metrics_of_a_live_book_ends_its_walls_and_leaves_no_number() -> None:
    worker = make_worker()
    (before,) = books(give(worker, snapshot(10, bids=WALL)))
    metrics = list(worker.final_metrics(BTC))
    (event,) = of_kind(metrics, "density")
    (book,) = books(metrics)
    assert of_kind(metrics, "gap") == []
    assert (event["event"], event["price"], event["state"]) == ("removed", 99.9, "stale")
    assert (book["state"], book["reason"]) == ("stale", "unsubscribed")
    assert (book["epoch"], book["seq"]) == (before["epoch"], before["seq"] + 1)
    assert not [name for name in MEASURES if book[name] not in (None, [])]
    assert worker.status()["gaps"] == 0
    worker.unassign(BTC)
    assert give(worker, snapshot(20)) == []


def test_the_final_metrics_of_a_stale_book_closes_its_gap_without_an_end() -> None:
    clock = FakeClock()
    worker = make_worker(clock)
    give(worker, snapshot(10))
    (opened,) = of_kind(give(worker, delta(12)), "gap")
    clock.now_s += 3.0
    worker.on_turn()
    (closed,) = of_kind(list(worker.final_metrics(BTC)), "gap")
    assert (closed["event"], closed["gap_id"]) == ("closed", opened["gap_id"])
    assert (closed["reason"], closed["start_ms"]) == ("gap", opened["start_ms"])
    assert closed["duration_s"] == pytest.approx(3.0)
    for name in ("closed_ts_ns", "end_ms", "update_id_after", "sequence_after"):
        assert closed[name] is None


def test_there_is_no_final_metrics_of_what_was_never_published_or_is_no_book() -> None:
    worker = make_worker()
    assert list(worker.final_metrics(BTC)) == []
    assert list(worker.final_metrics(BTC_TRADES)) == []
    assert list(worker.final_metrics(b"book.linear.NOPE")) == []


def test_a_symbol_that_is_assigned_again_starts_a_new_epoch() -> None:
    worker = make_worker()
    (before,) = books(give(worker, snapshot(10)))
    worker.unassign(BTC)
    worker.assign(assignment("BTCUSDT"))
    (after,) = books(give(worker, snapshot(20)))
    assert after["seq"] == 1
    assert after["epoch"] != before["epoch"]


def test_a_second_assignment_of_a_topic_changes_nothing() -> None:
    worker = make_worker()
    give(worker, snapshot(10))
    worker.assign(assignment("BTCUSDT"))
    assert worker.status()["books"]["live"] == 1


# -- counters and status ---------------------------------------------------------------------------


def test_the_counters_tell_what_happened() -> None:
    clock = FakeClock()
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
    assert found[f'worker_messages_total{{{process},stream="book"}}'] == 4
    assert found[f'worker_messages_total{{{process},stream="trade"}}'] == 1
    assert found[f'book_gaps_total{{{process},reason="gap"}}'] == 1
    assert found[f'book_gaps_total{{{process},reason="crossed"}}'] == 0
    assert found[f'book_resyncs_total{{{process},result="requested"}}'] == 1
    assert found[f'book_resyncs_total{{{process},result="recovered"}}'] == 1
    assert found[f"book_deltas_ignored_total{{{process}}}"] == 1
    assert found[f'books{{{process},state="live"}}'] == 1
    assert found[f'books{{{process},state="syncing"}}'] == 1
    assert found[f'densities_total{{event="detected",{process}}}'] == 1
    assert found[f'metrics_published_total{{kind="orderbook",{process}}}'] == 3
    untrusted = 'untrusted_seconds_total{category="linear",kind="book",symbol="BTCUSDT"}'
    assert found[untrusted] == pytest.approx(1.5)


def test_market_gauges_show_live_books_only_and_only_when_wanted() -> None:
    worker = make_worker()
    give(worker, snapshot(10))
    found = scrape(worker)
    assert found['mid_price{category="linear",symbol="BTCUSDT"}'] == 100.25
    assert found['spread_bps{category="linear",symbol="BTCUSDT"}'] > 0
    assert found['imbalance_ratio{category="linear",levels="1",symbol="BTCUSDT"}'] == -0.5
    give(worker, delta(12))
    assert not [name for name in scrape(worker) if name.startswith(("mid_price", "imbalance"))]
    worker = make_worker(per_symbol=False)
    give(worker, snapshot(10))
    assert not [name for name in scrape(worker) if name.startswith("mid_price")]


def test_the_status_names_the_books_that_are_not_live() -> None:
    clock = FakeClock()
    worker = make_worker(clock)
    give(worker, snapshot(10))
    clock.now_s += 2.5
    status = worker.status()
    assert status["books"] == {"syncing": 1, "live": 1, "stale": 0}
    assert status["not_live"] == {"book.linear.ETHUSDT": 2.5}
    assert status["messages"] == 1


# -- captures and sockets --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["linear_20260809_ob200_BTC_SOL.jsonl", "spot_20260809_ob200_ETH.jsonl"]
)
def test_every_published_book_of_a_capture_equals_the_model_at_its_update(
    captures: Path, name: str
) -> None:
    symbols = ("BTCUSDT", "SOLUSDT", "ETHUSDT")
    clock = FakeClock()
    worker = make_worker(
        clock,
        *[assignment(symbol, depth=200) for symbol in symbols],
        *[assignment(symbol, "trade") for symbol in symbols],
        publish_levels=200,
    )
    models: dict[str, NaiveBook] = {}
    truth: dict[tuple[str, int], Any] = {}
    published = 0
    for raw in read_capture(captures / name):
        kind, symbol = raw["topic"].split(".")[0], raw["topic"].rsplit(".", 1)[1]
        message: BookMessage | TradesMessage
        if kind == "orderbook":
            message, topic = recorded_book(raw), market_topic("book", "linear", symbol)
            model = models.setdefault(symbol, NaiveBook())
            model.apply(raw)
            truth[symbol, model.update_id] = model.best(200)
        elif kind == "publicTrade":
            message, topic = recorded_trades(raw), market_topic("trade", "linear", symbol)
        else:
            continue
        clock.now_s = max(clock.now_s, message.recv_ts_ns / 1e9)
        for payload in books(give(worker, message, topic) + due(worker)):
            assert payload["state"] == "live"
            bids, asks = truth[payload["symbol"], payload["update_id"]]
            assert ([*map(list, payload["bids"])], [*map(list, payload["asks"])]) == (bids, asks)
            assert payload["best_bid"] < payload["best_ask"]
            published += 1
    assert published > 100


@dataclasses.dataclass
class SteppingClock(FakeClock):
    """A wall clock that somebody sets, and a monotonic one that goes on."""

    step_s: float = 0.0

    def time_ns(self) -> int:
        return super().time_ns() + int(self.step_s * 1e9)


OUR_CLOCK = {"recv_ts_ns", "publish_ts_ns", "opened_ts_ns", "closed_ts_ns"}


def published_with_a_step(step_s: float) -> list[dict[str, Any]]:
    """What is published of a market whose link is lost once, our clock being set just then."""
    clock = SteppingClock(now_s=1_000.0)
    worker = make_worker(clock, assignment("BTCUSDT"), assignment("BTCUSDT", "trade"))
    chance = random.Random(5)
    bids = {round(100.0 - 0.05 * level, 2): chance.uniform(1, 3) for level in range(20)}
    asks = {round(100.05 + 0.05 * level, 2): chance.uniform(1, 3) for level in range(20)}
    metrics: list[Metric] = []

    def take(message: MarketMessage, topic: bytes) -> None:
        worker.on_turn()
        metrics.extend(worker.on_message(Received(topic, message, 0)))
        metrics.extend(worker.publish_due())

    for update in range(1, 600):
        is_whole = update in (1, 300)
        if update == 300:
            clock.step_s = step_s
            lost = LinkMessage(1, "sim", 1, 1, clock.time_ns(), "disconnected", "reset", ())
            take(lost, LINK)
        side, price = (bids, 99.9) if update % 2 else (asks, 100.15)
        side[chance.choice(list(side))] = chance.uniform(1, 3)
        side[price] = 60.0 if update % 150 > 20 else 2.0
        message: MarketMessage = (
            snapshot(update, sorted(bids.items(), reverse=True), sorted(asks.items()))
            if is_whole
            else delta(update, list(bids.items()), list(asks.items()))
        )
        clock.now_s += 0.02
        take(replace(message, recv_ts_ns=clock.time_ns()), BTC)
        if update % 10 == 0:
            sold = trades_message(trade(1_000_000 + update * 20, "Sell", 100.0, 0.5))
            take(replace(sold, recv_ts_ns=clock.time_ns()), BTC_TRADES)
    return [{k: v for k, v in payload_of(m).items() if k not in OUR_CLOCK} for m in metrics]


@pytest.mark.parametrize("step_s", [3_600.0, -3_600.0])
def test_a_step_of_our_clock_changes_nothing_but_our_own_times(step_s: float) -> None:
    """Books, walls, order flow, gaps and when they are published, an hour either way."""
    steady = published_with_a_step(0.0)

    assert steady == published_with_a_step(step_s)
    kinds = Counter(payload["kind"] for payload in steady)
    assert min(kinds[kind] for kind in ("orderbook", "density")) > 5, kinds
    gaps = [p["event"] for p in steady if p["kind"] == "gap" and p["reason"] == "disconnected"]
    assert ["opened", "closed"] == gaps
    assert {"live", "stale"} == {p["state"] for p in steady if p["kind"] == "orderbook"}


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


def test_over_real_sockets_books_go_in_and_metrics_and_resyncs_come_out(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    market = MarketPublisher(context, f"ipc://{tmp_path}/market", f"ipc://{tmp_path}/feed")
    inbox = MetricInbox(context, f"ipc://{tmp_path}/metrics")
    router = context.socket(zmq.ROUTER)
    router.bind(f"ipc://{tmp_path}/control")
    worker = make_worker(
        SystemClock(),
        assignment("BTCUSDT", endpoint=market.feed_endpoint),
        metrics_in=inbox.endpoint,
        control=f"ipc://{tmp_path}/control",
    )
    told: list[dict[str, Any]] = []
    asked: list[dict[str, Any]] = []
    sent = 0

    def drive() -> None:
        nonlocal sent
        market.drain_subscriptions()
        told.extend(decode_map(payload) for _, payload in inbox.receive(100))
        while router.poll(0):
            asked.append(decode_map(router.recv_multipart()[1]))
        messages: list[BookMessage | LinkMessage] = [snapshot(1), delta(2), delta(4), snapshot(9)]
        is_there = not market.wait_for_workers([BTC], 0)
        resyncs = [message for message in asked if message["type"] == "resync"]
        if is_there and sent < (3 if not resyncs else 4):
            message = messages[sent]
            sent += 1
            number = market.next_sequence(BTC)
            market.publish(BTC, replace(message, bus_sequence=number))
        states = [metric["state"] for metric in told if metric["kind"] == "orderbook"]
        if states[-1:] == ["live"] and "stale" in states:
            worker.stop("seen enough")

    original = worker.on_start

    def on_start() -> None:
        original()
        worker.every(0.005, drive)
        worker.every(DEADLINE_MS / 1000, lambda: worker.stop("too late"))

    worker.on_start = on_start  # type: ignore[method-assign]
    assert worker.run() == 0
    states = [metric["state"] for metric in told if metric["kind"] == "orderbook"]
    assert states[-1] == "live"
    assert "stale" in states
    resyncs = [message for message in asked if message["type"] == "resync"]
    assert {"topic": "book.linear.BTCUSDT", "reason": "gap"}.items() <= resyncs[0].items()
