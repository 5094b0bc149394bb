"""The life of one child, told by a fake process and a fake clock."""

from typing import Any

import pytest

from bybit_pipeline.supervisor.children.child import READY_S, SILENT_S, STARVED_RATIO, Child


class FakeProcess:
    """A process that does what it is told and remembers it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None
        self.asked: list[str] = []
        self.used_s = 0.0
        self.is_wanting = False

    def demand(self) -> tuple[float, bool]:
        """CPU time used, and whether it wants more."""
        return self.used_s, self.is_wanting

    def poll(self) -> int | None:
        """Its exit."""
        return self.code

    def terminate(self) -> None:
        """Note it."""
        self.asked.append("terminate")

    def kill(self) -> None:
        """Die of it."""
        self.asked.append("kill")
        self.code = -9


class World:
    """A child, its processes, and the time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.processes: list[FakeProcess] = []
        self.child = Child("trades-0", "trades", self.spawn)

    @property
    def state(self) -> str:
        """The child's state."""
        return self.child.state

    def spawn(self) -> FakeProcess:
        """One more process; pids count from 1."""
        self.processes.append(FakeProcess(len(self.processes) + 1))
        return self.processes[-1]

    def ready(self, **message: Any) -> bool:
        """The running process says that it is ready."""
        return self.child.on_ready(self.now, {"pid": self.processes[-1].pid, **message})

    def beat(self, **status: Any) -> None:
        """The running process says that it lives."""
        self.child.on_heartbeat(self.now, status)

    def pass_time(self, seconds: float) -> None:
        """Let time pass and check."""
        self.now += seconds
        self.child.check(self.now)


@pytest.fixture
def world() -> World:
    """A child that was started just now."""
    world = World()
    world.child.start(world.now)
    return world


def test_a_child_is_up_when_it_says_so(world: World) -> None:
    assert ("starting", False) == (world.state, world.child.is_up)
    assert world.ready()
    assert ("up", True) == (world.state, world.child.is_up)


def test_ready_of_a_predecessor_does_not_count(world: World) -> None:
    assert not world.child.on_ready(world.now, {"pid": 99})
    assert "starting" == world.state


def test_a_heartbeat_before_ready_is_a_predecessors(world: World) -> None:
    world.beat(trades=5)

    assert {} == world.child.status


def test_heartbeats_keep_it_alive_and_carry_its_status(world: World) -> None:
    world.ready()
    for number in range(5):
        world.pass_time(SILENT_S - 0.1)
        world.beat(trades=number)

    assert {"trades": 4} == world.child.status
    assert [] == world.processes[0].asked


def test_silence_is_hanging(world: World) -> None:
    world.ready()
    world.pass_time(SILENT_S - 0.1)
    assert [] == world.processes[0].asked

    world.pass_time(0.1)
    assert ["kill"] == world.processes[0].asked
    world.pass_time(0.1)
    assert {"hung": 1} == dict(world.child.restarts)
    assert "restarting" == world.state
    world.pass_time(0.5)
    assert 2 == len(world.processes)


def test_silence_while_nobody_listened_is_excused(world: World) -> None:
    world.ready()
    world.child.excuse(60.0)

    world.pass_time(60.0 + SILENT_S - 0.1)
    assert [] == world.processes[0].asked
    world.pass_time(0.1)
    assert ["kill"] == world.processes[0].asked


def test_a_start_may_take_longer_than_a_heartbeat_but_not_for_ever(world: World) -> None:
    world.pass_time(READY_S - 0.1)
    assert [] == world.processes[0].asked

    world.pass_time(0.1)
    assert ["kill"] == world.processes[0].asked


@pytest.mark.parametrize("is_up", [True, False])
def test_a_child_without_processor_time_is_not_hung(world: World, is_up: bool) -> None:
    """On a machine that is swamped; but not for ever."""
    limit = SILENT_S if is_up else READY_S
    if is_up:
        world.ready()
    world.processes[0].is_wanting = True
    world.processes[0].used_s += 0.4 * limit

    for _ in range(STARVED_RATIO - 1):
        world.pass_time(limit)
    assert [] == world.processes[0].asked

    world.pass_time(limit)
    assert ["kill"] == world.processes[0].asked


