"""The client with a thread, against a real forwarder."""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from bybit_pipeline.shared.client import Metric, PipelineClient, Snapshot, Wall
from bybit_pipeline.shared.client.queues import MAX_WAITING
from bybit_pipeline.shared.errors import EX_UNAVAILABLE, NoPipelineError
from bybit_pipeline.shared.wire.codec import encode_bundle
from tests.shared.client.pipeline import (
    DEADLINE_S,
    WALL,
    WINDOW,
    ForwarderRig,
    Relay,
    until,
)


@pytest.fixture
def client(pipeline: ForwarderRig) -> Iterator[PipelineClient]:
    with PipelineClient(pipeline.endpoint) as client:
        until(lambda: client.connected and pipeline.status("subscriptions"))
        yield client


def take(client: PipelineClient, count: int) -> list[Metric]:
    """The first messages of a new iteration."""
    iteration = client.messages(DEADLINE_S)
    return [next(iteration) for _ in range(count)]


def test_trade_measures_come_from_the_last_message(
    pipeline: ForwarderRig, client: PipelineClient
) -> None:
    pipeline.publish_trades()
    take(client, 1)
    assert 4.0 == client.get_tpm("BTCUSDT", "60s")
    assert 0.5 == client.get_tps("BTCUSDT")
    assert -1.5 == client.get_vol_delta("BTCUSDT", "60s")
    assert 0.25 == client.get_buy_sell_ratio("BTCUSDT", "60s")
    assert "sim" == client.source


def test_book_measures_come_from_the_last_message(
    pipeline: ForwarderRig, client: PipelineClient
) -> None:
    pipeline.publish_book()
    take(client, 1)
    expected = Snapshot(
        category="linear",
        symbol="BTCUSDT",
        source="sim",
        state="live",
        reason=None,
        bids=((100.0, 1.0), (99.0, 80.0)),
        asks=((101.0, 2.0),),
        best_bid=100.0,
        best_ask=101.0,
        mid_price=100.5,
        spread_bps=99.5,
        update_id=77,
        match_ts_ms=123,
    )
    assert expected == client.get_snapshot("BTCUSDT")
    assert 0.5 == client.get_imbalance("BTCUSDT")
    assert -0.25 == client.get_imbalance("BTCUSDT", 1)
    assert 2.0 == client.get_aggregated_depth("BTCUSDT", "ask", 10)
    assert 0.5 == client.get_aggregated_depth("BTCUSDT", "bid", 2.5)
    known = {name: value for name, value in WALL.items() if name != "cancelled_size"}
    assert [Wall(**known)] == client.get_densities("BTCUSDT")  # type: ignore[arg-type]


def test_a_wall_is_found_by_price_and_side_within_the_tolerance(
    pipeline: ForwarderRig, client: PipelineClient
) -> None:
    pipeline.publish_book(densities=[WALL, WALL | {"price": 99.05}])
    take(client, 1)
    found = client.get_density_at_price("BTCUSDT", 99.04, "bid")
    assert found is not None
    assert 99.05 == found.price
    assert client.get_density_at_price("BTCUSDT", 99.04, "ask") is None
    assert client.get_density_at_price("BTCUSDT", 98.5, "bid") is None
    assert client.get_density_at_price("BTCUSDT", 98.5, "bid", tolerance_bps=60) is not None


def test_unknown_numbers_are_none(pipeline: ForwarderRig, client: PipelineClient) -> None:
    """Unknown symbols, ranges, level counts and windows, null measures, and a stale book."""
    nothing: dict[str, Any] = {
        "best_bid": None,
        "best_ask": None,
        "mid_price": None,
        "spread_bps": None,
    }
    pipeline.publish_trades()
    pipeline.publish_book(
        state="stale",
        reason="gap",
        bids=[],
        asks=[],
        imbalance=None,
        depth=None,
        densities=[],
        update_id=None,
        **nothing,
    )
    take(client, 2)
    for symbol in ("ETHUSDT", "btcusdt", ""):
        assert client.get_tpm(symbol, "60s") is None
        assert client.get_tps(symbol) is None
        assert client.get_vol_delta(symbol, "60s") is None
        assert client.get_buy_sell_ratio(symbol, "60s") is None
        assert client.get_snapshot(symbol) is None
        assert client.get_imbalance(symbol) is None
        assert client.get_aggregated_depth(symbol, "bid") is None
        assert client.get_densities(symbol) is None
        assert client.get_density_at_price(symbol, 1.0, "bid") is None
    assert client.get_tpm("BTCUSDT", "60s", "spot") is None
    assert client.get_tpm("BTCUSDT", "61s") is None
    assert client.get_tpm("BTCUSDT", "10s") is None
    snapshot = client.get_snapshot("BTCUSDT")
    assert snapshot is not None
    assert ("stale", "gap", None) == (snapshot.state, snapshot.reason, snapshot.best_bid)
    assert () == snapshot.bids
    assert client.get_imbalance("BTCUSDT") is None
    assert client.get_aggregated_depth("BTCUSDT", "bid") is None
    assert client.get_densities("BTCUSDT") is None


