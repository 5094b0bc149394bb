"""``python -m bybit_pipeline.processes.trades SPEC.json``: one trades worker."""

import bybit_pipeline.shared.lean  # noqa: F401, I001 - first
import sys

from bybit_pipeline.processes.trades.actor import TradesWorker
from bybit_pipeline.shared.actor import main
from bybit_pipeline.shared.specs import TradesSpec

if __name__ == "__main__":
    sys.exit(main(TradesWorker, TradesSpec))
