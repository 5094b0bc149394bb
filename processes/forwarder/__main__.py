"""``python -m bybit_pipeline.processes.forwarder SPEC.json``: the forwarder."""

import bybit_pipeline.shared.runtime.no_rich  # noqa: F401, I001 - first
import sys

from bybit_pipeline.processes.forwarder.actor import Forwarder
from bybit_pipeline.shared.runtime.actor import main
from bybit_pipeline.shared.settings.specs import ForwarderSpec

if __name__ == "__main__":
    sys.exit(main(Forwarder, ForwarderSpec))
