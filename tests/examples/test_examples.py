"""Every example, run against a simulated pipeline as its docstring says."""

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.pipeline import Pipeline, kill, until

EXAMPLES = Path(__file__).resolve().parents[2] / "scripts" / "examples"
DEADLINE_S = 40


def run(*command: str | Path) -> list[str]:
    """The lines that an example prints; it must exit on its own, with an empty stderr."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout.splitlines()


def python(example: str, pipeline: Pipeline, *arguments: str) -> list[str]:
    """Run a Python example; it finds the pipeline through its run directory."""
    return run(sys.executable, EXAMPLES / example, *arguments, "--run-dir", pipeline.run_dir)


BOOK_LINE = re.compile(r"sim orderbook\.linear\.(BTC|ETH)USDT bid=[\d.]+ ask=[\d.]+ lost=0")
TRADES_LINE = re.compile(
    r"sim trades\.linear\.(BTC|ETH)USDT tpm=[\d.]+ vol_delta=-?[\d.e-]+ lost=0"
)


def check_lines(lines: list[str], count: int) -> None:
    """Assert prices and trades of two symbols, and no missed messages."""
    assert len(lines) == count
    assert all(BOOK_LINE.fullmatch(line) or TRADES_LINE.fullmatch(line) for line in lines), lines
    assert {
        "orderbook.linear.BTCUSDT",
        "orderbook.linear.ETHUSDT",
        "trades.linear.BTCUSDT",
        "trades.linear.ETHUSDT",
    } <= {line.split()[1] for line in lines}


def test_plain_subscriber(pipeline: Pipeline) -> None:
    """With pyzmq and msgpack only, and the endpoint from the run directory."""
    check_lines(python("subscribe.py", pipeline, "--count", "40"), 40)


def test_plain_subscriber_with_an_endpoint(pipeline: Pipeline) -> None:
    """Without a run directory, as on another machine."""
    lines = run(
        sys.executable,
        EXAMPLES / "subscribe.py",
        "btcusdt",
        "--seconds",
        "2",
        "--endpoint",
        pipeline.metrics,
    )
    assert {
        "orderbook.linear.BTCUSDT",
        "trades.linear.BTCUSDT",
    } == {line.split()[1] for line in lines}


@pytest.mark.parametrize("example", ["subscribe.py", "subscribe_asyncio.py"])
def test_plain_subscribers_import_nothing_of_this_project(example: str) -> None:
    """They can be copied anywhere: the standard library, pyzmq and msgpack."""
    tree = ast.parse((EXAMPLES / example).read_text())
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    assert {"zmq", "msgpack"} == imported - sys.stdlib_module_names


def test_asyncio_subscriber_prints_walls(pipeline: Pipeline) -> None:
    """The given number of events."""
    lines = python("subscribe_asyncio.py", pipeline, "btcusdt", "ethusdt", "--count", "3")
    assert 3 == len(lines)
    pattern = re.compile(
        r"sim (BTC|ETH)USDT (detected|grown|eaten|pulled|removed) (bid|ask) [\d.]+"
        r" size=[\d.]+ of [\d.]+ eaten=\d+% pulled=\d+%"
    )
    assert all(pattern.fullmatch(line) for line in lines), lines


def test_asyncio_subscriber_ends_in_time_without_events(pipeline: Pipeline) -> None:
    """Nothing is published about a symbol that the pipeline does not follow."""
    assert [] == python("subscribe_asyncio.py", pipeline, "NOSUCHUSDT", "--seconds", "0.5")


def test_javascript_subscriber(pipeline: Pipeline, javascript: list[str]) -> None:
    """The same numbers in another language."""
    check_lines(
        run(*javascript, "btcusdt", "ETHUSDT", "--count", "40", "--run-dir", pipeline.run_dir), 40
    )


def test_javascript_subscriber_ends_in_time(pipeline: Pipeline, javascript: list[str]) -> None:
    """With an endpoint and a time limit."""
    assert run(*javascript, "--seconds", "1.5", "--endpoint", pipeline.metrics)


def test_client_basic(pipeline: Pipeline) -> None:
    """One line per interval with every number of a symbol."""
    lines = python("client_basic.py", pipeline, "btcusdt", "--count", "3", "--seconds", "0.5")
    assert 3 == len(lines)
    assert re.fullmatch(
        r"sim BTCUSDT [\d.]+ / [\d.]+ spread_bps=\d+\.\d\d imbalance=-?\d\.\d\d"
        r" bid_depth=\d+\.\d\d tpm=\d+\.\d\d vol_delta=-?\d+\.\d\d walls=\d+",
        lines[-1],
    ), lines


def test_client_basic_without_data(pipeline: Pipeline) -> None:
    """An unknown symbol gives no number."""
    lines = python("client_basic.py", pipeline, "NOSUCHUSDT", "--count", "1", "--seconds", "0.2")
    assert ["NOSUCHUSDT: nothing received yet"] == lines


def test_client_asyncio_prints_prices_and_walls(pipeline: Pipeline) -> None:
    """Two tasks with one client; it ends after the given number of price lines."""
    lines = python("client_asyncio.py", pipeline, "btcusdt", "nosuchusdt", "--count", "3")
    prices = [line for line in lines if " wall " not in line]
    assert 3 == len(prices)
    assert re.fullmatch(r"sim BTCUSDT=[\d.]+ NOSUCHUSDT=- lost=0", prices[-1]), prices
    pattern = r"sim BTCUSDT wall (detected|grown|eaten|pulled|removed) (bid|ask) [\d.]+ size=[\d.]+"
    assert all(re.fullmatch(pattern, line) for line in set(lines) - set(prices)), lines


def test_client_alert_names_active_and_one_sided_symbols(pipeline: Pipeline) -> None:
    """With low limits it soon alerts; the numbers exceed the limits."""
    lines = python(
        "client_alert.py",
        pipeline,
        "btcusdt",
        "ethusdt",
        "--tpm",
        "1",
        "--imbalance",
        "0.05",
        "--count",
        "2",
    )
    assert 2 == len(lines)
    for line in lines:
        match = re.fullmatch(
            r"ALERT sim (BTC|ETH)USDT tpm=(\d+) imbalance=([+-][\d.]+) \((bids|asks) outweigh\)",
            line,
        )
        assert match, line
        assert int(match[2]) >= 1
        assert abs(float(match[3])) >= 0.05
        assert (float(match[3]) > 0) == (match[4] == "bids")


def test_client_alert_is_silent_below_its_limits(pipeline: Pipeline) -> None:
    """No symbol trades a million times per minute."""
    assert [] == python("client_alert.py", pipeline, "--tpm", "1e6", "--seconds", "1.5")


def test_client_monitor_accepts_the_given_sources(pipeline: Pipeline) -> None:
    """All books live, all processes up."""
    lines = python("client_monitor.py", pipeline, "btcusdt", "--accept", "sim", "--count", "1")
    assert ["all well (source=sim lost=0)"] == lines


def test_client_monitor_rejects_simulated_data_by_default(pipeline: Pipeline) -> None:
    """Only live data are accepted."""
    lines = python("client_monitor.py", pipeline, "--count", "1")
    assert ["source is sim, not live (source=sim lost=0)"] == lines


def test_client_monitor_reports_a_killed_connector_and_its_recovery(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The books of a killed connector are stale until it is back."""
    pipeline = Pipeline(tmp_path_factory.mktemp("monitor"), "--source", "sim")
    monitor = None
    try:
        pipeline.wait_ready()
        monitor = subprocess.Popen(
            [
                sys.executable,
                str(EXAMPLES / "client_monitor.py"),
                "--accept",
                "sim",
                "--endpoint",
                pipeline.metrics,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert monitor.stdout is not None
        assert monitor.stdout.readline().startswith("all well")
        kill(pipeline.pid("connector-linear-0"))
        line = monitor.stdout.readline()
        assert "BTCUSDT: book stale" in line or "connector-linear-0" in line, line
        until(lambda: pipeline.http("/readyz")[0] == 200, "recovery")
        while not line.startswith("all well"):
            line = monitor.stdout.readline()
            assert line
    finally:
        if monitor is not None:
            monitor.send_signal(signal.SIGKILL)
            monitor.communicate()
        pipeline.close()


def check_refusal(*command: str | Path) -> None:
    """Assert one line that says what to start, and the exit code for a missing pipeline."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    assert (os.EX_UNAVAILABLE, "") == (done.returncode, done.stdout)
    assert re.fullmatch(
        r"no pipeline runs in /nowhere\b.*; start one with scripts/up\n", done.stderr
    )


PYTHON_EXAMPLES = sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("example", PYTHON_EXAMPLES)
def test_without_a_pipeline_the_error_says_what_to_start(example: str) -> None:
    """There is no traceback for a reader who tries an example first."""
    check_refusal(sys.executable, EXAMPLES / example, "--run-dir", "/nowhere")


def test_without_a_pipeline_the_javascript_error_says_what_to_start(javascript: list[str]) -> None:
    """The same in JavaScript."""
    check_refusal(*javascript, "--run-dir", "/nowhere")


@pytest.mark.parametrize("example", PYTHON_EXAMPLES)
def test_ctrl_c_ends_an_example_without_a_traceback(example: str, pipeline: Pipeline) -> None:
    """Every reader stops it like this."""
    command = [sys.executable, str(EXAMPLES / example), "--run-dir", str(pipeline.run_dir)]
    options = {
        "client_alert.py": ["--tpm", "1", "--imbalance", "0.01"],
        "client_monitor.py": ["--accept", "sim"],
    }
    process = subprocess.Popen(
        [*command, *options.get(example, [])], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert (0, b"") == (process.returncode, errors)


@pytest.mark.parametrize("example", PYTHON_EXAMPLES)
def test_the_docstring_says_how_to_run_an_example(example: str) -> None:
    """And ``--help`` lists the options for the pipeline and for the limits."""
    text = (EXAMPLES / example).read_text()
    assert f"python scripts/examples/{example}" in (ast.get_docstring(ast.parse(text)) or "")
    usage = "\n".join(run(sys.executable, EXAMPLES / example, "--help"))
    assert all(option in usage for option in ("--endpoint", "--run-dir", "--count", "--seconds"))
