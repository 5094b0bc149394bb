"""The life of one child, with a fake process and a fake clock."""

from typing import Any

import pytest

from bybit_pipeline.supervisor.children.child import Child
from bybit_pipeline.supervisor.children.timing import Timing

TIMING = Timing()
READY_S, HUNG_S = TIMING.ready_s, TIMING.hung_s


class FakeProcess:
    """A process that records how it was asked to end, and dies only when killed."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None
        self.requests: list[str] = []
        self.cpu_s = 0.0
        self.is_runnable = False

    def poll(self) -> int | None:
        """Exit code."""
        return self.code

    def terminate(self) -> None:
        """Record the request."""
        self.requests.append("terminate")

    def kill(self) -> None:
        """Record the request and die."""
        self.requests.append("kill")
        self.code = -9


class World:
    """A child, its processes, and the time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.processes: list[FakeProcess] = []
        self.child = Child("trades-0", "trades", self.spawn, timing=TIMING)

    @property
    def state(self) -> str:
        """State of the child."""
        return self.child.state

    def spawn(self) -> FakeProcess:
        """Start a process; pids count from 1."""
        self.processes.append(FakeProcess(len(self.processes) + 1))
        return self.processes[-1]

    def ready(self, **message: Any) -> bool:
        """The running process reports that it is ready."""
        return self.child.on_ready(self.now, {"pid": self.processes[-1].pid, **message})

    def heartbeat(self, **status: Any) -> None:
        """The running process sends a heartbeat."""
        self.child.on_heartbeat(self.now, status)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, then check."""
        self.now += seconds
        self.child.check(self.now)


@pytest.fixture
def world() -> World:
    """A child that has just been started."""
    world = World()
    world.child.start(world.now)
    return world


def test_a_child_is_up_once_it_reports_ready(world: World) -> None:
    assert ("starting", False) == (world.state, world.child.is_up)
    assert world.ready()
    assert ("up", True) == (world.state, world.child.is_up)


def test_ready_of_an_earlier_process_is_ignored(world: World) -> None:
    assert not world.child.on_ready(world.now, {"pid": 99})
    assert "starting" == world.state


def test_a_heartbeat_before_ready_is_ignored(world: World) -> None:
    """It was sent by an earlier process."""
    world.heartbeat(trades=5)

    assert {} == world.child.status


def test_heartbeats_keep_a_child_alive_and_carry_its_status(world: World) -> None:
    world.ready()
    for number in range(5):
        world.pass_time(HUNG_S - 0.1)
        world.heartbeat(trades=number)

    assert {"trades": 4} == world.child.status
    assert [] == world.processes[0].requests


def test_a_silent_child_hangs_and_is_restarted(world: World) -> None:
    world.ready()
    world.pass_time(HUNG_S - 0.1)
    assert [] == world.processes[0].requests

    world.pass_time(0.1)
    assert ["kill"] == world.processes[0].requests
    world.pass_time(0.1)
    assert {"hung": 1} == dict(world.child.restarts)
    assert "restarting" == world.state
    world.pass_time(0.5)
    assert 2 == len(world.processes)


def test_silence_is_excused_while_the_supervisor_did_not_listen(world: World) -> None:
    world.ready()
    world.child.excuse_silence(60.0)

    world.pass_time(60.0 + HUNG_S - 0.1)
    assert [] == world.processes[0].requests
    world.pass_time(0.1)
    assert ["kill"] == world.processes[0].requests


def test_a_start_has_a_longer_limit_than_a_heartbeat(world: World) -> None:
    world.pass_time(READY_S - 0.1)
    assert [] == world.processes[0].requests

    world.pass_time(0.1)
    assert ["kill"] == world.processes[0].requests


@pytest.mark.parametrize("is_up", [True, False])
def test_a_child_starved_of_cpu_time_has_longer_limits(world: World, is_up: bool) -> None:
    limit = HUNG_S if is_up else READY_S
    if is_up:
        world.ready()
    world.processes[0].is_runnable = True
    world.processes[0].cpu_s += 0.4 * limit

    for _ in range(int(TIMING.starved_ratio) - 1):
        world.pass_time(limit)
    assert [] == world.processes[0].requests

    world.pass_time(limit)
    assert ["kill"] == world.processes[0].requests


def test_a_silent_child_that_is_idle_or_gets_enough_cpu_time_hangs(world: World) -> None:
    """The first is stopped or deadlocked after a busy time, the second is in an endless loop."""
    world.ready()
    world.processes[0].cpu_s = 0.4 * HUNG_S
    world.pass_time(HUNG_S)
    assert ["kill"] == world.processes[0].requests
    world.pass_time(0.1)
    world.pass_time(0.5)

    world.ready()
    world.processes[1].is_runnable = True
    world.processes[1].cpu_s = 0.6 * HUNG_S
    world.pass_time(HUNG_S)
    assert ["kill"] == world.processes[1].requests


def test_only_cpu_time_since_the_last_heartbeat_counts(world: World) -> None:
    world.ready()
    world.processes[0].cpu_s = 1_000.0
    world.heartbeat()
    world.processes[0].is_runnable = True

    world.pass_time(HUNG_S)

    assert [] == world.processes[0].requests


def test_an_exit_clears_the_status_and_is_followed_by_a_restart(world: World) -> None:
    world.ready(endpoints={"metrics": "tcp://x"})
    world.heartbeat(trades=1)
    assert "tcp://x" == world.child.endpoint("metrics")
    world.processes[0].code = 70

    world.pass_time(0.1)

    child = world.child
    assert (None, {}, {}, 70) == (child.pid, child.status, child.ready, child.exit_code)
    assert "" == child.endpoint("metrics")
    world.pass_time(0.49)
    assert 1 == len(world.processes)
    world.pass_time(0.01)
    assert 2 == child.pid
    assert "restarting" == world.state
    world.ready()
    assert "up" == world.state


def test_a_child_that_exits_too_often_is_flapping_until_it_has_run_long_enough(
    world: World,
) -> None:
    for _ in range(6):
        world.processes[-1].code = 1
        world.pass_time(0.0)
        world.pass_time(30.0 if world.child.is_flapping else 8.0)

    assert "flapping" == world.state
    world.ready()
    assert ("flapping", True) == (world.state, world.child.is_up)
    for _ in range(60):
        world.pass_time(1.0)
        world.heartbeat()
    assert "up" == world.state


@pytest.mark.parametrize("code", [64, 78])
def test_wrong_usage_and_bad_configuration_are_never_restarted(world: World, code: int) -> None:
    world.processes[0].code = code

    world.pass_time(100.0)
    world.pass_time(100.0)

    assert ("failed", 1, {}) == (world.state, len(world.processes), dict(world.child.restarts))


def test_a_child_is_asked_to_stop_then_killed(world: World) -> None:
    world.child.stop(world.now, within_s=2.0)
    world.pass_time(1.9)
    assert ["terminate"] == world.processes[0].requests
    assert not world.child.is_gone

    world.pass_time(0.1)
    world.pass_time(0.1)
    assert ["terminate", "kill"] == world.processes[0].requests
    assert world.child.is_gone
    assert {} == dict(world.child.restarts)


def test_a_child_that_waits_for_its_restart_stops_at_once(world: World) -> None:
    world.processes[0].code = 1
    world.pass_time(0.1)

    world.child.stop(world.now, within_s=2.0)

    assert world.child.is_gone
    world.pass_time(100.0)
    assert 1 == len(world.processes)


def test_a_failed_start_is_retried() -> None:
    world = World()
    failures = [OSError("no memory")]

    def spawn() -> FakeProcess:
        if failures:
            raise failures.pop()
        return world.spawn()

    child = Child("trades-0", "trades", spawn)

    child.start(0.0)
    child.check(0.4)
    assert child.pid is None
    child.check(0.5)
    assert 1 == child.pid


def test_a_heartbeat_with_an_unusable_status_is_a_sign_of_life(world: World) -> None:
    world.ready()
    world.heartbeat(messages=1)

    for _ in range(4):
        world.pass_time(HUNG_S / 2)
        world.child.on_heartbeat(world.now, None)

    assert "up" == world.state
    assert {"messages": 1} == world.child.status


def test_a_child_is_down_from_its_crash_to_its_restart(world: World) -> None:
    assert not world.child.is_down

    world.processes[-1].code = -9
    world.pass_time(0)

    assert world.child.is_down
    world.pass_time(1.0)
    assert not world.child.is_down


def test_a_child_without_heartbeats_is_silent_long_before_it_counts_as_hung(world: World) -> None:
    world.ready()

    world.pass_time(TIMING.silent_s - 0.1)
    assert "up" == world.state
    world.pass_time(0.2)

    assert "silent" == world.state
    assert world.child.is_up
    assert [] == world.processes[0].requests


def test_a_heartbeat_without_a_status_ends_the_silence_and_keeps_the_status(world: World) -> None:
    world.ready()
    world.heartbeat(books={"live": 1})
    world.pass_time(TIMING.silent_s)

    world.child.on_heartbeat(world.now, None)

    assert "up" == world.state
    assert {"books": {"live": 1}} == world.child.status


def test_the_time_in_which_the_supervisor_did_not_run_is_no_silence(world: World) -> None:
    world.ready()

    world.child.excuse_silence(10.0)
    world.pass_time(10.0)

    assert "up" == world.state
