"""``python -m processes.dashboard SPEC.json``: the dashboard."""

import shared.lean  # noqa: F401, I001 - first
import sys

from processes.dashboard.actor import Dashboard
from shared.actor import main
from shared.specs import DashboardSpec

if __name__ == "__main__":
    sys.exit(main(Dashboard, DashboardSpec))
