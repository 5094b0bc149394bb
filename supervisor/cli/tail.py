"""
Metric messages for the command line: ``tail``, ``watch`` and the live view listen through this.

A subscriber of the metrics socket that leaves out the repeats which the forwarder sends for other
people's sake (same ``epoch`` and ``seq``).
"""

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import zmq

from bybit_pipeline.shared.errors import EX_FAILED, EX_OK, CodecError, NoPipelineError
from bybit_pipeline.shared.settings.curve_keys import read_client_keys
from bybit_pipeline.shared.wire import codec
from bybit_pipeline.supervisor.cli.control_client import read_endpoints
from bybit_pipeline.supervisor.run_dir import holder, is_alive

QUEUE = 10_000
UP_S = 10.0
"""How long to wait for a pipeline that has only just been started."""
CHECK_MS = 1_000
RECEIVE_LIMIT = 500


class Listener:
    """
    Messages of topics that begin with any of some prefixes; a context manager.

    Args:
        endpoint: The metrics socket.
        prefixes: Of topics.
        keys: Directory of the keys of the metrics socket, if it has any.

    Attributes:
        invalid: Frames that could not be read.

    Raises:
        ConfigError: If the keys cannot be used.
    """

    def __init__(self, endpoint: str, prefixes: list[str], *, keys: str | None = None) -> None:
        client_keys = read_client_keys(Path(keys)) if keys else None
        self.invalid = 0
        self._numbers: dict[str, tuple[Any, Any]] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, QUEUE)
        if client_keys is not None:
            client_keys.apply(self._socket)
        for prefix in prefixes:
            self._socket.subscribe(prefix)
        self._socket.connect(endpoint)

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._context.destroy(linger=0)

    def receive(self, timeout_ms: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Topic and payload of what has arrived or arrives within the time, some at a time."""
        for topic, frame in self.frames(timeout_ms):
            payload = self.read(topic, frame)
            if payload is not None:
                yield topic, payload

    def frames(self, timeout_ms: int) -> Iterator[tuple[str, bytes]]:
        """The same, unread and with repeats: for those who look at a few of many messages."""
        if not self._socket.poll(timeout_ms):
            return
        for _ in range(RECEIVE_LIMIT):
            try:
                topic, frame = self._socket.recv_multipart(zmq.NOBLOCK)
                name = topic.decode()
            except zmq.Again:
                return
            except ValueError:
                self.invalid += 1
            else:
                yield name, frame

    def read(self, topic: str, frame: bytes) -> dict[str, Any] | None:
        """A payload; None of one that cannot be read, which is counted, and of a repeat."""
        try:
            fields = codec.decode_map(frame)
        except CodecError:
            self.invalid += 1
            return None
        numbers = (fields.get("epoch"), fields.get("seq"))
        if numbers[1] is not None and numbers == self._numbers.get(topic):
            return None
        self._numbers[topic] = numbers
        return fields


def wait_for_endpoints(run_dir: str, *, within_s: float = UP_S) -> dict[str, Any]:
    """
    ``endpoints.json`` of a running pipeline, waited for while it starts.

    Raises:
        NoPipelineError: If none runs, or it is not up in time.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            return read_endpoints(run_dir)
        except NoPipelineError:
            holder(run_dir)
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.1)


def tail(
    run_dir: str, prefix: str, *, timeout_s: float | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    Messages of a running pipeline until the time is over.

    Raises:
        NoPipelineError: If none runs, or it stops.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    endpoints = wait_for_endpoints(run_dir, within_s=UP_S if timeout_s is None else timeout_s)
    with Listener(endpoints["metrics"], [prefix], keys=endpoints.get("keys")) as listener:
        while (left := _left_ms(deadline)) > 0:
            yield from listener.receive(min(left, CHECK_MS))
            if not is_alive(endpoints["pid"]):
                raise NoPipelineError(f"run_dir {run_dir}: the pipeline has stopped")


def _left_ms(deadline: float | None) -> int:
    return CHECK_MS if deadline is None else int((deadline - time.monotonic()) * 1000 + 0.999)


def print_tail(
    run_dir: str,
    prefix: str,
    *,
    count: int | None,
    timeout_s: float | None,
    as_json: bool = False,
) -> int:
    """
    Print messages until there are enough, the time is over, or a signal comes.

    As JSON lines if asked to, or if nobody reads them at a terminal.

    Returns:
        0, but 1 if the time was over before ``count`` messages came.

    Raises:
        NoPipelineError: If no pipeline runs, or it stops.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    is_for_people = sys.stdout.isatty() and not as_json
    printed = 0
    try:
        for topic, payload in tail(run_dir, prefix, timeout_s=timeout_s):
            if is_for_people:
                _show(topic, payload)
            else:
                line = msgspec.json.encode({"topic": topic, **payload}) + b"\n"
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
            printed += 1
            if printed == count:
                return EX_OK
    except KeyboardInterrupt:
        return EX_OK
    if count is None:
        return EX_OK
    print(f"tail: {printed} of {count} messages in {timeout_s:g} s", file=sys.stderr)
    return EX_FAILED


def _show(topic: str, payload: dict[str, Any]) -> None:
    from bybit_pipeline.supervisor.tui.highlight import (  # rich is only wanted on a terminal
        message_line,
        show,
    )

    show([message_line(topic, payload)])
