"""
An alert when a symbol is active and one-sided (by default tpm > 100 and |imbalance| > 0.3).

    python scripts/examples/client_alert.py BTCUSDT ETHUSDT SOLUSDT
    python scripts/examples/client_alert.py --tpm 500 --imbalance 0.6

Checks a symbol whenever its book is published. One alert per symbol until it is calm again.
"""

import argparse
import sys
import time

from bybit_pipeline import PipelineClient
from bybit_pipeline.shared.errors import NoPipelineError


def alert_text(
    client: PipelineClient, symbol: str, min_tpm: float, min_imbalance: float
) -> str | None:
    """The text of an alert; None if the symbol is calm or its numbers are unknown."""
    tpm, imbalance = client.get_tpm(symbol, "60s"), client.get_imbalance(symbol, levels=10)
    if tpm is None or imbalance is None:
        return None
    if tpm <= min_tpm or abs(imbalance) <= min_imbalance:
        return None
    side = "bids" if imbalance > 0 else "asks"
    return f"{symbol} tpm={tpm:.0f} imbalance={imbalance:+.2f} ({side} outweigh)"


def main() -> None:
    """Print alerts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("symbols", nargs="*", type=str.upper, default=["BTCUSDT", "ETHUSDT"])
    parser.add_argument("--endpoint", help="metrics socket; by default from the run directory")
    parser.add_argument("--run-dir", help="run directory of the pipeline")
    parser.add_argument("--tpm", type=float, default=100.0, help="trades per minute")
    parser.add_argument("--imbalance", type=float, default=0.3, help="in [0, 1]")
    parser.add_argument("--count", type=int, help="stop after this many alerts")
    parser.add_argument("--seconds", type=float, help="stop after this time")
    options = parser.parse_args()
    deadline = None if options.seconds is None else time.monotonic() + options.seconds
    active: set[str] = set()
    alerts = 0
    with PipelineClient(options.endpoint, options.run_dir) as client:
        for symbol in options.symbols:
            client.subscribe(symbol)
        for topic, message in client:
            if topic.startswith("orderbook."):
                symbol = message["symbol"]
                alert = alert_text(client, symbol, options.tpm, options.imbalance)
                if alert and symbol not in active:
                    print(f"ALERT {message['source']} {alert}", flush=True)
                    active.add(symbol)
                    alerts += 1
                elif not alert:
                    active.discard(symbol)
            if alerts == options.count or (deadline and time.monotonic() > deadline):
                break


if __name__ == "__main__":
    try:
        main()
    except NoPipelineError as error:
        print(f"{error}; start one with scripts/up", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        pass  # stopped by the user
