"""The client for asyncio, against a real forwarder."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import zmq

from bybit_pipeline import AsyncPipelineClient
from bybit_pipeline.shared.client import Metric
from bybit_pipeline.shared.client.queues import MAX_WAITING
from bybit_pipeline.shared.errors import NoPipelineError
from bybit_pipeline.shared.settings.curve_keys import make_client_keys, make_server_keys
from bybit_pipeline.shared.wire.codec import encode_bundle
from tests.shared.client.pipeline import DEADLINE_S, TICK_S, ForwarderRig
from tests.shared.client.pipeline import until as block_until

BTC, ETH = "trades.linear.BTCUSDT", "trades.linear.ETHUSDT"


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario in an event loop of its own."""
    asyncio.run(asyncio.wait_for(scenario, 3 * DEADLINE_S))


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop run until a condition is true."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(TICK_S)


async def take(client: AsyncPipelineClient, count: int) -> list[Metric]:
    """The first messages of a new iteration."""
    iteration = client.messages(DEADLINE_S)
    return [await anext(iteration) for _ in range(count)]


@contextlib.asynccontextmanager
async def connected(pipeline: ForwarderRig) -> AsyncIterator[AsyncPipelineClient]:
    """A client whose subscription has reached the pipeline."""
    async with AsyncPipelineClient(pipeline.endpoint) as client:
        await until(lambda: client.connected and pipeline.status("subscriptions"))
        yield client


def test_getters_return_the_last_values(pipeline: ForwarderRig) -> None:
    async def scenario() -> None:
        async with connected(pipeline) as client:
            pipeline.publish_trades()
            pipeline.publish_book()
            await take(client, 2)
            assert 4.0 == client.get_tpm("BTCUSDT", "60s")
            assert 0.5 == client.get_tps("BTCUSDT")
            assert 0.5 == client.get_imbalance("BTCUSDT")
            snapshot = client.get_snapshot("BTCUSDT")
            assert snapshot is not None
            assert ("live", 100.5) == (snapshot.state, snapshot.mid_price)
            assert client.get_snapshot("ETHUSDT") is None
            assert ("sim", 0) == (client.source, client.lost)
            assert ["orderbook.linear.BTCUSDT", BTC] == sorted(client.topics())

    run(scenario())


def test_a_late_client_gets_the_last_values(pipeline: ForwarderRig) -> None:
    async def scenario() -> None:
        pipeline.publish_trades(seq=41)
        pipeline.publish_trades(seq=42)
        await until(lambda: pipeline.status("messages") == 2)
        async with AsyncPipelineClient(pipeline.endpoint) as late:
            [metric] = await take(late, 1)
            assert 42 == metric.payload["seq"]
            assert 0 == late.lost

    run(scenario())


def test_iterating_the_client_yields_every_message_in_order(pipeline: ForwarderRig) -> None:
    async def scenario() -> None:
        async with connected(pipeline) as client:
            pipeline.publish_many(BTC, range(1, 1001))
            received = []
            async for topic, payload in client:
                received.append((topic, payload["seq"]))
                if len(received) == 1000:
                    break
            assert [(BTC, seq) for seq in range(1, 1001)] == received

    run(scenario())


def test_subscribing_narrows_the_client_to_exactly_that_symbol(pipeline: ForwarderRig) -> None:
    async def scenario() -> None:
        async with connected(pipeline) as client:
            pipeline.publish_trades("ETHUSDT")
            pipeline.publish_trades("BTCUSDTPERP")
            await take(client, 2)
            client.subscribe("BTCUSDT")
            assert client.get_tpm("ETHUSDT") is None
            for symbol in ("ETHUSDT", "BTCUSDTPERP", "BTCUSDT"):
                pipeline.publish_trades(symbol, seq=2)
            assert [BTC] == [metric.topic for metric in await take(client, 1)]
            assert client.get_tpm("BTCUSDTPERP") is None

    run(scenario())


def test_an_unsubscribed_symbol_is_forgotten(pipeline: ForwarderRig) -> None:
    async def scenario() -> None:
        async with AsyncPipelineClient(pipeline.endpoint) as client:
            client.subscribe("BTCUSDT")
            client.subscribe("ETHUSDT")
            pipeline.publish_trades("BTCUSDT")
            pipeline.publish_trades("ETHUSDT")
            await take(client, 2)
            client.unsubscribe("BTCUSDT")
            assert client.get_tpm("BTCUSDT") is None
            pipeline.publish_trades("BTCUSDT", seq=2)
            pipeline.publish_trades("ETHUSDT", seq=2)
            iteration = client.messages(DEADLINE_S)
            assert [(ETH, 1), (ETH, 2)] == [
                (metric.topic, metric.payload["seq"])
                for metric in (await anext(iteration), await anext(iteration))
            ]

    run(scenario())


def test_subscriptions_made_before_opening_take_effect(pipeline: ForwarderRig) -> None:
    async def scenario() -> None:
        client = AsyncPipelineClient(pipeline.endpoint)
        client.subscribe("BTCUSDT")
        async with client:
            pipeline.publish_trades("ETHUSDT")
            pipeline.publish_trades("BTCUSDT")
            assert [BTC] == [metric.topic for metric in await take(client, 1)]

    run(scenario())


