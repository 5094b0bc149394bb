"""
Production monitoring: is the data there, fresh, complete and real? One line whenever that changes.

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

from bybit_pipeline.shared.client import PipelineClient
from bybit_pipeline.shared.errors import NoPipelineError

MAX_AGE_S = 5.0
"""A market is published at least once a second; older than this, something hangs."""


def problems(client: PipelineClient, symbols: list[str], accepted: list[str]) -> Iterator[str]:
    """Everything that speaks against trading on the numbers now; nothing if all is well."""
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
            yield f"{symbol}: trades not published any more"
    for topic in client.topics("process."):
        status = client.get_message(topic)
        if status is None:
            continue
        if status["state"] != "up":
            yield f"{status['process']} is {status['state']}"
        elif status.get("connected") is False:
            yield f"{status['process']} is not connected to {status['url']}"


def main() -> None:
    """Print a line whenever the state or the loss count changes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("symbols", nargs="*", type=str.upper, default=["BTCUSDT", "ETHUSDT"])
    parser.add_argument("--endpoint", help="of the metrics socket; else found in the run directory")
    parser.add_argument("--run-dir")
    parser.add_argument("--accept", nargs="+", default=["live"], help="sources to trust")
    parser.add_argument("--count", type=int, help="stop after so many lines")
    parser.add_argument("--seconds", type=float, help="stop after so many seconds")
    options = parser.parse_args()
    deadline = None if options.seconds is None else time.monotonic() + options.seconds
    told, lines = "", 0
    # No subscribe: that would narrow it to symbols, and the processes are wanted as well.
    with PipelineClient(options.endpoint, options.run_dir) as client:
        while lines != options.count and (deadline is None or time.monotonic() < deadline):
            time.sleep(1.0)
            state = "; ".join(problems(client, options.symbols, options.accept)) or "all well"
            if state != told:
                print(f"{state} (source={client.source} lost={client.lost})", flush=True)
                told = state
                lines += 1


if __name__ == "__main__":
    try:
        main()
    except NoPipelineError as error:
        print(f"{error}; scripts/up starts one", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        pass  # the way to end it