def test_a_child_that_wants_nothing_or_gets_enough_is_hung(world: World) -> None:
    """Stopped or locked up after a busy time, or in a loop without end."""
    world.ready()
    world.processes[0].used_s = 0.4 * SILENT_S
    world.pass_time(SILENT_S)
    assert ["kill"] == world.processes[0].asked
    world.pass_time(0.1)
    world.pass_time(0.5)

    world.ready()
    world.processes[1].is_wanting = True
    world.processes[1].used_s = 0.6 * SILENT_S
    world.pass_time(SILENT_S)
    assert ["kill"] == world.processes[1].asked


def test_only_processor_time_since_the_last_heartbeat_counts(world: World) -> None:
    world.ready()
    world.processes[0].used_s = 1_000.0
    world.beat()
    world.processes[0].is_wanting = True

    world.pass_time(SILENT_S)

    assert [] == world.processes[0].asked


def test_an_exit_forgets_what_the_process_said_and_is_followed_by_a_start(world: World) -> None:
    world.ready(endpoints={"metrics": "tcp://x"})
    world.beat(trades=1)
    world.processes[0].code = 70

    world.pass_time(0.1)

    assert (None, {}, {}, 70) == (
        world.child.pid,
        world.child.status,
        world.child.ready,
        world.child.exit_code,
    )
    world.pass_time(0.49)
    assert 1 == len(world.processes)
    world.pass_time(0.01)
    assert 2 == world.child.pid
    assert "restarting" == world.state
    world.ready()
    assert "up" == world.state


def test_too_many_exits_are_flapping_until_it_has_run_for_long(world: World) -> None:
    for _ in range(6):
        world.processes[-1].code = 1
        world.pass_time(0.0)
        world.pass_time(30.0 if world.child.is_flapping else 8.0)

    assert "flapping" == world.state
    world.ready()
    assert ("flapping", True) == (world.state, world.child.is_up)
    for _ in range(60):
        world.pass_time(1.0)
        world.beat()
    assert "up" == world.state


@pytest.mark.parametrize("code", [64, 78])
def test_an_exit_that_a_restart_cannot_mend_is_final(world: World, code: int) -> None:
    world.processes[0].code = code

    world.pass_time(100.0)
    world.pass_time(100.0)

    assert ("failed", 1, {}) == (
        world.state,
        len(world.processes),
        dict(world.child.restarts),
    )


def test_a_stop_is_asked_for_then_enforced(world: World) -> None:
    world.child.stop(world.now, within_s=2.0)
    world.pass_time(1.9)
    assert ["terminate"] == world.processes[0].asked
    assert not world.child.is_gone

    world.pass_time(0.1)
    world.pass_time(0.1)
    assert ["terminate", "kill"] == world.processes[0].asked
    assert world.child.is_gone
    assert {} == dict(world.child.restarts)


def test_a_child_that_waits_for_its_restart_is_gone_when_stopped(world: World) -> None:
    world.processes[0].code = 1
    world.pass_time(0.1)

    world.child.stop(world.now, within_s=2.0)

    assert world.child.is_gone
    world.pass_time(100.0)
    assert 1 == len(world.processes)


def test_a_child_that_cannot_be_started_is_tried_again() -> None:
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


def test_a_beat_that_says_nothing_usable_is_still_a_sign_of_life() -> None:
    world = World()
    world.child.start(world.now)
    world.ready()
    world.beat(messages=1)

    for _ in range(4):
        world.pass_time(SILENT_S / 2)
        world.child.on_heartbeat(world.now, None)

    assert "up" == world.state
    assert {"messages": 1} == world.child.status


def test_a_child_is_down_from_its_crash_to_its_next_start() -> None:
    world = World()
    world.child.start(world.now)
    assert not world.child.is_down

    world.processes[-1].code = -9
    world.pass_time(0)

    assert world.child.is_down
    world.pass_time(1.0)
    assert not world.child.is_down
