"""
The command line: options in, exit codes and one-line errors out.

Decides how a person's words become calls, and which exit code each end has. Everything heavier
than parsing is imported by the command that needs it, so that ``--help`` and ``status`` are fast.
"""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bybit_pipeline.shared.errors import EX_FAILED, EX_OK, EX_SOFTWARE, EX_USAGE, PipelineError

if TYPE_CHECKING:
    from bybit_pipeline.supervisor.plan.plan import Plan

app = typer.Typer(
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Live market data pipeline for Bybit: trades and order books in, measures out.",
)


def _words(text: str) -> Callable[[], list[str]]:
    """What the shell offers for an option."""
    return lambda: text.split()


def _running_markets(context: typer.Context) -> list[str]:
    """``category:SYMBOL`` of what the running pipeline has; nothing if there is none."""
    from bybit_pipeline.supervisor.cli.control_client import ControlClient

    try:
        with ControlClient(_run_dir(context.params.get("run_dir"), "info")) as requests:
            status = requests.ask("status")
    except (PipelineError, OSError):
        return []
    return sorted(
        {
            f"{connector['process'].split('-')[1]}:{topic.rpartition('.')[2]}"
            for connector in status["connectors"]
            for topic in connector["topics"]
        }
        | {entry["pattern"] for entry in status["patterns"]}
    )


def _symbols(text: str | None) -> str | None:
    """Symbols and patterns separated by commas; people need not type capitals."""
    return text and ",".join(_markets(word.strip() for word in text.split(",")))


def _markets(words: Iterable[str] | None) -> list[str]:
    """The same of a list of symbols, patterns, or either after ``CATEGORY:``."""
    from bybit_pipeline.shared.settings.patterns import with_capitals

    return list(map(with_capitals, words or ()))


def _topic_prefix(text: str) -> str:
    """The same of ``kind.category.SYMBOL``, or of what it begins with."""
    parts = text.split(".", 2)
    return ".".join([*parts[:2], *map(str.upper, parts[2:])])


