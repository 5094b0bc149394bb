"""A rig: an exchange, a fault proxy and a pipeline, and a subscriber that judges every metric."""

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgpack
import psutil

from scripts.reliability.fault_proxy import FaultProxy
from scripts.reliability.oracle import Oracle
from tests.system.exchange import Exchange
from tests.system.pipeline import Pipeline, until

QUICK = """
[connector]
ping_interval_s = 0.4
pong_timeout_s = 0.6
silence_timeout_s = 1.5
ack_timeout_s = 0.4
backoff_initial_s = 0.1
backoff_max_s = 0.2
"""
CONNECTOR = "connector-linear-0"


class Rig:
    """
    Exchange and pipeline are processes; the proxy is a thread of this one.

    Args:
        directory: Directory of the pipeline's files.
        symbols: Symbols to subscribe, separated by commas.
        rate: Messages per second of the exchange, approximately.
        faults: Faults of the exchange itself, as for ``simulate --fault``.
        config: Configuration of the pipeline.
        topics: Prefix of the metrics to subscribe.
        levels: Levels per side that the pipeline publishes.
        followed: Symbols whose books are compared exactly; None for all.

    Attributes:
        replace: Called in the proxy's thread with every data message; returns the payloads to send
            instead, or None to pass it unchanged.
        on_metric: Called with every metric that ``listen`` reads.
    """

    def __init__(
        self,
        directory: Path,
        *,
        symbols: str = "BTCUSDT,ETHUSDT",
        rate: int = 300,
        faults: tuple[str, ...] = (),
        config: str = QUICK,
        topics: str = "",
        levels: int = 10,
        followed: set[str] | None = None,
    ) -> None:
        self.oracle = Oracle(levels, followed)
        self.replace: Callable[[bytes], Sequence[bytes] | None] | None = None
        self.on_metric: Callable[[dict[str, Any]], None] | None = None
        extra = [word for fault in faults for word in ("--fault", fault)]
        self.exchange = Exchange("--symbols", symbols, "--rate", str(rate), *extra)
        self.proxy = FaultProxy(
            self.exchange.url.replace("{category}", "linear"), on_message=self._on_message
        )
        self.proxy.start()
        self.pipeline = Pipeline(
            directory,
            "--source",
            "live",
            "--url",
            self.proxy.url,
            "--symbols",
            symbols,
            config=config,
            topics=topics,
        )

    def close(self) -> None:
        """End all processes and the proxy."""
        self.pipeline.close()
        self.proxy.stop()
        self.exchange.kill()

    def _on_message(self, payload: bytes) -> Sequence[bytes] | None:
        self.oracle.take(payload)
        return None if self.replace is None else self.replace(payload)

    # -- observation -----------------------------------------------------------------------------

    def listen(self) -> list[dict[str, Any]]:
        """Judge and return the metrics received since the last call."""
        found = []
        while self.pipeline.socket.poll(0):
            topic, payload = self.pipeline.socket.recv_multipart()
            message = {"topic": topic.decode(), **msgpack.unpackb(payload)}
            self.oracle.judge(message)
            if self.on_metric is not None:
                self.on_metric(message)
            found.append(message)
        return found

    def until_seen(
        self, condition: Callable[[dict[str, Any]], Any], what: str, timeout_s: float = 15.0
    ) -> dict[str, Any]:
        """Wait for a metric that satisfies a condition, and return it."""
        found: list[dict[str, Any]] = until(
            lambda: [message for message in self.listen() if condition(message)], what, timeout_s
        )
        return found[0]

    def until_live(self, timeout_s: float = 15.0) -> None:
        """Wait until the last metric of every book is live."""
        states: dict[str, str] = {}

        def is_live() -> bool:
            for message in self.listen():
                if message["kind"] == "orderbook":
                    states[message["topic"]] = message["state"]
            return len(states) >= 2 and set(states.values()) == {"live"}

        with contextlib.suppress(AssertionError):
            until(lambda: self.proxy.open_connections, "a connection", timeout_s)
        try:
            until(is_live, "live again", timeout_s)
        except AssertionError as error:
            log = "".join(self.pipeline.log.read_text().splitlines(keepends=True)[-30:])
            raise AssertionError(
                f"{error}; books: {states}, {self.proxy.open_connections} open connections, "
                f"connectors: {self.pipeline.status()['connectors']}, log:\n{log}"
            ) from None

    def by_reason(self, name: str) -> Counter[str]:
        """Return a counter of the connector by its label ``reason``."""
        found = Counter[str]()
        for sample, value in self.pipeline.counters(CONNECTOR).items():
            if sample.startswith(f"bybit_pipeline_{name}{{"):
                found[sample.partition('reason="')[2].partition('"')[0]] = int(value)
        return found

    def memory_mb(self) -> dict[str, float]:
        """Return the resident memory of every process in megabytes."""
        entries = self.pipeline.status()["processes"]
        return {
            entry["process"]: psutil.Process(entry["pid"]).memory_info().rss / 1e6
            for entry in entries
            if entry["pid"]
        }
