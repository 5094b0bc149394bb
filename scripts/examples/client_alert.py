"""
Several symbols, and an alert when one is active and one-sided (TPM > 100, |imbalance| > 0.3).

    python scripts/examples/client_alert.py BTCUSDT ETHUSDT SOLUSDT
    python scripts/examples/client_alert.py --tpm 500 --imbalance 0.6

Checks a symbol whenever its book was published, and alerts once until the symbol is calm again.
"""

import argparse
import sys
import time

from bybit_pipeline.shared.client import PipelineClient
from bybit_pipeline.shared.errors import NoPipelineError


def activity(
    client: PipelineClient, symbol: str, min_tpm: float, min_imbalance: float
) -> str | None:
    """What is going on in a symbol, if it is active and one-sided; None also if that is unknown."""
    tpm, imbalance = client.get_tpm(symbol, "60s"), client.get_imbalance(symbol, levels=10)
    if tpm is None or imbalance is None:
        return None
    if tpm <= min_tpm or abs(imbalance) <= min_imbalance:
        return None
    side = "bids" if imbalance > 0 else "asks"
    return f"{symbol} tpm={tpm:.0f} imbalance={imbalance:+.2f} ({side} outweigh)"


def main() -> None:
    """Print alerts as they arise."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("symbols", nargs="*", type=str.upper, default=["BTCUSDT", "ETHUSDT"])
    parser.add_argument("--endpoint", help="of the metrics socket; else found in the run directory")
    parser.add_argument("--run-dir")
    parser.add_argument("--tpm", type=float, default=100.0)
    parser.add_argument("--imbalance", type=float, default=0.3)
    parser.add_argument("--count", type=int, help="stop after so many alerts")
    parser.add_argument("--seconds", type=float, help="stop after so many seconds")
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
                alert = activity(client, symbol, options.tpm, options.imbalance)
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
        print(f"{error}; scripts/up starts one", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        pass  # the way to end it
