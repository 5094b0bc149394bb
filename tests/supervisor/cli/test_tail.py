"""What ``tail`` listens to: topics by prefix, without repeats, from a running pipeline."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from bybit_pipeline.shared.errors import NoPipelineError
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.supervisor.cli.tail import Listener, wait_for_endpoints

DEADLINE_MS = 5_000


class Publisher:
    """The forwarder's end of the metrics socket."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        self.socket = context.socket(zmq.XPUB)
        self.socket.bind("tcp://127.0.0.1:*")
        self.endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def wait_for_subscriber(self) -> None:
        """Wait until somebody listens."""
        assert self.socket.poll(DEADLINE_MS)
        self.socket.recv()

    def send(self, topic: str, **payload: Any) -> None:
        """Publish one metric."""
        self.socket.send_multipart([topic.encode(), codec.encode_map(payload)])


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    """A publisher on a port that the operating system chose."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield Publisher(context)
    context.destroy(linger=0)


def heard(listener: Listener, until: str) -> list[tuple[str, Any]]:
    """Topics and ``seq`` of everything up to the message of some topic."""
    found: list[tuple[str, Any]] = []
    deadline = time.monotonic() + DEADLINE_MS / 1000
    while not found or found[-1][0] != until:
        assert time.monotonic() < deadline
        found += [(topic, payload.get("seq")) for topic, payload in listener.receive(100)]
    return found


def test_only_topics_with_the_prefix_are_heard(publisher: Publisher) -> None:
    with Listener(publisher.endpoint, ["trades."]) as listener:
        publisher.wait_for_subscriber()
        publisher.send("orderbook.linear.A", epoch="e", seq=1)
        publisher.send("trades.linear.A", epoch="e", seq=1)
        publisher.send("trades.end.X", epoch="e", seq=1)

        assert ["trades.linear.A", "trades.end.X"] == [
            t for t, _ in heard(listener, "trades.end.X")
        ]


def test_the_repeat_of_a_last_value_for_somebody_else_is_left_out(publisher: Publisher) -> None:
    with Listener(publisher.endpoint, [""]) as listener:
        publisher.wait_for_subscriber()
        for epoch, seq in (("e", 1), ("e", 1), ("e", 2), ("f", 2)):
            publisher.send("trades.linear.A", epoch=epoch, seq=seq)
        publisher.send("trades.linear.B", epoch="f", seq=2)
        publisher.send("process.x", state="up")
        publisher.send("process.x", state="up")
        publisher.send("end", seq=1)

        assert [
            ("trades.linear.A", 1),
            ("trades.linear.A", 2),
            ("trades.linear.A", 2),
            ("trades.linear.B", 2),
            ("process.x", None),
            ("process.x", None),
            ("end", 1),
        ] == heard(listener, "end")


def test_frames_that_cannot_be_read_are_counted(publisher: Publisher) -> None:
    with Listener(publisher.endpoint, [""]) as listener:
        publisher.wait_for_subscriber()
        publisher.socket.send_multipart([b"a"])
        publisher.socket.send_multipart([b"a", b"\xc1"])
        publisher.socket.send_multipart([b"\xff", codec.encode_map({})])
        publisher.send("end")

        assert [("end", None)] == heard(listener, "end")
        assert 3 == listener.invalid


def test_endpoints_of_a_killed_pipeline_are_not_believed(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(f"{os.getpid()}\n")
    (tmp_path / "endpoints.json").write_text(json.dumps({"pid": 1, "metrics": "tcp://old"}))

    with pytest.raises(NoPipelineError, match="not up yet"):
        wait_for_endpoints(str(tmp_path), within_s=0.0)


def test_endpoints_of_a_running_pipeline_are_found(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(f"{os.getpid()}\n")
    (tmp_path / "endpoints.json").write_text(json.dumps({"pid": os.getpid(), "metrics": "tcp://x"}))

    assert "tcp://x" == wait_for_endpoints(str(tmp_path), within_s=0.0)["metrics"]
