"""``python -m processes.dashboard SPEC.json``: the dashboard."""

import sys

from processes.dashboard.actor import Dashboard
from shared.actor import main
from shared.specs import DashboardSpec

if __name__ == "__main__":
    sys.exit(main(Dashboard, DashboardSpec))
