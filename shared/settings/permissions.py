"""
Permission checks: whether other users can read or change a file or directory.

Write access to our key or socket directory is equivalent to our own privileges.
"""

import os
import stat
from pathlib import Path

UMASK = 0o077
"""Mode of files and ipc sockets that only our user can open."""
TRUSTED = 0
"""User id of the superuser: it can do everything anyway."""


def directory_fault(directory: Path) -> str | None:
    """
    Return why a directory is not accessible to our user alone (mode 0700); None if it is.

    A symbolic link is not followed.

    Raises:
        OSError: If the directory does not exist or cannot be examined.
    """
    info = directory.lstat()
    if not stat.S_ISDIR(info.st_mode):
        return "is not a directory"
    if info.st_uid != os.geteuid():
        return f"belongs to user {info.st_uid}, not to this one"
    if info.st_mode & 0o077:
        return f"open to others (mode {stat.S_IMODE(info.st_mode):04o}); allowed: 0700"
    return None


def writers_fault(info: os.stat_result) -> str | None:
    """Return why others can change a file or directory; None if they cannot."""
    if info.st_uid not in (os.geteuid(), TRUSTED):
        return f"belongs to user {info.st_uid}, not to this one"
    if info.st_mode & 0o022:
        return f"can be changed by others (mode {stat.S_IMODE(info.st_mode):04o})"
    return None


def readers_fault(info: os.stat_result) -> str | None:
    """Return why others can read or change a file; None if they cannot."""
    fault = writers_fault(info)
    if fault is None and info.st_mode & 0o077:
        return f"open to others (mode {stat.S_IMODE(info.st_mode):04o}); allowed: 0600"
    return fault
