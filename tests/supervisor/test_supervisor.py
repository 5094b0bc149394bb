"""A real supervisor and real children that crash, hang, refuse to stop, or behave."""

import itertools
import json
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import psutil
import pytest
import zmq
from websockets.sync.server import Server, ServerConnection, serve

from bybit_pipeline.supervisor.children.timing import Timing
from tests.supervisor.source.test_instruments_client import server

Start = Callable[..., Any]
"""Starts a pipeline of fake children; see ``conftest.Pipeline``."""

CHILDREN = {"forwarder", "trades-0", "orderbook-0", "connector-linear-0"}


@pytest.fixture
def pipeline(start_pipeline: Start) -> Any:
    """A pipeline with everything up."""
    started = start_pipeline()
    started.wait_up()
    return started


# -- starting and stopping ---------------------------------------------------------------------


def test_endpoints_are_written_when_everything_is_up(steady_pipeline: Any) -> None:
    endpoints = json.loads((steady_pipeline.run_dir / "endpoints.json").read_text())

    assert steady_pipeline.process.pid == endpoints["pid"]
    assert "live" == endpoints["source"]
    assert {"connector-linear-0": f"ipc://{steady_pipeline.run_dir}/linear-0.ipc"} == endpoints[
        "market"
    ]
    assert CHILDREN | {"supervisor"} == set(endpoints["prometheus"])
    assert {"up"} == {entry["state"] for entry in steady_pipeline.status()["processes"]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_leaves_no_child_and_no_file(pipeline: Any, number: int) -> None:
    children = pipeline.children()
    assert len(CHILDREN) == len(children)

    pipeline.process.send_signal(number)

    assert 0 == pipeline.process.wait(10)

    assert not any(child.is_running() for child in children)
    assert not pipeline.run_dir.exists()


def test_a_stop_leaves_what_is_not_ours(start_pipeline: Start, tmp_path: Path) -> None:
    run_dir = tmp_path / "mine"
    run_dir.mkdir(mode=0o700)
    (run_dir / "notes.txt").write_text("keep")
    pipeline = start_pipeline(run_dir=run_dir)
    pipeline.wait_up()

    pipeline.stop()

    assert ["notes.txt"] == [entry.name for entry in run_dir.iterdir()]


def test_children_stop_in_reverse_order(pipeline: Any) -> None:
    pipeline.stop()

    stopped = re.findall(r'"event": "stopped", "process": "([a-z]+)', pipeline.log.read_text())
    assert ["connector", "forwarder", "supervisor"] == [
        role for role in stopped if role not in ("trades", "orderbook")
    ]
    assert {"trades", "orderbook"} == set(stopped[1:3])


def test_children_that_ignore_sigterm_are_killed_in_time_and_leave_no_file(
    start_pipeline: Start, tmp_path: Path
) -> None:
    file = tmp_path / "metrics"
    file.touch()  # as a forwarder would leave it that was killed
    deaf = {name: {"ignore_sigterm": True} for name in CHILDREN}
    pipeline = start_pipeline(
        tables={"metrics": {"endpoint": f"ipc://{file}"}}, behaviour=deaf, timing={"stop_s": 0.9}
    )
    pipeline.wait_up()
    children = pipeline.children()
    began = time.monotonic()

    assert 0 == pipeline.stop()

    assert time.monotonic() - began < 2.0
    assert Timing().stop_s < 5.0
    assert not any(child.is_running() for child in children)
    assert not file.exists()


def test_a_second_signal_stops_at_once(start_pipeline: Start) -> None:
    pipeline = start_pipeline(behaviour={"connector-linear-0": {"ignore_sigterm": True}})
    pipeline.wait_up()
    children = pipeline.children()
    pipeline.process.send_signal(signal.SIGINT)
    pipeline.wait_for(lambda: "stopping" in pipeline.log.read_text())
    began = time.monotonic()

    pipeline.process.send_signal(signal.SIGINT)

    assert 0 == pipeline.process.wait(5)
    assert time.monotonic() - began < 3.0
    assert not any(child.is_running() for child in children)
    assert not pipeline.run_dir.exists()


def test_children_end_when_the_supervisor_is_killed(pipeline: Any, start_pipeline: Start) -> None:
    children = pipeline.children()

    pipeline.process.kill()

    _, alive = psutil.wait_procs(children, timeout=5)
    assert [] == alive
    pipeline.process.wait(5)
    successor = start_pipeline(run_dir=pipeline.run_dir)
    successor.wait_up()
    assert successor.process.pid == successor.status()["processes"][0]["pid"]


def test_a_second_pipeline_in_the_run_directory_is_refused(
    steady_pipeline: Any, start_pipeline: Start
) -> None:
    second = start_pipeline(run_dir=steady_pipeline.run_dir)

    assert 73 == second.process.wait(10)
    assert str(steady_pipeline.process.pid) in second.log.read_text().splitlines()[-1]
    assert steady_pipeline.status()["ready"]


def test_a_metrics_port_that_is_taken_is_refused_by_name(
    start_pipeline: Start, tmp_path: Path
) -> None:
    with zmq.Context() as context, context.socket(zmq.PUB) as holder:
        holder.bind("tcp://127.0.0.1:*")
        endpoint = holder.getsockopt_string(zmq.LAST_ENDPOINT)
        second = start_pipeline(run_dir=tmp_path / "b", tables={"metrics": {"endpoint": endpoint}})

        assert 73 == second.process.wait(10)
        last = second.log.read_text().splitlines()[-1]
    assert last.startswith(f"metrics.endpoint: {endpoint.removeprefix('tcp://')} is taken by")
    assert str(os.getpid()) in last
    assert not second.run_dir.exists()


def test_a_forwarder_that_cannot_bind_at_the_start_ends_the_pipeline(start_pipeline: Start) -> None:
    pipeline = start_pipeline(behaviour={"forwarder": {"exit": 73}})

    assert 73 == pipeline.process.wait(10)
    assert pipeline.log.read_text().splitlines()[-1].startswith("metrics.endpoint: ")


# -- restarting --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGKILL, "signal"), (signal.SIGTERM, "exit")]
)
def test_a_child_that_ends_is_restarted_and_the_others_go_on(
    steady_pipeline: Any, number: int, reason: str
) -> None:
    before = {entry["process"]: entry["pid"] for entry in steady_pipeline.status()["processes"]}

    os.kill(before["trades-0"], number)

    entry = steady_pipeline.wait_for(
        lambda: _up_again(steady_pipeline, "trades-0", before["trades-0"])
    )
    assert entry["restarts"] == sum(entry["restarts_by_reason"].values())
    assert 1 == entry["restarts_by_reason"][reason]
    after = {entry["process"]: entry["pid"] for entry in steady_pipeline.status()["processes"]}
    assert {"trades-0"} == {name for name in before if before[name] != after[name]}
    _, counters = steady_pipeline.page("/metrics")
    assert f'process_restarts_total{{process="trades-0",reason="{reason}"}} 1.0' in counters


