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
        _load_structlog()
    from bybit_pipeline.supervisor.cli.main import main as run

    return run()


def _load_structlog() -> None:
    """Load structlog without rich, which only the live view needs; see ``no_rich``."""
    sys.modules["rich"] = None  # type: ignore[assignment]  # for now reported as not installed
    import structlog  # noqa: F401

    del sys.modules["rich"]


def _leave(*_: object) -> NoReturn:
    sys.exit(EX_OK)
