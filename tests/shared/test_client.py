"""The Python client against a real forwarder: values, losses, repeats, threads, broken links."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from bybit_pipeline.processes.forwarder.actor import Forwarder
from bybit_pipeline.shared.bus.metrics import MetricPublisher
from bybit_pipeline.shared.client import MAX_WAITING, Density, Metric, PipelineClient, Snapshot
from bybit_pipeline.shared.errors import EX_UNAVAILABLE, NoPipelineError
from bybit_pipeline.shared.settings.specs import ForwarderSpec
from bybit_pipeline.shared.wire.codec import encode_bundle

Context = zmq.Context[zmq.Socket[bytes]]
DEADLINE_S = 10.0

WINDOW = {"trades": 4, "tpm": 4.0, "vol_delta": -1.5, "buy_sell_ratio": 0.25}
WALL = {
    "side": "bid",
    "price": 99.0,
    "size": 80.0,
    "initial_size": 70.0,
    "peak_size": 90.0,
    "strength": 8.0,
    "eaten_ratio": 0.1,
    "pulled_ratio": 0.0,
    "traded_size": 9.0,
    "distance_bps": 100.5,
    "first_seen_ms": 1,
    "age_ms": 2,
    "uncertain": False,
    "cancelled_size": 1.0,
}
BOOK = {
    "source": "sim",
    "state": "live",
    "reason": None,
    "update_id": 77,
    "match_ts_ms": 123,
    "best_bid": 100.0,
    "best_ask": 101.0,
    "mid_price": 100.5,
    "spread_bps": 99.5,
    "bids": [[100.0, 1.0], [99.0, 80.0]],
    "asks": [[101.0, 2.0]],
    "imbalance": {"1": -0.25, "10": 0.5},
    "depth": {"10": {"bid": 1.0, "ask": 2.0}, "2.5": {"bid": 0.5, "ask": 0.25}},
    "densities": [WALL],
}


class Pipeline:
    """A forwarder in a thread, and a worker's way into it."""

    def __init__(self, directory: Path, endpoint: str = "tcp://127.0.0.1:0") -> None:
        self.context: Context = zmq.Context()
        self.forwarder = Forwarder(
            ForwarderSpec(
                process="forwarder",
                role="forwarder",
                run_dir=str(directory),
                metrics_in=f"ipc://{directory}/metrics-in",
                endpoint=endpoint,
            )
        )
        self.forwarder._context = self.context
        self.forwarder.on_start()
        self.forwarder.every(0.01, lambda: None)
        self.endpoint = self.forwarder.endpoints["metrics"]
        self._publisher = MetricPublisher(self.context, self.forwarder.spec.metrics_in)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.forwarder.turn()
        self.forwarder.on_stop()

    def publish(self, topic: str, seq: int, epoch: str = "a", **fields: Any) -> None:
        self._publisher.publish(topic.encode(), self._payload(topic, seq, epoch) | fields)

    def publish_many(self, topic: str, seqs: range) -> None:
        self._publisher.publish_all((topic.encode(), self._payload(topic, seq)) for seq in seqs)

    def _payload(self, topic: str, seq: int, epoch: str = "a") -> dict[str, Any]:
        return {"kind": topic.partition(".")[0], "source": "sim", "epoch": epoch, "seq": seq}

    def publish_trades(self, symbol: str = "BTCUSDT", seq: int = 1, **fields: Any) -> None:
        windows = {"60s": WINDOW, "10s": dict.fromkeys(WINDOW)}
        self.publish(f"trades.linear.{symbol}", seq, tps=0.5, windows=windows, **fields)

    def publish_book(self, seq: int = 1, **fields: Any) -> None:
        self.publish("orderbook.linear.BTCUSDT", seq, **(BOOK | fields))

    def status(self, name: str) -> int:
        return self.forwarder.status()[name]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.context.destroy(linger=0)


def until(condition: Callable[[], object]) -> None:
    """Wait for something that another thread does."""
    ticker = threading.Event()
    for _ in range(int(DEADLINE_S / 0.005)):
        if condition():
            return
        ticker.wait(0.005)
    raise AssertionError("it did not come to pass")


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    with contextlib.closing(Pipeline(tmp_path)) as pipeline:
        yield pipeline


@pytest.fixture
def client(pipeline: Pipeline) -> Iterator[PipelineClient]:
    with PipelineClient(pipeline.endpoint) as client:
        until(lambda: client.connected and pipeline.status("subscriptions"))
        yield client


def take(client: PipelineClient, count: int) -> list[Metric]:
    """The first messages of an iteration."""
    iteration = client.messages(DEADLINE_S)
    return [next(iteration) for _ in range(count)]


def test_trade_measures_are_those_last_published(
    pipeline: Pipeline, client: PipelineClient
) -> None:
    pipeline.publish_trades()
    take(client, 1)
    assert client.get_tpm("BTCUSDT", "60s") == 4.0
    assert client.get_tps("BTCUSDT") == 0.5
    assert client.get_vol_delta("BTCUSDT", "60s") == -1.5
    assert client.get_buy_sell_ratio("BTCUSDT", "60s") == 0.25
    assert client.source == "sim"


def test_book_measures_are_those_last_published(pipeline: Pipeline, client: PipelineClient) -> None:
    pipeline.publish_book()
    take(client, 1)
    assert client.get_snapshot("BTCUSDT") == Snapshot(
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
    assert client.get_imbalance("BTCUSDT") == 0.5
    assert client.get_imbalance("BTCUSDT", 1) == -0.25
    assert client.get_aggregated_depth("BTCUSDT", "ask", 10) == 2.0
    assert client.get_aggregated_depth("BTCUSDT", "bid", 2.5) == 0.5
    known = {name: value for name, value in WALL.items() if name != "cancelled_size"}
    assert client.get_densities("BTCUSDT") == [Density(**known)]  # type: ignore[arg-type]


def test_a_density_is_found_by_price_and_side_within_the_tolerance(
    pipeline: Pipeline, client: PipelineClient
) -> None:
    pipeline.publish_book(densities=[WALL, WALL | {"price": 99.05}])
    take(client, 1)
    found = client.get_density_at_price("BTCUSDT", 99.04, "bid")
    assert found is not None
    assert found.price == 99.05
    assert client.get_density_at_price("BTCUSDT", 99.04, "ask") is None
    assert client.get_density_at_price("BTCUSDT", 98.5, "bid") is None
    assert client.get_density_at_price("BTCUSDT", 98.5, "bid", tolerance_bps=60) is not None


def test_nothing_is_invented(pipeline: Pipeline, client: PipelineClient) -> None:
    """Unknown symbols, bands, level counts and windows, null measures and a stale book."""
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
    assert (snapshot.state, snapshot.reason, snapshot.best_bid) == ("stale", "gap", None)
    assert snapshot.bids == ()
    assert client.get_imbalance("BTCUSDT") is None
    assert client.get_aggregated_depth("BTCUSDT", "bid") is None
    assert client.get_densities("BTCUSDT") is None


def test_a_side_that_is_none_is_refused(client: PipelineClient) -> None:
    with pytest.raises(ValueError, match="allowed: bid, ask"):
        client.get_aggregated_depth("BTCUSDT", "buy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="allowed: bid, ask"):
        client.get_density_at_price("BTCUSDT", 1.0, "Bid")  # type: ignore[arg-type]


def test_a_late_client_has_the_last_values_at_once(pipeline: Pipeline) -> None:
    pipeline.publish_trades(seq=41)
    pipeline.publish_trades(seq=42)
    until(lambda: pipeline.status("messages") == 2)
    with PipelineClient(pipeline.endpoint) as late:
        [metric] = take(late, 1)
        assert metric.payload["seq"] == 42
        assert late.get_tpm("BTCUSDT", "60s") == 4.0
        assert late.lost == 0


def test_subscribing_narrows_the_client_to_exactly_that_symbol(
    pipeline: Pipeline, client: PipelineClient
) -> None:
    pipeline.publish_trades("ETHUSDT")
    pipeline.publish_trades("BTCUSDTPERP")
    take(client, 2)
    client.subscribe("BTCUSDT")
    assert client.get_tpm("ETHUSDT", "60s") is None
    for symbol in ("ETHUSDT", "BTCUSDTPERP", "BTCUSDT"):
        pipeline.publish_trades(symbol, seq=2)
    assert [metric.topic for metric in take(client, 1)] == ["trades.linear.BTCUSDT"]
    assert client.get_tpm("BTCUSDT", "60s") == 4.0
    assert client.get_tpm("ETHUSDT", "60s") is None
    assert client.get_tpm("BTCUSDTPERP", "60s") is None


def test_a_second_symbol_is_added_and_an_unsubscribed_one_forgotten(
    pipeline: Pipeline, client: PipelineClient
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
    assert {metric.topic for metric in seen} == {"trades.linear.ETHUSDT"}
    assert client.lost == 0


def test_holes_in_the_sequence_are_counted_per_topic_and_epoch(
    pipeline: Pipeline, client: PipelineClient
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
    assert client.lost == 2 + 1 + 1


def test_two_publishers_of_one_topic_are_no_loss(
    pipeline: Pipeline, client: PipelineClient
) -> None:
    iteration = client.messages(DEADLINE_S)
    published = [(epoch, seq) for seq in range(1, 5) for epoch in ("trades", "books")]
    for epoch, seq in published:
        pipeline.publish("gap.linear.BTCUSDT", seq, epoch=epoch)
    received = [next(iteration).payload for _ in published]
    assert [(payload["epoch"], payload["seq"]) for payload in received] == published
    assert client.lost == 0


def test_a_repeat_is_left_out(pipeline: Pipeline, client: PipelineClient) -> None:
    """Whoever subscribes makes the forwarder repeat the last value to everybody."""
    iteration = client.messages(DEADLINE_S)
    pipeline.publish_trades(seq=1)
    assert next(iteration).payload["seq"] == 1
    with PipelineClient(pipeline.endpoint) as other:
        take(other, 1)
        until(lambda: pipeline.status("repeats") == 1)
        pipeline.publish_trades(seq=2)
        assert next(iteration).payload["seq"] == 2
    assert client.lost == 0


def test_a_message_that_cannot_be_read_is_counted(
    pipeline: Pipeline, client: PipelineClient
) -> None:
    raw = pipeline.context.socket(zmq.PUSH)
    raw.connect(pipeline.forwarder.spec.metrics_in)
    raw.send(encode_bundle([b"trades.linear.BTCUSDT", b"\x81"]))
    until(lambda: client.invalid == 1)
    assert client.get_tpm("BTCUSDT", "60s") is None
    raw.close(linger=0)


def test_an_iteration_ends_with_its_timeout_and_with_the_client(pipeline: Pipeline) -> None:
    client = PipelineClient(pipeline.endpoint)
    with client:
        assert list(client.messages(0.01)) == []
        endless = iter(client)
        pipeline.publish_trades()
        assert next(endless).topic == "trades.linear.BTCUSDT"
    assert list(endless) == []
    assert client.get_tpm("BTCUSDT", "60s") is None
    assert not client.connected
    with pytest.raises(RuntimeError, match="not open"):
        iter(client)


def test_a_slow_iteration_drops_the_oldest_and_counts_them(
    pipeline: Pipeline, client: PipelineClient
) -> None:
    iteration = client.messages(DEADLINE_S)
    pipeline.publish_many("trades.linear.BTCUSDT", range(1, MAX_WAITING + 101))
    until(lambda: client.dropped == 100)
    assert next(iteration).payload["seq"] == 101
    assert client.lost == 0


def test_when_the_pipeline_goes_nothing_old_remains_and_when_it_comes_back_values_do(
    tmp_path: Path,
) -> None:
    endpoint = f"ipc://{tmp_path}/metrics-out"
    with contextlib.closing(Pipeline(tmp_path, endpoint)) as first:
        client = PipelineClient(endpoint)
        client.open()
        first.publish_trades(seq=3)
        take(client, 1)
        assert client.connected
    until(lambda: not client.connected)
    assert client.get_tpm("BTCUSDT", "60s") is None
    assert client.source is None
    with contextlib.closing(Pipeline(tmp_path, endpoint)) as second:
        second.publish_trades(seq=3)
        until(lambda: client.get_tpm("BTCUSDT", "60s") == 4.0)
        assert client.connected
        second.publish_trades(seq=6)
        until(lambda: client.lost == 2)
        client.close()


class Relay:
    """A TCP line to an endpoint, which can stop passing anything without coming to its end."""

    def __init__(self, endpoint: str) -> None:
        self._port = int(endpoint.rpartition(":")[2])
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self.passes = threading.Event()
        self.passes.set()
        self._sockets = [self._server]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += (near, far)
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self.passes.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.passes.set()
        for each in self._sockets:
            each.close()


def test_nothing_old_remains_when_the_line_is_dead_without_an_end(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bybit_pipeline.shared.client.HEARTBEAT_MS", 50)
    monkeypatch.setattr("bybit_pipeline.shared.client.HEARTBEAT_TIMEOUT_MS", 200)
    with (
        contextlib.closing(Relay(pipeline.endpoint)) as relay,
        PipelineClient(relay.endpoint) as client,
    ):
        until(lambda: client.connected and pipeline.status("subscriptions"))
        pipeline.publish_trades()
        until(lambda: client.get_tpm("BTCUSDT", "60s") == 4.0)
        relay.passes.clear()
        until(lambda: not client.connected)
        assert client.get_tpm("BTCUSDT", "60s") is None
        relay.passes.set()
        until(lambda: client.get_tpm("BTCUSDT", "60s") == 4.0)


def test_the_endpoint_is_found_in_the_run_directory(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "endpoints.json").write_text(json.dumps({"metrics": pipeline.endpoint}))
    with PipelineClient(run_dir=tmp_path) as client:
        pipeline.publish_trades()
        assert take(client, 1)[0].topic == "trades.linear.BTCUSDT"


@pytest.mark.parametrize("content", [None, "not json", "{}", "[]"])
def test_without_a_pipeline_opening_says_so(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "endpoints.json").write_text(content)
    with pytest.raises(NoPipelineError) as caught:
        PipelineClient(run_dir=tmp_path).open()
    assert caught.value.exit_code == EX_UNAVAILABLE
    assert str(tmp_path) in str(caught.value)


def test_an_endpoint_that_is_none_is_refused() -> None:
    client = PipelineClient("tcp://nowhere")
    with pytest.raises(NoPipelineError, match="tcp://nowhere"):
        client.open()
    assert not client.connected


def test_getters_and_subscriptions_work_from_many_threads(
    pipeline: Pipeline, client: PipelineClient
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
    assert failures == []
    for number in range(4):
        symbol = f"COIN{number}USDT"
        pipeline.publish_trades(symbol, seq=seq + 1)
        until(lambda symbol=symbol: client.get_tpm(symbol, "60s") == 4.0)  # type: ignore[misc]


def test_last_message_of_any_topic(pipeline: Pipeline) -> None:
    """What has no getter of its own is there as well: coverage, states, processes."""
    with PipelineClient(pipeline.endpoint) as client:
        pipeline.publish("process.trades-0", 1, state="up")
        pipeline.publish_book()
        until(lambda: len(client.topics()) == 2)
        assert client.topics("process.") == ["process.trades-0"]
        status = client.get_message("process.trades-0")
        assert status is not None
        assert status["state"] == "up"
        assert client.get_message("process.trades-1") is None
    assert client.topics() == []


def test_coverage_of_a_window(pipeline: Pipeline) -> None:
    """How much of it was observed, as published; None for what is not there."""
    with PipelineClient(pipeline.endpoint) as client:
        windows = {"60s": {**WINDOW, "coverage_s": 12.5}}
        pipeline.publish("trades.linear.BTCUSDT", 1, tps=0.5, windows=windows)
        until(lambda: client.get_coverage_s("BTCUSDT") == 12.5)
        assert client.get_coverage_s("BTCUSDT", "10s") is None
        assert client.get_coverage_s("ETHUSDT") is None


def test_closing_while_others_subscribe(pipeline: Pipeline) -> None:
    """Every method may be called from any thread, also while the client is closed and opened."""
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
