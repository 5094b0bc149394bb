"""Messages that ``tail`` takes from a running pipeline."""

import json
import os
import threading
from itertools import islice
from pathlib import Path

import pytest
import zmq

from bybit_pipeline.shared.errors import NoPipelineError
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.supervisor.cli.tail import tail, wait_for_endpoints
from bybit_pipeline.supervisor.interrupts import Interrupts

DEADLINE_S = 5.0


def make_run_dir(directory: Path, pid: int, metrics: str) -> str:
    """The run directory of a pipeline; this process holds it."""
    (directory / "lock").write_text(f"{os.getpid()}\n")
    (directory / "endpoints.json").write_text(json.dumps({"pid": pid, "metrics": metrics}))
    return str(directory)


def publish(socket: "zmq.Socket[bytes]", messages: list[tuple[str, int]]) -> None:
    """Send messages, given as topic and ``seq``, once somebody has subscribed."""
    assert socket.poll(int(DEADLINE_S * 1000))
    socket.recv()
    for topic, seq in messages:
        payload = codec.encode_map({"epoch": "e", "seq": seq})
        socket.send_multipart([topic.encode(), payload])


def test_messages_with_the_prefix_arrive_without_repeats(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.XPUB)
    socket.bind("tcp://127.0.0.1:*")
    endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
    run_dir = make_run_dir(tmp_path, os.getpid(), endpoint)
    trades = [("trades.linear.A", 1), ("trades.linear.A", 1), ("trades.spot.B", 7)]
    messages = [("orderbook.linear.A", 1), *trades, ("trades.linear.A", 2)]
    thread = threading.Thread(target=publish, args=(socket, messages))
    thread.start()

    with Interrupts() as interrupts:
        found = tail(run_dir, "trades.", interrupts, timeout_s=DEADLINE_S)
        received = list(islice(found, 3))

    thread.join()
    context.destroy(linger=0)
    assert [("trades.linear.A", 1), ("trades.spot.B", 7), ("trades.linear.A", 2)] == [
        (topic, payload["seq"]) for topic, payload in received
    ]


def test_endpoints_of_a_killed_pipeline_are_ignored(tmp_path: Path) -> None:
    run_dir = make_run_dir(tmp_path, 1, "tcp://old")

    with Interrupts() as interrupts, pytest.raises(NoPipelineError, match="not up yet"):
        wait_for_endpoints(run_dir, interrupts, within_s=0.0)


def test_endpoints_of_a_running_pipeline_are_found(tmp_path: Path) -> None:
    run_dir = make_run_dir(tmp_path, os.getpid(), "tcp://x")

    with Interrupts() as interrupts:
        endpoints = wait_for_endpoints(run_dir, interrupts, within_s=0.0)
    assert "tcp://x" == endpoints["metrics"]
