"""``tail``: metric messages of a running pipeline on stdout."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec

from bybit_pipeline.shared.bus.subscriber import MetricSubscriber
from bybit_pipeline.shared.errors import EX_FAILED, EX_OK, NoPipelineError
from bybit_pipeline.shared.runtime.wakeup import Wakeup
from bybit_pipeline.supervisor.cli.control_client import read_endpoints
from bybit_pipeline.supervisor.run_dir import holder, is_alive

UP_S = 10.0
"""How long to wait for a pipeline that has just been started."""
CHECK_MS = 1_000
"""Longest wait before checking that the pipeline still runs."""


def wait_for_endpoints(run_dir: str, *, within_s: float = UP_S) -> dict[str, Any]:
    """
    Wait until a pipeline has started, and return its ``endpoints.json``.

    Raises:
        NoPipelineError: If no pipeline runs, or it does not start in time.
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
    Topic and payload of the messages of a running pipeline, without repeats, until the timeout.

    For the main thread: a signal interrupts the wait for the next message at once.

    Raises:
        NoPipelineError: If no pipeline runs, or it stops.
        ConfigError: If the keys of the metrics socket cannot be used.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    endpoints = wait_for_endpoints(run_dir, within_s=UP_S if timeout_s is None else timeout_s)
    with (
        closing(Wakeup()) as wakeup,
        MetricSubscriber(endpoints["metrics"], keys=endpoints.get("keys")) as subscriber,
    ):
        wakeup.catch_signals()
        subscriber.subscribe_prefix(prefix)
        while (left := _left_ms(deadline)) > 0:
            subscriber.wait(min(left, CHECK_MS), wakeup.fileno())
            for metric in subscriber.receive():
                if not metric.is_repeat:
                    yield metric.topic, metric.payload
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
    Print messages until there are ``count``, until the timeout, or until SIGINT or SIGTERM.

    On a terminal each is a line for people, unless ``as_json`` is set; otherwise a line of JSON.

    Returns:
        The exit code: 1 if fewer than ``count`` messages arrived before the timeout, otherwise 0.

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
    # Only a terminal needs rich, which takes long to import.
    from bybit_pipeline.supervisor.tui.highlight import message_line, show

    show([message_line(topic, payload)])
