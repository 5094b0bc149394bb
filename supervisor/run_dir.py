"""
The run directory: whose it is, who holds it, and what of ours is in it.

One pipeline runs in a run directory. It is private (mode 0700, ours), because whoever can reach
its sockets can command the pipeline. A lock file that is held as long as the process lives names
the holder; the operating system lets go of it however the process dies.
"""

import fcntl
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bybit_pipeline.shared.errors import NoPipelineError, TakenError
from bybit_pipeline.shared.settings.permissions import directory_fault
from bybit_pipeline.supervisor.plan.names import PROCESS_NAME

LOCK = "lock"
ENDPOINTS = "endpoints.json"
LOG = "pipeline.log"
ATTEMPTS = ".attempts"
"""How names end of the files in which connectors write down when they connected."""
OURS = re.compile(
    rf"lock|endpoints\.(?:json|partial)|pipeline\.log(?:\.1)?"
    rf"|(?:{PROCESS_NAME.pattern})\.(?:json|partial|attempts)"
    rf"|(?:control|metrics)\.ipc|(?:spot|linear|inverse|option)-\d+\.(?:ipc|feed)"
)
"""Names of the files that a pipeline makes; nothing else is ever touched."""


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
        Hold the directory, made if need be, and clear what a killed pipeline left in it.

        All but what its connectors wrote down of their connections: Bybit counts those still.

        Raises:
            TakenError: If it belongs to somebody else, is open to others, or a pipeline runs there.
        """
        directory = Path(path)
        made = _make(directory)
        _check_private(directory)
        run_dir = cls(directory, _lock(directory), made)
        run_dir._clear(keep=(LOCK,), keep_attempts=True)
        return run_dir

    def write_endpoints(self, endpoints: Mapping[str, Any]) -> None:
        """Write ``endpoints.json``, complete or not at all."""
        partial = self.path / "endpoints.partial"
        partial.write_text(json.dumps(endpoints, indent=2) + "\n")
        partial.replace(self.path / ENDPOINTS)

    def remove_endpoints(self) -> None:
        """The pipeline is no longer whole: say so by the absence of ``endpoints.json``."""
        (self.path / ENDPOINTS).unlink(missing_ok=True)

    def release(self, *, keep_log: bool = False) -> None:
        """Remove everything of ours, and the directory itself if we made it; let go of it."""
        self._clear(keep=(LOG, f"{LOG}.1") if keep_log else ())
        os.close(self._lock)
        for directory in reversed(self._made):
            try:
                directory.rmdir()
            except OSError:
                break  # somebody else's files are in it: theirs to remove

    def _clear(self, keep: tuple[str, ...], *, keep_attempts: bool = False) -> None:
        for entry in self.path.iterdir():
            is_kept = entry.name in keep or (keep_attempts and entry.suffix == ATTEMPTS)
            if OURS.fullmatch(entry.name) and not is_kept:
                entry.unlink(missing_ok=True)


def holder(path: str | Path) -> int:
    """
    The pid of the pipeline that runs in a run directory.

    Raises:
        NoPipelineError: If none does.
    """
    pid = _read_pid(Path(path) / LOCK)
    if pid is None or not is_alive(pid):
        raise NoPipelineError(f"run_dir {path}: no pipeline runs there")
    return pid


def is_alive(pid: int) -> bool:
    """True while a process with this id exists."""
    return Path(f"/proc/{pid}").exists()


def _make(directory: Path) -> list[Path]:
    """Make the directory and its missing parents; the made ones, outermost first."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()][::-1]
    made = []
    try:
        for path in missing:
            path.mkdir(mode=0o700)
            made.append(path)
    except FileExistsError:
        pass  # a pipeline that starts at the same time; the lock decides
    except OSError as error:
        raise TakenError(f"run_dir {directory}: cannot be made: {error.strerror}") from error
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
        os.close(descriptor)  # its holder removed it just before we locked it
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
