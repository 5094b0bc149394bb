"""What every rival's driver shares: its arguments, counting, and the one line at the end."""

import argparse
import json
import sys
import time


class Tally:
    """
    Counts books and trades; prints ``done`` once both have reached what was asked for.

    A driver adds to ``books`` and ``trades`` in its callbacks and calls ``check``, so that counting
    costs a rival two additions and a comparison. Nothing else is done with the data, except that
    ``touch`` is what the driver's book of the first symbol says, to compare with the truth.
    """

    def __init__(self, books: int, trades: int) -> None:
        self.books = 0
        self.trades = 0
        self._left = books + trades
        self.touch: tuple[float, float] | None = None

    def add_book(self) -> bool:
        """One book message more; whether everything has arrived."""
        self.books += 1
        self._left -= 1
        return not self._left

    def add_trades(self, count: int = 1) -> bool:
        """Some trades more; whether everything has arrived."""
        self.trades += count
        self._left -= count
        return not self._left

    def done(self, touch: tuple[float, float] | None = None) -> None:
        """Say that everything arrived."""
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
    ``--url``, ``--symbols A,B`` and how many books and trades to expect.

    A book message is a snapshot or a delta; trades are counted, not their messages.
    """
    parser = argparse.ArgumentParser(description=(description or "").strip().splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--symbols", required=True, type=lambda text: text.split(","))
    parser.add_argument("--books", required=True, type=int)
    parser.add_argument("--trades", required=True, type=int)
    parser.add_argument("--variant", default="")
    return parser.parse_args()


def hide_wsaccel() -> None:
    """Make ``import wsaccel`` fail: websocket-client uses it unasked when it is installed."""
    sys.modules["wsaccel"] = None  # type: ignore[assignment]
    sys.modules["wsaccel.utf8validator"] = None  # type: ignore[assignment]
    sys.modules["wsaccel.xormask"] = None  # type: ignore[assignment]