Config = Annotated[Path | None, typer.Option(help="TOML file; options override it.")]
Category = Annotated[
    str | None,
    typer.Option(
        help="spot, linear, inverse or option.", autocompletion=_words("spot linear inverse option")
    ),
]
Symbols = Annotated[
    str | None,
    typer.Option(help="Separated by commas; *USDT, top:50:turnover.", callback=_symbols),
]
Depth = Annotated[int | None, typer.Option(help="Levels a side: 1 50 200 1000; option 25 100.")]
Source = Annotated[
    str | None,
    typer.Option(help="auto, live, sim or replay.", autocompletion=_words("auto live sim replay")),
]
Network = Annotated[
    str | None, typer.Option(help="mainnet or testnet.", autocompletion=_words("mainnet testnet"))
]
Url = Annotated[str | None, typer.Option(help="Instead of Bybit's; may hold {category}.")]
Capture = Annotated[Path | None, typer.Option(help="Recorded messages to play.")]
Speed = Annotated[float | None, typer.Option(help="Of the replay; 1 is as recorded.")]
RunDirectory = Annotated[Path | None, typer.Option("--run-dir", help="One pipeline runs in it.")]
Metrics = Annotated[str | None, typer.Option(help="Endpoint for subscribers.")]
Port = Annotated[int | None, typer.Option(help="Of the supervisor's HTTP; 0: any free one.")]
LogFormat = Annotated[
    str,
    typer.Option(help="auto, console or json.", autocompletion=_words("auto console json")),
]
LogLevel = Annotated[
    str,
    typer.Option(
        help="debug, info, warning or error.", autocompletion=_words("debug info warning error")
    ),
]
RunningMarkets = Annotated[
    list[str],
    typer.Argument(
        metavar="CATEGORY:SYMBOL",
        show_default=False,
        autocompletion=_running_markets,
        callback=_markets,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
Dashboard = Annotated[bool | None, typer.Option(help="The page in the browser.")]
Markets = Annotated[
    list[str],
    typer.Argument(metavar="CATEGORY:SYMBOL", show_default=False, callback=_markets),
]


LOG_FORMATS = ("auto", "console", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code of contract section 1."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = app(words, prog_name="bybit-pipeline", standalone_mode=False)
        sys.stdout.flush()
    except PipelineError as error:
        return _fail(words, str(error), error.exit_code)
    except SystemExit as end:  # typer's end of completion, and of a broken pipe
        return _reader_gone() if end.code and not _is_completing() else int(end.code or EX_OK)
    except BrokenPipeError:
        return _reader_gone()
    except KeyboardInterrupt:
        return EX_OK
    except Exception as error:
        if hasattr(error, "format_message"):
            text = error.format_message().removeprefix("Invalid value: ").rstrip(".")
            return _fail(words, f"{text}; see --help", EX_USAGE)
        return _fail(words, f"bug: {type(error).__name__}: {error}", EX_SOFTWARE)
    return result if isinstance(result, int) else EX_OK


def _fail(words: Sequence[str], text: str, exit_code: int) -> int:
    """Say what is wrong in one line; the traceback only for ``--log-level debug``."""
    if "debug" in (word.removeprefix("--log-level=") for word in words):
        traceback.print_exc()
    print(" ".join(text.split()), file=sys.stderr)
    return exit_code


def _is_completing() -> bool:
    return "_BYBIT_PIPELINE_COMPLETE" in os.environ


def _reader_gone() -> int:
    """Whoever read our output has had enough: end quietly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EX_OK


def _examples(*lines: str) -> str:
    """What ``--help`` shows below the options, line by line."""
    return "\n".join(["\b", "Examples:", *(f"  bybit-pipeline {line}" for line in lines)])


@app.callback(
    invoke_without_command=True,
    epilog=_examples(
        "up --symbols BTCUSDT,ETHUSDT", "watch BTCUSDT", "tail trades. --json | jq .last_price"
    ),
)
def common(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Live market data pipeline for Bybit: trades and order books in, measures out."""
    if version:
        print(metadata.version("bybit-pipeline"))
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise typer.BadParameter("a command is missing")


# -- running -----------------------------------------------------------------------------------


@app.command(
    epilog=_examples(
        "up",
        "up --symbols BTCUSDT,SOLUSDT --depth 200",
        "up --symbols top:50:turnover",
        "up --category spot --source live",
        "up --dashboard",
        "up --config pipeline.toml --log-format json",
        "up --capture recording.jsonl.gz --speed 10",
    )
)
def up(
    config: Config = None,
    category: Category = None,
    symbols: Symbols = None,
    depth: Depth = None,
    source: Source = None,
    network: Network = None,
    url: Url = None,
    capture: Capture = None,
    speed: Speed = None,
    run_dir: RunDirectory = None,
    metrics: Metrics = None,
    port: Port = None,
    dashboard: Dashboard = None,
    log_format: LogFormat = "auto",
    log_level: LogLevel = "info",
) -> int:
    """
    Run the pipeline in the foreground until Ctrl-C.

    On a terminal it is shown live; q quits, 1 to 9 sort the markets.
    """
    plan = _plan(locals())
    from bybit_pipeline.supervisor.cli.up import run

    return run(plan)


@app.command(
    epilog=_examples(
        "check",
        "check --config pipeline.toml",
        "check --symbols BTCUSDT --json | jq .processes",
    )
)
def check(
    config: Config = None,
    category: Category = None,
    symbols: Symbols = None,
    depth: Depth = None,
    source: Source = None,
    network: Network = None,
    url: Url = None,
    capture: Capture = None,
    speed: Speed = None,
    run_dir: RunDirectory = None,
    metrics: Metrics = None,
    port: Port = None,
    dashboard: Dashboard = None,
    log_format: LogFormat = "auto",
    log_level: LogLevel = "info",
    as_json: AsJson = False,
) -> None:
    """Validate the configuration and print the plan; start nothing."""
    options = locals()
    del options["as_json"]
    plan = _plan(options)
    from bybit_pipeline.supervisor.cli.render import plan_lines, plan_map

    _print(plan_map(plan) if as_json else None, plan_lines(plan))


def _plan(given: dict[str, Any]) -> "Plan":
    """The plan of the options that ``up`` and ``check`` share."""
    from bybit_pipeline.supervisor.cli.options import Options, resolve
    from bybit_pipeline.supervisor.plan.plan import make_plan

    log_format = _one_of("log-format", given.pop("log_format"), *LOG_FORMATS)
    log_level = _one_of("log-level", given.pop("log_level"), *LOG_LEVELS)
    config, run_dir = resolve(Options(**given))
    return make_plan(config, run_dir=run_dir, log_format=log_format, log_level=log_level)


def _one_of(name: str, value: str, *allowed: str) -> Any:
    if value not in allowed:
        raise typer.BadParameter(f"--{name}: {value!r}; allowed: {', '.join(allowed)}")
    return value


@app.command(
    epilog=_examples(
        "simulate --port 9000 --symbols BTCUSDT,ETHUSDT",
        "simulate --seed 7 --rate 500",
        "simulate --fault gap:every=1000",
    )
)
def simulate(
    port: Annotated[int, typer.Option(help="0: any free one.")] = 0,
    symbols: Annotated[
        str | None, typer.Option(help="Separated by commas.", callback=_symbols)
    ] = None,
    category: Category = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same market.")] = None,
    rate: Annotated[float | None, typer.Option(help="Messages a second over all topics.")] = None,
    capture: Capture = None,
    speed: Speed = None,
    script: Annotated[Path | None, typer.Option(help="What happens when, as JSON lines.")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="NAME[:every=N]; repeatable.")] = None,
) -> None:
    """Run the simulated exchange alone."""
    options = {
        "port": port,
        "symbols": symbols,
        "category": category,
        "seed": seed,
        "rate": rate,
        "capture": capture,
        "speed": speed,
        "script": script,
    }
    words = [f"--{name}={value}" for name, value in options.items() if value is not None]
    words += [f"--fault={value}" for value in fault or ()]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "bybit_pipeline.processes.simulator", *words])


