"""``python -m bybit_pipeline.processes.simulator``, started alone and as a child."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import websocket

from bybit_pipeline.processes.simulator.cli import make_parser, make_spec
from bybit_pipeline.processes.simulator.factory import make_server
from bybit_pipeline.shared.errors import PipelineError
from bybit_pipeline.shared.settings.specs import SimulatorSpec, write_spec

DEADLINE_S = 20.0
COMMAND = (sys.executable, "-m", "bybit_pipeline.processes.simulator")
CHECKOUT = Path(__file__).resolve().parents[2]


class Alone:
    """A simulator process that has printed READY."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()

    def __enter__(self) -> "Alone":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def connect(self, category: str) -> websocket.WebSocket:
        """Return a client of one category."""
        url = self.line.split()[1].format(category=category)
        return websocket.create_connection(url, timeout=DEADLINE_S)


def ack(client: websocket.WebSocket, *topics: str) -> bool:
    """Subscribe; return True if the exchange accepts it."""
    client.send(json.dumps({"op": "subscribe", "args": topics}))
    while "success" not in (message := json.loads(client.recv())):
        pass
    return bool(message["success"])


def run_to_end(*arguments: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a run that ends by itself."""
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=DEADLINE_S, cwd=CHECKOUT
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_promptly_with_exit_code_0(number: signal.Signals) -> None:
    """The printed address has a placeholder; a connected client does not delay the end."""
    with Alone("--symbols", "BTCUSDT,BTCUSD") as simulator:
        assert simulator.line.startswith("READY ws://127.0.0.1:")
        assert simulator.line.endswith("/v5/public/{category}\n")
        client = simulator.connect("linear")
        assert ack(client, "orderbook.50.BTCUSDT")
        assert not ack(client, "orderbook.50.ETHUSDT")
        assert ack(simulator.connect("spot"), "publicTrade.BTCUSDT")
        assert ack(simulator.connect("inverse"), "publicTrade.BTCUSD")
        started = time.monotonic()
        simulator.process.send_signal(number)
        assert simulator.process.wait(DEADLINE_S) == 0
        assert time.monotonic() - started < 3.0


def test_it_lists_the_default_instruments_or_the_named_symbols() -> None:
    """``--category`` restricts the named symbols to one category."""
    with Alone() as simulator:
        assert ack(simulator.connect("linear"), "orderbook.50.BTCUSDT", "publicTrade.ETHUSDT")
        assert ack(simulator.connect("option"), "publicTrade.BTC")
    with Alone("--symbols", "FOOUSDT", "--category", "spot", "--rate", "50") as simulator:
        assert ack(simulator.connect("spot"), "orderbook.50.FOOUSDT")
        assert not ack(simulator.connect("linear"), "orderbook.50.FOOUSDT")


def test_a_taken_port_ends_with_73_and_one_line() -> None:
    """Stdout is empty, and the line names the process that has the port."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        code, out, err = run_to_end("--port", str(port))
    assert (73, "") == (code, out)
    assert err.startswith(
        f"bybit-pipeline simulate: port: 127.0.0.1:{port} is taken by process {os.getpid()} ("
    )
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--category", "futures"], "--category: 'futures'; allowed: spot, linear"),
        (["--port", "x"], "--port: 'x'; allowed: a whole number"),
        (["BTCUSDT"], "unrecognized arguments: BTCUSDT"),
        (["--symbols", "btc usdt"], "'BTC USDT' is not a symbol"),
        (["--symbols", "BTCUSDT,,ETHUSDT"], "a symbol is empty"),
        (["--capture", "/dev/null"], "/dev/null"),
    ],
)
def test_wrong_usage_ends_with_64_and_one_line(arguments: list[str], named: str) -> None:
    """The line names the option."""
    code, out, err = run_to_end(*arguments)
    assert (64, "") == (code, out)
    assert named in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--port", "70000"], "--port"),
        (["--symbols", ""], "a symbol is empty"),
        (["--symbols", "BTCUSDT,"], "a symbol is empty"),
        (["--symbols", "*USDT"], r"'\*USDT' is not a symbol"),
        (["--symbols", "BTCUSDT, ETHUSDT,BTCUSDT"], "BTCUSDT appears twice"),
        (["--rate", "0"], "rate"),
        (["--speed", "0", "--capture", __file__], "speed"),
        (["--fault", "explode"], "explode"),
        (["--fault", "drop:every=0"], "drop"),
        (["--script", "/nowhere/script.jsonl"], "/nowhere/script.jsonl"),
        (["--capture", "/nowhere/x.jsonl"], "/nowhere/x.jsonl"),
        (["--capture", "x", "--symbols", "BTCUSDT"], "--symbols"),
        (["--capture", "x", "--rate", "5"], "--rate"),
    ],
)
def test_impossible_options_are_rejected_before_the_server_starts(
    arguments: list[str], named: str
) -> None:
    """The exit code is that of wrong usage."""
    with pytest.raises(PipelineError, match=named) as failure:
        make_server(make_spec(make_parser().parse_args(arguments)))
    assert failure.value.exit_code == 64


def test_symbols_may_have_spaces_and_small_letters() -> None:
    spec = make_spec(make_parser().parse_args(["--symbols", "BTCUSDT, ethusdt"]))
    assert spec.symbols == {"spot": ["BTCUSDT", "ETHUSDT"], "linear": ["BTCUSDT", "ETHUSDT"]}


def test_the_end_of_a_capture_is_logged(tmp_path: Path) -> None:
    """It is logged once, with totals; the connection stays open."""
    row = {"T": 1, "s": "AAAUSDT", "S": "Buy", "v": "1", "p": "2", "L": "PlusTick", "i": "3"}
    message = {"topic": "publicTrade.AAAUSDT", "type": "snapshot", "ts": 5, "data": [row]}
    capture = tmp_path / "x.jsonl"
    capture.write_text(json.dumps(message) + "\n")
    with Alone("--capture", str(capture), "--speed", "2") as simulator:
        client = simulator.connect("linear")
        assert ack(client, "publicTrade.AAAUSDT")
        assert message == json.loads(client.recv())
        client.send('{"op":"ping"}')
        assert json.loads(client.recv())["ret_msg"] == "pong"
        simulator.process.send_signal(signal.SIGINT)
        _, err = simulator.process.communicate(timeout=DEADLINE_S)
    finished = [json.loads(line) for line in err.splitlines() if "capture finished" in line]
    assert [(1, 1)] == [(line["messages"], line["topics"]) for line in finished]


def test_a_child_serves_its_spec_and_ends_with_its_supervisor(tmp_path: Path) -> None:
    """It lists the named symbols and the default ones, and logs an impossible symbol."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    spec = SimulatorSpec(
        process="simulator",
        role="simulator",
        run_dir=str(tmp_path),
        port=port,
        symbols={"linear": ["FOOUSDT"], "option": ["NONSENSE"]},
        log_format="json",
    )
    write_spec(spec, tmp_path / "spec.json")
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, str(tmp_path / "spec.json"), "--lifeline", str(reader)],
        pass_fds=[reader],
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    os.close(reader)
    assert process.stderr is not None
    lines: list[dict[str, str]] = []
    while not lines or lines[-1]["event"] != "ready":
        lines.append(json.loads(process.stderr.readline()))
    events = {line["event"]: line for line in lines}
    assert events["symbol not listed"]["symbol"] == "NONSENSE"
    client = websocket.create_connection(f"ws://127.0.0.1:{port}/v5/public/linear", timeout=5)
    assert ack(client, "orderbook.50.FOOUSDT", "orderbook.50.BTCUSDT")
    os.close(writer)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert "supervisor gone" in err
