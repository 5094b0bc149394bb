"""CPU time and state of real processes, as the operating system reports them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bybit_pipeline.supervisor.children.process import (
    ChildProcess,
    Lifeline,
    is_runnable,
    usage,
)
from tests.system.pipeline import until

ENDLESS = "while True: pass"
DEADLOCKED = """
import threading
sum(range(5_000_000))
lock = threading.Lock()
lock.acquire()
lock.acquire()
"""


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[ChildProcess]:
    """A child that runs the given program."""
    lifeline = Lifeline()
    child = ChildProcess(["-c", request.param], lifeline=lifeline)
    yield child
    child.kill()
    child.wait()
    lifeline.close()


@pytest.mark.parametrize("child", [ENDLESS], indirect=True)
def test_a_busy_child_is_runnable_until_it_is_suspended(child: ChildProcess) -> None:
    until(lambda: child.cpu_s > 0.05, "it uses CPU time", 10)
    assert child.is_runnable

    os.kill(child.pid, signal.SIGSTOP)

    until(lambda: not child.is_runnable, "it is not runnable", 10)


@pytest.mark.parametrize("child", [DEADLOCKED], indirect=True)
def test_a_deadlocked_child_is_not_runnable(child: ChildProcess) -> None:
    until(lambda: child.cpu_s > 0 and not child.is_runnable, "it waits", 10)


def test_a_process_that_is_gone_has_no_usage() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert usage(gone.pid) is None
    assert not is_runnable(gone.pid)


REAPER = """
import os, signal, sys, time
from bybit_pipeline.supervisor.children.process import reap_foreign

def child():
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid

def is_zombie(pid):
    return os.path.exists(f"/proc/{pid}")

reap_foreign([])  # without any children
foreign = [child() for _ in range(3)]
own = child()
reap_foreign([own])
print(sum(map(is_zombie, foreign)), os.waitpid(own, 0) == (own, 3 << 8))
"""


def test_children_of_others_are_collected_and_ours_are_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REAPER], capture_output=True, text=True, check=True, timeout=30
    )
    assert "0 True\n" == done.stdout


def test_a_log_that_cannot_be_opened_stops_no_process(tmp_path: Path) -> None:
    lifeline = Lifeline()
    child = ChildProcess(["-c", "print(1)"], lifeline=lifeline, log=tmp_path / "missing" / "log")
    assert 0 == child.wait()
    lifeline.close()
