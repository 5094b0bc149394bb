"""A real supervisor with real children that crash, hang, ignore signals, or behave."""

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from bybit_pipeline.supervisor.children.timing import Timing
from tests.supervisor.conftest import CHILDREN, Start

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


def test_a_stop_leaves_the_files_of_others(start_pipeline: Start, tmp_path: Path) -> None:
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
    file.touch()  # as a killed forwarder leaves it
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


def test_a_second_pipeline_in_the_run_directory_is_rejected(
    steady_pipeline: Any, start_pipeline: Start
) -> None:
    second = start_pipeline(run_dir=steady_pipeline.run_dir)

    assert 73 == second.process.wait(10)
    assert str(steady_pipeline.process.pid) in second.log.read_text().splitlines()[-1]
    assert steady_pipeline.status()["ready"]


def test_a_taken_metrics_port_is_rejected_with_its_key_and_holder(
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
def test_a_child_that_ends_is_restarted_and_the_others_continue(
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


def test_processes_that_it_inherited_do_not_stay_zombies(start_pipeline: Start) -> None:
    """As process 1 of a container it inherits those that ``podman exec`` leaves behind."""
    pipeline = start_pipeline(shell="for n in 1 2 3; do sleep 0.2 & done;")
    pipeline.wait_up()
    pipeline.wait_for(lambda: len(pipeline.children()) == len(CHILDREN))
    assert "zombie" not in {child.status() for child in pipeline.children()}

    victim = pipeline.process_entry("trades-0")["pid"]
    os.kill(victim, signal.SIGKILL)  # the exits of its own children still reach it
    pipeline.wait_for(lambda: pipeline.process_entry("trades-0")["pid"] not in (None, victim))


def test_a_child_that_hangs_is_killed_and_restarted(start_pipeline: Start) -> None:
    pipeline = start_pipeline(timing={"hung_s": 1.0})
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


def test_a_child_with_a_bad_configuration_is_reported_and_not_restarted(
    start_pipeline: Start,
) -> None:
    pipeline = start_pipeline(behaviour={"trades-0": {"exit": 78}})
    pipeline.wait_for(lambda: '"process failed, not restarted"' in pipeline.log.read_text())

    entry = pipeline.process_entry("trades-0")
    assert ("failed", 0, 78) == (entry["state"], entry["restarts"], entry["exit_code"])
    assert "trades-0: failed" in pipeline.status()["reasons"]
    assert 0 == pipeline.stop()


def test_workers_publish_again_after_a_restart_of_the_forwarder(steady_pipeline: Any) -> None:
    pid = steady_pipeline.process_entry("forwarder")["pid"]
    metrics = steady_pipeline.status()["metrics"]

    os.kill(pid, signal.SIGKILL)

    for worker in ("trades-0", "orderbook-0"):
        assert {"type": "republish"} in steady_pipeline.wait_for_commands(worker)
    assert metrics == steady_pipeline.status()["metrics"]


# -- readiness ---------------------------------------------------------------------------------


def test_readyz_lists_the_reasons_while_the_pipeline_is_not_ready(start_pipeline: Start) -> None:
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


def test_readyz_is_200_when_everything_delivers(steady_pipeline: Any) -> None:
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
