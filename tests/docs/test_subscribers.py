"""The subscribers in the documentation, word for word, next to a future of the same coin."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bybit_pipeline import PipelineClient
from tests.shared.client.pipeline import BOOK, DEADLINE_S, ForwarderRig, until

README = Path(__file__).parents[2] / "README.md"
FUTURE = "BTCUSDT-25DEC26"
"""Bybit lists about 40 such names: they start with the name of the perpetual."""


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[ForwarderRig]:
    """A running forwarder."""
    with contextlib.closing(ForwarderRig(tmp_path)) as rig:
        yield rig


def publish_both(pipeline: ForwarderRig) -> None:
    """Publish three books of the future, and three of the perpetual."""
    for seq in range(1, 4):
        for symbol, price in ((FUTURE, 7.0), ("BTCUSDT", 100.0)):
            book: dict[str, Any] = BOOK | {"symbol": symbol, "best_bid": price}
            pipeline.publish(f"orderbook.linear.{symbol}", seq, **book)


def test_the_first_subscriber_of_the_readme_shows_no_numbers_of_another_symbol(
    pipeline: ForwarderRig,
) -> None:
    found = re.search(r"```python\n(import msgpack, zmq\n.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    code = found[1].replace("tcp://127.0.0.1:5556", pipeline.endpoint)
    with subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE) as process:
        until(lambda: pipeline.status("subscriptions") > 0)
        publish_both(pipeline)
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(3)]
        process.kill()
    assert [b"100.0"] * 3 == [line[0] for line in lines]


def test_the_client_matches_a_symbol_exactly(pipeline: ForwarderRig) -> None:
    with PipelineClient(pipeline.endpoint) as client:
        client.subscribe("BTCUSDT")
        until(lambda: client.connected and pipeline.status("subscriptions") > 0)
        messages = client.messages(DEADLINE_S)
        publish_both(pipeline)
        topics = [next(messages).topic for _ in range(3)]

        assert {"orderbook.linear.BTCUSDT"} == set(topics)
        assert ["orderbook.linear.BTCUSDT"] == client.topics()
        assert client.get_message(f"orderbook.linear.{FUTURE}") is None
