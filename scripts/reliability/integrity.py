"""
Spoils the books of fifty symbols again and again and checks everything the pipeline says.

``scripts/faults`` prints the figures; the test runs a short form.
"""

import argparse
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.reliability.book_proxy import FAULTS, FaultyProxy, digest
from tests.system.exchange import Exchange
from tests.system.pipeline import Pipeline

LEVELS = 50
CONFIG = f"""
[orderbook]
publish_levels = {LEVELS}
publish_interval_ms = 20
[connector]
topics_per_socket = 500
"""
LATE_SNAPSHOT_SHARE = 0.02
UNDETECTED_AFTER_S = 10.0
SYMBOLS = [f"T{number:02}USDT" for number in range(50)]


@dataclass
class Figures:
    """What one run counted."""

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
        """One line a figure."""
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


class Watch:
    """One symbol's way from a fault to the next live book."""

    def __init__(self) -> None:
        self.fault = ""
        self.injected_at = 0.0
        self.detected = False
        self.is_live = False
        self.next_at = 0.0


def run(faults: int, *, seed: int = 1, timeout_s: float = 600.0) -> Figures:
    """Inject ``faults`` faults, each once the book of its symbol is live again."""
    figures = Figures()
    watches = {symbol: Watch() for symbol in SYMBOLS}
    chance = random.Random(seed)

    def on_injected(symbol: str, fault: str) -> None:
        watch = watches[symbol]
        watch.fault, watch.injected_at = fault, time.monotonic()
        figures.injected[fault] += 1

    with TemporaryDirectory() as directory:
        exchange = Exchange("--symbols", ",".join(SYMBOLS), "--rate", "1500")
        proxy = FaultyProxy(
            exchange.url.replace("{category}", "linear"),
            levels=LEVELS,
            on_injected=on_injected,
            seed=seed,
            late_snapshot_share=LATE_SNAPSHOT_SHARE,
        )
        proxy.start()
        pipeline = Pipeline(
            Path(directory),
            "--source",
            "live",
            "--url",
            proxy.url,
            "--symbols",
            ",".join(SYMBOLS),
            config=CONFIG,
            topics="orderbook.",
        )
        try:
            _drive(pipeline, proxy, watches, figures, faults, chance, timeout_s)
            figures.late_snapshots = proxy.late_snapshots
        finally:
            pipeline.close()
            proxy.stop()
            exchange.kill()
    return figures


def _drive(
    pipeline: Pipeline,
    proxy: FaultyProxy,
    watches: dict[str, Watch],
    figures: Figures,
    faults: int,
    chance: random.Random,
    timeout_s: float,
) -> None:
    armed = 0
    deadline = time.monotonic() + timeout_s
    for message in pipeline.messages():
        now = time.monotonic()
        assert now < deadline, f"not done in {timeout_s:g} s\n{figures.report()}"
        symbol, watch = message["symbol"], watches[message["symbol"]]
        watch.is_live = message["state"] == "live"
        if watch.is_live:
            figures.live_books_checked += 1
            book = digest(message["bids"], message["asks"])
            if proxy.truth[symbol].get(message["update_id"]) != book:
                figures.wrong.append(f"{symbol} at {message['update_id']} after {watch.fault}")
        elif message["bids"] or message["mid_price"] is not None:
            figures.wrong.append(f"{symbol} has numbers while {message['state']}")
        if watch.injected_at:
            _follow(watch, message["reason"], figures, symbol, now)
        elif watch.is_live and armed < faults and now >= watch.next_at and not watch.fault:
            watch.fault = "armed"
            armed += 1
            proxy.arm(symbol, chance.choice(FAULTS))
        if armed == faults and all(w.is_live and not w.fault for w in watches.values()):
            return
    raise AssertionError(f"the metrics fell silent\n{figures.report()}\n{pipeline.log_tail()}")


def _follow(watch: Watch, reason: str | None, figures: Figures, symbol: str, now: float) -> None:
    took = now - watch.injected_at
    if not watch.detected and not watch.is_live:
        watch.detected = True
        figures.detected += 1
        figures.reasons[str(reason)] += 1
        figures.longest_detection_s = max(figures.longest_detection_s, took)
    elif watch.detected and watch.is_live:
        figures.longest_recovery_s = max(figures.longest_recovery_s, took)
        _rest(watch, now)
    elif not watch.detected and took > UNDETECTED_AFTER_S:
        figures.undetected.append(f"{symbol} {watch.fault}")
        _rest(watch, now)


def _rest(watch: Watch, now: float) -> None:
    watch.fault, watch.injected_at, watch.detected = "", 0.0, False
    watch.next_at = now + 0.05


def main() -> int:
    """Run the long form and print its figures; 1 if anything was wrong or missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=3600.0)
    arguments = parser.parse_args()
    began = time.monotonic()
    figures = run(arguments.faults, seed=arguments.seed, timeout_s=arguments.timeout)
    print(figures.report())
    print(f"took                    {time.monotonic() - began:.0f} s")
    return 1 if figures.wrong or figures.undetected else 0


if __name__ == "__main__":
    raise SystemExit(main())
