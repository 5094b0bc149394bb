"""The file ``endpoints.json``, in which programs find a running pipeline."""

import os
from collections.abc import Mapping
from typing import Any

import structlog

from bybit_pipeline.supervisor.children.children import Children
from bybit_pipeline.supervisor.run_dir import RunDir

log = structlog.get_logger()


class EndpointsFile:
    """
    Writes the file once every process is up, and again whenever its content changes.

    Args:
        run_dir: Where the file is.
        url: URL of the supervisor's HTTP server.
        state_dir: Directory of the gap ledger.
    """

    def __init__(self, run_dir: RunDir, *, url: str, state_dir: str) -> None:
        self._run_dir = run_dir
        self._url = url
        self._state_dir = state_dir
        self._written: dict[str, Any] | None = None
        self._has_failed = False

    def update(self, children: Children, prometheus: Mapping[str, str]) -> bool:
        """
        Write the file if necessary; a failure is logged once and retried with the next call.

        Args:
            children: The children and their plan.
            prometheus: ``host:port`` to scrape, by process.

        Returns:
            True if the file has been written for the first time.
        """
        is_first = self._written is None
        if is_first and not children.is_complete:
            return False
        plan = children.plan
        endpoints = {
            "pid": os.getpid(),
            "source": plan.source,
            "metrics": children.metrics,
            "keys": plan.keys,
            "control": plan.control_endpoint,
            "http": self._url,
            "dashboard": children.dashboard or None,
            "state_dir": self._state_dir,
            "market": {name: plan.market_endpoint(name) for name in plan.connectors},
            "prometheus": dict(prometheus),
        }
        if endpoints == self._written:
            return False
        try:
            self._run_dir.write_endpoints(endpoints)
        except OSError as error:
            if not self._has_failed:
                log.error("endpoints.json not written, retrying", error=str(error))
            self._has_failed = True
            return False
        self._has_failed = False
        self._written = endpoints
        return is_first
