"""A real Prometheus with the configuration of ``docs/ops``, and queries to it."""

import json
import math
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

OPS = Path(__file__).resolve().parents[2] / "docs" / "ops"
ADDRESS_IN_FILES = "127.0.0.1:9400"
FILES = ("prometheus.yml", "alerts.yml")
JSON = Any


def tool(name: str) -> str:
    """The path of ``prometheus`` or ``promtool``; without it the test is skipped."""
    beside = Path(sys.executable).with_name(name)
    path = shutil.which(name) or (str(beside) if beside.exists() else None)
    if path is None:
        pytest.skip(f"{name} is not installed; scripts/test fetches it with apt-get")
    return path


def promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool, with ``text`` as its input."""
    return subprocess.run(
        [tool("promtool"), *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


class Prometheus:
    """
    Prometheus on a port of the operating system's choice, reading ``docs/ops/prometheus.yml``.

    Args:
        directory: Where it keeps its files.
        supervisor: ``host:port`` that replaces the default address.
        interval: The interval of scraping, discovery and rules.
    """

    def __init__(self, directory: Path, supervisor: str, interval: str) -> None:
        for name in FILES:
            shutil.copy(OPS / name, directory)
        config = directory / "prometheus.yml"
        text = config.read_text()
        assert ADDRESS_IN_FILES in text
        text = text.replace(ADDRESS_IN_FILES, supervisor)
        config.write_text(re.sub(r"interval: \S+", f"interval: {interval}", text))
        self.log = directory / "prometheus.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    tool("prometheus"),
                    f"--config.file={config}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    "--web.listen-address=127.0.0.1:0",
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    @property
    def address(self) -> str | None:
        """``host:port`` once it listens."""
        assert self._process.poll() is None, self.log.read_text()
        found = re.search(r'msg="Listening on" address=(\S+)', self.log.read_text())
        return found[1] if found else None

    def api(self, path: str, **parameters: str) -> JSON:
        """``data`` of an answer of the HTTP API; None until it serves."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return None
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from error

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The labels and finite values of an expression now."""
        data = self.api("query", query=expression)
        samples = [
            (sample["metric"], float(sample["value"][1])) for sample in (data or {})["result"]
        ]
        return [(labels, value) for labels, value in samples if math.isfinite(value)]

    def types(self, metric: str) -> set[str]:
        """The declared types of a metric. In OpenMetrics the name of a counter lacks ``_total``."""
        return {
            entry["type"]
            for name in {metric, metric.removesuffix("_total")}
            for entries in (self.api("metadata", metric=name) or {}).values()
            for entry in entries
        }

    def targets(self) -> list[dict[str, Any]]:
        """The targets that it scrapes."""
        return list((self.api("targets", state="active") or {}).get("activeTargets", []))

    def rules(self) -> list[dict[str, Any]]:
        """The rules that it evaluates."""
        groups = (self.api("rules") or {}).get("groups", [])
        return [rule for group in groups for rule in group["rules"]]

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
