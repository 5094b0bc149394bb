"""What the clients say when messages stop, are read late, or belong to another process."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from bybit_pipeline import AsyncPipelineClient, PipelineClient
from bybit_pipeline.shared.client.base import BaseClient
from bybit_pipeline.shared.client.publish_times import SPAN_S, PublishTimes
from bybit_pipeline.shared.client.queues import ThreadQueue
from bybit_pipeline.shared.wire.overdue import without_numbers
from tests.shared.client.pipeline import DEADLINE_S, ForwarderRig, Relay, until

BTC = "orderbook.linear.BTCUSDT"
TRADES = "trades.linear.BTCUSDT"
LIMIT_S = 2.0
CAUGHT_UP_S = 20.0
"""Time for a program on a busy machine to read everything that waits for it."""
PROCESS = "process.trades-0"


@pytest.fixture
def relay(pipeline: ForwarderRig) -> Iterator[Relay]:
    """A way to the forwarder that can hang like the forwarder itself."""
    with contextlib.closing(Relay(pipeline.endpoint)) as relay:
        yield relay


def publish(pipeline: ForwarderRig, seq: int) -> None:
    """Publish one message of every kind."""
    pipeline.publish_trades(seq=seq, state="live")
    pipeline.publish_book(seq=seq)
    pipeline.publish(PROCESS, seq, state="up")
    pipeline.publish("gap.linear.BTCUSDT", seq, event="opened")


def has_numbers(client: BaseClient) -> bool:
    """True if the client believes the last messages."""
    snapshot = client.get_snapshot("BTCUSDT")
    answers = {
        client.get_tpm("BTCUSDT") is not None,
        client.get_tps("BTCUSDT") is not None,
        client.get_imbalance("BTCUSDT") is not None,
        client.get_densities("BTCUSDT") is not None,
        snapshot is not None and snapshot.state == "live" and snapshot.best_bid is not None,
        client.get_message(PROCESS) is not None,
    }
    return answers == {True}


def assert_nothing_is_current(client: BaseClient) -> None:
    snapshot = client.get_snapshot("BTCUSDT")
    assert snapshot is not None
    assert ("stale", "no_messages") == (snapshot.state, snapshot.reason)
    assert ((), None, None) == (snapshot.bids, snapshot.best_bid, snapshot.mid_price)
    for window in ("10s", "60s"):
        assert client.get_tpm("BTCUSDT", window) is None
        assert client.get_coverage_s("BTCUSDT", window) is None
    assert client.get_tps("BTCUSDT") is None
    assert client.get_imbalance("BTCUSDT") is None
    assert client.get_aggregated_depth("BTCUSDT", "bid", 10) is None
    assert client.get_densities("BTCUSDT") is None
    for topic in (BTC, TRADES):
        message = client.get_message(topic)
        assert message is not None
        assert ("stale", "no_messages") == (message["state"], message["reason"])
    assert client.get_message(PROCESS) is None
    assert client.get_message("gap.linear.BTCUSDT") is not None, "events stay"
    assert (False, None) == (client.connected, client.source)


def test_a_pipeline_that_hangs_is_noticed_in_time_and_so_is_its_return(
    pipeline: ForwarderRig, relay: Relay
) -> None:
    """The connection stays open: only the missing messages show it."""
    with PipelineClient(relay.endpoint) as client:
        until(lambda: client.connected and pipeline.status("subscriptions") >= 2)
        publish(pipeline, 1)
        until(lambda: has_numbers(client))

        relay.is_forwarding.clear()
        began = time.monotonic()
        until(lambda: not client.connected)

        assert time.monotonic() - began <= LIMIT_S
        assert_nothing_is_current(client)
        late = dict(client.messages(0.01))
        assert "stale" == late[BTC]["state"], "an iteration begins with what is known now"
        relay.is_forwarding.set()
        publish(pipeline, 2)
        until(lambda: client.connected and has_numbers(client))


def test_the_client_for_asyncio_notices_it_too(pipeline: ForwarderRig, relay: Relay) -> None:
    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.005)

    async def scenario() -> None:
        async with AsyncPipelineClient(relay.endpoint) as client:
            await wait(lambda: client.connected and pipeline.status("subscriptions") >= 2)
            publish(pipeline, 1)
            await wait(lambda: has_numbers(client))
            relay.is_forwarding.clear()
            began = time.monotonic()
            await wait(lambda: not client.connected)
            assert time.monotonic() - began <= LIMIT_S
            assert_nothing_is_current(client)
            relay.is_forwarding.set()
            publish(pipeline, 2)
            await wait(lambda: client.connected and has_numbers(client))

    asyncio.run(scenario())


def test_one_silent_topic_is_stale_while_others_are_not(pipeline: ForwarderRig) -> None:
    with PipelineClient(pipeline.endpoint) as client:
        until(lambda: client.connected and pipeline.status("subscriptions") >= 2)
        publish(pipeline, 1)
        until(lambda: has_numbers(client))
        seq = 1

        def is_stale() -> bool:
            nonlocal seq
            seq += 1
            pipeline.publish_book(seq=seq)
            return client.get_tps("BTCUSDT") is None

        until(is_stale)

        assert client.get_imbalance("BTCUSDT") is not None
        assert client.connected


def test_a_client_of_a_quiet_market_is_connected_while_the_pipeline_lives(
    pipeline: ForwarderRig,
) -> None:
    """It also receives a topic that every pipeline publishes, and does not show it."""
    with PipelineClient(pipeline.endpoint) as client:
        client.subscribe("NOSUCHUSDT")
        until(lambda: client.connected)
        began, seq = time.monotonic(), 0
        while time.monotonic() - began < 1.2 * LIMIT_S:
            seq += 1
            pipeline.publish("process.forwarder", seq)
            assert client.connected
            threading.Event().wait(0.1)
        assert [] == client.topics()


READER = """
import json, sys, time
from bybit_pipeline import PipelineClient
with PipelineClient(sys.argv[1]) as client:
    while True:
        at = time.time()  # before the question: the program may be suspended right after it
        snapshot = client.get_snapshot("BTCUSDT")
        if snapshot is not None:
            line = [at, snapshot.state, snapshot.best_bid]
            print(json.dumps(line), flush=True)
        time.sleep(0.002)
