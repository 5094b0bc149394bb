"""
Integrity: damage the books of fifty symbols again and again, and check every published number.

``scripts/faults`` runs the long form and prints the figures; a test runs a short form.
"""

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scripts.reliability.rig import Rig
from tests.naive import NaiveBook

LEVELS = 50
CONFIG = f"""
[orderbook]
publish_levels = {LEVELS}
publish_interval_ms = 20
[connector]
topics_per_socket = 500
"""
LATE_SNAPSHOT_SHARE = 0.02
LATE_SNAPSHOT_DELTAS = 3
UNDETECTED_AFTER_S = 10.0
SYMBOLS = [f"T{number:02}USDT" for number in range(50)]
FAULTS = (
    "drop",
    "duplicate",
    "reorder",
    "price_text",
    "size_negative",
    "size_text",
    "crossed",
    "truncated",
    "update_id_reset",
    "update_id_old",
    "too_deep",
)


@dataclass
class Figures:
    """The counts of one run."""

    injected: Counter[str] = field(default_factory=Counter)
    detected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    undetected: list[str] = field(default_factory=list)
    live_books_checked: int = 0
    wrong: list[str] = field(default_factory=list)
    late_snapshots: int = 0
    longest_detection_s: float = 0.0
    longest_recovery_s: float = 0.0

    def report(self) -> str:
        """Return the figures, one per line."""
        return "\n".join(
            [
                f"injected                {sum(self.injected.values())} {dict(self.injected)}",
                f"detected                {self.detected} {dict(self.reasons)}",
                f"undetected              {len(self.undetected)} {self.undetected[:5]}",
                f"late snapshots          {self.late_snapshots}",
                f"longest until detected  {self.longest_detection_s:.3f} s",
                f"longest until recovered {self.longest_recovery_s:.3f} s",
                f"live books checked      {self.live_books_checked}",
                f"wrong numbers published {len(self.wrong)} {self.wrong[:5]}",
            ]
        )


