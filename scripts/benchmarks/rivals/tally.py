"""The common part of all drivers: options, counting, and the final report."""

import argparse
import json
import sys
import time


class Tally:
    """
    Counts books and trades up to the expected numbers.

    A driver calls ``add_book`` and ``add_trades`` in its callbacks, and ``done`` after the last
    message. Counting costs a rival two additions and a comparison, and nothing else is done with
    the data.
    """

    def __init__(self, books: int, trades: int) -> None:
        self.books = 0
        self.trades = 0
        self._left = books + trades

    def add_book(self) -> bool:
        """Count a book message; return True if everything has arrived."""
        self.books += 1
        self._left -= 1
        return not self._left

    def add_trades(self, count: int = 1) -> bool:
        """Count trades; return True if everything has arrived."""
        self.trades += count
        self._left -= count
        return not self._left

    def done(self, touch: tuple[float, float] | None = None) -> None:
        """Report the end, with the best bid and ask of the first symbol for verification."""
        line = {
            "event": "done",
            "books": self.books,
            "trades": self.trades,
            "touch": touch,
            "at_s": time.monotonic(),
        }
        print(json.dumps(line), flush=True)


def arguments(description: str | None) -> argparse.Namespace:
    """
    Parse ``--url``, ``--symbols A,B`` and the expected numbers of books and trades.

    Every snapshot and delta counts as a book. Trades are counted, and not their messages.
    """
    parser = argparse.ArgumentParser(description=(description or "").strip().splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--symbols", required=True, type=lambda text: text.split(","))
    parser.add_argument("--books", required=True, type=int)
    parser.add_argument("--trades", required=True, type=int)
    parser.add_argument("--variant", default="")
    return parser.parse_args()


def hide_wsaccel() -> None:
    """Make ``import wsaccel`` fail, because websocket-client uses it if it is installed."""
    sys.modules["wsaccel"] = None  # type: ignore[assignment]
    sys.modules["wsaccel.utf8validator"] = None  # type: ignore[assignment]
    sys.modules["wsaccel.xormask"] = None  # type: ignore[assignment]
