"""From a spec to a server: which feed, which instruments, which faults."""

import datetime as dt
from collections.abc import Iterable, Mapping

import structlog

from bybit_pipeline.processes.simulator.faults import Faults, parse_fault
from bybit_pipeline.processes.simulator.feed import Feed
from bybit_pipeline.processes.simulator.market.instruments import instrument_named
from bybit_pipeline.processes.simulator.market.scenario import read_script
from bybit_pipeline.processes.simulator.market.synthetic import SyntheticFeed, listing
from bybit_pipeline.processes.simulator.playback import PlaybackFeed
from bybit_pipeline.processes.simulator.server import Server
from bybit_pipeline.shared.errors import EX_USAGE, PipelineError
from bybit_pipeline.shared.runtime.clock import Clock, SystemClock
from bybit_pipeline.shared.settings.specs import SimulatorSpec
from bybit_pipeline.shared.wire.messages import Category

log = structlog.get_logger()


class OptionError(PipelineError):
    """Something the simulator was asked for that does not exist."""

    exit_code = EX_USAGE


def make_server(
    spec: SimulatorSpec,
    *,
    clock: Clock | None = None,
    category: Category | None = None,
    is_strict: bool = True,
) -> Server:
    """
    A server that does what the spec says; not started.

    Args:
        spec: With a capture, symbols, rate and script are not used.
        clock: The server's clock; its date also names the option contracts.
        category: Of a capture, instead of the one judged by content.
        is_strict: Whether an impossible symbol is an error; else it is only not listed, and the
            exchange refuses it to whoever subscribes it.

    Raises:
        OptionError: For an unknown fault, an impossible symbol, rate or speed, or a bad script.
        CaptureError: If the capture cannot be read.
    """
    clock = clock or SystemClock()
    try:
        faults = Faults({fault.name: fault for fault in map(parse_fault, spec.faults)}, spec.seed)
        feed = _playback(spec, category) if spec.capture else _synthetic(spec, clock, is_strict)
    except ValueError as error:
        raise OptionError(str(error)) from error
    return Server(feed, faults=faults, seed=spec.seed, port=spec.port, clock=clock)


def _playback(spec: SimulatorSpec, category: Category | None) -> Feed:
    return PlaybackFeed(
        spec.capture,
        speed=spec.speed,
        category=category,
        on_finish=lambda totals: log.info("capture finished", capture=spec.capture, **totals),
    )


def _synthetic(spec: SimulatorSpec, clock: Clock, is_strict: bool) -> Feed:
    if spec.rate is not None and not 0 < spec.rate < float("inf"):
        raise ValueError(f"rate must be above zero, not {spec.rate}")
    today = dt.datetime.fromtimestamp(clock.time_ns() / 1e9, tz=dt.UTC).date()
    symbols = spec.symbols if is_strict else _possible(spec.symbols, today)
    instruments = listing(symbols, with_catalogue=spec.with_catalogue, today=today)
    script = read_script(spec.script) if spec.script else []
    listed = {(instrument.category, instrument.symbol) for instrument in instruments}
    for category, symbol in dict.fromkeys(action.key for action in script):
        if (category, symbol) not in listed:
            instruments.append(instrument_named(category, symbol, today))
    return SyntheticFeed(instruments, seed=spec.seed, rate=spec.rate, script=script)


def _possible(
    symbols: Mapping[Category, Iterable[str]], today: dt.date
) -> dict[Category, list[str]]:
    """The symbols that can be instruments of their category; the others are said in the log."""
    possible: dict[Category, list[str]] = {}
    for category, named in symbols.items():
        for symbol in named:
            try:
                instrument_named(category, symbol, today)
            except ValueError as error:
                log.warning("not listed", category=category, symbol=symbol, reason=str(error))
            else:
                possible.setdefault(category, []).append(symbol)
    return possible
