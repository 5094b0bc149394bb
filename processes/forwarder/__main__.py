"""``python -m processes.forwarder SPEC.json``: the forwarder."""

import shared.lean  # noqa: F401, I001 - first
import sys

from processes.forwarder.actor import Forwarder
from shared.actor import main
from shared.specs import ForwarderSpec

if __name__ == "__main__":
    sys.exit(main(Forwarder, ForwarderSpec))