"""


def test_a_client_that_was_suspended_does_not_take_old_messages_for_new(
    pipeline: ForwarderRig,
) -> None:
    """While it stood still, messages piled up in its queue."""
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, pipeline.endpoint], stdout=subprocess.PIPE, text=True
    )
    lines: list[Any] = []
    assert reader.stdout is not None
    stdout = reader.stdout
    thread = threading.Thread(target=lambda: lines.extend(map(json.loads, stdout)))
    thread.start()
    try:
        until(lambda: pipeline.status("subscriptions"))
        seqs = count(1)

        def publish_until(is_over: Callable[[float], bool]) -> None:
            began = time.monotonic()
            while not is_over(time.monotonic() - began):
                pipeline.publish_book(seq=next(seqs), best_bid=time.time())
                threading.Event().wait(0.001)

        publish_until(lambda s: s > CAUGHT_UP_S or (bool(lines) and "live" == lines[-1][1]))
        reader.send_signal(signal.SIGSTOP)
        publish_until(lambda seconds: seconds > 3.0)
        before = len(lines)
        reader.send_signal(signal.SIGCONT)
        publish_until(
            lambda seconds: (
                seconds > CAUGHT_UP_S
                or (len(lines) > before and "live" == lines[-1][1] and seconds > 0.5)
            )
        )
    finally:
        reader.kill()
        reader.wait()
        thread.join()

    ages = [at - bid for at, state, bid in lines if state == "live"]
    assert max(ages) <= LIMIT_S
    assert "live" == lines[-1][1], "it caught up"
    assert "stale" in {state for _, state, _ in lines}


def forked(client: PipelineClient, work: Callable[[PipelineClient], Any]) -> Any:
    """The result of some work in a forked child."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with os.fdopen(writer, "w") as out:
            try:
                json.dump(work(client), out)
            except BaseException as error:
                json.dump(repr(error), out)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return json.loads(text)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_no_numbers_of_its_parent_and_may_open_the_client_again(
    pipeline: ForwarderRig,
) -> None:
    def at_once(client: PipelineClient) -> Any:
        snapshot = client.get_snapshot("BTCUSDT")
        return [client.connected, client.get_tps("BTCUSDT"), snapshot and snapshot.state]

    def opened_again(client: PipelineClient) -> Any:
        client.open()
        until(lambda: client.get_tps("BTCUSDT") is not None)
        answer = [client.connected, client.get_tps("BTCUSDT")]
        client.close()
        return answer

    with PipelineClient(pipeline.endpoint) as client:
        until(lambda: client.connected and pipeline.status("subscriptions") >= 2)
        publish(pipeline, 1)
        until(lambda: has_numbers(client))

        assert [False, None, "stale"] == forked(client, at_once)
        assert [True, 0.5] == forked(client, opened_again)
        with client._state.lock:  # as if the fork happened while the reader worked
            assert "the client is not open" in forked(client, lambda c: next(c.messages(1)))
        assert client.connected, "the parent goes on"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_iteration_of_the_parent_has_ended_in_a_forked_child(pipeline: ForwarderRig) -> None:
    """Even if the fork happened while the reader added a message."""
    with PipelineClient(pipeline.endpoint) as client:
        until(lambda: client.connected and pipeline.status("subscriptions") >= 2)
        iteration = client.messages()
        publish(pipeline, 1)
        next(iteration)
        publish(pipeline, 2)
        until(lambda: any(queue._waiting for queue in client._state._queues))
        [waiting] = client._state._queues
        assert isinstance(waiting, ThreadQueue)
        with waiting._changed:
            assert [] == forked(client, lambda _: list(iteration))
        assert next(iteration).payload["seq"], "the parent goes on"