def test_missed_messages_are_counted_and_repeats_skipped(pipeline: ForwarderRig) -> None:
    async def scenario() -> None:
        async with connected(pipeline) as client:
            iteration = client.messages(DEADLINE_S)
            pipeline.publish_trades(seq=5)
            assert 5 == (await anext(iteration)).payload["seq"]
            async with AsyncPipelineClient(pipeline.endpoint) as other:
                await take(other, 1)
                await until(lambda: pipeline.status("repeats") == 1)
                pipeline.publish_trades(seq=9)
                assert 9 == (await anext(iteration)).payload["seq"]
                await until(lambda: other.lost > 0)
            assert (3, 3) == (client.lost, other.lost)

    run(scenario())


def test_an_undecodable_message_is_counted(pipeline: ForwarderRig) -> None:
    async def scenario() -> None:
        async with connected(pipeline) as client:
            raw = pipeline.context.socket(zmq.PUSH)
            raw.connect(pipeline.forwarder.spec.metrics_in)
            raw.send(encode_bundle([BTC.encode(), b"\x81"]))
            await until(lambda: client.invalid == 1)
            raw.close(linger=0)

    run(scenario())


def test_a_burst_leaves_the_event_loop_to_other_tasks(pipeline: ForwarderRig) -> None:
    async def scenario() -> None:
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with connected(pipeline) as client:
            iteration = client.messages(DEADLINE_S)
            pipeline.publish_many(BTC, range(1, 5001))
            block_until(lambda: pipeline.status("messages") == 5000)
            other = asyncio.create_task(count_turns())
            assert 5000 == len([await anext(iteration) for _ in range(5000)])
            other.cancel()
            assert turns > 10

    run(scenario())


def test_an_iteration_ends_at_its_timeout_and_when_the_client_is_closed(
    pipeline: ForwarderRig,
) -> None:
    async def scenario() -> None:
        async with connected(pipeline) as client:
            assert [] == [metric async for metric in client.messages(0.01)]
            endless = aiter(client)
            pipeline.publish_trades()
            assert BTC == (await anext(endless)).topic
            waiting = asyncio.ensure_future(anext(endless))
            await asyncio.sleep(0)
        with pytest.raises(StopAsyncIteration):
            await waiting
        assert client.get_tpm("BTCUSDT") is None
        assert not client.connected
        with pytest.raises(RuntimeError, match="not open"):
            client.messages()
        await client.close()

    run(scenario())


def test_a_client_can_be_opened_again(pipeline: ForwarderRig) -> None:
    async def scenario() -> None:
        client = AsyncPipelineClient(pipeline.endpoint)
        for seq in (1, 2):
            async with client:
                pipeline.publish_trades(seq=seq)
                await until(lambda seq=seq: (client.get_message(BTC) or {}).get("seq") == seq)  # type: ignore[misc]

    run(scenario())


def test_a_slow_iteration_drops_the_oldest_messages_and_counts_them(
    pipeline: ForwarderRig,
) -> None:
    async def scenario() -> None:
        async with connected(pipeline) as client:
            iteration = client.messages(DEADLINE_S)
            pipeline.publish_many(BTC, range(1, MAX_WAITING + 101))
            await until(lambda: client.dropped == 100)
            assert 101 == (await anext(iteration)).payload["seq"]
            assert 0 == client.lost

    run(scenario())


def test_values_are_dropped_when_the_pipeline_stops_and_return_when_it_restarts(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        endpoint = f"ipc://{tmp_path}/metrics-out"
        async with AsyncPipelineClient(endpoint) as client:
            with contextlib.closing(ForwarderRig(tmp_path, endpoint)) as first:
                first.publish_trades(seq=3)
                await take(client, 1)
            await until(lambda: not client.connected)
            assert client.get_tpm("BTCUSDT") is None
            assert client.source is None
            with contextlib.closing(ForwarderRig(tmp_path, endpoint)) as second:
                second.publish_trades(seq=3)
                await until(lambda: client.get_tpm("BTCUSDT") == 4.0)
                second.publish_trades(seq=6)
                await until(lambda: client.lost == 2)

    run(scenario())


def test_a_refused_client_connects_once_its_key_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bybit_pipeline.shared.bus.subscriber.RETRY_REFUSED_S", 0.1)
    keys = tmp_path / "keys"
    make_server_keys(keys)
    _, handout = make_client_keys(keys, "bob")
    allowed = keys / "clients" / "bob.pub"
    allowed.rename(keys / "bob.off")

    async def scenario() -> None:
        with contextlib.closing(ForwarderRig(tmp_path, keys=keys)) as pipeline:
            async with AsyncPipelineClient(pipeline.endpoint, keys=handout) as bob:
                await until(lambda: bob.refused)
                assert not bob.connected
                (keys / "bob.off").rename(allowed)
                await until(lambda: bob.connected)
                pipeline.publish_trades()
                await take(bob, 1)

    run(scenario())


def test_the_endpoint_is_read_from_the_run_directory(
    pipeline: ForwarderRig, tmp_path: Path
) -> None:
    async def scenario() -> None:
        (tmp_path / "endpoints.json").write_text(json.dumps({"metrics": pipeline.endpoint}))
        async with AsyncPipelineClient(run_dir=tmp_path) as client:
            pipeline.publish_trades()
            assert BTC == (await take(client, 1))[0].topic

    run(scenario())


def test_opening_without_a_pipeline_names_the_run_directory(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(NoPipelineError, match=str(tmp_path)):
            await AsyncPipelineClient(run_dir=tmp_path).open()

    run(scenario())
