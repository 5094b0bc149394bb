"""Standard output of the commands: answers, examples in the help, and faults of the stream."""

import errno
import io
import json
import os
import sys
from collections.abc import Iterable
from typing import Any

_UNWRITABLE = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EBADF: "it is closed",
    errno.EIO: "the terminal or the disk does not respond",
}
"""Reasons why writing to stdout fails, by error number."""


def examples(*lines: str) -> str:
    """Return the text that ``--help`` shows below the options, line by line."""
    return "\n".join(["\b", "Examples:", *(f"  bybit-pipeline {line}" for line in lines)])


def print_answer(answer: Any, lines: Iterable[str]) -> None:
    """Print an answer as JSON, or, if it is None, lines for people."""
    if answer is not None:
        print(json.dumps(answer, indent=2))
        return
    from bybit_pipeline.supervisor.tui.highlight import show  # loads rich

    show(lines)


def print_array(rows: Iterable[Any]) -> None:
    """Print records as a JSON array, one a line: it may be longer than memory would hold."""
    import msgspec

    encode = msgspec.json.Encoder().encode
    before = "[\n"
    for row in rows:
        print(f"{before}  {encode(row).decode()}", end="")
        before = ",\n"
    print("[]" if before == "[\n" else "\n]")


def print_error(line: str) -> None:
    """Print a line on stderr; a stderr that cannot be written does not change the exit code."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def open_missing_streams() -> None:
    """
    Replace standard streams that the caller closed.

    Otherwise their descriptors would go to the next sockets. Writing to a closed stdout remains an
    error; what goes to a closed stderr is lost.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, flags), number)
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False))
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False))


def stdout_fault(error: OSError) -> str | None:
    """Return one line about an error of writing to stdout; None for any other error."""
    reason = _UNWRITABLE.get(error.errno or 0)
    return None if reason is None or error.filename else f"stdout: cannot be written: {reason}"


def discard_stdout() -> None:
    """Drop what is still buffered for stdout, so that the interpreter ends quietly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
