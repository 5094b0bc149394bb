"""A real process runs the loop: ready, heartbeats, commands, and every way to stop."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from bybit_pipeline.shared.errors import EX_CONFIG, EX_OK, EX_SOFTWARE, EX_UNAVAILABLE, EX_USAGE
from bybit_pipeline.shared.settings.specs import ProcessSpec, write_spec
from bybit_pipeline.shared.wire.codec import decode_map, encode_map

CHILD = """
import sys
from bybit_pipeline.shared.runtime import actor
from bybit_pipeline.shared.errors import NoPipelineError
from bybit_pipeline.shared.settings.specs import ProcessSpec

class Child(actor.Actor):
    role = "test"
    ticks = 0

    def on_start(self):
        self.every(0.01, self.tick)

    def tick(self):
        self.ticks += 1

    def status(self):
        return {"ticks": self.ticks}

    def on_command(self, command):
        if command["type"] == "crash":
            raise RuntimeError("broken on purpose")
        if command["type"] == "unreachable":
            raise NoPipelineError("nobody there")
        if command["type"] == "news":
            self.report_soon()
        self.send_control("echo", command=command)

sys.exit(actor.main(Child, ProcessSpec))
"""
DEADLINE_MS = 10_000
Start = Callable[..., subprocess.Popen[str]]


class Supervisor:
    """The other end of the control plane, and the writing end of the lifeline."""

    def __init__(self, directory: Path) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.bind(f"ipc://{directory}/control")
        self.lifeline, self._writer = os.pipe()
        self.endpoint = f"ipc://{directory}/control"

    def receive(self, kind: str) -> dict[str, Any]:
        """The next message of a kind."""
        while self.socket.poll(DEADLINE_MS):
            message = decode_map(self.socket.recv_multipart()[1])
            if message["type"] == kind:
                return message
        raise AssertionError(f"no {kind} arrived")

    def send(self, **command: Any) -> None:
        self.socket.send_multipart([b"child-0", encode_map(command)])

    def vanish(self) -> None:
        os.close(self._writer)

    def close(self) -> None:
        self.context.destroy(linger=0)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path)
    yield supervisor
    supervisor.close()


@pytest.fixture
def child(tmp_path: Path, supervisor: Supervisor) -> Iterator[subprocess.Popen[str]]:
    spec = ProcessSpec(
        process="child-0",
        role="test",
        run_dir=str(tmp_path),
        control=supervisor.endpoint,
        log_format="json",
    )
    write_spec(spec, tmp_path / "child-0.json")
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            CHILD,
            str(tmp_path / "child-0.json"),
            "--lifeline",
            str(supervisor.lifeline),
        ],
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[supervisor.lifeline],
    )
    yield process
    process.kill()
    process.communicate()


def test_a_child_reports_ready_and_then_its_status_regularly(
    supervisor: Supervisor, child: subprocess.Popen[str]
) -> None:
    ready = supervisor.receive("ready")
    assert (ready["process"], ready["role"], ready["pid"]) == ("child-0", "test", child.pid)
    assert ready["prometheus"].startswith("127.0.0.1:")
    first = supervisor.receive("heartbeat")["status"]["ticks"]

    heartbeats = [supervisor.receive("heartbeat") for _ in range(5)]

    later = [beat["status"]["ticks"] for beat in heartbeats if "status" in beat]
    assert 1 == len(later), "one heartbeat in four has a status"
    assert later[0] > first


def test_news_are_reported_before_the_next_status_is_due(
    supervisor: Supervisor, child: subprocess.Popen[str]
) -> None:
    supervisor.receive("ready")
    assert "status" in supervisor.receive("heartbeat")
    assert "status" not in supervisor.receive("heartbeat")

    supervisor.send(type="news")
    supervisor.receive("echo")

    assert "status" in supervisor.receive("heartbeat")


def test_commands_reach_the_child(supervisor: Supervisor, child: subprocess.Popen[str]) -> None:
    supervisor.receive("ready")
    supervisor.send(type="resync", topic="book.linear.BTCUSDT")
    assert supervisor.receive("echo")["command"]["topic"] == "book.linear.BTCUSDT"


def test_frames_that_are_not_commands_are_ignored(
    supervisor: Supervisor, child: subprocess.Popen[str]
) -> None:
    supervisor.receive("ready")
    for frame in (b"", b"\xc1", b"\x90", encode_map({"no": "type"}), encode_map({"type": 5})):
        supervisor.socket.send_multipart([b"child-0", frame])
    supervisor.send(type="still there")
    assert supervisor.receive("echo")["command"]["type"] == "still there"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_exit_code_0(
    supervisor: Supervisor, child: subprocess.Popen[str], number: signal.Signals
) -> None:
    supervisor.receive("ready")
    child.send_signal(number)
    assert child.wait(5) == EX_OK


def test_a_stop_command_stops_it(supervisor: Supervisor, child: subprocess.Popen[str]) -> None:
    supervisor.receive("ready")
    supervisor.send(type="stop")
    assert child.wait(5) == EX_OK


def test_it_stops_when_its_supervisor_is_gone(
    supervisor: Supervisor, child: subprocess.Popen[str]
) -> None:
    supervisor.receive("ready")
    supervisor.vanish()
    assert child.wait(5) == EX_OK
    assert child.stderr is not None
    assert "supervisor gone" in child.stderr.read()


def test_a_bug_is_logged_once_with_its_traceback_and_ends_the_process(
    supervisor: Supervisor, child: subprocess.Popen[str]
) -> None:
    supervisor.receive("ready")
    supervisor.send(type="crash")
    assert child.wait(5) == EX_SOFTWARE
    assert child.stderr is not None
    log = child.stderr.read()
    assert log.count("broken on purpose") == 1
    assert log.count("Traceback") == 1


def test_an_expected_failure_is_one_line_with_its_own_exit_code(
    supervisor: Supervisor, child: subprocess.Popen[str]
) -> None:
    supervisor.receive("ready")
    supervisor.send(type="unreachable")
    assert child.wait(5) == EX_UNAVAILABLE
    assert child.stderr is not None
    log = child.stderr.read()
    assert "nobody there" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["nothing.json"], EX_CONFIG, "nothing.json: No such file or directory"),
        ([], EX_USAGE, "spec"),
    ],
)
def test_a_start_that_cannot_work_gives_its_reason_in_one_line(
    arguments: list[str], code: int, text: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr
