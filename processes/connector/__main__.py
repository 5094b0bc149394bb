"""``python -m bybit_pipeline.processes.connector SPEC.json``: one Bybit websocket on the bus."""

import bybit_pipeline.shared.runtime.no_rich  # noqa: F401, I001 - first
import sys

from bybit_pipeline.processes.connector.actor import ConnectorActor
from bybit_pipeline.shared.runtime.actor import main
from bybit_pipeline.shared.settings.specs import ConnectorSpec

if __name__ == "__main__":
    sys.exit(main(ConnectorActor, ConnectorSpec))
