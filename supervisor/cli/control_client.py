"""
Client of the control plane: sends a request to a running pipeline and waits for the answer.

Finds a pipeline by its run directory. Does not know what the answers mean.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from bybit_pipeline.shared.bus.sockets import ipc_endpoint
from bybit_pipeline.shared.errors import CodecError, NoPipelineError, PipelineError
from bybit_pipeline.shared.settings.locations import absolute_run_dir, own_run_dir
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.shared.wire.topics import parse_topic
from bybit_pipeline.supervisor.interrupts import Interrupts
from bybit_pipeline.supervisor.run_dir import ENDPOINTS, holder

ANSWER_S = 3.0
"""Maximum wait for the pipeline's answer to one request."""
EXCHANGE_S = 8.0
"""Maximum wait for the exchange to confirm or reject a subscription."""
POLL_S = 0.1
"""Interval of requests while the exchange has not answered."""


class RejectedError(PipelineError):
    """The pipeline rejected a request; ``exit_code`` is the one that it sent."""

    def __init__(self, text: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(text)


class ControlClient:
    """
    A connection to the pipeline in a run directory; a context manager.

    Args:
        run_dir: The run directory.
        interrupts: Signals that end a wait; without them, ``KeyboardInterrupt`` may come late.

    Raises:
        NoPipelineError: If no pipeline runs there.
    """

    def __init__(self, run_dir: str, interrupts: Interrupts | None = None) -> None:
        self.run_dir = run_dir
        self.pid = holder(run_dir)
        self._interrupts = interrupts
        self._last_id = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(ipc_endpoint(f"{run_dir}/control.ipc"))

    def __enter__(self) -> "ControlClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """
        Send a command and return its result.

        Raises:
            NoPipelineError: If no answer arrives within ``ANSWER_S``.
            RejectedError: If the pipeline rejects the command.
        """
        self._last_id += 1
        request = {
            "type": "request",
            "id": self._last_id,
            "command": command,
            "arguments": arguments,
        }
        self._socket.send(codec.encode_map(request))
        reply = self._reply(self._last_id)
        if not reply.get("ok"):
            raise RejectedError(str(reply.get("error")), int(reply.get("exit_code", 1)))
        result: dict[str, Any] = reply["result"]
        return result

    def _reply(self, number: int) -> Mapping[str, Any]:
        deadline = time.monotonic() + ANSWER_S
        while (left := deadline - time.monotonic()) > 0:
            if not self._wait(left):
                break
            try:
                reply = codec.decode_map(self._socket.recv())
            except CodecError as error:
                raise NoPipelineError(f"run_dir {self.run_dir}: unreadable answer") from error
            if reply.get("id") == number:
                return reply
        raise NoPipelineError(
            f"run_dir {self.run_dir}: the pipeline with pid {self.pid} does not answer"
        )

    def _wait(self, timeout_s: float) -> bool:
        if self._interrupts is not None:
            return self._interrupts.wait(timeout_s, self._socket)
        return bool(self._socket.poll(int(timeout_s * 1000) + 1))

    def sleep(self, seconds: float) -> None:
        """Wait before the next request."""
        if self._interrupts is not None:
            self._interrupts.sleep(seconds)
        else:
            time.sleep(seconds)


class TopicAnswer(NamedTuple):
    """The exchange's answer for one topic."""

    category: str
    topic: str
    """The exchange's name: ``orderbook.50.BTCUSDT``."""
    state: str
    """``confirmed``, ``delivering``, ``rejected`` or still ``pending``."""
    reason: str


def wait_for_answers(
    pipeline: ControlClient, topics: Iterable[Mapping[str, str]]
) -> Iterator[TopicAnswer]:
    """
    Wait until the exchange has answered for all topics, then yield the answers.

    Topics without an answer after ``EXCHANGE_S`` are still ``pending``.
    """
    asked = {entry["bus_topic"]: entry["topic"] for entry in topics}
    deadline = time.monotonic() + EXCHANGE_S
    while True:
        answers = pipeline.ask("answers", topics=list(asked))["answers"]
        states = {answer["state"] for answer in answers.values()}
        if "pending" not in states or time.monotonic() >= deadline:
            break
        pipeline.sleep(POLL_S)
    # The contracts on one coin share the topic of their trades.
    yield from dict.fromkeys(
        TopicAnswer(
            parse_topic(bus_topic).category,
            topic,
            answers[bus_topic]["state"],
            answers[bus_topic]["reason"],
        )
        for bus_topic, topic in asked.items()
    )


def wait_for_patterns(pipeline: ControlClient, names: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """
    Wait until subscribed patterns are resolved or have a reason why not; yield their status.

    After ``EXCHANGE_S`` they are yielded as they are.
    """
    wanted = set(names)
    deadline = time.monotonic() + EXCHANGE_S
    while wanted:
        found = [e for e in pipeline.ask("status")["patterns"] if e["pattern"] in wanted]
        is_known = all(e["reason"] or e["state"] != "unresolved" for e in found)
        if is_known or time.monotonic() >= deadline:
            yield from found
            return
        pipeline.sleep(POLL_S)


def chosen_run_dir(given: Path | None) -> str:
    """
    Return the absolute run directory that a command is about.

    Raises:
        ConfigError: If the path is too long for the sockets in it.
        NoPipelineError: If it is the default one and other users have access to it.
    """
    return absolute_run_dir(given or own_run_dir())


def read_endpoints(run_dir: str) -> dict[str, Any]:
    """
    Return ``endpoints.json`` of a running pipeline.

    Raises:
        NoPipelineError: If no pipeline runs there, or not every process is up yet.
    """
    pid = holder(run_dir)
    try:
        endpoints = dict(json.loads((Path(run_dir) / ENDPOINTS).read_bytes()))
    except (OSError, ValueError) as error:
        raise NoPipelineError(f"run_dir {run_dir}: the pipeline is not up yet") from error
    if endpoints.get("pid") != pid:  # left by a pipeline that was killed
        raise NoPipelineError(f"run_dir {run_dir}: the pipeline is not up yet")
    return endpoints
