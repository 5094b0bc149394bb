"""``tail``: metric messages of a running pipeline on stdout."""

import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from bybit_pipeline.shared.bus.subscriber import MetricSubscriber
from bybit_pipeline.shared.errors import EX_FAILED, EX_OK, NoPipelineError
from bybit_pipeline.shared.wire.overdue import VIEW_OVERDUE_S
from bybit_pipeline.supervisor.cli.control_client import read_endpoints
from bybit_pipeline.supervisor.cli.output import print_error
from bybit_pipeline.supervisor.interrupts import Interrupts
from bybit_pipeline.supervisor.run_dir import holder, is_alive

STARTING_S = 10.0
"""Maximum wait for a pipeline that is still starting, in seconds."""
STARTING_POLL_S = 0.1
CHECK_S = 0.25
"""Longest wait before checking that the pipeline still runs and publishes, in seconds."""
PULSE = "process.forwarder"
"""A topic that every pipeline publishes once per second, also if no wanted topic has news."""


def wait_for_endpoints(
    run_dir: str, interrupts: Interrupts, *, within_s: float = STARTING_S
) -> dict[str, Any]:
    """
    Return ``endpoints.json`` of a running pipeline; wait for a pipeline that is still starting.

    Raises:
        NoPipelineError: If no pipeline runs, or not every process is up within ``within_s``.
        KeyboardInterrupt: If a signal arrives.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            return read_endpoints(run_dir)
        except NoPipelineError:
            holder(run_dir)
            if time.monotonic() >= deadline:
                raise
        interrupts.sleep(STARTING_POLL_S)


def tail(
    run_dir: str, prefix: str, interrupts: Interrupts, *, timeout_s: float | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    Yield topic and payload of the messages of a running pipeline, without repeats.

    Reports on stderr, within 2 s, that the pipeline publishes nothing any more, and its return.

    Args:
        run_dir: Directory of the running pipeline.
        prefix: Start of the topics.
        interrupts: Signals that end the wait for the next message.
        timeout_s: When to stop; None for no limit.

    Raises:
        NoPipelineError: If no pipeline runs, or it stops.
        ConfigError: If the keys of the metrics socket cannot be used.
        KeyboardInterrupt: If a signal arrives.
    """
    deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
    within_s = STARTING_S if timeout_s is None else timeout_s
    endpoints = wait_for_endpoints(run_dir, interrupts, within_s=within_s)
    with MetricSubscriber(endpoints["metrics"], keys=endpoints.get("keys")) as subscriber:
        subscriber.subscribe_prefix(prefix)
        subscriber.subscribe(PULSE)
        heard = time.monotonic()
        is_silent = False
        while (left_s := deadline - time.monotonic()) > 0:
            subscriber.maintain()
            interrupts.wait(min(left_s, CHECK_S), subscriber.socket, subscriber.monitor)
            received = subscriber.counts.messages
            for metric in subscriber.receive():
                if not metric.is_repeat and metric.topic.startswith(prefix):
                    yield metric.topic, metric.payload
            if subscriber.counts.messages > received:
                if is_silent:
                    print_error(f"tail: messages again after {time.monotonic() - heard:.1f} s")
                heard, is_silent = time.monotonic(), False
            elif not is_silent and time.monotonic() - heard >= VIEW_OVERDUE_S:
                is_silent = True
                print_error("tail: no messages: what was printed last is not current")
            if not is_alive(endpoints["pid"]):
                raise NoPipelineError(f"run_dir {run_dir}: the pipeline has stopped")


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
        KeyboardInterrupt: If a signal arrives.
    """
    is_for_people = sys.stdout.isatty() and not as_json
    printed = 0
    with Interrupts() as interrupts:
        for topic, payload in tail(run_dir, prefix, interrupts, timeout_s=timeout_s):
            if is_for_people:
                _show(topic, payload)
            else:
                line = msgspec.json.encode({"topic": topic, **payload}) + b"\n"
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
            printed += 1
            if printed == count:
                return EX_OK
    if count is None:
        return EX_OK
    print_error(f"tail: {printed} of {count} messages in {timeout_s:g} s")
    return EX_FAILED


def _show(topic: str, payload: dict[str, Any]) -> None:
    # Only a terminal needs rich, which takes long to import.
    from bybit_pipeline.supervisor.tui.highlight import message_line, show

    show([message_line(topic, payload)])
