"""
Whose a file or directory is, and whether others could have a hand in it.

Whoever may write where we read keys, or make files where we make sockets, is as good as we are.
"""

import os
import stat
from pathlib import Path

UMASK = 0o077
"""For files and ipc sockets that only our user can open."""
TRUSTED = 0
"""The superuser, who could do as we do anyway."""


def directory_fault(directory: Path) -> str | None:
    """
    What keeps a directory from being ours alone (mode 0700); None if it is.

    The path itself counts, not what it may link to.

    Raises:
        OSError: If it cannot be looked at.
    """
    info = directory.lstat()
    if not stat.S_ISDIR(info.st_mode):
        return "is not a directory"
    if info.st_uid != os.geteuid():
        return f"belongs to user {info.st_uid}, not to us"
    if info.st_mode & 0o077:
        return f"open to others (mode {stat.S_IMODE(info.st_mode):04o}); allowed: 0700"
    return None


def writers_fault(info: os.stat_result) -> str | None:
    """What lets others change a file or directory; None if only we and the superuser can."""
    if info.st_uid not in (os.geteuid(), TRUSTED):
        return f"belongs to user {info.st_uid}, not to us"
    if info.st_mode & 0o022:
        return f"can be changed by others (mode {stat.S_IMODE(info.st_mode):04o})"
    return None


def readers_fault(info: os.stat_result) -> str | None:
    """What lets others read or change a file; None if only we and the superuser can."""
    fault = writers_fault(info)
    if fault is None and info.st_mode & 0o077:
        return f"open to others (mode {stat.S_IMODE(info.st_mode):04o}); allowed: 0600"
    return fault
