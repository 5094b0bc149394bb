"""``python -m bybit_pipeline.processes.orderbook SPEC.json``: one orderbook worker."""

import bybit_pipeline.shared.lean  # noqa: F401, I001 - first
import sys

from bybit_pipeline.processes.orderbook.actor import OrderbookWorker
from bybit_pipeline.shared.actor import main
from bybit_pipeline.shared.specs import OrderbookSpec

if __name__ == "__main__":
    sys.exit(main(OrderbookWorker, OrderbookSpec))
