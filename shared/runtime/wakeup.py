"""A wakeup: one thread, or a signal, ends another thread's wait in ``poll``."""

import signal
import socket
import threading
from contextlib import suppress

import zmq

Pollable = zmq.Socket[bytes] | int
"""A ZeroMQ socket or a file descriptor."""

_READ_BYTES = 4096


class Wakeup:
    """
    A flag that a poll loop can wait for, like a ``threading.Event`` with a file descriptor.

        wakeup = Wakeup()
        poller.register(wakeup.fileno(), zmq.POLLIN)
        ...
        wakeup.set()      # another thread: the poll returns
        wakeup.clear()    # the poll loop, before it looks at what there is to do

    ``set`` is for any thread and does nothing after ``close``. ``clear`` and ``close`` are for the
    thread that polls.
    """

    def __init__(self) -> None:
        # Not a pipe: the client uses this class too, and on Windows only sockets can be polled.
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._is_closed = False
        self._catches_signals = False
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """The file descriptor to poll: readable from ``set`` to ``clear``."""
        return self._reader.fileno()

    def set(self) -> None:
        """Make ``fileno`` readable. Not for signal handlers; see ``catch_signals``."""
        with self._lock:
            if not self._is_closed:
                with suppress(BlockingIOError):  # full: it is set
                    self._writer.send(b"\0")

    def clear(self) -> None:
        """Make ``fileno`` unreadable until the next ``set``."""
        with suppress(BlockingIOError):  # empty: it is clear
            while len(self._reader.recv(_READ_BYTES)) == _READ_BYTES:
                pass

    def catch_signals(self) -> None:
        """
        Let every signal that has a Python handler set this wakeup, until ``close``.

        Without it a signal that arrives just before ``poll`` is handled only when the poll ends.
        For the main thread only.
        """
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._catches_signals = True

    def close(self) -> None:
        """Close both ends; a second call does nothing."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            if self._catches_signals:
                signal.set_wakeup_fd(-1)
            self._reader.close()
            self._writer.close()
