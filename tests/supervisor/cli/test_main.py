"""The command line: output, errors and exit codes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from bybit_pipeline.shared.wire import codec
from bybit_pipeline.supervisor.cli.main import main

RUN = [
    sys.executable,
    "-c",
    "import sys; from bybit_pipeline.supervisor.cli.main import main; sys.exit(main())",
]


PLANNED = {
    f"{stream}.{symbol}"
    for symbol in ("BTCUSDT", "ETHUSDT")
    for stream in ("publicTrade", "orderbook.50")
}
"""Topics of a pipeline without options."""


def run(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run the command line in a process of its own."""
    return subprocess.run(
        [*RUN, *arguments], capture_output=True, text=True, timeout=20, check=False, **options
    )


def only_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and the only line on stderr of a command that prints nothing on stdout."""
    code = main(arguments)
    out, err = capsys.readouterr()
    assert "" == out
    [line] = err.splitlines()
    return code, line


# -- wrong usage -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["explode"], "unknown command 'explode'; see --help"),
        (["up", "--bogus"], "unknown option --bogus; see --help"),
        (["up", "--depht", "5"], "unknown option --depht; did you mean --depth?"),
        (["check", "--depth", "deep"], "--depth: 'deep' is not a whole number"),
        (["check", "--depth"], "--depth needs a value; see --help"),
        (["check", "--speed", "fast"], "--speed: 'fast' is not a number"),
        (
            ["check", "--log-format", "xml"],
            "--log-format: 'xml' is unknown; use auto, console or json",
        ),
        (["status", "--log-level", "loud"], "use debug, info, warning or error"),
        (["status", "extra"], "unexpected argument extra; see --help"),
        (["subscribe"], "MARKET is missing; see --help"),
        (["subscribe", "BTC USDT"], "use [CATEGORY:]SYMBOL such as BTCUSDT or spot:BTCUSDT"),
        (["unsubscribe", "margin:BTCUSDT"], "one of spot, linear, inverse, option"),
        (["tail", "--count", "0"], "--count: 0 is too small; use 1 or more"),
        (["tail", "--timeout", "-1"], "--timeout: -1.0 is too small; use 0 or more"),
        (
            ["tail", "book.linear."],
            "no topic starts with 'book.linear.'; use trades., orderbook., ",
        ),
        (["tail", "trades.margin."], "no topic starts with 'trades.margin.'"),
        (["simulate", "x"], "unexpected argument 'x'"),
    ],
)
def test_wrong_usage_is_one_line_and_64(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    code, line = only_error(capsys, *arguments)

    assert 64 == code
    assert expected in line
    assert "Invalid value: " not in line


def test_wrong_usage_ends_the_process_with_64() -> None:
    wrong = run("up", "--bogus")

    assert (64, "") == (wrong.returncode, wrong.stdout)
    assert 1 == len(wrong.stderr.splitlines())


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert 64 == main([])
    out, err = capsys.readouterr()
    assert out.startswith("Usage: bybit-pipeline")
    assert "a command is missing\n" == err


@pytest.mark.parametrize("arguments", [["--help"], ["up", "-h"], ["tail", "--help"]])
def test_help_is_shown_on_request(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert 0 == main(arguments)
    assert "Usage: bybit-pipeline" in capsys.readouterr().out


def test_the_version_is_the_one_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["--version"])
    assert capsys.readouterr().out[0].isdigit()


# -- configuration -----------------------------------------------------------------------------

BAD = {
    "unknown key": ("sauce = 'live'", "1: sauce: unknown key; did you mean source?"),
    "wrong type": ("[workers]\ntrades = 'two'", "2: workers.trades: 'two' is not a whole number"),
    "depth": (
        "[[market]]\ndepth = 25",
        "2: market[0].depth: 25 is not offered for linear; use 1, 50, 200 or 1000",
    ),
    "no market": ("market = []", "1: market: is empty; use at least one [[market]] table"),
    "url for two": (
        "url='ws://x/spot'\n[[market]]\ncategory='spot'\n[[market]]\ncategory='linear'",
        "1: url: one address cannot serve linear and spot; ",
    ),
    "capture with live": (
        "source='live'\n[replay]\ncapture='x'",
        "1: source: 'live' does not play a capture; use replay",
    ),
    "capture that is not there": (
        "[replay]\ncapture='/none.jsonl'",
        "2: replay.capture: /none.jsonl: No such file",
    ),
    "not toml": ("source = ", "1: not TOML: "),
}


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD.keys())
def test_a_bad_configuration_is_one_line_and_78(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, expected: str
) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(text)

    code, line = only_error(capsys, "check", "--config", str(file))

    assert 78 == code
    assert line.startswith(f"{file}:{expected}")


def test_all_mistakes_are_reported_at_once_each_in_a_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text("sauce = 1\n[workers]\ntrades = 0\norderbook = 'x'\n")

    assert 78 == main(["check", "--config", str(file), "--port", "70000"])
    out, err = capsys.readouterr()
    assert "" == out
    assert [
        "--port: prometheus.port",
        f"{file}:1: sauce",
        f"{file}:3: workers.trades",
        f"{file}:4: workers.orderbook",
    ] == [": ".join(line.split(": ")[:2]) for line in err.splitlines()]


def test_a_missing_file_is_bad_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = only_error(capsys, "check", "--config", "none.toml")

    assert (78, "none.toml: No such file or directory") == (code, line)


def test_up_rejects_what_check_rejects_and_creates_nothing(tmp_path: Path) -> None:
    done = run("up", "--run-dir", str(tmp_path / "run"), "--depth", "7")

    assert 78 == done.returncode
    assert [
        "--depth: market[0].depth: 7 is not offered for linear; use 1, 50, 200 or 1000"
    ] == done.stderr.splitlines()
    assert [] == list(tmp_path.iterdir())


def test_log_level_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert 78 == main(["check", "--depth", "7", "--log-level", "debug"])

    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("--depth: market[0].depth")


def test_a_bug_is_one_line_and_70(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bybit_pipeline.supervisor.cli.options.resolve", lambda _: 1 / 0)

    assert (70, "bug: ZeroDivisionError: division by zero") == only_error(capsys, "check")


def test_check_prints_every_process_its_topics_and_endpoints(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    assert 0 == main(
        [
            "check",
            "--run-dir",
            str(run_dir),
            "--symbols",
            "AUSDT,BUSDT",
            "--category",
            "spot",
            "--depth",
            "200",
            "--metrics",
            "tcp://127.0.0.1:7001",
            "--port",
            "7002",
            "--source",
            "sim",
        ]
    )
    out = capsys.readouterr().out

    for expected in (
        "supervisor",
        "forwarder",
        "trades-0",
        "orderbook-0",
        "simulator",
        "connector-spot-0",
        "orderbook.200.AUSDT",
        "publicTrade.BUSDT",
        "book.spot.BUSDT",
        "trade.spot.AUSDT",
        f"ipc://{run_dir}/spot-0.ipc",
        f"ipc://{run_dir}/control.ipc",
        "tcp://127.0.0.1:7001",
        "http://127.0.0.1:7002",
    ):
        assert expected in out
    assert not run_dir.exists()


# -- nothing to talk to ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["status", "--json"],
        ["tail"],
        ["watch"],
        ["subscribe", "linear:BTCUSDT"],
        ["unsubscribe", "linear:BTCUSDT"],
    ],
)
def test_without_a_pipeline_commands_end_with_69_and_a_hint(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str]
) -> None:
    code, line = only_error(capsys, *arguments, "--run-dir", str(tmp_path))

    hint = f"start one with: bybit-pipeline up --run-dir {tmp_path}"
    assert (69, f"run_dir {tmp_path}: no pipeline runs there; {hint}") == (code, line)


def test_the_hint_on_starting_a_pipeline_is_short_for_the_default_directory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")

    code, line = only_error(capsys, "status")

    assert 69 == code
    assert line.endswith("; start one with: bybit-pipeline up")


def test_a_pipeline_that_does_not_answer_is_69(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bybit_pipeline.supervisor.cli.control_client.ANSWER_S", 0.1)
    (tmp_path / "lock").write_text(f"{os.getpid()}\n")

    code, line = only_error(capsys, "status", "--run-dir", str(tmp_path))

    assert 69 == code
    assert f"pid {os.getpid()} does not answer" in line


# -- a running pipeline ------------------------------------------------------------------------


def test_status_is_text_or_json(capsys: pytest.CaptureFixture[str], steady_pipeline: Any) -> None:
    where = ["--run-dir", str(steady_pipeline.run_dir)]
    assert 0 == main(["status", *where])
    text = capsys.readouterr().out
    assert 0 == main(["status", "--json", *where])
    status = json.loads(capsys.readouterr().out)

    assert {
        "version",
        "source",
        "network",
        "started_ts_ms",
        "ready",
        "reasons",
        "processes",
        "connectors",
        "books",
    } <= status.keys()
    for entry in status["processes"]:
        assert entry["process"] in text
    [connector] = status["connectors"]
    assert {
        "process",
        "url",
        "connected",
        "session",
        "reconnects",
        "topics",
        "ping_rtt_ms",
        "last_message_ts_ms",
    } <= connector.keys()
    assert "delivering" == connector["topics"]["orderbook.50.BTCUSDT"]


def test_subscribe_prints_the_answer_of_the_exchange(
    capsys: pytest.CaptureFixture[str], start_pipeline: Any
) -> None:
    topics = {"publicTrade.SOLUSDT": "confirmed", "orderbook.50.SOLUSDT": "rejected"}
    rejected = {"orderbook.50.SOLUSDT": "confirmed, but no snapshot comes"}
    reported = {"topics": topics, "rejected": rejected}
    pipeline = start_pipeline(behaviour={"connector-linear-0": {"status": reported}})
    pipeline.wait_up()

    code = main(["subscribe", "SOLUSDT", "--run-dir", str(pipeline.run_dir)])

    out, err = capsys.readouterr()
    assert (1, ["linear publicTrade.SOLUSDT confirmed"]) == (code, out.splitlines())
    assert [
        "linear orderbook.50.SOLUSDT rejected: confirmed, but no snapshot comes"
    ] == err.splitlines()
    assert "orderbook.50.SOLUSDT" in pipeline.status()["connectors"][0]["topics"]

    assert 0 == main(["unsubscribe", "solusdt", "--run-dir", str(pipeline.run_dir)])
    assert "linear publicTrade.SOLUSDT unsubscribed" in capsys.readouterr().out
    code, line = only_error(
        capsys, "unsubscribe", "linear:SOLUSDT", "--run-dir", str(pipeline.run_dir)
    )
    assert (64, "linear:SOLUSDT is not subscribed") == (code, line)


def test_a_topic_that_the_exchange_rejects_is_reported_and_dropped(
    capsys: pytest.CaptureFixture[str], start_pipeline: Any
) -> None:
    topics = ["publicTrade.NOPEUSDT", "orderbook.50.NOPEUSDT"]
    reported = {
        "topics": {**dict.fromkeys(PLANNED, "delivering"), **dict.fromkeys(topics, "rejected")},
        "rejected": dict.fromkeys(topics, "error:handler not found"),
        "refused_topics": topics,
    }
    pipeline = start_pipeline(behaviour={"connector-linear-0": {"status": reported}})
    pipeline.wait_up()

    code = main(["subscribe", "linear:NOPEUSDT", "--run-dir", str(pipeline.run_dir)])

    out, err = capsys.readouterr()
    assert (1, "") == (code, out)
    assert [
        f"linear {topic} rejected: error:handler not found" for topic in topics
    ] == err.splitlines()
    status = pipeline.status()
    assert status["ready"], status["reasons"]
    assert PLANNED == set(status["connectors"][0]["topics"])
    commands = pipeline.wait_for(
        lambda: [c["type"] for c in pipeline.commands("connector-linear-0")][1:]
    )
    assert ["unsubscribe"] == commands
    assert ["assign", "unassign"] == [c["type"] for c in pipeline.commands("trades-0")]
    assert "subscriptions_refused_total 2.0" in pipeline.page("/metrics")[1]


def test_a_second_up_is_rejected_with_the_pid_of_the_first(steady_pipeline: Any) -> None:
    done = run("up", "--run-dir", str(steady_pipeline.run_dir), "--source", "sim")

    assert 73 == done.returncode
    [line] = done.stderr.splitlines()
    assert line.endswith(f"taken by the pipeline with pid {steady_pipeline.process.pid}")


def test_a_taken_port_is_one_line_and_73(steady_pipeline: Any, tmp_path: Path) -> None:
    port = steady_pipeline.status()["http"].rpartition(":")[2]

    done = run(
        "up",
        "--run-dir",
        str(tmp_path / "run"),
        "--source",
        "sim",
        "--port",
        port,
        "--metrics",
        "tcp://127.0.0.1:0",
    )

    assert 73 == done.returncode
    [line] = done.stderr.splitlines()
    holder = steady_pipeline.process.pid
    assert line.startswith(f"prometheus.port: 127.0.0.1:{port} is taken by process {holder} (")
    assert [] == list(tmp_path.iterdir())


# -- tail --------------------------------------------------------------------------------------


class Metrics:
    """The metrics socket of a pipeline, without the rest; publishes continuously."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = str(run_dir)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.bind("tcp://127.0.0.1:*")
        endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        (run_dir / "lock").write_text(f"{os.getpid()}\n")
        (run_dir / "endpoints.json").write_text(
            json.dumps({"pid": os.getpid(), "metrics": endpoint})
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._publish)
        self._thread.start()

    def _publish(self) -> None:
        number = 0
        while not self._stopping.wait(0.01):
            number += 1
            for kind in ("trades", "orderbook"):
                payload = {
                    "kind": kind,
                    "category": "linear",
                    "symbol": "BTCUSDT",
                    "seq": number,
                    "epoch": "e",
                    "last_price": None,
                }
                topic = f"{kind}.linear.BTCUSDT".encode()
                self._socket.send_multipart([topic, codec.encode_map(payload)])

    def close(self) -> None:
        """Stop publishing."""
        self._stopping.set()
        self._thread.join()
        self._context.destroy(linger=0)


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    """A metrics socket that publishes."""
    metrics = Metrics(tmp_path)
    yield metrics
    metrics.close()


