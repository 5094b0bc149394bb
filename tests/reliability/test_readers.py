"""How soon readers of the metrics say that the forwarder hangs or died, with real processes."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable

from bybit_pipeline import PipelineClient
from tests.system.pipeline import COMMAND, Pipeline, kill, until

LIMIT_S = 2.0
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def believed(client: PipelineClient) -> set[str]:
    """What the client still says about the markets as if it were current."""
    found = {"connected"} if client.connected else set()
    for symbol in SYMBOLS:
        snapshot = client.get_snapshot(symbol)
        if snapshot is not None and (snapshot.state == "live" or snapshot.bids):
            found.add(f"book {symbol}")
        if client.get_tps(symbol) is not None or client.get_tpm(symbol) is not None:
            found.add(f"trades {symbol}")
    return found


ALL = {"connected", *(f"{kind} {symbol}" for kind in ("book", "trades") for symbol in SYMBOLS)}


def seconds_until_nothing_is_believed(client: PipelineClient, fault: Callable[[], None]) -> float:
    until(lambda: believed(client) == ALL, "numbers")
    fault()
    began = time.monotonic()
    until(lambda: not believed(client), "nothing is believed")
    return time.monotonic() - began


def test_a_client_notices_a_hung_forwarder(shared: Pipeline) -> None:
    pid = shared.pid("forwarder")
    with PipelineClient(run_dir=shared.run_dir) as client, contextlib.ExitStack() as stack:
        stack.callback(os.kill, pid, signal.SIGCONT)

        took = seconds_until_nothing_is_believed(client, lambda: os.kill(pid, signal.SIGSTOP))

        assert took <= LIMIT_S
        stack.close()
        until(lambda: believed(client) == ALL, "numbers again")


def test_a_client_notices_a_killed_forwarder(shared: Pipeline) -> None:
    pid = shared.pid("forwarder")
    with PipelineClient(run_dir=shared.run_dir) as client:
        took = seconds_until_nothing_is_believed(client, lambda: kill(pid))

        assert took <= LIMIT_S
        until(lambda: believed(client) == ALL, "numbers again")


def test_tail_says_that_nothing_is_published_any_more(shared: Pipeline) -> None:
    """Also for topics that may be quiet for long: no message of any kind arrives."""
    pid = shared.pid("forwarder")
    tail = subprocess.Popen(
        [*COMMAND, "tail", "trades.linear.BTCUSDT", "--run-dir", str(shared.run_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tail.stdout is not None
    assert tail.stderr is not None
    try:
        assert json.loads(tail.stdout.readline())["topic"] == "trades.linear.BTCUSDT"
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        try:
            assert "no messages" in tail.stderr.readline()
            assert time.monotonic() - began <= LIMIT_S
        finally:
            os.kill(pid, signal.SIGCONT)
        assert "messages again" in tail.stderr.readline()
    finally:
        tail.kill()
        tail.communicate()
