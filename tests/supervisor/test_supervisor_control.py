"""Control messages and requests that a real supervisor receives, good ones and hostile ones."""

import json
import re
from collections import Counter
from typing import Any

import msgpack
import psutil
import pytest
import zmq

from tests.supervisor.conftest import CHILDREN, Start


def test_a_resync_request_reaches_the_connector_of_the_topic(start_pipeline: Start) -> None:
    pipeline = start_pipeline(behaviour={"orderbook-0": {"resync": "book.linear.ETHUSDT"}})
    pipeline.wait_up()

    commands = pipeline.wait_for_commands("connector-linear-0")
    assert {"type": "resync", "topic": "book.linear.ETHUSDT", "reason": "gap"} == commands[0]


def test_a_new_market_reaches_its_workers_and_its_connector(pipeline: Any) -> None:
    result = pipeline.ask("subscribe", markets=["linear:SOLUSDT"])

    assert ["publicTrade.SOLUSDT", "orderbook.50.SOLUSDT"] == [
        entry["topic"] for entry in result["topics"]
    ]
    [command] = pipeline.wait_for_commands("connector-linear-0")
    assert ("subscribe", ["SOLUSDT", "SOLUSDT"]) == (
        command["type"],
        [stream["symbol"] for stream in command["streams"]],
    )
    assert ["assign"] == [c["type"] for c in pipeline.wait_for_commands("trades-0")]
    commands = pipeline.wait_for_commands("orderbook-0", 2)
    assert ["assign", "assign"] == [command["type"] for command in commands]


def test_markets_beyond_a_socket_start_a_connector_and_stop_it_again(start_pipeline: Start) -> None:
    pipeline = start_pipeline(tables={"connector": {"topics_per_socket": 4}})
    pipeline.wait_up()

    pipeline.ask("subscribe", markets=["linear:SOLUSDT", "spot:BTCUSDT"])

    new = {"connector-linear-1", "connector-spot-0"}
    pipeline.wait_for(
        lambda: (
            new <= set(json.loads((pipeline.run_dir / "endpoints.json").read_text())["market"])
            and all(pipeline.process_entry(name)["state"] == "up" for name in new)
        )
    )
    pipeline.ask("unsubscribe", markets=["linear:SOLUSDT", "spot:BTCUSDT"])
    pipeline.wait_for(lambda: len(pipeline.children()) == len(CHILDREN))
    assert CHILDREN | {"supervisor"} == {e["process"] for e in pipeline.status()["processes"]}
    commands = pipeline.wait_for_commands("trades-0", 4)
    unassigned = [c["topic"] for c in commands if c["type"] == "unassign"]
    assert ["trade.linear.SOLUSDT", "trade.spot.BTCUSDT"] == unassigned


def test_a_connector_that_is_needed_again_starts_after_its_predecessor_has_ended(
    start_pipeline: Start,
) -> None:
    """Both have the same socket file and the same name on the control plane."""
    pipeline = start_pipeline(
        behaviour={"connector-linear-0": {"ignore_sigterm": True}}, timing={"leave_s": 0.5}
    )
    pipeline.wait_up()
    first = psutil.Process(pipeline.process_entry("connector-linear-0")["pid"])
    pipeline.ask("unsubscribe", markets=["linear:BTCUSDT", "linear:ETHUSDT"])
    assert not pipeline.process_entry("connector-linear-0")

    pipeline.ask("subscribe", markets=["linear:SOLUSDT"])

    entry = pipeline.wait_for(lambda: _if(pipeline.process_entry("connector-linear-0"), "pid"))
    assert not first.is_running()
    assert entry["pid"] != first.pid


def test_a_child_receives_what_changed_while_it_was_starting(start_pipeline: Start) -> None:
    """A connector that starts while markets change gets the new ones in or after its spec."""
    pipeline = start_pipeline(behaviour={"connector-linear-0": {"never_ready": 1.0}})
    pipeline.wait_for(lambda: (pipeline.run_dir / "connector-linear-0.json").exists())

    pipeline.ask("subscribe", markets=["linear:SOLUSDT"])

    pipeline.wait_up()
    commands = pipeline.wait_for_commands("connector-linear-0")
    assert ["subscribe"] == [command["type"] for command in commands]


