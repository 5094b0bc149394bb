"""Children that only sleep, with a fake clock, and the control messages sent to them."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.children.children import Children
from bybit_pipeline.supervisor.children.process import ChildProcess, Lifeline
from bybit_pipeline.supervisor.children.timing import Timing
from bybit_pipeline.supervisor.plan.market_args import subscribe
from bybit_pipeline.supervisor.plan.plan import make_plan

SLEEPER = ("-c", "import select, sys; select.select([int(sys.argv[3])], [], [])")


class World:
    """Children, the time, and the messages sent to them."""

    def __init__(self, run_dir: Path) -> None:
        self.now = 1000.0
        self.sent: list[tuple[str, Mapping[str, Any]]] = []
        self.run_dir = run_dir
        self.lifeline = Lifeline()
        self.children = Children(
            make_plan(make_config({"source": "live"}), run_dir=str(run_dir)),
            lambda process, message: self.sent.append((process, message)),
            lifeline=self.lifeline,
            command=lambda _: SLEEPER,
        )
        self.children.start_missing(self.now)

    @property
    def sent_types(self) -> list[tuple[str, str]]:
        """Receivers and types of the messages sent so far."""
        return [(name, message["type"]) for name, message in self.sent]

    def ready(self, name: str, **message: Any) -> None:
        """A child reports that it is ready."""
        pid = self.children.by_name[name].pid
        assert self.children.on_ready(name, {"pid": pid, **message}, self.now)

    def all_ready(self) -> None:
        """Every child reports that it is ready."""
        for name in self.children.by_name:
            self.ready(name)

    def pass_time(self, seconds: float, *, step: float = 0.5) -> None:
        """Let time pass, with a check at every step."""
        end = self.now + seconds
        while self.now < end:
            self.now += step
            self.children.check(self.now)

    def replace(self, name: str) -> None:
        """A child dies, and its successor is started."""
        process = self.children.by_name[name]._process
        assert process is not None
        process.kill()
        while process.poll() is None:
            pass
        self.pass_time(1.0)

    def spec(self, name: str) -> dict[str, Any]:
        """The spec file of a child."""
        return dict(json.loads((self.run_dir / f"{name}.json").read_text()))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """All children started, none ready."""
    world = World(tmp_path)
    yield world
    for child in world.children.all:
        if child._process is not None:
            child._process.kill()
    while any(child.pid is not None for child in world.children.all):
        for child in world.children.all:
            child.stop(world.now, within_s=0.0)
            child.check(world.now)
    world.lifeline.close()


def test_every_process_of_the_plan_is_started_connectors_last(world: World) -> None:
    assert ["forwarder", "trades-0", "orderbook-0", "connector-linear-0"] == list(
        world.children.by_name
    )
    assert not world.children.is_complete
    world.all_ready()
    assert world.children.is_complete


def test_a_pause_of_the_supervisor_is_not_silence_of_the_children(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline that was suspended with Ctrl-Z continues where it was."""
    killed: list[int] = []
    monkeypatch.setattr(ChildProcess, "kill", lambda child: killed.append(child.pid))
    monkeypatch.setattr(ChildProcess, "cpu_s", 0.0)
    monkeypatch.setattr(ChildProcess, "is_runnable", False)
    world.all_ready()
    world.pass_time(1.0)

    world.now += 3600.0
    world.pass_time(Timing().hung_s - 2.0)
    assert [] == killed

    world.pass_time(3.0)
    assert [child.pid for child in world.children.all] == killed


def test_a_successor_takes_the_addresses_of_its_predecessor(world: World) -> None:
    world.ready("forwarder", prometheus="127.0.0.1:7001", endpoints={"metrics": "tcp://h:7002"})

    world.replace("forwarder")

    spec = world.spec("forwarder")
    assert (7001, "tcp://h:7002") == (spec["prometheus_port"], spec["endpoint"])


def test_the_dashboard_starts_once_the_metrics_endpoint_is_bound(world: World) -> None:
    """A successor takes the port that open pages know."""
    config = make_config({"source": "live", "dashboard": {"enabled": True, "port": 0}})
    world.children.reconcile(make_plan(config, run_dir=str(world.run_dir)), world.now)
    assert world.children.by_name["dashboard"].is_new

    world.ready("forwarder", endpoints={"metrics": "tcp://h:7002"})

    spec = world.spec("dashboard")
    assert ("tcp://h:7002", 0) == (spec["metrics"], spec["port"])
    world.ready("dashboard", endpoints={"http": "http://127.0.0.1:7003"})
    assert "http://127.0.0.1:7003" == world.children.dashboard

    world.replace("dashboard")

    assert 7003 == world.spec("dashboard")["port"]


def test_a_child_receives_once_what_changed_while_it_was_starting(world: World) -> None:
    world.ready("trades-0")
    plan = subscribe(world.children.plan, ["linear:SOLUSDT"])
    world.children.reconcile(plan, world.now)
    assert [("trades-0", "assign")] == world.sent_types

    world.ready("connector-linear-0")

    assert [("trades-0", "assign"), ("connector-linear-0", "subscribe")] == world.sent_types


def test_a_successor_finds_everything_in_its_spec(world: World) -> None:
    world.ready("connector-linear-0")
    world.children.reconcile(subscribe(world.children.plan, ["linear:SOLUSDT"]), world.now)
    world.sent.clear()

    world.replace("connector-linear-0")
    world.ready("connector-linear-0")

    assert [] == world.sent
    assert "SOLUSDT" in {stream["symbol"] for stream in world.spec("connector-linear-0")["streams"]}


def test_connectors_receive_a_new_source_with_their_category_filled_in(world: World) -> None:
    world.all_ready()
    plan = dataclasses.replace(world.children.plan, source="sim", url="ws://h:1/{category}")

    world.children.reconcile(plan, world.now)

    message = {"type": "source", "source": "sim", "url": "ws://h:1/linear"}
    assert [("connector-linear-0", message)] == world.sent


def test_no_child_is_started_once_the_stop_has_begun(world: World) -> None:
    world.children.stop(("connector",), world.now, within_s=1.0)

    world.children.reconcile(subscribe(world.children.plan, ["spot:BTCUSDT"]), world.now)
    world.pass_time(5.0)

    assert "connector-spot-0" not in world.children.by_name


def test_connectors_are_informed_when_their_connect_quota_changes(world: World) -> None:
    world.all_ready()
    markets = [f"linear:T{number}USDT" for number in range(400)]

    world.children.reconcile(subscribe(world.children.plan, markets), world.now)

    [quota] = [m["quota"] for name, m in world.sent if m["type"] == "connect_quota"]
    connectors = world.children.plan.connectors
    assert 9 == len(connectors)
    assert 400 // 9 == quota == world.spec(connectors[-1])["connect_quota"]
