"""``python -m bybit_pipeline.processes.dashboard SPEC.json``: the dashboard."""

import bybit_pipeline.shared.runtime.no_rich  # noqa: F401, I001 - first
import sys

from bybit_pipeline.processes.dashboard.actor import Dashboard
from bybit_pipeline.shared.runtime.actor import main
from bybit_pipeline.shared.settings.specs import DashboardSpec

if __name__ == "__main__":
    sys.exit(main(Dashboard, DashboardSpec))