def test_a_message_without_numbers_keeps_its_names_and_times() -> None:
    message = {
        "kind": "trades",
        "symbol": "BTCUSDT",
        "epoch": "a",
        "seq": 7,
        "recv_ts_ns": 5,
        "state": "live",
        "reason": None,
        "last_price": 1.5,
        "windows": {"60s": {"tpm": 4.0, "coverage_s": 60.0}},
        "bids": [[1.0, 2.0]],
    }

    assert {
        "kind": "trades",
        "symbol": "BTCUSDT",
        "epoch": "a",
        "seq": 7,
        "recv_ts_ns": 5,
        "state": "stale",
        "reason": "no_messages",
        "last_price": None,
        "windows": {"60s": {"tpm": None, "coverage_s": None}},
        "bids": [],
    } == without_numbers(message)


def test_the_age_of_a_message_does_not_depend_on_the_difference_of_the_clocks() -> None:
    """The pipeline's clock is an hour ahead; the second and fourth message are late."""
    times, ahead_s = PublishTimes(), 3600.0

    ages = [
        now - times.on_own_clock(int((now - delay_s + ahead_s) * 1e9), now)
        for now, delay_s in ((100.0, 0.0), (106.0, 5.0), (107.0, 0.0), (140.0, 33.0), (141.0, 0.0))
    ]

    assert [0.0, 5.0, 0.0, 33.0, 0.0] == [round(age, 3) for age in ages]


def test_a_pipeline_whose_clock_was_set_back_is_believed_again_after_a_while() -> None:
    times = PublishTimes()
    times.on_own_clock(1_000_000_000_000, 100.0)

    for now in range(101, 102 + int(2 * SPAN_S)):
        at = times.on_own_clock((now + 800) * 1_000_000_000, float(now))

    assert now == at


def test_a_message_without_a_time_counts_from_its_arrival() -> None:
    assert 7.0 == PublishTimes().on_own_clock(None, 7.0)
