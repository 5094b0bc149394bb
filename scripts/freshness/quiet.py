"""
A quiet market: one update per minute of every book and tape, and nothing wrong.

Silence alone is no reason for ``stale``: connection and workers prove that they are alive. All
symbols share one connection, which is therefore quiet as well. Every symbol is one repetition.
"""

import datetime as dt
import json
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from bybit_pipeline.processes.simulator.market.instruments import Instrument, make_instruments
from scripts.freshness.bench import DASHBOARD, Sample, check, open_views
from scripts.freshness.faults import STREAMS, VIEWS
from scripts.freshness.judge import Claim
from scripts.freshness.views import READY
from tests.system.exchange import Exchange
from tests.system.pipeline import Pipeline, until

PERIOD_S = 60
OBSERVED_S = 80.0
"""Longer than one period, so that every market has been quiet for a whole one."""
PERIODS = 5
START_S = 20.0


def scenario(instrument: Instrument) -> str:
    """Return the actions of one instrument: a book and trades that change once per period."""
    period_ms = PERIOD_S * 1000
    price = instrument.tick.count(instrument.start_price) * instrument.tick.value
    every = {"symbol": instrument.symbol}
    actions: list[dict[str, object]] = [{"do": "book", "mid": price, "pulse_ms": period_ms}]
    for at_ms in range(1000, PERIODS * period_ms, period_ms):
        size = instrument.lot.value
        actions.append({"at_ms": at_ms, "do": "print", "side": "Buy", "price": price, "size": size})
    return "\n".join(json.dumps(every | action) for action in actions)


class Silence:
    """How long the claims of every view were not live. Thread-safe: a topic has one thread."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str], bool] = {}
        self._since: dict[tuple[str, str], float] = {}
        self._total_s: dict[tuple[str, str], float] = {}

    def see(self, view: str, topic: str, claim: Claim, /) -> None:
        """Take in what a view shows of a topic."""
        now, key = time.time(), (view, topic)
        if self._shown.get(key) is False:
            self._total_s[key] = self._total_s.get(key, 0.0) + now - self._since[key]
        self._shown[key], self._since[key] = claim.is_live, now

    def is_live(self, keys: list[tuple[str, str]]) -> bool:
        """True if every view shows every topic as live."""
        return all(self._shown.get(key) for key in keys)

    def restart(self) -> None:
        """Forget what was before."""
        self._total_s = {}

    def total_s(self, view: str, topics: Iterable[str]) -> float:
        """Return how many seconds a view did not show a topic as live; the worst of several."""
        now, keys = time.time(), [(view, topic) for topic in topics]
        return max(
            self._total_s.get(key, 0.0) + (0.0 if self._shown[key] else now - self._since[key])
            for key in keys
        )


def run(repeat: int) -> list[Sample]:
    """Observe this number of quiet symbols for more than a period."""
    symbols = [f"Q{number:02}USDT" for number in range(repeat)]
    instruments = make_instruments({"linear": symbols}, with_defaults=False, today=dt.date.today())
    with TemporaryDirectory() as name:
        directory = Path(name)
        script = directory / "scenario.jsonl"
        script.write_text("\n".join(map(scenario, instruments)))
        exchange = Exchange("--symbols", ",".join(symbols), "--script", str(script))
        arguments = ("--source", "live", "--url", exchange.url, "--symbols", ",".join(symbols))
        pipeline = Pipeline(directory, *arguments, config=DASHBOARD)
        try:
            pipeline.wait_ready()
            return observe(pipeline, symbols)
        finally:
            pipeline.close()
            exchange.kill()


def observe(pipeline: Pipeline, symbols: list[str]) -> list[Sample]:
    """Wait until everything is live, then return how long each symbol was not."""
    silence = Silence()
    shown = open_views(pipeline, symbols, silence.see)
    try:
        keys = [(view.name, topic) for view in shown for topic in view.topics]
        until(lambda: silence.is_live(keys), "every view shows everything as live", START_S)
        silence.restart()
        threading.Event().wait(OBSERVED_S)
        check(shown)
        return [
            Sample("quiet", view, silence.total_s(view, topics))
            for view in VIEWS
            for symbol in symbols
            for topics in (
                [READY] if view == "readyz" else [f"{k}.linear.{symbol}" for k in STREAMS],
            )
        ]
    finally:
        for view in shown:
            view.close()
