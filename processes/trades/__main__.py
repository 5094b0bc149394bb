"""``python -m processes.trades SPEC.json``: one trades worker."""

import shared.lean  # noqa: F401, I001 - first
import sys

from processes.trades.actor import TradesWorker
from shared.actor import main
from shared.specs import TradesSpec

if __name__ == "__main__":
    sys.exit(main(TradesWorker, TradesSpec))
