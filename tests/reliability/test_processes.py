"""Faults of processes, as seen by subscribers, in files and by other processes."""

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import psutil
import pytest
import zmq

from scripts.reliability import crashes, slow_subscriber
from scripts.reliability.rig import CONNECTOR, Rig
from tests.system.conftest import Start
from tests.system.pipeline import Pipeline, kill, until
from tests.system.test_life import drained, is_live

SYMBOLS = ("BTCUSDT", "ETHUSDT")
CHILDREN = ("forwarder", "trades-0", "orderbook-0", "simulator", "connector-linear-0")


def is_down(kind: str, symbol: str, message: dict[str, Any]) -> bool:
    """A condition: the last will of this market, whose process is down."""
    return (message["kind"], message.get("symbol"), message.get("reason")) == (
        kind,
        symbol,
        "process_down",
    )


def late_message(pipeline: Pipeline, topic: str) -> dict[str, Any]:
    """Return the first message of a new subscriber."""
    context = zmq.Context()
    try:
        late = context.socket(zmq.SUB)
        late.connect(pipeline.endpoints()["metrics"])
        late.subscribe(topic)
        assert late.poll(2000), f"nothing for a late subscriber of {topic}"
        return dict(msgpack.unpackb(late.recv_multipart()[1]))
    finally:
        context.destroy(linger=0)


def test_a_worker_slower_than_the_market_recovers_and_its_lag_is_visible(
    shared: Pipeline,
) -> None:
    pipeline = drained(shared)
    pid = pipeline.pid("orderbook-0")
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 3.0, "three seconds")
    os.kill(pid, signal.SIGCONT)

    def longest_lag_s() -> float:
        counters = pipeline.counters("orderbook-0")
        over = [
            count
            for name, count in counters.items()
            if name.startswith("bybit_pipeline_bus_latency_seconds_sum")
        ]
        return sum(over)

    until(lambda: longest_lag_s() > 1.0, "the lag in Prometheus", 5)
    drained(pipeline).first(is_live("orderbook", "BTCUSDT"))
    until(lambda: pipeline.http("/readyz")[0] == 200, "ready", 5)
    assert pipeline.pid("orderbook-0") == pid, "slow is not hung"


KINDS = {"orderbook-0": "orderbook", "trades-0": "trades"}


@pytest.mark.parametrize("process", random.Random(7).sample(CHILDREN, len(CHILDREN)))
def test_a_kill_affects_nothing_else_and_no_old_value_is_labelled_live(
    shared: Pipeline, process: str
) -> None:
    """A short form of ``scripts/soak kills``; subscribers learn at once of a dead worker."""
    drained(shared)
    kind = KINDS.get(process, "")
    own = {symbol: shared.first(is_live(kind, symbol)) for symbol in SYMBOLS if kind}
    before = {child: shared.pid(child) for child in CHILDREN}

    kill(before[process])

    killed_ns = time.time_ns()
    if kind:
        late = late_message(shared, f"{kind}.linear.ETHUSDT")
        assert late["state"] != "live" or late["publish_ts_ns"] < killed_ns + 0.1e9
        down = shared.first_of_each(*[partial(is_down, kind, symbol) for symbol in own])
        for live, stale in zip(own.values(), down, strict=True):
            assert stale["publish_ts_ns"] - killed_ns < 0.3e9
            assert (stale["state"], stale["process"], stale["source"]) == ("stale", process, "sim")
            assert stale["seq"] == 1
            assert stale["epoch"] != live["epoch"]
            assert stale.keys() == live.keys(), "the fields of the worker's own"
            assert not carries_numbers(stale)
    left_s = 5.0 - (time.time_ns() - killed_ns) / 1e9
    until(partial(is_back, shared, process, before[process]), f"{process} ready", left_s)
    after = {child: shared.pid(child) for child in CHILDREN}
    assert {child for child in CHILDREN if before[child] != after[child]} == {process}
    if kind:
        shared.first(is_live(kind, "BTCUSDT"))


def test_markets_of_a_hung_worker_become_stale_once_it_is_detected(shared: Pipeline) -> None:
    """A restart brings them back; the kill counts as hung."""
    drained(shared)
    os.kill(shared.pid("orderbook-0"), signal.SIGSTOP)

    shared.first(partial(is_down, "orderbook", "BTCUSDT"), 8)

    shared.first(is_live("orderbook", "BTCUSDT"))
    assert shared.total("supervisor", "process_restarts_total", "orderbook-0", '"hung"') == 1
    until(lambda: shared.http("/readyz")[0] == 200, "ready", 5)


def carries_numbers(message: dict[str, Any]) -> bool:
    """True if a message holds a measure."""
    keep = {"v", "seq", "publish_ts_ns"}
    plain = [value for key, value in message.items() if key not in keep]
    windows = message.get("windows", {}).values()
    measured = [v for w in windows for name, v in w.items() if name != "coverage_s"]
    return any(isinstance(value, int | float) for value in plain + measured) or any(
        value for value in plain if isinstance(value, list)
    )


def is_back(pipeline: Pipeline, name: str, pid: int) -> bool:
    """True once a new process runs and everything is ready."""
    return pipeline.pid(name) not in (pid, 0) and pipeline.http("/readyz")[0] == 200


def test_a_subscriber_that_stops_reading_delays_no_other(make_rig: Callable[..., Rig]) -> None:
    """A short form of ``scripts/soak lazy``: others are served in time, memory is bounded."""
    figures = slow_subscriber.measure(make_rig(**slow_subscriber.FLOOD).pipeline, 6.0)

    assert figures.is_good, figures


