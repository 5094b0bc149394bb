"""The terminal user interface: pure functions draw lines of text, and a screen shows them."""

import os
import sys


def has_terminal() -> bool:
    """True if stdout is a terminal and this process group is in its foreground."""
    if not sys.stdout.isatty():
        return False
    try:
        return os.getpgrp() == os.tcgetpgrp(sys.stdout.fileno())
    except OSError:  # not the controlling terminal, so drawing on it cannot stop the process
        return True
