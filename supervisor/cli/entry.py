"""
Where ``bybit-pipeline`` begins: before anything is loaded, a signal to ``up`` is an orderly end.

Loading takes half a second, in which SIGTERM would end it with 143 and SIGINT with 130.
"""

import signal
import sys
from typing import NoReturn

from bybit_pipeline.shared.errors import EX_OK


def main() -> int:
    """Run the command line; its exit code."""
    if sys.argv[1:2] == ["up"]:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)  # until the run has its own
    from bybit_pipeline.supervisor.cli.main import main as run

    return run()


def _leave(*_: object) -> NoReturn:
    sys.exit(EX_OK)
