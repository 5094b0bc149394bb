"""
Walls as they appear and end, with asyncio; needs only pyzmq and msgpack.

    python scripts/examples/subscribe_asyncio.py BTCUSDT
    python scripts/examples/subscribe_asyncio.py --seconds 60

Messages pass through a queue to a second task, so that slow work does not delay reading.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgpack
import zmq
import zmq.asyncio

Message = dict[str, Any]
QUEUE = 1_000


def find_endpoint(run_dir: str | None) -> str:
    """The metrics socket of the pipeline on this machine."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    usual = f"{runtime}/bybit-pipeline" if runtime else f"/tmp/bybit-pipeline-{os.getuid()}"
    path = Path(run_dir or usual) / "endpoints.json"
    try:
        return str(json.loads(path.read_text())["metrics"])
    except FileNotFoundError:
        print(f"no pipeline runs in {path.parent}; start one with scripts/up", file=sys.stderr)
        sys.exit(os.EX_UNAVAILABLE)


async def read(endpoint: str, topics: list[str], queue: asyncio.Queue[Message]) -> None:
    """Put every message into the queue; while it is full, ZeroMQ drops messages."""
    socket = zmq.asyncio.Context.instance().socket(zmq.SUB)
    try:
        socket.connect(endpoint)
        for topic in topics:
            socket.subscribe(topic)
        while True:
            frame, payload = await socket.recv_multipart()
            if frame.decode() in topics:
                await queue.put(msgpack.unpackb(payload))
    finally:
        socket.close()


async def show(queue: asyncio.Queue[Message], count: int | None) -> None:
    """Print the events of walls; this stands for slow work."""
    shown = 0
    while shown != count:
        wall = await queue.get()
        print(
            f"{wall['source']} {wall['symbol']} {wall['event']} {wall['side']} {wall['price']}"
            f" size={wall['size']} of {wall['peak_size']}"
            f" eaten={wall['eaten_ratio']:.0%} pulled={wall['pulled_ratio']:.0%}",
            flush=True,
        )
        shown += 1


async def main() -> None:
    """Read and show messages until one of the limits is reached."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("symbols", nargs="*", type=str.upper, default=["BTCUSDT", "ETHUSDT"])
    parser.add_argument("--endpoint", help="metrics socket; by default from the run directory")
    parser.add_argument("--run-dir", help="run directory of the pipeline")
    parser.add_argument("--count", type=int, help="stop after this many messages")
    parser.add_argument("--seconds", type=float, help="stop after this time")
    options = parser.parse_args()
    queue: asyncio.Queue[Message] = asyncio.Queue(QUEUE)
    topics = [f"density.linear.{symbol}" for symbol in options.symbols]
    reader = asyncio.create_task(
        read(options.endpoint or find_endpoint(options.run_dir), topics, queue)
    )
    shower = asyncio.create_task(show(queue, options.count))
    await asyncio.wait(
        {reader, shower}, timeout=options.seconds, return_when=asyncio.FIRST_COMPLETED
    )
    for task in (reader, shower):
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(reader, shower, return_exceptions=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
