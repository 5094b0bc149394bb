"""
Run the simulated exchange: ``SPEC.json [--lifeline FD]`` as a child of the pipeline, else alone.

Alone it prints ``READY ws://127.0.0.1:PORT/v5/public/{category}`` when it listens and serves until
SIGINT or SIGTERM. Exit codes: 0 asked to stop, 64 wrong usage or an unreadable capture, 73 the
port is taken, 70 bug.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

import structlog

from bybit_pipeline.processes.simulator.actor import Simulator
from bybit_pipeline.processes.simulator.factory import OptionError, make_server
from bybit_pipeline.processes.simulator.market.instruments import categories_of
from bybit_pipeline.processes.simulator.server import Server
from bybit_pipeline.shared.bybit import CATEGORIES
from bybit_pipeline.shared.errors import EX_OK, EX_SOFTWARE, PipelineError
from bybit_pipeline.shared.runtime import actor, logs
from bybit_pipeline.shared.settings.specs import SimulatorSpec
from bybit_pipeline.shared.wire.messages import Category

log = structlog.get_logger()


class _Parser(argparse.ArgumentParser):
    """Wrong usage is one line and exit code 64."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(OptionError.exit_code)


def make_parser() -> argparse.ArgumentParser:
    """The options of the simulator alone."""
    parser = _Parser(prog="simulate", description="The simulated exchange alone.")
    option = parser.add_argument
    option("--port", type=int, default=0, metavar="N", help="0, the default: any free port")
    option("--symbols", metavar="A,B", help="exactly these instead of the catalogue")
    option("--category", choices=CATEGORIES, help="of the symbols; or of the capture")
    option("--seed", type=int, default=1, metavar="N", help="same seed, same market")
    option("--rate", type=float, metavar="R", help="about R messages a second over all topics")
    option("--capture", default="", metavar="FILE", help="play this instead of a made market")
    option("--speed", type=float, default=1.0, metavar="X", help="of the capture")
    option("--script", default="", metavar="FILE", help="JSON lines; see simulator/scenario.py")
    option(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[:every=N][,key=value]",
        help="misbehave; repeatable; see simulator/faults.py",
    )
    return parser


def make_spec(options: argparse.Namespace) -> SimulatorSpec:
    """
    The spec of a simulator that runs alone.

    Raises:
        OptionError: For options that do not go together or are out of range.
    """
    if not 0 <= options.port <= 65535:
        raise OptionError(f"--port {options.port}: allowed: 0 to 65535")
    named = _symbols(options.symbols)
    if options.capture and (named or options.script or options.rate is not None):
        raise OptionError("--capture does not go with --symbols, --rate or --script")
    return SimulatorSpec(
        process="simulator",
        role="simulator",
        run_dir="",
        port=options.port,
        symbols=_by_category(named, options.category),
        with_catalogue=not named,
        seed=options.seed,
        rate=options.rate,
        capture=options.capture,
        speed=options.speed,
        faults=options.fault,
        script=options.script,
    )


def _symbols(text: str | None) -> list[str]:
    """The symbols in a list with commas; none empty and none twice, as on ``up``."""
    named = [] if text is None else [symbol.strip() for symbol in text.split(",")]
    for position, symbol in enumerate(named):
        if not symbol:
            raise OptionError("--symbols: one is empty; allowed: such as BTCUSDT,ETHUSDT")
        if symbol in named[:position]:
            raise OptionError(f"--symbols: {symbol} is there twice; allowed: each symbol once")
    return named


def _by_category(named: Iterable[str], category: Category | None) -> dict[Category, list[str]]:
    symbols: dict[Category, list[str]] = {}
    for symbol in named:
        for each in (category,) if category else categories_of(symbol):
            symbols.setdefault(each, []).append(symbol)
    return symbols


async def _serve(server: Server) -> None:
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
    """Serve until a signal; the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(EX_OK))
    options = make_parser().parse_args(arguments)
    logs.configure("simulator")
    try:
        asyncio.run(_serve(make_server(make_spec(options), category=options.category)))
    except PipelineError as error:
        print(f"simulate: {error}", file=sys.stderr)
        return error.exit_code
    except Exception:
        log.exception("bug")
        return EX_SOFTWARE
    return EX_OK


def main() -> int:
    """Child or alone, by the first argument."""
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        return actor.main(Simulator, SimulatorSpec)
    return run_alone(arguments)