@pytest.mark.parametrize(
    ("command", "markets", "error"),
    [
        ("subscribe", ["linear"], "'linear' is not a market"),
        ("subscribe", ["margin:BTCUSDT"], "is not a market"),
        ("subscribe", "linear:BTCUSDT", "subscribe has a list of markets"),
        ("unsubscribe", ["linear:DOGEUSDT"], "linear:DOGEUSDT is not subscribed"),
        ("explode", [], "unknown command 'explode'"),
    ],
)
def test_a_wrong_request_is_rejected_and_changes_nothing(
    steady_pipeline: Any, command: str, markets: Any, error: str
) -> None:
    with pytest.raises(Exception, match=re.escape(error)):
        steady_pipeline.ask(command, markets=markets)

    assert steady_pipeline.status()["ready"]


def test_hostile_control_frames_are_counted_and_ignored(steady_pipeline: Any) -> None:
    before = _invalid_frames(steady_pipeline)
    with zmq.Context() as context, context.socket(zmq.DEALER) as hostile:
        hostile.setsockopt(zmq.LINGER, 1000)
        hostile.connect(f"ipc://{steady_pipeline.run_dir}/control.ipc")
        hostile.send_multipart([b"one", b"two"])
        hostile.send(b"")
        hostile.send(b"\xc1not msgpack")
        hostile.send(b"\x81\xa4type\x07")
        hostile.send(b"\x82\xa4type\xa5ready\xa7process\xa8trades-0")
        hostile.send(b"\x81\xa4type\xa7request")
        hostile.send(b"\x82\xa4type\xa7request\xa7command\xa6status")
        hostile.send(msgpack.packb({"type": "request", "id": 1, "command": 5}))
    with zmq.Context() as context, context.socket(zmq.DEALER) as impostor:
        impostor.setsockopt(zmq.LINGER, 1000)
        impostor.setsockopt(zmq.ROUTING_ID, b"nobody-7")
        impostor.connect(f"ipc://{steady_pipeline.run_dir}/control.ipc")
        for status in ([1], 7, {"topics": 5}, {"books": {"live": "all"}}):
            beat = {"type": "heartbeat", "process": "nobody-7", "status": status}
            impostor.send(msgpack.packb(beat))
        for kind in ("ready", "resync"):
            impostor.send(msgpack.packb({"type": kind, "process": "nobody-7", "topic": [1]}))

    steady_pipeline.wait_for(
        lambda: sum((_invalid_frames(steady_pipeline) - before).values()) == 12,
    )
    assert (
        Counter(frames=1, unreadable=2, type=1, sender=1, content=7)
        == _invalid_frames(steady_pipeline) - before
    )
    assert steady_pipeline.status()["ready"]


def test_a_child_with_an_unusable_status_is_not_restarted(start_pipeline: Start) -> None:
    """The heartbeat is a sign of life; the status is dropped and counted."""
    pipeline = start_pipeline(
        behaviour={"orderbook-0": {"status": {"books": {"live": "all"}}}}, timing={"hung_s": 1.0}
    )
    pipeline.wait_up()

    pipeline.wait_for(lambda: _invalid_frames(pipeline)["content"] >= 15)

    entry = pipeline.process_entry("orderbook-0")
    assert 0 == entry["restarts"]
    assert "books" not in entry["counts"]
    assert 1 == pipeline.log.read_text().count("heartbeat with an unusable status")


def _invalid_frames(pipeline: Any) -> Counter[str]:
    _, text = pipeline.page("/metrics")
    found = re.findall(r'control_frames_invalid_total{reason="(\w+)"} (\S+)', text)
    return Counter({reason: int(float(value)) for reason, value in found})


def _if(entry: dict[str, Any], key: str) -> dict[str, Any] | None:
    return entry if entry and entry[key] else None
