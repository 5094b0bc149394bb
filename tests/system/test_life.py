"""From ``up`` to the orderly end, on the simulated exchange."""

import json
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.system.conftest import Start
from tests.system.pipeline import COMMAND, Pipeline, kill, until

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
TRADES = HEADER | {
    "last_price",
    "last_size",
    "last_side",
    "last_trade_id",
    "trades_total",
    "cvd",
    "tps",
    "windows",
}
WINDOW = {
    "trades",
    "tpm",
    "tps",
    "volume",
    "buy_volume",
    "sell_volume",
    "vol_delta",
    "buy_sell_ratio",
    "buy_share",
    "turnover",
    "vwap",
    "high",
    "low",
    "coverage_s",
}
BOOK = HEADER | {
    "reason",
    "update_id",
    "sequence",
    "best_bid",
    "best_bid_size",
    "best_ask",
    "best_ask_size",
    "mid_price",
    "spread",
    "spread_bps",
    "weighted_mid",
    "imbalance",
    "depth",
    "bids",
    "asks",
    "densities",
}
PROCESS = {
    "v",
    "kind",
    "process",
    "pid",
    "role",
    "state",
    "source",
    "uptime_s",
    "restarts",
}

COUNTERS = [
    "connector_connected",
    "connector_connects_total",
    "connector_reconnects_total",
    "connector_messages_total",
    "connector_frames_invalid_total",
    "connector_topics",
    "connector_ping_rtt_seconds",
    "connector_last_message_timestamp_seconds",
    "exchange_latency_seconds",
    "bus_latency_seconds",
    "metric_latency_seconds",
    "bus_messages_lost_total",
    "worker_messages_total",
    "trades_total",
    "trade_duplicates_total",
    "book_gaps_total",
    "book_resyncs_total",
    "books",
    "densities_total",
    "metrics_published_total",
    "process_up",
    "process_flapping",
    "process_restarts_total",
    "source_info",
    "mid_price",
    "spread_bps",
    "imbalance_ratio",
    "trades_per_minute",
    "volume_delta",
]


def is_live(kind: str, symbol: str) -> Any:
    """A condition: a message of this kind and symbol that holds numbers."""
    return lambda message: (
        message["kind"] == kind
        and message.get("symbol") == symbol
        and (message.get("state") == "live" or message.get("trades_total"))
    )


def has_topic(topic: str, message: dict[str, Any]) -> bool:
    """A condition: a message of this topic."""
    return bool(message["topic"] == topic)


def test_metrics_of_both_kinds_arrive_with_every_field_and_nothing_is_left_at_the_end(
    start: Start,
) -> None:
    pipeline = start("--source", "sim")
    trades = pipeline.first(is_live("trades", "BTCUSDT"))
    assert trades.keys() >= TRADES
    assert trades["topic"] == "trades.linear.BTCUSDT"
    assert trades["source"] == "sim"
    assert set(trades["windows"]) == {"10s", "60s", "300s"}
    assert trades["windows"]["60s"].keys() >= WINDOW
    book = pipeline.first(is_live("orderbook", "ETHUSDT"))
    assert book.keys() >= BOOK
    assert book["best_bid"] < book["mid_price"] < book["best_ask"]
    assert set(book["imbalance"]) == {"1", "5", "10", "50"}
    assert set(book["depth"]) == {"10", "25", "50", "100"}
    assert set(book["depth"]["10"]) >= {"bid", "ask", "bid_notional", "ask_notional"}
    assert len(book["bids"]) == len(book["asks"]) == 10
    for name in ("supervisor", "forwarder", "simulator", "connector-linear-0", "trades-0"):
        process = pipeline.first(partial(has_topic, f"process.{name}"))
        assert process.keys() >= PROCESS
    pipeline.stop()


def test_seq_grows_by_one_per_topic_and_epoch(start: Start) -> None:
    pipeline = start("--source", "sim")
    last: dict[tuple[str, str], int] = {}
    for count, message in enumerate(pipeline.messages()):
        if message["kind"] in ("trades", "orderbook"):
            key = (message["topic"], message["epoch"])
            assert message["seq"] == last.get(key, message["seq"] - 1) + 1
            last[key] = message["seq"]
        if count > 200:
            break
    assert len(last) == 4