def test_a_child_that_hangs_is_killed_and_restarted(start_pipeline: Start) -> None:
    pipeline = start_pipeline(timing={"silent_s": 1.0})
    pipeline.wait_up()
    pid = pipeline.process_entry("orderbook-0")["pid"]

    os.kill(pid, signal.SIGSTOP)

    entry = pipeline.wait_for(lambda: _up_again(pipeline, "orderbook-0", pid))
    assert {"hung": 1} == entry["restarts_by_reason"]


def test_a_child_that_is_never_ready_is_killed_and_restarted(start_pipeline: Start) -> None:
    pipeline = start_pipeline(behaviour={"trades-0": {"never_ready": 60}}, timing={"ready_s": 1.0})

    entry = pipeline.wait_for(
        lambda: _if(pipeline.run_dir.exists() and pipeline.process_entry("trades-0"), "restarts")
    )
    assert {"hung"} == set(entry["restarts_by_reason"])
    assert not (pipeline.run_dir / "endpoints.json").exists()


def test_a_crash_at_the_start_delays_readiness_only(start_pipeline: Start) -> None:
    pipeline = start_pipeline(behaviour={"connector-linear-0": {"exit": 70, "exit_times": 1}})
    pipeline.wait_up()

    assert 1 == pipeline.process_entry("connector-linear-0")["restarts"]