@app.command(
    epilog=_examples(
        "keys",
        "keys --dir /etc/bybit-pipeline/keys --client dashboard",
    )
)
def keys(
    directory: Annotated[Path | None, typer.Option("--dir", help="Where they are kept.")] = None,
    client: Annotated[str | None, typer.Option(help="Allow one more client, by name.")] = None,
) -> None:
    """
    Make the keys of the metrics socket, or of one more client.

    See docs/howto/secure.md.
    """
    from bybit_pipeline.shared.settings.curve_keys import make_client_keys, make_server_keys
    from bybit_pipeline.shared.settings.locations import default_keys_dir

    where = Path(os.path.abspath(directory or default_keys_dir()))
    if client is None:
        for name, public in make_server_keys(where).items():
            print(f"{name} {public.decode()}")
        print(f"the keys are in {where}")
    else:
        public, handout = make_client_keys(where, client)
        print(f"{client} {public.decode()}")
        print(f"move {handout} to {client}'s machine: client.key in it is secret")


# -- talking to a running pipeline -------------------------------------------------------------


@app.command(
    epilog=_examples(
        "status",
        "status --json | jq .reasons",
        "status --run-dir /run/bybit-pipeline",
    )
)
def status(
    run_dir: RunDirectory = None,
    as_json: AsJson = False,
    log_level: LogLevel = "info",
) -> None:
    """Show the running pipeline."""
    from bybit_pipeline.supervisor.cli.control_client import ControlClient

    with ControlClient(_run_dir(run_dir, log_level)) as requests:
        answer = requests.ask("status")
    from bybit_pipeline.supervisor.cli.render import status_lines

    _print(answer if as_json else None, status_lines(answer))


@app.command(
    epilog=_examples(
        "gaps",
        "gaps --json | jq length",
    )
)
def gaps(
    run_dir: RunDirectory = None,
    as_json: AsJson = False,
    log_level: LogLevel = "info",
) -> int:
    """
    List when which topic could not be trusted.

    The oldest interval first. Ends with 1 if not every worker answered.
    """
    from bybit_pipeline.supervisor.cli.control_client import ControlClient

    with ControlClient(_run_dir(run_dir, log_level)) as requests:
        answer = requests.ask("gaps")
    from bybit_pipeline.supervisor.cli.render import gap_lines

    if answer["gaps"] or as_json:
        _print(answer["gaps"] if as_json else None, gap_lines(answer["gaps"]))
    else:
        print("no gaps", file=sys.stderr)
    for worker in answer["silent"]:
        print(f"{worker} did not answer", file=sys.stderr)
    return EX_FAILED if answer["silent"] else EX_OK


@app.command(
    epilog=_examples(
        "subscribe linear:SOLUSDT",
        "subscribe spot:BTCUSDT spot:ETHUSDT",
        "subscribe 'linear:*USDT'",
        "subscribe linear:top:50:turnover",
    )
)
def subscribe(markets: Markets, run_dir: RunDirectory = None, log_level: LogLevel = "info") -> int:
    """
    Add markets; the others go on undisturbed.

    Ends with 1 if the exchange refuses one, which is not followed then, or has not answered yet.
    """
    from bybit_pipeline.supervisor.cli.control_client import (
        ControlClient,
        wait_for_answers,
        wait_for_patterns,
    )
    from bybit_pipeline.supervisor.plan.market_args import parse_market

    for word in markets:
        parse_market(word)
    with ControlClient(_run_dir(run_dir, log_level)) as requests:
        answer = requests.ask("subscribe", markets=markets)
        exit_code = EX_OK
        for entry in wait_for_patterns(requests, answer["patterns"]):
            is_served = entry["state"] == "resolved"
            says = (
                f"{len(entry['symbols'])} symbols"
                if is_served
                else entry["reason"] or "no list yet"
            )
            line = f"{entry['pattern']} {entry['state']}: {says}"
            print(line, file=sys.stdout if is_served else sys.stderr)
            exit_code = exit_code if is_served else EX_FAILED
        for each in wait_for_answers(requests, answer["topics"]):
            is_served = each.state in ("confirmed", "delivering")
            reason = f": {each.reason}" if each.reason else ""
            line = f"{each.category} {each.topic} {each.state}{reason}"
            print(line, file=sys.stdout if is_served else sys.stderr)
            exit_code = exit_code if is_served else EX_FAILED
    return exit_code


