"""
The command line of the simulated exchange: ``SPEC.json [--lifeline FD]`` as a child, else alone.

Alone it prints ``READY ws://127.0.0.1:PORT/v5/public/{category}`` once it listens, and serves until
SIGINT or SIGTERM. Exit codes: 0 stopped on request, 64 wrong usage or an unreadable capture, 70
bug, 73 the port is taken.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn, get_args

import structlog

from bybit_pipeline.processes.simulator.actor import Simulator
from bybit_pipeline.processes.simulator.factory import OptionError, make_server
from bybit_pipeline.processes.simulator.market.instruments import categories_of
from bybit_pipeline.processes.simulator.server import ExchangeServer
from bybit_pipeline.shared.errors import EX_OK, EX_SOFTWARE, PipelineError
from bybit_pipeline.shared.runtime import actor, logs
from bybit_pipeline.shared.settings.specs import SimulatorSpec
from bybit_pipeline.shared.wire.messages import Category

log = structlog.get_logger()

PROGRAM = "bybit-pipeline simulate"
CATEGORIES: tuple[Category, ...] = get_args(Category)
EXAMPLES = f"""\
Examples:
  {PROGRAM} --port 9000 --symbols BTCUSDT,ETHUSDT
  {PROGRAM} --seed 7 --rate 500
  {PROGRAM} --fault gap:every=1000
"""


class _Parser(argparse.ArgumentParser):
    """A parser that reports wrong usage in one line, with exit code 64."""

    def error(self, message: str) -> NoReturn:
        raise OptionError(message.removeprefix("argument "))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options of a simulator that runs alone."""
    parser = _Parser(
        prog=PROGRAM,
        description="Run the simulated exchange alone.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option(
        "--port",
        type=_converter("--port", int, "a whole number"),
        default=0,
        metavar="N",
        help="TCP port to listen on; 0 is any free port (default 0)",
    )
    option(
        "--symbols",
        metavar="A,B",
        help="symbols to list, separated by commas (default: about 150 instruments)",
    )
    option(
        "--category",
        type=_category,
        metavar="C",
        help="category of the symbols or of the capture: spot, linear, inverse or option "
        "(default: detected)",
    )
    option(
        "--seed",
        type=_converter("--seed", int, "a whole number"),
        default=1,
        metavar="N",
        help="random seed; the same seed gives the same market (default 1)",
    )
    option(
        "--rate",
        type=_converter("--rate", float, "a number"),
        metavar="R",
        help="messages per second over all topics, approximately (default: like the exchange)",
    )
    option(
        "--capture",
        default="",
        metavar="FILE",
        help="replay a recorded capture instead of the synthetic market",
    )
    option(
        "--speed",
        type=_converter("--speed", float, "a number"),
        default=1.0,
        metavar="X",
        help="replay speed of the capture; 1 is real time (default 1)",
    )
    option(
        "--script",
        default="",
        metavar="FILE",
        help="scenario to perform, as JSON lines; see docs/reference/simulator.md",
    )
    option(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[:every=N][,key=value]",
        help="fault to inject; repeatable; see docs/reference/simulator.md",
    )
    return parser


def make_spec(options: argparse.Namespace) -> SimulatorSpec:
    """
    Return the spec of a simulator that runs alone.

    Raises:
        OptionError: For options that exclude each other or are out of range.
    """
    if not 0 <= options.port <= 65535:
        raise OptionError(f"--port: {options.port} is out of range; allowed: 0 to 65535")
    named = _symbols(options.symbols)
    if options.capture and (named or options.script or options.rate is not None):
        raise OptionError("--capture cannot be combined with --symbols, --rate or --script")
    return SimulatorSpec(
        process="simulator",
        role="simulator",
        run_dir="",
        port=options.port,
        symbols=_by_category(named, options.category),
        with_default_instruments=not named,
        seed=options.seed,
        rate=options.rate,
        capture=options.capture,
        speed=options.speed,
        faults=options.fault,
        script=options.script,
    )


def _converter(
    option: str, convert: type[int] | type[float], allowed: str
) -> Callable[[str], float]:
    """Return a function that converts the text of a numeric option; its error names the option."""

    def parse(text: str) -> float:
        try:
            return convert(text)
        except ValueError:
            raise OptionError(f"{option}: {text!r}; allowed: {allowed}") from None

    return parse


def _category(text: str) -> Category:
    for category in CATEGORIES:
        if text == category:
            return category
    raise OptionError(f"--category: {text!r}; allowed: {', '.join(CATEGORIES)}")


def _symbols(text: str | None) -> list[str]:
    """Return the symbols of a comma-separated list, in capitals; each once, none empty."""
    named = [] if text is None else [symbol.strip().upper() for symbol in text.split(",")]
    for position, symbol in enumerate(named):
        if not symbol:
            raise OptionError("--symbols: a symbol is empty; write them as in BTCUSDT,ETHUSDT")
        if symbol in named[:position]:
            raise OptionError(f"--symbols: {symbol} appears twice; allowed: each symbol once")
    return named


def _by_category(named: Iterable[str], category: Category | None) -> dict[Category, list[str]]:
    symbols: dict[Category, list[str]] = {}
    for symbol in named:
        for each in (category,) if category else categories_of(symbol):
            symbols.setdefault(each, []).append(symbol)
    return symbols


async def _serve(server: ExchangeServer) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    await server.start()
    print(f"READY {server.url}", flush=True)
    try:
        await server.run(stopping)
    finally:
        await server.stop()


def run_alone(arguments: Sequence[str]) -> int:
    """Serve until a signal; return the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(EX_OK))
    logs.configure("simulator")
    try:
        options = make_parser().parse_args(arguments)
        asyncio.run(_serve(make_server(make_spec(options), category=options.category)))
    except PipelineError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return error.exit_code
    except Exception:
        log.exception("bug")
        return EX_SOFTWARE
    return EX_OK


def main() -> int:
    """Run as a child if the first argument is a spec file, else alone."""
    arguments = sys.argv[1:]
    if arguments and arguments[0].endswith(".json"):
        return actor.main(Simulator, SimulatorSpec)
    return run_alone(arguments)
