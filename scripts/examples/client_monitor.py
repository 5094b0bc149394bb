"""
Are the data present, recent, complete and real? Prints one line whenever the answer changes.

    python scripts/examples/client_monitor.py BTCUSDT ETHUSDT
    python scripts/examples/client_monitor.py --accept sim --seconds 10

Checks every second: the link to the pipeline, the source, every book and its trades, how old they
are, the exchange's connections, messages lost. Prometheus does this for you as well
(docs/howto/alerts.md); this is for a program that trades on the numbers and must know by itself.
"""

import argparse
import sys
import time
from collections.abc import Iterator

from bybit_pipeline import PipelineClient
from bybit_pipeline.shared.errors import NoPipelineError

MAX_AGE_S = 5.0
"""A market is published at least once per second; if it is older, a process is hung."""


def problems(client: PipelineClient, symbols: list[str], accepted: list[str]) -> Iterator[str]:
    """The reasons not to trade on the numbers now; none if all is well."""
    if not client.connected:
        yield "not connected to the pipeline"
        return
    if client.source not in accepted:
        yield f"source is {client.source}, not {' or '.join(accepted)}"
    for symbol in symbols:
        book = client.get_snapshot(symbol)
        if book is None:
            yield f"{symbol}: no book received"
        elif book.state != "live":
            yield f"{symbol}: book {book.state} ({book.reason})"
        trades = client.get_message(f"trades.linear.{symbol}")
        if trades is None:
            yield f"{symbol}: no trades received"
        elif trades["state"] == "stale":
            yield f"{symbol}: trades stale ({trades['reason']})"
        elif time.time() - trades["publish_ts_ns"] / 1e9 > MAX_AGE_S:
            yield f"{symbol}: trades no longer published"
    for topic in client.topics("process."):
        status = client.get_message(topic)
        if status is None:
            continue
        if status["state"] != "up":
            yield f"{status['process']} is {status['state']}"
        elif status.get("connected") is False:
            yield f"{status['process']} is not connected to {status['url']}"


def main() -> None:
    """Print a line whenever the problems change."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("symbols", nargs="*", type=str.upper, default=["BTCUSDT", "ETHUSDT"])
    parser.add_argument("--endpoint", help="metrics socket; by default from the run directory")
    parser.add_argument("--run-dir", help="run directory of the pipeline")
    parser.add_argument("--accept", nargs="+", default=["live"], help="sources to accept")
    parser.add_argument("--count", type=int, help="stop after this many lines")
    parser.add_argument("--seconds", type=float, help="stop after this time")
    options = parser.parse_args()
    deadline = None if options.seconds is None else time.monotonic() + options.seconds
    printed, lines = "", 0
    # No subscribe: it would exclude the status of the processes.
    with PipelineClient(options.endpoint, options.run_dir) as client:
        while lines != options.count and (deadline is None or time.monotonic() < deadline):
            time.sleep(1.0)
            state = "; ".join(problems(client, options.symbols, options.accept)) or "all well"
            if state != printed:
                print(f"{state} (source={client.source} lost={client.lost})", flush=True)
                printed = state
                lines += 1


if __name__ == "__main__":
    try:
        main()
    except NoPipelineError as error:
        print(f"{error}; start one with scripts/up", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        pass  # stopped by the user
