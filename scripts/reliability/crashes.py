"""
A child that crashes at every start: the forwarder, whose port another socket has taken.

``scripts/soak crashes`` continues until the forwarder is flapping, releases the port, and waits
until it is no longer flapping, which takes about two minutes. The test stops after a few crashes.
"""

import argparse
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import zmq

from scripts.reliability.rig import CONNECTOR
from tests.system.pipeline import Pipeline, kill, until

ARGUMENTS = ("--source", "sim", "--metrics", "tcp://127.0.0.1:0")
OTHERS = ("trades-0", "orderbook-0", "simulator", CONNECTOR)


@contextmanager
def taken_port(pipeline: Pipeline) -> Iterator[None]:
    """Kill the forwarder, and take its port before the restarted one does."""
    address = urlsplit(pipeline.endpoints()["metrics"])
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kill(pipeline.pid("forwarder"))

        def is_bound() -> bool:
            try:
                thief.bind((address.hostname, address.port))
            except OSError:
                return False
            return True

        until(is_bound, "the port", 2)
        thief.listen()
        yield


def crash(pipeline: Pipeline, *, until_reason: str, crashes: int) -> None:
    """
    Let the forwarder crash until it has crashed ``crashes`` times and readiness names the reason.

    The other children must continue, and subscribers of the old address must get messages again.
    """
    pipeline.wait_ready()
    before = {name: pipeline.pid(name) for name in OTHERS}
    with taken_port(pipeline):
        until(lambda: restarts(pipeline) >= crashes, f"{crashes} crashes", 60)
        until(lambda: until_reason in pipeline.http("/readyz")[1], until_reason, 60)
        assert pipeline.http("/readyz")[0] == 503
        handled = books_handled(pipeline)
        until(lambda: books_handled(pipeline) > handled + 10, "more books", 5)
    until(lambda: pipeline.pid("forwarder") and is_served(pipeline), "messages again", 45)
    assert before == {name: pipeline.pid(name) for name in OTHERS}


def restarts(pipeline: Pipeline) -> int:
    """Return the restarts of the forwarder after it has exited by itself."""
    return int(pipeline.total("supervisor", "process_restarts_total", '"forwarder"', '"exit"'))


def books_handled(pipeline: Pipeline) -> float:
    """Return the book messages that the orderbook worker has handled."""
    return pipeline.total("orderbook-0", "worker_messages_total", 'stream="book"')


def is_served(pipeline: Pipeline) -> bool:
    """Return True if a new subscriber gets a message within a second."""
    context = zmq.Context()
    try:
        subscriber = context.socket(zmq.SUB)
        subscriber.subscribe("orderbook.")
        subscriber.connect(pipeline.endpoints()["metrics"])
        return bool(subscriber.poll(1000))
    finally:
        context.destroy(linger=0)


def main() -> int:
    """Run and print the figures; an assertion fails if the pipeline does not recover."""
    parser = argparse.ArgumentParser(
        prog="scripts/soak crashes", description="Let the forwarder crash at every start."
    )
    parser.parse_args()
    with TemporaryDirectory() as directory:
        pipeline = Pipeline(Path(directory), *ARGUMENTS)
        try:
            pipeline.wait_ready()
            began = time.monotonic()
            crash(pipeline, until_reason="forwarder: flapping", crashes=5)
            print(
                f"flapping after {restarts(pipeline)} crashes; works again after "
                f"{time.monotonic() - began:.0f} s"
            )
            until(lambda: pipeline.http("/readyz")[0] == 200, "no longer flapping", 75)
            print(f"ready again after {time.monotonic() - began:.0f} s")
            pipeline.stop()
        finally:
            pipeline.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
