"""``python -m bybit_pipeline``: the command line."""

import sys

from bybit_pipeline.supervisor.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
