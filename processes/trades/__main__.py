"""``python -m bybit_pipeline.processes.trades SPEC.json``: one trades worker."""

import bybit_pipeline.shared.runtime.no_rich  # noqa: F401, I001 - first
import sys

from bybit_pipeline.processes.trades.actor import TradesWorker
from bybit_pipeline.shared.runtime.actor import main
from bybit_pipeline.shared.settings.specs import TradesSpec

if __name__ == "__main__":
    sys.exit(main(TradesWorker, TradesSpec))
