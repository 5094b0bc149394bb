"""Access to a running pipeline: this user, another user, another machine."""

import os
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import zmq

from bybit_pipeline.shared.client import PipelineClient
from bybit_pipeline.shared.errors import NoPipelineError, TakenError
from bybit_pipeline.shared.settings.curve_keys import make_client_keys, make_server_keys
from bybit_pipeline.supervisor.run_dir import RunDir
from tests.system.conftest import Start

NOBODY = 65534
DEADLINE_S = 10.0
NOTHING_MS = 500

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as a second user")


DROP = f"""
import os, sys, time, socket, json
from pathlib import Path
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
path = Path(sys.argv[1])
"""


def as_somebody_else(code: str, *arguments: object) -> str:
    """Return the output of another user's program; ``path`` is its first argument."""
    command = [sys.executable, "-c", DROP + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def shared_tmp(tmp_path: Path) -> Path:
    """A directory like ``/tmp``: all users may create files, none may change another's."""
    path = tmp_path / "tmp"
    path.mkdir()
    path.chmod(0o1777)
    top = Path(tempfile.gettempdir())
    for parent in (tmp_path, *tmp_path.parents):
        if parent.is_relative_to(top) and parent != top:
            parent.chmod(parent.stat().st_mode | 0o011)
    return path


# -- the run directory -------------------------------------------------------------------------


@needs_root
def test_a_run_directory_created_by_another_user_is_rejected(shared_tmp: Path) -> None:
    path = shared_tmp / "bybit-pipeline-0"
    as_somebody_else("path.mkdir(mode=0o700)", path)

    with pytest.raises(TakenError, match=f"belongs to user {NOBODY}"):
        RunDir.take(path)

    assert [] == list(path.iterdir())


@needs_root
def test_a_link_created_by_another_user_is_rejected(shared_tmp: Path) -> None:
    """Otherwise our own files elsewhere would be removed as remains of a pipeline."""
    precious = shared_tmp / "precious"
    precious.mkdir(mode=0o700)
    (precious / "lock").write_text("mine")
    path = shared_tmp / "bybit-pipeline-0"
    as_somebody_else("path.symlink_to(sys.argv[2])", path, precious)

    with pytest.raises(TakenError, match="is not a directory"):
        RunDir.take(path)

    assert "mine" == (precious / "lock").read_text()


PRETEND = """
path.mkdir(mode=0o755)
(path / "lock").write_text(sys.argv[2])
endpoints = {"pid": int(sys.argv[2]), "metrics": "tcp://127.0.0.1:1"}
(path / "endpoints.json").write_text(json.dumps(endpoints))
"""


@needs_root
def test_commands_do_not_trust_a_pipeline_of_another_user(
    shared_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user could choose its numbers."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(shared_tmp))
    path = shared_tmp / "bybit-pipeline"

    as_somebody_else(PRETEND, path, os.getpid())

    with pytest.raises(NoPipelineError, match=f"belongs to user {NOBODY}"):
        PipelineClient().open()
    command = Path(sys.executable).with_name("bybit-pipeline")
    done = subprocess.run([command, "status"], capture_output=True, text=True, check=False)
    assert 69 == done.returncode
    assert f"belongs to user {NOBODY}" in done.stderr


RACE_S = 1.0
RACE = f"""
end = time.monotonic() + {DEADLINE_S}
print("go", flush=True)
while time.monotonic() < end:
    for make, unmake in (
        (lambda: path.symlink_to(sys.argv[2]), path.unlink),
        (lambda: path.mkdir(0o700), path.rmdir),
    ):
        try:
            make()
            unmake()
        except OSError:
            pass
"""


@needs_root
def test_winning_the_race_for_a_file_gains_nothing(shared_tmp: Path) -> None:
    """A user who creates and removes the name in a loop gets none of our files."""
    target = shared_tmp / "target"
    target.mkdir(mode=0o700)
    (target / "lock").write_text("mine")
    path = shared_tmp / "bybit-pipeline-0"
    took = refused = 0
    with subprocess.Popen(
        [sys.executable, "-c", DROP + RACE, path, target], stdout=subprocess.PIPE
    ) as rival:
        assert rival.stdout is not None
        assert b"go\n" == rival.stdout.readline()
        enough = time.monotonic() + RACE_S
        # On a busy machine a second may pass before the two meet.
        while rival.poll() is None and not (took and refused and time.monotonic() > enough):
            try:
                run_dir = RunDir.take(path)
            except (TakenError, FileNotFoundError):
                refused += 1
                continue
            info = path.lstat()
            assert stat.S_ISDIR(info.st_mode)
            assert (0, 0o700) == (info.st_uid, info.st_mode & 0o777)
            assert (path / "lock").is_file()
            run_dir.release()
            took += 1
        rival.kill()
    assert took
    assert refused
    assert ["lock"] == [entry.name for entry in target.iterdir()]
    assert "mine" == (target / "lock").read_text()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """Another user may have created it while the directory was open."""
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run" / "lock").symlink_to(tmp_path / "precious")

    with pytest.raises(TakenError):
        RunDir.take(tmp_path / "run")

    assert "mine" == (tmp_path / "precious").read_text()


# -- a running pipeline ------------------------------------------------------------------------


def test_its_files_and_sockets_are_for_its_user_only(start: Start) -> None:
    mask = os.umask(0)  # a careless shell
    try:
        pipeline = start("--source", "sim")
    finally:
        os.umask(mask)
    pipeline.wait_ready()
    assert 0o700 == pipeline.run_dir.stat().st_mode & 0o777
    entries = [*pipeline.run_dir.iterdir(), Path(pipeline.metrics.removeprefix("ipc://"))]
    modes = {entry.name: entry.stat().st_mode & 0o077 for entry in entries}
    assert {0} == set(modes.values()), modes
    assert 3 <= sum(stat.S_ISSOCK(entry.stat().st_mode) for entry in entries)


CONNECT = """
try:
    socket.socket(socket.AF_UNIX).connect(str(path))
    print("connected", end="")
except PermissionError:
    print("refused", end="")
"""


@needs_root
def test_another_user_reaches_none_of_its_sockets(start: Start) -> None:
    pipeline = start("--source", "sim")
    pipeline.wait_ready()
    own = [str(path) for path in pipeline.run_dir.iterdir() if path.is_socket()]
    sockets = [pipeline.metrics.removeprefix("ipc://"), *own]
    for parent in (*pipeline.run_dir.parents[:3], pipeline.run_dir):
        parent.chmod(parent.stat().st_mode | 0o055)  # leaves nothing but the sockets' own modes

    for path in sockets:
        assert "refused" == as_somebody_else(CONNECT, path)
    pipeline.run_dir.chmod(0o700)


LOCKED = """
source = "sim"
[security]
curve = true
keys = "{keys}"
"""


def test_with_keys_local_tools_work_and_other_clients_read_nothing(
    start: Start, tmp_path: Path
) -> None:
    make_server_keys(tmp_path / "keys")
    _, handout = make_client_keys(tmp_path / "keys", "bob")
    pipeline = start("--metrics", "tcp://0.0.0.0:0", config=LOCKED.format(keys=tmp_path / "keys"))
    pipeline.wait_ready()
    endpoints = pipeline.endpoints()
    assert str(tmp_path / "keys") == endpoints["keys"]
    stranger: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
    stranger.subscribe(b"")
    stranger.connect(endpoints["metrics"])

    tail = pipeline.command("tail", "orderbook.", "--count", "3", "--timeout", "10")
    watch = pipeline.command("watch")
    served: list[Any] = []
    port = endpoints["metrics"].rpartition(":")[2]
    for client in (
        PipelineClient(run_dir=pipeline.run_dir),
        PipelineClient(f"tcp://127.0.0.1:{port}", keys=handout),
    ):
        with client:
            served.append(next(client.messages(DEADLINE_S)).payload["v"])

    assert (0, 3) == (tail.returncode, len(tail.stdout.splitlines())), tail.stderr
    assert "BTCUSDT" in watch.stdout, watch.stderr
    assert [1, 1] == served
    assert not stranger.poll(NOTHING_MS)
    stranger.close(0)
    assert pipeline.total("forwarder", "forwarder_clients_refused_total", "handshake") >= 1
    pipeline.stop()


def test_up_without_the_keys_it_needs_ends_with_one_line(start: Start, tmp_path: Path) -> None:
    pipeline = start("--metrics", "tcp://0.0.0.0:0", config=LOCKED.format(keys=tmp_path / "none"))

    assert 78 == pipeline.process.wait(DEADLINE_S)

    lines = pipeline.log.read_text().splitlines()
    assert 1 == len(lines), lines
    assert "security.keys" in lines[0]
    assert "bybit-pipeline keys" in lines[0]