def test_tail_prints_json_lines_for_a_pipe(start: Start) -> None:
    pipeline = start("--source", "sim")
    pipeline.wait_ready()
    done = pipeline.command("tail", "--count", "20")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 20
    assert {"trades", "orderbook"} <= {line["topic"].split(".")[0] for line in lines}


def test_a_late_subscriber_gets_the_last_message_of_each_topic_at_once(start: Start) -> None:
    pipeline = start("--source", "sim")
    pipeline.wait_ready()
    pipeline.first(is_live("orderbook", "BTCUSDT"))
    context = zmq.Context()
    late = context.socket(zmq.SUB)
    late.connect(pipeline.endpoints()["metrics"])
    late.subscribe("orderbook.linear.BTCUSDT")
    assert late.poll(1000)
    context.destroy(linger=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_start_ends_it_cleanly(start: Start, number: signal.Signals) -> None:
    pipeline = start("--source", "sim")
    until(lambda: (pipeline.run_dir / "lock").exists(), "the lock file")
    pipeline.stop(number)


def test_a_second_pipeline_in_the_same_run_directory_is_rejected_naming_the_first(
    start: Start,
) -> None:
    pipeline = start("--source", "sim")
    pipeline.endpoints()
    done = pipeline.command("up", "--source", "sim", "--port", "0")
    assert done.returncode == 73
    assert str(pipeline.process.pid) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_commands_report_that_no_pipeline_runs(tmp_path: Path) -> None:
    for command in (["status"], ["tail"], ["subscribe", "linear:BTCUSDT"]):
        done = subprocess.run(
            [*COMMAND, *command, "--run-dir", str(tmp_path / "none")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 69, command
        assert len(done.stderr.splitlines()) == 1


def test_status_describes_processes_connectors_and_books(start: Start) -> None:
    pipeline = start("--source", "sim")
    pipeline.wait_ready()
    status = json.loads(pipeline.command("status", "--json").stdout)
    assert status["source"] == "sim"
    assert status["ready"] is True
    names = {process["process"] for process in status["processes"]}
    assert names == {
        "supervisor",
        "forwarder",
        "simulator",
        "connector-linear-0",
        "trades-0",
        "orderbook-0",
    }
    [connector] = status["connectors"]
    assert connector["connected"] is True
    assert set(connector["topics"]) == {
        "publicTrade.BTCUSDT",
        "publicTrade.ETHUSDT",
        "orderbook.50.BTCUSDT",
        "orderbook.50.ETHUSDT",
    }
    assert set(connector["topics"].values()) <= {"confirmed", "delivering"}
    assert status["books"]["live"] == 2


def test_every_process_is_a_scrape_target_with_its_counters(start: Start) -> None:
    pipeline = start("--source", "sim")
    pipeline.wait_ready()
    targets = json.loads(pipeline.http("/targets")[1])
    assert {target["labels"]["process"] for target in targets} == {
        process["process"] for process in pipeline.status()["processes"]
    }
    pipeline.first(is_live("orderbook", "BTCUSDT"))
    samples = {
        sample.split("{")[0].removeprefix("bybit_pipeline_")
        for target in targets
        for sample in pipeline.counters(target["labels"]["process"])
    }
    unusable = pipeline.total("supervisor", "control_frames_invalid_total")
    assert unusable == 0, "every heartbeat can be used"
    for name in COUNTERS:
        present = {name, f"{name}_bucket", f"{name}_count"} & samples
        assert present, f"{name} is not exposed"


def test_subscribe_and_unsubscribe_change_a_running_pipeline(start: Start) -> None:
    pipeline = start("--source", "sim")
    pipeline.wait_ready()
    assert pipeline.command("subscribe", "linear:SOLUSDT").returncode == 0
    pipeline.first(is_live("orderbook", "SOLUSDT"))
    assert pipeline.command("unsubscribe", "linear:BTCUSDT").returncode == 0
    until(
        lambda: "orderbook.50.BTCUSDT" not in pipeline.status()["connectors"][0]["topics"],
        "BTCUSDT gone",
    )
    # The workers' counts come with their own heartbeats.
    until(lambda: pipeline.status()["books"]["live"] == 2, "two books left")
    refused = pipeline.command("subscribe", "linear:NOPEUSDT")
    assert refused.returncode == 1
    assert "orderbook.50.NOPEUSDT rejected" in refused.stderr


@pytest.mark.parametrize("process", ["orderbook-0", "trades-0", "connector-linear-0", "forwarder"])
def test_a_killed_process_is_back_with_numbers_within_five_seconds(
    start: Start, process: str
) -> None:
    pipeline = start("--source", "sim")
    pipeline.wait_ready()
    before = pipeline.pid(process)
    kill(before)
    until(lambda: pipeline.pid(process) not in (before, 0), "a successor", 5)
    until(lambda: pipeline.http("/readyz")[0] == 200, "ready again", 5)
    restarts = {entry["process"]: entry["restarts"] for entry in pipeline.status()["processes"]}
    assert restarts.pop(process) == 1
    assert set(restarts.values()) == {0}
    later = drained(pipeline)
    later.first(is_live("orderbook", "BTCUSDT"))
    later.first(is_live("trades", "BTCUSDT"))
    pipeline.stop()


def drained(pipeline: Pipeline) -> Pipeline:
    """The pipeline, with nothing old waiting for its subscriber."""
    while pipeline.socket.poll(0):
        pipeline.socket.recv_multipart()
    return pipeline


def test_a_hung_process_is_killed_and_restarted(start: Start) -> None:
    pipeline = start("--source", "sim")
    pipeline.wait_ready()
    before = pipeline.pid("trades-0")
    subprocess.run(["kill", "-STOP", str(before)], check=True)
    until(lambda: pipeline.pid("trades-0") not in (before, 0), "a successor", 15)
    hung = pipeline.total("supervisor", "process_restarts_total", "trades-0", 'reason="hung"')
    assert hung == 1


def test_children_leave_when_the_supervisor_is_killed_and_a_new_one_starts(start: Start) -> None:
    pipeline = start("--source", "sim")
    pipeline.wait_ready()
    pids = [entry["pid"] for entry in pipeline.status()["processes"]]
    kill(pipeline.process.pid)
    pipeline.process.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "children gone", 5)
    with subprocess.Popen(
        [
            *COMMAND,
            "up",
            "--source",
            "sim",
            "--port",
            "0",
            "--run-dir",
            str(pipeline.run_dir),
            "--metrics",
            pipeline.metrics,
        ],
        stderr=subprocess.DEVNULL,
    ) as second:
        pipeline.process = second
        later = drained(pipeline)
        later.first(is_live("orderbook", "BTCUSDT"))
        pipeline.stop()


def test_a_killed_connector_makes_its_books_stale_at_once(start: Start) -> None:
    pipeline = start("--source", "sim")
    pipeline.wait_ready()
    kill(pipeline.pid("connector-linear-0"))
    killed_ns = time.time_ns()
    books = [partial(is_stale, "orderbook", symbol) for symbol in ("BTCUSDT", "ETHUSDT")]
    *stale_books, trades = pipeline.first_of_each(*books, partial(is_stale, "trades", "BTCUSDT"))
    for stale in stale_books:
        assert "process_down" == stale["reason"]
        assert stale["mid_price"] is None
        assert stale["publish_ts_ns"] - killed_ns < 0.3e9
    assert "process_down" == trades["reason"]
    assert trades["publish_ts_ns"] - killed_ns < 0.3e9


def is_stale(kind: str, symbol: str, message: dict[str, Any]) -> bool:
    """A condition: a message of this kind and symbol that is not live."""
    wanted = (kind, symbol, "stale")
    return (message["kind"], message.get("symbol"), message.get("state")) == wanted


def test_gaps_lists_every_interval_without_trusted_data(start: Start) -> None:
    pipeline = start("--source", "sim")
    pipeline.wait_ready()
    kill(pipeline.pid("connector-linear-0"))
    pipeline.first(partial(is_stale, "orderbook", "BTCUSDT"))
    pipeline.first(is_live("orderbook", "BTCUSDT"))
    done = pipeline.command("gaps", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    lost = [gap for gap in told if gap["reason"] == "process_down"]
    assert {(gap["stream"], gap["symbol"]) for gap in lost} == {
        ("book", "BTCUSDT"),
        ("book", "ETHUSDT"),
        ("trades", "BTCUSDT"),
        ("trades", "ETHUSDT"),
    }
    [book] = [gap for gap in lost if (gap["stream"], gap["symbol"]) == ("book", "BTCUSDT")]
    assert 0 < book["duration_s"] < 5
    assert book["update_id_before"] is not None
    assert book["update_id_after"] is not None
    assert "process_down" in pipeline.command("gaps").stdout
