"""Children that only sleep, under a clock that the test moves, and the commands meant for them."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bybit_pipeline.shared.settings.config import make_config
from bybit_pipeline.supervisor.children.child import SILENT_S
from bybit_pipeline.supervisor.children.children import Children
from bybit_pipeline.supervisor.children.process import ChildProcess, Lifeline
from bybit_pipeline.supervisor.plan.market_args import subscribe
from bybit_pipeline.supervisor.plan.plan import make_plan

WITH_DASHBOARD = make_config({"source": "live", "dashboard": {"enabled": True, "port": 0}})
SLEEPER = ("-c", "import select, sys; select.select([int(sys.argv[3])], [], [])")


class Home:
    """A household, its time, and what it sends."""

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

    def ready(self, name: str, **message: Any) -> None:
        """A child says that it is ready."""
        pid = self.children.by_name[name].pid
        assert self.children.on_ready(name, {"pid": pid, **message}, self.now)

    def pass_time(self, seconds: float, *, step: float = 0.5) -> None:
        """Let time pass, checking all the while."""
        end = self.now + seconds
        while self.now < end:
            self.now += step
            self.children.check(self.now)

    def replace(self, name: str) -> None:
        """A child dies, and its successor is started."""
        child = self.children.by_name[name]._process
        assert child is not None
        child.kill()
        while child.poll() is None:
            pass
        self.pass_time(1.0)

    def spec(self, name: str) -> dict[str, Any]:
        """The spec file of a child."""
        return dict(json.loads((self.run_dir / f"{name}.json").read_text()))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Everything started, nobody ready."""
    home = Home(tmp_path)
    yield home
    for child in home.children.all:
        if child._process is not None:
            child._process.kill()
    while any(child.pid is not None for child in home.children.all):
        for child in home.children.all:
            child.stop(home.now, within_s=0.0)
            child.check(home.now)
    home.lifeline.close()


def test_everything_of_the_plan_is_started_connectors_last(home: Home) -> None:
    assert ["forwarder", "trades-0", "orderbook-0", "connector-linear-0"] == list(
        home.children.by_name
    )
    assert not home.children.is_complete
    for name in home.children.by_name:
        home.ready(name)
    assert home.children.is_complete


def test_our_own_pause_is_not_taken_for_silence_of_the_children(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline that was stopped with Ctrl-Z goes on where it was."""
    killed: list[int] = []
    monkeypatch.setattr(ChildProcess, "kill", lambda child: killed.append(child.pid))
    monkeypatch.setattr(ChildProcess, "demand", lambda _: (0.0, False))
    for name in home.children.by_name:
        home.ready(name)
    home.pass_time(1.0)

    home.now += 3600.0
    home.pass_time(SILENT_S - 2.0)
    assert [] == killed

    home.pass_time(3.0)
    assert [child.pid for child in home.children.all] == killed


def test_a_successor_takes_the_addresses_of_its_predecessor(home: Home) -> None:
    home.ready("forwarder", prometheus="127.0.0.1:7001", endpoints={"metrics": "tcp://h:7002"})

    home.replace("forwarder")

    spec = home.spec("forwarder")
    assert (7001, "tcp://h:7002") == (spec["prometheus_port"], spec["endpoint"])


def test_the_dashboard_starts_once_the_address_of_the_metrics_is_exact(home: Home) -> None:
    """And a successor takes the port at which open pages look for it."""
    home.children.apply(make_plan(WITH_DASHBOARD, run_dir=str(home.run_dir)), home.now)
    assert home.children.by_name["dashboard"].is_new

    home.ready("forwarder", endpoints={"metrics": "tcp://h:7002"})

    spec = home.spec("dashboard")
    assert ("tcp://h:7002", 0) == (spec["metrics"], spec["port"])
    home.ready("dashboard", endpoints={"http": "http://127.0.0.1:7003"})
    assert "http://127.0.0.1:7003" == home.children.dashboard

    home.replace("dashboard")

    assert 7003 == home.spec("dashboard")["port"]


def test_a_child_is_told_once_what_changed_while_it_was_starting(home: Home) -> None:
    home.ready("trades-0")
    plan = subscribe(home.children.plan, ["linear:SOLUSDT"])
    home.children.apply(plan, home.now)
    assert [("trades-0", "assign")] == [(name, message["type"]) for name, message in home.sent]

    home.ready("connector-linear-0")

    assert [("trades-0", "assign"), ("connector-linear-0", "subscribe")] == [
        (name, message["type"]) for name, message in home.sent
    ]


def test_a_successor_reads_everything_in_its_spec_and_is_told_nothing(home: Home) -> None:
    home.ready("connector-linear-0")
    home.children.apply(subscribe(home.children.plan, ["linear:SOLUSDT"]), home.now)
    home.sent.clear()

    home.replace("connector-linear-0")
    home.ready("connector-linear-0")

    assert [] == home.sent
    assert "SOLUSDT" in {stream["symbol"] for stream in home.spec("connector-linear-0")["streams"]}


def test_connectors_are_told_a_new_source_with_their_category_filled_in(home: Home) -> None:
    for name in home.children.by_name:
        home.ready(name)
    plan = dataclasses.replace(home.children.plan, source="sim", url="ws://h:1/{category}")

    home.children.apply(plan, home.now)

    message = {"type": "source", "source": "sim", "url": "ws://h:1/linear"}
    assert [("connector-linear-0", message)] == home.sent


def test_nobody_is_started_any_more_once_a_stop_has_begun(home: Home) -> None:
    home.children.stop(("connector",), home.now, within_s=1.0)

    home.children.apply(subscribe(home.children.plan, ["spot:BTCUSDT"]), home.now)
    home.pass_time(5.0)

    assert "connector-spot-0" not in home.children.by_name


def test_connectors_are_informed_when_their_connect_quota_changes(home: Home) -> None:
    for name in home.children.by_name:
        home.ready(name)
    markets = [f"linear:T{number}USDT" for number in range(400)]

    home.children.apply(subscribe(home.children.plan, markets), home.now)

    [quota] = [m["quota"] for name, m in home.sent if m["type"] == "connect_quota"]
    connectors = home.children.plan.connectors
    assert len(connectors) == 9
    assert quota == 400 // 9 == home.spec(connectors[-1])["connect_quota"]
