"""Commands that talk to a running pipeline."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from bybit_pipeline.shared.errors import EX_FAILED, EX_OK, NoPipelineError
from bybit_pipeline.supervisor.cli import arguments as args
from bybit_pipeline.supervisor.cli.output import examples, print_answer, print_error

if TYPE_CHECKING:
    from bybit_pipeline.supervisor.cli.control_client import ControlClient

app = typer.Typer()

GAPS_SHOWN = 1_000
"""Gaps that people are shown; JSON has all."""

# Every command takes --log-level: debug shows the traceback of an error.


@contextmanager
def _pipeline(run_dir: Path | None) -> "Iterator[ControlClient]":
    """Connect to the running pipeline; SIGINT and SIGTERM end every wait for it."""
    from bybit_pipeline.supervisor.cli.control_client import ControlClient, chosen_run_dir
    from bybit_pipeline.supervisor.interrupts import Interrupts

    where = chosen_run_dir(run_dir)
    with Interrupts() as interrupts, ControlClient(where, interrupts) as pipeline:
        yield pipeline


@app.command(
    epilog=examples(
        "status",
        "status --json | jq .reasons",
        "status --run-dir /run/bybit-pipeline",
    )
)
def status(
    run_dir: args.RunDirectory = None,
    as_json: args.AsJson = False,
    log_level: args.LogLevel = "info",  # noqa: ARG001
) -> None:
    """Show the processes and topics of the running pipeline."""
    with _pipeline(run_dir) as pipeline:
        answer = pipeline.ask("status")
    from bybit_pipeline.supervisor.cli.render import status_lines

    print_answer(answer if as_json else None, status_lines(answer))


@app.command(
    epilog=examples(
        "gaps",
        "gaps --since 24h --symbol BTCUSDT",
        "gaps --summary --since 30d",
        "gaps --json | jq length",
    )
)
def gaps(
    config: args.LedgerConfigFile = None,
    since: args.Since = None,
    until: args.Until = None,
    symbol: args.GapSymbol = None,
    summary: args.Summary = False,
    run_dir: args.RunDirectory = None,
    as_json: args.AsJson = False,
    log_level: args.LogLevel = "info",  # noqa: ARG001
) -> int:
    """
    List the gaps: when data could not be trusted, and why.

    Reads the gap ledger of the running pipeline, otherwise that in the state_dir of FILE or in the
    default one. It also holds the gaps of earlier runs.

    A configured state_dir may be shared: the gaps of all its pipelines are shown. In the default
    one, only those of the pipeline that runs, or ran, in DIR are shown; without both, all.

    The oldest gap comes first; without --json, only the newest 1,000 are shown. The exit code is 1
    if the running pipeline does not answer: its last gaps may be missing.
    """
    import time

    from bybit_pipeline.supervisor.cli.output import print_array
    from bybit_pipeline.supervisor.cli.render import gap_lines, summary_lines
    from bybit_pipeline.supervisor.ledger.view import LedgerView

    state_dir, waiting, pipeline, fault = _find_ledger(config, run_dir)
    symbol = symbol and symbol.upper()
    with LedgerView(state_dir, waiting, pipeline) as ledger:
        if summary:
            days = ledger.summary(int(time.time() * 1_000), since, until, symbol=symbol)
            if as_json:
                print_array(days)
            elif days:
                print_answer(None, summary_lines(days))
            else:
                print_error("nothing was followed in this time")
        elif as_json:
            print_array(ledger.gaps(since, until, symbol=symbol))
        else:
            rows = list(ledger.gaps(since, until, symbol=symbol, newest=GAPS_SHOWN + 1))
            if rows:
                print_answer(None, gap_lines(rows[-GAPS_SHOWN:]))
            else:
                print_error("no gaps")
            if len(rows) > GAPS_SHOWN:
                print_error(f"only the newest {GAPS_SHOWN:,} are shown; use --since or --json")
    if fault:
        print_error(fault)
    return EX_FAILED if fault else EX_OK


def _find_ledger(
    config: Path | None, run_dir: Path | None
) -> tuple[str, list[Any], str | None, str]:
    """
    Return the state directory, the rows not in it yet, the pipeline to show, what may be missing.

    It is that of the running pipeline, else that of the configuration file, else the default one.
    """
    from bybit_pipeline.shared.settings.locations import absolute_state_dir
    from bybit_pipeline.supervisor.cli.control_client import chosen_run_dir, read_endpoints
    from bybit_pipeline.supervisor.cli.options import read_config
    from bybit_pipeline.supervisor.run_dir import holder

    settings = read_config(config) if config else None
    if run_dir is None and settings is not None and settings.run_dir:
        run_dir = Path(settings.run_dir)
    is_shared = settings is not None and bool(settings.state_dir)
    state_dir = absolute_state_dir(settings.state_dir if settings else None)
    where = None
    try:
        where = chosen_run_dir(run_dir)
        holder(where)
    except NoPipelineError:
        return state_dir, [], None if is_shared or run_dir is None else where, ""
    try:
        with _pipeline(run_dir) as pipeline:
            answer = pipeline.ask("gaps")
    except NoPipelineError as error:
        with suppress(NoPipelineError):
            state_dir = read_endpoints(where).get("state_dir", state_dir)
        return state_dir, [], None, str(error)
    if answer["error"]:
        print_error(f"gap ledger {answer['state_dir']}: not written: {answer['error']}")
    pipeline_shown = None if answer["is_shared"] else answer["pipeline"]
    return answer["state_dir"], answer["waiting"], pipeline_shown, ""


@app.command(
    epilog=examples(
        "subscribe SOLUSDT",
        "subscribe spot:BTCUSDT spot:ETHUSDT",
        "subscribe 'linear:*USDT'",
        "subscribe linear:top:50:turnover",
    )
)
def subscribe(
    markets: args.Markets,
    run_dir: args.RunDirectory = None,
    log_level: args.LogLevel = "info",  # noqa: ARG001
) -> int:
    """
    Add markets to the running pipeline.

    A MARKET is [CATEGORY:]SYMBOL or [CATEGORY:]PATTERN. Without a category it belongs to the only
    configured one, else to linear. Other topics are not affected.

    Prints the answer of the exchange for every topic. The exit code is 1 if the exchange rejects a
    topic, which is then dropped, or does not answer in time.
    """
    from bybit_pipeline.supervisor.cli.control_client import wait_for_answers, wait_for_patterns
    from bybit_pipeline.supervisor.plan.market_args import parse_market

    for word in markets:
        parse_market(word)
    exit_code = EX_OK
    with _pipeline(run_dir) as pipeline:
        answer = pipeline.ask("subscribe", markets=markets)
        for entry in wait_for_patterns(pipeline, answer["patterns"]):
            is_served = entry["state"] == "resolved"
            facts = f"{len(entry['symbols'])} symbols" if is_served else entry["reason"]
            line = f"{entry['pattern']} {entry['state']}: {facts or 'no list of instruments yet'}"
            exit_code = _report(line, is_served=is_served) or exit_code
        for each in wait_for_answers(pipeline, answer["topics"]):
            is_served = each.state in ("confirmed", "delivering")
            reason = f": {each.reason}" if each.reason else ""
            line = f"{each.category} {each.topic} {each.state}{reason}"
            exit_code = _report(line, is_served=is_served) or exit_code
    return exit_code


def _report(line: str, *, is_served: bool) -> int:
    if is_served:
        print(line)
        return EX_OK
    print_error(line)
    return EX_FAILED


@app.command(
    epilog=examples(
        "unsubscribe SOLUSDT",
        "unsubscribe 'linear:*USDT'",
    )
)
def unsubscribe(
    markets: args.RunningMarkets,
    run_dir: args.RunDirectory = None,
    log_level: args.LogLevel = "info",  # noqa: ARG001
) -> None:
    """
    Remove markets from the running pipeline.

    A MARKET is [CATEGORY:]SYMBOL or [CATEGORY:]PATTERN. Without a category it belongs to the only
    configured one, else to linear. Other topics are not affected.
    """
    from bybit_pipeline.shared.wire.topics import parse_topic
    from bybit_pipeline.supervisor.plan.market_args import parse_market

    for word in markets:
        parse_market(word)
    with _pipeline(run_dir) as pipeline:
        answer = pipeline.ask("unsubscribe", markets=markets)
    for entry in answer["topics"]:
        print(f"{parse_topic(entry['bus_topic']).category} {entry['topic']} unsubscribed")
    for pattern in answer["patterns"]:
        print(f"{pattern} unsubscribed")
    if answer["patterns"]:
        print(f"{answer['symbols']} symbols no longer followed")


@app.command(
    epilog=examples(
        "tail",
        "tail orderbook.linear.BTCUSDT --count 1 --json",
        "tail trades. --json | jq -c '[.symbol, .windows.\"60s\".tpm]'",
        "tail density. --timeout 60",
    )
)
def tail(
    topic_prefix: args.TopicPrefix = "",
    count: args.Count = None,
    timeout: args.Timeout = None,
    as_json: args.AsJson = False,
    run_dir: args.RunDirectory = None,
    log_level: args.LogLevel = "info",  # noqa: ARG001
) -> int:
    """
    Print metric messages as they arrive.

    TOPIC_PREFIX selects topics by their start, such as trades. or trades.linear.BTCUSDT; without it
    all are printed.

    Each message is one line: text on a terminal, otherwise JSON. The exit code is 1 if --timeout
    ends before --count messages have arrived.
    """
    from bybit_pipeline.supervisor.cli.control_client import chosen_run_dir
    from bybit_pipeline.supervisor.cli.tail import print_tail

    return print_tail(
        chosen_run_dir(run_dir), topic_prefix, count=count, timeout_s=timeout, as_json=as_json
    )


@app.command(
    epilog=examples(
        "watch",
        "watch BTCUSDT",
        "watch BTCUSDT ETHUSDT spot:BTCUSDT",
    )
)
def watch(
    symbols: args.WatchedMarkets = None,
    run_dir: args.RunDirectory = None,
    log_level: args.LogLevel = "info",  # noqa: ARG001
) -> int:
    """
    Show markets live on a terminal, otherwise once.

    A MARKET is [CATEGORY:]SYMBOL; without a category it is shown in every category. One market is
    shown with its order book, walls, windows and last trades. Several, or all without an argument,
    are shown as a table: 1 to 9 sort it, the arrow keys and Enter open a market, q quits.

    Without a terminal, the exit code is 1 if nothing was received for a market.
    """
    from bybit_pipeline.supervisor.cli.control_client import chosen_run_dir
    from bybit_pipeline.supervisor.cli.tail import wait_for_endpoints
    from bybit_pipeline.supervisor.interrupts import Interrupts
    from bybit_pipeline.supervisor.tui import live

    with Interrupts() as interrupts:
        endpoints = wait_for_endpoints(chosen_run_dir(run_dir), interrupts)
        live.watch(
            endpoints["metrics"],
            symbols or (),
            interrupts,
            pid=endpoints["pid"],
            keys=endpoints.get("keys"),
        )
    return EX_OK
