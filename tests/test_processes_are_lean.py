"""Libraries that a process must not load, for a fast start and little memory."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
ROLES = sorted(path.parent.name for path in CHECKOUT.glob("processes/*/__main__.py"))


@pytest.mark.parametrize("role", ROLES)
def test_no_terminal_library_is_loaded(role: str) -> None:
    """Rich and typer are for the supervisor's terminal."""
    look = (
        f"import bybit_pipeline.processes.{role}.__main__, sys;"
        "print('rich.console' in sys.modules, 'typer' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, timeout=60, cwd=CHECKOUT
    )
    assert done.stdout == "False False\n", done.stderr


def test_up_loads_rich_only_for_its_view() -> None:
    look = (
        "import sys; from bybit_pipeline.supervisor.cli.entry import main;"
        "sys.argv = ['bybit-pipeline', 'up', '--help']; main();"
        "import bybit_pipeline.supervisor.cli.up; print('rich.console' in sys.modules);"
        "import bybit_pipeline.supervisor.tui.live; print('rich.console' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, timeout=60, cwd=CHECKOUT
    )
    assert ["False", "True"] == done.stdout.splitlines()[-2:], done.stderr


def test_there_are_processes() -> None:
    """The roles above are those of the pipeline."""
    assert {"connector", "forwarder", "orderbook", "simulator", "trades"} <= set(ROLES)
