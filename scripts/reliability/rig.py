"""An exchange, a bad line in front of it, and a pipeline behind it, all of them real processes."""

import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from scripts.reliability.fault_proxy import BadLink
from scripts.reliability.oracle import Truth
from tests.system.exchange import Exchange
from tests.system.pipeline import Pipeline, until

LEVELS = 10
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
    """Two symbols by default; ``close`` ends everything."""

    def __init__(
        self,
        directory: Path,
        *,
        symbols: str = "BTCUSDT,ETHUSDT",
        rate: int = 300,
        faults: tuple[str, ...] = (),
        config: str = QUICK,
        followed: set[str] | None = None,
    ) -> None:
        self.truth = Truth(LEVELS, followed)
        self.spoil: Callable[[bytes], bytes | None] | None = None
        """Another payload for a data frame, an empty one to drop it, None to leave it."""
        self.on_metric: Callable[[dict[str, Any]], None] | None = None
        """Told of every metric that is listened to."""
        extra = [word for fault in faults for word in ("--fault", fault)]
        self.exchange = Exchange("--symbols", symbols, "--rate", str(rate), *extra)
        self.link = BadLink(
            self.exchange.url.replace("{category}", "linear"), on_frame=self._on_frame
        )
        self.link.start()
        self.pipeline = Pipeline(
            directory,
            "--source",
            "live",
            "--url",
            self.link.url,
            "--symbols",
            symbols,
            config=config,
        )

    def close(self) -> None:
        """End everything."""
        self.pipeline.close()
        self.link.stop()
        self.exchange.kill()

    def _on_frame(self, payload: bytes) -> bytes | None:
        self.truth.take(payload)
        return None if self.spoil is None else self.spoil(payload)

    # -- what can be seen ------------------------------------------------------------------------

    def listen(self) -> list[dict[str, Any]]:
        """The metrics that have come since the last call, each judged."""
        import msgpack

        found = []
        while self.pipeline.socket.poll(0):
            topic, payload = self.pipeline.socket.recv_multipart()
            message = {"topic": topic.decode(), **msgpack.unpackb(payload)}
            self.truth.judge(message)
            if self.on_metric is not None:
                self.on_metric(message)
            found.append(message)
        return found

    def until_seen(
        self, condition: Callable[[dict[str, Any]], Any], what: str, timeout_s: float = 15.0
    ) -> dict[str, Any]:
        """The first metric from now on that meets a condition."""
        found: list[dict[str, Any]] = until(
            lambda: [message for message in self.listen() if condition(message)], what, timeout_s
        )
        return found[0]

    def until_live(self, timeout_s: float = 15.0) -> None:
        """Wait until every book is live again, by its last metric."""
        states: dict[str, str] = {}

        def is_live() -> bool:
            for message in self.listen():
                if message["kind"] == "orderbook":
                    states[message["topic"]] = message["state"]
            return len(states) >= 2 and set(states.values()) == {"live"}

        with contextlib.suppress(AssertionError):
            until(lambda: self.link.open_lines, "a connection", timeout_s)
        try:
            until(is_live, "live again", timeout_s)
        except AssertionError as error:
            log = "".join(self.pipeline.log.read_text().splitlines(keepends=True)[-30:])
            raise AssertionError(
                f"{error}; books: {states}, {self.link.open_lines} lines open, "
                f"connectors: {self.pipeline.status()['connectors']}, log:\n{log}"
            ) from None

    def by_reason(self, name: str) -> Counter[str]:
        """The connector's counter of this name by its label ``reason``."""
        found = Counter[str]()
        for sample, value in self.pipeline.counters(CONNECTOR).items():
            if sample.startswith(f"bybit_pipeline_{name}{{"):
                found[sample.partition('reason="')[2].partition('"')[0]] = int(value)
        return found

    def memory_mb(self) -> dict[str, float]:
        """Resident memory of every process."""
        entries = self.pipeline.status()["processes"]
        return {
            entry["process"]: psutil.Process(entry["pid"]).memory_info().rss / 1e6
            for entry in entries
            if entry["pid"]
        }
