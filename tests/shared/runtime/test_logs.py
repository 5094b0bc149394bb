"""A log that cannot be written costs lines, never the process."""

import subprocess
import sys

SCRIPT = """
import os, structlog
from bybit_pipeline.shared.runtime import logs
logs.configure("p", "json")
log = structlog.get_logger()
os.close(2)
for n in range(100_000):
    log.info("nobody reads this", n=n)
os.write(1, str(logs.lost_lines()).encode())
"""


def test_a_process_with_a_closed_log_goes_on_and_counts_the_lost_lines() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert int(done.stdout) >= 100_000
