"""What a person sees at a terminal: pictures made by pure functions, and the screen they go to."""

import os
import sys


def has_terminal() -> bool:
    """True if stdout is a terminal, and ours to draw on: not from the background of a shell."""
    if not sys.stdout.isatty():
        return False
    try:
        return os.getpgrp() == os.tcgetpgrp(sys.stdout.fileno())
    except OSError:  # a terminal that controls nobody, so nobody halts us for drawing on it
        return True
