"""Commands that run the pipeline or a part of it, and those that prepare it."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from bybit_pipeline.supervisor.cli import arguments as args
from bybit_pipeline.supervisor.cli.output import examples, print_answer, print_error

if TYPE_CHECKING:
    from bybit_pipeline.supervisor.plan.plan import Plan

app = typer.Typer()

# Everything heavier than parsing is imported by the command that needs it: --help is fast.


@app.command(
    epilog=examples(
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
    config: args.Config = None,
    category: args.Category = None,
    symbols: args.Symbols = None,
    depth: args.Depth = None,
    source: args.Source = None,
    network: args.Network = None,
    url: args.Url = None,
    capture: args.Capture = None,
    speed: args.Speed = None,
    run_dir: args.RunDirectory = None,
    metrics: args.Metrics = None,
    port: args.Port = None,
    dashboard: args.Dashboard = None,
    log_format: args.LogFormat = "auto",
    log_level: args.LogLevel = "info",
) -> int:
    """
    Run the pipeline in the foreground until Ctrl-C.

    On a terminal, it shows processes and markets live: q quits, 1 to 9 sort the markets. The log
    goes to pipeline.log in the run directory. Without a terminal, the log goes to stderr.
    """
    plan, warnings = _plan(locals())
    from bybit_pipeline.supervisor.cli.up import run

    return run(plan, warnings)


@app.command(
    epilog=examples(
        "check",
        "check --config pipeline.toml",
        "check --symbols BTCUSDT --json | jq .processes",
    )
)
def check(
    config: args.Config = None,
    category: args.Category = None,
    symbols: args.Symbols = None,
    depth: args.Depth = None,
    source: args.Source = None,
    network: args.Network = None,
    url: args.Url = None,
    capture: args.Capture = None,
    speed: args.Speed = None,
    run_dir: args.RunDirectory = None,
    metrics: args.Metrics = None,
    port: args.Port = None,
    dashboard: args.Dashboard = None,
    log_format: args.LogFormat = "auto",
    log_level: args.LogLevel = "info",
    as_json: args.AsJson = False,
) -> None:
    """
    Check the configuration and print the plan; start nothing.

    The plan shows every process with its topics and endpoints. Each mistake in the configuration is
    one line on stderr.
    """
    options = locals()
    del options["as_json"]
    plan, warnings = _plan(options)
    from bybit_pipeline.supervisor.cli.render import plan_lines, plan_map

    for warning in warnings:
        print_error(f"warning: {warning}")
    print_answer(plan_map(plan) if as_json else None, plan_lines(plan))


def _plan(given: dict[str, Any]) -> "tuple[Plan, list[str]]":
    """Return the plan for the options that ``up`` and ``check`` share, and what is unwise in it."""
    from bybit_pipeline.shared.settings.validation import warnings
    from bybit_pipeline.supervisor.cli.options import Options, resolve
    from bybit_pipeline.supervisor.plan.plan import make_plan
    from bybit_pipeline.supervisor.source.proxy import proxy_in_force

    log_format, log_level = given.pop("log_format"), given.pop("log_level")
    config, run_dir, origins = resolve(Options(**given))
    with origins.shown():
        plan = make_plan(config, run_dir=run_dir, log_format=log_format, log_level=log_level)
        proxy_in_force(plan)  # an unusable one is an error before anything starts
    found = [w._replace(place=origins.place_of(w.where)) for w in warnings(config)]
    return plan, list(map(str, found))


@app.command(
    "config",
    epilog=examples(
        "config > pipeline.toml",
        "config --config pipeline.toml",
    ),
)
def print_config(config: args.ShownConfig = None, log_level: args.LogLevel = "info") -> None:  # noqa: ARG001
    """
    Print a complete configuration file with comments.

    It shows every key with its meaning, range and value: the default, or the value in FILE.
    """
    from bybit_pipeline.shared.settings.config import Config
    from bybit_pipeline.supervisor.cli.annotated import annotated
    from bybit_pipeline.supervisor.cli.options import read_config

    for line in annotated(read_config(config) if config else Config()):
        print(line)


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="[OPTIONS]",
)
def simulate(context: typer.Context) -> None:
    """Run the simulated exchange alone."""
    words = context.args
    if words and not words[0].startswith("-"):
        raise typer.BadParameter(f"unexpected argument {words[0]!r}")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "bybit_pipeline.processes.simulator", *words])


@app.command(
    epilog=examples(
        "keys",
        "keys --dir /etc/bybit-pipeline/keys --client dashboard",
    )
)
def keys(directory: args.KeysDirectory = None, client: args.Client = None) -> None:
    """
    Create the keys of the metrics socket, or of one more client.

    With keys, the metrics socket can be opened to other machines; see docs/howto/secure.md.
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
        print(f"move {handout} to the machine of {client}; client.key in it is secret")
