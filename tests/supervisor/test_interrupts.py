"""Signals that arrive at the worst moment end a wait all the same."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from bybit_pipeline.supervisor.interrupts import Interrupts

DEADLINE_S = 20.0
LONG_S = 60.0
SOON_S = 0.5
"""Less than the shortest wait of a command."""

SIGNAL_IN_POLL = """
import ctypes, sys, time
from functools import partial
import zmq.sugar.poll
from bybit_pipeline.supervisor.cli.main import main

class Source:
    pass

# pyzmq calls fileno between Python's last check for signals and the system call. C's raise does not
# run the Python handler; it returns 0, so the descriptor is stdin, which stays silent.
source, poll, took = Source(), zmq.sugar.poll.zmq_poll, []
source.fileno = partial(ctypes.CDLL(None)["raise"], int(sys.argv.pop()))

def poll_with_signal(sources, timeout=-1):
    if timeout < 50:
        return poll(sources, timeout)
    began = time.monotonic()
    try:
        return poll([*sources, (source, zmq.POLLIN)], timeout)
    finally:
        took.append(time.monotonic() - began)

zmq.sugar.poll.zmq_poll = poll_with_signal
code = main()
print(max(took), file=sys.stderr)
sys.exit(code)
"""
"""Runs a command; in every wait of it a signal arrives just before the system call."""


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[str]:
    """The run directory of a pipeline that neither answers nor publishes."""
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        socket.bind("tcp://127.0.0.1:*")
        endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        endpoints = {"pid": os.getpid(), "metrics": endpoint}
        (tmp_path / "lock").write_text(f"{os.getpid()}\n")
        (tmp_path / "endpoints.json").write_text(json.dumps(endpoints))
        yield str(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["tail", "watch", "status", "subscribe SOLUSDT"])
def test_a_signal_just_before_a_command_waits_ends_it(
    run_dir: str, command: str, number: signal.Signals
) -> None:
    silent, writer = os.pipe()
    arguments = [*command.split(), "--run-dir", run_dir, str(int(number))]
    done = subprocess.run(
        [sys.executable, "-c", SIGNAL_IN_POLL, *arguments],
        stdin=silent,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    os.close(silent)
    os.close(writer)

    assert (0, "") == (done.returncode, done.stdout), done.stderr
    assert float(done.stderr) < SOON_S


class SignalsWhenDeleted:
    """Raises a signal where Python discards the exception of a handler."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_whose_exception_was_discarded_ends_the_next_wait() -> None:
    with Interrupts() as interrupts:
        SignalsWhenDeleted()
        with pytest.raises(KeyboardInterrupt):
            interrupts.wait(LONG_S)


def test_a_wait_ends_when_a_source_is_readable() -> None:
    reader, writer = os.pipe()
    with Interrupts() as interrupts:
        assert not interrupts.wait(0, reader)
        os.write(writer, b"x")
        assert interrupts.wait(LONG_S, reader)
    os.close(reader)
    os.close(writer)


def test_other_signals_do_not_end_a_wait() -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGUSR1)
        began = time.monotonic()
        assert not interrupts.wait(0.05)
        assert time.monotonic() - began >= 0.05
    signal.signal(signal.SIGUSR1, before)


def test_the_handlers_of_before_are_back_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interrupts():
        pass
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