def test_tail_prints_one_json_object_per_line_and_stops_after_the_count(metrics: Metrics) -> None:
    done = run("tail", "trades.", "--count", "3", "--run-dir", metrics.run_dir)

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert 0 == done.returncode
    assert ["trades.linear.BTCUSDT"] * 3 == [line["topic"] for line in lines]
    first = lines[0]["seq"]
    assert [first, first + 1, first + 2] == [line["seq"] for line in lines]
    assert lines[0]["last_price"] is None


def test_tail_stops_after_its_timeout(metrics: Metrics) -> None:
    began = time.monotonic()

    done = run("tail", "density.", "--timeout", "0.5", "--run-dir", metrics.run_dir)

    assert (0, "") == (done.returncode, done.stdout)
    assert time.monotonic() - began < 5.0


def test_tail_fails_with_fewer_messages_than_its_count(metrics: Metrics) -> None:
    done = run("tail", "gap.", "--count", "2", "--timeout", "0.3", "--run-dir", metrics.run_dir)

    assert (1, ["tail: 0 of 2 messages in 0.3 s"]) == (done.returncode, done.stderr.splitlines())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tail_ends_quietly_on_a_signal(metrics: Metrics, number: int) -> None:
    with subprocess.Popen(
        [*RUN, "tail", "--run-dir", metrics.run_dir], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.send_signal(number)
        assert 0 == process.wait(5)
        assert b"" == process.stderr.read()


def test_tail_ends_quietly_when_its_reader_ends(metrics: Metrics) -> None:
    with subprocess.Popen(
        [*RUN, "tail", "--run-dir", metrics.run_dir], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert 0 == process.wait(5)
        assert b"" == process.stderr.read()


# -- watch in a pipe ---------------------------------------------------------------------------


def test_watch_prints_the_given_markets(metrics: Metrics) -> None:
    done = run("watch", "btcusdt", "--run-dir", metrics.run_dir)

    assert (0, "") == (done.returncode, done.stderr)
    assert ["market", "linear:BTCUSDT"] == [line.split()[0] for line in done.stdout.splitlines()]


def test_watch_names_markets_without_data(metrics: Metrics) -> None:
    done = run("watch", "NOPE", "--run-dir", metrics.run_dir)

    [line] = done.stderr.splitlines()
    assert (1, "") == (done.returncode, done.stdout)
    assert "no data for NOPE; bybit-pipeline watch lists the markets of the pipeline" == line


def test_watch_shows_the_other_markets_all_the_same(metrics: Metrics) -> None:
    done = run("watch", "spot:BTCUSDT", "linear:BTCUSDT", "NOPE", "--run-dir", metrics.run_dir)

    [line] = done.stderr.splitlines()
    assert 1 == done.returncode
    assert "linear:BTCUSDT" in done.stdout
    assert line.startswith("no data for spot:BTCUSDT, NOPE;")


# -- simulate ----------------------------------------------------------------------------------


def test_simulate_passes_its_options_to_the_simulated_exchange() -> None:
    with subprocess.Popen(
        [*RUN, "simulate", "--symbols", "BTCUSDT", "--category", "spot", "--seed", "7"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(10)

    assert line.startswith("READY ws://127.0.0.1:")
    assert line.endswith("/v5/public/{category}\n")
