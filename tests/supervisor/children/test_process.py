"""What the operating system says about real processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bybit_pipeline.supervisor.children.process import ChildProcess, Lifeline, usage, wants_time
from tests.system.pipeline import until

LOOP = "while True: pass"
LOCKED_UP = """
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


@pytest.mark.parametrize("child", [LOOP], indirect=True)
def test_a_busy_child_wants_time_until_it_is_stopped(child: ChildProcess) -> None:
    until(lambda: child.demand()[0] > 0.05, "it uses the processor", 10)
    assert child.demand()[1]

    os.kill(child.pid, signal.SIGSTOP)

    until(lambda: not child.demand()[1], "it wants nothing", 10)


@pytest.mark.parametrize("child", [LOCKED_UP], indirect=True)
def test_a_child_that_is_locked_up_wants_no_time(child: ChildProcess) -> None:
    until(lambda: child.demand()[0] > 0 and not child.demand()[1], "it waits", 10)


def test_a_process_that_is_gone_wants_nothing() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert usage(gone.pid) is None
    assert not wants_time(gone.pid)
