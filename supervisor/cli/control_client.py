"""
The command line's side of the control plane: ask a running pipeline and wait for the answer.

Knows how to find a pipeline by its run directory, and nothing of what the answers mean.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import zmq

from bybit_pipeline.shared.bus.sockets import ipc_endpoint
from bybit_pipeline.shared.errors import CodecError, NoPipelineError, PipelineError
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.supervisor.run_dir import ENDPOINTS, holder

ANSWER_S = 3.0
EXCHANGE_S = 8.0
"""How long the exchange is given to confirm or refuse a subscription."""


class RefusedError(PipelineError):
    """The pipeline did not do what was asked; ``exit_code`` is its own."""

    def __init__(self, text: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(text)


class Requests:
    """
    A connection to the pipeline of a run directory; a context manager.

    Raises:
        NoPipelineError: If no pipeline runs there.
    """

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir
        self.pid = holder(run_dir)
        self._last_id = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(ipc_endpoint(f"{run_dir}/control.ipc"))

    def __enter__(self) -> "Requests":
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """
        The result of a command.

        Raises:
            NoPipelineError: If nobody answers in time.
            RefusedError: If the pipeline refuses.
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
            raise RefusedError(str(reply.get("error")), int(reply.get("exit_code", 1)))
        result: dict[str, Any] = reply["result"]
        return result

    def _reply(self, number: int) -> Mapping[str, Any]:
        deadline = time.monotonic() + ANSWER_S
        while (left := deadline - time.monotonic()) > 0:
            if not self._socket.poll(int(left * 1000) + 1):
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


def wait_for_answers(
    requests: Requests, topics: Iterable[Mapping[str, str]]
) -> Iterator[tuple[str, str, str]]:
    """
    Topic, state and reason of what was subscribed, when the exchange has answered for all.

    After ``EXCHANGE_S`` without an answer a topic is ``pending`` still.
    """
    asked = {entry["bus_topic"]: entry["topic"] for entry in topics}
    deadline = time.monotonic() + EXCHANGE_S
    while True:
        answers = requests.ask("answers", topics=list(asked))["answers"]
        states = {answer["state"] for answer in answers.values()}
        if "pending" not in states or time.monotonic() >= deadline:
            break
        time.sleep(0.1)
    # Contracts of one coin share the topic of their trades.
    yield from dict.fromkeys(
        (topic, answers[bus_topic]["state"], answers[bus_topic]["reason"])
        for bus_topic, topic in asked.items()
    )


def wait_for_patterns(requests: Requests, names: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """
    The status of patterns that were subscribed, when it is known what they stand for, or why not.

    After ``EXCHANGE_S`` without either they are as they are.
    """
    wanted = set(names)
    deadline = time.monotonic() + EXCHANGE_S
    while wanted:
        found = [e for e in requests.ask("status")["patterns"] if e["pattern"] in wanted]
        is_known = all(e["reason"] or e["state"] != "unresolved" for e in found)
        if is_known or time.monotonic() >= deadline:
            yield from found
            return
        time.sleep(0.1)


def read_endpoints(run_dir: str) -> dict[str, Any]:
    """
    ``endpoints.json`` of a running pipeline.

    Raises:
        NoPipelineError: If none runs, or it is not up yet.
    """
    pid = holder(run_dir)
    try:
        endpoints = dict(json.loads((Path(run_dir) / ENDPOINTS).read_bytes()))
    except (OSError, ValueError) as error:
        raise NoPipelineError(f"run_dir {run_dir}: the pipeline is not up yet") from error
    if endpoints.get("pid") != pid:  # left by a pipeline that was killed
        raise NoPipelineError(f"run_dir {run_dir}: the pipeline is not up yet")
    return endpoints
