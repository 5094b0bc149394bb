"""``python -m bybit_pipeline.processes.orderbook SPEC.json``: one orderbook worker."""

import bybit_pipeline.shared.runtime.no_rich  # noqa: F401, I001 - first
import sys

from bybit_pipeline.processes.orderbook.actor import OrderbookWorker
from bybit_pipeline.shared.runtime.actor import main
from bybit_pipeline.shared.settings.specs import OrderbookSpec

if __name__ == "__main__":
    sys.exit(main(OrderbookWorker, OrderbookSpec))