def test_a_bad_configuration_of_a_child_is_final_and_said(start_pipeline: Start) -> None:
    pipeline = start_pipeline(behaviour={"trades-0": {"exit": 78}})
    pipeline.wait_for(lambda: '"process failed, not restarted"' in pipeline.log.read_text())

    entry = pipeline.process_entry("trades-0")
    assert ("failed", 0, 78) == (entry["state"], entry["restarts"], entry["exit_code"])
    assert "trades-0: failed" in pipeline.status()["reasons"]
    assert 0 == pipeline.stop()


def test_workers_publish_again_when_the_forwarder_was_restarted(steady_pipeline: Any) -> None:
    pid = steady_pipeline.process_entry("forwarder")["pid"]
    metrics = steady_pipeline.status()["metrics"]

    os.kill(pid, signal.SIGKILL)

    for worker in ("trades-0", "orderbook-0"):
        assert {"type": "republish"} in steady_pipeline.wait_for(
            lambda w=worker: steady_pipeline.commands(w)
        )
    assert metrics == steady_pipeline.status()["metrics"]


# -- control plane -----------------------------------------------------------------------------


def test_a_resync_request_reaches_the_connector_of_the_topic(start_pipeline: Start) -> None:
    pipeline = start_pipeline(behaviour={"orderbook-0": {"resync": "book.linear.ETHUSDT"}})
    pipeline.wait_up()

    commands = pipeline.wait_for(lambda: pipeline.commands("connector-linear-0"))
    assert {"type": "resync", "topic": "book.linear.ETHUSDT", "reason": "gap"} == commands[0]


def test_a_new_market_reaches_its_workers_and_its_connector(pipeline: Any) -> None:
    result = pipeline.ask("subscribe", markets=["linear:SOLUSDT"])

    assert ["publicTrade.SOLUSDT", "orderbook.50.SOLUSDT"] == [
        entry["topic"] for entry in result["topics"]
    ]
    [command] = pipeline.wait_for(lambda: pipeline.commands("connector-linear-0"))
    assert ("subscribe", ["SOLUSDT", "SOLUSDT"]) == (
        command["type"],
        [stream["symbol"] for stream in command["streams"]],
    )
    assert ["assign"] == [command["type"] for command in pipeline.commands("trades-0")]
    assert ["assign", "assign"] == [c["type"] for c in pipeline.commands("orderbook-0")]


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
    unassigned = [c["topic"] for c in pipeline.commands("trades-0") if c["type"] == "unassign"]
    assert ["trade.linear.SOLUSDT", "trade.spot.BTCUSDT"] == unassigned


def test_a_connector_that_is_wanted_again_starts_after_its_predecessor_is_gone(
    start_pipeline: Start,
) -> None:
    """Both would have the same socket file and the same name on the control plane."""
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


def test_a_child_that_was_away_is_told_what_changed(start_pipeline: Start) -> None:
    """A connector that starts while markets change gets the new ones with or after its spec."""
    pipeline = start_pipeline(behaviour={"connector-linear-0": {"never_ready": 1.0}})
    pipeline.wait_for(lambda: (pipeline.run_dir / "connector-linear-0.json").exists())

    pipeline.ask("subscribe", markets=["linear:SOLUSDT"])

    pipeline.wait_up()
    assert ["subscribe"] == [
        c["type"] for c in pipeline.wait_for(lambda: pipeline.commands("connector-linear-0"))
    ]


@pytest.mark.parametrize(
    ("command", "markets", "says"),
    [
        ("subscribe", ["linear"], "'linear' is not a market"),
        ("subscribe", ["margin:BTCUSDT"], "is not a market"),
        ("subscribe", "linear:BTCUSDT", "subscribe has a list of markets"),
        ("unsubscribe", ["linear:DOGEUSDT"], "linear:DOGEUSDT is not subscribed"),
        ("explode", [], "unknown command 'explode'"),
    ],
)
def test_a_wrong_request_is_refused_and_changes_nothing(
    steady_pipeline: Any, command: str, markets: Any, says: str
) -> None:
    with pytest.raises(Exception, match=re.escape(says)):
        steady_pipeline.ask(command, markets=markets)

    assert steady_pipeline.status()["ready"]


