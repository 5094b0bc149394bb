"""
One symbol with the Python client: prices, imbalance, depth, trades per minute, walls.

    python scripts/examples/client_basic.py BTCUSDT
    python scripts/examples/client_basic.py --count 5

Run it in the virtual environment of the pipeline.
"""

import argparse
import sys
import time

from bybit_pipeline import PipelineClient
from bybit_pipeline.shared.errors import NoPipelineError


def rounded(value: float | None) -> str:
    """A number with two decimals; an unknown one is never shown as a number."""
    return "unknown" if value is None else f"{value:.2f}"


def report(client: PipelineClient, symbol: str) -> str:
    """One line about a symbol."""
    book = client.get_snapshot(symbol)
    if book is None:
        return f"{symbol}: nothing received yet"
    if book.state != "live":
        return f"{symbol}: the book is {book.state} ({book.reason})"
    return (
        f"{book.source} {symbol} {book.best_bid} / {book.best_ask}"
        f" spread_bps={rounded(book.spread_bps)}"
        f" imbalance={rounded(client.get_imbalance(symbol, levels=10))}"
        f" bid_depth={rounded(client.get_aggregated_depth(symbol, 'bid', range_bps=50))}"
        f" tpm={rounded(client.get_tpm(symbol, '60s'))}"
        f" vol_delta={rounded(client.get_vol_delta(symbol, '60s'))}"
        f" walls={len(client.get_densities(symbol) or ())}"
    )


def main() -> None:
    """Print one line per second."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("symbol", nargs="?", type=str.upper, default="BTCUSDT")
    parser.add_argument("--endpoint", help="metrics socket; by default from the run directory")
    parser.add_argument("--run-dir", help="run directory of the pipeline")
    parser.add_argument("--count", type=int, help="number of lines; by default without end")
    parser.add_argument("--seconds", type=float, default=1.0, help="interval between lines")
    options = parser.parse_args()
    with PipelineClient(options.endpoint, options.run_dir) as client:
        client.subscribe(options.symbol)
        lines = 0
        while lines != options.count:
            time.sleep(options.seconds)
            print(report(client, options.symbol), flush=True)
            lines += 1


if __name__ == "__main__":
    try:
        main()
    except NoPipelineError as error:
        print(f"{error}; start one with scripts/up", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        pass  # stopped by the user
