"""The run directory: its owner, its lock, and the files left in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bybit_pipeline.shared.errors import NoPipelineError, TakenError
from bybit_pipeline.supervisor.run_dir import RunDir, holder


def test_the_directory_is_created_private_and_removed_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"

    run_dir = RunDir.take(path)
    assert 0o700 == path.stat().st_mode & 0o777
    assert os.getpid() == holder(path)
    run_dir.write_endpoints({"pid": 1})

    run_dir.release()
    assert [] == list(tmp_path.iterdir())


def test_an_existing_directory_stays_with_the_files_of_others(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.mkdir(mode=0o700)
    (path / "notes.json").write_text("{}")

    RunDir.take(path).release()

    assert ["notes.json"] == [entry.name for entry in path.iterdir()]


def test_only_the_files_of_a_killed_pipeline_are_removed(tmp_path: Path) -> None:
    ours = [
        "endpoints.json",
        "control.ipc",
        "metrics.ipc",
        "linear-0.ipc",
        "linear-0.feed",
        "trades-1.json",
        "connector-option-12.json",
        "simulator.partial",
        "dashboard.json",
        "lock",
        "pipeline.log",
    ]
    theirs = ["data.json", "linear.ipc", "my-trades-1.json", "lock.txt", "control.ipc.bak"]
    for name in ours + theirs:
        (tmp_path / name).write_text("1")

    run_dir = RunDir.take(tmp_path)

    assert sorted([*theirs, "lock"]) == sorted(entry.name for entry in tmp_path.iterdir())
    run_dir.release()
    assert sorted(theirs) == sorted(entry.name for entry in tmp_path.iterdir())


def test_connection_attempts_before_a_crash_are_kept_until_an_orderly_end(
    tmp_path: Path,
) -> None:
    attempts = tmp_path / "connector-linear-0.attempts"
    attempts.write_text("[1.5]")

    run_dir = RunDir.take(tmp_path)

    assert attempts.exists()
    run_dir.release()
    assert not attempts.exists()


def test_a_second_holder_is_rejected_with_the_pid_of_the_first(tmp_path: Path) -> None:
    run_dir = RunDir.take(tmp_path)

    with pytest.raises(TakenError, match=rf"taken by the pipeline with pid {os.getpid()}$"):
        RunDir.take(tmp_path)

    run_dir.release()
    RunDir.take(tmp_path).release()


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    code = "import os, sys; from bybit_pipeline.supervisor.run_dir import RunDir; "
    code += "RunDir.take(sys.argv[1]); os._exit(1)"
    dead = subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    assert 1 == dead.returncode
    assert (tmp_path / "lock").exists()

    with pytest.raises(NoPipelineError):
        holder(tmp_path)
    RunDir.take(tmp_path).release()


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_open_to_others_is_rejected(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "open"
    path.mkdir()
    path.chmod(mode)

    with pytest.raises(TakenError, match=rf"open to others \(mode 0{mode:o}\); allowed: 0700"):
        RunDir.take(path)

    assert [] == list(path.iterdir())


def test_a_directory_of_another_user_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)

    with pytest.raises(TakenError, match="belongs to user"):
        RunDir.take(tmp_path)


def test_a_link_to_a_directory_is_rejected(tmp_path: Path) -> None:
    """Its owner could redirect our files to any other directory."""
    (tmp_path / "link").symlink_to(tmp_path)

    with pytest.raises(TakenError, match="is not a directory"):
        RunDir.take(tmp_path / "link")


def test_a_directory_that_cannot_be_created_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(TakenError, match="cannot be created"):
        RunDir.take(tmp_path / "file" / "run")


def test_the_log_is_kept_on_request(tmp_path: Path) -> None:
    run_dir = RunDir.take(tmp_path / "run")
    (tmp_path / "run" / "pipeline.log").write_text("why")

    run_dir.release(keep_log=True)

    assert ["pipeline.log"] == [entry.name for entry in (tmp_path / "run").iterdir()]


def test_a_long_log_is_moved_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bybit_pipeline.supervisor.run_dir.LOG_BYTES_MAX", 3)
    run_dir = RunDir.take(tmp_path / "run")
    log = tmp_path / "run" / "pipeline.log"
    for text in ("why", "why not"):
        log.write_text(text)
        run_dir.rotate_log()

    assert ("", "why not") == (log.read_text(), log.with_name("pipeline.log.1").read_text())


def test_a_log_that_somebody_removed_is_no_fault(tmp_path: Path) -> None:
    run_dir = RunDir.take(tmp_path / "run")
    run_dir.rotate_log()
    run_dir.release()

    assert not (tmp_path / "run").exists()


def test_a_missing_directory_has_no_holder(tmp_path: Path) -> None:
    with pytest.raises(NoPipelineError, match="no pipeline runs there"):
        holder(tmp_path / "nowhere")


def test_a_full_disk_is_reported_and_leaves_no_file(tmp_path: Path) -> None:
    """A file size limit of 0 bytes stands for the full disk."""
    code = (
        "import resource, sys; from bybit_pipeline.supervisor.run_dir import RunDir;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); RunDir.take(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "cannot be written: File too large" in done.stderr.splitlines()[-1]
    assert [] == list(tmp_path.iterdir())
