"""``python -m processes.connector SPEC.json``: one Bybit socket, published on the market bus."""

import shared.lean  # noqa: F401, I001 - first
import sys

from processes.connector.actor import ConnectorActor
from shared.actor import main
from shared.specs import ConnectorSpec

if __name__ == "__main__":
    sys.exit(main(ConnectorActor, ConnectorSpec))
