"""
Several symbols with the Python client for asyncio: mid prices and the events of walls.

    python scripts/examples/client_asyncio.py BTCUSDT ETHUSDT
    python scripts/examples/client_asyncio.py --count 5

Two tasks share one client. Run it in the virtual environment of the pipeline.
"""

import argparse
import asyncio
import sys

from bybit_pipeline import AsyncPipelineClient
from bybit_pipeline.shared.errors import NoPipelineError


def prices(client: AsyncPipelineClient, symbols: list[str]) -> str:
    """One line with the mid price of every symbol; a dash where the book is not live."""
    books = {symbol: client.get_snapshot(symbol) for symbol in symbols}
    texts = [
        f"{symbol}={'-' if book is None or book.mid_price is None else book.mid_price}"
        for symbol, book in books.items()
    ]
    return f"{client.source} {' '.join(texts)} lost={client.lost}"


async def print_prices(
    client: AsyncPipelineClient, symbols: list[str], count: int | None, interval_s: float
) -> None:
    """Print ``count`` lines; the getters do not wait."""
    lines = 0
    while lines != count:
        await asyncio.sleep(interval_s)
        print(prices(client, symbols), flush=True)
        lines += 1


async def print_walls(client: AsyncPipelineClient) -> None:
    """Print the events of walls as they arrive."""
    async for topic, wall in client:
        if topic.startswith("density."):
            text = f"{wall['event']} {wall['side']} {wall['price']} size={wall['size']}"
            print(f"{wall['source']} {wall['symbol']} wall {text}", flush=True)


async def main() -> None:
    """Print prices and walls until one of the limits is reached."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("symbols", nargs="*", type=str.upper, default=["BTCUSDT", "ETHUSDT"])
    parser.add_argument("--endpoint", help="metrics socket; by default from the run directory")
    parser.add_argument("--run-dir", help="run directory of the pipeline")
    parser.add_argument("--count", type=int, help="number of price lines; by default without end")
    parser.add_argument("--seconds", type=float, default=1.0, help="interval between price lines")
    options = parser.parse_args()
    async with AsyncPipelineClient(options.endpoint, options.run_dir) as client:
        for symbol in options.symbols:
            client.subscribe(symbol)
        walls = asyncio.create_task(print_walls(client))
        await print_prices(client, options.symbols, options.count, options.seconds)
    await walls  # ends when the client is closed


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except NoPipelineError as error:
        print(f"{error}; start one with scripts/up", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        pass  # stopped by the user
