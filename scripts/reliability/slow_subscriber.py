"""
A subscriber that stops reading: the effect on others, and the memory of the forwarder.

``scripts/soak lazy --seconds 60`` runs the long form; a test runs it for 6 seconds.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import psutil
import zmq

from scripts.reliability.rig import QUICK, Rig
from tests.system.pipeline import Pipeline

FLOOD: dict[str, Any] = {
    "symbols": ",".join(f"T{number:02}USDT" for number in range(20)),
    "rate": 1_500,
    "config": QUICK + "[orderbook]\npublish_interval_ms = 10\npublish_levels = 50\n",
    "followed": set(),
}
"""Options of a rig with many large metrics, which fill a queue within a minute."""
DELAY_MAX_S = 0.5
FORWARDER_MAX_MB = 400.0


class Figures(NamedTuple):
    """The figures while one subscriber did not read."""

    messages: int
    """Messages received by the other subscriber."""
    delay_s: float
    """99th percentile of its delay from publishing to receiving."""
    before_mb: float
    most_mb: float
    """Resident memory of the forwarder."""

    @property
    def is_good(self) -> bool:
        """True if the other subscriber was not delayed and memory was bounded."""
        return self.delay_s < DELAY_MAX_S and self.most_mb < FORWARDER_MAX_MB


def measure(pipeline: Pipeline, seconds: float) -> Figures:
    """Add a subscriber that does not read, while the pipeline's own subscriber continues."""
    pipeline.wait_ready()
    forwarder = psutil.Process(pipeline.pid("forwarder"))
    before = forwarder.memory_info().rss
    context = zmq.Context()
    try:
        slow = context.socket(zmq.SUB)
        slow.setsockopt(zmq.RCVHWM, 1)
        slow.setsockopt(zmq.RCVBUF, 4096)
        slow.subscribe("orderbook.")
        slow.connect(pipeline.endpoints()["metrics"])
        assert slow.poll(3000)
        while pipeline.socket.poll(0):
            pipeline.socket.recv_multipart()
        delays, most, measured = [], before, 0.0
        began = time.monotonic()
        for message in pipeline.messages():
            delays.append((time.time_ns() - message["publish_ts_ns"]) / 1e9)
            now = time.monotonic() - began
            if now - measured > 0.5:
                most, measured = max(most, forwarder.memory_info().rss), now
            if now > seconds:
                break
    finally:
        context.destroy(linger=0)
    delays.sort()
    return Figures(len(delays), delays[len(delays) * 99 // 100], before / 1e6, most / 1e6)


def main() -> int:
    """Run and print the figures; return 1 if they are not good."""
    parser = argparse.ArgumentParser(
        prog="scripts/soak lazy",
        description="Measure the effect of a subscriber that stops reading.",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="duration")
    options = parser.parse_args()
    with TemporaryDirectory() as directory:
        rig = Rig(Path(directory), **FLOOD)
        try:
            figures = measure(rig.pipeline, options.seconds)
        finally:
            rig.close()
    print(f"messages to the other      {figures.messages}, 99 % within {figures.delay_s:.3f} s")
    print(
        f"memory of the forwarder    {figures.before_mb:.0f} MB before, "
        f"at most {figures.most_mb:.0f} MB"
    )
    return 0 if figures.is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
