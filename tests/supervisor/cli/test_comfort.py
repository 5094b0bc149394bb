"""Help with examples, completion, JSON, and lines for people."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from bybit_pipeline.processes.simulator.cli import make_parser
from bybit_pipeline.supervisor.cli.main import app, main
from bybit_pipeline.supervisor.tui.highlight import StateHighlighter, message_line, show

RUN = [
    sys.executable,
    "-c",
    "import sys; from bybit_pipeline.supervisor.cli.main import main; sys.exit(main())",
]
COMMANDS = sorted(typer.main.get_group(app).commands)
OWN_PARSER = "simulate"
"""The command that another program parses."""


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    if OWN_PARSER in command:
        done = subprocess.run(
            [*RUN, *command, "--help"], capture_output=True, text=True, check=True
        )
        return done.stdout
    assert 0 == main([*command, "--help"])
    return capsys.readouterr().out


def parse(words: list[str]) -> dict[str, Any]:
    """Parse a command line without running it; return the parameters of its command."""
    name, *rest = words
    return typer.main.get_group(app).commands[name].make_context(name, rest).params


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_has_examples_that_parse(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    _, _, examples = help_of(capsys, *command.split()).partition("Examples:\n")
    lines = [re.split("[|>]", line)[0].strip() for line in examples.splitlines() if line.strip()]

    assert lines
    for line in lines:
        program, *words = shlex.split(line)
        assert "bybit-pipeline" == program
        assert command in ("", words[0])
        if words[0] == OWN_PARSER:
            make_parser().parse_args(words[1:])
        else:
            parse(words)


@pytest.mark.parametrize(
    ("words", "name", "meant"),
    [
        ("up --symbols btcusdt,*usdt", "symbols", "BTCUSDT,*USDT"),
        (
            "check --symbols ' ethusdt, top:5:turnover:*usdt'",
            "symbols",
            "ETHUSDT,top:5:turnover:*USDT",
        ),
        ("subscribe spot:btcusdt top:5:turnover", "markets", ["spot:BTCUSDT", "top:5:turnover"]),
        ("unsubscribe linear:*usdt", "markets", ["linear:*USDT"]),
        ("watch btcusdt spot:ethusdt", "symbols", ["BTCUSDT", "spot:ETHUSDT"]),
        ("tail trades.linear.btc", "topic_prefix", "trades.linear.BTC"),
        (
            "tail orderbook.option.btc-1jan27-0.4-p",
            "topic_prefix",
            "orderbook.option.BTC-1JAN27-0.4-P",
        ),
        ("tail process.trades-0", "topic_prefix", "process.trades-0"),
    ],
)
def test_symbols_may_be_typed_in_small_letters(words: str, name: str, meant: Any) -> None:
    assert meant == parse(shlex.split(words))[name]


def test_missing_symbols_stay_missing() -> None:
    assert parse(["up"])["symbols"] is None
    assert not parse(["watch"])["symbols"]
    assert "" == parse(["tail"])["topic_prefix"]


def test_the_summary_of_every_command_fits_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = help_of(capsys).partition("Commands:\n")[2].partition("\n\n")[0].splitlines()

    assert COMMANDS == sorted(line.split()[0] for line in lines)
    assert [] == [line for line in lines if not line.endswith(".") or line.endswith("...")]


# -- completion --------------------------------------------------------------------------------


def complete(words: str) -> tuple[int, list[str]]:
    """Exit code and proposals of the shell completion after these words."""
    done = subprocess.run(
        RUN,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={
            **os.environ,
            "_BYBIT_PIPELINE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        },
    )
    assert "" == done.stderr
    return done.returncode, done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        ("bybit-pipeline su", ["subscribe"]),
        ("bybit-pipeline up --source ", ["auto", "live", "sim", "replay"]),
        ("bybit-pipeline check --category in", ["inverse"]),
        ("bybit-pipeline gaps --js", ["--json"]),
        ("bybit-pipeline watch --run-dir /nowhere B", []),
    ],
)
def test_the_shell_completes_commands_options_and_values(words: str, offers: list[str]) -> None:
    assert (0, offers) == complete(words)


def test_the_shell_completes_the_markets_of_the_running_pipeline(steady_pipeline: Any) -> None:
    words = f"bybit-pipeline unsubscribe --run-dir {steady_pipeline.run_dir} lin"

    assert (0, ["linear:BTCUSDT", "linear:ETHUSDT"]) == complete(words)


def test_completion_for_an_unknown_shell_fails() -> None:
    done = subprocess.run(
        RUN,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, "_BYBIT_PIPELINE_COMPLETE": "complete_tcsh"},
    )
    assert (1, "") == (done.returncode, done.stdout)
    assert "tcsh not supported" in done.stderr


# -- json --------------------------------------------------------------------------------------


def test_the_plan_as_json_has_the_same_keys_for_every_process(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["--symbols", "AUSDT", "--run-dir", str(tmp_path), "--source", "sim"]
    assert 0 == main(["check", "--json", *arguments])
    plan = json.loads(capsys.readouterr().out)

    assert ("sim", None, "mainnet") == (plan["source"], plan["url"], plan["network"])
    for process in plan["processes"]:
        assert {
            "process",
            "role",
            "connects",
            "feeds",
            "gathers",
            "listens",
            "publishes",
            "serves",
            "topics",
        } == process.keys()
    topics = {process["process"]: process["topics"] for process in plan["processes"]}
    assert ["publicTrade.AUSDT", "orderbook.50.AUSDT"] == topics["connector-linear-0"]
    assert [] == topics["forwarder"]


def test_without_gaps_stdout_stays_empty(
    capsys: pytest.CaptureFixture[str],
    steady_pipeline: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    answer: dict[str, Any] = {"state_dir": str(tmp_path), "waiting": [], "error": None}
    answer |= {"pipeline": "/r", "is_shared": False}
    monkeypatch.setattr(
        "bybit_pipeline.supervisor.cli.control_client.ControlClient.ask", lambda *_: answer
    )

    assert 0 == main(["gaps", "--run-dir", str(steady_pipeline.run_dir)])
    assert ("", "no gaps\n") == capsys.readouterr()
    assert 0 == main(["gaps", "--json", "--run-dir", str(steady_pipeline.run_dir)])
    assert ("[]\n", "") == capsys.readouterr()


# -- lines for people --------------------------------------------------------------------------


def test_a_pipe_gets_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    show(["source  SIM: NOT live market data", "trades-0  up [x]"])

    assert "source  SIM: NOT live market data\ntrades-0  up [x]\n" == capsys.readouterr().out


def test_a_terminal_gets_colours_and_long_lines_unbroken() -> None:
    ours, theirs = pty.openpty()
    code = "from bybit_pipeline.supervisor.tui.highlight import show;"
    code += "show(['books  1 stale ' + 'x' * 200])"
    subprocess.run(
        [sys.executable, "-c", code],
        stdout=theirs,
        stdin=theirs,
        check=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(theirs)
    text = os.read(ours, 65536).decode()
    os.close(ours)

    assert "\x1b[1;31mstale\x1b[0m" in text
    assert 1 == text.count("\n")
    assert "x" * 200 in text


HEAD = {"source": "sim", "state": "live", "publish_ts_ns": 1_700_000_000_123_000_000}


@pytest.mark.parametrize(
    ("payload", "facts"),
    [
        (
            {
                "kind": "trades",
                "last_side": "Buy",
                "last_size": 0.5,
                "last_price": 65000.5,
                "tps": 2.0,
                "windows": {"60s": {"tpm": 120.0, "vol_delta": -1.0}},
            },
            ["Buy", "0.500", "@", "65000.5", "tps", "2.0", "60s", "tpm", "120", "delta", "-1.000"],
        ),
        (
            {
                "kind": "orderbook",
                "best_bid": 10.0,
                "best_ask": 11.5,
                "spread_bps": 3.0,
                "imbalance": {"10": 0.5},
                "densities": [{}],
            },
            ["10", "|", "11.5", "3.00", "bps", "imb", "+0.50", "1", "walls"],
        ),
        (
            {
                "kind": "density",
                "side": "bid",
                "event": "eaten",
                "size": 1.0,
                "peak_size": 4.0,
                "price": 10.5,
                "distance_bps": 2.0,
            },
            ["bid", "wall", "eaten:", "1.000", "of", "4.000", "@", "10.5", "2.0", "bps", "away"],
        ),
        (
            {
                "kind": "gap",
                "stream": "book",
                "event": "closed",
                "reason": "gap",
                "duration_s": 0.25,
            },
            ["book", "closed:", "gap", "0.250", "s"],
        ),
    ],
    ids=["trades", "orderbook", "density", "gap"],
)
def test_a_message_is_one_line_with_its_values(payload: dict[str, Any], facts: list[str]) -> None:
    line = message_line("kind.linear.X", {**HEAD, **payload})

    assert ["kind.linear.X", "SIM", "live", *facts] == line.split()[1:]


def test_a_message_without_values_has_dashes_and_the_reason() -> None:
    stale = {**HEAD, "state": "stale", "last_price": None, "windows": {}}

    assert "gap" == message_line("o", {**stale, "kind": "orderbook", "reason": "gap"}).split()[-1]
    assert "–" in message_line("t", {**stale, "kind": "trades"})
    assert " 0" not in message_line("t", {**stale, "kind": "trades"})


@pytest.mark.parametrize("line", ["source  SIM: NOT live market data", "t  o.linear.X  REPLAY  up"])
def test_simulated_and_recorded_data_are_loud_on_a_terminal(line: str) -> None:
    assert "loud" in {span.style for span in StateHighlighter()(line).spans}
