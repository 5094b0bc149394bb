"""
The command line: the commands together, their exit codes, and errors in one line.

Decides which exit code each end of a command has, and the words for wrong usage.
"""

import difflib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

import bybit_pipeline
from bybit_pipeline.shared.errors import EX_FAILED, EX_OK, EX_SOFTWARE, EX_USAGE, PipelineError
from bybit_pipeline.supervisor.cli import control_commands, run_commands
from bybit_pipeline.supervisor.cli.output import (
    discard_stdout,
    examples,
    open_missing_streams,
    print_error,
    stdout_fault,
)

app = typer.Typer(
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(run_commands.app)
app.add_typer(control_commands.app)

INTERRUPTED = 130
"""Result of typer after a ``KeyboardInterrupt`` in a command."""
SEE_HELP = "see --help"
UNEXPECTED = re.compile(r"Got unexpected extra argument(?:s|\(s\))? \((.*)\)")
UNKNOWN_COMMAND = re.compile(r"No such command '(.*)'")


@app.callback(
    invoke_without_command=True,
    epilog=examples(
        "up --symbols BTCUSDT,ETHUSDT", "watch BTCUSDT", "tail trades. --json | jq .last_price"
    ),
)
def common(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """
    Live market data pipeline for Bybit.

    Subscribes to trades and order books, and publishes measures of them.
    """
    if version:
        print(bybit_pipeline.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.BadParameter("a command is missing")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; see ``EXIT_CODES``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    open_missing_streams()
    try:
        result = app(words, prog_name="bybit-pipeline", standalone_mode=False)
        sys.stdout.flush()
    except PipelineError as error:
        return _fail(words, str(error), error.exit_code)
    except SystemExit as end:  # typer ends completion with it, and rich a broken pipe
        if end.code and not _is_completing():
            discard_stdout()
            return EX_OK
        return int(end.code or EX_OK)
    except BrokenPipeError:  # the reader of our output has ended, as in `status | head -1`
        discard_stdout()
        return EX_OK
    except KeyboardInterrupt:  # outside of a command
        return EX_OK
    except OSError as error:
        fault = stdout_fault(error)
        if fault is None:
            return _fail_with_bug(words, error)
        discard_stdout()
        return _fail(words, fault, EX_FAILED)
    except Exception as error:
        if type(error).__name__ == "Abort":  # older typer's word for KeyboardInterrupt
            return EX_OK
        if hasattr(error, "format_message"):
            return _fail(words, _usage_fault(error), EX_USAGE)
        return _fail_with_bug(words, error)
    return result if isinstance(result, int) and result != INTERRUPTED else EX_OK


def _fail_with_bug(words: Sequence[str], error: Exception) -> int:
    return _fail(words, f"bug: {type(error).__name__}: {error}", EX_SOFTWARE)


def _fail(words: Sequence[str], text: str, exit_code: int) -> int:
    """Print one line for each mistake; the traceback only with ``--log-level debug``."""
    if "debug" in (word.removeprefix("--log-level=") for word in words):
        traceback.print_exc()
    for line in text.splitlines():
        print_error(" ".join(line.split()))
    return exit_code


def _is_completing() -> bool:
    return "_BYBIT_PIPELINE_COMPLETE" in os.environ


def _usage_fault(error: Exception) -> str:
    """Return our words for an error of the option parser."""
    text = str(getattr(error, "message", "") or error).rstrip(".")
    option = getattr(error, "option_name", None)
    match type(error).__name__:
        case "NoSuchOption":
            known = getattr(error, "possibilities", None) or ()
            close = difflib.get_close_matches(str(option), known, n=1, cutoff=0.7)
            return f"unknown option {option}; {f'did you mean {close[0]}?' if close else SEE_HELP}"
        case "BadOptionUsage":
            return f"{option} {'takes no' if 'not take' in text else 'needs a'} value; {SEE_HELP}"
        case "MissingParameter":
            parameter = getattr(error, "param", None)
            name = getattr(parameter, "metavar", None) or getattr(parameter, "name", "an argument")
            return f"{str(name).removesuffix('...')} is missing; {SEE_HELP}"
    if found := UNEXPECTED.match(text):
        return f"unexpected argument {found[1]}; {SEE_HELP}"
    if found := UNKNOWN_COMMAND.match(text):
        return f"unknown command {found[1]!r}; {SEE_HELP}"
    return text
