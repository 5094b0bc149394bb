"""
Best prices and trades per minute from the metrics socket; needs only pyzmq and msgpack.

    python scripts/examples/subscribe.py BTCUSDT
    python scripts/examples/subscribe.py --endpoint tcp://127.0.0.1:5556 --count 20

A message has two frames: topic and msgpack map. The numbers of a book are null unless it is live. A
jump in ``seq`` means missed messages; the same ``seq`` again is a repeat for a new subscriber.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import zmq


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


def messages(
    endpoint: str, prefixes: list[str], seconds: float | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Topic and payload of every message, starting with the last one of each topic."""
    deadline = None if seconds is None else time.monotonic() + seconds
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
    socket.connect(endpoint)
    for prefix in prefixes:
        socket.subscribe(prefix)
    while deadline is None or time.monotonic() < deadline:
        if socket.poll(100):
            topic, payload = socket.recv_multipart()
            yield topic.decode(), msgpack.unpackb(payload)
    socket.close()


def main() -> None:
    """Print messages until one of the limits is reached."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("symbols", nargs="*", type=str.upper, default=["BTCUSDT", "ETHUSDT"])
    parser.add_argument("--endpoint", help="metrics socket; by default from the run directory")
    parser.add_argument("--run-dir", help="run directory of the pipeline")
    parser.add_argument("--count", type=int, help="stop after this many messages")
    parser.add_argument("--seconds", type=float, help="stop after this time")
    options = parser.parse_args()
    wanted = [f"{kind}.linear.{s}" for s in options.symbols for kind in ("trades", "orderbook")]
    last: dict[tuple[str, str], int] = {}
    count = lost = 0
    endpoint = options.endpoint or find_endpoint(options.run_dir)
    for topic, message in messages(endpoint, wanted, options.seconds):
        if topic not in wanted:
            continue  # subscriptions are prefixes: BTCUSDT matches BTCUSDT-27NOV26 too
        key, seq = (topic, message["epoch"]), message["seq"]
        if seq <= last.get(key, 0):
            continue
        lost += seq - last.get(key, seq - 1) - 1
        last[key] = seq
        if message["state"] == "stale":
            text = f"stale: {message['reason']}"
        elif message["kind"] == "trades":
            window = message["windows"]["60s"]
            text = f"tpm={window['tpm']} vol_delta={window['vol_delta']}"
        else:
            text = f"bid={message['best_bid']} ask={message['best_ask']}"
        print(f"{message['source']} {topic} {text} lost={lost}", flush=True)
        count += 1
        if count == options.count:
            break


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
