"""
A subscriber that stops reading: what others notice, and what the forwarder keeps for it.

``scripts/soak lazy --seconds 60``; the suite does it for 6 seconds.
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
"""Options of a rig with large metrics and many of them: a queue fills within a minute."""
DELAY_S = 0.5
FORWARDER_MB = 400.0


class Seen(NamedTuple):
    """What was seen while one subscriber did not read."""

    messages: int
    delay_s: float
    """From published to received by one who reads, of 99 % of the messages at most."""
    before_mb: float
    most_mb: float
    """Resident memory of the forwarder."""

    @property
    def is_good(self) -> bool:
        """Whether nobody else was held up and memory bounded."""
        return self.delay_s < DELAY_S and self.most_mb < FORWARDER_MB


def with_lazy_subscriber(pipeline: Pipeline, seconds: float) -> Seen:
    """Subscribe, read one message and no more, while the pipeline's own subscriber goes on."""
    pipeline.wait_ready()
    forwarder = psutil.Process(pipeline.pid("forwarder"))
    before = forwarder.memory_info().rss
    context = zmq.Context()
    try:
        lazy = context.socket(zmq.SUB)
        lazy.setsockopt(zmq.RCVHWM, 1)
        lazy.setsockopt(zmq.RCVBUF, 4096)
        lazy.subscribe("orderbook.")
        lazy.connect(pipeline.endpoints()["metrics"])
        assert lazy.poll(3000)
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
    return Seen(len(delays), delays[len(delays) * 99 // 100], before / 1e6, most / 1e6)


def main() -> int:
    """Run and print; 1 if others were held up or memory was not bounded."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with TemporaryDirectory() as directory:
        rig = Rig(Path(directory), **FLOOD)
        try:
            seen = with_lazy_subscriber(rig.pipeline, options.seconds)
        finally:
            rig.close()
    print(f"messages to one who reads  {seen.messages}, 99 % within {seen.delay_s:.3f} s")
    print(
        f"memory of the forwarder    {seen.before_mb:.0f} MB before, at most {seen.most_mb:.0f} MB"
    )
    return 0 if seen.is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
