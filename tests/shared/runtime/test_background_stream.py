"""Output whose reader stalls costs lines, never the time of the caller."""

import os
import threading
import time
from collections.abc import Iterator
from queue import Queue
from typing import TextIO

import pytest

from bybit_pipeline.shared.runtime.background_stream import WAITING_MAX, BackgroundStream

DEADLINE_S = 10.0
PROMPT_S = 2.0
"""More than any of these calls needs, and less than they would wait for a reader."""


class Pipe:
    """A pipe of the system's usual size, and its reader."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        self.stream: TextIO = os.fdopen(writer, "w")

    def read(self, number: int) -> list[str]:
        """Read until there are this many lines."""
        data, deadline = b"", time.monotonic() + DEADLINE_S
        while data.count(b"\n") < number:
            assert time.monotonic() < deadline, data[-200:]
            data += os.read(self.reader, 65536)
        return data.decode().splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe that nobody reads until the test does."""
    pipe = Pipe()
    yield pipe
    os.close(pipe.reader)
    pipe.stream.close()


def line(number: int) -> str:
    """A line of the length of a log line."""
    return f"{number} {'x' * 300}\n"


def overfill(output: BackgroundStream) -> int:
    """Write far more than a pipe and the queue can hold; return the number of lines."""
    began = time.monotonic()
    number = 3 * WAITING_MAX
    for each in range(number):
        output.write(line(each))
    assert time.monotonic() - began < PROMPT_S
    return number


def test_a_stalled_reader_costs_lines_and_each_is_counted(pipe: Pipe) -> None:
    reports: Queue[int] = Queue()
    output = BackgroundStream(pipe.stream, on_loss=reports.put)
    written = overfill(output)
    lost = output.lost
    assert written - WAITING_MAX - 300 < lost <= written - WAITING_MAX

    received = pipe.read(written - lost)

    assert lost == reports.get(timeout=DEADLINE_S)
    numbers = [int(each.partition(" ")[0]) for each in received]
    assert sorted(set(numbers)) == numbers
    assert output.close(DEADLINE_S)
    assert reports.empty()


def test_a_stalled_reader_does_not_hold_up_the_end(pipe: Pipe) -> None:
    output = BackgroundStream(pipe.stream)
    written = overfill(output)
    began = time.monotonic()
    assert not output.close()
    assert time.monotonic() - began < PROMPT_S

    pipe.read(written - output.lost)
    assert output.close(DEADLINE_S)


def test_closing_writes_what_waits(pipe: Pipe) -> None:
    output = BackgroundStream(pipe.stream)
    for each in range(100):
        output.write(line(each))
    assert output.close(DEADLINE_S)

    assert 100 == len(pipe.read(100))
    assert not output.is_behind
    assert 0 == output.lost


def test_a_line_longer_than_a_pipe_arrives_whole(pipe: Pipe) -> None:
    output = BackgroundStream(pipe.stream)
    long = "y" * 300_000
    output.write("before\n")
    output.write(f"{long}\n")
    output.write("after\n")

    assert ["before", long, "after"] == pipe.read(3)
    assert output.close(DEADLINE_S)


def test_text_that_is_no_unicode_is_escaped(pipe: Pipe) -> None:
    output = BackgroundStream(pipe.stream)
    output.write("名 \ud800\n")

    assert ["名 \\ud800"] == pipe.read(1)
    assert output.close(DEADLINE_S)


def test_a_pipe_that_another_process_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    """The mode belongs to the open file, which all processes of a shell's pipeline share."""
    os.set_blocking(pipe.stream.fileno(), False)
    output = BackgroundStream(pipe.stream)
    for each in range(1000):
        output.write(line(each))

    assert 1000 == len(pipe.read(1000))
    assert output.close(DEADLINE_S)
    assert 0 == output.lost


def test_a_reader_that_has_ended_is_an_error_and_its_lines_are_counted(pipe: Pipe) -> None:
    gone, writer = os.pipe()
    os.close(gone)
    with os.fdopen(writer, "w") as stream:
        output = BackgroundStream(stream)
        for each in range(10):
            output.write(line(each))
        assert output.close(DEADLINE_S)

    assert 10 == output.lost
    assert isinstance(output.error, BrokenPipeError)


def test_lines_of_two_writers_do_not_mix(pipe: Pipe) -> None:
    outputs = [BackgroundStream(pipe.stream) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda o=output: [o.write(line(n)) for n in range(2000)])
        for output in outputs
    ]
    for thread in threads:
        thread.start()

    received = pipe.read(4000)

    assert {line(n).strip() for n in range(2000)} == set(received)
    for output, thread in zip(outputs, threads, strict=True):
        thread.join()
        assert output.close(DEADLINE_S)
