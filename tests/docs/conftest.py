"""A simulated pipeline in the default place of a user, and other things the pages talk about."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.pipeline import COMMAND, Pipeline


@pytest.fixture(scope="package")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """``bybit-pipeline up`` with the page on the simulated exchange, in the default place."""
    directory = tmp_path_factory.mktemp("docs")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(directory)
    pipeline = Pipeline(
        directory, "--source", "sim", "--dashboard", run_dir=directory / "bybit-pipeline"
    )
    try:
        pipeline.wait_ready()
        yield pipeline
    finally:
        pipeline.close()
        if runtime is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = runtime


@pytest.fixture(scope="package")
def exchange() -> Iterator[str]:
    """``host:port`` of a simulated exchange that runs alone."""
    process = subprocess.Popen(
        [*COMMAND, "simulate", "--category", "linear", "--symbols", "BTCUSDT,ETHUSDT"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        ready = re.search(r"READY ws://([^/]+)/", process.stdout.readline())
        assert ready is not None
        yield ready[1]
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of one book and its trades."""
    path = tmp_path_factory.mktemp("recording") / "recording.jsonl"
    lines = []
    for number in range(20):
        ts = 1_790_134_712_000 + 100 * number
        book = {"s": "BTCUSDT", "b": [["100.0", str(1 + number)]], "a": [], "u": 100 + number}
        book |= {"seq": 1_000 + number}
        kind = "delta"
        if number == 0:
            book["a"], kind = [["101.0", "3"]], "snapshot"
        head = {"topic": "orderbook.50.BTCUSDT", "type": kind, "ts": ts}
        lines.append({**head, "data": book, "cts": ts - 2})
        trade = {"T": ts - 1, "s": "BTCUSDT", "S": "Buy", "v": "1", "p": "101.0", "L": "PlusTick"}
        trade |= {"i": f"trade-{number}", "BT": False}
        head = {"topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": ts}
        lines.append({**head, "data": [trade]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
