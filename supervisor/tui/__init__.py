"""The terminal user interface: pure functions draw lines of text, and a screen shows them."""

import os
import sys

NO_CONTROL = ("", "dumb")
"""Values of TERM for terminals without cursor movement; a missing one counts as empty."""


def has_terminal() -> bool:
    """
    Return True if a full-screen view can be drawn on stdout.

    It needs a terminal that can move its cursor, with this process group in its foreground.
    """
    if not sys.stdout.isatty() or os.environ.get("TERM", "") in NO_CONTROL:
        return False
    try:
        return os.getpgrp() == os.tcgetpgrp(sys.stdout.fileno())
    except OSError:  # not the controlling terminal, so drawing on it cannot stop the process
        return True
