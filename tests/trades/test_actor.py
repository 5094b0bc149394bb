"""The trades worker: its metrics, and when they are published."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from prometheus_client import generate_latest

from bybit_pipeline.processes.trades.actor import TradesWorker
from bybit_pipeline.shared.runtime.scheduling import LATE_S, MIN_BATCH, TICKS_MAX
from bybit_pipeline.shared.wire.messages import (
    Trade,
    TradesMessage,
)
from bybit_pipeline.shared.wire.topics import market_topic, parse_topic, topic_text
from tests.clock import FakeClock, SteppingClock
from tests.trades.worker import (
    BTC,
    LINK,
    T0,
    assignment,
    by_topic,
    due,
    give,
    link,
    make_worker,
    of_bitcoin,
    read,
    trade,
    trades_message,
)


def test_a_metric_has_all_fields(worker: TradesWorker, clock: FakeClock) -> None:
    give(worker, BTC, trades_message(clock, trade(clock, size=0.5)))
    clock.now_s += 0.25
    [payload] = due(worker)
    windows = payload.pop("windows")
    now_ms = T0 + 1_000_000
    epoch = payload.pop("epoch")
    assert isinstance(epoch, str)
    assert payload.pop("last_trade_id").startswith("trade-")
    assert {
        "v": 1,
        "kind": "trades",
        "category": "linear",
        "symbol": "BTCUSDT",
        "source": "sim",
        "process": "trades-0",
        "seq": 1,
        "state": "warming",
        "reason": "starting",
        "match_ts_ms": now_ms,
        "exchange_ts_ms": now_ms,
        "recv_ts_ns": 1_000_000_000_000,
        "alive_ts_ns": None,
        "publish_ts_ns": 1_000_250_000_000,
        "as_of_ms": now_ms + 250,
        "last_price": 100.0,
        "last_size": 0.5,
        "last_side": "Buy",
        "trades_total": 1,
        "cvd": 0.5,
        "untrusted_s": 0.0,
        "tps": 0.1,
    } == payload
    assert {"10s", "60s", "300s"} == windows.keys()
    assert {
        "trades": 1,
        "tpm": 6.0,
        "tps": 0.1,
        "volume": 0.5,
        "buy_volume": 0.5,
        "sell_volume": 0.0,
        "vol_delta": 0.5,
        "buy_sell_ratio": None,
        "buy_share": 1.0,
        "turnover": 50.0,
        "vwap": 100.0,
        "high": 100.0,
        "low": 100.0,
        "coverage_s": 0.25,
        "realised_volatility": None,
        "size_quantiles": {"0.5": 0.5, "0.9": 0.5, "0.99": 0.5},
    } == windows["10s"]


def test_nothing_is_published_before_the_source_is_known(
    worker: TradesWorker, clock: FakeClock
) -> None:
    clock.now_s += 5
    assert [] == list(worker.publish_due())
    metrics = give(worker, LINK, link(clock, "connected", source="live"))
    assert ["live", "live"] == [read(metric)["source"] for metric in metrics]
    assert [1, 1] == [read(metric)["seq"] for metric in metrics]


def test_a_trading_market_is_published_every_interval_and_a_silent_one_every_second(
    worker: TradesWorker, clock: FakeClock
) -> None:
    """Ten seconds of ticks, with trades of one market during the first five."""
    give(worker, LINK, link(clock, "connected"))
    published: dict[bytes, list[float]] = {
        b"trades.linear.BTCUSDT": [],
        b"trades.linear.ETHUSDT": [],
    }
    for turn in range(40):
        if turn < 20:
            give(worker, BTC, trades_message(clock, trade(clock)))
        for _ in range(TICKS_MAX):
            clock.now_s += worker.scheduler.tick_s
            for metric in worker.publish_due():
                published[metric.topic].append(clock.now_s)
    busy = [at for at in published[b"trades.linear.BTCUSDT"] if at < 1_005.1]
    assert 20 == len(busy)
    for times in published.values():
        assert all(later - earlier < 1.0 for earlier, later in pairwise(times))


def more_markets(worker: TradesWorker, clock: FakeClock, count: int) -> list[bytes]:
    """Assign ``count`` more markets and let each trade; return their bus topics."""
    topics = [market_topic("trade", "linear", f"S{number}USDT") for number in range(count)]
    for topic in topics:
        worker.assign(assignment(parse_topic(topic_text(topic)).symbol))
        give(worker, topic, trades_message(clock, trade(clock)))
    return topics


def test_markets_that_traded_together_are_spread_over_the_ticks(
    worker: TradesWorker, clock: FakeClock
) -> None:
    topics = more_markets(worker, clock, 40)
    list(worker.publish_all())
    clock.now_s += 0.5
    for topic in topics:
        give(worker, topic, trades_message(clock, trade(clock)))
    turns = [[metric.topic for metric in worker.publish_due()] for _ in range(TICKS_MAX)]
    assert [MIN_BATCH] * 13 + [1] + [0] * 6 == [len(turn) for turn in turns]
    assert len(topics) == len({topic for turn in turns for topic in turn})


def test_an_overloaded_worker_still_publishes_every_market_every_second(
    worker: TradesWorker, clock: FakeClock
) -> None:
    topics = more_markets(worker, clock, 200)
    times: dict[bytes, list[float]] = {}
    for _ in range(8 * TICKS_MAX):
        clock.now_s += worker.scheduler.tick_s
        worker.scheduler.note_lag(2 * LATE_S)
        for topic in topics[:100]:
            give(worker, topic, trades_message(clock, trade(clock)))
        for metric in worker.publish_due():
            times.setdefault(metric.topic, []).append(clock.now_s)
    assert len(topics) + 2 == len(times)  # plus those of the fixture
    for at in times.values():
        assert all(later - earlier < 1.0 for earlier, later in pairwise(at))
    assert sum(map(len, times.values())) < 4 * len(times)


@pytest.mark.parametrize("is_trading", [False, True])
def test_a_long_publish_interval_still_publishes_every_second(
    clock: FakeClock, is_trading: bool
) -> None:
    worker = make_worker(clock, publish_interval_ms=60_000)
    give(worker, LINK, link(clock, "connected"))
    times = []
    for _ in range(20 * TICKS_MAX):
        clock.now_s += worker.scheduler.tick_s
        if is_trading:
            give(worker, BTC, trades_message(clock, trade(clock)))
        times += [clock.now_s for _ in due(worker)]
    assert len(times) >= 9
    assert all(later - earlier < 1.0 for earlier, later in pairwise(times))


def test_sequence_numbers_increase_by_one_within_an_epoch(
    worker: TradesWorker, clock: FakeClock
) -> None:
    payloads = []
    for _ in range(10):
        give(worker, BTC, trades_message(clock, trade(clock)))
        clock.now_s += 0.25
        payloads += due(worker)
    assert [payload["seq"] for payload in payloads] == list(range(1, 11))
    assert 1 == len({payload["epoch"] for payload in payloads})


def test_a_lost_link_is_published_at_once_with_a_gap_that_closes_later(
    worker: TradesWorker, clock: FakeClock
) -> None:
    give(worker, BTC, trades_message(clock, trade(clock)))
    due(worker)
    clock.now_s += 3
    metrics = give(worker, LINK, link(clock, "disconnected"))
    payloads = by_topic(metrics)
    assert "stale" == payloads[b"trades.linear.BTCUSDT"]["state"]
    assert "stale" == payloads[b"trades.linear.ETHUSDT"]["state"]
    gap = payloads[b"gap.linear.BTCUSDT"]
    assert ("gap", "trades", "opened") == (gap["kind"], gap["stream"], gap["event"])
    assert ("disconnected", 5, None) == (gap["reason"], gap["sequence_before"], gap["end_ms"])
    assert b"gap.linear.ETHUSDT" not in payloads
    clock.now_s += 2
    subscribed = link(clock, "subscribed", "trade.linear.BTCUSDT", session=2)
    payloads = by_topic(give(worker, LINK, subscribed))
    assert "warming" == payloads[b"trades.linear.BTCUSDT"]["state"]
    gap = payloads[b"gap.linear.BTCUSDT"]
    assert ("closed", 5.0, 2) == (gap["event"], gap["duration_s"], gap["seq"])
    assert b"trades.linear.ETHUSDT" not in payloads


def test_a_changed_source_starts_a_new_epoch_at_once(
    worker: TradesWorker, clock: FakeClock
) -> None:
    give(worker, BTC, trades_message(clock, trade(clock)))
    clock.now_s += 0.25
    [before] = due(worker)
    metrics = give(
        worker, BTC, trades_message(clock, trade(clock, size=7.0), session=2, source="live")
    )
    payload = by_topic(metrics)[b"trades.linear.BTCUSDT"]
    assert "live" == payload["source"]
    assert payload["epoch"] != before["epoch"]
    assert 1 == payload["seq"]
    assert (1, 7.0) == (payload["trades_total"], payload["cvd"])


@pytest.mark.parametrize("is_announced", [True, False])
def test_an_open_gap_is_closed_in_the_epoch_of_its_source(
    worker: TradesWorker, clock: FakeClock, is_announced: bool
) -> None:
    give(worker, BTC, trades_message(clock, trade(clock)))
    [before] = of_bitcoin(worker.publish_all(), "trades")
    clock.now_s += 3
    metrics = give(worker, LINK, link(clock, "disconnected"))
    clock.now_s += 2
    if is_announced:
        metrics += give(worker, LINK, link(clock, "connected", session=2, source="live"))
    metrics += give(worker, BTC, trades_message(clock, trade(clock), session=2, source="live"))
    clock.now_s += 1
    metrics += worker.publish_all()

    gaps = of_bitcoin(metrics, "gap")
    assert [("opened", 1), ("closed", 2)] == [(gap["event"], gap["seq"]) for gap in gaps]
    for gap in gaps:
        assert ("sim", before["epoch"], "stale") == (gap["source"], gap["epoch"], gap["state"])
        assert before["recv_ts_ns"] == gap["recv_ts_ns"]
    assert (gaps[0]["gap_id"], 5.0) == (gaps[1]["gap_id"], gaps[1]["duration_s"])
    [row] = [msgspec.to_builtins(gap) for gap in worker.aggregator.gaps()]
    assert row.items() <= gaps[1].items()
    bitcoin = [payload for payload in map(read, metrics) if payload["symbol"] == "BTCUSDT"]
    is_old = [payload["epoch"] == before["epoch"] for payload in bitcoin]
    assert sorted(is_old, reverse=True) == is_old, "all metrics of the old epoch come first"


def test_a_restarted_worker_and_a_resubscribed_symbol_have_new_epochs(clock: FakeClock) -> None:
    epochs = []
    for _ in range(2):
        worker = make_worker(clock)
        for _ in range(2):
            give(worker, BTC, trades_message(clock, trade(clock)))
            [payload] = of_bitcoin(worker.publish_all(), "trades")
            epochs.append(payload["epoch"])
            worker.unassign(BTC)
            worker.assign(assignment("BTCUSDT"))
        clock.now_s += 0.01
    assert 4 == len(set(epochs))


def test_an_unassigned_symbol_is_not_published(worker: TradesWorker, clock: FakeClock) -> None:
    give(worker, BTC, trades_message(clock, trade(clock)))
    worker.unassign(BTC)
    clock.now_s += 5
    assert [] == due(worker)
    assert [] == give(worker, BTC, trades_message(clock, trade(clock)))
    assert 'symbol="BTCUSDT"' not in generate_latest(worker.telemetry.registry).decode()


def test_the_final_metric_of_an_unassigned_symbol_has_no_numbers(
    worker: TradesWorker, clock: FakeClock
) -> None:
    give(worker, BTC, trades_message(clock, trade(clock)))
    [before] = of_bitcoin(worker.publish_all(), "trades")

    [last] = of_bitcoin(worker.final_metrics(BTC), "trades")

    assert before.keys() == last.keys()
    assert ("stale", "unsubscribed") == (last["state"], last["reason"])
    assert (before["epoch"], before["seq"] + 1) == (last["epoch"], last["seq"])
    assert {None} == {last["last_price"], last["tps"], last["windows"]["60s"]["trades"]}


def test_the_final_metrics_of_an_unassigned_symbol_close_its_gap(
    worker: TradesWorker, clock: FakeClock
) -> None:
    give(worker, BTC, trades_message(clock, trade(clock)))
    metrics = give(worker, LINK, link(clock, "unsubscribed", "trade.linear.BTCUSDT"))
    clock.now_s += 2

    metrics += worker.final_metrics(BTC)
    worker.unassign(BTC)

    opened, closed = of_bitcoin(metrics, "gap")
    assert ("opened", "closed") == (opened["event"], closed["event"])
    assert (opened["epoch"], 2, 2.0) == (closed["epoch"], closed["seq"], closed["duration_s"])
    assert [closed["end_ms"]] == [gap.end_ms for gap in worker.aggregator.gaps()]


def test_counters_count_messages_trades_and_metrics(worker: TradesWorker, clock: FakeClock) -> None:
    first = trade(clock, size=2.0)
    give(worker, BTC, trades_message(clock, first, trade(clock)))
    give(worker, BTC, trades_message(clock, first))
    give(worker, LINK, link(clock, "connected"))
    clock.now_s += 0.25
    published = len(list(worker.publish_due()))
    text = generate_latest(worker.telemetry.registry).decode()
    for line in (
        'worker_messages_total{process="trades-0",stream="trade"} 2.0',
        'trades_total{process="trades-0"} 2.0',
        'trade_duplicates_total{process="trades-0"} 1.0',
        f'metrics_published_total{{kind="trades",process="trades-0"}} {published + 2}.0',
        'metric_latency_seconds_count{process="trades-0"} 1.0',
        'trades_per_minute{category="linear",symbol="BTCUSDT",window="60s"} 2.0',
        'volume_delta{category="linear",symbol="BTCUSDT",window="60s"} 3.0',
        'window_coverage_seconds{category="linear",symbol="BTCUSDT",window="60s"} 0.0',
    ):
        assert f"bybit_pipeline_{line}" in text


def test_the_status_counts_markets_by_state(worker: TradesWorker, clock: FakeClock) -> None:
    give(worker, BTC, trades_message(clock, trade(clock)))
    give(worker, LINK, link(clock, "rejected", "trade.linear.ETHUSDT"))
    status = worker.status()
    assert 2 == status["markets"]
    assert {"live": 0, "warming": 1, "stale": 1} == status["states"]
    assert 1 == status["trades"]


def test_a_late_worker_requests_resyncs_until_the_source_is_known(
    clock: FakeClock,
) -> None:
    worker = make_worker(clock)
    asked: list[tuple[float, str]] = []
    for tick in range(20):
        clock.now_s = 1_000 + tick * 0.5
        asked += [(tick * 0.5, topic) for topic in worker.due_resyncs(clock.monotonic())]
        if tick == 4:
            give(worker, LINK, link(clock, "subscribed", "trade.linear.ETHUSDT"))
    assert [
        (0.5, "trade.linear.BTCUSDT"),
        (0.5, "trade.linear.ETHUSDT"),
        (1.5, "trade.linear.BTCUSDT"),
        (1.5, "trade.linear.ETHUSDT"),
    ] == asked
    [payload] = due(worker, b"trades.linear.ETHUSDT")
    assert "warming" == payload["state"]


@pytest.mark.parametrize("step_s", [3_600.0, -3_600.0])
@pytest.mark.parametrize("is_silent", [False, True], ids=["trades follow", "silence follows"])
def test_a_step_of_our_clock_changes_no_number(step_s: float, is_silent: bool) -> None:
    """Not even the time of a message that was on its way when the clock was set."""
    steady, stepping = SteppingClock(), SteppingClock()
    numbers = []
    for clock, step in ((steady, 0.0), (stepping, step_s)):
        worker = make_worker(clock)
        seen: list[Any] = []
        for second in range(40):
            at_ms = T0 + int(clock.now_s * 1_000)
            one = Trade(at_ms, "Buy", 100.0, 1.0, f"s{second}", 5, False, False)
            message = TradesMessage(1, "sim", 1, 1, clock.time_ns(), at_ms, (one,))
            if second == 20:
                clock.step_s = step
            if not (is_silent and 20 <= second < 25):
                give(worker, BTC, message)
            clock.now_s += 1.0
            [payload] = due(worker)
            seen.append((payload["windows"], payload["tps"], payload["state"]))
        numbers.append(seen)

    assert numbers[0] == numbers[1]
    assert 40 - 5 * is_silent == numbers[0][-1][0]["300s"]["trades"]


def test_a_trade_from_the_far_future_is_rejected_and_does_not_move_the_time(
    clock: FakeClock,
) -> None:
    worker = make_worker(clock)
    good = trade(clock)
    absurd = Trade(9_999_999_999_999, "Buy", 100.0, 1.0, "absurd", 6, False, False)
    metrics = give(worker, BTC, trades_message(clock, good, absurd))
    [payload] = of_bitcoin(metrics, "trades")
    assert 1 == payload["trades_total"]
    assert 1 == payload["windows"]["10s"]["trades"]
    assert 1 == worker.status()["invalid"]


def test_a_message_from_the_far_future_is_rejected_and_opens_a_gap(clock: FakeClock) -> None:
    worker = make_worker(clock)
    give(worker, BTC, trades_message(clock, trade(clock)))
    clock.now_s += 1.0
    ahead = trades_message(clock, trade(clock))
    ahead = msgspec.structs.replace(ahead, exchange_ts_ms=ahead.exchange_ts_ms + 86_400_000)

    gaps = give(worker, BTC, ahead)

    [stale], [gap] = of_bitcoin(gaps, "trades"), of_bitcoin(gaps, "gap")
    assert ("stale", "bad_time") == (stale["state"], stale["reason"])
    assert ("opened", "bad_time") == (gap["event"], gap["reason"])
    clock.now_s += 1.0
    give(worker, BTC, trades_message(clock, trade(clock)))
    [payload] = of_bitcoin(worker.publish_all(), "trades")
    assert (2, 2) == (payload["trades_total"], payload["windows"]["10s"]["trades"])
    assert 2.0 > payload["windows"]["10s"]["coverage_s"]


def test_an_epoch_starts_when_two_messages_agree_that_the_time_was_wrong(clock: FakeClock) -> None:
    worker = make_worker(clock)
    wrong = trades_message(clock, trade(clock))
    wrong = msgspec.structs.replace(wrong, exchange_ts_ms=wrong.exchange_ts_ms + 86_400_000)
    give(worker, BTC, wrong)
    [first] = of_bitcoin(worker.publish_all(), "trades")
    metrics = []
    for _ in range(3):
        clock.now_s += 0.1
        metrics += give(worker, BTC, trades_message(clock, trade(clock)))

    [payload] = of_bitcoin(worker.publish_all(), "trades")
    gaps = of_bitcoin(metrics, "gap")

    assert [("opened", first["epoch"]), ("closed", first["epoch"])] == [
        (gap["event"], gap["epoch"]) for gap in gaps
    ]
    assert pytest.approx(0.2, abs=0.01) == gaps[1]["duration_s"]
    assert first["epoch"] != payload["epoch"]
    assert 2 == payload["windows"]["10s"]["trades"] == payload["trades_total"]
    assert 0.2 > payload["windows"]["10s"]["coverage_s"]
