"""How soon ``/readyz`` says that something is wrong, with real processes."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.system.exchange import Exchange
from tests.system.pipeline import Pipeline, kill, until

CONNECTOR = "connector-linear-0"
SETTLE_S = 30.0
"""Time for a killed process to be up again, with its backoff."""


def code_and_reasons(pipeline: Pipeline) -> tuple[int, list[str]]:
    """The answer of ``/readyz``."""
    code, body = pipeline.http("/readyz")
    return code, json.loads(body)["reasons"]


def time_to_503(pipeline: Pipeline, fault: Callable[[], object]) -> tuple[float, list[str]]:
    """Seconds from a fault to the first 503, and its reasons; the pipeline is ready before."""
    until(lambda: pipeline.http("/readyz")[0] == 200, "ready", SETTLE_S)
    fault()
    began = time.monotonic()
    while True:
        code, reasons = code_and_reasons(pipeline)
        took = time.monotonic() - began
        if code == 503:
            return took, reasons
        assert took < 10.0, "ready in spite of the fault"
        time.sleep(0.01)


@contextlib.contextmanager
def suspended(pid: int) -> Iterator[None]:
    """Suspend a process meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("process", ["orderbook-0", "trades-0", CONNECTOR, "forwarder"])
def test_a_killed_process_ends_readiness_at_once(shared: Pipeline, process: str) -> None:
    pid = shared.pid(process)

    took, reasons = time_to_503(shared, lambda: kill(pid))

    assert took < 0.3
    assert any(reason.startswith(f"{process}: ") for reason in reasons)


@pytest.mark.parametrize("process", ["orderbook-0", "trades-0", CONNECTOR, "forwarder"])
def test_a_hung_process_ends_readiness_within_a_second_and_a_half(
    shared: Pipeline, process: str
) -> None:
    until(lambda: shared.http("/readyz")[0] == 200, "ready", SETTLE_S)
    pid = shared.pid(process)
    with contextlib.ExitStack() as stack:
        took, _ = time_to_503(shared, lambda: stack.enter_context(suspended(pid)))
        # The books of a hung connector are stale before the connector itself counts as silent.
        until(lambda: f"{process}: silent" in code_and_reasons(shared)[1], "the process is named")
        states = {entry["process"]: entry["state"] for entry in shared.status()["processes"]}

    assert took < 1.5
    assert "silent" == states[process]
    until(lambda: shared.http("/readyz")[0] == 200, "ready again", SETTLE_S)
    assert pid == shared.pid(process), "it was not restarted"


def test_a_silent_exchange_ends_readiness_within_two_seconds(
    start: Callable[..., Pipeline],
) -> None:
    """It neither sends data nor answers pings, and the connection stays open."""
    exchange = Exchange("--symbols", "BTCUSDT,ETHUSDT")
    try:
        pipeline = start("--source", "live", "--url", exchange.url)
        with contextlib.ExitStack() as stack:
            took, reasons = time_to_503(
                pipeline, lambda: stack.enter_context(suspended(exchange.process.pid))
            )

        assert took < 2.0
        assert reasons
    finally:
        exchange.kill()


def test_no_process_counts_as_silent_or_hung_because_the_supervisor_was_suspended(
    shared: Pipeline,
) -> None:
    until(lambda: shared.http("/readyz")[0] == 200, "ready", SETTLE_S)
    pids = {name: shared.pid(name) for name in ("orderbook-0", "trades-0", CONNECTOR)}
    logged = shared.log.stat().st_size
    with suspended(shared.process.pid):
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 3.0, "three seconds")

    until(lambda: shared.http("/readyz")[0] == 200, "ready", SETTLE_S)

    states = {entry["process"]: entry["state"] for entry in shared.status()["processes"]}
    assert {"up"} == set(states.values())
    assert pids == {name: shared.pid(name) for name in pids}
    assert "process silent" not in shared.log.read_text()[logged:]
