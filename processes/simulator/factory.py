"""Make a server from a spec: its feed, its instruments and its faults."""

import datetime as dt
from collections.abc import Iterable, Mapping

import structlog

from bybit_pipeline.processes.simulator.faults import Faults, parse_fault
from bybit_pipeline.processes.simulator.feed import MarketFeed
from bybit_pipeline.processes.simulator.market.instruments import (
    instrument_named,
    make_instruments,
)
from bybit_pipeline.processes.simulator.market.scenario import read_scenario
from bybit_pipeline.processes.simulator.market.synthetic import SyntheticFeed
from bybit_pipeline.processes.simulator.playback import PlaybackFeed
from bybit_pipeline.processes.simulator.server import ExchangeServer
from bybit_pipeline.shared.errors import EX_USAGE, PipelineError
from bybit_pipeline.shared.runtime.clock import Clock, SystemClock
from bybit_pipeline.shared.settings.specs import SimulatorSpec
from bybit_pipeline.shared.wire.messages import Category

log = structlog.get_logger()


class OptionError(PipelineError):
    """An option of the simulator with a value that is not allowed."""

    exit_code = EX_USAGE


def make_server(
    spec: SimulatorSpec,
    *,
    clock: Clock | None = None,
    category: Category | None = None,
    is_strict: bool = True,
) -> ExchangeServer:
    """
    Return the server that a spec describes, not yet started.

    Args:
        spec: With a capture, its symbols, rate and scenario are ignored.
        clock: The server's clock. Its date decides which option contracts are listed.
        category: Category of the capture; detected from its content if None.
        is_strict: Raise an error for an impossible symbol. If False, the symbol is logged and not
            listed, so that the exchange rejects its topics.

    Raises:
        OptionError: For an unknown fault, an impossible symbol, rate or speed, or a scenario
            that cannot be read.
        CaptureError: If the capture cannot be read.
    """
    clock = clock or SystemClock()
    try:
        faults = Faults({fault.name: fault for fault in map(parse_fault, spec.faults)}, spec.seed)
        feed = _playback(spec, category) if spec.capture else _synthetic(spec, clock, is_strict)
    except ValueError as error:
        raise OptionError(str(error)) from error
    return ExchangeServer(feed, faults=faults, seed=spec.seed, port=spec.port, clock=clock)


def _playback(spec: SimulatorSpec, category: Category | None) -> MarketFeed:
    feed = PlaybackFeed(
        spec.capture,
        speed=spec.speed,
        category=category,
        on_finish=lambda totals: log.info("capture finished", capture=spec.capture, **totals),
    )
    if feed.info.skipped:
        log.warning(
            "lines of the capture skipped",
            capture=spec.capture,
            lines=feed.info.skipped,
            first_line=feed.info.first_skipped,
        )
    return feed


def _synthetic(spec: SimulatorSpec, clock: Clock, is_strict: bool) -> MarketFeed:
    if spec.rate is not None and not 0 < spec.rate < float("inf"):
        raise ValueError(f"rate {spec.rate:g}: allowed: a number above zero")
    today = dt.datetime.fromtimestamp(clock.time_ns() / 1e9, tz=dt.UTC).date()
    symbols = spec.symbols if is_strict else _possible(spec.symbols, today)
    instruments = make_instruments(
        symbols, with_defaults=spec.with_default_instruments, today=today
    )
    scenario = read_scenario(spec.script) if spec.script else []
    listed = {instrument.key for instrument in instruments}
    for key in dict.fromkeys(action.key for action in scenario):
        if key not in listed:
            instruments.append(instrument_named(*key, today))
    return SyntheticFeed(instruments, seed=spec.seed, rate=spec.rate, scenario=scenario)


def _possible(
    symbols: Mapping[Category, Iterable[str]], today: dt.date
) -> dict[Category, list[str]]:
    """Return the symbols that can be instruments of their category; log the others."""
    possible: dict[Category, list[str]] = {}
    for category, named in symbols.items():
        for symbol in named:
            try:
                instrument_named(category, symbol, today)
            except ValueError as error:
                log.warning("symbol not listed", category=category, symbol=symbol, error=str(error))
            else:
                possible.setdefault(category, []).append(symbol)
    return possible