def test_an_invalid_side_is_rejected(client: PipelineClient) -> None:
    with pytest.raises(ValueError, match="allowed: bid, ask"):
        client.get_aggregated_depth("BTCUSDT", "buy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="allowed: bid, ask"):
        client.get_density_at_price("BTCUSDT", 1.0, "Bid")  # type: ignore[arg-type]


def test_a_late_client_gets_the_last_values(pipeline: ForwarderRig) -> None:
    pipeline.publish_trades(seq=41)
    pipeline.publish_trades(seq=42)
    until(lambda: pipeline.status("messages") == 2)
    with PipelineClient(pipeline.endpoint) as late:
        [metric] = take(late, 1)
        assert 42 == metric.payload["seq"]
        assert 4.0 == late.get_tpm("BTCUSDT", "60s")
        assert 0 == late.lost


def test_subscribing_narrows_the_client_to_exactly_that_symbol(
    pipeline: ForwarderRig, client: PipelineClient
) -> None:
    pipeline.publish_trades("ETHUSDT")
    pipeline.publish_trades("BTCUSDTPERP")
    take(client, 2)
    client.subscribe("BTCUSDT")
    assert client.get_tpm("ETHUSDT", "60s") is None
    for symbol in ("ETHUSDT", "BTCUSDTPERP", "BTCUSDT"):
        pipeline.publish_trades(symbol, seq=2)
    assert ["trades.linear.BTCUSDT"] == [metric.topic for metric in take(client, 1)]
    assert 4.0 == client.get_tpm("BTCUSDT", "60s")
    assert client.get_tpm("ETHUSDT", "60s") is None
    assert client.get_tpm("BTCUSDTPERP", "60s") is None


def test_a_second_symbol_is_added_and_an_unsubscribed_one_is_forgotten(
    pipeline: ForwarderRig, client: PipelineClient
) -> None:
    client.subscribe("BTCUSDT")
    client.subscribe("ETHUSDT")
    pipeline.publish_trades("BTCUSDT")
    pipeline.publish_trades("ETHUSDT")
    take(client, 2)
    client.unsubscribe("BTCUSDT")
    assert client.get_tpm("BTCUSDT", "60s") is None
    pipeline.publish_trades("BTCUSDT", seq=2)
    pipeline.publish_trades("ETHUSDT", seq=2)
    until(lambda: pipeline.status("messages") == 4)
    seen = take(client, 1)
    while seen[-1].payload["seq"] != 2:
        seen += take(client, 1)
    assert {"trades.linear.ETHUSDT"} == {metric.topic for metric in seen}
    assert 0 == client.lost


def test_missed_messages_are_counted_per_topic_and_epoch(
    pipeline: ForwarderRig, client: PipelineClient
) -> None:
    for seq in (5, 6, 9):
        pipeline.publish_trades("BTCUSDT", seq=seq)
    for seq in (1, 3):
        pipeline.publish_trades("ETHUSDT", seq=seq)
    pipeline.publish("trades.linear.BTCUSDT", 1, epoch="b")
    pipeline.publish("trades.linear.BTCUSDT", 3, epoch="b")
    pipeline.publish("trades.linear.END", 1)
    iteration = client.messages(DEADLINE_S)
    assert any(metric.topic == "trades.linear.END" for metric in iteration)
    assert 2 + 1 + 1 == client.lost


def test_two_publishers_of_one_topic_are_not_a_loss(
    pipeline: ForwarderRig, client: PipelineClient
) -> None:
    iteration = client.messages(DEADLINE_S)
    published = [(epoch, seq) for seq in range(1, 5) for epoch in ("trades", "books")]
    for epoch, seq in published:
        pipeline.publish("gap.linear.BTCUSDT", seq, epoch=epoch)
    received = [next(iteration).payload for _ in published]
    assert published == [(payload["epoch"], payload["seq"]) for payload in received]
    assert 0 == client.lost


def test_a_repeat_is_skipped(pipeline: ForwarderRig, client: PipelineClient) -> None:
    """The forwarder sends last values to all subscribers when another one subscribes."""
    iteration = client.messages(DEADLINE_S)
    pipeline.publish_trades(seq=1)
    assert 1 == next(iteration).payload["seq"]
    with PipelineClient(pipeline.endpoint) as other:
        take(other, 1)
        until(lambda: pipeline.status("repeats") == 1)
        pipeline.publish_trades(seq=2)
        assert 2 == next(iteration).payload["seq"]
    assert 0 == client.lost


def test_an_undecodable_message_is_counted(pipeline: ForwarderRig, client: PipelineClient) -> None:
    raw = pipeline.context.socket(zmq.PUSH)
    raw.connect(pipeline.forwarder.spec.metrics_in)
    raw.send(encode_bundle([b"trades.linear.BTCUSDT", b"\x81"]))
    until(lambda: client.invalid == 1)
    assert client.get_tpm("BTCUSDT", "60s") is None
    raw.close(linger=0)


def test_an_iteration_ends_at_its_timeout_and_when_the_client_is_closed(
    pipeline: ForwarderRig,
) -> None:
    client = PipelineClient(pipeline.endpoint)
    with client:
        assert [] == list(client.messages(0.01))
        endless = iter(client)
        pipeline.publish_trades()
        assert "trades.linear.BTCUSDT" == next(endless).topic
    assert [] == list(endless)
    assert client.get_tpm("BTCUSDT", "60s") is None
    assert not client.connected
    with pytest.raises(RuntimeError, match="not open"):
        iter(client)


def test_a_slow_iteration_drops_the_oldest_messages_and_counts_them(
    pipeline: ForwarderRig, client: PipelineClient
) -> None:
    iteration = client.messages(DEADLINE_S)
    pipeline.publish_many("trades.linear.BTCUSDT", range(1, MAX_WAITING + 101))
    until(lambda: client.dropped == 100)
    assert 101 == next(iteration).payload["seq"]
    assert 0 == client.lost


def test_an_abandoned_iteration_keeps_no_messages(
    pipeline: ForwarderRig, client: PipelineClient
) -> None:
    client.messages()
    iteration = client.messages(DEADLINE_S)
    next_to_last = MAX_WAITING + 1
    pipeline.publish_many("trades.linear.BTCUSDT", range(1, next_to_last))
    pipeline.publish("trades.linear.END", 1)
    assert any(metric.topic == "trades.linear.END" for metric in iteration)
    assert 1 >= client.dropped


def test_values_are_dropped_when_the_pipeline_stops_and_return_when_it_restarts(
    tmp_path: Path,
) -> None:
    endpoint = f"ipc://{tmp_path}/metrics-out"
    with contextlib.closing(ForwarderRig(tmp_path, endpoint)) as first:
        client = PipelineClient(endpoint)
        client.open()
        first.publish_trades(seq=3)
        take(client, 1)
        assert client.connected
    until(lambda: not client.connected)
    assert client.get_tpm("BTCUSDT", "60s") is None
    assert client.source is None
    with contextlib.closing(ForwarderRig(tmp_path, endpoint)) as second:
        second.publish_trades(seq=3)
        until(lambda: client.get_tpm("BTCUSDT", "60s") == 4.0)
        assert client.connected
        second.publish_trades(seq=6)
        until(lambda: client.lost == 2)
        client.close()


def test_values_are_dropped_when_the_connection_dies_silently(
    pipeline: ForwarderRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bybit_pipeline.shared.bus.subscriber.HEARTBEAT_MS", 50)
    monkeypatch.setattr("bybit_pipeline.shared.bus.subscriber.HEARTBEAT_TIMEOUT_MS", 200)
    with (
        contextlib.closing(Relay(pipeline.endpoint)) as relay,
        PipelineClient(relay.endpoint) as client,
    ):
        until(lambda: client.connected and pipeline.status("subscriptions"))
        pipeline.publish_trades()
        until(lambda: client.get_tpm("BTCUSDT", "60s") == 4.0)
        relay.is_forwarding.clear()
        until(lambda: not client.connected)
        assert client.get_tpm("BTCUSDT", "60s") is None
        relay.is_forwarding.set()
        until(lambda: client.get_tpm("BTCUSDT", "60s") == 4.0)


def test_the_endpoint_is_read_from_the_run_directory(
    pipeline: ForwarderRig, tmp_path: Path
) -> None:
    (tmp_path / "endpoints.json").write_text(json.dumps({"metrics": pipeline.endpoint}))
    with PipelineClient(run_dir=tmp_path) as client:
        pipeline.publish_trades()
        assert "trades.linear.BTCUSDT" == take(client, 1)[0].topic


@pytest.mark.parametrize("content", [None, "not json", "{}", "[]"])
def test_opening_without_a_pipeline_names_the_run_directory(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "endpoints.json").write_text(content)
    with pytest.raises(NoPipelineError) as caught:
        PipelineClient(run_dir=tmp_path).open()
    assert EX_UNAVAILABLE == caught.value.exit_code
    assert str(tmp_path) in str(caught.value)


def test_a_malformed_endpoint_is_rejected() -> None:
    client = PipelineClient("tcp://nowhere")
    with pytest.raises(NoPipelineError, match="tcp://nowhere"):
        client.open()
    assert not client.connected


def test_getters_and_subscriptions_work_from_many_threads(
    pipeline: ForwarderRig, client: PipelineClient
) -> None:
    failures: list[object] = []

    def use(number: int) -> None:
        symbol = f"COIN{number}USDT"
        for _ in range(50):
            client.subscribe(symbol)
            if client.get_tpm(symbol, "60s") not in (None, 4.0):
                failures.append(symbol)
            client.get_snapshot(symbol)
            client.unsubscribe(symbol)
            if client.get_tpm(symbol, "60s") is not None:
                failures.append(symbol)
        client.subscribe(symbol)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    seq = 0
    while any(thread.is_alive() for thread in threads):
        seq += 1
        for number in range(4):
            pipeline.publish_trades(f"COIN{number}USDT", seq=seq)
        until(lambda: pipeline.status("messages") == 4 * seq)  # noqa: B023 - called at once
    for thread in threads:
        thread.join()
    assert [] == failures
    for number in range(4):
        symbol = f"COIN{number}USDT"
        pipeline.publish_trades(symbol, seq=seq + 1)
        until(lambda symbol=symbol: client.get_tpm(symbol, "60s") == 4.0)  # type: ignore[misc]


def test_the_last_message_of_any_topic(pipeline: ForwarderRig) -> None:
    """Also of topics without a getter, such as process status."""
    with PipelineClient(pipeline.endpoint) as client:
        pipeline.publish("process.trades-0", 1, state="up")
        pipeline.publish_book()
        until(lambda: len(client.topics()) == 2)
        assert ["process.trades-0"] == client.topics("process.")
        status = client.get_message("process.trades-0")
        assert status is not None
        assert "up" == status["state"]
        assert client.get_message("process.trades-1") is None
    assert [] == client.topics()


def test_coverage_of_a_window(pipeline: ForwarderRig) -> None:
    """The observed seconds as published; None for an unknown window or symbol."""
    with PipelineClient(pipeline.endpoint) as client:
        windows = {"60s": {**WINDOW, "coverage_s": 12.5}}
        pipeline.publish("trades.linear.BTCUSDT", 1, tps=0.5, windows=windows)
        until(lambda: client.get_coverage_s("BTCUSDT") == 12.5)
        assert client.get_coverage_s("BTCUSDT", "10s") is None
        assert client.get_coverage_s("ETHUSDT") is None


def test_closing_while_other_threads_subscribe(pipeline: ForwarderRig) -> None:
    """Every method may be called from any thread, even while the client closes and opens."""
    client = PipelineClient(pipeline.endpoint)
    failures: list[BaseException] = []
    stop = threading.Event()

    def subscribe() -> None:
        try:
            while not stop.is_set():
                client.subscribe("BTCUSDT")
                client.unsubscribe("BTCUSDT")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=subscribe) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        client.open()
        client.close()
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