@app.command(
    epilog=_examples(
        "unsubscribe linear:SOLUSDT",
        "unsubscribe 'linear:*USDT'",
    )
)
def unsubscribe(
    markets: RunningMarkets, run_dir: RunDirectory = None, log_level: LogLevel = "info"
) -> None:
    """Remove markets; the others go on undisturbed."""
    from bybit_pipeline.shared.wire.topics import parse_topic
    from bybit_pipeline.supervisor.cli.control_client import ControlClient
    from bybit_pipeline.supervisor.plan.market_args import parse_market

    for word in markets:
        parse_market(word)
    with ControlClient(_run_dir(run_dir, log_level)) as requests:
        answer = requests.ask("unsubscribe", markets=markets)
        for entry in answer["topics"]:
            category = parse_topic(entry["bus_topic"]).category
            print(f"{category} {entry['topic']} unsubscribed")
        for pattern in answer["patterns"]:
            print(f"{pattern} unsubscribed")
        if answer["patterns"]:
            print(f"{answer['symbols']} symbols no longer followed")


@app.command(
    epilog=_examples(
        "tail",
        "tail orderbook.linear.BTCUSDT --count 1 --json",
        "tail trades. --json | jq -c '[.symbol, .windows.\"60s\".tpm]'",
        "tail density. --timeout 60",
    )
)
def tail(
    topic_prefix: Annotated[
        str, typer.Argument(help="Such as trades.linear.BTCUSDT.", callback=_topic_prefix)
    ] = "",
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Stop after seconds.")] = None,
    as_json: AsJson = False,
    run_dir: RunDirectory = None,
    log_level: LogLevel = "info",
) -> int:
    """
    Print metric messages as they come.

    Lines for people on a terminal, else one JSON object a line. Ends with 0 after --count messages,
    or when --timeout is over and no count was asked for; with 1 if the time is over before the
    count.
    """
    from bybit_pipeline.supervisor.cli.tail import print_tail

    return print_tail(
        _run_dir(run_dir, log_level), topic_prefix, count=count, timeout_s=timeout, as_json=as_json
    )


@app.command(
    epilog=_examples(
        "watch",
        "watch BTCUSDT",
        "watch BTCUSDT ETHUSDT spot:BTCUSDT",
    )
)
def watch(
    symbols: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CATEGORY:]SYMBOL", autocompletion=_running_markets, callback=_markets
        ),
    ] = None,
    run_dir: RunDirectory = None,
    log_level: LogLevel = "info",
) -> int:
    """
    Show markets: live on a terminal, one picture otherwise.

    One symbol: ladder, walls, windows and the last trades. Several or none: a table that number
    keys sort; the arrows and Enter open a market. q quits. The one picture ends with 1 if nothing
    was heard of a market.
    """
    from bybit_pipeline.supervisor.cli.tail import wait_for_endpoints
    from bybit_pipeline.supervisor.tui import live

    endpoints = wait_for_endpoints(_run_dir(run_dir, log_level))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        live.watch(
            endpoints["metrics"], symbols or (), pid=endpoints["pid"], keys=endpoints.get("keys")
        )
    return EX_OK


def _print(answer: Any, lines: Iterable[str]) -> None:
    """An answer as JSON, or lines for people if there is none."""
    if answer is not None:
        import json

        print(json.dumps(answer, indent=2))
        return
    from bybit_pipeline.supervisor.tui.highlight import show

    show(lines)


def _run_dir(given: Path | None, log_level: str) -> str:
    """The run directory that a command is about; every command takes ``--log-level``."""
    from bybit_pipeline.shared.settings.locations import own_run_dir
    from bybit_pipeline.supervisor.cli.options import absolute_run_dir

    _one_of("log-level", log_level, *LOG_LEVELS)
    return absolute_run_dir(given or own_run_dir())