class BookFaults:
    """
    Damages the next delta of a symbol on request, and delays some snapshots.

    Args:
        books: The right book of each symbol, after the message that is replaced.
        on_injected: Called with symbol and fault when a fault has been injected.
        seed: Random seed of late snapshots.
    """

    def __init__(
        self,
        books: dict[str, NaiveBook],
        *,
        on_injected: Callable[[str, str], None],
        seed: int,
    ) -> None:
        self.late_snapshots = 0
        self._books = books
        self._on_injected = on_injected
        self._random = random.Random(seed)
        self._armed: dict[str, str] = {}
        self._held: dict[str, list[bytes]] = {}
        self._late: dict[str, tuple[bytes, int]] = {}
        """Delayed snapshots, and the deltas to send before them."""

    def arm(self, symbol: str, fault: str) -> None:
        """Damage the next delta of ``symbol``."""
        self._armed[symbol] = fault

    def replace(self, payload: bytes) -> Sequence[bytes] | None:
        """Return the payloads to send instead of one; None for itself."""
        if b'"orderbook.' not in payload[:24]:
            return None
        message = json.loads(payload)
        symbol = message["data"]["s"]
        if message["type"] == "snapshot":
            return self._replace_snapshot(symbol, payload)
        if symbol in self._late:
            return self._after_late_snapshot(symbol, payload)
        held = self._held.pop(symbol, [])
        fault = self._armed.pop(symbol, None)
        if fault is None:
            return [payload, *held]
        damaged = self._damage(symbol, fault, payload, message)
        self._on_injected(symbol, fault)
        return [*held, *damaged]

    def _replace_snapshot(self, symbol: str, payload: bytes) -> list[bytes]:
        self._held.pop(symbol, None)
        self._late.pop(symbol, None)
        if self._random.random() >= LATE_SNAPSHOT_SHARE:
            return [payload]
        self._late[symbol] = (payload, LATE_SNAPSHOT_DELTAS)
        self.late_snapshots += 1
        return []

    def _after_late_snapshot(self, symbol: str, payload: bytes) -> list[bytes]:
        snapshot, left = self._late[symbol]
        if left > 1:
            self._late[symbol] = (snapshot, left - 1)
            return [payload]
        del self._late[symbol]
        return [payload, snapshot]

    def _damage(
        self, symbol: str, fault: str, payload: bytes, message: dict[str, Any]
    ) -> list[bytes]:
        data, book = message["data"], self._books[symbol]
        best_bid, best_ask = max(book.bids), min(book.asks)
        match fault:
            case "drop":
                return []
            case "duplicate":
                return [payload, payload]
            case "reorder":
                self._held[symbol] = [payload]
                return []
            case "truncated":
                return [payload[: len(payload) // 2]]
            case "price_text":
                data["b"] = [["12x.5", "1"], *data["b"]]
            case "size_text":
                data["a"] = [[repr(best_ask), ""], *data["a"]]
            case "size_negative":
                data["b"] = [[repr(best_bid), "-1"], *data["b"]]
            case "crossed":
                data["b"] = [[repr(best_ask * 1.01), "1"], *data["b"]]
            case "update_id_reset":
                data["u"] = 1
            case "update_id_old":
                data["u"] -= 5
            case "too_deep":
                extra = [[repr(best_bid * (1 - 0.01 * n)), "1"] for n in range(1, 60)]
                data["b"] = [*data["b"], *extra]
            case _:
                raise ValueError(fault)
        return [json.dumps(message, separators=(",", ":")).encode()]


class Watch:
    """The state of one symbol, from a fault to the next live book."""

    def __init__(self) -> None:
        self.fault = ""
        self.injected_at = 0.0
        self.detected = False
        self.is_live = False
        self.next_at = 0.0

    def reset(self, now: float) -> None:
        """Be ready for the next fault."""
        self.fault, self.injected_at, self.detected = "", 0.0, False
        self.next_at = now + 0.05


class Integrity:
    """One run; see ``run``."""

    def __init__(self, directory: Path, *, seed: int) -> None:
        self.figures = Figures()
        self.rig = Rig(
            directory,
            symbols=",".join(SYMBOLS),
            rate=1_500,
            config=CONFIG,
            topics="orderbook.",
            levels=LEVELS,
        )
        self._watches = {symbol: Watch() for symbol in SYMBOLS}
        self._random = random.Random(seed)
        self._left = 0
        self._faults = BookFaults(self.rig.oracle.books, on_injected=self._on_injected, seed=seed)
        self.rig.replace = self._faults.replace
        self.rig.on_metric = self._on_metric

    def inject(self, faults: int, *, timeout_s: float) -> None:
        """Inject faults, each when the book of its symbol is live again."""
        self._left = faults
        deadline = time.monotonic() + timeout_s
        while self._left or not all(w.is_live and not w.fault for w in self._watches.values()):
            assert time.monotonic() < deadline, (
                f"not finished within {timeout_s:g} s\n{self.figures.report()}\n"
                f"{self.rig.pipeline.log_tail()}"
            )
            self.rig.pipeline.socket.poll(1000)
            self.rig.listen()
        self.figures.live_books_checked = self.rig.oracle.checked
        self.figures.late_snapshots = self._faults.late_snapshots

    def _on_injected(self, symbol: str, fault: str) -> None:
        watch = self._watches[symbol]
        watch.fault, watch.injected_at = fault, time.monotonic()
        self.figures.injected[fault] += 1

    def _on_metric(self, message: dict[str, Any]) -> None:
        symbol, watch = message["symbol"], self._watches[message["symbol"]]
        watch.is_live = message["state"] == "live"
        wrong = self.rig.oracle.wrong
        self.figures.wrong += [f"{text}, after {watch.fault or 'no fault'}" for text in wrong]
        wrong.clear()
        now = time.monotonic()
        if watch.injected_at:
            self._follow(symbol, watch, message["reason"], now)
        elif watch.is_live and self._left and now >= watch.next_at and not watch.fault:
            watch.fault = "armed"
            self._left -= 1
            self._faults.arm(symbol, self._random.choice(FAULTS))

    def _follow(self, symbol: str, watch: Watch, reason: str | None, now: float) -> None:
        figures, took = self.figures, now - watch.injected_at
        if not watch.detected and not watch.is_live:
            watch.detected = True
            figures.detected += 1
            figures.reasons[str(reason)] += 1
            figures.longest_detection_s = max(figures.longest_detection_s, took)
        elif watch.detected and watch.is_live:
            figures.longest_recovery_s = max(figures.longest_recovery_s, took)
            watch.reset(now)
        elif not watch.detected and took > UNDETECTED_AFTER_S:
            figures.undetected.append(f"{symbol} {watch.fault}")
            watch.reset(now)


def run(faults: int, *, seed: int = 1, timeout_s: float = 600.0) -> Figures:
    """Inject this number of faults and return the figures."""
    with TemporaryDirectory() as directory:
        integrity = Integrity(Path(directory), seed=seed)
        try:
            integrity.inject(faults, timeout_s=timeout_s)
        finally:
            integrity.rig.close()
    return integrity.figures


def main() -> int:
    """Run the long form and print its figures; return 1 if anything was wrong or undetected."""
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=10_000, help="number of faults")
    parser.add_argument("--seed", type=int, default=1, help="random seed")
    parser.add_argument("--timeout", type=float, default=3600.0, help="time limit in seconds")
    arguments = parser.parse_args()
    began = time.monotonic()
    figures = run(arguments.faults, seed=arguments.seed, timeout_s=arguments.timeout)
    print(figures.report())
    print(f"took                    {time.monotonic() - began:.0f} s")
    return 1 if figures.wrong or figures.undetected else 0


if __name__ == "__main__":
    raise SystemExit(main())
