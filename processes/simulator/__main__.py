"""``python -m processes.simulator``: the simulated exchange, as a child or alone."""

import shared.lean  # noqa: F401, I001 - first
import sys

from processes.simulator.command import main

if __name__ == "__main__":
    sys.exit(main())
