"""The clocks of the operating system."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
ASLEEP = ("unshare", "--time", "--boottime", "1000")
"""A machine that has slept for 1,000 s, as far as a process can see."""


def test_durations_include_suspended_time() -> None:
    if subprocess.run([*ASLEEP, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to make a time namespace")
    look = (
        "import time; from bybit_pipeline.shared.runtime.clock import SystemClock;"
        "print(round(SystemClock().monotonic() - time.monotonic()))"
    )

    done = subprocess.run(
        [*ASLEEP, sys.executable, "-c", look],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=CHECKOUT,
    )

    assert done.stdout == "1000\n", done.stderr
