"""Writing a file completely or not at all, and the errors of a full disk."""

import errno
from pathlib import Path

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def replace_file(path: Path, content: str | bytes) -> None:
    """
    Write a file under another name and rename it, so that readers never see a part of it.

    The other name has the suffix ``.partial``.

    Raises:
        OSError: If the file cannot be written; the old one is unchanged.
    """
    partial = path.with_suffix(".partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)  # a part of it takes space that others need
        raise
