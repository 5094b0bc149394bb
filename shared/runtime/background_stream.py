"""
A text stream for output that is optional: a log, a view on the terminal.

Its reader may stall at any time: a log driver that blocks, a stopped pager, a hung disk. A thread
of its own writes, so that only that thread waits. The descriptor stays in blocking mode: that mode
is a property of the open file, which other processes share.
"""

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO

WAITING_MAX = 4096
"""Texts that wait to be written; further ones are lost."""
ATOMIC_BYTES = 4096
"""Bytes that a pipe takes in one piece (PIPE_BUF): lines of several processes do not mix."""
CLOSE_S = 0.5
"""Time at the end for what still waits, in seconds."""


class BackgroundStream:
    """
    Writes text to the descriptor of another stream; ``write`` never waits and never fails.

    Args:
        stream: The stream; this object takes the place of it.
        on_loss: Called with the number of lines lost since the last call, once a line could be
            written again; by the thread that writes.

    Attributes:
        lost: Lines that could not be written.
        error: The error of the latest attempt to write; None if it succeeded.
    """

    encoding = "utf-8"

    def __init__(self, stream: TextIO, *, on_loss: Callable[[int], None] | None = None) -> None:
        self.lost = 0
        self.error: OSError | None = None
        self._stream = stream
        self._descriptor = stream.fileno()
        self._on_loss = on_loss
        self._reported = 0
        self._waiting: deque[bytes] = deque()
        self._writing = 0
        """Texts that the thread has taken and not finished."""
        self._is_closing = False
        self._changed = threading.Condition(threading.Lock())
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    @property
    def is_behind(self) -> bool:
        """True while text waits to be written."""
        return len(self._waiting) + self._writing > 0

    def write(self, text: str) -> int:
        """Take text to be written soon, or count it as lost if too much is waiting."""
        data = text.encode(self.encoding, "backslashreplace")
        if not data:
            return 0
        with self._changed:
            if len(self._waiting) + self._writing < WAITING_MAX:
                self._waiting.append(data)
                self._changed.notify()
            else:
                self.lost += data.count(b"\n")
        return len(text)

    def flush(self) -> None:
        """Do nothing: text is written as soon as possible."""

    def fileno(self) -> int:
        """Return the descriptor that is written to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return True if the descriptor is a terminal."""
        return self._stream.isatty()

    def close(self, within_s: float = CLOSE_S) -> bool:
        """
        Write what waits, then end the thread; return False if that takes longer than ``within_s``.

        A thread that still waits for its reader ends with the process.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while data := self._take():
            self._put_out(data)
            self._writing = 0
            if self.error is None and self.lost > self._reported and not self._waiting:
                lines, self._reported = self.lost - self._reported, self.lost
                if self._on_loss is not None:
                    self._on_loss(lines)

    def _take(self) -> bytes:
        """Wait for text and take up to ``ATOMIC_BYTES``, or one longer text; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            data = b""
            while self._waiting and (not data or len(data) + len(self._waiting[0]) <= ATOMIC_BYTES):
                data += self._waiting.popleft()
                self._writing += 1
            return data

    def _put_out(self, data: bytes) -> None:
        """Write all of it, or count its lines as lost."""
        left = memoryview(data)
        try:
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:  # another process has set the open file to non-blocking
                    self._wait_writable()
        except OSError as error:
            self.error = error
            with self._changed:
                self.lost += bytes(left).count(b"\n")
        else:
            self.error = None

    def _wait_writable(self) -> None:
        poller = select.poll()
        poller.register(self._descriptor, select.POLLOUT)
        poller.poll()