def test_a_child_that_crashes_at_every_start_affects_no_other_and_recovers(start: Start) -> None:
    """A short form of ``scripts/soak crashes``: the forwarder's port is taken."""
    pipeline = start(*crashes.ARGUMENTS)

    crashes.crash(pipeline, until_reason="forwarder: restarting", crashes=2)

    until(lambda: pipeline.http("/readyz")[0] == 200, "ready", 10)
    pipeline.stop()


SMALL_QUEUES = """
from bybit_pipeline.shared.bus import market
for end in (market.MarketPublisher, market.MarketSubscriber):
    end.__init__.__kwdefaults__["queue"] = 50
"""
"""Runs first in every process: queues of 50,000 frames would take minutes to fill."""


def test_an_overflow_of_the_market_queue_is_counted_exactly_and_books_recover(
    make_rig: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker stops for less than the heartbeat limit during a flood of messages."""
    (tmp_path / "sitecustomize.py").write_text(SMALL_QUEUES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    rig = make_rig(rate=3_000, config="")  # a pong may take longer behind such a flood
    rig.until_live(30)
    worker, pid = "orderbook-0", rig.pipeline.pid("orderbook-0")

    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    until(lambda: rig.listen() and time.monotonic() - began > 3.0, "three seconds")
    os.kill(pid, signal.SIGCONT)

    rig.until_seen(lambda m: m["kind"] == "orderbook" and m["reason"] == "bus_gap", "lost")
    rig.until_live()
    rig.exchange.process.send_signal(signal.SIGSTOP)
    total = rig.pipeline.total

    def unaccounted() -> int:
        sent = total(CONNECTOR, "connector_messages_total", 'stream="')
        handled = total(worker, "worker_messages_total")
        return int(sent - handled - total(worker, "bus_messages_lost_total"))

    until(lambda: unaccounted() == 0, "sent = handled + lost", 10)
    assert total(worker, "bus_messages_lost_total") > 100
    assert pid == rig.pipeline.pid(worker), "not taken for hung"
    assert rig.oracle.wrong == []


# -- every socket we bind ------------------------------------------------------------------------

FRAMES = 100_000


def random_frames(count: int) -> list[list[bytes]]:
    """Random byte strings in one to three frames, most of them short."""
    chance = random.Random(11)
    return [
        [chance.randbytes(chance.choice((0, 1, 5, 20, 200))) for _ in range(chance.randint(1, 3))]
        for _ in range(count)
    ]


def test_random_bytes_at_every_socket_are_rejected_and_counted(shared: Pipeline) -> None:
    pipeline = drained(shared)
    endpoints = pipeline.endpoints()
    pids = {child: pipeline.pid(child) for child in CHILDREN}
    memory = {child: psutil.Process(pid).memory_info().rss for child, pid in pids.items()}
    frames = random_frames(FRAMES)
    context = zmq.Context()
    targets = [
        (zmq.DEALER, endpoints["control"]),
        (zmq.PUSH, f"ipc://{pipeline.run_dir}/metrics.ipc"),
        (zmq.XSUB, endpoints["market"]["connector-linear-0"]),
        (zmq.XSUB, f"ipc://{pipeline.run_dir}/linear-0.feed"),
        (zmq.XSUB, endpoints["metrics"]),
    ]
    listeners = zmq.Context()
    listener = listeners.socket(zmq.SUB)
    listener.subscribe(b"")
    listener.connect(endpoints["market"]["connector-linear-0"])
    for kind, endpoint in targets:
        sender = context.socket(kind)
        sender.setsockopt(zmq.SNDHWM, 0)
        sender.setsockopt(zmq.LINGER, 20_000)
        sender.connect(endpoint)
        for parts in frames:
            sender.send_multipart(parts)
        sender.close()
    context.term()  # when everything has been handed over
    for _, endpoint in targets:
        raw_bytes(endpoint.removeprefix("ipc://"))
    for address in endpoints["prometheus"].values():
        for text in (
            b"\x00" * 100,
            b"POST /metrics HTTP/1.1\r\n\r\n",
            b"GET /../../etc HTTP/9\r\n\r\n",
        ):
            with socket.create_connection(address.split(":"), timeout=2) as http:
                http.sendall(text)

    refused = partial(pipeline.total, "supervisor", "control_frames_invalid_total")
    until(lambda: refused() > FRAMES * 0.9, "control frames counted", 20)
    until(
        lambda: pipeline.total("forwarder", "forwarder_invalid_total") > FRAMES * 0.9, "metrics", 20
    )
    drained(pipeline).first(is_live("orderbook", "BTCUSDT"))
    until(lambda: pipeline.http("/readyz")[0] == 200, "ready", 5)
    while listener.poll(0):
        listener.recv()
    assert listener.poll(5_000), "a listener was cut off"
    listeners.destroy(linger=0)
    assert pids == {child: pipeline.pid(child) for child in CHILDREN}
    for child, pid in pids.items():
        grown = (psutil.Process(pid).memory_info().rss - memory[child]) / 1e6
        assert grown < 60, f"{child} grew by {grown:.0f} MB"


def raw_bytes(path: str) -> None:
    """Send bytes that are not ZeroMQ."""
    chance = random.Random(3)
    for _ in range(50):
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(path)
            with contextlib.suppress(BrokenPipeError):
                stream.sendall(chance.randbytes(300))