def test_hostile_control_frames_are_counted_and_ignored(steady_pipeline: Any) -> None:
    before = _refused(steady_pipeline)
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
        lambda: sum((_refused(steady_pipeline) - before).values()) == 12,
    )
    assert (
        Counter(frames=1, unreadable=2, type=1, sender=1, content=7)
        == _refused(steady_pipeline) - before
    )
    assert steady_pipeline.status()["ready"]


def test_a_child_whose_status_is_nonsense_lives_on(start_pipeline: Start) -> None:
    """The beat counts as life, the nonsense is dropped and counted."""
    pipeline = start_pipeline(
        behaviour={"orderbook-0": {"status": {"books": {"live": "all"}}}}, timing={"silent_s": 1.0}
    )
    pipeline.wait_up()

    pipeline.wait_for(lambda: _refused(pipeline)["content"] >= 15)

    entry = pipeline.process_entry("orderbook-0")
    assert 0 == entry["restarts"]
    assert "books" not in entry["counts"]
    assert 1 == pipeline.log.read_text().count("heartbeat with an unusable status")


def _refused(pipeline: Any) -> Counter[str]:
    _, text = pipeline.page("/metrics")
    found = re.findall(r'control_frames_invalid_total{reason="(\w+)"} (\S+)', text)
    return Counter({reason: int(float(value)) for reason, value in found})


# -- source ------------------------------------------------------------------------------------


def _answer_pings(connection: ServerConnection) -> None:
    for message in connection:
        if json.loads(message).get("op") == "ping":
            connection.send('{"success":true,"ret_msg":"pong","op":"ping"}')


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens yet, held so that nobody else takes it."""
    import socket

    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


AUTO = {"connector": {"fallback_after_s": 0.5, "backoff_initial_s": 0.1, "backoff_max_s": 0.2}}


def test_auto_falls_back_at_start_and_changes_over_when_the_exchange_answers(
    start_pipeline: Start, closed_port: int
) -> None:
    url = f"ws://127.0.0.1:{closed_port}/v5/public/{{category}}"
    pipeline = start_pipeline(
        tables={"source": "auto", "url": url, **AUTO},
        behaviour={"simulator": {"websocket": "ws://127.0.0.1:1/v5/public/{category}"}},
    )
    pipeline.wait_up()
    assert "live" == pipeline.status()["source"]

    pipeline.wait_for(lambda: pipeline.status()["source"] == "sim")
    [command] = pipeline.wait_for(lambda: pipeline.commands("connector-linear-0"))
    assert {
        "type": "source",
        "source": "sim",
        "url": "ws://127.0.0.1:1/v5/public/linear",
    } == command
    assert "SIMULATED" in pipeline.log.read_text()
    assert 'source_info{source="sim"} 1.0' in pipeline.page("/metrics")[1]

    with _served(closed_port):
        pipeline.wait_for(lambda: pipeline.status()["source"] == "live")
        pipeline.wait_for(lambda: len(pipeline.commands("connector-linear-0")) == 2)
        assert {"type": "source", "source": "live", "url": url.replace("{category}", "linear")} == (
            pipeline.commands("connector-linear-0")[1]
        )
        pipeline.wait_for(lambda: not pipeline.process_entry("simulator"))
        assert "live" == json.loads((pipeline.run_dir / "endpoints.json").read_text())["source"]
    assert 0 == pipeline.stop()


def test_auto_does_not_fall_back_for_patterns_that_are_gone(start_pipeline: Start) -> None:
    """The last pattern leaves while its list is asked for in vain."""
    connections = itertools.count(1)
    is_asked_again, is_gone = threading.Event(), threading.Event()

    def refuse(connection: socket.socket) -> None:
        if next(connections) == 3:  # after the list and the websocket: the list once more
            is_asked_again.set()
            is_gone.wait(10)
        connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    with server(refuse) as url:
        settings = {**AUTO["connector"], "fallback_after_s": 0.05}
        pipeline = start_pipeline(
            tables={
                "source": "auto",
                "url": url.replace("http", "ws"),
                "connector": settings,
                "market": [{"symbols": ["*USDT"]}],
            },
        )
        pipeline.wait_up()
        pipeline.wait_for(is_asked_again.is_set)

        pipeline.ask("unsubscribe", markets=["linear:*USDT"])
        is_gone.set()

        twice = 'instrument_lists_total{result="status"} 2.0'
        pipeline.wait_for(lambda: twice in pipeline.page("/metrics")[1])
        pipeline.ask("subscribe", markets=["linear:BTCUSDT"])
        pipeline.wait_for(lambda: pipeline.process_entry("connector-linear-0").get("pid"))
        assert 0 == pipeline.stop()


def test_auto_never_falls_back_after_a_live_message(start_pipeline: Start) -> None:
    pipeline = start_pipeline(
        tables={"source": "auto", "url": "ws://127.0.0.1:1/{category}", **AUTO},
        behaviour={"connector-linear-0": {"status": {"last_message_ts_ms": 1}}},
    )
    pipeline.wait_up()
    beats = pipeline.process_entry("connector-linear-0")["uptime_s"]

    pipeline.wait_for(
        lambda: pipeline.process_entry("connector-linear-0")["uptime_s"] > beats + 1.0
    )
    assert "live" == pipeline.status()["source"]
    assert not pipeline.process_entry("simulator")


def test_connectors_wait_for_the_address_of_the_simulator(start_pipeline: Start) -> None:
    pipeline = start_pipeline(
        tables={"source": "sim"},
        behaviour={"simulator": {"websocket": "ws://127.0.0.1:1/v5/public/{category}"}},
    )
    pipeline.wait_up()

    [connector] = pipeline.status()["connectors"]
    assert "ws://127.0.0.1:1/v5/public/linear" == connector["url"]
    assert [] == pipeline.commands("connector-linear-0")


def _served(port: int) -> Server:
    return _Serving(serve(_answer_pings, "127.0.0.1", port))  # type: ignore[return-value]


class _Serving:
    """A websocket server in a thread, for a ``with`` block."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.thread = threading.Thread(target=server.serve_forever)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()


