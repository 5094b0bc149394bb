"""
Entry point of ``bybit-pipeline``.

A signal to ``up`` while modules are still loading, which takes half a second, ends it with exit
code 0, as later.
"""

import signal
import sys
from typing import NoReturn

from bybit_pipeline.shared.errors import EX_OK


def main() -> int:
    """Run the command line and return its exit code."""
    if sys.argv[1:2] == ["up"]:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)  # until the command sets its own handlers
    from bybit_pipeline.supervisor.cli.main import main as run

    return run()


def _leave(*_: object) -> NoReturn:
    sys.exit(EX_OK)
