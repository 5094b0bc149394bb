"""
The run directory of one pipeline: who owns it, who holds it, and which files in it are ours.

The directory is private (mode 0700, ours), because access to its sockets is control over the
pipeline. The holder keeps a lock file locked as long as it lives; the operating system releases it
however the process ends.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bybit_pipeline.shared.errors import NoPipelineError, TakenError
from bybit_pipeline.shared.files import replace_file
from bybit_pipeline.shared.settings.locations import default_run_dir
from bybit_pipeline.shared.settings.permissions import directory_fault
from bybit_pipeline.supervisor.plan.names import PROCESS_NAME

LOCK = "lock"
ENDPOINTS = "endpoints.json"
LOG = "pipeline.log"
LOG_BYTES_MAX = 16 * 1024 * 1024
PROGRESS = "progress"
"""File that a killed pipeline leaves for the next one; see ``ledger.progress_file``."""
ATTEMPTS = ".attempts"
"""Suffix of the files in which connectors record their connection attempts."""
OURS = re.compile(
    rf"lock|progress|endpoints\.(?:json|partial)|pipeline\.log(?:\.1)?"
    rf"|(?:{PROCESS_NAME.pattern})\.(?:json|partial|attempts)"
    rf"|(?:control|metrics)\.ipc|(?:spot|linear|inverse|option)-\d+\.(?:ipc|feed)"
)
"""Names of the files that a pipeline creates; no other file is ever touched."""


class RunDir:
    """
    A run directory that this process holds, from ``take`` to ``release``.

    Attributes:
        path: The directory, absolute.
    """

    def __init__(self, path: Path, lock: int, made: list[Path]) -> None:
        self.path = path
        self._lock = lock
        self._made = made

    @classmethod
    def take(cls, path: str | Path) -> "RunDir":
        """
        Create the directory if necessary, lock it, and remove the files of a killed pipeline.

        The connection attempts of its connectors are kept: they still count for Bybit.

        Raises:
            TakenError: If the directory belongs to another user, is open to others, or is held by
                another pipeline.
        """
        directory = Path(path)
        made = _make(directory)
        _check_private(directory)
        run_dir = cls(directory, _lock(directory), made)
        run_dir._clear(keep=(LOCK, PROGRESS), keep_attempts=True)
        return run_dir

    def write_endpoints(self, endpoints: Mapping[str, Any]) -> None:
        """Write ``endpoints.json``, completely or not at all."""
        replace_file(self.path / ENDPOINTS, json.dumps(endpoints, indent=2) + "\n")

    def remove_endpoints(self) -> None:
        """Remove ``endpoints.json``: the pipeline is no longer complete."""
        (self.path / ENDPOINTS).unlink(missing_ok=True)

    def rotate_log(self) -> None:
        """Move the log to ``pipeline.log.1`` and empty it once it has ``LOG_BYTES_MAX``."""
        log = self.path / LOG
        with contextlib.suppress(OSError):  # somebody has removed it
            if log.stat().st_size > LOG_BYTES_MAX:
                with contextlib.suppress(OSError):  # a full disk costs the old lines
                    shutil.copyfile(log, log.with_name(f"{LOG}.1"))
                os.truncate(log, 0)

    def release(self, *, keep_log: bool = False) -> None:
        """Remove all our files and the directories that ``take`` created; unlock."""
        self._clear(keep=(LOG, f"{LOG}.1") if keep_log else ())
        os.close(self._lock)
        for directory in reversed(self._made):
            try:
                directory.rmdir()
            except OSError:
                break  # files of somebody else are in it

    def _clear(self, keep: tuple[str, ...], *, keep_attempts: bool = False) -> None:
        for entry in self.path.iterdir():
            is_kept = entry.name in keep or (keep_attempts and entry.suffix == ATTEMPTS)
            if OURS.fullmatch(entry.name) and not is_kept:
                entry.unlink(missing_ok=True)


def holder(path: str | Path) -> int:
    """
    The pid of the pipeline that holds a run directory.

    Raises:
        NoPipelineError: If there is none.
    """
    pid = _read_pid(Path(path) / LOCK)
    if pid is None or not is_alive(pid):
        where = "" if str(path) == default_run_dir() else f" --run-dir {path}"
        raise NoPipelineError(
            f"run_dir {path}: no pipeline runs there; start one with: bybit-pipeline up{where}"
        )
    return pid


def is_alive(pid: int) -> bool:
    """True while a process with this id exists."""
    return Path(f"/proc/{pid}").exists()


def _make(directory: Path) -> list[Path]:
    """Create the directory and its missing parents; return the created ones, outermost first."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()][::-1]
    made = []
    try:
        for path in missing:
            path.mkdir(mode=0o700)
            made.append(path)
    except FileExistsError:
        pass  # another pipeline starts at the same time; the lock decides
    except OSError as error:
        raise TakenError(f"run_dir {directory}: cannot be created: {error.strerror}") from error
    return made


def _check_private(directory: Path) -> None:
    fault = directory_fault(directory)
    if fault is not None:
        raise TakenError(f"run_dir {directory}: {fault}")


def _lock(directory: Path) -> int:
    """The descriptor of the lock file, locked, with our pid in it."""
    path = directory / LOCK
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise TakenError(f"run_dir {directory}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            pid = _read_pid(path)
            raise TakenError(
                f"run_dir {directory}: taken by the pipeline with pid {pid or 'unknown'}"
            ) from error
        if _is_same_file(descriptor, path):
            break
        os.close(descriptor)  # its holder removed the file just before we locked it
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except OSError as error:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        raise TakenError(f"run_dir {directory}: cannot be written: {error.strerror}") from error
    return descriptor


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