# -- readiness ---------------------------------------------------------------------------------


def test_ready_says_so_and_why_not(start_pipeline: Start) -> None:
    pipeline = start_pipeline(
        behaviour={
            "connector-linear-0": {"status": {"topics": {"orderbook.50.BTCUSDT": "rejected"}}}
        }
    )
    pipeline.wait_up()

    code, body = pipeline.wait_for(
        lambda: _if_code(pipeline.page("/readyz"), "rejected: orderbook.50.BTCUSDT")
    )
    assert 503 == code
    assert not json.loads(body)["ready"]
    assert 200 == pipeline.page("/healthz")[0]


def test_ready_is_200_when_everything_delivers(steady_pipeline: Any) -> None:
    code, body = steady_pipeline.wait_for(
        lambda: _if_code(steady_pipeline.page("/readyz"), '"reasons": []')
    )

    assert 200 == code
    assert json.loads(body)["ready"]


def test_targets_list_every_process_for_prometheus(steady_pipeline: Any) -> None:
    targets = json.loads(steady_pipeline.page("/targets")[1])

    assert CHILDREN | {"supervisor"} == {target["labels"]["process"] for target in targets}
    assert {"connector", "trades", "orderbook", "forwarder", "supervisor"} == {
        target["labels"]["role"] for target in targets
    }
    for target in targets:
        [address] = target["targets"]
        assert re.fullmatch(r"127\.0\.0\.1:\d+", address)


def _if(entry: dict[str, Any], key: str) -> dict[str, Any] | None:
    return entry if entry and entry[key] else None


def _if_code(page: tuple[int, str], text: str) -> tuple[int, str] | None:
    return page if text in page[1] else None


def _up_again(pipeline: Any, name: str, pid: int) -> dict[str, Any] | None:
    entry: dict[str, Any] = pipeline.process_entry(name)
    return entry if entry["state"] == "up" and entry["pid"] != pid else None
