"""What can be shown on the terminal, if there is one."""

import os
import sys
from typing import TextIO

NO_CONTROL = ("", "dumb")
"""Values of TERM for terminals without colours and cursor movement; a missing one is empty."""


def has_control_codes(stream: TextIO) -> bool:
    """Return True if a stream is a terminal with colours and cursor movement."""
    return stream.isatty() and os.environ.get("TERM", "") not in NO_CONTROL


def has_screen() -> bool:
    """
    Return True if a full-screen view can be drawn on stdout.

    It needs a terminal with cursor movement, and this process group in its foreground.
    """
    if not has_control_codes(sys.stdout):
        return False
    try:
        return os.getpgrp() == os.tcgetpgrp(sys.stdout.fileno())
    except OSError:  # not the controlling terminal, so drawing on it cannot stop the process
        return True
