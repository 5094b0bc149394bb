"""``python -m processes.orderbook SPEC.json``: one orderbook worker."""

import shared.lean  # noqa: F401, I001 - first
import sys

from processes.orderbook.actor import OrderbookWorker
from shared.actor import main
from shared.specs import OrderbookSpec

if __name__ == "__main__":
    sys.exit(main(OrderbookWorker, OrderbookSpec))
