"""``python -m bybit_pipeline.processes.simulator``: the simulated exchange, as a child or alone."""

import bybit_pipeline.shared.runtime.no_rich  # noqa: F401, I001 - must come first
import sys

from bybit_pipeline.processes.simulator.cli import main

if __name__ == "__main__":
    sys.exit(main())
